/* sockets — see sockets.h: flows of bytes, and what tests do to them. */
#define _GNU_SOURCE
#include "tests/fates/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fates/descriptors.h"
#include "tests/fates/frames.h"
#include "tests/fates/world.h"
#include "tests/fates/wraps.h"

enum { CHUNK_MOST = 97 };

struct net net;

struct descriptor *descriptor(int fd)
{
    return fd >= FIRST && fd < FIRST + DESCRIPTORS && net.table[fd - FIRST].kind != FREE
               ? &net.table[fd - FIRST]
               : NULL;
}

int descriptor_number(const struct descriptor *one)
{
    return FIRST + (int)(one - net.table);
}

struct descriptor *descriptor_new(enum kind kind)
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

bool descriptor_is_isolated(const struct descriptor *end)
{
    return way_of(end)->isolated;
}

static void sever(struct descriptor *end)
{
    end->broken = true;
    if (end->peer != NULL) {
        end->peer->broken = true;
    }
}

/* How much of what was sent to a dialer arrives, whose next answer is cut. */
static size_t until_middle(struct descriptor *end)
{
    struct flow *flow = &end->in;
    size_t begin;
    size_t middle =
        frames_middle_of_answer(flow->bytes, flow->through, flow->sent, &begin);
    if (middle == 0) {
        return begin;
    }
    way_of(end)->cuts_answer = false;
    sever(end);
    return middle;
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
    } else if (way->cuts_answer && end->is_dialer) {
        until = until_middle(end);
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

ssize_t sockets_write(int fd, const void *base, size_t size)
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

ssize_t descriptor_read(struct descriptor *end, void *base, size_t size)
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

void sockets_shut(int fd)
{
    struct descriptor *end = descriptor(fd);
    if (end->peer != NULL) {
        end->peer->in.finished = true;
    }
}

void sockets_close(int fd)
{
    struct descriptor *one = descriptor(fd);
    if (one->kind == SOCKET) {
        sockets_shut(fd);
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

short sockets_events(int fd, short wanted)
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
                sockets_events(watched->fd, watched->events) != 0) {
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

void sockets_trickle(int owner)
{
    for (struct descriptor *end = next_end(owner, net.table); end != NULL;
         end = next_end(owner, end + 1)) {
        end->in.through += is_held(end) && !net.ways[owner].isolated;
    }
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
        sever(end);
    }
}

void sockets_cut_answer(int owner)
{
    net.ways[owner].cuts_answer = true;
}

bool sockets_are_up(int owner)
{
    struct descriptor *end = next_end(owner, net.table);
    while (end != NULL && (end->broken || end->peer == NULL || end->in.finished)) {
        end = next_end(owner, end + 1);
    }
    return end != NULL;
}

bool sockets_are_isolated(int owner)
{
    return net.ways[owner].isolated;
}

void sockets_isolate(int owner, bool isolate)
{
    net.ways[owner].isolated = isolate;
    advance_all(owner);
}
