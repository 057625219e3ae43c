/* kernels — the loops of one instruction set that are no rule's, and the table of all.
 *
 * Compiled once per instruction set with OPT_KERNEL_ISA set to its name. Any thread.
 */
#include "common/optim/kernels.h"

#include "common/optim/float_bits.h"
#include "common/optim/loops.h"

/* Step count elements, kept in before, as if nothing had to be held (shell.h). */
OPT_INLINE void step_quick(const struct opt_scalars *k, const float *w,
                           const float *direction, float *w_out, size_t count,
                           float *restrict before, float *restrict lanes)
{
#pragma omp simd
    for (size_t l = 0; l < count; l++) {
        float stepped = shell_stepped(k, w[l], direction[l]);
        before[l] = w[l];
        w_out[l] = stepped;
        lanes[l] += stepped;
    }
}

static bool step_careful(const struct opt_scalars *k, const float *before,
                         const float *direction, float *w_out, size_t n)
{
    float most = 0.0f;

    for (size_t i = 0; i < n; i++) {
        w_out[i] = shell_kept(k, shell_stepped(k, before[i], direction[i]), &most);
    }
    return most > k->largest;
}

static void step_ask(const float *w, const float *direction, const float *w_out,
                     size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i += SHELL_LINE) {
        shell_ask(w, sizeof *w, i);
        shell_ask(direction, sizeof *direction, i);
        if (w_out != w) {
            shell_ask(w_out, sizeof *w_out, i);
        }
    }
}

static bool step(const struct opt_scalars *scalars, const float *w,
                 const float *direction, float *w_out, size_t n)
{
    const struct opt_scalars k = *scalars;
    float before[SHELL_CHECKED];
    bool held = false;

    for (size_t first = 0; first < n; first += SHELL_CHECKED) {
        size_t end = n - first < SHELL_CHECKED ? n : first + SHELL_CHECKED;
        size_t whole = end - (end - first) % SHELL_LANES;
        float lanes[SHELL_LANES] = { 0 }, met[SHELL_LANES];

        for (size_t i = first; i < whole; i += SHELL_RUN) {
            size_t stop = whole - i < SHELL_RUN ? whole : i + SHELL_RUN;

            step_ask(w, direction, w_out, i, stop);
            for (size_t at = i; at < stop; at += SHELL_LANES) {
                step_quick(&k, w + at, direction + at, w_out + at, SHELL_LANES,
                           before + (at - first), lanes);
            }
        }
        step_quick(&k, w + whole, direction + whole, w_out + whole, end - whole,
                   before + (whole - first), lanes);
        memcpy(met, lanes, sizeof met);
        if (!shell_finite(met, SHELL_LANES) && k.largest <= FLT_MAX) {
            held |=
                step_careful(&k, before, direction + first, w_out + first, end - first);
        }
    }
    return held;
}

/* Bytes of an element. */
OPT_INLINE size_t size_of(enum opt_dtype dtype)
{
    return dtype == OPT_FP32 ? sizeof(float) : sizeof(uint16_t);
}

OPT_INLINE float widened(enum opt_dtype dtype, const void *values, size_t i)
{
    switch (dtype) {
    case OPT_BF16:
        return bf16_to_float(((const uint16_t *)values)[i]);
    case OPT_FP16:
        return fp16_to_float(((const uint16_t *)values)[i]);
    default:
        return ((const float *)values)[i];
    }
}

/* The first product is stored, not added to 0, which would turn -0 into +0: one
 * contribution must give the bits it gives when it is read directly. */
OPT_INLINE void accumulate_run(enum opt_dtype dtype, bool clean, const void *values,
                               double factor, bool first, double *sum, size_t begin,
                               size_t end)
{
#pragma omp simd
    for (size_t i = begin; i < end; i++) {
        double share = factor * (double)widened(dtype, values, i);
        share = clean ? finite_or_zero_double(share) : share;
        sum[i] = first ? share : sum[i] + share;
    }
}

OPT_INLINE void accumulate_loop(enum opt_dtype dtype, bool clean, const void *values,
                                double factor, bool first, double *sum, size_t n)
{
    size_t whole = n - n % SHELL_LINE;

    for (size_t i = 0; i < whole; i += SHELL_LINE) {
        shell_ask(values, size_of(dtype), i);
        accumulate_run(dtype, clean, values, factor, first, sum, i, i + SHELL_LINE);
    }
    accumulate_run(dtype, clean, values, factor, first, sum, whole, n);
}

