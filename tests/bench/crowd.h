/* crowd — many connections to a daemon at a time, which do nothing but exist, or next
 * to nothing.
 *
 * Each has said hello as an observer. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_CROWD_H
#define OPTIMD_TESTS_BENCH_CROWD_H

#include <stdbool.h>
#include <stddef.h>

enum { CROWD_MAX = 1024 };

struct crowd {
    int sockets[CROWD_MAX];
    size_t count;
};

/* A socket that is connected to "127.0.0.1:PORT", or -1. */
int crowd_connect(const char *address);

/* Add connections until there are count. False with a sentence. */
bool crowd_gather(struct crowd *crowd, const char *address, size_t count,
                  char problem[256]);

/* They ask something by turns, so many times, so that none is let go for idleness.
 * False if one was. */
bool crowd_touch(const struct crowd *crowd, size_t times);

/* Each of them begins a frame of which it then sends no more than a byte at a time. */
bool crowd_begin_frames(const struct crowd *crowd);
/* The next of them, by turns, sends one more byte. False if it was let go. */
bool crowd_drip(const struct crowd *crowd, size_t turn);

void crowd_leave(struct crowd *crowd);

#endif
