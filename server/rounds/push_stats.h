/* push_stats — how a worker's pushes have fared in a model, for people who look at it.
 *
 * Counted when a push is settled; describe shows it. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_PUSH_STATS_H
#define OPTIMD_SERVER_ROUNDS_PUSH_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

struct push_stats {
    uint64_t
        staleness[OPT_STALENESS_BUCKETS]; /* of applied pushes: 0, 1, 2-3, 4-7... */
    uint64_t dropped;
    uint64_t waits;     /* how often others waited for this worker alone, */
    uint64_t waited_ns; /* and how long in all */
};

/* The bucket of a staleness: 0, then 1 more than its binary logarithm. */
static inline size_t push_stats_bucket(uint64_t staleness)
{
    size_t bucket = 0;
    while (staleness > 0 && bucket < OPT_STALENESS_BUCKETS - 1) {
        staleness /= 2;
        bucket++;
    }
    return bucket;
}

static inline void push_stats_waited(struct push_stats *conduct, uint64_t since_ns,
                                     uint64_t now_ns)
{
    conduct->waits++;
    conduct->waited_ns += now_ns > since_ns ? now_ns - since_ns : 0;
}

#endif
