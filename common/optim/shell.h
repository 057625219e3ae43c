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
#include <string.h>

#include "common/optim/float_bits.h"
#include "common/optim/kernels.h"

#define OPT_INLINE static inline __attribute__((always_inline))
#define OPT_APART static __attribute__((noinline))

/* Slots are separate pointers to locals: an array of them would stop the vectoriser. */
typedef float opt_element(const struct opt_scalars *k, float g, float *a, float *b,
                          float *c);

/* Memory is asked for this many elements before a loop comes to it. The processor looks
 * ahead by itself, but begins anew at every page and with few lines at a time: this
 * takes off up to a tenth of the time from memory and a third from the last-level
 * cache. It adds a tenth to the shortest rules where everything is in a nearer one. */
enum {
    SHELL_AHEAD = 256,
    SHELL_LINE = 16,               /* fp32 in 64 bytes */
    SHELL_RUN = 8 * SHELL_LINE,    /* asked for together */
    SHELL_CHECKED = 8 * SHELL_RUN, /* stepped before it is seen if all is finite */
#ifdef __AVX512F__
    SHELL_LANES = 16 /* one vector */
#elif defined(__AVX__)
    SHELL_LANES = 8
#else
    SHELL_LANES = 4
#endif
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

/* What SHELL_CHECKED elements had before they were moved. */
struct shell_before {
    float w[SHELL_CHECKED], slots[3][SHELL_CHECKED];
};

/* Whether lanes into which values were added have met none that is not finite: times 0,
 * what is finite is 0, and what is not is NaN. Apart, because the lanes then stay in
 * registers where they are added to. */
OPT_APART bool shell_finite(const float *lanes, size_t count)
{
    float sum = 0.0f;

    for (size_t l = 0; l < count; l++) {
        sum += lanes[l] * 0.0f;
    }
    return sum == 0.0f;
}

/* x as it is kept; *most becomes the largest size there was. */
OPT_INLINE float shell_kept(const struct opt_scalars *k, float x, float *most)
{
    *most = fabsf(x) > *most ? fabsf(x) : *most;
    return held(k, x);
}

/* What the rule takes for the gradient. load, clean, slots and rule are constants
 * wherever this and the following are inlined. Scaled, a gradient that has changed
 * since its norm was taken, or a sum that had been found finite, may be infinite too.
 */
OPT_INLINE float shell_coupled(const struct opt_slice *s, const struct opt_scalars *k,
                               enum opt_load load, bool clean, size_t i)
{
    float scaled = k->scale * shell_gradient(s, load, clean, i);
    float clipped = clamp(clean ? finite_or_zero(scaled) : scaled, k->bound);

