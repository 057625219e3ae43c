/* lost_workers — the names of workers that a model has lost, until the others know
 * them.
 *
 * Each worker is told with the answers to its pushes, waits and barriers of those that
 * were lost since it was told last, or has joined. An answer that is lost with its
 * connection is not repeated. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_LOST_WORKERS_H
#define OPTIMD_SERVER_ROUNDS_LOST_WORKERS_H

#include <stdint.h>

#include "common/wire.h"

struct letter;
struct member;
struct model;

enum { LOSSES_KEPT = 64 };

struct lost_workers {
    char *names[LOSSES_KEPT]; /* a ring; NULL where there was no memory for it */
    uint64_t count;           /* so far */
};

/* A worker was lost. */
void lost_workers_note(struct model *model, const char *name);
void lost_workers_free(struct model *model);

/* The names that the member has not been told of, at most OPT_LOST_MAX, in the letter's
 * arena; it counts as told. None if member is NULL. */
struct opt_lost lost_workers_tell(const struct model *model, struct member *member,
                                  struct letter *letter);

#endif
