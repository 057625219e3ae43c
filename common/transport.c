#define _GNU_SOURCE /* POLLRDHUP, struct ucred */
#include "common/transport.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PIECES_AT_ONCE = 1024 /* that one sendmsg takes (IOV_MAX of Linux) */ };

static enum opt_status socket_open(struct opt_transport *transport,
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
    transport->is_open = true;
    return OPT_OK;
}

/* Keep the descriptors that came with a message; those that are too many are closed. */
static void keep_files(struct opt_transport *transport, struct msghdr *message)
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
            if (transport->file_count < OPT_TRANSPORT_FILES) {
                transport->files[transport->file_count++] = file;
            } else {
                close(file);
            }
        }
    }
}

static ssize_t receive_bytes(int fd, void *base, size_t size)
{
    ssize_t received;
    do {
        received = recv(fd, base, size, 0);
    } while (received < 0 && errno == EINTR);
    return received;
}

static ssize_t receive_with_files(struct opt_transport *transport, void *base,
                                  size_t size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(OPT_TRANSPORT_FILES * sizeof(int))];
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

/* Small frames go through the plain calls: those for messages take longer. */
static ssize_t socket_read(struct opt_transport *transport, void *base, size_t size)
{
    return transport->takes_files ? receive_with_files(transport, base, size)
                                  : receive_bytes(transport->fd, base, size);
}

static ssize_t send_bytes(int fd, const struct iovec *piece, bool more_follows)
{
    ssize_t sent;
    do {
        sent = send(fd, piece->iov_base, piece->iov_len,
                    MSG_NOSIGNAL | (more_follows ? MSG_MORE : 0));
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static ssize_t send_message(int fd, const struct msghdr *message)
{
    ssize_t sent;
    do {
        sent = sendmsg(fd, message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static ssize_t socket_write(struct opt_transport *transport, const struct iovec *pieces,
                            size_t count)
{
    if (count == 1) {
        return send_bytes(transport->fd, pieces, transport->more_follows);
    }
    struct msghdr message = {
        /* iovec has no const; sendmsg only reads. */
        .msg_iov = (struct iovec *)pieces,
        .msg_iovlen = count < PIECES_AT_ONCE ? count : PIECES_AT_ONCE,
    };
    return send_message(transport->fd, &message);
}

static ssize_t socket_hand_over(struct opt_transport *transport, const void *base,
                                size_t size, const int *files, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(OPT_TRANSPORT_FILES * sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec part = { .iov_base = (void *)(uintptr_t)base, .iov_len = size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), files, count * sizeof(int));
    /* The kernel takes so short a message whole or not at all. */
    return send_message(transport->fd, &message);
}

/* What has come is in the socket, whose descriptor tells of it. */
static bool socket_holds(const struct opt_transport *transport)
{
    (void)transport;
    return false;
}

static uint64_t socket_pending(const struct opt_transport *transport)
{
    int pending = 0;
    if (ioctl(transport->fd, SIOCOUTQ, &pending) != 0 || pending < 0) {
        return 0;
    }
    return (uint64_t)pending;
}

static bool socket_alive(const struct opt_transport *transport)
{
    struct pollfd watched = { .fd = transport->fd, .events = POLLRDHUP };
    /* What the caller has read in shared memory was read before this looks. */
    atomic_thread_fence(memory_order_acquire);
    return poll(&watched, 1, 0) >= 0 &&
           (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

static uint64_t socket_silence_ms(const struct opt_transport *transport)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(transport->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        return 0;
    }
    return info.tcpi_last_ack_recv < info.tcpi_last_data_recv
               ? info.tcpi_last_ack_recv
               : info.tcpi_last_data_recv;
}

static bool socket_finish(struct opt_transport *transport)
{
    return shutdown(transport->fd, SHUT_WR) == 0;
}

static void socket_close(struct opt_transport *transport)
{
    for (int file; (file = opt_transport_take_file(transport)) >= 0;) {
        close(file);
    }
    close(transport->fd);
    transport->fd = -1;
}

static const struct opt_transport_kind socket_kind = {
    .open = socket_open,
    .read = socket_read,
    .write = socket_write,
    .hand_over = socket_hand_over,
    .holds = socket_holds,
    .pending = socket_pending,
    .alive = socket_alive,
    .silence_ms = socket_silence_ms,
    .finish = socket_finish,
    .close = socket_close,
};

/* Who is at the other end of a Unix socket. */
static void identify(struct opt_transport *transport)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    if (getsockopt(transport->fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0) {
        snprintf(transport->identity, sizeof(transport->identity), "uid=%ld",
                 (long)who.uid);
        snprintf(transport->address, sizeof(transport->address), "unix:pid=%ld,uid=%ld",
                 (long)who.pid, (long)who.uid);
    }
}

static struct opt_transport socket_transport(int fd, const struct sockaddr *peer)
{
    struct opt_transport transport = { .kind = &socket_kind,
                                       .fd = fd,
                                       .hands_over = peer->sa_family == AF_UNIX };
    opt_socket_name(peer, transport.address, sizeof(transport.address));
    if (transport.hands_over) {
        identify(&transport);
    }
    return transport;
}

void opt_transport_adopt(struct opt_transport *out, int socket,
                         const struct opt_socket_tuning *tuning)
{
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    struct sockaddr *peer = (struct sockaddr *)&address;
    socklen_t size = sizeof(address);
    (void)getpeername(socket, peer, &size);
    opt_socket_tune(socket, peer, tuning);
    *out = socket_transport(socket, peer);
    out->is_open = true;
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

enum opt_status opt_transport_dial(struct opt_transport *out,
                                   const struct sockaddr *address, socklen_t size,
                                   const struct opt_socket_tuning *tuning,
                                   struct opt_error *error)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "cannot make a socket: %s",
                        strerror(errno));
    }
    opt_socket_tune(fd, address, tuning);
    if (connect(fd, address, size) != 0 && errno != EINPROGRESS) {
        enum opt_status status = connect_status(errno);
        opt_fail(error, status, "connect: %s", strerror(errno));
        close(fd);
        return status;
    }
    *out = socket_transport(fd, address);
    out->awaits = POLLOUT;
    return OPT_OK;
}

int opt_transport_take_file(struct opt_transport *transport)
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

const char *opt_transport_identity(const struct opt_transport *transport)
{
    return transport->kind->identity != NULL ? transport->kind->identity(transport)
                                             : transport->identity;
}

enum opt_status opt_transport_trouble(const struct opt_transport *transport, int code,
                                      struct opt_error *error)
{
    return transport->kind->trouble != NULL
               ? transport->kind->trouble(transport, code, error)
               : opt_fail(error, OPT_UNAVAILABLE, "%s", strerror(code));
}