    return clipped + k->coupled * s->w[i];
}

/* One element as if nothing had to be held: moves its slots, whose sum goes to *sum,
 * and returns its direction. k holds nothing (shell_loose).
 *
 * A gradient that is not finite makes a slot or the direction so, whatever the rule,
 * and so does what a rule would have held: nobody needs to look at them. */
OPT_INLINE float shell_quick(const struct opt_slice *s, const struct opt_scalars *k,
                             enum opt_load load, bool clean, int slots,
                             opt_element *rule, size_t i, float *sum)
{
    float *a = s->slots[0], *b = s->slots[1], *c = s->slots[2];
    float ai = slots > 0 ? a[i] : 0.0f;
    float bi = slots > 1 ? b[i] : 0.0f;
    float ci = slots > 2 ? c[i] : 0.0f;
    float g = shell_coupled(s, k, load, clean, i);
    float u = rule(k, g, &ai, &bi, &ci) + k->inside * s->w[i];
    if (slots > 0) {
        a[i] = ai;
        *sum = ai;
    }
    if (slots > 1) {
        b[i] = bi;
        *sum += bi;
    }
    if (slots > 2) {
        c[i] = ci;
        *sum += ci;
    }
    return u;
}

/* The same, and what is too large is held. */
OPT_INLINE float shell_careful(const struct opt_slice *s, const struct opt_scalars *k,
                               enum opt_load load, bool clean, int slots,
                               opt_element *rule, size_t i, float *most)
{
    float *a = s->slots[0], *b = s->slots[1], *c = s->slots[2];
    float ai = slots > 0 ? a[i] : 0.0f;
    float bi = slots > 1 ? b[i] : 0.0f;
    float ci = slots > 2 ? c[i] : 0.0f;
    float g = held(k, shell_coupled(s, k, load, clean, i));
    float u = rule(k, g, &ai, &bi, &ci) + k->inside * s->w[i];
    if (slots > 0) {
        a[i] = shell_kept(k, ai, most);
    }
    if (slots > 1) {
        b[i] = shell_kept(k, bi, most);
    }
    if (slots > 2) {
        c[i] = shell_kept(k, ci, most);
    }
    return shell_kept(k, u, most);
}

/* The scalars with which nothing is held. */
OPT_INLINE struct opt_scalars shell_loose(const struct opt_scalars *k)
{
    struct opt_scalars loose = *k;

    loose.largest = INFINITY;
    return loose;
}

/* Keep what the slots of element i have, as the at-th of those before. */
OPT_INLINE void shell_keep(const struct opt_slice *s, int slots, size_t i,
                           struct shell_before *before, size_t at)
{
    if (slots > 0) {
        before->slots[0][at] = s->slots[0][i];
    }
    if (slots > 1) {
        before->slots[1][at] = s->slots[1][i];
    }
    if (slots > 2) {
        before->slots[2][at] = s->slots[2][i];
    }
}

OPT_INLINE void shell_put_back(const struct opt_slice *s, int slots, size_t i,
                               const struct shell_before *before, size_t at)
{
    for (int slot = 0; slot < slots; slot++) {
        s->slots[slot][i] = before->slots[slot][at];
    }
}

/* Ask for all that the loops around a rule touch. */
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

OPT_INLINE float shell_stepped(const struct opt_scalars *k, float w, float u)
{
    return w - (k->decoupled * w + k->step * u);
}

/* Step count elements from i on as if nothing had to be held, which is most of the time
 * so; a direction that is not finite makes weights so. What is made is added to lanes;
 * before, of elements from first on, gets what was there. */
OPT_INLINE void shell_step_quick(const struct opt_slice *s, const struct opt_scalars *k,
                                 enum opt_load load, bool clean, int slots,
                                 opt_element *rule, size_t first, size_t i,
                                 size_t count, struct shell_before *restrict before,
                                 float *restrict lanes)
{
#pragma omp simd
    for (size_t l = 0; l < count; l++) {
        float w = s->w[i + l], sum = 0.0f;

        before->w[i + l - first] = w;
        shell_keep(s, slots, i + l, before, i + l - first);
        float u = shell_quick(s, k, load, clean, slots, rule, i + l, &sum);
        float stepped = shell_stepped(k, w, u);
        s->w_out[i + l] = stepped;
        lanes[l] += slots > 0 ? sum + stepped : stepped;
    }
}

/* Step them once more, from what was there, and hold what is too large. Returns whether
 * anything was. */
OPT_INLINE bool shell_step_careful(const struct opt_slice *s,
                                   const struct opt_scalars *k, enum opt_load load,
                                   bool clean, int slots, opt_element *rule,
                                   size_t first, size_t count,
                                   const struct shell_before *before)
{
    float most = 0.0f;

    for (size_t at = 0; at < count; at++) {
        size_t i = first + at;
        float w = before->w[at];
        if (s->w_out == s->w) {
            s->w_out[i] = w;
        }
        shell_put_back(s, slots, i, before, at);
        float u = shell_careful(s, k, load, clean, slots, rule, i, &most);
        s->w_out[i] = shell_kept(k, shell_stepped(k, w, u), &most);
    }
    return most > k->largest;
}

/* The slice and the scalars are copied because stores to float arrays might change them
 * for all the compiler knows. */
OPT_INLINE void shell_step_loop(const struct opt_slice *slice, enum opt_load load,
                                bool clean, int slots, opt_element *rule)
{
    const struct opt_slice s = *slice;
    const struct opt_scalars k = *slice->scalars, loose = shell_loose(&k);
    struct shell_before before;

    for (size_t first = 0; first < s.n; first += SHELL_CHECKED) {
        size_t end = s.n - first < SHELL_CHECKED ? s.n : first + SHELL_CHECKED;
        size_t whole = end - (end - first) % SHELL_LANES;
        float lanes[SHELL_LANES] = { 0 }, met[SHELL_LANES];

        for (size_t i = first; i < whole; i += SHELL_RUN) {
            size_t stop = whole - i < SHELL_RUN ? whole : i + SHELL_RUN;

            for (size_t at = i; at < stop; at += SHELL_LINE) {
                shell_ask_all(&s, load, slots, at);
                if (s.w_out != s.w) {
                    shell_ask(s.w_out, sizeof(float), at);
                }
            }
            for (size_t at = i; at < stop; at += SHELL_LANES) {
                shell_step_quick(&s, &loose, load, clean, slots, rule, first, at,
                                 SHELL_LANES, &before, lanes);
            }
        }
        shell_step_quick(&s, &loose, load, clean, slots, rule, first, whole,
                         end - whole, &before, lanes);
        memcpy(met, lanes, sizeof met);
        if (!shell_finite(met, SHELL_LANES) && k.largest <= FLT_MAX) {
            *s.held |= shell_step_careful(&s, &k, load, clean, slots, rule, first,
                                          end - first, &before);
        }
    }
}

/* Sums of the squares of directions and weights in their lanes (norm.c), and of what
 * was made in lanes of their own. */
struct shell_sums {
    double directions[OPT_LANES], weights[OPT_LANES];
    float made[OPT_LANES];
};

/* Directions of count <= OPT_LANES elements from i on as if nothing had to be held, and
 * the squares of them and of the weights while they are in registers. */
OPT_INLINE void shell_lanes_quick(const struct opt_slice *s,
                                  const struct opt_scalars *k, enum opt_load load,
                                  bool clean, int slots, bool stored, opt_element *rule,
                                  size_t first, size_t i, size_t count,
                                  struct shell_before *restrict before,
                                  struct shell_sums *restrict sums)
{
#pragma omp simd
    for (size_t l = 0; l < count; l++) {
        double w = (double)s->w[i + l];
        float sum = 0.0f;

        shell_keep(s, slots, i + l, before, i + l - first);
        float u = shell_quick(s, k, load, clean, slots, rule, i + l, &sum);
        if (stored) {
            s->direction[i + l] = u;
        }
        sums->directions[l] += (double)u * (double)u;
        sums->weights[l] += w * w;
        sums->made[l] += slots > 0 ? sum + u : u;
    }
}

/* Once more, from what was there. Returns whether anything was held. */
OPT_INLINE bool shell_lanes_careful(const struct opt_slice *s,
                                    const struct opt_scalars *k, enum opt_load load,
                                    bool clean, int slots, bool stored,
                                    opt_element *rule, size_t first, size_t count,
                                    const struct shell_before *before,
                                    struct shell_sums *sums)
{
    float most = 0.0f;

