#include "client/uplink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/resolver.h"

enum {
    HEAD_CAPACITY = 64 << 10,
    /* What is left of it when no other frame is begun: most need less. */
    HEAD_SPARE = UPLINK_COPY_BYTES + (4 << 10),
    /* Read at most that much before others have their turn at the lock. */
    READ_BYTES = 1 << 20,
    NOWHERE_BYTES = 64 << 10,
    /* A daemon whose machine is gone is found dead after as much silence. */
    USER_TIMEOUT_MS = 10000,
    ALIGNMENT = 64
};

static void uplink_free(struct uplink *uplink)
{
    opt_frame_reader_free(uplink->reader);
    free(uplink->pieces);
    free(uplink->head);
    free(uplink->values);
    free(uplink->nowhere);
    free(uplink->ahead);
    free(uplink);
}

static struct uplink *uplink_new(void)
{
    struct uplink *uplink = calloc(1, sizeof(*uplink));
    if (uplink == NULL) {
        return NULL;
    }
    uplink->transport.fd = -1;
    uplink->bell = -1;
    uplink->timer = -1;
    uplink->head_capacity = HEAD_CAPACITY;
    uplink->head = malloc(uplink->head_capacity);
    uplink->pieces = malloc((1 + OPT_SEGMENTS_MAX) * sizeof(*uplink->pieces));
    uplink->ahead = malloc(OPT_FRAME_AHEAD);
    uplink->reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES });
    if (uplink->head == NULL || uplink->pieces == NULL || uplink->ahead == NULL ||
        uplink->reader == NULL) {
        uplink_free(uplink);
        return NULL;
    }
    return uplink;
}

static void unhang_bell(struct uplink *uplink)
{
    if (uplink->bell >= 0) {
        close(uplink->bell);
        uplink->bell = -1;
    }
    if (uplink->timer >= 0) {
        close(uplink->timer);
        uplink->timer = -1;
    }
}

/* A bell that rings when opening can go on. False: errno says why. */
static bool hang_bell(struct uplink *uplink, int fd)
{
    uplink->watched = (uint32_t)uplink->transport.awaits;
    struct epoll_event opening = { .events = uplink->watched },
                       due = { .events = EPOLLIN };
    uplink->bell = epoll_create1(EPOLL_CLOEXEC);
    uplink->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    bool hung = uplink->bell >= 0 && uplink->timer >= 0 &&
                epoll_ctl(uplink->bell, EPOLL_CTL_ADD, fd, &opening) == 0 &&
                epoll_ctl(uplink->bell, EPOLL_CTL_ADD, uplink->timer, &due) == 0;
    if (!hung) {
        int code = errno;
        unhang_bell(uplink);
        errno = code;
    }
    return hung;
}

struct uplink *uplink_connect(const struct route *route, struct opt_error *error)
{
    struct uplink *uplink = uplink_new();
    if (uplink == NULL) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for a connection");
        return NULL;
    }
    struct opt_transport *transport = &uplink->transport;
    const struct opt_socket_tuning tuning = { .user_timeout_ms = USER_TIMEOUT_MS,
                                              .local = "cubic",
                                              .other = "" };
    if (opt_transport_dial(transport, (const struct sockaddr *)&route->address,
                           route->size, &tuning, error) != OPT_OK) {
        uplink_free(uplink);
        return NULL;
    }
    transport->takes_files = transport->hands_over;
    if (!hang_bell(uplink, transport->fd)) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s", strerror(errno));
        transport->kind->close(transport);
        uplink_free(uplink);
        return NULL;
    }
    return uplink;
}

enum opt_status uplink_open(struct uplink *uplink, struct opt_error *error)
{
    struct opt_transport *transport = &uplink->transport;
    enum opt_status status = transport->kind->open(transport, error);
    if (status == OPT_OK && !transport->is_open &&
        !uplink_watch(uplink, (uint32_t)transport->awaits)) {
        status = opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s",
                          strerror(errno));
    }
    return status;
}

bool uplink_is_open(const struct uplink *uplink)
{
    return uplink->transport.is_open;
}

bool uplink_watch(struct uplink *uplink, uint32_t events)
{
    if (events == uplink->watched) {
        return true;
    }
    uplink->watched = events;
    struct epoll_event event = { .events = events };
    return epoll_ctl(uplink->bell, EPOLL_CTL_MOD, uplink->transport.fd, &event) == 0;
}

