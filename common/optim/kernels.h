/* kernels — every loop over tensor values, once for each instruction set.
 *
 * kernels*.c are compiled several times (the Makefile defines OPT_KERNEL_ISA), each
 * family of rules by itself; isa.c
 * chooses one table for the process by asking the processor. All give the same bits:
 * plain IEEE operations, no contraction, sums in fixed lanes. Called by the other files
 * of common/optim and by common/dtype.c; any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_KERNELS_H
#define OPTIMD_COMMON_OPTIM_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/optim/rule_list.h"
#include "common/optim/scalars.h"

/* The loops of the rules; a rule names one, or its prepare chooses among variants. */
#define OPT_KERNEL_NUMBER(name, NAME, slots, goal) OPT_KERNEL_##NAME,
enum opt_kernel { OPT_RULES(OPT_KERNEL_NUMBER, OPT_KERNEL_NUMBER) OPT_KERNEL_COUNT };
#undef OPT_KERNEL_NUMBER

/* How the aggregated gradient is read. */
enum opt_load {
    OPT_LOAD_FP32,
    OPT_LOAD_BF16,
    OPT_LOAD_FP16,
    OPT_LOAD_FP32_PAIR /* factor[0] gradient[0] + factor[1] gradient[1], in fp64 */
};

/* One call of a rule's loop. Arrays may be the same but do not overlap otherwise.
 *
 * clean, here and in the table below, is for gradients that somebody else may be
 * writing meanwhile. What is tested is always what has been computed from a value, and
 * never the value, which might then be loaded a second time for its use. */
struct opt_slice {
    const struct opt_scalars *scalars;
    size_t n;
    enum opt_load load;
    bool clean; /* what is not finite in the gradient counts as 0 */
    bool *held; /* set if a value had to be held (shell.h) */
    const void *gradient[2];
    double factor[2];
    const float *w;
    float *w_out; /* unless the direction is wanted */
    float *slots[3];
    /* Not NULL: the weights stay, and the squares of directions and weights are added
     * to OPT_LANES lanes each; element i goes to lane i % OPT_LANES. */
    double *direction_lanes, *weight_lanes;
    float *direction; /* then the directions go here; NULL: they are the last slot */
};

enum { OPT_LANES = 16 };

struct opt_kernels {
    void (*update[OPT_KERNEL_COUNT])(const struct opt_slice *slice);

    /* w_out = w - (decoupled w + step direction); true if a value had to be held */
    bool (*step)(const struct opt_scalars *scalars, const float *w,
                 const float *direction, float *w_out, size_t n);

    /* sum = factor values, or += if not the first; then out = sum rounded. */
    void (*accumulate)(enum opt_dtype dtype, bool clean, const void *values,
                       double factor, bool first, double *sum, size_t n);
    void (*round)(const double *sum, float *out, size_t n);

    /* lanes[i % OPT_LANES] += clamp(values[i], bound)^2 in order of i. The same with
     * the weights, if not NULL, without a bound. */
    void (*squares)(enum opt_dtype dtype, bool clean, const void *values, float bound,
                    double *lanes, const float *weights, double *weight_lanes,
                    size_t n);

    /* out = from + share (to - from); all may be the same array. */
    void (*interpolate)(const float *from, const float *to, float share, float *out,
                        size_t n);
    /* g = g + ((lambda g) g) (now - then) where that is finite; nobody else writes g */
    void (*compensate)(bool clean, float lambda, const float *now, const float *then,
                       float *g, size_t n);
    /* out = a - factor b */
    void (*subtract)(const float *a, float factor, const float *b, float *out,
                     size_t n);

    void (*widen)(enum opt_dtype dtype, const void *values, float *out, size_t n);
    void (*narrow)(enum opt_dtype dtype, const float *values, void *out, size_t n);
    bool (*all_finite)(enum opt_dtype dtype, const void *values, size_t n);
    /* How many are finite, and beyond what the dtype has. */
    size_t (*count_beyond)(enum opt_dtype dtype, const float *values, size_t n);
};

/* The table of the current instruction set. */
const struct opt_kernels *opt_kernels(void);

extern const struct opt_kernels opt_kernels_baseline;
#ifdef __x86_64__
extern const struct opt_kernels opt_kernels_v3;
extern const struct opt_kernels opt_kernels_v4;
#endif

#endif
