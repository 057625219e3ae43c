/* quota — bytes that all connections together may hold: requests that come in, answers
 * that go out.
 *
 * A connection that finds no room waits, its loop registers as waiting, and whoever
 * gives room back wakes the loops that wait. What the engine has granted to a
 * connection is reserved memory of its own and does not count here.
 *
 * Guests are connections to which the engine has granted nothing: observers, and
 * whoever has not joined a model. They may use a part of the room, so that workers find
 * some whatever guests do. Any thread.
 */
#ifndef OPTIMD_SERVER_BASE_QUOTA_H
#define OPTIMD_SERVER_BASE_QUOTA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { QUOTA_LOOPS_MAX = 64 };

struct quota {
    size_t limit;
    size_t guest_limit; /* of it, for guests */
    atomic_size_t used;
    atomic_size_t guests;                 /* of it, by guests */
    atomic_bool waiting[QUOTA_LOOPS_MAX]; /* by number of the loop */
    uv_async_t *wake[QUOTA_LOOPS_MAX];
    int loops;
};

/* Room for bytes over all, of which guests leave a quarter to others if that leaves
 * them least_guest at least. */
void quota_init(struct quota *quota, size_t bytes, size_t least_guest, int loops);

/* False: no room now. What is more than there is in all is given to whoever comes while
 * nothing is held: it would wait for ever. */
bool quota_take(struct quota *quota, size_t bytes, bool guest);

/* Take even beyond the limit: for memory that is held already, and is little. */
void quota_force(struct quota *quota, size_t bytes, bool guest);

/* Give back, and wake the loops that wait. */
void quota_give(struct quota *quota, size_t bytes, bool guest);

/* The loop wants to be woken at the next quota_give. To be called before the last
 * attempt to take, so that no room given in between is missed. */
void quota_wait(struct quota *quota, int loop);

#endif
