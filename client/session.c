#include "client/session.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/driver.h"
#include "client/exchange.h"
#include "client/resolver.h"

enum {
    NS_PER_MS = 1000000,
    RECEIVES_AT_ONCE = 4, /* before others have their turn at the lock */
    PULSE_MIN_MS = 10
};

static void tend(struct optclient *client);
static void attempt(struct optclient *client);

/* ------------------------------------------------------------------- waking, timing */

void session_wake(struct optclient *client)
{
    uv_async_send(&client->wake);
}

bool session_on_thread(const struct optclient *client)
{
    return pthread_equal(pthread_self(), client->thread) != 0;
}

void session_alarm(struct optclient *client, uint64_t when_ns)
{
    if (when_ns < client->alarm_ns) {
        client->alarm_ns = when_ns;
    }
    if (client->alarm_ns < client->alarm_set_ns && !session_on_thread(client)) {
        session_wake(client);
    }
}

/* Milliseconds from now until then, rounded up. */
static uint64_t ms_until(uint64_t when_ns)
{
    uint64_t now = uv_hrtime();
    return when_ns <= now ? 0 : (when_ns - now + NS_PER_MS - 1) / NS_PER_MS;
}

static void on_step(uv_timer_t *timer);

/* The present state may last so long. */
static void limit_step(struct optclient *client, uint64_t ms)
{
    uv_update_time(&client->loop);
    uv_timer_start(&client->step, on_step, ms, 0);
}

static void on_alarm(uv_timer_t *timer)
{
    struct optclient *client = timer->data;
    pthread_mutex_lock(&client->lock);
    client->alarm_ns = UINT64_MAX;
    client->alarm_set_ns = UINT64_MAX;
    session_expire(client);
    tend(client);
}

/* ---------------------------------------------------------------------- connections */

