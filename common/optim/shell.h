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
 * What would leave the range of fp32 (the square of a gradient of 1e20, a sum of the
 * largest values) is held at the largest value there is: an infinite moment would never
 * come back, and infinity times 0 is NaN. So finite values make finite ones, unless the
 * specification says nonfinite=propagate.
 *
 * What an optimizer does not use is arithmetic that does nothing (times 1, plus 0, a
 * bound of infinity) and never a branch or another pass, so composition costs next to
 * nothing. Included by the kernels only, which are compiled for each instruction set.
 */
#ifndef OPTIMD_COMMON_OPTIM_SHELL_H
#define OPTIMD_COMMON_OPTIM_SHELL_H

#include <float.h>
#include <math.h>

#include "common/optim/float_bits.h"
#include "common/optim/kernels.h"

#define OPT_INLINE static inline __attribute__((always_inline))

/* Slots are separate pointers to locals: an array of them would stop the vectoriser. */
typedef float opt_element(const struct opt_scalars *k, float g, float *a, float *b,
                          float *c);

/* Memory is asked for this many elements before a loop comes to it. The processor looks
 * ahead by itself, but begins anew at every page and with few lines at a time: this
 * takes off up to a tenth of the time from memory and a third from the last-level
 * cache. It adds a tenth to the shortest rules where everything is in a nearer one. */
enum {
    SHELL_AHEAD = 256,
    SHELL_LINE = 16,           /* fp32 in 64 bytes */
    SHELL_RUN = 8 * SHELL_LINE /* asked for together */
};

/* Ask for what SHELL_LINE elements of this size will be when the loop that is at i now
 * comes to them. Past the end of an array that does nothing. */
OPT_INLINE void shell_ask(const void *array, size_t size, size_t i)
{
    __builtin_prefetch((const void *)((uintptr_t)array + (i + SHELL_AHEAD) * size));
}

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

/* x, or the largest value allowed. */
OPT_INLINE float held(const struct opt_scalars *k, float x)
{
    return clamp(x, k->largest);
}

OPT_INLINE float finite_or_zero(float x)
{
    return fabsf(x) <= FLT_MAX ? x : 0.0f;
}

/* The same for what has been computed from an fp32 value in fp64. */
OPT_INLINE double finite_or_zero_double(double x)
{
    return fabs(x) <= DBL_MAX ? x : 0.0;
}

/* One of the two gradients of a pair, times its factor. */
OPT_INLINE double shell_share(const struct opt_slice *s, bool clean, int which,
                              size_t i)
{
    double share = s->factor[which] * (double)((const float *)s->gradient[which])[i];
    return clean ? finite_or_zero_double(share) : share;
}

OPT_INLINE float shell_gradient(const struct opt_slice *s, enum opt_load load,
                                bool clean, size_t i)
{
    switch (load) {
    case OPT_LOAD_BF16:
        return bf16_to_float(((const uint16_t *)s->gradient[0])[i]);
    case OPT_LOAD_FP16:
        return fp16_to_float(((const uint16_t *)s->gradient[0])[i]);
    case OPT_LOAD_FP32_PAIR:
        return (float)(shell_share(s, clean, 0, i) + shell_share(s, clean, 1, i));
    case OPT_LOAD_FP32:
    default:
        return ((const float *)s->gradient[0])[i];
    }
}

/* What the elements of a run had before they were moved. */
struct shell_run {
    float w[SHELL_RUN], slots[3][SHELL_RUN];
};

/* x as it is kept. careful: held, and *trace becomes the largest size there was. Else x
 * itself, and it is added to *trace, which is not finite if one of them is not. */
OPT_INLINE float shell_kept(const struct opt_scalars *k, bool careful, float x,
                            float *trace)
{
    if (!careful) {
        *trace += x;
        return x;
    }
    *trace = fabsf(x) > *trace ? fabsf(x) : *trace;
    return held(k, x);
}

/* One element: moves its slots and returns its direction. load, clean, slots, rule and
 * careful are constants wherever this is inlined. Scaled, a gradient that has changed
 * since its norm was taken, or a sum that had been found finite, may be infinite too.
 */
