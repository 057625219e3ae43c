/* transport — what carries the bytes of one connection, at either of its ends.
 *
 * A stream that is read into memory and written from pieces of memory, with a
 * descriptor that tells when either can go on. Nothing here waits or calls back: who
 * uses a transport watches the descriptor, the client's socket with epoll, the daemon's
 * loops with libuv (server/net/watch.h). A kind of transport is a table of functions:
 * there is one for sockets, of TCP and of Unix alike. What a connection is given, and
 * how long anything may take, is the business of whoever uses the transport, and so is
 * that one thread at a time does.
 */
#ifndef OPTIMD_COMMON_TRANSPORT_H
#define OPTIMD_COMMON_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/socket.h"
#include "common/status.h"

struct opt_transport;

enum {
    OPT_TRANSPORT_FILES = 4,     /* that may have come and not been taken */
    OPT_TRANSPORT_ADDRESS = 128, /* text of an address, */
    OPT_TRANSPORT_IDENTITY = 64  /* and of an identity */
};

struct opt_transport_kind {
    /* Go on with opening it, when the descriptor is ready for what it awaits: with
     * connecting, and with whatever else comes before the first byte. OPT_OK: it is
     * open, or waits again. OPT_UNAVAILABLE with a sentence: it never will be. */
    enum opt_status (*open)(struct opt_transport *transport, struct opt_error *error);

    /* How many bytes were read; 0: the peer sends no more; -1 with errno, EAGAIN if
     * there are none now. */
    ssize_t (*read)(struct opt_transport *transport, void *base, size_t size);

    /* How many bytes were written, from the first on; -1 with errno, EAGAIN if none can
     * be now. */
    ssize_t (*write)(struct opt_transport *transport, const struct iovec *pieces,
                     size_t count);

    /* Write a short piece, whole or not at all, and hand over descriptors with it; as
     * write. ETOOMANYREFS: the system lets no more be on their way. Only where the
     * transport hands_over. */
    ssize_t (*hand_over)(struct opt_transport *transport, const void *base, size_t size,
                         const int *files, size_t count);

    /* Whether it holds bytes that can be read although the descriptor does not tell of
     * them: who waits for bytes must not wait for the descriptor then. */
    bool (*holds)(const struct opt_transport *transport);

    /* Bytes that are written and that the peer's machine has not acknowledged. */
    uint64_t (*pending)(const struct opt_transport *transport);

    /* Whether the connection has not ended, as far as can be seen here. */
    bool (*alive)(const struct opt_transport *transport);

    /* For how many milliseconds the peer's machine has confirmed nothing and sent
     * nothing; 0 where that is not known, as of a peer on this machine's Unix sockets.
     * Something must be written from time to time, or an idle peer looks silent. */
    uint64_t (*silence_ms)(const struct opt_transport *transport);

    /* Nothing more is written: tell the peer. False with errno. */
    bool (*finish)(struct opt_transport *transport);

    void (*close)(struct opt_transport *transport);

    /* Both may be NULL: what the transport's own field says; what errno says. */
    const char *(*identity)(const struct opt_transport *transport);
    enum opt_status (*trouble)(const struct opt_transport *transport, int code,
                               struct opt_error *error);
};

struct opt_transport {
    const struct opt_transport_kind *kind;
    void *inside; /* the kind's own */
    int fd;       /* for poll and epoll; -1: there is none */
    bool is_open; /* bytes can be read and written; until then it */
    short awaits; /* POLLIN or POLLOUT, of poll(2), to go on with opening */
    char address[OPT_TRANSPORT_ADDRESS]; /* of the peer, for people, and who that is, */
    char identity[OPT_TRANSPORT_IDENTITY]; /* as proved to this end: "uid=1000"; "":
                                              nobody in particular */
    bool more_follows; /* the next write is followed by another one at once: a hint, so
                          that a socket sends both together */
    bool hands_over;   /* descriptors can go with bytes */
    bool takes_files;  /* those that come are kept: */
    int files[OPT_TRANSPORT_FILES]; /* these, oldest first */
    size_t file_count;
};

/* A socket that is connected and does not block (takes it): *out is open. */
void opt_transport_adopt(struct opt_transport *out, int socket,
                         const struct opt_socket_tuning *tuning);

/* Begin to connect a socket to one address. OPT_UNAVAILABLE with a sentence if that
 * fails at once, another status if it will again; then there is nothing to close. */
enum opt_status opt_transport_dial(struct opt_transport *out,
                                   const struct sockaddr *address, socklen_t size,
                                   const struct opt_socket_tuning *tuning,
                                   struct opt_error *error);

/* Who the peer is, as proved to this end: "uid=1000" over a Unix socket, the names in
 * its certificate over TLS; "": nobody in particular. Borrowed. */
const char *opt_transport_identity(const struct opt_transport *transport);

/* Why the last read or write failed, with this errno: OPT_UNAVAILABLE, or what the peer
 * has said. Returns the status. */
enum opt_status opt_transport_trouble(const struct opt_transport *transport, int code,
                                      struct opt_error *error);

/* The oldest descriptor that has come and has not been taken, now the caller's; -1:
 * there is none. */
int opt_transport_take_file(struct opt_transport *transport);

#endif
