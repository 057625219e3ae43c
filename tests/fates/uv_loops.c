/* uv_loops — libuv's loops, timers, wake-ups and polls, in the world's time and over
 * its sockets; only what daemon and library use of them.
 *
 * A handle has a twin here, to which its reserved memory points. A loop's fiber runs
 * one due thing after another and waits when nothing is due.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "tests/fates/sockets.h"
#include "tests/fates/world.h"

enum { NS_PER_MS = 1000000 };

struct twin {
    struct twin *next; /* of its loop */
    uv_handle_t *handle;
    uv_close_cb on_closed;
    bool closing;
    uint64_t due_ns, repeat_ms; /* timer; UINT64_MAX: not started */
    uv_timer_cb on_timer;
    uv_async_cb on_wake;
    bool woken;
    int fd; /* poll */
    short events;
    uv_poll_cb on_poll;
};

struct loop_state {
    struct twin *first;
};

static struct loop_state *state_of(const uv_loop_t *loop)
{
    return loop->internal_fields;
}

static struct twin *twin_of(const void *handle)
{
    return ((const uv_handle_t *)handle)->u.reserved[0];
}

static struct twin *twin_new(uv_loop_t *loop, void *handle, uv_handle_type type)
{
    struct twin *twin = calloc(1, sizeof(*twin));
    uv_handle_t *base = handle;
    if (twin == NULL) {
        abort();
    }
    void *data = base->data;
    base->loop = loop;
    base->type = type;
    base->data = data;
    base->u.reserved[0] = twin;
    twin->handle = base;
    twin->due_ns = UINT64_MAX;
    twin->fd = -1;
    struct twin **end = &state_of(loop)->first;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = twin;
    return twin;
}

/* -------------------------------------------------------------------- loops */

int uv_loop_init(uv_loop_t *loop)
{
    memset(loop, 0, sizeof(*loop));
    loop->internal_fields = calloc(1, sizeof(struct loop_state));
    return loop->internal_fields != NULL ? 0 : UV_ENOMEM;
}

int uv_loop_close(uv_loop_t *loop)
{
    if (state_of(loop)->first != NULL) {
        return UV_EBUSY;
    }
    free(loop->internal_fields);
    loop->internal_fields = NULL;
    return 0;
}

void uv_update_time(uv_loop_t *loop)
{
    (void)loop;
}

uint64_t uv_now(const uv_loop_t *loop)
{
    (void)loop;
    return world_now() / NS_PER_MS;
}

static void let_go(uv_loop_t *loop, struct twin *twin)
{
    struct twin **place = &state_of(loop)->first;
    while (*place != twin) {
        place = &(*place)->next;
    }
    *place = twin->next;
    uv_handle_t *handle = twin->handle;
    uv_close_cb on_closed = twin->on_closed;
    free(twin);
    if (on_closed != NULL) {
        on_closed(handle);
    }
}

static bool is_due(const struct twin *twin)
{
    return twin->closing || twin->due_ns <= world_now() || twin->woken ||
           (twin->on_poll != NULL && sockets_events(twin->fd, twin->events) != 0);
}

/* Of a broken socket libuv tells once, and watches it no more. */
static void poll_one(struct twin *twin)
{
    uv_poll_t *poll = (uv_poll_t *)twin->handle;
    uv_poll_cb on_poll = twin->on_poll;
    short due = sockets_events(twin->fd, twin->events);
    if ((due & POLLERR) != 0) {
        twin->on_poll = NULL;
        on_poll(poll, UV_EBADF, 0);
        return;
    }
    on_poll(poll, 0,
            ((due & POLLIN) != 0 ? UV_READABLE : 0) |
                ((due & POLLOUT) != 0 ? UV_WRITABLE : 0));
}

static void run_due(uv_loop_t *loop, struct twin *twin)
{
    if (twin->closing) {
        let_go(loop, twin);
    } else if (twin->due_ns <= world_now()) {
        twin->due_ns = twin->repeat_ms > 0 ? world_now() + twin->repeat_ms * NS_PER_MS
                                           : UINT64_MAX;
        twin->on_timer((uv_timer_t *)twin->handle);
    } else if (twin->woken) {
        twin->woken = false;
        twin->on_wake((uv_async_t *)twin->handle);
    } else {
        poll_one(twin);
    }
}

static struct twin *first_due(void *loop)
{
    struct twin *twin = state_of(loop)->first;
    while (twin != NULL && !is_due(twin)) {
        twin = twin->next;
    }
    return twin;
}

static bool has_due(void *loop)
{
    return first_due(loop) != NULL;
}

static uint64_t next_due(const uv_loop_t *loop)
{
    uint64_t due = UINT64_MAX;
    for (const struct twin *twin = state_of(loop)->first; twin != NULL;
         twin = twin->next) {
        uint64_t its = twin->on_poll != NULL ? socket_next_due(twin->fd) : twin->due_ns;
        due = its < due ? its : due;
    }
    return due;
}

/* Every handle that daemon and library have keeps its loop alive. */
int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    while (state_of(loop)->first != NULL) {
        struct twin *twin = first_due(loop);
        if (twin != NULL) {
            run_due(loop, twin);
        } else if (mode == UV_RUN_NOWAIT) {
            break;
        } else {
            world_wait(has_due, loop, next_due(loop));
        }
        if (mode == UV_RUN_ONCE) {
            break;
        }
    }
    return state_of(loop)->first != NULL;
}

/* ------------------------------------------------------------------ handles */

void uv_close(uv_handle_t *handle, uv_close_cb on_closed)
{
    struct twin *twin = twin_of(handle);
    twin->closing = true;
    twin->on_closed = on_closed;
    twin->fd = -1;
    twin->on_poll = NULL;
    twin->due_ns = UINT64_MAX;
}

int uv_is_closing(const uv_handle_t *handle)
{
    return twin_of(handle)->closing;
}

int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb on_wake)
{
    twin_new(loop, async, UV_ASYNC)->on_wake = on_wake;
    return 0;
}

int uv_async_send(uv_async_t *async)
{
    twin_of(async)->woken = true;
    return 0;
}

/* How long a loop is at something is nothing that this world has. */
int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *prepare)
{
    twin_new(loop, prepare, UV_PREPARE);
    return 0;
}

int uv_prepare_start(uv_prepare_t *prepare, uv_prepare_cb on_prepare)
{
    (void)prepare, (void)on_prepare;
    return 0;
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    twin_new(loop, timer, UV_TIMER);
    return 0;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb on_timer, uint64_t ms,
                   uint64_t repeat)
{
    struct twin *twin = twin_of(timer);
    twin->on_timer = on_timer;
    twin->due_ns = world_now() + ms * NS_PER_MS;
    twin->repeat_ms = repeat;
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    twin_of(timer)->due_ns = UINT64_MAX;
    return 0;
}

uint64_t uv_timer_get_repeat(const uv_timer_t *timer)
{
    return twin_of(timer)->repeat_ms;
}

int uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd)
{
    twin_new(loop, poll, UV_POLL)->fd = fd;
    return 0;
}

int uv_poll_start(uv_poll_t *poll, int events, uv_poll_cb on_poll)
{
    struct twin *twin = twin_of(poll);
    twin->events = (short)(((events & UV_READABLE) != 0 ? POLLIN : 0) |
                           ((events & UV_WRITABLE) != 0 ? POLLOUT : 0));
    twin->on_poll = on_poll;
    return 0;
}

int uv_poll_stop(uv_poll_t *poll)
{
    twin_of(poll)->on_poll = NULL;
    return 0;
}
