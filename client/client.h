/* client — what all rooms of the library share: the client itself, its lock, and how
 * whoever holds the lock wakes those that sleep.
 *
 * A client has one connection after another to one daemon, and calls that travel on it:
 *
 *            +-------------------- back-off -------------------------+
 *            v                                                       |
 *          IDLE -> RESOLVING -> CONNECTING -> GREETING -> REOPENING -+-> READY
 *            ^                                   |            |            |
 *            +------------- connection lost -----|------------+------------+
 *                                                v
 *                                             REFUSED: no use trying again
 *   any -> CLOSED by optclient_close
 *
 * connection.h moves between these states, on the client's thread. A public function
 * (api_*.c) makes a call and hands it over (api.h); a request leaves by requests.h, its
 * reply comes in by replies.h, and calls.h ends the call.
 *
 * One lock guards everything here. The client's thread holds it whenever it does not
 * sleep; callbacks of the user run on another one (callbacks.h). A thread that makes a
 * call sends it itself if the connection has nothing else to do, and one that waits
 * takes in replies and sends requests itself (wait.h), which saves two wake-ups;
 * whatever is timed, and opening and closing connections, is left to the client's
 * thread by waking it.
 */
#ifndef OPTCLIENT_CLIENT_H
#define OPTCLIENT_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/backoff.h"
#include "client/call.h"
#include "client/endpoint.h"
#include "client/optclient.h"
#include "client/socket.h"
#include "common/status.h"
#include "common/wire.h"

struct lookup;
struct route;

enum connection_state {
    CONNECTION_IDLE,
    CONNECTION_RESOLVING,
    CONNECTION_CONNECTING,
    CONNECTION_GREETING,
    CONNECTION_REOPENING,
    CONNECTION_READY,
    CONNECTION_REFUSED,
    CONNECTION_CLOSED
};

enum {
    CLIENT_ID_BUCKETS = 256,
    /* An attempt to reach one address, and each exchange before READY. */
    CLIENT_STEP_MS = 5000,
    /* The same where the name has more addresses, the first time that they are tried:
     * one of a machine that is gone, or of a network that leads nowhere, must not use
     * up a caller's time. */
    CLIENT_NEXT_MS = 1000,
    /* Who sleeps looks again after that long: a program may have closed the descriptor
     * by which to be woken. */
    CLIENT_REST_MS = 1000,
    /* How long after a call's deadline the daemon's own sentence may still arrive. */
    CLIENT_LATENESS_MS = 250,
    CLIENT_GOODBYE_MS = 1000,
    /* How long requests that nobody waits for are collected, and replies let lie after
     * one that somebody waited for: some round trips of a small message. */
    CLIENT_PATIENCE_US = 200,
    /* The same after the last answer that was due: only the daemon's end can come. */
    CLIENT_CALM_US = 10000
};

struct client_settings {
    char worker[OPT_NAME_MAX + 1];
    uint32_t timeout_ms;
    uint32_t connect_timeout_ms;
    enum opt_dtype push_dtype;
    enum opt_dtype pull_dtype;
    bool checksum;
    bool shares_memory;
    uint32_t spin_us;
};

struct optclient {
    /* Never changed after the start. */
    struct client_settings settings;
    struct endpoint endpoint; /* but for its tls, which is the client's thread's */
    pid_t process;            /* whose thread it is */
    uint64_t session;
    pthread_t thread;

    pthread_mutex_t lock;   /* guards all below; client_lock takes it */
    int cancel_state;       /* of the thread that has it, as it was before */
    pthread_cond_t left;    /* callers has become 0 */
    size_t callers;         /* threads inside waiting functions */
    size_t references;      /* the client, and each asynchronous call */
    struct call_list queue; /* QUEUED, in order of asking */
    struct call_list sent;  /* SENT, in order of sending */
    struct call_list later; /* LATER */
    struct call_list ended; /* asynchronous ones whose callback has not run yet */
    struct call_list told;  /* ended ones, to be given by optclient_ended */
    int told_fd;         /* eventfd, readable while there are any; -1: not asked for */
    pthread_t callbacks; /* the thread that runs them, */
    bool has_callbacks;  /* if it has been started */
    bool callbacks_over; /* it is to end when none is left */
    pthread_cond_t callback_due;
    struct optclient_call *by_id[CLIENT_ID_BUCKETS];
    struct optclient_model *models;
    struct optclient_usage usage;
    uint64_t last_id;
    uint64_t last_barrier; /* of any model: it may be opened again in this session */
    uint64_t incarnation;  /* of the worker; 0: never let in */
    char lost[OPT_NAME_MAX + 1]; /* how the one before ended, as the daemon says */

