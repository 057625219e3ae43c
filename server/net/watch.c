/* watch — see watch.h. */
#include "server/net/watch.h"

#include <assert.h>
#include <poll.h>

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    unsigned due = ((events & UV_READABLE) != 0 ? WATCH_READ : 0) |
                   ((events & UV_WRITABLE) != 0 ? WATCH_WRITE : 0);
    if (status < 0) {
        /* An error waits in the descriptor, which is not watched any more. */
        due = WATCH_READ | WATCH_WRITE;
        watch->events = 0;
    }
    watch_happened(watch, due);
}

static void wait_for(struct watch *watch, unsigned events)
{
    if (events == watch->events) {
        return;
    }
    watch->events = events;
    if (watch->transport.fd < 0) {
        return;
    }
    int wanted = ((events & WATCH_READ) != 0 ? UV_READABLE : 0) |
                 ((events & WATCH_WRITE) != 0 ? UV_WRITABLE : 0);
    int code = events == 0 ? uv_poll_stop(&watch->handle.poll)
                           : uv_poll_start(&watch->handle.poll, wanted, on_poll);
    assert(code == 0); /* the descriptor is watched by nobody else: watch_open has seen
                          that */
    (void)code;
}

static void await_opening(struct watch *watch)
{
    wait_for(watch, watch->transport.awaits == POLLOUT ? WATCH_WRITE : WATCH_READ);
}

static void open_further(struct watch *watch)
{
    struct opt_transport *transport = &watch->transport;
    struct opt_error error;
    enum opt_status status = transport->kind->open(transport, &error);
    if (status == OPT_OK && !transport->is_open) {
        await_opening(watch);
    } else {
        watch->watcher->on_opened(watch, status == OPT_OK ? NULL : &error);
    }
}

int watch_open(struct watch *watch, uv_loop_t *loop,
               const struct opt_transport *transport, const struct watcher *watcher)
{
    int code = transport->fd < 0
                   ? uv_idle_init(loop, &watch->handle.none)
                   : uv_poll_init(loop, &watch->handle.poll, transport->fd);
    if (code != 0) {
        return code;
    }
    watch->handle.any.data = watch;
    watch->transport = *transport;
    watch->watcher = watcher;
    watch->events = 0;
    if (!transport->is_open) {
        await_opening(watch);
    }
    return 0;
}

enum opt_status watch_dial(struct watch *watch, uv_loop_t *loop,
                           const struct sockaddr *address, socklen_t size,
                           const struct opt_socket_tuning *tuning,
                           const struct watcher *watcher, struct opt_error *error)
{
    struct opt_transport transport;
    enum opt_status status =
        opt_transport_dial(&transport, address, size, tuning, error);
    if (status != OPT_OK) {
        return status;
    }
    int code = watch_open(watch, loop, &transport, watcher);
    if (code != 0) {
        transport.kind->close(&transport);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s",
                        uv_strerror(code));
    }
    return OPT_OK;
}

void watch_for(struct watch *watch, unsigned events)
{
    if (watch->transport.is_open) {
        wait_for(watch, events);
    }
}

void watch_happened(struct watch *watch, unsigned events)
{
    if (watch->transport.is_open) {
        watch->watcher->on_event(watch, events);
    } else {
        open_further(watch);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    watch->watcher->on_closed(watch);
}

void watch_close(struct watch *watch)
{
    uv_close(&watch->handle.any, on_closed);
    watch->events = 0;
    watch->transport.kind->close(&watch->transport);
}
