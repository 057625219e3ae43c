/* proxy_faults — one way of a connection through the proxy: what has come and not gone
 * on yet, and what happens to it on the way.
 *
 * No sockets, no clock, no lock: the proxy's thread puts bytes in, takes out what is
 * due, and says what time it is.
 */
#ifndef OPTIMD_TESTS_SUPPORT_PROXY_FAULTS_H
#define OPTIMD_TESTS_SUPPORT_PROXY_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What happens to bytes that pass one way; all 0: nothing. */
struct lane_faults {
    uint32_t delay_ms;         /* everything comes so much later, */
    uint32_t jitter_ms;        /* and up to so much more; order is kept */
    uint32_t bytes_per_second; /* 0: no limit */
    /* One frame in so many, at random; 0: none. */
    uint32_t duplicate_one_in; /* comes twice */
    uint32_t swap_one_in;      /* changes places with the one behind it */
    uint32_t damage_one_in; /* has a bit of its tensor values flipped, if it has any */
};

struct lane;

struct lane *lane_new(void);
void lane_free(struct lane *lane);

/* Bytes have come. *random is the state of a generator, which moves. Returns how many
 * frames were tampered with. */
unsigned lane_put(struct lane *lane, const struct lane_faults *faults, uint64_t *random,
                  const uint8_t *bytes, size_t size, uint64_t now_ns);

/* No more will come: a frame that was waited for is let go as it is. */
void lane_finish(struct lane *lane);

/* Bytes that may go now, in *bytes, or 0. The rate is the fault's. */
size_t lane_due(struct lane *lane, const struct lane_faults *faults, uint64_t now_ns,
                const uint8_t **bytes);
/* So many of them have gone. */
void lane_taken(struct lane *lane, size_t size);

/* When lane_due must be asked again; UINT64_MAX: only after lane_put. */
uint64_t lane_when(const struct lane *lane, const struct lane_faults *faults);

/* Whether it has room, and whether there is anything in it. */
bool lane_open(const struct lane *lane, const struct lane_faults *faults);
bool lane_empty(const struct lane *lane);

/* A number from 0 to n - 1. */
uint64_t lane_random(uint64_t *state, uint64_t n);

#endif
