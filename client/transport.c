#define _GNU_SOURCE /* POLLRDHUP */
#include "client/transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/resolver.h"

enum {
    /* Most pieces that one sendmsg takes (IOV_MAX of Linux). */
    PIECES_AT_ONCE = 1024,
    /* A daemon whose machine is gone is found dead after as much silence. */
    USER_TIMEOUT_MS = 10000,
    KEEPALIVE_IDLE_S = 5,
    KEEPALIVE_INTERVAL_S = 2,
    KEEPALIVE_COUNT = 3
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

static enum opt_status socket_connected(struct transport *transport,
                                        struct opt_error *error)
{
    int code = 0;
    socklen_t size = sizeof(code);
    if (getsockopt(transport->fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) {
        code = errno;
    }
    if (code != 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "connect: %s", strerror(code));
    }
    return OPT_OK;
}

/* Keep the descriptors that came with a message; those that are too many are closed. */
static void keep_files(struct transport *transport, struct msghdr *message)
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
            if (transport->file_count < TRANSPORT_FILES) {
                transport->files[transport->file_count++] = file;
            } else {
                close(file);
            }
        }
    }
}

static ssize_t socket_read(struct transport *transport, void *base, size_t size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(TRANSPORT_FILES * sizeof(int))];
    } control;
    struct iovec part = { .iov_base = base, .iov_len = size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes) };
    ssize_t received;
    do {
        received = recvmsg(transport->fd, &message, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received > 0 && message.msg_controllen > 0) {
        keep_files(transport, &message);
    }
    return received;
}

static ssize_t socket_write(struct transport *transport, const struct iovec *pieces,
                            size_t count)
{
    struct msghdr message = {
        /* iovec has no const; sendmsg only reads. */
        .msg_iov = (struct iovec *)pieces,
        .msg_iovlen = count < PIECES_AT_ONCE ? count : PIECES_AT_ONCE,
    };
    return sendmsg(transport->fd, &message, MSG_NOSIGNAL);
}

/* What has come is in the socket, whose descriptor tells of it. */
static bool socket_holds(const struct transport *transport)
{
    (void)transport;
    return false;
}

static uint64_t socket_pending(const struct transport *transport)
{
    int pending = 0;
    if (ioctl(transport->fd, SIOCOUTQ, &pending) != 0 || pending < 0) {
        return 0;
    }
    return (uint64_t)pending;
}

static bool socket_alive(const struct transport *transport)
{
    struct pollfd watched = { .fd = transport->fd, .events = POLLRDHUP };
    /* What the caller has read in shared memory was read before this looks. */
    atomic_thread_fence(memory_order_acquire);
    return poll(&watched, 1, 0) >= 0 &&
           (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

static void socket_close(struct transport *transport)
{
    for (int file; (file = transport_take_file(transport)) >= 0;) {
        close(file);
    }
    close(transport->fd);
    transport->fd = -1;
}

static const struct transport_kind socket_kind = {
    .connected = socket_connected,
    .read = socket_read,
    .write = socket_write,
    .holds = socket_holds,
    .pending = socket_pending,
    .alive = socket_alive,
    .close = socket_close,
};

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

enum opt_status transport_connect(struct transport *transport,
                                  const struct route *route, struct opt_error *error)
{
    const struct sockaddr *address = (const struct sockaddr *)&route->address;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "cannot make a socket: %s",
                        strerror(errno));
    }
    tune(fd, address);
    if (connect(fd, address, route->size) != 0 && errno != EINPROGRESS) {
        enum opt_status status = connect_status(errno);
        opt_fail(error, status, "connect: %s", strerror(errno));
        close(fd);
        return status;
    }
    *transport = (struct transport){ .kind = &socket_kind, .fd = fd };
    return OPT_OK;
}

int transport_take_file(struct transport *transport)
{
    if (transport->file_count == 0) {
        return -1;
    }
    int file = transport->files[0];
    transport->file_count--;
    memmove(transport->files, transport->files + 1,
            transport->file_count * sizeof(file));
    return file;
}
