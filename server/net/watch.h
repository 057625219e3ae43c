/* watch — a transport on a loop: it is told when the transport can go on.
 *
 * Between what carries the bytes (common/transport.h) and whoever serves the
 * connection, which reads and writes the transport itself when it is told that it can.
 * A transport may be one that was accepted, one that the loop dials, or one without a
 * descriptor: then whoever made it calls watch_happened. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_WATCH_H
#define OPTIMD_SERVER_NET_WATCH_H

#include <uv.h>

#include "common/status.h"
#include "common/transport.h"

/* To be waited for. */
enum { WATCH_READ = 1, WATCH_WRITE = 2 };

struct watch;

/* Who is told. The calls come from the loop, none from within a function below. */
struct watcher {
    /* Bytes, or the end, can be read; bytes can be written. What has broken can do
     * both. */
    void (*on_event)(struct watch *watch, unsigned events);
    /* It is open, or error says why it never will be: of one that was not at
     * watch_open. */
    void (*on_opened)(struct watch *watch, const struct opt_error *error);
    /* After watch_close. The memory is the caller's again. */
    void (*on_closed)(struct watch *watch);
};

struct watch {
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_idle_t none; /* without a descriptor: only to be closed */
    } handle;
    struct opt_transport transport;
    const struct watcher *watcher;
    unsigned events; /* waited for */
};

/* Put a transport (copied; taken only on success) on a loop. While it is not open, that
 * is seen to. 0, or an error of libuv's. */
int watch_open(struct watch *watch, uv_loop_t *loop,
               const struct opt_transport *transport, const struct watcher *watcher);

/* Dial, and put that on a loop; as opt_transport_dial. */
enum opt_status watch_dial(struct watch *watch, uv_loop_t *loop,
                           const struct sockaddr *address, socklen_t size,
                           const struct opt_socket_tuning *tuning,
                           const struct watcher *watcher, struct opt_error *error);

/* Wait for these events from now on; while it is not open, for what that takes. */
void watch_for(struct watch *watch, unsigned events);

/* Events have happened to a transport without a descriptor. */
void watch_happened(struct watch *watch, unsigned events);

/* Close the transport, and let go of it: on_closed follows. Once. */
void watch_close(struct watch *watch);

#endif
