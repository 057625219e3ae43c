/* hand_fused — Adam and momentum as one would write them by hand, for one purpose.
 *
 * What composition costs is measured against them. hand_fused.c is compiled like the
 * kernels, once per instruction set. Any thread.
 */
#ifndef OPTIMD_TESTS_BENCH_HAND_FUSED_H
#define OPTIMD_TESTS_BENCH_HAND_FUSED_H

#include <stddef.h>

#include "common/optim/kernels.h"

/* The scalars are those that the rule prepared for the same update; momentum takes no
 * second slot. Arrays do not overlap. */
typedef void hand_fused_loop(const struct opt_scalars *scalars,
                             const float *restrict gradient, float *restrict w,
                             float *restrict first_slot, float *restrict second_slot,
                             size_t n);

struct hand_fused {
    hand_fused_loop *adam, *momentum;
};

extern const struct hand_fused hand_fused_baseline;
#ifdef __x86_64__
extern const struct hand_fused hand_fused_v3, hand_fused_v4;
#endif

/* The kernels once more, for nothing but the machine that compiled them. */
extern const struct opt_kernels opt_kernels_native;

#endif
