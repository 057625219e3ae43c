/* listener — one address: accepts connections and deals them to the loops. Main thread.
 *
 * The listening socket is watched by main's libuv loop, but accepted from here: libuv
 * would drop connections without a word when descriptors run out.
 */
#ifndef OPTIMD_SERVER_NET_LISTENER_H
#define OPTIMD_SERVER_NET_LISTENER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>
#include <uv.h>

#include "common/status.h"
#include "server/net/listen_address.h"
#include "server/net/refusal.h"

struct loops;

struct listener {
    uv_poll_t poll;
    int socket;
    int spare;     /* a descriptor to give up when there are no more */
    uint16_t port; /* 0: a Unix socket, */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* its file, "" if none, */
    dev_t device;                                           /* and which it is */
    ino_t inode;
    char name[128]; /* what it listens on */
    struct loops *loops;
    struct refusal refusal; /* for those beyond the limit */
};

/* Bind and listen; connections wait until listener_start. OPT_UNAVAILABLE, for example
 * if the port is taken. The file of a Unix socket is open to its owner and group, and
 * is removed at the end. congestion: for connections of this machine. */
enum opt_status listener_open(struct listener *listener,
                              const struct listen_address *where,
                              const char *congestion, struct opt_error *error);

/* Deal connections to loops from now on. */
enum opt_status listener_start(struct listener *listener, uv_loop_t *loop,
                               struct loops *loops, struct opt_error *error);

/* Accept no more. */
void listener_close(struct listener *listener);

#endif
