/* restarts — a daemon with a data directory that is killed and started again where it
 * was: on the same port and socket, so that its clients find it.
 */
#ifndef OPTIMD_TESTS_SUPPORT_RESTARTS_H
#define OPTIMD_TESTS_SUPPORT_RESTARTS_H

#include "tests/support/daemon.h"

struct restarts {
    struct daemon_process daemon;
    char data[DAEMON_PATH + 16]; /* its data directory */
    const char *const *options;  /* beside where it listens and that */
};

/* Daemons that are started from now on are those of the tests, with this at their
 * failpoints (tests/failing/failing.c); NULL: nothing. */
void restarts_failpoint(const char *points);

/* Start it for the first time, and wait until it serves. */
void restarts_begin(struct restarts *restarts, const char *const *options);
/* Kill it with that signal, and wait for its end. Returns its exit status. */
int restarts_kill(struct restarts *restarts, int number);
/* Start it again; wait: until it has recovered, or the test fails. */
void restarts_again(struct restarts *restarts, bool wait);
/* The same with these options besides. */
void restarts_again_with(struct restarts *restarts, const char *const *more, bool wait);
/* Start it again: it must end with that exit status, and have said all these words,
 * separated by '|'. */
void restarts_fails(struct restarts *restarts, const char *const *more, int code,
                    const char *words);
/* SIGTERM, which must end well; everything is removed. */
void restarts_end(struct restarts *restarts);

/* The path of a file in the data directory: the last of those whose names end so, in
 * "journal", or in the only folder below "models". Static memory. */
const char *restarts_journal(const struct restarts *restarts);
const char *restarts_checkpoint(const struct restarts *restarts, const char *file);

#endif
