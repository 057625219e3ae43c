/* quota — bytes of requests that all connections together may hold.
 *
 * A connection that finds no room waits, its loop registers as waiting, and whoever
 * gives room back wakes the loops that wait. What the engine has granted to a
 * connection is reserved memory of its own and does not count here. Any thread.
 */
#ifndef OPTIMD_SERVER_NET_QUOTA_H
#define OPTIMD_SERVER_NET_QUOTA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { QUOTA_LOOPS_MAX = 64 };

struct quota {
    size_t limit;
    atomic_size_t used;
    atomic_bool waiting[QUOTA_LOOPS_MAX]; /* by number of the loop */
    uv_async_t *wake[QUOTA_LOOPS_MAX];
    int loops;
};

/* False: no room now. */
bool quota_take(struct quota *quota, size_t bytes);

/* Take even beyond the limit: for memory that is held already. */
void quota_force(struct quota *quota, size_t bytes);

/* Give back, and wake the loops that wait. */
void quota_give(struct quota *quota, size_t bytes);

/* The loop wants to be woken at the next quota_give. To be called before the last
 * attempt to take, so that no room given in between is missed. */
void quota_wait(struct quota *quota, int loop);

#endif
