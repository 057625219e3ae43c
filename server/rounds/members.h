/* members — what a worker is to a model: a member, found by the worker's name.
 *
 * A model keeps its members in ascending byte order of their names, in which rounds
 * aggregate; a worker keeps a list of its own. How a member joins, leaves and is lost
 * is membership.h. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_MEMBERS_H
#define OPTIMD_SERVER_ROUNDS_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/alarm.h"
#include "server/rounds/push_stats.h"
#include "server/rounds/window.h"
#include "server/weights/last_pull.h"
#include "server/workers/barrier.h"

struct engine;
struct model;
struct peer;
struct push;
struct worker;

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
    struct push_stats push_stats;
    struct arrival arrival; /* at the barrier */
    struct last_pull last_pull;
    uint64_t since;       /* the worker's incarnation when it became a member: of pushes
                             made under an earlier one nothing is known */
    struct window window; /* what became of its last pushes since then */
};

/* The member that the peer is in this model, or NULL. */
struct member *members_of(const struct model *model, const struct peer *peer);
/* A member more, that has joined nothing yet, and room for all it may push. NULL: no
 * memory. */
struct member *members_add(struct engine *engine, struct model *model,
                           struct worker *worker);
/* Free it. What it held elsewhere has been given back. */
void members_remove(struct member *member);

#endif
