#include "client/backoff.h"

void backoff_init(struct backoff *backoff, uint32_t min_ms, uint32_t max_ms,
                  uint64_t seed)
{
    backoff->min_ms = min_ms == 0 ? 1 : min_ms;
    backoff->max_ms = max_ms < backoff->min_ms ? backoff->min_ms : max_ms;
    backoff->next_ms = backoff->min_ms;
    backoff->random = seed == 0 ? 1 : seed;
}

uint32_t backoff_next(struct backoff *backoff)
{
    /* xorshift64: Marsaglia 2003. */
    backoff->random ^= backoff->random << 13;
    backoff->random ^= backoff->random >> 7;
    backoff->random ^= backoff->random << 17;
    uint32_t whole = backoff->next_ms;
    uint32_t half = whole / 2;
    uint32_t wait = half + (uint32_t)(backoff->random % (whole - half + 1));
    backoff->next_ms = whole > backoff->max_ms / 2 ? backoff->max_ms : 2 * whole;
    return wait == 0 ? 1 : wait;
}

void backoff_reset(struct backoff *backoff)
{
    backoff->next_ms = backoff->min_ms;
}
