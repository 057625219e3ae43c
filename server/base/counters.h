/* counters — what the loops have counted since the start.
 *
 * Counted with relaxed atomics by whoever sees the event, read by the statistics
 * message; each value is exact, two values may be a moment apart. Any thread.
 */
#ifndef OPTIMD_SERVER_BASE_COUNTERS_H
#define OPTIMD_SERVER_BASE_COUNTERS_H

#include <stdint.h>

#include "common/wire.h"

enum counter {
    COUNTER_CONNECTIONS,         /* open now */
    COUNTER_CONNECTIONS_OPENED,  /* accepted and served */
    COUNTER_CONNECTIONS_REFUSED, /* told that there are too many */
    COUNTER_HANDSHAKES,          /* of TLS that came to a connection */
    COUNTER_HANDSHAKES_FAILED,   /* and that did not, or to one that is refused */
    COUNTER_LEASES_EXPIRED,      /* connections closed because of silence */
    COUNTER_BYTES_RECEIVED,
    COUNTER_BYTES_SENT,
    COUNTER_FRAMES_RECEIVED, /* complete ones */
    COUNTER_FRAMES_SENT,
    COUNTER_FRAMES_REFUSED, /* answered with an error by a loop, or broken */
    COUNTER_READ_PAUSES,    /* how often a connection had to wait for room */
    COUNTER_DATA_MOVED,     /* bytes of received data copied in user space */
    COUNTER_DATA_SHARED,    /* bytes taken and given by place, in shared memory */
    COUNTER_DATA_NARROWED,  /* bytes of sent data converted to a 16-bit type */
    COUNTER_VALUES_HELD,    /* of these, values beyond that type */
    COUNTER_RECEIVE_NS,     /* from headers to the ends of their frames */
    COUNTER_SEND_NS,        /* from the engine's answers to their last bytes written */
    COUNTER_LOOP_NS_MOST,   /* the longest turn of a loop */
    COUNTER_LOOP_COST_MOST, /* and the most work of one (loop_done) */
    COUNTER_INFLIGHT,       /* bytes of requests held now, beyond those reserved */
    COUNTER_COUNT
};

void counter_add(enum counter counter, uint64_t amount);
void counter_subtract(enum counter counter, uint64_t amount);

/* The counter is at least that. */
void counter_most(enum counter counter, uint64_t value);

uint64_t counter_read(enum counter counter);

/* All of them with their names (static text), in the order above. */
void counters_read(struct opt_counter out[COUNTER_COUNT]);

#endif
