/* soak — the rooms of the long run: what its workers do, and how the daemon fares.
 *
 * soak.c is the program: it starts the daemon and the workers, kills, freezes and cuts
 * by a seed, and gives the verdict. One thread, beside the proxy's.
 */
#ifndef OPTIMD_TESTS_SOAK_SOAK_H
#define OPTIMD_TESTS_SOAK_SOAK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/optclient.h"
#include "tests/history.h"

enum {
    SOAK_MODELS = 2, /* one synchronous, one asynchronous */
    SOAK_WORKERS = 8,
    SOAK_COMMON = 30000,  /* elements that each push adds to */
    SOAK_LARGE = 1200000, /* and those of every SOAK_LARGE_EVERY-th: two frames */
    SOAK_LARGE_EVERY = 16
};

/* The tensors of a model: a sparse table with a row for each push that any worker can
 * make, and two dense ones. */
enum { SOAK_OWN, SOAK_COMMONS, SOAK_LARGES, SOAK_TENSORS };

/* A life of a worker, in a process of its own that was started with these: push to both
 * models by turns and write history, until SIGTERM. Returns its exit status. */
int soak_worker(const char *address, unsigned number,
                struct history *const histories[SOAK_MODELS]);

/* Create or join a model; a sentence is in optclient_error if it fails. */
enum optclient_status soak_open(struct optclient *client, unsigned model, unsigned rows,
                                struct optclient_model **out);

/* Judge a model by its history: every push counted as often as it must, in all of its
 * tensors. False with a sentence. */
bool soak_judge(struct optclient *client, unsigned model, const struct history *history,
                struct history_verdict *verdict, char problem[512]);

/* Resident memory in bytes and open descriptors of a process; 0 if it has ended. */
size_t soak_resident(pid_t pid);
size_t soak_descriptors(pid_t pid);

#endif
