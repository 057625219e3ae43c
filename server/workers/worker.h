/* worker — identities: who speaks for a name, and in which life.
 *
 * A worker is a name that one connection at a time speaks for. Its lives are counted:
 * each is an incarnation. A connection with the same session goes on with the present
 * one, unless the worker was taken for dead meanwhile; then, and for another session, a
 * new one begins and everything of the one before is stale.
 *
 *   hello                       same session          other session, not older
 *   known, not taken for dead   goes on               next incarnation
 *   taken for dead              next incarnation      next incarnation
 *   not known                   next after the one that hello names
 *
 * An older session that was followed by another one is refused: two processes cannot
 * take one name from each other for ever. What a worker is to a model is a member
 * (membership.h). In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WORKERS_WORKER_H
#define OPTIMD_SERVER_WORKERS_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct engine;
struct member;
struct peer;
struct record_worker;

enum { WORKER_WHY = 64 };

struct worker {
    char *name;
    uint64_t session;
    uint64_t incarnation;
    uint64_t reconnects;       /* of the present session */
    struct peer *peer;         /* who speaks for it now, or NULL */
    bool lost;                 /* taken for dead, and not back yet */
    char lost_why[WORKER_WHY]; /* "after 5.0 s of silence"; "": it was not */
    struct member *members;    /* by next_of_worker */
};

/* The connection says who it is. Finds or makes the worker, detaches whoever spoke for
 * it, begins a new incarnation if that is due. OPT_FAILED_PRECONDITION: its incarnation
 * is stale. OPT_UNAVAILABLE: no memory. */
enum opt_status worker_hello(struct engine *engine, struct peer *peer,
                             const struct opt_hello *hello, struct opt_error *error);

/* The worker of that name, made if it is not known, as it was when this was written
 * down (NULL: as it is). It stays, whatever it is a member of, as long as keeper speaks
 * for it, which is whoever restores it. NULL: no memory. */
struct worker *worker_restore(struct engine *engine, struct peer *keeper,
                              const char *name, const struct record_worker *was);

/* Nobody speaks for it any more; what was half sent is dropped,
 * unless a round is being made of it. continued: because it
 * goes on over another connection. */
void worker_detach(struct engine *engine, struct worker *worker, bool continued);

/* It is taken for dead: the next hello of its session begins a new incarnation. The
 * words follow "was taken for dead at step 17 ". */
void worker_mark_lost(struct engine *engine, struct worker *worker, const char *format,
                      ...) __attribute__((format(printf, 3, 4)));

/* All its memberships are lost, at the end of this turn or as soon as each model is
 * idle (membership_settle). */
void worker_lose_all(struct engine *engine, struct worker *worker);

/* Free it if nobody speaks for it and no model remembers it. */
void worker_release(struct engine *engine, struct worker *worker);

/* Free a worker that is in no table any more; NULL is allowed. */
void worker_free(struct worker *worker);

#endif