OPT_INLINE float shell_direction(const struct opt_slice *s, const struct opt_scalars *k,
                                 enum opt_load load, bool clean, int slots,
                                 opt_element *rule, bool careful, size_t i,
                                 float *trace)
{
    float *a = s->slots[0], *b = s->slots[1], *c = s->slots[2];
    float w = s->w[i];
    float scaled = k->scale * shell_gradient(s, load, clean, i);
    float clipped = clamp(clean ? finite_or_zero(scaled) : scaled, k->bound);
    float coupled = clipped + k->coupled * w, unused = 0.0f;
    float g = shell_kept(k, careful, coupled, careful ? &unused : trace);
    float ai = slots > 0 ? a[i] : 0.0f;
    float bi = slots > 1 ? b[i] : 0.0f;
    float ci = slots > 2 ? c[i] : 0.0f;
    float u = rule(k, g, &ai, &bi, &ci) + k->inside * w;
    if (slots > 0) {
        a[i] = shell_kept(k, careful, ai, trace);
    }
    if (slots > 1) {
        b[i] = shell_kept(k, careful, bi, trace);
    }
    if (slots > 2) {
        c[i] = shell_kept(k, careful, ci, trace);
    }
    return shell_kept(k, careful, u, trace);
}

/* Ask for all that the loop around shell_direction touches. */
OPT_INLINE void shell_ask_all(const struct opt_slice *s, enum opt_load load, int slots,
                              size_t i)
{
    bool half = load == OPT_LOAD_BF16 || load == OPT_LOAD_FP16;

    shell_ask(s->w, sizeof(float), i);
    shell_ask(s->gradient[0], half ? sizeof(uint16_t) : sizeof(float), i);
    if (load == OPT_LOAD_FP32_PAIR) {
        shell_ask(s->gradient[1], sizeof(float), i);
    }
    if (slots > 0) {
        shell_ask(s->slots[0], sizeof(float), i);
    }
    if (slots > 1) {
        shell_ask(s->slots[1], sizeof(float), i);
    }
    if (slots > 2) {
        shell_ask(s->slots[2], sizeof(float), i);
    }
}

/* Step a run as if nothing had to be held, which is most of the time so. False if
 * something had to be, or perhaps had; before has what was there. Times 0, what is
 * finite is 0, and what is not is NaN. */
OPT_INLINE bool shell_step_quick(const struct opt_slice *s, const struct opt_scalars *k,
                                 enum opt_load load, bool clean, int slots,
                                 opt_element *rule, size_t first, size_t count,
                                 struct shell_run *before)
{
    float trace = 0.0f;

#pragma omp simd reduction(+ : trace)
    for (size_t l = 0; l < count; l++) {
        size_t i = first + l;
        float w = s->w[i];
        before->w[l] = w;
        if (slots > 0) {
            before->slots[0][l] = s->slots[0][i];
        }
        if (slots > 1) {
            before->slots[1][l] = s->slots[1][i];
        }
        if (slots > 2) {
            before->slots[2][l] = s->slots[2][i];
        }
        float all = 0.0f;
        float u = shell_direction(s, k, load, clean, slots, rule, false, i, &all);
        float stepped = w - (k->decoupled * w + k->step * u);
        s->w_out[i] = shell_kept(k, false, stepped, &all);
        trace += all * 0.0f;
    }
    return trace == 0.0f || k->largest > FLT_MAX;
}

/* Step it once more, from what was there, and hold what is too large. Returns whether
 * anything was. */
OPT_INLINE bool shell_step_careful(const struct opt_slice *s,
                                   const struct opt_scalars *k, enum opt_load load,
                                   bool clean, int slots, opt_element *rule,
                                   size_t first, size_t count,
                                   const struct shell_run *before)
{
    float trace = 0.0f;

    for (size_t l = 0; l < count; l++) {
        size_t i = first + l;
        float w = before->w[l];
        if (s->w_out == s->w) {
            s->w_out[i] = w;
        }
        for (int slot = 0; slot < slots; slot++) {
            s->slots[slot][i] = before->slots[slot][l];
        }
        float u = shell_direction(s, k, load, clean, slots, rule, true, i, &trace);
        float stepped = w - (k->decoupled * w + k->step * u);
        s->w_out[i] = shell_kept(k, true, stepped, &trace);
    }
    return trace > k->largest;
}

/* The slice and the scalars are copied because stores to float arrays might change them
 * for all the compiler knows. */
OPT_INLINE void shell_step_loop(const struct opt_slice *slice, enum opt_load load,
                                bool clean, int slots, opt_element *rule)
{
    const struct opt_slice s = *slice;
    const struct opt_scalars k = *slice->scalars;
    struct shell_run before;

    for (size_t i = 0; i < s.n; i += SHELL_RUN) {
        size_t end = s.n - i < SHELL_RUN ? s.n : i + SHELL_RUN;

        for (size_t at = i; at < end; at += SHELL_LINE) {
            shell_ask_all(&s, load, slots, at);
            if (s.w_out != s.w) {
                shell_ask(s.w_out, sizeof(float), at);
            }
        }
        if (!shell_step_quick(&s, &k, load, clean, slots, rule, i, end - i, &before)) {
            *s.held |= shell_step_careful(&s, &k, load, clean, slots, rule, i, end - i,
                                          &before);
        }
    }
}

