/* descriptors — what sockets.c (flows of bytes) and syscalls.c (what the library calls)
 * both know: the table of descriptors, in memory.
 */
#ifndef OPTIMD_TESTS_FATES_DESCRIPTORS_H
#define OPTIMD_TESTS_FATES_DESCRIPTORS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/fates/sockets.h"

enum {
    FIRST = 100000, /* above all that the system gives */
    DESCRIPTORS = 512,
    WATCHED = 4,
    FILES = 8
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
    bool cuts_answer;
    bool isolated;
};

extern struct net {
    struct descriptor table[DESCRIPTORS];
    struct way ways[SOCKETS_OWNERS];
    bool is_unix;
    uint64_t chunk;
    sockets_accept accept;
    void *context;
} net;

/* NULL: not one of ours. */
struct descriptor *descriptor(int fd);
int descriptor_number(const struct descriptor *one);
/* NULL, and errno: there are too many. */
struct descriptor *descriptor_new(enum kind kind);
/* Whether nothing passes between its owner and the daemon. */
bool descriptor_is_isolated(const struct descriptor *end);
/* As read(2) does. */
ssize_t descriptor_read(struct descriptor *end, void *base, size_t size);

#endif
