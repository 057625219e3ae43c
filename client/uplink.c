#define _GNU_SOURCE /* POLLRDHUP */
#include "client/uplink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/resolver.h"
#include "common/optim/options.h"

enum {
    /* Most pieces that one sendmsg takes (IOV_MAX of Linux). */
    PIECES_AT_ONCE = 1024,
    HEAD_CAPACITY = 64 << 10,
    /* What is left of it when no other frame is begun: most need less. */
    HEAD_SPARE = UPLINK_COPY_BYTES + (4 << 10),
    /* Read at most that much before others have their turn at the lock. */
    READ_BYTES = 1 << 20,
    NOWHERE_BYTES = 64 << 10,
    /* A daemon whose machine is gone is found dead after as much silence. */
    USER_TIMEOUT_MS = 10000,
    KEEPALIVE_IDLE_S = 5,
    KEEPALIVE_INTERVAL_S = 2,
    KEEPALIVE_COUNT = 3,
    ALIGNMENT = 64
};

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    return false;
}

static void set(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* Improvements only: where they are not to be had, the connection works without. */
static void tune(int fd, const struct sockaddr *address)
{
    if (address->sa_family == AF_UNIX) {
        return;
    }
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    if (is_loopback(address)) {
        /* A pacing algorithm such as bbr, often the system's default, halves the
         * throughput where there is no network to be careful with. */
        static const char algorithm[] = "cubic";
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, algorithm,
                         sizeof(algorithm) - 1);
    }
}

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
    uplink->fd = -1;
    uplink->bell = -1;
    uplink->timer = -1;
    uplink->head_capacity = HEAD_CAPACITY;
    uplink->head = malloc(uplink->head_capacity);
    uplink->pieces = malloc((1 + OPT_SEGMENTS_MAX) * sizeof(*uplink->pieces));
    uplink->ahead = malloc(OPT_FRAME_AHEAD);
    uplink->reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES,
        .header_bytes = OPT_HEADER_BYTES + OPT_EXPRESSION_BYTES });
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

/* A bell that rings when the socket is writable. False: errno says why. */
static bool hang_bell(struct uplink *uplink, int fd)
{
    struct epoll_event writable = { .events = EPOLLOUT }, due = { .events = EPOLLIN };
    uplink->watched = EPOLLOUT;
    uplink->bell = epoll_create1(EPOLL_CLOEXEC);
    uplink->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    bool hung = uplink->bell >= 0 && uplink->timer >= 0 &&
                epoll_ctl(uplink->bell, EPOLL_CTL_ADD, fd, &writable) == 0 &&
                epoll_ctl(uplink->bell, EPOLL_CTL_ADD, uplink->timer, &due) == 0;
    if (!hung) {
        int code = errno;
        unhang_bell(uplink);
        errno = code;
    }
    return hung;
}

/* OPT_UNAVAILABLE if to try again may help: a daemon that is not there yet makes its
 * socket, or the folder of it, when it starts. */
static enum opt_status connect_status(int code)
{
    switch (code) {
    case EACCES:
        return OPT_PERMISSION_DENIED;
    case ENOTDIR:
    case ELOOP:
    case EPROTOTYPE:
    case EAFNOSUPPORT:
        return OPT_FAILED_PRECONDITION;
    default:
        return OPT_UNAVAILABLE;
    }
}

struct uplink *uplink_connect(const struct route *route, struct opt_error *error)
{
    struct uplink *uplink = uplink_new();
    if (uplink == NULL) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for a connection");
        return NULL;
    }
    const struct sockaddr *address = (const struct sockaddr *)&route->address;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot make a socket: %s", strerror(errno));
        uplink_free(uplink);
        return NULL;
    }
    tune(fd, address);
    if (connect(fd, address, route->size) != 0 && errno != EINPROGRESS) {
        opt_fail(error, connect_status(errno), "connect: %s", strerror(errno));
        goto fail;
    }
    if (!hang_bell(uplink, fd)) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot watch a socket: %s", strerror(errno));
        goto fail;
    }
    uplink->fd = fd;
    return uplink;

fail:
    close(fd);
    uplink_free(uplink);
    return NULL;
}

enum opt_status uplink_connected(struct uplink *uplink, struct opt_error *error)
{
    int code = 0;
    socklen_t size = sizeof(code);
    if (getsockopt(uplink->fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) {
        code = errno;
    }
    if (code != 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "connect: %s", strerror(code));
    }
    return OPT_OK;
}

bool uplink_watch(struct uplink *uplink, uint32_t events)
{
    if (events == uplink->watched) {
        return true;
    }
    uplink->watched = events;
    struct epoll_event event = { .events = events };
    return epoll_ctl(uplink->bell, EPOLL_CTL_MOD, uplink->fd, &event) == 0;
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
    uplink_drop_files(uplink);
    close(uplink->fd);
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
    int pending = 0;
    if (ioctl(uplink->fd, SIOCOUTQ, &pending) != 0 || pending < 0) {
        return 0;
    }
    return (uint64_t)pending;
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
    while (uplink_sending(uplink)) {
        size_t pieces = uplink->piece_count - uplink->piece_sent;
        struct msghdr message = {
            .msg_iov = &uplink->pieces[uplink->piece_sent],
            .msg_iovlen = pieces < PIECES_AT_ONCE ? pieces : PIECES_AT_ONCE,
        };
        ssize_t sent = sendmsg(uplink->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            advance(uplink, (size_t)sent);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return UPLINK_BLOCKED;
        } else if (errno != EINTR) {
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
    struct pollfd watched = { .fd = uplink->fd, .events = POLLRDHUP };
    /* What the caller has read in shared memory was read before this looks. */
    atomic_thread_fence(memory_order_acquire);
    return poll(&watched, 1, 0) >= 0 &&
           (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

int uplink_take_file(struct uplink *uplink)
{
    if (uplink->file_count == 0) {
        return -1;
    }
    int file = uplink->files[0];
    uplink->file_count--;
    memmove(uplink->files, uplink->files + 1, uplink->file_count * sizeof(file));
    return file;
}

void uplink_drop_files(struct uplink *uplink)
{
    for (int file; (file = uplink_take_file(uplink)) >= 0;) {
        close(file);
    }
}

/* Keep the descriptors that came with a message; those that are too many are closed. */
static void keep_files(struct uplink *uplink, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int file;
            memcpy(&file, CMSG_DATA(part) + i * sizeof(file), sizeof(file));
            if (uplink->file_count < UPLINK_FILES) {
                uplink->files[uplink->file_count++] = file;
            } else {
                close(file);
            }
        }
    }
}

static ssize_t receive(struct uplink *uplink, uint8_t *base, size_t size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(UPLINK_FILES * sizeof(int))];
    } control;
    struct iovec part = { .iov_base = base, .iov_len = size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes) };
    ssize_t received;
    do {
        received = recvmsg(uplink->fd, &message, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received > 0 && message.msg_controllen > 0) {
        keep_files(uplink, &message);
    }
    return received;
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
    ssize_t received = receive(uplink, base, size);
    if (received > 0) {
        opt_frame_received(uplink->reader, (size_t)received);
        uplink->bytes_received += (uint64_t)received;
        uplink->drained = (size_t)received < size;
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
