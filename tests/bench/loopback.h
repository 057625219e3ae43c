/* loopback — what a socket on this machine can do with nothing behind it.
 *
 * Two peers, each a process of its own: a blocking one that reads and writes bare bytes
 * between large cold regions, and a libuv echo server. They set the floor for the time
 * and the ceiling for the rate of everything that optimd does over TCP. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_LOOPBACK_H
#define OPTIMD_TESTS_BENCH_LOOPBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { LOOPBACK_PIECE = 4 << 20 /* most that one call reads or writes */ };

/* What `count` messages of `size` bytes do on the wire. */
enum loopback_pattern {
    LOOPBACK_UP,         /* a stream to the peer, one byte back at the end */
    LOOPBACK_DOWN,       /* a stream from the peer */
    LOOPBACK_UP_EACH,    /* each answered by one byte before the next */
    LOOPBACK_DOWN_EACH,  /* each asked for by one byte */
    LOOPBACK_THERE_BACK, /* each answered by one of the same size */
    LOOPBACK_END
};

struct loopback {
    pid_t pid;
    int socket;
    void *from, *to; /* regions that messages are taken from and put to */
    size_t region;   /* bytes of each */
    size_t at;       /* place of the next message in the regions */
};

/* Start the bare peer with this congestion control ("" for the system's) and regions of
 * that many bytes, which are also the longest message. False with a sentence. */
bool loopback_start(struct loopback *loopback, const char *congestion, size_t region,
                    char problem[256]);
void loopback_stop(struct loopback *loopback);

/* Move count messages; returns the seconds it took, or a negative number with a
 * sentence. */
double loopback_move(struct loopback *loopback, enum loopback_pattern pattern,
                     size_t size, size_t count, char problem[256]);

/* A blocking socket to a new libuv echo server. */
struct echo {
    pid_t pid;
    int socket;
};
bool echo_start(struct echo *echo, const char *congestion, char problem[256]);
void echo_stop(struct echo *echo);

/* A port of the loopback that was free just now, or 0. */
uint16_t loopback_port(void);
/* A blocking socket to that port with this congestion control, or -1. */
int loopback_connect(uint16_t port, const char *congestion);

/* All size bytes, or false. */
bool loopback_send(int socket, const void *bytes, size_t size);
bool loopback_receive(int socket, void *bytes, size_t size);

#endif
