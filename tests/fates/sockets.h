/* sockets — sockets in the world's memory, and what a test does to their bytes.
 *
 * Each party (an owner of fibers, world.h) that dials has one way to the daemon. What
 * it sends is under way until it is let through, and can be let through in part,
 * damaged or lost. By default everything passes at once. The descriptors have numbers
 * that the system does not use; epoll, timers and event counters are here as well, as
 * far as the library uses them.
 */
#ifndef OPTIMD_TESTS_FATES_SOCKETS_H
#define OPTIMD_TESTS_FATES_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { SOCKETS_OWNERS = 8 };

/* Who takes a connection that is made: the daemon's end of it. NULL: it is refused. */
typedef void (*sockets_accept)(void *context, int socket);

/* Forget everything. chunk_seed 0: a read gets all there is; else pieces of random
 * sizes that follow from it. */
void sockets_begin(bool is_unix, uint64_t chunk_seed);
/* Fails the test if one is left open. */
void sockets_end(void);
void sockets_listen(sockets_accept accept, void *context);

/* Hold back an owner's pushes, and what it sends behind them. */
void sockets_hold_pushes(int owner, bool hold);
/* Whether one is held back. */
bool sockets_push_is_held(int owner);
/* Let this part of what is held back through: all of it, or half of its bytes. */
void sockets_let_through(int owner, bool half);
/* One byte more of it: the owner is slow, not dead. */
void sockets_trickle(int owner);
/* Flip a bit of the last byte of the first push that is held back whole, if it has
 * data. False: there is none. */
bool sockets_damage(int owner);
/* End an owner's connections: what is under way is lost. */
void sockets_cut(int owner);
/* End an owner's connection in the middle of the next answer with weights: its first
 * frame arrives, and if there are more half of the second. */
void sockets_cut_answer(int owner);
/* Whether it has one that nobody has ended. */
bool sockets_are_up(int owner);
/* Nothing passes in either direction, nor can a connection be made. */
void sockets_isolate(int owner, bool isolate);
bool sockets_are_isolated(int owner);

/* For uv_loops.c and syscalls.c: as the system calls of these names. */
bool socket_is_ours(int fd);
ssize_t sockets_write(int fd, const void *base, size_t size);
void sockets_shut(int fd);
void sockets_close(int fd);
/* Which of these events of poll(2) are due. */
short sockets_events(int fd, short wanted);
/* When a timer that this one watches is due; UINT64_MAX: none is set. */
uint64_t socket_next_due(int fd);

#endif
