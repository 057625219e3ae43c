#include "client/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/endpoint.h"
#include "client/lookup.h"
#include "common/tls.h"

enum {
    HEAD_CAPACITY = 64 << 10,
    /* What is left of it when no other frame is begun: most need less. */
    HEAD_SPARE = SOCKET_COPY_BYTES + (4 << 10),
    /* Read at most that much before others have their turn at the lock. */
    READ_BYTES = 1 << 20,
    NOWHERE_BYTES = 64 << 10,
    /* A daemon whose machine is gone is found dead after as much silence. */
    USER_TIMEOUT_MS = 10000,
    ALIGNMENT = 64
};

static void socket_free(struct socket *socket)
{
    opt_frame_reader_free(socket->reader);
    free(socket->pieces);
    free(socket->head);
    free(socket->values);
    free(socket->nowhere);
    free(socket->ahead);
    free(socket);
}

static struct socket *socket_new(void)
{
    struct socket *socket = calloc(1, sizeof(*socket));
    if (socket == NULL) {
        return NULL;
    }
    socket->transport.fd = -1;
    socket->bell = -1;
    socket->timer = -1;
    socket->head_capacity = HEAD_CAPACITY;
    socket->head = malloc(socket->head_capacity);
    socket->pieces = malloc((1 + OPT_SEGMENTS_MAX) * sizeof(*socket->pieces));
    socket->ahead = malloc(OPT_FRAME_AHEAD);
    socket->reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES });
    if (socket->head == NULL || socket->pieces == NULL || socket->ahead == NULL ||
        socket->reader == NULL) {
        socket_free(socket);
        return NULL;
    }
    return socket;
}

static void unhang_bell(struct socket *socket)
{
    if (socket->bell >= 0) {
        close(socket->bell);
        socket->bell = -1;
    }
    if (socket->timer >= 0) {
        close(socket->timer);
        socket->timer = -1;
    }
}

/* A bell that rings when opening can go on. False: errno says why. */
static bool hang_bell(struct socket *socket, int fd)
{
    socket->watched = (uint32_t)socket->transport.awaits;
    struct epoll_event opening = { .events = socket->watched },
                       due = { .events = EPOLLIN };
    socket->bell = epoll_create1(EPOLL_CLOEXEC);
    socket->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    bool hung = socket->bell >= 0 && socket->timer >= 0 &&
                epoll_ctl(socket->bell, EPOLL_CTL_ADD, fd, &opening) == 0 &&
                epoll_ctl(socket->bell, EPOLL_CTL_ADD, socket->timer, &due) == 0;
    if (!hung) {
        int code = errno;
        unhang_bell(socket);
        errno = code;
    }
    return hung;
}

struct socket *socket_connect(const struct route *route,
                              const struct endpoint *endpoint, struct opt_error *error)
{
    struct socket *socket = socket_new();
    if (socket == NULL) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for a connection");
        return NULL;
    }
    struct opt_transport *transport = &socket->transport;
    const struct opt_socket_tuning tuning = { .user_timeout_ms = USER_TIMEOUT_MS,
                                              .local = "cubic",
                                              .other = "" };
    if (opt_transport_dial(transport, (const struct sockaddr *)&route->address,
                           route->size, &tuning, error) != OPT_OK) {
        socket_free(socket);
        return NULL;
    }
    transport->takes_files = transport->hands_over;
    if (endpoint->tls != NULL && opt_tls_dial(endpoint->tls, endpoint->address.host,
                                              transport, error) != OPT_OK) {
        transport->kind->close(transport);
        socket_free(socket);
        return NULL;
    }
    if (!hang_bell(socket, transport->fd)) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s", strerror(errno));
        transport->kind->close(transport);
        socket_free(socket);
        return NULL;
    }
    return socket;
}

enum opt_status socket_open(struct socket *socket, struct opt_error *error)
{
    struct opt_transport *transport = &socket->transport;
    enum opt_status status = transport->kind->open(transport, error);
    if (status == OPT_OK && !transport->is_open &&
        !socket_watch(socket, (uint32_t)transport->awaits)) {
        status = opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s",
                          strerror(errno));
    }
    return status;
}

bool socket_is_open(const struct socket *socket)
{
    return socket->transport.is_open;
}

bool socket_watch(struct socket *socket, uint32_t events)
{
    if (events == socket->watched) {
        return true;
    }
    socket->watched = events;
    struct epoll_event event = { .events = events };
    return epoll_ctl(socket->bell, EPOLL_CTL_MOD, socket->transport.fd, &event) == 0;
}

