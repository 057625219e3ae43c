/* failpoint — places with a name, where a test has a daemon killed, delayed, or an
 * error happen, to see what comes of it.
 *
 * In the daemon that is installed there is nothing behind them. The one of the tests
 * (tests/failing/failing.c) does what its environment says; tests/faults/README.md
 * lists the names. Any thread.
 */
#ifndef OPTIMD_SERVER_STORE_FAILPOINT_H
#define OPTIMD_SERVER_STORE_FAILPOINT_H

#include <stdbool.h>
#include <stddef.h>

/* What a test has put there before any thread was started; NULL: nothing. */
extern bool (*failpoint_reached)(const char *name);

/* The place is reached. True: what follows is to fail. */
static inline bool failpoint(const char *name)
{
    return failpoint_reached != NULL && failpoint_reached(name);
}

#endif
