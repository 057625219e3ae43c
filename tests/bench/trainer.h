/* trainer — a synchronous worker in a process of its own, stepping when told to.
 *
 * It stands for a training process without the training: the same gradient again and
 * again, pushed and answered by the new weights. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_TRAINER_H
#define OPTIMD_TESTS_BENCH_TRAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/optclient.h"

/* How values go between worker and daemon. */
enum trainer_way {
    TRAINER_SENDS,   /* over the socket */
    TRAINER_COPIES,  /* over a Unix socket: through memory that both have */
    TRAINER_IN_PLACE /* the same, and the worker's own are there too */
};

/* The model that all trainers of a run share. */
struct trainer_model {
    const char *address; /* of the daemon */
    const char *expression;
    enum optclient_atomic atomic; /* how its rounds are applied */
    size_t tensors, elements;     /* of each tensor */
    unsigned workers;             /* that make a round */
    enum trainer_way way;
    bool frugal; /* a worker has memory for one tensor only, which stands for all */
};

struct trainer {
    pid_t pid;
    int orders, results; /* pipes */
};

/* Fork a worker; it connects, joins and pulls while the caller goes on. */
bool trainer_start(struct trainer *trainer, const struct trainer_model *model,
                   unsigned rank, char problem[256]);
void trainer_stop(struct trainer *trainer);

/* Tell it to make that many steps, at most 64; does not wait. */
bool trainer_order(struct trainer *trainer, unsigned steps);
/* Wait for them: the median time of a step in seconds, or a negative number with a
 * sentence. */
double trainer_result(struct trainer *trainer, char problem[256]);

/* Have all of them make that many steps at the same time: the slowest one's median
 * time, or a negative number with a sentence. */
double trainers_run(struct trainer *trainers, unsigned count, unsigned steps,
                    char problem[256]);

#endif