void socket_tell_in(struct socket *socket, uint32_t us)
{
    if (socket->timed_us != 0 && socket->timed_us <= us) {
        return;
    }
    socket->timed_us = us;
    struct itimerspec when = { .it_value = { .tv_nsec = (long)us * 1000 } };
    (void)timerfd_settime(socket->timer, 0, &when, NULL);
}

void socket_told(struct socket *socket)
{
    if (socket->timed_us != 0) {
        socket->timed_us = 0;
        uint64_t times;
        ssize_t size = read(socket->timer, &times, sizeof(times));
        if (size < 0) {
            /* It has not rung yet. */
            struct itimerspec never = { 0 };
            (void)timerfd_settime(socket->timer, 0, &never, NULL);
        }
    }
}

void socket_close(struct socket *socket)
{
    if (socket == NULL) {
        return;
    }
    unhang_bell(socket);
    socket->transport.kind->close(&socket->transport);
    socket_free(socket);
}

bool socket_sending(const struct socket *socket)
{
    return socket->piece_sent < socket->piece_count;
}

bool socket_borrows(const struct socket *socket)
{
    return socket_sending(socket) && socket->piece_count > 1;
}

bool socket_joins(const struct socket *socket)
{
    return !socket_sending(socket) ||
           (socket->piece_count == 1 &&
            socket->head_used + HEAD_SPARE <= socket->head_capacity);
}

uint64_t socket_pending(const struct socket *socket)
{
    return socket->transport.kind->pending(&socket->transport);
}

/* Room for size more bytes in the head, behind what is used of it. */
static bool grow_head(struct socket *socket, size_t size)
{
    size_t capacity = socket->head_used + size;
    uint8_t *head = malloc(capacity);
    if (head == NULL) {
        return false;
    }
    memcpy(head, socket->head, socket->head_used);
    if (socket_sending(socket)) {
        size_t sent = (size_t)((uint8_t *)socket->pieces[0].iov_base - socket->head);
        socket->pieces[0].iov_base = head + sent;
    }
    free(socket->head);
    socket->head = head;
    socket->head_capacity = capacity;
    return true;
}

bool socket_begin(struct socket *socket, const struct opt_request *request,
                  size_t data_size, size_t header_limit, size_t *header_size)
{
    size_t around = OPT_FRAME_BEGIN_MAX + SOCKET_COPY_BYTES;
    if (!socket_sending(socket)) {
        socket->head_used = 0;
        socket->piece_count = 0;
        socket->piece_sent = 0;
    }
    size_t left = socket->head_capacity - socket->head_used;
    size_t room = left > around ? left - around : 0;
    size_t size = opt_request_pack(
        request, socket->head + socket->head_used + OPT_FRAME_PREFIX, room);
    *header_size = size;
    if (size > header_limit) {
        return false;
    }
    if (size > room) {
        if (!grow_head(socket, size + around)) {
            *header_size = 0;
            return false;
        }
        opt_request_pack(request, socket->head + socket->head_used + OPT_FRAME_PREFIX,
                         size);
    }
    uint8_t *begin = socket->head + socket->head_used;
    uint8_t tag[12];
    size_t tag_size;
    opt_frame_begin(size, data_size, begin, tag, &tag_size);
    if (socket->piece_count == 0) {
        socket->pieces[0] = (struct iovec){ .iov_base = begin };
        socket->piece_count = 1;
    }
    socket->head_used += OPT_FRAME_PREFIX + size;
    socket->pieces[0].iov_len += OPT_FRAME_PREFIX + size;
    socket_copy(socket, tag, tag_size);
    return true;
}

void socket_forget(struct socket *socket)
{
    if (!socket_sending(socket)) {
        explicit_bzero(socket->head, socket->head_capacity);
    }
}

void socket_copy(struct socket *socket, const void *data, size_t size)
{
    memcpy(socket->head + socket->head_used, data, size);
    socket->head_used += size;
    socket->pieces[0].iov_len += size;
}

void socket_add(struct socket *socket, const void *data, size_t size)
{
    struct iovec *last = &socket->pieces[socket->piece_count - 1];
    if (socket->piece_count > 1 &&
        (const uint8_t *)last->iov_base + last->iov_len == data) {
        last->iov_len += size;
        return;
    }
    /* iovec has no const; sendmsg only reads. */
    socket->pieces[socket->piece_count++] =
        (struct iovec){ .iov_base = (void *)data, .iov_len = size };
}

