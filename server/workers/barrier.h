/* barrier — where all workers of a model wait until the last of them has come.
 *
 * A worker's coming belongs to the member, not to the letter that told of it: it stays
 * when the connection breaks, and the same barrier asked for again on another
 * connection goes on waiting, or is answered at once if it was passed meanwhile. All
 * who have come are let go together, so nobody can meet somebody of the next barrier.
 *
 *   arrive -> here -> all are here: passed
 *              \ deadline, leave, lost -> not here
 *
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WORKERS_BARRIER_H
#define OPTIMD_SERVER_WORKERS_BARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/base/alarm.h"

struct engine;
struct letter;
struct member;
struct model;
struct peer;

/* A member at the barrier, or not: it is there as long as a request of it waits on a
 * connection that lives. Who has lost the connection may have given up meanwhile, so it
 * comes again by asking again. */
struct arrival {
    struct letter *letter; /* to be answered; NULL: it is not here */
    struct alarm deadline; /* of the letter */
    uint64_t session;      /* whose sequences these are */
    uint64_t sequence;     /* that is waited for */
    uint64_t passed;       /* highest that was passed */
};

/* A worker has come: answers the letter, or keeps it. */
void barrier_arrive(struct engine *engine, struct model *model, struct letter *letter);
/* If all are here, let them go: true. */
bool barrier_try(struct engine *engine, struct model *model);
/* A worker is not here any more; its letter, if there is one, is answered with the
 * error. */
void barrier_withdraw(struct engine *engine, struct member *member,
                      enum opt_status status, enum opt_detail detail, const char *why);
/* None of those who have come is here any more; their letters are answered with the
 * error. */
void barrier_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    enum opt_detail detail, const char *why);
/* The connection is gone, or its worker goes on with another one: who waits there by
 * it is not here any more. */
void barrier_closed(struct engine *engine, const struct peer *peer);

#endif