/* Directions of count <= OPT_LANES elements from i on, and the squares of them and of
 * the weights in their lanes (norm.c) while they are in registers. */
OPT_INLINE unsigned shell_lanes(const struct opt_slice *s, const struct opt_scalars *k,
                                enum opt_load load, bool clean, int slots, bool stored,
                                opt_element *rule, size_t i, size_t count,
                                double *restrict directions, double *restrict weights)
{
    float most = 0.0f;

#pragma omp simd reduction(max : most)
    for (size_t l = 0; l < count; l++) {
        double w = (double)s->w[i + l];
        float u = shell_direction(s, k, load, clean, slots, rule, true, i + l, &most);
        if (stored) {
            s->direction[i + l] = u;
        }
        directions[l] += (double)u * (double)u;
        weights[l] += w * w;
    }
    return most > k->largest;
}

OPT_INLINE void shell_direction_loop(const struct opt_slice *slice, enum opt_load load,
                                     bool clean, int slots, bool stored,
                                     opt_element *rule)
{
    const struct opt_slice s = *slice;
    const struct opt_scalars k = *slice->scalars;
    double directions[OPT_LANES], weights[OPT_LANES];
    unsigned beyond = 0;
    size_t whole = s.n - s.n % OPT_LANES;
    _Static_assert((int)OPT_LANES == SHELL_LINE, "a line is asked for per turn");

    for (size_t l = 0; l < OPT_LANES; l++) {
        directions[l] = s.direction_lanes[l];
        weights[l] = s.weight_lanes[l];
    }
    for (size_t i = 0; i < whole; i += OPT_LANES) {
        shell_ask_all(&s, load, slots, i);
        beyond |= shell_lanes(&s, &k, load, clean, slots, stored, rule, i, OPT_LANES,
                              directions, weights);
    }
    beyond |= shell_lanes(&s, &k, load, clean, slots, stored, rule, whole, s.n - whole,
                          directions, weights);
    *s.held |= beyond != 0;
    for (size_t l = 0; l < OPT_LANES; l++) {
        s.direction_lanes[l] = directions[l];
        s.weight_lanes[l] = weights[l];
    }
}

/* kept: the rule's direction is its last slot, and stored only if decay comes on top.
 */
OPT_INLINE void shell_goal(const struct opt_slice *s, enum opt_load load, bool clean,
                           int slots, bool kept, opt_element *rule)
{
    if (s->direction_lanes == NULL) {
        shell_step_loop(s, load, clean, slots, rule);
    } else if (kept && s->direction == NULL) {
        shell_direction_loop(s, load, clean, slots, false, rule);
    } else {
        shell_direction_loop(s, load, clean, slots, true, rule);
    }
}

OPT_INLINE void shell_load(const struct opt_slice *s, enum opt_load load, int slots,
                           bool kept, opt_element *rule)
{
    if (s->clean) {
        shell_goal(s, load, true, slots, kept, rule);
    } else {
        shell_goal(s, load, false, slots, kept, rule);
    }
}

/* One loop for every way to read the gradient and for both goals. */
OPT_INLINE void shell_update_as(const struct opt_slice *s, int slots, bool kept,
                                opt_element *rule)
{
    switch (s->load) {
    case OPT_LOAD_FP32:
        shell_load(s, OPT_LOAD_FP32, slots, kept, rule);
        break;
    case OPT_LOAD_BF16:
        shell_load(s, OPT_LOAD_BF16, slots, kept, rule);
        break;
    case OPT_LOAD_FP16:
        shell_load(s, OPT_LOAD_FP16, slots, kept, rule);
        break;
    case OPT_LOAD_FP32_PAIR:
        shell_load(s, OPT_LOAD_FP32_PAIR, slots, kept, rule);
        break;
    }
}

OPT_INLINE void shell_update(const struct opt_slice *s, int slots, opt_element *rule)
{
    shell_update_as(s, slots, false, rule);
}

/* For rules whose last slot is their direction. */
OPT_INLINE void shell_update_kept(const struct opt_slice *s, int slots,
                                  opt_element *rule)
{
    shell_update_as(s, slots, true, rule);
}

#endif
