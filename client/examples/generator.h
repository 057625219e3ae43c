/* generator — random numbers that are the same on every machine: splitmix64.
 *
 * For the examples' shuffles and first weights. One thread at a time per generator.
 */
#ifndef OPTIMD_EXAMPLES_GENERATOR_H
#define OPTIMD_EXAMPLES_GENERATOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct generator {
    uint64_t state; /* the seed, to begin with */
};

static inline uint64_t generator_next(struct generator *generator)
{
    uint64_t z = generator->state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* One of 0 .. n - 1, all equally likely; n at least 1. */
static inline uint64_t generator_below(struct generator *generator, uint64_t n)
{
    uint64_t uneven = (UINT64_MAX % n + 1) % n; /* of 2^64 numbers, so many too many */
    uint64_t z;
    do {
        z = generator_next(generator);
    } while (z > UINT64_MAX - uneven);
    return z % n;
}

/* Mean 0, variance 1 (Box and Muller). */
static inline double generator_normal(struct generator *generator)
{
    double u = (double)((generator_next(generator) >> 11) + 1) * 0x1p-53; /* (0, 1] */
    double v = (double)(generator_next(generator) >> 11) * 0x1p-53;       /* [0, 1) */
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Every order equally likely (Fisher and Yates). */
static inline void generator_shuffle(struct generator *generator, uint32_t *items,
                                     size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t other = (size_t)generator_below(generator, i);
        uint32_t item = items[i - 1];
        items[i - 1] = items[other];
        items[other] = item;
    }
}

#endif
