/* soak — the rooms of the long run: its models, what its workers do, what happens to
 * them, and how weights and daemon fare.
 *
 * soak.c is the program: it starts the daemon, the proxies and the workers, and gives
 * the verdict. One thread, beside the proxies'.
 */
#ifndef OPTIMD_TESTS_SOAK_SOAK_H
#define OPTIMD_TESTS_SOAK_SOAK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/optclient.h"
#include "tests/support/history.h"

enum {
    SOAK_MODELS = 6, /* one of each policy */
    SOAK_WORKERS = 8,
    SOAK_PARTS = 3,       /* of a push, each in a shard of its own */
    SOAK_DIGITS = 12,     /* pushes that an element tells apart */
    SOAK_PUSHES = 18432,  /* of a worker on a model, at least: */
    SOAK_PER_SECOND = 30, /* so many or less */
    SOAK_REPLACED = 3,    /* exit status: another process has the worker's name */
    SOAK_HEADER_KIB = 16, /* of the daemon's frames, */
    SOAK_FRAME_KIB = 88   /* so that a push takes several */
};

/* ---------------------------------------------------------------- models (models.c) */

const char *soak_name(unsigned model);
/* Whether the parts of a push may count one by one. */
bool soak_splits(unsigned model);

/* Elements of a part: as many as pushes need. */
size_t soak_elements(unsigned pushes);
/* The position of a part's tensor. */
size_t soak_tensor(unsigned part);
/* What a push adds, and to which element of each part. */
size_t soak_element(size_t push);
float soak_digit(size_t push);
/* How often that push counts in weights: 0 to 3; NaN if they are no such sum. */
float soak_times(const float *weights, size_t push);

/* Create or join a model; a sentence is in optclient_error if it fails. */
enum optclient_status soak_open(struct optclient *client, unsigned model,
                                unsigned pushes, struct optclient_model **out);

/* ---------------------------------------------------------------- workers (worker.c)
 */

/* The way on which a worker's bytes go. */
enum soak_route { SOAK_CUT, SOAK_DAMAGED, SOAK_UNIX, SOAK_ROUTES };
enum soak_route soak_route(unsigned worker);

/* A life of a worker, in a process of its own that was started with these: push to all
 * models at the same time and write history, until SIGTERM. SIGUSR1 cuts its
 * connection. Returns its exit status. */
int soak_worker(const char *address, unsigned number, uint64_t seed,
                struct history *const histories[SOAK_MODELS]);

/* -------------------------------------------------------- what happens (strikes.c) */

struct soak_seats; /* one for each worker: who has its name now, who had it before */

/* Starts a worker; returns its process. */
typedef pid_t (*soak_start)(unsigned worker);

/* Start all. */
struct soak_seats *soak_seats_new(soak_start start,
                                  struct history *const histories[SOAK_MODELS],
                                  uint64_t seed);
/* Let happen what is due at this time, and see that everybody lives and gets on. False
 * with a sentence. */
bool soak_seats_tick(struct soak_seats *seats, double now, char problem[512]);
/* Ask all to end, and wait for it: false if one does not, or not well. */
bool soak_seats_end(struct soak_seats *seats, char problem[512]);
void soak_seats_free(struct soak_seats *seats);
/* "12 kills, 3 stops, ..." and whether each has happened. */
bool soak_seats_counts(const struct soak_seats *seats, char text[256]);

/* ---------------------------------------------------------------- verdict (verdict.c)
 */

/* Judge a model by its history: every push counted as often as it must, in all of its
 * parts. Then delete it, with the files that it shared. False with a sentence. */
bool soak_judge(struct optclient *client, unsigned model, const struct history *history,
                struct history_verdict *verdict, char problem[512]);

/* Resident memory in bytes and open descriptors of a process; 0 if it has ended. */
size_t soak_resident(pid_t pid);
size_t soak_descriptors(pid_t pid);

#endif
