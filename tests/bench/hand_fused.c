/* hand_fused — see hand_fused.h. */
#include "tests/bench/hand_fused.h"

#include <math.h>

static void adam(const struct opt_scalars *scalars, const float *restrict gradient,
                 float *restrict w, float *restrict m, float *restrict v, size_t n)
{
    const struct opt_scalars k = *scalars;

#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i];
        m[i] = k.decay1 * m[i] + k.gain1 * g;
        v[i] = k.decay2 * v[i] + k.gain2 * g * g;
        w[i] -= k.step * (k.from_m * m[i] / (sqrtf(v[i]) + k.eps_outside));
    }
}

static void momentum(const struct opt_scalars *scalars, const float *restrict gradient,
                     float *restrict w, float *restrict buffer,
                     float *restrict second_slot, size_t n)
{
    const struct opt_scalars k = *scalars;

    (void)second_slot;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        buffer[i] = k.decay1 * buffer[i] + k.gain1 * gradient[i];
        w[i] -= buffer[i];
    }
}

/* As in kernels.c. */
#define TABLE_OF(isa) hand_fused_##isa
#define TABLE(isa) TABLE_OF(isa)

const struct hand_fused TABLE(OPT_KERNEL_ISA) = { adam, momentum };
