/* syscalls — the system's calls on descriptors, on those that are in memory. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "tests/fates/descriptors.h"
#include "tests/fates/world.h"
#include "tests/fates/wraps.h"

struct polling {
    struct pollfd *watched;
    nfds_t count;
};

static bool poll_due(void *what)
{
    struct polling *polling = what;
    bool due = false;
    for (nfds_t i = 0; i < polling->count; i++) {
        struct pollfd *one = &polling->watched[i];
        one->revents = one->fd < 0               ? 0
                       : socket_is_ours(one->fd) ? sockets_events(one->fd, one->events)
                                                 : POLLNVAL;
        due = due || one->revents != 0;
    }
    return due;
}

int __wrap_poll(struct pollfd *watched, nfds_t count, int ms)
{
    if (count > 0 && watched[0].fd >= 0 && watched[0].fd < FIRST) {
        return __real_poll(watched, count, ms);
    }
    struct polling polling = { watched, count };
    uint64_t until =
        ms < 0 ? UINT64_MAX : world_now() + (uint64_t)ms * UINT64_C(1000000);
    world_wait(poll_due, &polling, until);
    int due = 0;
    for (nfds_t i = 0; i < count; i++) {
        due += watched[i].revents != 0;
    }
    return due;
}

int __wrap_socket(int family, int type, int protocol)
{
    (void)family, (void)type, (void)protocol;
    struct descriptor *end = descriptor_new(SOCKET);
    if (end == NULL) {
        return -1;
    }
    end->is_dialer = true;
    return descriptor_number(end);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    (void)address, (void)size;
    struct descriptor *end = descriptor(fd);
    if (net.accept == NULL || descriptor_is_isolated(end)) {
        errno = ECONNREFUSED;
        return -1;
    }
    struct descriptor *other = descriptor_new(SOCKET);
    if (other == NULL) {
        return -1;
    }
    other->owner = end->owner;
    other->peer = end;
    end->peer = other;
    net.accept(net.context, descriptor_number(other));
    return 0;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    (void)fd, (void)level;
    if (option == SO_ERROR) {
        memset(value, 0, *size);
        return 0;
    }
    errno = ENOPROTOOPT;
    return -1;
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    (void)fd, (void)level, (void)option, (void)value, (void)size;
    return 0;
}

int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
    (void)fd;
    if (net.is_unix) {
        struct sockaddr_un path = { .sun_family = AF_UNIX };
        memcpy(address, &path, *size < sizeof(path) ? *size : sizeof(path));
    } else {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(7070) };
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        memcpy(address, &in, sizeof(in));
    }
    return 0;
}

ssize_t __wrap_send(int fd, const void *base, size_t size, int flags)
{
    (void)flags;
    return sockets_write(fd, base, size);
}

ssize_t __wrap_recv(int fd, void *base, size_t size, int flags)
{
    (void)flags;
    return descriptor_read(descriptor(fd), base, size);
}

static void send_files(struct flow *flow, const struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, part)) {
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && flow->file_count < FILES; i++) {
            int file;
            memcpy(&file, CMSG_DATA(part) + i * sizeof(file), sizeof(file));
            flow->file_at[flow->file_count] = flow->sent;
            flow->files[flow->file_count++] = dup(file);
        }
    }
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    (void)flags;
    struct descriptor *end = descriptor(fd);
    if (message->msg_controllen > 0 && end->peer != NULL) {
        send_files(&end->peer->in, message);
    }
    ssize_t sent = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        ssize_t one = sockets_write(fd, message->msg_iov[i].iov_base,
                                    message->msg_iov[i].iov_len);
        if (one < 0) {
            return -1;
        }
        sent += one;
    }
    return sent;
}

/* The files that stand where the next byte is. */
static void take_files(struct flow *flow, struct msghdr *message, size_t room)
{
    int files[FILES];
    size_t count = 0;
    while (count < flow->file_count && flow->file_at[count] <= flow->read &&
           CMSG_SPACE((count + 1) * sizeof(int)) <= room) {
        files[count] = flow->files[count];
        count++;
    }
    if (count == 0) {
        return;
    }
    flow->file_count -= count;
    memmove(flow->files, flow->files + count, flow->file_count * sizeof(int));
    memmove(flow->file_at, flow->file_at + count, flow->file_count * sizeof(size_t));
    message->msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = message->msg_control;
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), files, count * sizeof(int));
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    (void)flags;
    struct descriptor *end = descriptor(fd);
    size_t room = message->msg_controllen;
    message->msg_controllen = 0;
    if (end->in.through > end->in.read) {
        take_files(&end->in, message, room);
    }
    return descriptor_read(end, message->msg_iov[0].iov_base,
                           message->msg_iov[0].iov_len);
}

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
    const struct descriptor *end = descriptor(fd);
    if (end == NULL || request != SIOCOUTQ) {
        return __real_ioctl(fd, request, argument);
    }
    const struct flow *flow = end->peer != NULL ? &end->peer->in : NULL;
    int pending = flow != NULL ? (int)(flow->sent - flow->through) : 0;
    memcpy(argument, &pending, sizeof(pending));
    return 0;
}

int __wrap_shutdown(int fd, int how)
{
    (void)how;
    sockets_shut(fd);
    return 0;
}

int __wrap_close(int fd)
{
    if (descriptor(fd) == NULL) {
        return __real_close(fd);
    }
    sockets_close(fd);
    return 0;
}

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    struct descriptor *one = descriptor_new(EPOLL);
    return one != NULL ? descriptor_number(one) : -1;
}

int __wrap_epoll_ctl(int fd, int operation, int other, struct epoll_event *event)
{
    struct descriptor *one = descriptor(fd);
    size_t place = 0;
    while (place < one->watched_count && one->watched[place].fd != other) {
        place++;
    }
    if (place == WATCHED || operation == EPOLL_CTL_DEL) {
        abort(); /* the library does not do that */
    }
    one->watched[place] =
        (struct pollfd){ .fd = other, .events = (short)event->events };
    one->watched_count += place == one->watched_count;
    return 0;
}

int __wrap_timerfd_create(int clock, int flags)
{
    (void)clock, (void)flags;
    struct descriptor *one = descriptor_new(TIMER);
    return one != NULL ? descriptor_number(one) : -1;
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *value,
                           struct itimerspec *before)
{
    (void)flags, (void)before;
    uint64_t ns = (uint64_t)value->it_value.tv_sec * 1000000000 +
                  (uint64_t)value->it_value.tv_nsec;
    descriptor(fd)->due_ns = ns == 0 ? UINT64_MAX : world_now() + ns;
    return 0;
}

ssize_t __wrap_read(int fd, void *base, size_t size)
{
    struct descriptor *one = descriptor(fd);
    if (one == NULL) {
        return __real_read(fd, base, size);
    }
    if (one->due_ns > world_now()) {
        errno = EAGAIN;
        return -1;
    }
    one->due_ns = UINT64_MAX;
    uint64_t times = 1;
    memcpy(base, &times, sizeof(times));
    return sizeof(times);
}

int __wrap_eventfd(unsigned value, int flags)
{
    (void)flags;
    struct descriptor *one = descriptor_new(EVENT);
    if (one == NULL) {
        return -1;
    }
    one->count = value;
    return descriptor_number(one);
}

int __wrap_eventfd_read(int fd, eventfd_t *value)
{
    *value = descriptor(fd)->count;
    descriptor(fd)->count = 0;
    return 0;
}

int __wrap_eventfd_write(int fd, eventfd_t value)
{
    descriptor(fd)->count += value;
    return 0;
}