void uplink_tell_in(struct uplink *uplink, uint32_t us)
{
    if (uplink->timed_us != 0 && uplink->timed_us <= us) {
        return;
    }
    uplink->timed_us = us;
    struct itimerspec when = { .it_value = { .tv_nsec = (long)us * 1000 } };
    (void)timerfd_settime(uplink->timer, 0, &when, NULL);
}

void uplink_told(struct uplink *uplink)
{
    if (uplink->timed_us != 0) {
        uplink->timed_us = 0;
        uint64_t times;
        ssize_t size = read(uplink->timer, &times, sizeof(times));
        if (size < 0) {
            /* It has not rung yet. */
            struct itimerspec never = { 0 };
            (void)timerfd_settime(uplink->timer, 0, &never, NULL);
        }
    }
}

void uplink_close(struct uplink *uplink)
{
    if (uplink == NULL) {
        return;
    }
    unhang_bell(uplink);
    uplink->transport.kind->close(&uplink->transport);
    uplink_free(uplink);
}

bool uplink_sending(const struct uplink *uplink)
{
    return uplink->piece_sent < uplink->piece_count;
}

bool uplink_borrows(const struct uplink *uplink)
{
    return uplink_sending(uplink) && uplink->piece_count > 1;
}

bool uplink_joins(const struct uplink *uplink)
{
    return !uplink_sending(uplink) ||
           (uplink->piece_count == 1 &&
            uplink->head_used + HEAD_SPARE <= uplink->head_capacity);
}

uint64_t uplink_pending(const struct uplink *uplink)
{
    return uplink->transport.kind->pending(&uplink->transport);
}

/* Room for size more bytes in the head, behind what is used of it. */
static bool grow_head(struct uplink *uplink, size_t size)
{
    size_t capacity = uplink->head_used + size;
    uint8_t *head = malloc(capacity);
    if (head == NULL) {
        return false;
    }
    memcpy(head, uplink->head, uplink->head_used);
    if (uplink_sending(uplink)) {
        size_t sent = (size_t)((uint8_t *)uplink->pieces[0].iov_base - uplink->head);
        uplink->pieces[0].iov_base = head + sent;
    }
    free(uplink->head);
    uplink->head = head;
    uplink->head_capacity = capacity;
    return true;
}

bool uplink_begin(struct uplink *uplink, const struct opt_request *request,
                  size_t data_size, size_t header_limit, size_t *header_size)
{
    size_t around = OPT_FRAME_BEGIN_MAX + UPLINK_COPY_BYTES;
    if (!uplink_sending(uplink)) {
        uplink->head_used = 0;
        uplink->piece_count = 0;
        uplink->piece_sent = 0;
    }
    size_t left = uplink->head_capacity - uplink->head_used;
    size_t room = left > around ? left - around : 0;
    size_t size = opt_request_pack(
        request, uplink->head + uplink->head_used + OPT_FRAME_PREFIX, room);
    *header_size = size;
    if (size > header_limit) {
        return false;
    }
    if (size > room) {
        if (!grow_head(uplink, size + around)) {
            *header_size = 0;
            return false;
        }
        opt_request_pack(request, uplink->head + uplink->head_used + OPT_FRAME_PREFIX,
                         size);
    }
    uint8_t *begin = uplink->head + uplink->head_used;
    uint8_t tag[12];
    size_t tag_size;
    opt_frame_begin(size, data_size, begin, tag, &tag_size);
    if (uplink->piece_count == 0) {
        uplink->pieces[0] = (struct iovec){ .iov_base = begin };
        uplink->piece_count = 1;
    }
    uplink->head_used += OPT_FRAME_PREFIX + size;
    uplink->pieces[0].iov_len += OPT_FRAME_PREFIX + size;
    uplink_copy(uplink, tag, tag_size);
    return true;
}

void uplink_copy(struct uplink *uplink, const void *data, size_t size)
{
    memcpy(uplink->head + uplink->head_used, data, size);
    uplink->head_used += size;
    uplink->pieces[0].iov_len += size;
}

void uplink_add(struct uplink *uplink, const void *data, size_t size)
{
    struct iovec *last = &uplink->pieces[uplink->piece_count - 1];
    if (uplink->piece_count > 1 &&
        (const uint8_t *)last->iov_base + last->iov_len == data) {
        last->iov_len += size;
        return;
    }
    /* iovec has no const; sendmsg only reads. */
    uplink->pieces[uplink->piece_count++] =
        (struct iovec){ .iov_base = (void *)data, .iov_len = size };
}

uint8_t *uplink_room(struct uplink *uplink, size_t size)
{
    if (size > uplink->values_capacity) {
        size_t capacity = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        uint8_t *values = aligned_alloc(ALIGNMENT, capacity);
        if (values == NULL) {
            return NULL;
        }
        free(uplink->values);
        uplink->values = values;
        uplink->values_capacity = capacity;
    }
    return uplink->values;
}

