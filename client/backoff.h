/* backoff — how long to wait before the next attempt to connect.
 *
 * Doubles from the least to the most, each wait drawn evenly from its upper half, so
 * that many workers that lost the same daemon do not come back in step. Called by
 * connection.h, on the client's thread.
 */
#ifndef OPTCLIENT_BACKOFF_H
#define OPTCLIENT_BACKOFF_H

#include <stdint.h>

struct backoff {
    uint32_t min_ms;
    uint32_t max_ms;
    uint32_t next_ms; /* the undrawn wait */
    uint64_t random;  /* state of the generator, not 0 */
};

/* seed: anything that differs from client to client. max_ms below min_ms counts as
 * min_ms, min_ms 0 as 1. */
void backoff_init(struct backoff *backoff, uint32_t min_ms, uint32_t max_ms,
                  uint64_t seed);

/* The next wait, in ms: between half and all of min, 2 min, 4 min, ... max. At least 1.
 */
uint32_t backoff_next(struct backoff *backoff);

/* It worked: the next wait is a short one again. */
void backoff_reset(struct backoff *backoff);

#endif
