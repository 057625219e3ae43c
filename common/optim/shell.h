/* shell — the loop around every rule.
 *
 * A rule is a function of one element: it takes the gradient and the weight, moves its
 * slots and returns the direction u. The shell is inlined around it as one loop that
 * reads and writes each array once:
 *
 *     g' = clamp(scale g, bound) + coupled w        clipping, ratio of the gradient,
 *                                                   coupled decay
 *     u  = rule(g', slots) + inside w               decay in the update
 *     w' = w - (decoupled w + step u)               decoupled decay, learning rate and
 *                                                   trust ratio
 *
 * What an optimizer does not use is arithmetic that does nothing (times 1, plus 0, a
 * bound of infinity) and never a branch or another pass, so composition costs next to
 * nothing. Included by the kernels only, which are compiled for each instruction set.
 */
#ifndef OPTIMD_COMMON_OPTIM_SHELL_H
#define OPTIMD_COMMON_OPTIM_SHELL_H

#include <math.h>

#include "common/optim/float_bits.h"
#include "common/optim/kernels.h"

#define OPT_INLINE static inline __attribute__((always_inline))

/* Slots are separate pointers to locals: an array of them would stop the vectoriser. */
typedef float opt_element(const struct opt_scalars *k, float g, float *a, float *b,
                          float *c);

OPT_INLINE float larger(float a, float b)
{
    return a > b ? a : b;
}

/* n / d with n/0 = 0: d is 0 only with eps = 0, where no gradient has come yet or its
 * square has underflowed. */
OPT_INLINE float quotient(float n, float d)
{
    return d == 0.0f ? 0.0f : n / d;
}

/* NaN stays NaN. */
OPT_INLINE float clamp(float x, float bound)
{
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}

OPT_INLINE float shell_gradient(const struct opt_slice *s, enum opt_load load, size_t i)
{
    switch (load) {
    case OPT_LOAD_BF16:
        return bf16_to_float(((const uint16_t *)s->gradient[0])[i]);
    case OPT_LOAD_FP16:
        return fp16_to_float(((const uint16_t *)s->gradient[0])[i]);
    case OPT_LOAD_FP32_PAIR:
        return (float)(s->factor[0] * (double)((const float *)s->gradient[0])[i] +
                       s->factor[1] * (double)((const float *)s->gradient[1])[i]);
    case OPT_LOAD_FP32:
    default:
        return ((const float *)s->gradient[0])[i];
    }
}

/* load, slots, to_direction and rule are constants wherever this is inlined. The slice
 * and the scalars are copied because stores to float arrays might change them for all
 * the compiler knows. */
OPT_INLINE void shell_loop(const struct opt_slice *slice, enum opt_load load, int slots,
                           bool to_direction, opt_element *rule)
{
    const struct opt_slice s = *slice;
    const struct opt_scalars k = *slice->scalars;
    float *a = s.slots[0], *b = s.slots[1], *c = s.slots[2];

#pragma omp simd
    for (size_t i = 0; i < s.n; i++) {
        float w = s.w[i];
        float g = clamp(k.scale * shell_gradient(&s, load, i), k.bound) + k.coupled * w;
        float ai = slots > 0 ? a[i] : 0.0f;
        float bi = slots > 1 ? b[i] : 0.0f;
        float ci = slots > 2 ? c[i] : 0.0f;
        float u = rule(&k, g, &ai, &bi, &ci) + k.inside * w;
        if (slots > 0) {
            a[i] = ai;
        }
        if (slots > 1) {
            b[i] = bi;
        }
        if (slots > 2) {
            c[i] = ci;
        }
        if (to_direction) {
            s.direction[i] = u;
        } else {
            s.w_out[i] = w - (k.decoupled * w + k.step * u);
        }
    }
}

OPT_INLINE void shell_goal(const struct opt_slice *s, enum opt_load load, int slots,
                           opt_element *rule)
{
    if (s->direction != NULL) {
        shell_loop(s, load, slots, true, rule);
    } else {
        shell_loop(s, load, slots, false, rule);
    }
}

/* One loop for every way to read the gradient and for both goals. */
OPT_INLINE void shell_update(const struct opt_slice *s, int slots, opt_element *rule)
{
    switch (s->load) {
    case OPT_LOAD_FP32:
        shell_goal(s, OPT_LOAD_FP32, slots, rule);
        break;
    case OPT_LOAD_BF16:
        shell_goal(s, OPT_LOAD_BF16, slots, rule);
        break;
    case OPT_LOAD_FP16:
        shell_goal(s, OPT_LOAD_FP16, slots, rule);
        break;
    case OPT_LOAD_FP32_PAIR:
        shell_goal(s, OPT_LOAD_FP32_PAIR, slots, rule);
        break;
    }
}

#endif
