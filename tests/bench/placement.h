/* placement — on which processors two ends of a connection run.
 *
 * A round trip takes a few microseconds if the scheduler happens to keep both ends on
 * one processor, and ten times that if each message has to wake another one, a virtual
 * one above all. So whoever compares round trips says where both sides have their ends.
 * All functions place every thread that a process has now. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_PLACEMENT_H
#define OPTIMD_TESTS_BENCH_PLACEMENT_H

#include <stdbool.h>
#include <sys/types.h>

enum placement {
    PLACEMENT_ONE, /* both on the first processor: no wake-up crosses processors */
    PLACEMENT_TWO, /* the client on the first, the server on the others */
    PLACEMENT_END
};

/* "one processor", "two processors". */
const char *placement_name(enum placement placement);

/* Whether the machine has processors enough. */
bool placement_possible(enum placement placement);

/* Place a client, which may be this process, and a server. */
void placement_set(enum placement placement, pid_t client, pid_t server);

/* This process may use every processor again. */
void placement_free(void);

#endif