/* Cut what has been sent off the front of the pieces. */
static void advance(struct uplink *uplink, size_t sent)
{
    uplink->bytes_sent += sent;
    while (sent > 0) {
        struct iovec *piece = &uplink->pieces[uplink->piece_sent];
        size_t part = sent < piece->iov_len ? sent : piece->iov_len;
        piece->iov_base = (uint8_t *)piece->iov_base + part;
        piece->iov_len -= part;
        sent -= part;
        if (piece->iov_len == 0) {
            uplink->piece_sent++;
        }
    }
}

enum uplink_flow uplink_flush(struct uplink *uplink, struct opt_error *error)
{
    struct opt_transport *transport = &uplink->transport;
    while (uplink_sending(uplink)) {
        ssize_t sent =
            transport->kind->write(transport, &uplink->pieces[uplink->piece_sent],
                                   uplink->piece_count - uplink->piece_sent);
        if (sent >= 0) {
            advance(uplink, (size_t)sent);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return UPLINK_BLOCKED;
        } else {
            opt_fail(error, OPT_UNAVAILABLE, "send: %s", strerror(errno));
            return UPLINK_BROKEN;
        }
    }
    return UPLINK_DONE;
}

bool uplink_release(struct uplink *uplink)
{
    size_t size = 0;
    for (size_t i = uplink->piece_sent; i < uplink->piece_count; i++) {
        size += uplink->pieces[i].iov_len;
    }
    if (size == 0) {
        return true;
    }
    uint8_t *rest = malloc(size);
    if (rest == NULL) {
        return false;
    }
    size_t filled = 0;
    for (size_t i = uplink->piece_sent; i < uplink->piece_count; i++) {
        memcpy(rest + filled, uplink->pieces[i].iov_base, uplink->pieces[i].iov_len);
        filled += uplink->pieces[i].iov_len;
    }
    free(uplink->values);
    uplink->values = rest;
    uplink->values_capacity = 0; /* not aligned: not to be used for values */
    uplink->pieces[0] = (struct iovec){ .iov_base = rest, .iov_len = size };
    uplink->piece_count = 1;
    uplink->piece_sent = 0;
    uplink->head_used = uplink->head_capacity; /* nothing can follow it there */
    return true;
}

bool uplink_alive(const struct uplink *uplink)
{
    return uplink->transport.kind->alive(&uplink->transport);
}

bool uplink_holds(const struct uplink *uplink)
{
    return uplink->transport.kind->holds(&uplink->transport);
}

int uplink_take_file(struct uplink *uplink)
{
    return opt_transport_take_file(&uplink->transport);
}

void uplink_drop_files(struct uplink *uplink)
{
    for (int file; (file = uplink_take_file(uplink)) >= 0;) {
        close(file);
    }
}

enum uplink_flow uplink_receive(struct uplink *uplink, struct opt_error *error)
{
    uint8_t *base;
    size_t size;
    if (!opt_frame_take_back(uplink->reader)) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for replies");
        return UPLINK_BROKEN;
    }
    opt_frame_lend(uplink->reader, uplink->ahead);
    opt_frame_space(uplink->reader, &base, &size);
    if (uplink->skipping) {
        /* The reader only counts bytes of data; where they are is not its business. */
        base = uplink->nowhere;
        size = size < NOWHERE_BYTES ? size : NOWHERE_BYTES;
    }
    size = size < READ_BYTES ? size : READ_BYTES;
    struct opt_transport *transport = &uplink->transport;
    ssize_t received = transport->kind->read(transport, base, size);
    if (received > 0) {
        opt_frame_received(uplink->reader, (size_t)received);
        uplink->bytes_received += (uint64_t)received;
        uplink->drained = (size_t)received < size && !transport->kind->holds(transport);
        return UPLINK_DONE;
    }
    if (received == 0) {
        opt_fail(error, OPT_UNAVAILABLE, "the daemon closed the connection");
        return UPLINK_BROKEN;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return UPLINK_BLOCKED;
    }
    opt_fail(error, OPT_UNAVAILABLE, "receive: %s", strerror(errno));
    return UPLINK_BROKEN;
}

bool uplink_skip(struct uplink *uplink)
{
    if (uplink->nowhere == NULL) {
        uplink->nowhere = malloc(NOWHERE_BYTES);
    }
    uplink->skipping = uplink->nowhere != NULL;
    return uplink->skipping;
}
