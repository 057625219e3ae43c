/* state — the engine's state, and what its rooms and the messages ask of it.
 *
 * Everything here belongs to the engine: to its thread, or to a loop that has its turn
 * (thread.c). A letter that comes to a serve function ends in exactly one of three
 * ways: answered (answer_send after its reply was set), failed (answer_fail), or kept
 * by a room that will do one of the two later.
 */
#ifndef OPTIMD_SERVER_ENGINE_STATE_H
#define OPTIMD_SERVER_ENGINE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/status.h"
#include "server/access/access.h"
#include "server/base/alarm.h"
#include "server/base/letter.h"
#include "server/base/memory.h"
#include "server/base/names.h"
#include "server/turn/engine.h"

struct durable;
struct model;
struct team;
struct worker;

/* What the engine has counted since it started; statistics shows them by these names.
 */
struct engine_counters {
    uint64_t requests;
    uint64_t errors;
    uint64_t pushes_applied;
    uint64_t pushes_duplicate;
    uint64_t pushes_resent; /* came again, settled or not */
    uint64_t pushes_stale;  /* of an incarnation that is over */
    uint64_t pushes_refused;
    uint64_t pushes_skipped;
    uint64_t pushes_withdrawn;
    uint64_t pushes_dropped;
    uint64_t barriers;
    uint64_t pulls;
    uint64_t updates;
    uint64_t rounds_skipped;
    uint64_t parameters_updated;
    uint64_t blocks_held; /* in which a value would have left fp32's range */
    uint64_t mailbox_ns;  /* that requests waited for the engine */
    uint64_t serve_ns;    /* that it served requests, small updates included */
    uint64_t round_ns;    /* that whole pushes waited for the others of their round */
    uint64_t update_ns;
    uint64_t versions_fresh;
    uint64_t updates_stalled;
    uint64_t workers_lost;
    uint64_t workers_reconnected; /* connections that went on with a session */
    uint64_t hellos_stale;        /* of processes that another one has followed */
    uint64_t deadlines_exceeded;
    uint64_t checkpoints;
    uint64_t checkpoint_bytes, checkpoint_ns; /* of values; from the cut on */
    uint64_t checkpoint_failures;
    uint64_t logins_refused;
    uint64_t turn_ns_most;   /* the longest turn, */
    uint64_t turn_cost_most; /* and what the largest has cost (work_done) */
};

struct engine {
    struct engine_settings settings;
    struct mailbox box;
    uv_thread_t thread;
    uv_mutex_t turn;   /* held by whoever works; guards all that is not box */
    bool visited;      /* a loop works: whatever takes long is left to the thread */
    uint64_t wakes_ns; /* when the thread looks again by itself */
    uv_sem_t drained;  /* posted when the thread runs, and when all who waited have been
                          answered */
    struct letter stop; /* asks for that; sent again, it ends the thread */
    bool started, stopping;
    bool ended; /* the thread has had its last turn: nobody has one any more */
    _Atomic bool adjusted; /* main has left other limits, */
    uv_mutex_t adjusting;  /* which this guards */
    struct engine_limits adjustment;

    uint64_t now_ns;                   /* when this turn of the loop began */
    uint64_t turn_began_ns, turn_cost; /* of one letter or one piece of work */
    struct alarms alarms;
    struct budget budget;
    struct durable *durable; /* what keeps all this on disk, or NULL */
    _Atomic uint64_t
        refused_ns; /* when last a worker's pull found no memory; for loops */
    struct engine_counters counters;
    struct team *team;

    struct names models;     /* struct model by name */
    struct model **numbered; /* the same in ascending order of their numbers */
    size_t model_count, model_capacity;
    uint32_t last_number;
    struct letters again;                       /* to be served again, */
    struct model *changed_first, *changed_last; /* to be settled, */
    struct model *busy_first, *busy_last;       /* with work in progress (work.h) */
    struct model *dead; /* deleted, to be freed between two letters, some at a time */

    struct names workers; /* struct worker by name */

    struct letters later; /* ends of peers that have letters in models' queues */

    struct letters refused; /* answered with an error in this turn, */
    struct letters outbox;  /* and all that it has answered (answer.h) */
};

enum {
    PEER_ADDRESS = 64, /* bytes of one, at most */
    PEER_SETTLED = 64 /* pushes remembered that were answered before their last frame */
};

/* The engine's side of a connection. */
struct peer {
    bool greeted;          /* said hello */
    bool closed;           /* its connection is gone */
    bool observer;         /* has no identity */
    struct worker *worker; /* whom it speaks for; NULL: observer, or replaced */
    uint64_t incarnation;
    bool continued;              /* replaced by a new connection of the same session */
    char name[OPT_NAME_MAX + 1]; /* of the worker, "": none */
    char address[PEER_ADDRESS];  /* for the log */
    char *identity;              /* as proved: see peer_identify; NULL: nobody */
    struct visitor visitor;      /* what that means here, and what it may */
    size_t letters;              /* of it in the engine's hands */
    size_t queued;               /* of those in queues of busy models */
    uint64_t settled[PEER_SETTLED]; /* request ids, a ring */
    size_t settled_next;
};

/* Serve a letter that has come. */
void engine_receive(struct engine *engine, struct letter *letter);
/* Serve those that come last, once their turn has come. */
void engine_serve_later(struct engine *engine);
/* The letter, the piece of work or the alarm is over: do what follows from it, and send
 * all answers. */
void engine_conclude(struct engine *engine);

#endif