    for (size_t at = 0; at < count; at++) {
        size_t i = first + at, l = at % OPT_LANES;
        double w = (double)s->w[i];

        shell_put_back(s, slots, i, before, at);
        float u = shell_careful(s, k, load, clean, slots, rule, i, &most);
        if (stored) {
            s->direction[i] = u;
        }
        sums->directions[l] += (double)u * (double)u;
        sums->weights[l] += w * w;
    }
    return most > k->largest;
}

OPT_INLINE void shell_direction_loop(const struct opt_slice *slice, enum opt_load load,
                                     bool clean, int slots, bool stored,
                                     opt_element *rule)
{
    const struct opt_slice s = *slice;
    const struct opt_scalars k = *slice->scalars, loose = shell_loose(&k);
    struct shell_before before;
    struct shell_sums sums, begun;
    float made[OPT_LANES];
    _Static_assert((int)OPT_LANES == SHELL_LINE, "a line is asked for per turn");

    memcpy(sums.directions, s.direction_lanes, sizeof sums.directions);
    memcpy(sums.weights, s.weight_lanes, sizeof sums.weights);
    for (size_t first = 0; first < s.n; first += SHELL_CHECKED) {
        size_t end = s.n - first < SHELL_CHECKED ? s.n : first + SHELL_CHECKED;
        size_t whole = end - (end - first) % OPT_LANES;

        memset(sums.made, 0, sizeof sums.made);
        begun = sums;
        for (size_t i = first; i < whole; i += OPT_LANES) {
            shell_ask_all(&s, load, slots, i);
            shell_lanes_quick(&s, &loose, load, clean, slots, stored, rule, first, i,
                              OPT_LANES, &before, &sums);
        }
        shell_lanes_quick(&s, &loose, load, clean, slots, stored, rule, first, whole,
                          end - whole, &before, &sums);
        memcpy(made, sums.made, sizeof made);
        if (!shell_finite(made, OPT_LANES) && k.largest <= FLT_MAX) {
            sums = begun;
            *s.held |= shell_lanes_careful(&s, &k, load, clean, slots, stored, rule,
                                           first, end - first, &before, &sums);
        }
    }
    memcpy(s.direction_lanes, sums.directions, sizeof sums.directions);
    memcpy(s.weight_lanes, sums.weights, sizeof sums.weights);
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
