/* barriers — one order of events around a barrier, played with the real daemon and the
 * real library (cast.h), and judged.
 *
 * Who passes a barrier has met the other: both were in optclient_barrier at one time,
 * or the other was not of the model then. Who could have met has: nobody's time runs
 * out while the other waits there too and can be reached. And when all is over the two
 * meet at once.
 */
#ifndef OPTIMD_TESTS_FATES_BARRIERS_H
#define OPTIMD_TESTS_FATES_BARRIERS_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/fates/play.h"

enum barrier_event {
    A_COMES,
    B_COMES,
    A_IS_CUT,        /* its connection breaks; it is back at once */
    A_IS_SILENT,     /* nothing passes between it and the daemon, from now on */
    A_IS_HEARD,      /* it does again */
    TIME_PASSES,     /* that of a barrier; less than A's lease */
    A_CLOSES,        /* the model */
    A_IS_TAKEN_OVER, /* another process takes its name */
    A_IS_RESTARTED,  /* it is killed, and started again */
    BARRIER_EVENTS
};
extern const char *const barrier_words[BARRIER_EVENTS];

enum { BARRIER_EVENTS_MOST = 10 };

struct barrier_order {
    enum transport transport;
    enum barrier_event events[BARRIER_EVENTS_MOST];
    size_t count;
};

/* Whether no event in it is one that cannot happen. */
bool barrier_order_is_possible(const struct barrier_order *order);
/* Play it. False: why tells what is wrong. */
bool barrier_order_play(const struct barrier_order *order, char *why, size_t size);

#endif
