#include "client/connection.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/handshake.h"
#include "client/lookup.h"
#include "client/reconnect.h"
#include "client/replies.h"
#include "client/requests.h"
#include "client/wait.h"

enum {
    NS_PER_MS = 1000000,
    PULSE_MIN_MS = 10,
    DEAF_MS = 100 /* how often the client's thread looks if nobody can wake it */
};

/* ------------------------------------------------------------------- timing */

/* The present state may last so long. */
static void limit_step(struct optclient *client, uint64_t ms)
{
    client->step_ns = uv_hrtime() + ms * NS_PER_MS;
}

static void on_alarm(struct optclient *client)
{
    client->alarm_ns = UINT64_MAX;
    calls_expire(client);
}

/* ---------------------------------------------------------------------- connections */

static void give_up_attempt(struct optclient *client)
{
    lookup_abandon(client->lookup);
    client->lookup = NULL;
    routes_free(client->found);
    client->found = NULL;
    client->pulse_ns = UINT64_MAX;
    client->step_ns = UINT64_MAX;
    if (client->socket != NULL) {
        client->usage.bytes_sent += client->socket->bytes_sent;
        client->usage.bytes_received += client->socket->bytes_received;
        socket_close(client->socket);
        client->socket = NULL;
        client_nudge(client);
    }
    client->broken = false;
}

static void finish_close(struct optclient *client)
{
    give_up_attempt(client);
    client->state = CONNECTION_CLOSED;
}

/* The connection, or the attempt to have one, has come to nothing. */
static void fall_back(struct optclient *client)
{
    give_up_attempt(client);
    reconnect_begin(client);
    if (client->closing) {
        finish_close(client);
    } else if (client->refusal.status != OPT_OK) {
        client->state = CONNECTION_REFUSED;
    } else {
        client->state = CONNECTION_IDLE;
        uint32_t wait = backoff_next(&client->backoff);
        if (wait < client->retry_after_ms) {
            wait = client->retry_after_ms;
        }
        client->retry_after_ms = 0;
        limit_step(client, wait);
        /* Deadlines are nearer for calls that nobody can answer. */
        client_alarm(client, uv_hrtime());
    }
}

/* Whether the only address there is refuses in a way that time does not change, or a
 * daemon at one of several is not believed. Where there has been a connection, somebody
 * may be changing it. */
static bool cannot_heal(const struct optclient *client)
{
    if (client->disbelieved && !client->greeted_before) {
        return true;
    }
    return !client->greeted_before && client->found != NULL &&
           client->found->next == NULL && client->socket == NULL &&
           client->trouble.status != OPT_UNAVAILABLE &&
           client->trouble.status != OPT_OK;
}

/* Try the next of the addresses that were found. */
static void try_next(struct optclient *client)
{
    while (client->trying != NULL) {
        const struct route *route = client->trying;
        client->trying = route->next;
        if (client->socket != NULL) {
            socket_close(client->socket);
        }
        client->socket = socket_connect(route, &client->endpoint, &client->trouble);
        if (client->socket != NULL) {
            client->state = CONNECTION_CONNECTING;
            client->step_limit_ms = route->next != NULL && !client->tried_before
                                        ? CLIENT_NEXT_MS
                                        : CLIENT_STEP_MS;
            limit_step(client, client->step_limit_ms);
            return;
        }
    }
    client->tried_before = true;
    if (cannot_heal(client)) {
        struct opt_error error;
        opt_fail(&error, client->trouble.status, "%s cannot be connected to: %s",
                 client->endpoint.peer, client->trouble.text);
        calls_refuse(client, &error);
    }
    fall_back(client);
}

static void take_lookup(struct optclient *client)
{
    struct route *found;
    if (!lookup_take(client->lookup, &found, &client->trouble)) {
        return;
    }
    client->lookup = NULL;
    client->found = found;
    client->trying = found;
    try_next(client); /* without an address: falls back */
}

/* Begin from the name. */
static void attempt(struct optclient *client)
{
    client->state = CONNECTION_RESOLVING;
    client->disbelieved = false;
    endpoint_renew(&client->endpoint);
    limit_step(client, CLIENT_STEP_MS);
    if (lookup_start(&client->endpoint.address, client->wake, &client->lookup,
                     &client->trouble) != OPT_OK) {
        fall_back(client);
    }
}

