/* listener — the port: accepts connections and deals them to the loops. Main thread.
 *
 * The listening socket is watched by main's libuv loop, but accepted from here: libuv
 * would drop connections without a word when descriptors run out.
 */
#ifndef OPTIMD_SERVER_NET_LISTENER_H
#define OPTIMD_SERVER_NET_LISTENER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/status.h"

struct loops;

/* An address to listen on. */
struct endpoint {
    struct sockaddr_storage address;
    socklen_t size;
};

struct listener {
    uv_poll_t poll;
    int socket;
    int spare; /* a descriptor to give up when there are no more */
    uint16_t port;
    char name[64]; /* address and port that it listens on */
    struct loops *loops;
};

/* "127.0.0.1:7070", "[::1]:0", "localhost:7070"; port 0 lets the kernel choose.
 * OPT_INVALID_ARGUMENT with a sentence. */
enum opt_status endpoint_parse(const char *text, struct endpoint *out,
                               struct opt_error *error);

/* Bind and listen; connections wait until listener_start. OPT_UNAVAILABLE, for example
 * if the port is taken. */
enum opt_status listener_open(struct listener *listener,
                              const struct endpoint *endpoint, struct opt_error *error);

/* Deal connections to loops from now on. */
enum opt_status listener_start(struct listener *listener, uv_loop_t *loop,
                               struct loops *loops, struct opt_error *error);

/* Accept no more. */
void listener_close(struct listener *listener);

#endif