void session_break(struct optclient *client, const char *format, ...)
{
    if (client->broken || client->uplink == NULL) {
        return;
    }
    char text[OPT_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    opt_fail(&client->trouble, OPT_UNAVAILABLE, "%s", text);
    client->broken = true;
    if (!session_on_thread(client)) {
        session_wake(client);
    }
}

void session_refuse(struct optclient *client, const struct opt_error *error)
{
    client->refusal = *error;
    session_break(client, "%s", error->text);
    session_end_all(client, NULL, error);
}

static void give_up_attempt(struct optclient *client)
{
    lookup_abandon(client->lookup);
    client->lookup = NULL;
    routes_free(client->found);
    client->found = NULL;
    uv_timer_stop(&client->pulse);
    uv_timer_stop(&client->step);
    if (client->uplink != NULL) {
        client->usage.bytes_sent += client->uplink->bytes_sent;
        client->usage.bytes_received += client->uplink->bytes_received;
        uplink_close(client->uplink);
        client->uplink = NULL;
        driver_nudge(client);
    }
    client->broken = false;
}

static void finish_close(struct optclient *client)
{
    give_up_attempt(client);
    client->state = SESSION_CLOSED;
    uv_close((uv_handle_t *)&client->wake, NULL);
    uv_close((uv_handle_t *)&client->alarm, NULL);
    uv_close((uv_handle_t *)&client->step, NULL);
    uv_close((uv_handle_t *)&client->pulse, NULL);
}

/* The connection, or the attempt to have one, has come to nothing. */
static void fall_back(struct optclient *client)
{
    give_up_attempt(client);
    exchange_reset(client);
    if (client->closing) {
        finish_close(client);
    } else if (client->refusal.status != OPT_OK) {
        client->state = SESSION_REFUSED;
    } else {
        client->state = SESSION_IDLE;
        uint32_t wait = backoff_next(&client->backoff);
        if (wait < client->retry_after_ms) {
            wait = client->retry_after_ms;
        }
        client->retry_after_ms = 0;
        limit_step(client, wait);
        /* Deadlines are nearer for calls that nobody can answer. */
        session_alarm(client, uv_hrtime());
    }
}

static void on_socket(uv_poll_t *poll, int status, int events);

/* Try the next of the addresses that were found. */
static void try_next(struct optclient *client)
{
    while (client->trying != NULL) {
        const struct route *route = client->trying;
        client->trying = route->next;
        if (client->uplink != NULL) {
            uplink_close(client->uplink);
        }
        client->uplink =
            uplink_connect(&client->loop, route, on_socket, &client->trouble);
        if (client->uplink != NULL) {
            client->uplink->poll.data = client;
            client->state = SESSION_CONNECTING;
            limit_step(client, SESSION_STEP_MS);
            return;
        }
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
    client->state = SESSION_RESOLVING;
    limit_step(client, SESSION_STEP_MS);
    if (lookup_start(&client->address, &client->wake, &client->lookup,
                     &client->trouble) != OPT_OK) {
        fall_back(client);
    }
}

static void on_connected(struct optclient *client)
{
    if (uplink_connected(client->uplink, &client->trouble) != OPT_OK) {
        try_next(client);
        return;
    }
    client->state = SESSION_GREETING;
    limit_step(client, SESSION_STEP_MS);
    client->silent_pulses = 0;
    client->received_seen = 0;
    client->taken_seen = 0;
    client->pending_seen = false;
    exchange_greet(client);
}

static void on_pulse(uv_timer_t *timer);

void session_ready(struct optclient *client)
{
    client->state = SESSION_READY;
    opt_fail(&client->trouble, OPT_OK, "%s", "");
    client->usage.reconnects += client->greeted_before;
    client->greeted_before = true;
    struct optclient_call *next;
    for (struct optclient_call *call = client->queue.first; call != NULL; call = next) {
        next = call->next;
        if (call->request.message == OPT_MESSAGE_NONE) {
            session_end(client, call, OPT_OK);
        }
    }
    /* Replies are handled by the client's thread, so this is it. */
    backoff_reset(&client->backoff);
    uv_timer_stop(&client->step);
    uint64_t pulse_ms = client->daemon.heartbeat_ms < PULSE_MIN_MS
                            ? PULSE_MIN_MS
                            : client->daemon.heartbeat_ms;
    uv_update_time(&client->loop);
    uv_timer_start(&client->pulse, on_pulse, pulse_ms, pulse_ms);
}

/* The state has lasted as long as it may. */
static void on_step(uv_timer_t *timer)
{
    struct optclient *client = timer->data;
    pthread_mutex_lock(&client->lock);
    switch (client->state) {
    case SESSION_IDLE:
        attempt(client);
        break;
    case SESSION_RESOLVING:
        opt_fail(&client->trouble, OPT_UNAVAILABLE, "looking up %s takes too long",
                 client->address.host);
        fall_back(client);
        break;
    case SESSION_CONNECTING:
        opt_fail(&client->trouble, OPT_UNAVAILABLE, "connect: no answer for %d ms",
                 (int)SESSION_STEP_MS);
        try_next(client);
        break;
    case SESSION_GREETING:
    case SESSION_RESTORING:
        session_break(client, "the daemon did not answer %s for %d ms",
                      client->state == SESSION_GREETING ? "hello" : "open",
                      (int)SESSION_STEP_MS);
        break;
    case SESSION_READY: /* saying goodbye */
        session_break(client, "the daemon did not answer goodbye");
        break;
    case SESSION_REFUSED:
    case SESSION_CLOSED:
        break;
    }
    tend(client);
}

/* Once per heartbeat time: say something, and see whether the daemon has.
 *
 * Pulses are counted, not time: if this process was stopped for a while, the first
 * pulse after it must not take the daemon for dead whose bytes wait in the socket. That
 * bytes arrive which were under way at the last pulse is a sign of life too: while a
 * large push goes over a slow network, nothing else may pass.
 */
static void on_pulse(uv_timer_t *timer)
{
    struct optclient *client = timer->data;
    pthread_mutex_lock(&client->lock);
    if (client->uplink != NULL && client->state == SESSION_READY) {
        const struct uplink *uplink = client->uplink;
        uint64_t pending = uplink_pending(uplink);
        uint64_t arrived = uplink->bytes_sent - pending;
        bool taken = client->pending_seen && arrived != client->taken_seen;
        bool quiet = uplink->bytes_received == client->received_seen && !taken;
        client->received_seen = uplink->bytes_received;
        client->taken_seen = arrived;
        client->pending_seen = pending > 0;
        client->silent_pulses = quiet ? client->silent_pulses + 1 : 0;
        uint64_t pulse_ms = uv_timer_get_repeat(&client->pulse);
        uint64_t silence_ms = client->silent_pulses * pulse_ms;
        if (silence_ms >= 3 * pulse_ms && silence_ms >= client->daemon.lease_ms) {
            session_break(client, "the daemon has been silent for %" PRIu64 " ms",
                          silence_ms);
        } else if (!client->active) {
            client->heartbeat_due = true;
        }
        client->active = false;
    }
    tend(client);
}

void session_take_in(struct optclient *client)
{
    for (int i = 0; i < RECEIVES_AT_ONCE && !client->broken; i++) {
        struct opt_error error;
        enum uplink_flow flow = uplink_receive(client->uplink, &error);
        if (flow == UPLINK_BROKEN) {
            session_break(client, "%s", error.text);
        }
        if (flow != UPLINK_DONE || !exchange_receive(client) ||
            client->uplink->drained) {
            return;
        }
    }
}

void session_watch(struct optclient *client)
{
    uint32_t out = exchange_has_more(client) ? EPOLLOUT : 0;
    uint32_t events = EPOLLIN | out;
    if (client->driver != NULL && client->state == SESSION_READY) {
        /* When it is awake it does all there is to do before it waits again. */
        bool sees_to_it =
            client->driver_events == 0 || (client->driver_events & POLLOUT) != 0;
        events = sees_to_it ? 0 : out;
    }
    if (!uplink_watch(client->uplink, events)) {
        session_break(client, "cannot watch a socket");
    }
}

void session_watch_later(struct optclient *client)
{
    uplink_tell_in(client->uplink,
                   client->sent.first == NULL ? SESSION_CALM_US : SESSION_PATIENCE_US);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct optclient *client = poll->data;
    (void)events;
    pthread_mutex_lock(&client->lock);
    if (client->state == SESSION_CONNECTING) {
        on_connected(client);
        tend(client);
        return;
    }
    if (status < 0) {
        session_break(client, "%s", uv_strerror(status));
    }
    uplink_told(client->uplink);
    session_take_in(client);
    tend(client);
}

/* -------------------------------------------------------------- the client's thread */

static void set_alarm(struct optclient *client)
{
    if (client->state == SESSION_CLOSED || client->alarm_ns >= client->alarm_set_ns) {
        return;
    }
    client->alarm_set_ns = client->alarm_ns;
    uv_update_time(&client->loop);
    uv_timer_start(&client->alarm, on_alarm, ms_until(client->alarm_ns), 0);
}

/* What every callback of the loop ends with: do what has become due, and give back the
 * lock. */
static void tend(struct optclient *client)
{
    if (client->state == SESSION_RESOLVING) {
        take_lookup(client);
    }
    if (client->closing && !client->broken) {
        if (client->state == SESSION_READY && client->goodbye_id == 0 &&
            !client->goodbye_due) {
            client->goodbye_due = true;
            limit_step(client, SESSION_GOODBYE_MS);
        } else if (client->state != SESSION_READY && client->state != SESSION_CLOSED) {
            finish_close(client);
        }
    }
    if (client->uplink != NULL && client->state != SESSION_CONNECTING) {
        exchange_send(client);
    }
    if (client->broken) {
        fall_back(client);
    }
    if (client->uplink != NULL && client->state != SESSION_CONNECTING) {
        session_watch(client);
        if (client->broken) {
            fall_back(client);
        }
    }
    set_alarm(client);
    pthread_mutex_unlock(&client->lock);
}

static void on_wake(uv_async_t *wake)
{
    struct optclient *client = wake->data;
    pthread_mutex_lock(&client->lock);
    tend(client);
}

static void *session_thread(void *argument)
{
    struct optclient *client = argument;
    pthread_mutex_lock(&client->lock);
    attempt(client);
    tend(client);
    uv_run(&client->loop, UV_RUN_DEFAULT);
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
    pthread_mutex_lock(&client->lock);
    bool started = pthread_create(&client->thread, NULL, session_thread, client) == 0;
    pthread_mutex_unlock(&client->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

enum opt_status session_start(struct optclient *client, struct opt_error *error)
{
    client->state = SESSION_IDLE;
    client->alarm_ns = UINT64_MAX;
    client->alarm_set_ns = UINT64_MAX;
    client->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->nudge < 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "cannot make an event descriptor: %s",
                        strerror(errno));
    }
    int code = uv_loop_init(&client->loop);
    if (code != 0) {
        close(client->nudge);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot make an event loop: %s",
                        uv_strerror(code));
    }
    code = uv_async_init(&client->loop, &client->wake, on_wake);
    if (code != 0) {
        uv_loop_close(&client->loop);
        close(client->nudge);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot make an event loop: %s",
                        uv_strerror(code));
    }
    uv_timer_init(&client->loop, &client->alarm);
    uv_timer_init(&client->loop, &client->step);
    uv_timer_init(&client->loop, &client->pulse);
    client->wake.data = client;
    client->alarm.data = client;
    client->step.data = client;
    client->pulse.data = client;
    if (start_thread(client)) {
        return OPT_OK;
    }
    finish_close(client);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    uv_loop_close(&client->loop);
    close(client->nudge);
    return opt_fail(error, OPT_UNAVAILABLE, "cannot start a thread");
}
