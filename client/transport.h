/* transport — what carries the bytes of one connection to the daemon.
 *
 * A stream that is read into memory and written from pieces of memory, with a
 * descriptor that tells when either can go on. A kind of transport is a table of
 * functions: there is one for sockets, of TCP and of Unix alike (transport_connect).
 * Only uplink.c calls these; closing is for the client's thread, everything else for
 * whoever holds the client's lock.
 */
#ifndef OPTCLIENT_TRANSPORT_H
#define OPTCLIENT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/status.h"

struct route; /* resolver.h */
struct transport;

enum { TRANSPORT_FILES = 4 };

struct transport_kind {
    /* What became of the attempt to connect, once the descriptor is writable: OPT_OK,
     * or OPT_UNAVAILABLE with a sentence. */
    enum opt_status (*connected)(struct transport *transport, struct opt_error *error);

    /* How many bytes were read; 0: the daemon sends no more; -1 with errno, EAGAIN if
     * there are none now. */
    ssize_t (*read)(struct transport *transport, void *base, size_t size);

    /* How many bytes were written, from the first on; -1 with errno, EAGAIN if none can
     * be now. */
    ssize_t (*write)(struct transport *transport, const struct iovec *pieces,
                     size_t count);

    /* Whether it holds bytes that can be read although the descriptor does not tell of
     * them: who waits for bytes must not wait for the descriptor then. */
    bool (*holds)(const struct transport *transport);

    /* Bytes that are written and that the daemon's machine has not acknowledged. */
    uint64_t (*pending)(const struct transport *transport);

    /* Whether the connection has not ended, as far as can be seen here. */
    bool (*alive)(const struct transport *transport);

    void (*close)(struct transport *transport);
};

struct transport {
    const struct transport_kind *kind;
    int fd;                     /* for poll and epoll; -1: there is none */
    int files[TRANSPORT_FILES]; /* that have come, over a Unix socket, */
    size_t file_count;          /* oldest first */
};

/* Begin to connect a socket to one address. OPT_UNAVAILABLE with a sentence if that
 * fails at once, another status if it will again; then there is nothing to close. */
enum opt_status transport_connect(struct transport *transport,
                                  const struct route *route, struct opt_error *error);

/* The oldest descriptor that has come and has not been taken, now the caller's; -1:
 * there is none. */
int transport_take_file(struct transport *transport);

#endif
