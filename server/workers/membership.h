/* membership — members: which workers have joined which models, and their loss.
 *
 * What a worker (worker.h) is to a model is a member; it stays known for a while after
 * the worker has left, because of its sequence numbers.
 *
 *                join                    connection broken
 *   (unknown) --------> joined <-----------------------------> away
 *                       ^  |  \  hello again                    |
 *                  join |  |   \ lease expired, other session   | grace over
 *                       |  |    v                               v
 *                       |  |   lost: shrink, fail -> left; wait -> joined, away
 *                       +- left <- leave, goodbye
 *
 * The loops watch for silence; the engine decides what it means. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WORKERS_MEMBERSHIP_H
#define OPTIMD_SERVER_WORKERS_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/rounds/members.h"

struct engine;
struct letter;
struct model;
struct peer;
struct record_member;
struct worker;

enum {
    MEMBERS_KEPT = 4096,            /* most that are remembered after they left */
    MEMBER_KEPT_MS = 10 * 60 * 1000 /* and for how long */
};

/* Find or make it and put it into the rounds. OPT_RESOURCE_EXHAUSTED if the gradient it
 * may send does not fit the budget. */
enum opt_status membership_join(struct engine *engine, struct model *model,
                                struct peer *peer, struct opt_error *error);
/* Tell the letter's connection how many bytes it may have in flight for the models that
 * its worker has joined, and for how many of them the engine has reserved memory. */
void membership_allow(const struct peer *peer, struct letter *letter);

/* What the peer is told of it: bytes that its requests may have in flight. */
uint64_t membership_inflight(const struct engine *engine, const struct letter *letter);
/* Whether a batch of an update is reading what the peer's worker is still sending. */
bool membership_in_use(const struct peer *peer);
/* Rest: rounds do not wait for it until its next push. */
void membership_rest(struct engine *engine, struct member *member);
/* Leave by its own will: pushes not applied are answered ABORTED, nobody is told. */
void membership_leave(struct engine *engine, struct member *member);
/* The connection is gone; expired: after so much silence. */
void membership_closed(struct engine *engine, struct peer *peer, bool expired,
                       uint64_t silent_ms);
/* What the worker was to the model when this was written down, but for its window and
 * what its pushes have come to: the member is *out. OPT_RESOURCE_EXHAUSTED as
 * membership_join. */
enum opt_status membership_restore(struct engine *engine, struct model *model,
                                   struct worker *worker,
                                   const struct record_member *was, struct member **out,
                                   struct opt_error *error);
/* All of the worker has been restored, and nobody speaks for it yet: the time that it
 * has to come back begins now. Without any member it is forgotten. */
void membership_restored(struct engine *engine, struct worker *worker);
/* Forget the member altogether. */
void membership_forget(struct engine *engine, struct member *member);
/* Losses that were found while the model was busy. True if there were any. */
bool membership_settle(struct engine *engine, struct model *model);

#endif
