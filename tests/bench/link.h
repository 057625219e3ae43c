/* link — two network namespaces with a slow link between them.
 *
 * They have no names and end with the processes in them, so nothing is left behind
 * whatever becomes of the measurement. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_LINK_H
#define OPTIMD_TESTS_BENCH_LINK_H

#include <stdbool.h>

enum link_end {
    LINK_HOME, /* where this process has always been */
    LINK_NEAR,
    LINK_FAR,
    LINK_ENDS
};

/* The address of the far end. */
#define LINK_FAR_ADDRESS "10.77.0.2"

struct link {
    int ends[LINK_ENDS]; /* their namespaces, or -1 */
};

/* Make the namespaces, and the link, which carries no more than rate, in words of
 * tc(8), each way. False with a sentence if that may not be done here. */
bool link_open(struct link *link, const char *rate, char problem[256]);
void link_close(struct link *link);

/* Processes that are forked from now on are at that end. */
bool link_enter(const struct link *link, enum link_end end);

#endif
