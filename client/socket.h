/* socket — one connection to the daemon: what carries its bytes (common/transport.h),
 * the frames on their way out, the reader of frames coming in.
 *
 * Bytes only; what they mean is the business of requests.h and replies.h. What is going
 * out is a list of pieces of memory: header parts and short values, which live here one
 * behind the other, and then the values of the last frame, which are the caller's or,
 * narrowed, live here too. So many small frames leave in one write.
 *
 * The client's thread does not watch the socket but an epoll descriptor that watches
 * it, the bell: which events ring it can be changed from any thread. Opening and
 * closing is for the client's thread; everything else may be done by any that holds the
 * client's lock.
 */
#ifndef OPTCLIENT_SOCKET_H
#define OPTCLIENT_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/frame.h"
#include "common/status.h"
#include "common/transport.h"
#include "common/wire.h"

struct endpoint; /* endpoint.h */
struct route;    /* lookup.h */

struct socket {
    struct opt_transport transport;
    int bell;          /* epoll: readable when a watched event of it is due */
    uint32_t watched;  /* these events, EPOLLIN and EPOLLOUT */
    int timer;         /* timerfd that rings the bell as well */
    uint32_t timed_us; /* it is set to so many, or has rung; 0: neither */
    struct opt_frame_reader *reader;

    /* the frames going out */
    struct iovec *pieces; /* head first; what has been sent is cut off */
    size_t piece_count;
    size_t piece_sent; /* pieces that are out */
    uint8_t *head;     /* prefix, header part, tag, short values; of each frame */
    size_t head_used, head_capacity;
    uint8_t *values; /* narrowed values, or the rest of an abandoned frame */
    size_t values_capacity;

    /* the frame coming in */
    bool skipping;    /* its data's place is gone: read it and throw it away */
    uint8_t *nowhere; /* to here */
    uint8_t *ahead;   /* lent to the reader, for several short frames */
    bool drained;     /* the last read got all there was */

    uint64_t bytes_sent;
    uint64_t bytes_received;
};

enum { SOCKET_COPY_BYTES = 4 << 10 };

enum socket_flow {
    SOCKET_DONE,    /* everything is out; or some bytes came */
    SOCKET_BLOCKED, /* not now */
    SOCKET_BROKEN   /* the connection is lost */
};

/* Begin to connect to one address, with TLS if the endpoint says so. The bell rings
 * when a watched event is due, from the start when opening can go on (socket_open).
 * NULL with a sentence if that fails at once, and a status that is not OPT_UNAVAILABLE
 * if it will again. */
struct socket *socket_connect(const struct route *route,
                              const struct endpoint *endpoint, struct opt_error *error);

/* Go on with opening it. OPT_OK: it is open, or the bell will ring again; otherwise the
 * attempt has failed: OPT_UNAVAILABLE with a sentence, or a status that says what will
 * fail again, such as OPT_UNAUTHENTICATED for a daemon that is not believed. */
enum opt_status socket_open(struct socket *socket, struct opt_error *error);
bool socket_is_open(const struct socket *socket);

/* Have the bell ring for these events of the socket, EPOLLIN, EPOLLOUT or none, and of
 * its failure, as long as they last. False if that cannot be had. */
bool socket_watch(struct socket *socket, uint32_t events);

/* Have the bell ring in so many microseconds, whatever happens, unless a time that is
 * not longer has been set already: it stands for both. */
void socket_tell_in(struct socket *socket, uint32_t us);

/* The bell was heard: the time is no longer set. */
void socket_told(struct socket *socket);

/* Close the socket and free everything. The client's thread; NULL is allowed. */
void socket_close(struct socket *socket);

/* Whether something is on its way out. */
bool socket_sending(const struct socket *socket);

/* Whether memory of others is on its way out. */
bool socket_borrows(const struct socket *socket);

/* Whether another frame may be started behind what is on its way out. */
bool socket_joins(const struct socket *socket);

/* Bytes that have been sent and that the daemon's machine has not acknowledged. */
uint64_t socket_pending(const struct socket *socket);

/* Start a frame: pack request for data_size bytes of data, which the caller then adds
 * with socket_add. *header_size is set to that of the header part. False if it is
 * longer than header_limit (nothing is started) or there is no memory (*header_size is
 * 0). */
bool socket_begin(struct socket *socket, const struct opt_request *request,
                  size_t data_size, size_t header_limit, size_t *header_size);

/* What was copied has been sent, and something of it was secret: overwrite it. */
void socket_forget(struct socket *socket);

/* Add bytes to the frame, which are copied: short values, at most SOCKET_COPY_BYTES of
 * a frame in all. */
void socket_copy(struct socket *socket, const void *data, size_t size);

/* Add memory to the frame, borrowed until it is out; at most OPT_SEGMENTS_MAX times. */
void socket_add(struct socket *socket, const void *data, size_t size);

/* Room of the socket's own for size bytes of values of this frame, 64-byte aligned;
 * NULL if there is no memory. */
uint8_t *socket_room(struct socket *socket, size_t size);

/* Send what can be sent without waiting. */
enum socket_flow socket_flush(struct socket *socket, struct opt_error *error);

/* The frame's borrowed memory is wanted back: copy what is not out yet. False if there
 * is no memory, and then the connection must be given up. */
bool socket_release(struct socket *socket);

/* Whether the connection has not ended, as far as can be seen here. */
bool socket_alive(const struct socket *socket);

/* Whether bytes can be read although the socket does not tell of them. */
bool socket_holds(const struct socket *socket);

/* The oldest descriptor that has come and has not been taken, now the caller's; -1:
 * there is none. */
int socket_take_file(struct socket *socket);
/* Close those that have not been taken. */
void socket_drop_files(struct socket *socket);

/* Read once. */
enum socket_flow socket_receive(struct socket *socket, struct opt_error *error);

/* The place given for the data of the frame coming in is wanted back. False if there is
 * no memory, and then the connection must be given up. */
bool socket_skip(struct socket *socket);

#endif
