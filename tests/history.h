/* history — what workers did, written down where it outlives them, and the verdict.
 *
 * Each worker numbers its pushes from 0 through all its lives and says of each when it
 * begins and when it is acknowledged. The record is shared memory, so that a worker
 * that is killed has said all it did; another program maps it by its descriptor. The
 * verdict compares it with how often the model applied each push: an acknowledged one
 * once, one that was refused not at all, and one whose worker never learnt at most
 * once.
 */
#ifndef OPTIMD_TESTS_HISTORY_H
#define OPTIMD_TESTS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct history;

/* A new one: so many workers, each of at most so many pushes. Ends the process if there
 * is no memory. */
struct history *history_new(unsigned workers, unsigned pushes);
/* The same one in a program that was started with its descriptor. */
struct history *history_open(int fd);
int history_fd(const struct history *history);
void history_free(struct history *history);

unsigned history_workers(const struct history *history);
unsigned history_pushes(const struct history *history); /* a worker's, at most */

/* The worker begins its next push. Returns its number, or history_pushes: enough. */
unsigned history_begin(struct history *history, unsigned worker);
/* It was applied, at this step (not 0); or refused, so it never will be. */
void history_applied(struct history *history, unsigned worker, unsigned push,
                     uint64_t step);
void history_refused(struct history *history, unsigned worker, unsigned push);

/* How many a worker has begun, and how many of these were acknowledged. */
unsigned history_begun(const struct history *history, unsigned worker);
unsigned history_acknowledged(const struct history *history, unsigned worker);

struct history_verdict {
    unsigned begun, acknowledged, refused;
    unsigned unknown, unknown_applied; /* nobody was told; of these, applied */
    char problem[256];                 /* of the first that is wrong; "": none is */
};

/* times[worker * pushes + push]: how often the model applied it. */
void history_judge(const struct history *history, const float *times,
                   struct history_verdict *out);

#endif