uint8_t *socket_room(struct socket *socket, size_t size)
{
    if (size > socket->values_capacity) {
        size_t capacity = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        uint8_t *values = aligned_alloc(ALIGNMENT, capacity);
        if (values == NULL) {
            return NULL;
        }
        free(socket->values);
        socket->values = values;
        socket->values_capacity = capacity;
    }
    return socket->values;
}

/* Cut what has been sent off the front of the pieces. */
static void advance(struct socket *socket, size_t sent)
{
    socket->bytes_sent += sent;
    while (sent > 0) {
        struct iovec *piece = &socket->pieces[socket->piece_sent];
        size_t part = sent < piece->iov_len ? sent : piece->iov_len;
        piece->iov_base = (uint8_t *)piece->iov_base + part;
        piece->iov_len -= part;
        sent -= part;
        if (piece->iov_len == 0) {
            socket->piece_sent++;
        }
    }
}

/* What errno, or the transport, has to say. */
static enum socket_flow broken(const struct socket *socket, const char *at,
                               struct opt_error *error)
{
    struct opt_error cause;
    opt_transport_trouble(&socket->transport, errno, &cause);
    opt_fail(error, cause.status, "%s: %s", at, cause.text);
    return SOCKET_BROKEN;
}

enum socket_flow socket_flush(struct socket *socket, struct opt_error *error)
{
    struct opt_transport *transport = &socket->transport;
    while (socket_sending(socket)) {
        ssize_t sent =
            transport->kind->write(transport, &socket->pieces[socket->piece_sent],
                                   socket->piece_count - socket->piece_sent);
        if (sent >= 0) {
            advance(socket, (size_t)sent);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return SOCKET_BLOCKED;
        } else {
            return broken(socket, "send", error);
        }
    }
    return SOCKET_DONE;
}

bool socket_release(struct socket *socket)
{
    size_t size = 0;
    for (size_t i = socket->piece_sent; i < socket->piece_count; i++) {
        size += socket->pieces[i].iov_len;
    }
    if (size == 0) {
        return true;
    }
    uint8_t *rest = malloc(size);
    if (rest == NULL) {
        return false;
    }
    size_t filled = 0;
    for (size_t i = socket->piece_sent; i < socket->piece_count; i++) {
        memcpy(rest + filled, socket->pieces[i].iov_base, socket->pieces[i].iov_len);
        filled += socket->pieces[i].iov_len;
    }
    free(socket->values);
    socket->values = rest;
    socket->values_capacity = 0; /* not aligned: not to be used for values */
    socket->pieces[0] = (struct iovec){ .iov_base = rest, .iov_len = size };
    socket->piece_count = 1;
    socket->piece_sent = 0;
    socket->head_used = socket->head_capacity; /* nothing can follow it there */
    return true;
}

bool socket_alive(const struct socket *socket)
{
    return socket->transport.kind->alive(&socket->transport);
}

bool socket_holds(const struct socket *socket)
{
    return socket->transport.kind->holds(&socket->transport);
}

int socket_take_file(struct socket *socket)
{
    return opt_transport_take_file(&socket->transport);
}

void socket_drop_files(struct socket *socket)
{
    for (int file; (file = socket_take_file(socket)) >= 0;) {
        close(file);
    }
}

enum socket_flow socket_receive(struct socket *socket, struct opt_error *error)
{
    uint8_t *base;
    size_t size;
    if (!opt_frame_take_back(socket->reader)) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for replies");
        return SOCKET_BROKEN;
    }
    opt_frame_lend(socket->reader, socket->ahead);
    opt_frame_space(socket->reader, &base, &size);
    if (socket->skipping) {
        /* The reader only counts bytes of data; where they are is not its business. */
        base = socket->nowhere;
        size = size < NOWHERE_BYTES ? size : NOWHERE_BYTES;
    }
    size = size < READ_BYTES ? size : READ_BYTES;
    struct opt_transport *transport = &socket->transport;
    ssize_t received = transport->kind->read(transport, base, size);
    if (received > 0) {
        opt_frame_received(socket->reader, (size_t)received);
        socket->bytes_received += (uint64_t)received;
        socket->drained = (size_t)received < size && !transport->kind->holds(transport);
        return SOCKET_DONE;
    }
    if (received == 0) {
        opt_fail(error, OPT_UNAVAILABLE, "the daemon closed the connection");
        return SOCKET_BROKEN;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return SOCKET_BLOCKED;
    }
    return broken(socket, "receive", error);
}

bool socket_skip(struct socket *socket)
{
    if (socket->nowhere == NULL) {
        socket->nowhere = malloc(NOWHERE_BYTES);
    }
    socket->skipping = socket->nowhere != NULL;
    return socket->skipping;
}