OPT_INLINE void accumulate_as(enum opt_dtype dtype, bool clean, const void *values,
                              double factor, bool first, double *sum, size_t n)
{
    if (first) {
        accumulate_loop(dtype, clean, values, factor, true, sum, n);
    } else {
        accumulate_loop(dtype, clean, values, factor, false, sum, n);
    }
}

OPT_INLINE void accumulate_dtype(enum opt_dtype dtype, bool clean, const void *values,
                                 double factor, bool first, double *sum, size_t n)
{
    if (clean) {
        accumulate_as(dtype, true, values, factor, first, sum, n);
    } else {
        accumulate_as(dtype, false, values, factor, first, sum, n);
    }
}

static void accumulate(enum opt_dtype dtype, bool clean, const void *values,
                       double factor, bool first, double *sum, size_t n)
{
    switch (dtype) {
    case OPT_BF16:
        accumulate_dtype(OPT_BF16, clean, values, factor, first, sum, n);
        break;
    case OPT_FP16:
        accumulate_dtype(OPT_FP16, clean, values, factor, first, sum, n);
        break;
    default:
        accumulate_dtype(OPT_FP32, clean, values, factor, first, sum, n);
        break;
    }
}

static void round_sum(const double *sum, float *out, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)sum[i];
    }
}

/* A clean one is cleaned before it is clamped, and therefore clamped in fp64, where the
 * result is the same. */
OPT_INLINE double clamped(enum opt_dtype dtype, bool clean, const void *values,
                          float bound, size_t i)
{
    float value = widened(dtype, values, i);
    if (!clean) {
        return (double)clamp(value, bound);
    }
    double x = finite_or_zero_double((double)value), most = (double)bound;
    x = x > most ? most : x;
    return x < -most ? -most : x;
}

/* One square in its lane. It is exact in fp64, so that the sum is rounded once, the
 * same by both ways. */
OPT_INLINE double with_square(double sum, double x)
{
#ifdef __FMA__
    return __builtin_fma(x, x, sum);
#else
    return sum + x * x;
#endif
}

/* count <= OPT_LANES elements from i on. */
OPT_INLINE void squares_lanes(enum opt_dtype dtype, bool clean, const void *values,
                              float bound, const float *weights, size_t i, size_t count,
                              double *restrict sum, double *restrict weight_sum)
{
#pragma omp simd
    for (size_t l = 0; l < count; l++) {
        sum[l] = with_square(sum[l], clamped(dtype, clean, values, bound, i + l));
        if (weights != NULL) {
            weight_sum[l] = with_square(weight_sum[l], (double)weights[i + l]);
        }
    }
}

/* A lane waits for its last sum at every turn; gradient and weights together do so at
 * the same time. weights: NULL or not is a constant wherever this is inlined. */
OPT_INLINE void squares_loop(enum opt_dtype dtype, bool clean, const void *values,
                             float bound, double *lanes, const float *weights,
                             double *weight_lanes, size_t n)
{
    double sum[OPT_LANES], weight_sum[OPT_LANES] = { 0 };
    size_t whole = n - n % OPT_LANES;
    size_t size = size_of(dtype);

    for (size_t l = 0; l < OPT_LANES; l++) {
        sum[l] = lanes[l];
        if (weights != NULL) {
            weight_sum[l] = weight_lanes[l];
        }
    }
    for (size_t i = 0; i < whole; i += OPT_LANES) {
        shell_ask(values, size, i);
        if (weights != NULL) {
            shell_ask(weights, sizeof *weights, i);
        }
        squares_lanes(dtype, clean, values, bound, weights, i, OPT_LANES, sum,
                      weight_sum);
    }
    squares_lanes(dtype, clean, values, bound, weights, whole, n - whole, sum,
                  weight_sum);
    for (size_t l = 0; l < OPT_LANES; l++) {
        lanes[l] = sum[l];
        if (weights != NULL) {
            weight_lanes[l] = weight_sum[l];
        }
    }
}

OPT_INLINE void squares_weights(enum opt_dtype dtype, bool clean, const void *values,
                                float bound, double *lanes, const float *weights,
                                double *weight_lanes, size_t n)
{
    if (weights != NULL) {
        squares_loop(dtype, clean, values, bound, lanes, weights, weight_lanes, n);
    } else {
        squares_loop(dtype, clean, values, bound, lanes, NULL, NULL, n);
    }
}

OPT_INLINE void squares_dtype(enum opt_dtype dtype, bool clean, const void *values,
                              float bound, double *lanes, const float *weights,
                              double *weight_lanes, size_t n)
{
    if (clean) {
        squares_weights(dtype, true, values, bound, lanes, weights, weight_lanes, n);
    } else {
        squares_weights(dtype, false, values, bound, lanes, weights, weight_lanes, n);
    }
}

