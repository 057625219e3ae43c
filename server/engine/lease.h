/* lease — members: which workers have joined which models, and their loss.
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
#ifndef OPTIMD_SERVER_ENGINE_LEASE_H
#define OPTIMD_SERVER_ENGINE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"
#include "server/engine/alarm.h"
#include "server/engine/barrier.h"
#include "server/engine/conduct.h"
#include "server/engine/recall.h"
#include "server/engine/window.h"

struct engine;
struct letter;
struct model;
struct peer;
struct push;
struct worker;

enum {
    MEMBERS_KEPT = 4096,            /* most that are remembered after they left */
    MEMBER_KEPT_MS = 10 * 60 * 1000 /* and for how long */
};

struct member {
    struct worker *worker;
    struct member *next_of_worker;
    struct model *model;
    struct alarm alarm; /* away: end of grace; left: end of memory */
    bool joined;        /* registered: rounds wait for it */
    bool resting;       /* but not until its next push */
    bool away;          /* joined, but nobody speaks for it */
    bool lost;          /* away, and known to be lost: policy wait */
    bool loss_pending;  /* lost while the model was busy */
    uint64_t left_ns;
    size_t reserved;    /* of the budget, while joined */
    uint64_t last_step; /* of its last applied push */
    uint64_t lost_step; /* of the model when the worker was lost; 0: never */
    uint64_t applied, duplicates, refused, resends;
    struct push *gathering;    /* the push whose frames are arriving */
    struct push *first, *last; /* complete ones, ascending sequence */
    size_t waiting;            /* how many */
    uint64_t clock;            /* pushes settled, or as many as the slowest had when it
                                  joined: what `staleness` compares */
    uint64_t told;             /* losses of the model that it knows of */
    struct conduct conduct;
    struct arrival arrival; /* at the barrier */
    struct recall recall;
    uint64_t since;       /* the worker's incarnation when it became a member: of pushes
                             made under an earlier one nothing is known */
    struct window window; /* what became of its last pushes since then */
};

/* The member that the peer is in this model, or NULL. */
struct member *lease_member(const struct model *model, const struct peer *peer);
/* Find or make it and put it into the rounds. OPT_RESOURCE_EXHAUSTED if the gradient it
 * may send does not fit the budget. */
enum opt_status lease_join(struct engine *engine, struct model *model,
                           struct peer *peer, struct opt_error *error);
/* Tell the letter's connection how many bytes it may have in flight for the models that
 * its worker has joined, and for how many of them the engine has reserved memory. */
void lease_allow(const struct peer *peer, struct letter *letter);

/* What the peer is told of it: bytes that its requests may have in flight. */
uint64_t lease_inflight(const struct engine *engine, const struct letter *letter);
/* Whether a batch of an update is reading what the peer's worker is still sending. */
bool lease_in_use(const struct peer *peer);
/* Rest: rounds do not wait for it until its next push. */
void lease_rest(struct engine *engine, struct member *member);
/* Leave by its own will: pushes not applied are answered ABORTED, nobody is told. */
void lease_leave(struct engine *engine, struct member *member);
/* The worker is gone for good: what that means to the round is the model's policy. */
void lease_lost(struct engine *engine, struct member *member);
/* The connection is gone; expired: after so much silence. */
void lease_closed(struct engine *engine, struct peer *peer, bool expired,
                  uint64_t silent_ms);
/* Forget the member altogether. */
void lease_forget(struct engine *engine, struct member *member);
/* Losses that were found while the model was busy. True if there were any. */
bool lease_settle(struct engine *engine, struct model *model);

#endif
