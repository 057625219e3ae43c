/* worker_processes — worker processes that tests kill, freeze and cut off, and what
 * they do.
 *
 * Gradients are whole numbers, summed by sgd with learning rate 1, so that the weights
 * tell which pushes took effect. The worker_ functions say what failed on standard
 * error and return false, because a child cannot fail the test by itself.
 */
#ifndef OPTIMD_TESTS_SUPPORT_WORKER_PROCESSES_H
#define OPTIMD_TESTS_SUPPORT_WORKER_PROCESSES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/optclient.h"

enum { CREW_ELEMENTS = 3 * 16384 + 5, CREW_FRAMES = 3 };

/* ---------------------------------------------------------------- a worker */

struct worker {
    struct optclient *client;
    struct optclient_model *model;
    float *gradient;
    int64_t acknowledged; /* sum of what was applied */
};

/* Connect to the address and create or join "model", a vector of CREW_ELEMENTS whose
 * first round needs two workers. */
bool worker_start(struct worker *worker, const char *address, const char *name);
/* The same with another specification than the sum. */
bool worker_start_with(struct worker *worker, const char *address, const char *name,
                       const char *specification);

/* Push the same number for every element; worker_push wants it to be applied. */
enum optclient_status worker_try_push(struct worker *worker, int number);
bool worker_push(struct worker *worker, int number);

/* Pull the weights, into gradient. */
bool worker_pull(struct worker *worker);

void worker_stop(struct worker *worker);

/* The weights are minus the sum of all that was applied, in every element, or the test
 * fails. */
void expect_sum(struct worker *worker, int64_t sum);

/* Ask until the daemon says that the worker of this name has pushed into the open
 * round, and whether it is connected. Every question is answered by the daemon, so this
 * waits for it and not for time. */
void expect_pushed(const struct worker *worker, const char *name, int connected);

/* ---------------------------------------------------------------- processes */

struct process {
    pid_t pid;
    int events; /* bytes that it writes when something has happened */
};

/* Run body in a child that dies with this process; it must not return. */
struct process spawn(void (*body)(int events));

/* In a child: something has happened. */
void tell(int events, int32_t what);
/* Wait for it; the test fails after 20 s or if the child has ended. */
int32_t await(const struct process *process);

/* Send it a signal if number is not 0, and take its end, which must be in order if no
 * signal was sent. */
void reap(struct process *process, int number);

/* ---------------------------------------------------------------- half a push */

/* In a child: join "model" over a plain socket, send so many bytes of a push of
 * CREW_ELEMENTS values in CREW_FRAMES frames, tell 1, and wait to be killed. */
void push_in_part(int events, uint16_t port, const char *name, const float *values,
                  size_t bytes);

/* How many bytes of it there are to the end of each frame. */
void push_ends(size_t ends[CREW_FRAMES]);

#endif
