/* children — programs that the examples start and never leaves behind.
 *
 * A child is killed by the kernel when its parent ends without having stopped it,
 * however that comes about. The main thread only, with SIGCHLD blocked.
 */
#ifndef OPTIMD_EXAMPLES_CHILDREN_H
#define OPTIMD_EXAMPLES_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child {
    pid_t pid;  /* 0: not started, or ended and collected */
    int status; /* once it has ended: as waitpid's */
};

/* Start a program.
 *
 * argv       its path or name (looked for in PATH) and arguments, ended by NULL
 * output     where its standard output and error go; -1: where the parent's go
 * inherited  one more descriptor that it keeps under the same number; -1: none
 * False, with errno, if it could not be started at all; a program that is not there
 * ends at once with status 127. */
bool child_start(struct child *child, const char *const *argv, int output,
                 int inherited);

/* Collect those that have ended; never waits. */
void children_collect(struct child *children, size_t count);

/* Wait until all have ended, at most so long; whether they have. */
bool children_wait(struct child *children, size_t count, int timeout_ms);

enum child_end {
    CHILD_ENDED,
    CHILD_LATE,       /* runs, and the time is over */
    CHILD_INTERRUPTED /* runs, and SIGINT, SIGTERM or SIGHUP has come, which is left
                         pending: they must be blocked too */
};
/* Wait for one child, or for a reason not to. */
enum child_end child_attend(struct child *child, int timeout_ms);

/* SIGTERM to those that run; SIGKILL to what is left after the grace time. All have
 * ended when it returns. */
void children_stop(struct child *children, size_t count, int grace_ms);

/* It has ended, by itself, with status 0. */
bool child_succeeded(const struct child *child);

/* "ended with status 1", "was killed by signal 9 (Killed)", "runs". */
void child_describe(const struct child *child, char *out, size_t capacity);

#endif