/* Go on with opening the connection. */
static void open_further(struct optclient *client)
{
    struct opt_error error;
    if (socket_open(client->socket, &error) != OPT_OK) {
        /* What is said of one that is not believed is worth more than of others. */
        if (!client->disbelieved) {
            client->trouble = error;
        }
        client->disbelieved = client->disbelieved || error.status != OPT_UNAVAILABLE;
        try_next(client);
        return;
    }
    if (!socket_is_open(client->socket)) {
        return;
    }
    client->state = CONNECTION_GREETING;
    limit_step(client, CLIENT_STEP_MS);
    client->silent_pulses = 0;
    client->received_seen = 0;
    client->taken_seen = 0;
    client->pending_seen = false;
    handshake_greet(client);
}

/* All models are open again: calls may go. */
static void on_restored(struct optclient *client)
{
    client->state = CONNECTION_READY;
    opt_fail(&client->trouble, OPT_OK, "%s", "");
    client->tried_before = false;
    client->usage.reconnects += client->greeted_before;
    client->greeted_before = true;
    struct optclient_call *next;
    for (struct optclient_call *call = client->queue.first; call != NULL; call = next) {
        next = call->next;
        if (call->request.message == OPT_MESSAGE_NONE) {
            calls_end(client, call, OPT_OK);
        }
    }
    /* Replies are handled by the client's thread, so this is it. */
    backoff_reset(&client->backoff);
    client->step_ns = UINT64_MAX;
    client->pulse_ms = client->daemon.heartbeat_ms < PULSE_MIN_MS
                           ? PULSE_MIN_MS
                           : client->daemon.heartbeat_ms;
    client->pulse_ns = uv_hrtime() + (uint64_t)client->pulse_ms * NS_PER_MS;
}

/* The state has lasted as long as it may. */
static void on_step(struct optclient *client)
{
    client->step_ns = UINT64_MAX;
    switch (client->state) {
    case CONNECTION_IDLE:
        attempt(client);
        break;
    case CONNECTION_RESOLVING:
        opt_fail(&client->trouble, OPT_UNAVAILABLE, "looking up %s takes too long",
                 client->endpoint.address.host);
        fall_back(client);
        break;
    case CONNECTION_CONNECTING:
        opt_fail(&client->trouble, OPT_UNAVAILABLE,
                 "connect: no answer for %" PRIu32 " ms", client->step_limit_ms);
        try_next(client);
        break;
    case CONNECTION_GREETING:
    case CONNECTION_REOPENING:
        client_disconnect(client, "the daemon did not answer %s for %d ms",
                          client->state == CONNECTION_GREETING ? "hello" : "open",
                          (int)CLIENT_STEP_MS);
        break;
    case CONNECTION_READY: /* saying goodbye */
        client_disconnect(client, "the daemon did not answer goodbye");
        break;
    case CONNECTION_REFUSED:
    case CONNECTION_CLOSED:
        break;
    }
}

/* Once per heartbeat time: say something, and see whether the daemon has.
 *
 * Pulses are counted, not time: if this process was stopped for a while, the first
 * pulse after it must not take the daemon for dead whose bytes wait in the socket. That
 * bytes arrive which were under way at the last pulse is a sign of life too: while a
 * large push goes over a slow network, nothing else may pass.
 */
static void on_pulse(struct optclient *client)
{
    client->pulse_ns = uv_hrtime() + (uint64_t)client->pulse_ms * NS_PER_MS;
    if (client->socket != NULL && client->state == CONNECTION_READY) {
        const struct socket *socket = client->socket;
        uint64_t pending = socket_pending(socket);
        uint64_t arrived = socket->bytes_sent - pending;
        bool taken = client->pending_seen && arrived != client->taken_seen;
        bool quiet = socket->bytes_received == client->received_seen && !taken;
        client->received_seen = socket->bytes_received;
        client->taken_seen = arrived;
        client->pending_seen = pending > 0;
        client->silent_pulses = quiet ? client->silent_pulses + 1 : 0;
        uint64_t pulse_ms = client->pulse_ms;
        uint64_t silence_ms = client->silent_pulses * pulse_ms;
        if (silence_ms >= 3 * pulse_ms && silence_ms >= client->daemon.lease_ms) {
            client_disconnect(client, "the daemon has been silent for %" PRIu64 " ms",
                              silence_ms);
        } else if (!client->active) {
            client->heartbeat_due = true;
        }
        client->active = false;
    }
}

/* The bell rings. */
static void on_socket(struct optclient *client)
{
    if (client->state == CONNECTION_CONNECTING) {
        open_further(client);
    } else {
        socket_told(client->socket);
        replies_take(client);
    }
}

