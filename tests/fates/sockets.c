/* sockets — see sockets.h. */
#define _GNU_SOURCE
#include "tests/fates/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fates/frames.h"
#include "tests/fates/world.h"
#include "tests/fates/wraps.h"

enum {
    FIRST = 100000, /* above all that the system gives */
    DESCRIPTORS = 512,
    WATCHED = 4,
    FILES = 8,
    CHUNK_MOST = 97
};

enum kind { FREE, SOCKET, EPOLL, TIMER, EVENT };

/* Bytes to one end of a connection. */
struct flow {
    uint8_t *bytes;
    size_t capacity;
    size_t sent;    /* by the other end */
    size_t through; /* of these, have arrived */
    size_t read;
    bool finished; /* the other end sends no more */
    int files[FILES];
    size_t file_at[FILES]; /* behind so many bytes */
    size_t file_count;
};

struct descriptor {
    enum kind kind;
    int owner;      /* SOCKET: whose way this is, at both its ends */
    bool is_dialer; /* SOCKET: the library's end */
    struct descriptor *peer;
    bool broken; /* the connection is */
    struct flow in;
    struct pollfd watched[WATCHED]; /* EPOLL */
    size_t watched_count;
    uint64_t due_ns; /* TIMER; UINT64_MAX: not set */
    uint64_t count;  /* EVENT */
};

struct way {
    bool holds_pushes;
    bool isolated;
};

static struct {
    struct descriptor table[DESCRIPTORS];
    struct way ways[SOCKETS_OWNERS];
    bool is_unix;
    uint64_t chunk;
    sockets_accept accept;
    void *context;
} net;

static struct descriptor *descriptor(int fd)
{
    return fd >= FIRST && fd < FIRST + DESCRIPTORS && net.table[fd - FIRST].kind != FREE
               ? &net.table[fd - FIRST]
               : NULL;
}

static int number_of(const struct descriptor *one)
{
    return FIRST + (int)(one - net.table);
}

static struct descriptor *descriptor_new(enum kind kind)
{
    for (size_t i = 0; i < DESCRIPTORS; i++) {
        if (net.table[i].kind == FREE) {
            net.table[i] = (struct descriptor){ .kind = kind,
                                                .owner = world_owner(),
                                                .due_ns = UINT64_MAX };
            return &net.table[i];
        }
    }
    errno = EMFILE;
    return NULL;
}

bool socket_is_ours(int fd)
{
    return descriptor(fd) != NULL;
}

/* ------------------------------------------------------------------- flows */

static struct way *way_of(const struct descriptor *end)
{
    static struct way free_way;
    return end->owner >= 0 ? &net.ways[end->owner] : &free_way;
}

/* Let arrive at an end what may. */
static void advance(struct descriptor *end)
{
    const struct way *way = way_of(end);
    struct flow *flow = &end->in;
    if (way->isolated || end->broken) {
        return;
    }
    size_t until = flow->sent;
    if (way->holds_pushes && !end->is_dialer) {
        size_t held = frames_first_push(flow->bytes, flow->through, flow->sent);
        until = held;
    }
    flow->through = until > flow->through ? until : flow->through;
}

static void append(struct flow *flow, const void *bytes, size_t size)
{
    if (flow->sent + size > flow->capacity) {
        flow->capacity = 2 * (flow->sent + size);
        uint8_t *grown = realloc(flow->bytes, flow->capacity);
        if (grown == NULL) {
            abort();
        }
        flow->bytes = grown;
    }
    if (size > 0) {
        memcpy(flow->bytes + flow->sent, bytes, size);
    }
    flow->sent += size;
}

ssize_t socket_write(int fd, const void *base, size_t size)
{
    struct descriptor *end = descriptor(fd);
    if (end->broken || end->peer == NULL) {
        errno = end->broken ? ECONNRESET : EPIPE;
        return -1;
    }
    append(&end->peer->in, base, size);
    advance(end->peer);
    return (ssize_t)size;
}

/* How many of these bytes a read gets. */
static size_t chunk(size_t size)
{
    if (net.chunk == 0 || size == 0) {
        return size;
    }
    net.chunk = net.chunk * UINT64_C(6364136223846793005) + 1442695040888963407U;
    size_t most = 1 + (size_t)(net.chunk >> 33) % CHUNK_MOST;
    return size < most ? size : most;
}

static bool has_finished(const struct descriptor *end)
{
    return end->in.finished && end->in.through == end->in.sent;
}

static ssize_t read_some(struct descriptor *end, void *base, size_t size)
{
    struct flow *flow = &end->in;
    size_t here = flow->through - flow->read;
    if (here > 0) {
        if (flow->file_count > 0 && flow->file_at[0] > flow->read &&
            flow->file_at[0] - flow->read < here) {
            here = flow->file_at[0] - flow->read;
        }
        size = chunk(size < here ? size : here);
        memcpy(base, flow->bytes + flow->read, size);
        flow->read += size;
        return (ssize_t)size;
    }
    if (end->broken) {
        errno = ECONNRESET;
        return -1;
    }
    if (has_finished(end)) {
        return 0;
    }
    errno = EAGAIN;
    return -1;
}

ssize_t socket_read(int fd, void *base, size_t size)
{
    return read_some(descriptor(fd), base, size);
}

void socket_shut(int fd)
{
    struct descriptor *end = descriptor(fd);
    if (end->peer != NULL) {
        end->peer->in.finished = true;
    }
}

