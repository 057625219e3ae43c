/* loop — a thread that serves connections with one libuv loop.
 *
 * main starts the loops and deals accepted sockets to them in turn; from then on a
 * connection belongs to one loop. Everything that reaches a loop from another thread
 * comes through its mailbox: sockets from main, answers from the engine, the end.
 *
 * A callback only notes what happened and puts the connection on the loop's ready list;
 * the list is served once at the end of the callback, and so is what short requests it
 * has received (engine_visit). So answers that come together are sent together, and
 * nothing that a callback stands on is freed under it.
 */
#ifndef OPTIMD_SERVER_NET_LOOP_H
#define OPTIMD_SERVER_NET_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include <xxhash.h>

#include "common/frame.h"
#include "common/status.h"
#include "common/wire.h"
#include "server/base/letter.h"
#include "server/base/mailbox.h"
#include "server/base/quota.h"
#include "server/net/limits.h"

struct batch;
struct conn;
struct engine;
struct loops;
struct opt_transport;

enum {
    LOOP_AT_ONCE = 1 << 20,  /* cost of what is done for a connection at a time */
    LOOP_DISCARD = 64 << 10, /* read from peers that are no longer listened to */
    LOOP_SEGMENTS = 2048     /* most segments of a frame sent: a header below 64 KiB */
};

struct loop {
    struct loops *all;
    int number;
    uv_loop_t uv;
    uv_thread_t thread;
    bool has_thread; /* else whoever made it runs uv */
    uv_async_t wake; /* of box, and of the budget */
    uv_timer_t tick;
    uv_prepare_t turned; /* called before it waits for events */
    struct mailbox box;
    struct letter stop[2]; /* sent by main: read no more; end */
    struct conn *conns;    /* every one of this loop */
    size_t farewells;      /* with the engine: it returns these letters, too */
    struct conn *ready;    /* to be served before the callback returns */
    struct conn *ready_last;
    struct conn *held;      /* to be read from when others have had their turn */
    uint64_t spin_ns;       /* how long it goes on looking after the last bytes, */
    uint64_t heard_ns;      /* which came then; kept only for that */
    bool has_left;          /* light letters in the engine's mailbox */
    bool short_of_room;     /* some connection waits for the common budget */
    int stops;              /* LETTER_STOPs seen: 1 reads no more, 2 ends */
    uint64_t turn_began_ns; /* since when it is at what had come; 0: it waits */
    uint64_t turn_cost;     /* and how much it has done of it */
    uint64_t ticked_ms;     /* last tick */
    uint64_t stopped_ms;    /* when it was told to end */
    unsigned ticks;
    struct batch *spare; /* empty batches for reuse */
    int spare_count;
    struct letters
        emptied; /* served answers of very many pieces, which go bit by bit */
    struct letter *spare_letters; /* that have served */
    int spare_letter_count;
    XXH3_state_t *hash; /* of data sent; NULL until first needed */
    struct opt_segment segments[LOOP_SEGMENTS];  /* of the frame being made, */
    uint64_t places[LOOP_SEGMENTS];              /* of these, if given by place, */
    struct opt_segment unchanged[LOOP_SEGMENTS]; /* and those without values */
    uint8_t ahead[OPT_FRAME_AHEAD]; /* lent for a read of several short frames */
    uint8_t discard[LOOP_DISCARD];
};

struct loops {
    struct net_limits limits;
    struct quota quota;
    struct engine *engine;
    atomic_size_t connections; /* open sockets that are served */
    atomic_size_t refusals;    /* open sockets that are being told to come back later */
    uv_sem_t quiet;            /* posted by each loop that reads no more */
    int count;
    int next; /* whose turn it is; main's */
    struct loop *loop;
};

/* Make count loops that work with engine, without threads: whoever made them runs them,
 * and they run to their end in the two functions that stop them. limits.congestion is
 * borrowed for as long as the loops live. OPT_RESOURCE_EXHAUSTED. */
enum opt_status loops_new(const struct net_limits *limits, int count,
                          struct engine *engine, struct loops **out,
                          struct opt_error *error);

/* The same with a thread for each. Main thread. */
enum opt_status loops_start(const struct net_limits *limits, int count,
                            struct engine *engine, struct loops **out,
                            struct opt_error *error);

/* Hand over an accepted socket (takes it). refuse: only to be told that there are too
 * many connections. Main thread. */
void loops_deal(struct loops *loops, int socket, bool refuse);

/* Make all loops stop reading, and wait until they have: after it nothing new reaches
 * the engine but the farewells of connections that break. Main thread. */
void loops_quiet(struct loops *loops);

/* After the engine has ended: send what is to be sent, close all connections, join the
 * threads, free everything. Main thread. */
void loops_stop(struct loops *loops);

/* Serve the peer of a transport (takes it, also on failure), counted among the
 * connections or, refuse, among those to be told that there are too many. Loop thread.
 */
void loop_serve(struct loop *loop, struct opt_transport *transport, bool refuse);

/* So much has been done without looking whether others wait, in the measure of
 * work_done (engine/work.h): about nanoseconds. What it does for the engine is counted
 * there. Loop thread. */
static inline void loop_done(struct loop *loop, uint64_t cost)
{
    loop->turn_cost += cost;
}
/* Whether a connection whose turn began when so much had been done goes on with it. */
static inline bool loop_may_go_on(const struct loop *loop, uint64_t before)
{
    return loop->turn_cost - before < LOOP_AT_ONCE;
}

/* Serve the ready list; the last thing every libuv callback does. Loop thread. */
void loop_settle(struct loop *loop);

#endif