/* -------------------------------------------------------------- the client's thread */

/* What follows everything that has happened: do what has become due. */
static void tend(struct optclient *client)
{
    if (client->state == CONNECTION_RESOLVING) {
        take_lookup(client);
    }
    if (client->closing && !client->broken) {
        if (client->state == CONNECTION_READY && client->goodbye_id == 0 &&
            !client->goodbye_due) {
            client->goodbye_due = true;
            limit_step(client, CLIENT_GOODBYE_MS);
        } else if (client->state != CONNECTION_READY &&
                   client->state != CONNECTION_CLOSED) {
            finish_close(client);
        }
    }
    if (client->state == CONNECTION_REOPENING && !client->broken &&
        reconnect_is_over(client)) {
        on_restored(client);
    }
    if (client->socket != NULL && client->state != CONNECTION_CONNECTING) {
        requests_send(client);
    }
    if (client->broken) {
        fall_back(client);
    }
    if (client->socket != NULL && client->state != CONNECTION_CONNECTING) {
        wait_by_thread(client);
        if (client->broken) {
            fall_back(client);
        }
    }
}

/* When something is due by time alone. */
static uint64_t next_due(const struct optclient *client)
{
    uint64_t next = client->alarm_ns;
    next = client->step_ns < next ? client->step_ns : next;
    return client->pulse_ns < next ? client->pulse_ns : next;
}

/* Sleep until something is due. True: the bell rings. */
static bool rest(struct optclient *client)
{
    struct pollfd watched[2] = {
        { .fd = client->wake, .events = POLLIN },
        { .fd = client->socket != NULL ? client->socket->bell : -1, .events = POLLIN },
    };
    uint64_t now = uv_hrtime();
    uint64_t next = next_due(client);
    uint64_t ms = next <= now ? 0 : (next - now + NS_PER_MS - 1) / NS_PER_MS;
    uint64_t most = client->wake < 0 ? DEAF_MS : CLIENT_REST_MS;
    const struct socket *socket = client->socket;
    bool holds =
        socket != NULL && (socket->watched & EPOLLIN) != 0 && socket_holds(socket);
    most = holds ? 0 : most;
    client->sleeps_until_ns = next;
    int paused = client_pause(client);
    int due = poll(watched, 2, (int)(ms < most ? ms : most));
    client_resume(client, paused);
    eventfd_t wishes;
    if (due > 0 && (watched[0].revents & POLLIN) != 0) {
        (void)eventfd_read(client->wake, &wishes);
    }
    if (due > 0 && ((watched[0].revents | watched[1].revents) & POLLNVAL) != 0) {
        calls_descriptor_lost(client);
        return false;
    }
    return holds || (due > 0 && watched[1].revents != 0);
}

static void *connection_thread(void *argument)
{
    struct optclient *client = argument;
    client_lock(client);
    attempt(client);
    tend(client);
    while (client->state != CONNECTION_CLOSED) {
        if (rest(client)) {
            on_socket(client);
            tend(client);
        }
        uint64_t now = uv_hrtime();
        if (client->alarm_ns <= now) {
            on_alarm(client);
        }
        if (client->step_ns <= now) {
            on_step(client);
        }
        if (client->pulse_ns <= now) {
            on_pulse(client);
        }
        tend(client);
    }
    client_unlock(client);
    return NULL;
}

static bool start_thread(struct optclient *client)
{
    /* The library takes no signals: they are the program's. */
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) {
        return false;
    }
    /* The thread reads client->thread, which pthread_create writes. */
    client_lock(client);
    bool started =
        pthread_create(&client->thread, NULL, connection_thread, client) == 0;
    client_unlock(client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

enum opt_status connection_start(struct optclient *client, struct opt_error *error)
{
    client->state = CONNECTION_IDLE;
    client->alarm_ns = UINT64_MAX;
    client->step_ns = UINT64_MAX;
    client->pulse_ns = UINT64_MAX;
    client->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->nudge < 0 || client->wake < 0) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot make an event descriptor: %s",
                 strerror(errno));
        connection_stop(client);
        return OPT_UNAVAILABLE;
    }
    if (start_thread(client)) {
        return OPT_OK;
    }
    connection_stop(client);
    return opt_fail(error, OPT_UNAVAILABLE, "cannot start a thread");
}

void connection_stop(struct optclient *client)
{
    if (client->nudge >= 0) {
        close(client->nudge);
    }
    if (client->wake >= 0) {
        close(client->wake);
    }
}