static void squares(enum opt_dtype dtype, bool clean, const void *values, float bound,
                    double *lanes, const float *weights, double *weight_lanes, size_t n)
{
    switch (dtype) {
    case OPT_BF16:
        squares_dtype(OPT_BF16, clean, values, bound, lanes, weights, weight_lanes, n);
        break;
    case OPT_FP16:
        squares_dtype(OPT_FP16, clean, values, bound, lanes, weights, weight_lanes, n);
        break;
    default:
        squares_dtype(OPT_FP32, clean, values, bound, lanes, weights, weight_lanes, n);
        break;
    }
}

static void interpolate(const float *from, const float *to, float share, float *out,
                        size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = from[i] + share * (to[i] - from[i]);
    }
}

static void compensate(bool clean, float lambda, const float *now, const float *then,
                       float *g, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float from = clean ? finite_or_zero(g[i]) : g[i];
        float moved = from + lambda * from * from * (now[i] - then[i]);
        g[i] = moved - moved == 0.0f ? moved : from;
    }
}

static void subtract(const float *a, float factor, const float *b, float *out, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] - factor * b[i];
    }
}

static void widen(enum opt_dtype dtype, const void *values, float *out, size_t n)
{
    const uint16_t *half = values;

    switch (dtype) {
    case OPT_BF16:
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            out[i] = bf16_to_float(half[i]);
        }
        break;
    case OPT_FP16:
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            out[i] = fp16_to_float(half[i]);
        }
        break;
    default:
        memcpy(out, values, n * sizeof *out);
        break;
    }
}

static void narrow(enum opt_dtype dtype, const float *values, void *out, size_t n)
{
    uint16_t *half = out;

    switch (dtype) {
    case OPT_BF16:
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            half[i] = bf16_from_float(values[i]);
        }
        break;
    case OPT_FP16:
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            half[i] = fp16_from_float(values[i]);
        }
        break;
    default:
        memcpy(out, values, n * sizeof *values);
        break;
    }
}

/* An exponent of all ones is the largest magnitude. */
static bool all_finite(enum opt_dtype dtype, const void *values, size_t n)
{
    const uint32_t *word = values;
    const uint16_t *half = values;
    uint32_t bad = 0;
    uint16_t bad_half = 0;

    switch (dtype) {
    case OPT_BF16:
#pragma omp simd reduction(| : bad_half)
        for (size_t i = 0; i < n; i++) {
            bad_half |= (uint16_t)((half[i] & 0x7f80u) == 0x7f80u);
        }
        return bad_half == 0;
    case OPT_FP16:
#pragma omp simd reduction(| : bad_half)
        for (size_t i = 0; i < n; i++) {
            bad_half |= (uint16_t)((half[i] & 0x7c00u) == 0x7c00u);
        }
        return bad_half == 0;
    default:
#pragma omp simd reduction(| : bad)
        for (size_t i = 0; i < n; i++) {
            bad |= (uint32_t)((word[i] & 0x7f800000u) == 0x7f800000u);
        }
        return bad == 0;
    }
}

OPT_INLINE size_t count_from(uint32_t beyond, const float *values, size_t n)
{
    size_t count = 0;
#pragma omp simd reduction(+ : count)
    for (size_t i = 0; i < n; i++) {
        count += float_is_beyond(values[i], beyond);
    }
    return count;
}

static size_t count_beyond(enum opt_dtype dtype, const float *values, size_t n)
{
    switch (dtype) {
    case OPT_BF16:
        return count_from(BF16_BEYOND, values, n);
    case OPT_FP16:
        return count_from(FP16_BEYOND, values, n);
    default:
        return 0;
    }
}

#define DECLARE(name, NAME, slots, goal)                                               \
    void OPT_OF_ISA(opt_loop_##name)(const struct opt_slice *s);
#define ENTRY(name, NAME, slots, goal)                                                 \
    [OPT_KERNEL_##NAME] = OPT_OF_ISA(opt_loop_##name),

OPT_RULES(DECLARE, DECLARE)

const struct opt_kernels OPT_OF_ISA(opt_kernels) = {
    .update = { OPT_RULES(ENTRY, ENTRY) },
    .step = step,
    .accumulate = accumulate,
    .round = round_sum,
    .squares = squares,
    .interpolate = interpolate,
    .subtract = subtract,
    .compensate = compensate,
    .widen = widen,
    .narrow = narrow,
    .all_finite = all_finite,
    .count_beyond = count_beyond,
};