    enum connection_state state;
    struct opt_error trouble; /* what the last connection or attempt came to */
    struct opt_error refusal; /* its status is not OPT_OK: what all calls get */
    bool broken;              /* the client's thread must give up the connection */
    bool closing;             /* optclient_close has been called */
    uint64_t alarm_ns;        /* deadlines of calls: when to look; UINT64_MAX: never */
    uint64_t sleeps_until_ns; /* the client's thread looks by then */
    uint32_t retry_after_ms;  /* the daemon asked to stay away for so long */

    struct optclient_call *waiter; /* whoever waits for it serves the connection; NULL:
                                      the client's thread does */
    pthread_t server;              /* that thread, if there is a waiter */
    short waiter_events;           /* it waits for these of poll(2); 0: it is awake */
    int nudge;                     /* eventfd that ends its wait */
    int wake;                      /* the same for the client's thread */

    /* The present connection. */
    struct socket *socket;
    struct opt_hello_reply daemon;   /* strings not kept */
    uint64_t inflight;               /* bytes that calls hold at the daemon */
    struct optclient_call *out_call; /* whose frame is going out, or NULL */
    bool out_last;                   /* and it is its last */
    struct optclient_call *in_call;  /* whose data is coming in, or NULL */
    struct opt_reply in_reply;       /* the frame coming in */
    uint8_t *in_data;                /* where its data goes */
    struct opt_arena arena;          /* of in_reply */
    uint8_t *in_buffer;              /* for data that has to be spread */
    size_t in_capacity;
    struct cut cut;                      /* room for one frame's segments */
    void *hash;                          /* XXH3_state_t, if checksums are wanted */
    uint64_t connection;                 /* counts them */
    uint64_t released[OPT_RELEASED_MAX]; /* requests, to be told to the daemon */
    size_t released_count;
    uint64_t *places;    /* of one frame's segments; NULL until first needed */
    size_t placed_bytes; /* copied to where they are since the last write */
    bool share_due;      /* some model's memory is to be shared anew */
    uint64_t hello_id, heartbeat_id, goodbye_id; /* 0: not asked */
    bool heartbeat_due, goodbye_due;
    bool active;                        /* a frame went out since the last pulse */
    uint32_t silent_pulses;             /* without a byte from the daemon or to it */
    uint64_t received_seen, taken_seen; /* bytes, at the last pulse */
    bool pending_seen;   /* bytes were on their way to the daemon, at the last pulse */
    bool greeted_before; /* it is a reconnect */
    bool tried_before;   /* its addresses, since there was a connection */

    /* The client's thread only. */
    uint64_t step_ns; /* when the present state is over: back-off, attempt, goodbye */
    uint32_t step_limit_ms; /* of the attempt to reach one address */
    uint64_t pulse_ns;      /* when the next heartbeat is due; both UINT64_MAX: never */
    uint32_t pulse_ms;      /* from one to the next */
    struct backoff backoff;
    struct lookup *lookup;
    struct route *found, *trying;
    bool disbelieved; /* one of them has not proved who it is, and none was open */
};

/* The client's lock. Whoever holds it, or waits for a call, cannot be cancelled
 * (pthread_cancel) until it has given the lock back: the lock would stay taken, and the
 * call would be left in the queues without its owner. So a cancelled thread leaves a
 * function of the library by its return, and ends at its next cancellation point. */
void client_lock(struct optclient *client);
void client_unlock(struct optclient *client);
/* Lock held, given back while waiting. The thread cannot be cancelled meanwhile. */
void client_await(struct optclient *client, pthread_cond_t *condition);
/* The same, until limit_ns of CLOCK_MONOTONIC at the latest (UINT64_MAX: without
 * limit). */
void client_await_until(struct optclient *client, pthread_cond_t *condition,
                        uint64_t limit_ns);
/* Lock held. The same for other waits: give the lock back, and take it again with what
 * the first has returned. */
int client_pause(struct optclient *client);
void client_resume(struct optclient *client, int paused);

/* Lock held. Have the client's thread look. */
void client_wake(struct optclient *client);

/* Lock held. The thread that waits and serves the connection has to look: its call has
 * ended, or the connection. */
void client_nudge(struct optclient *client);

/* Lock held. Something must be looked at by then. */
void client_alarm(struct optclient *client, uint64_t when_ns);

/* Lock held. The connection is of no use any more: why. The client's thread gives it up
 * and tries again. */
void client_disconnect(struct optclient *client, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