void socket_close(int fd)
{
    struct descriptor *one = descriptor(fd);
    if (one->kind == SOCKET) {
        socket_shut(fd);
        if (one->peer != NULL) {
            one->peer->peer = NULL;
        }
        while (one->in.file_count > 0) {
            close(one->in.files[--one->in.file_count]);
        }
        free(one->in.bytes);
    }
    one->kind = FREE;
}

short socket_events(int fd, short wanted)
{
    const struct descriptor *one = descriptor(fd);
    short due = 0;
    switch (one->kind) {
    case SOCKET:
        due = POLLOUT;
        if (one->in.through > one->in.read || one->broken || has_finished(one)) {
            due |= POLLIN;
        }
        if (has_finished(one)) {
            due |= POLLRDHUP;
        }
        if (one->broken) {
            due |= POLLERR | POLLHUP | POLLRDHUP;
        }
        break;
    case TIMER:
        due = one->due_ns <= world_now() ? POLLIN : 0;
        break;
    case EVENT:
        due = one->count > 0 ? POLLIN : 0;
        break;
    case EPOLL:
        for (size_t i = 0; i < one->watched_count; i++) {
            const struct pollfd *watched = &one->watched[i];
            if (socket_is_ours(watched->fd) &&
                socket_events(watched->fd, watched->events) != 0) {
                due = POLLIN;
            }
        }
        break;
    case FREE:
        break;
    }
    return due & (wanted | POLLERR | POLLHUP);
}

uint64_t socket_next_due(int fd)
{
    const struct descriptor *one = descriptor(fd);
    uint64_t due = one->due_ns;
    for (size_t i = 0; i < one->watched_count; i++) {
        const struct descriptor *watched = descriptor(one->watched[i].fd);
        if (watched != NULL && watched->due_ns < due) {
            due = watched->due_ns;
        }
    }
    return due;
}

/* -------------------------------------------------------- what tests do */

void sockets_begin(bool is_unix, uint64_t chunk_seed)
{
    memset(net.ways, 0, sizeof(net.ways));
    net.is_unix = is_unix;
    net.chunk = chunk_seed;
    net.accept = NULL;
}

void sockets_end(void)
{
    for (size_t i = 0; i < DESCRIPTORS; i++) {
        if (net.table[i].kind != FREE) {
            fprintf(stderr, "descriptor %zu of kind %d is left open\n", i,
                    (int)net.table[i].kind);
            abort();
        }
    }
}

void sockets_listen(sockets_accept accept, void *context)
{
    net.accept = accept;
    net.context = context;
}

/* Each end at the daemon of an owner's connections, one after another: the next from
 * here on, or NULL. */
static struct descriptor *next_end(int owner, struct descriptor *from)
{
    for (; from < net.table + DESCRIPTORS; from++) {
        if (from->kind == SOCKET && from->owner == owner && !from->is_dialer) {
            return from;
        }
    }
    return NULL;
}

static void advance_all(int owner)
{
    for (size_t i = 0; i < DESCRIPTORS; i++) {
        struct descriptor *one = &net.table[i];
        if (one->kind == SOCKET && one->owner == owner) {
            advance(one);
        }
    }
}

void sockets_hold_pushes(int owner, bool hold)
{
    net.ways[owner].holds_pushes = hold;
    advance_all(owner);
}

static bool is_held(const struct descriptor *end)
{
    return !end->broken && end->in.through < end->in.sent;
}

bool sockets_push_is_held(int owner)
{
    struct descriptor *end = next_end(owner, net.table);
    while (end != NULL && !is_held(end)) {
        end = next_end(owner, end + 1);
    }
    return end != NULL;
}

void sockets_let_through(int owner, bool half)
{
    for (struct descriptor *end = next_end(owner, net.table); end != NULL;
         end = next_end(owner, end + 1)) {
        struct flow *flow = &end->in;
        if (is_held(end)) {
            size_t held = flow->sent - flow->through;
            flow->through += half ? (held + 1) / 2 : held;
        }
    }
}

bool sockets_damage(int owner)
{
    for (struct descriptor *end = next_end(owner, net.table); end != NULL;
         end = next_end(owner, end + 1)) {
        if (is_held(end)) {
            size_t last =
                frames_last_byte_of_push(end->in.bytes, end->in.through, end->in.sent);
            if (last != 0) {
                end->in.bytes[last] ^= 1;
                return true;
            }
        }
    }
    return false;
}

void sockets_cut(int owner)
{
    for (struct descriptor *end = next_end(owner, net.table); end != NULL;
         end = next_end(owner, end + 1)) {
        end->broken = true;
        if (end->peer != NULL) {
            end->peer->broken = true;
        }
    }
}

void sockets_isolate(int owner, bool isolate)
{
    net.ways[owner].isolated = isolate;
    advance_all(owner);
}

/* --------------------------------------------------------- system calls */

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
                       : socket_is_ours(one->fd) ? socket_events(one->fd, one->events)
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
    return number_of(end);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    (void)address, (void)size;
    struct descriptor *end = descriptor(fd);
    if (net.accept == NULL || way_of(end)->isolated) {
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
    net.accept(net.context, number_of(other));
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
        ssize_t one =
            socket_write(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
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
    return read_some(end, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
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

int __wrap_close(int fd)
{
    if (descriptor(fd) == NULL) {
        return __real_close(fd);
    }
    socket_close(fd);
    return 0;
}

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    struct descriptor *one = descriptor_new(EPOLL);
    return one != NULL ? number_of(one) : -1;
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
    return one != NULL ? number_of(one) : -1;
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
    return number_of(one);
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
