/* history — what workers did, written down where it outlives them, and the verdict.
 *
 * Each worker numbers its pushes from 0 through all its lives and says of each when it
 * begins and what it was told of it. The record is shared memory, so that a worker that
 * is killed has said all it did; another program maps it by its descriptor. The verdict
 * compares it with how often the model applied each push, or each part (shard) of it.
 */
#ifndef OPTIMD_TESTS_SUPPORT_HISTORY_H
#define OPTIMD_TESTS_SUPPORT_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"

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

/* The worker begins its next push. Returns its number, or history_pushes: enough.
 * Several processes may do so for one worker at a time. */
unsigned history_begin(struct history *history, unsigned worker);
/* It was told what became of the push: the result of the call, whether that failed or
 * not. */
void history_told(struct history *history, unsigned worker, unsigned push,
                  const struct optclient_result *result);

/* How many a worker has begun, how many of these were told to be applied, and how many
 * were taken: applied, or dropped by a round that did without them. */
unsigned history_begun(const struct history *history, unsigned worker);
unsigned history_acknowledged(const struct history *history, unsigned worker);
unsigned history_taken(const struct history *history, unsigned worker);

struct history_verdict {
    unsigned begun;
    /* What was told of them: applied; dropped or skipped; not applied; some parts were;
     * that it is not known. */
    unsigned acknowledged, dropped, refused, in_part, not_known;
    unsigned untold;                   /* the worker was killed before */
    unsigned unknown, unknown_applied; /* not_known and untold; of these, applied */
    unsigned wrong;
    char problem[400]; /* of the first that is wrong; "": none is */
};

/* times[(part * workers + worker) * pushes + push]: how often the model applied that
 * part. What was acknowledged must have been applied once in all parts; what was
 * refused or dropped, not at all; what was applied in part, once in as many as were
 * told; and what nobody knows once at most, in all parts or in none unless splits. */
void history_judge(const struct history *history, const float *times, unsigned parts,
                   bool splits, struct history_verdict *out);

#endif
