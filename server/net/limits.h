/* limits — what a connection may take. main fills it in from the settings before the
 * first connection is accepted; from then on it is only read, by the loops.
 */
#ifndef OPTIMD_SERVER_NET_LIMITS_H
#define OPTIMD_SERVER_NET_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/frame.h"

enum {
    LETTERS_MAX = 1024,  /* requests of one connection in flight; more with a grant */
    TABLES_MAX = 1,      /* of these, answers that are tables and cost memory */
    OUTBOX_LETTERS = 32, /* of these, answered and not read by the peer */
    PUSHES_MAX = 16,     /* pushes of one connection begun and not finished */
    AHEAD_BATCHES = 2,   /* batches of frames handed to the kernel ahead of the peer */
    TICK_MS = 250,       /* how often deadlines are looked at */
    LINGER_MS = 2000     /* to read the answer that ends a connection */
};

struct credentials;

struct net_limits {
    struct opt_frame_limits frame;
    size_t connections;       /* served at a time */
    size_t table_bytes;       /* longest table received */
    size_t connection_bytes;  /* of requests in flight, without a grant of the engine */
    size_t inflight_bytes;    /* the same, and of answers not read, over all
                                 connections */
    uint32_t hello_ms;        /* from connecting to hello */
    uint32_t frame_ms;        /* a begun frame may take as long, and longer only at */
    uint32_t frame_rate;      /* this many bytes a second or more */
    uint32_t write_ms;        /* without progress of what is sent, or with less than */
    uint32_t write_rate;      /* this many bytes a second */
    uint32_t idle_ms;         /* silence of an observer */
    uint32_t room_ms;         /* longest wait for the budget of all connections */
    uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT */
    bool shares_memory;       /* with peers on Unix sockets */
    uint32_t spin_us;         /* after the last bytes, before a loop sleeps */
    struct credentials *credentials; /* of TCP connections; NULL: they are plain */
    const char *congestion; /* congestion control for loopback peers, "" leaves it */
};

#endif
