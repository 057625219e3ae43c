/* world — the threads and the time of a program that runs in one real thread.
 *
 * The real daemon and the real library are linked into a test, and what they ask of the
 * system is answered here: a thread is a fiber that runs until it waits, the clock
 * stands still while anybody has something to do, and sockets are memory (sockets.h).
 * So a whole network of daemon and workers does the same in every run, hours pass at
 * once, and a test decides what happens in which order.
 *
 * The build links the functions named __wrap_... in place of the system's, and
 * libuv's own names are defined here (threads in world.c, loops in uv_loops.c).
 *
 * The test's own thread is a fiber too: whatever waits in it lets the others run, and
 * time pass, until it has what it waits for.
 */
#ifndef OPTIMD_TESTS_FATES_WORLD_H
#define OPTIMD_TESTS_FATES_WORLD_H

#include <stdbool.h>
#include <stdint.h>

enum { WORLD_NOBODY = -1 };

/* Begin, with a clock at some hours and nobody in it but the test. */
void world_begin(void);
/* End: fails the test if a fiber is left. */
void world_end(void);

uint64_t world_now(void); /* ns */

/* Whom the fibers that are begun from now on belong to; they hand it on to those that
 * they begin. A number of the test's, or WORLD_NOBODY. */
void world_belongs(int owner);
/* The same of the fiber that runs. */
int world_owner(void);

/* The running fiber waits until ready(what) is true or the time has come (UINT64_MAX:
 * never). Whether it is true. */
bool world_wait(bool (*ready)(void *what), void *what, uint64_t until_ns);

/* Have this called in the test's own fiber whenever another one has run, and before the
 * next does. NULL: no more. */
void world_watch(void (*look)(void));

/* Let everybody run until all of them wait; no time passes. */
void world_settle(void);
/* Let that much time pass, and everybody do what falls due. */
void world_pass(uint64_t ms);

#endif
