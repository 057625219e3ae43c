/* toy — a model of one tensor in memory, and numbers to train it with.
 *
 * For tests of the mathematics; one thread.
 */
#ifndef OPTIMD_TESTS_SUPPORT_TOY_H
#define OPTIMD_TESTS_SUPPORT_TOY_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/update.h"

struct toy {
    struct opt_spec spec;
    struct opt_tensor_options options;
    struct opt_tensor_counters counters;
    uint64_t T;
    size_t n, slot_count;
    float *w, *slots[OPT_SLOTS_MAX], *direction;
};

/* Of an expression that must be right (the test fails otherwise), n weights copied from
 * initial; the tensor is called "w" and has one dimension. */
void toy_init(struct toy *toy, const char *expression, const float *initial, size_t n);
void toy_init_spec(struct toy *toy, const struct opt_spec *spec, const float *initial,
                   size_t n);
void toy_fini(struct toy *toy);

/* One update from one fp32 gradient, or from contributions of n values each. */
void toy_update(struct toy *toy, const float *gradient);
void toy_update_from(struct toy *toy, const struct opt_contribution *contributions,
                     size_t count);

/* The same, running the blocks of every pass in a random order. */
void toy_update_shuffled(struct toy *toy, const float *gradient, uint64_t order);

/* Copy weights, slots and counters of one toy to another of the same make. */
void toy_copy(struct toy *to, const struct toy *from);

/* Whether n floats are the same bits; any NaN is the same as any other. */
bool toy_same(const float *a, const float *b, size_t n);
/* Whether weights and slots are. */
bool toy_equal(const struct toy *a, const struct toy *b);

/* Reproducible numbers: splitmix64. */
uint64_t toy_random(uint64_t *state);
float toy_uniform(uint64_t *state); /* [-1, 1) */

enum toy_input {
    TOY_ORDINARY,
    TOY_SPARSE,
    TOY_TINY,
    TOY_DENORMAL,
    TOY_HUGE,
    TOY_INPUTS
};
/* n values of one kind. */
void toy_fill(enum toy_input kind, uint64_t seed, float *out, size_t n);

#endif
