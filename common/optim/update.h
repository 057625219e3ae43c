/* update — one update of a model's tensors, block by block.
 *
 * This is how the engine, the client's local steps and the golden runner drive the
 * mathematics. An update is a few passes over the tensors it touches; in a pass the
 * blocks of a tensor are independent of each other (any thread, any order), and between
 * passes the caller hands the blocks' partial sums back in block order, so that the
 * result is the same bits however the blocks were spread.
 *
 *   opt_update_begin(&u, spec, T + 1)
 *   each tensor of the update: opt_update_bind(&x, &u, options, counters)
 *   if opt_update_needs_norms(&u):                              sweep 1: all of them
 *       each tensor: OPT_PASS_NORM on its blocks
 *                    opt_update_add_norm(&u, &x, sums, blocks)
 *       opt_update_end_norms(&u)
 *       if not opt_update_finite(&u): the update is dropped, nothing has changed
 *   each tensor:                                                sweep 2
 *       opt_update_tensor(&x)          scalars of this tensor; t becomes t + 1
 *       if x.two_passes: x.first_pass on its blocks
 *                        opt_update_end_first(&x, sums, blocks)
 *       OPT_PASS_STEP on its blocks
 *   if opt_update_synchronises(&u):
 *       each tensor of the model: OPT_PASS_LOOKAHEAD on its blocks
 *
 * What a tensor needs of itself alone is a first pass of sweep 2 and not a part of
 * sweep 1, so that the second finds in cache what the first has read; best if it takes
 * the blocks from the last to the first.
 *
 * No I/O, no threads, nothing allocated.
 */
#ifndef OPTIMD_COMMON_OPTIM_UPDATE_H
#define OPTIMD_COMMON_OPTIM_UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/optim/scalars.h"
#include "common/optim/spec.h"

/* What the mathematics keeps of a tensor from update to update. The caller owns it; it
 * belongs in a checkpoint. */
struct opt_tensor_counters {
    uint64_t t;        /* updates it has had */
    double mu_product; /* nadam, scheduled; 1 at the start */
};

/* A tensor's part of the specification, resolved once when the model is made. */
struct opt_tensor_options {
    double weight_decay;
    double lr_scale;
    bool layerwise; /* the wrapper applies: not switched off, enough dimensions */
};
void opt_tensor_options_resolve(const struct opt_spec *spec, const char *name,
                                size_t rank, struct opt_tensor_options *out);

/* One worker's gradient for a block, in ascending rank order within an array. */
struct opt_contribution {
    const void *values; /* n elements, aligned to their size */
    enum opt_dtype dtype;
    double factor; /* opt_aggregate_factors */
    bool shared;   /* memory that somebody else may be writing: it is only read, and a
                      value that is not finite, or would not be once scaled, counts as
                      0, unless the specification asks for nonfinite=propagate */
};

/* The factors that make Σ factor·g the aggregate, for N contributions with sample
 * counts and forms. weighted_mean: of means, sum n_i g_i / sum n_i; of sums,
 * sum g_i / sum n_i. mean: sum g_i / N. sum: sum g_i. A single mean gets exactly 1. */
void opt_aggregate_factors(enum opt_aggregate how, const uint64_t *samples,
                           const enum opt_form *forms, size_t n, double *factors);

/* The memory of one block. w and w_out are the same or do not overlap; slots are
 * changed in place. */
struct opt_block_memory {
    size_t n; /* at most OPT_BLOCK; a block starts at a multiple of it */
    const float *w;
    float *w_out;
    float *slots[OPT_SLOTS_MAX];
    const struct opt_contribution *contributions;
    size_t contribution_count;
    size_t contribution_offset; /* element of their values where this block starts */
    float *direction; /* tensors with a DIRECTION pass: n floats kept from it to STEP;
                         may be the memory of an fp32 contribution that is not shared
                       */
};

/* Sums of squares over one block, fp64, same bits on every instruction set. */
struct opt_block_sums {
    double first;  /* NORM: aggregated gradient. DIRECTION: direction */
    double second; /* weights */
    bool held; /* DIRECTION, STEP: a value would have left the range of fp32, and was
                  held at its largest */
};

enum opt_pass { OPT_PASS_NORM, OPT_PASS_DIRECTION, OPT_PASS_STEP, OPT_PASS_LOOKAHEAD };

struct opt_update {
    const struct opt_spec *spec;
    uint64_t T;          /* this update's number, from 1 */
    double lr;           /* scheduled */
    double gradient_sum; /* sweep 1: over all tensors */
    double global_clip;  /* factor of clip global_norm, 1 if none */
};

/* One tensor in one update. Filled by the calls below, read by the blocks; embedded by
 * the caller and kept between the sweeps. */
struct opt_tensor_update {
    const struct opt_update *update;
    const struct opt_tensor_options *options;
    struct opt_tensor_counters *counters;
    double gradient_sum, weight_sum; /* sums of squares, from the passes */
    double direction_sum;
    double lr;                /* of this tensor */
    double trust_ratio;       /* 1 where the wrapper does not apply */
    bool two_passes;          /* first_pass comes before STEP */
    enum opt_pass first_pass; /* NORM or DIRECTION */
    int kernel;               /* which loop (kernels.h) */
    int direction_slot;       /* that is the direction from DIRECTION to STEP, or -1 */
    struct opt_scalars scalars;
};

/* number is T + 1, where T counts the model's updates so far. */
void opt_update_begin(struct opt_update *update, const struct opt_spec *spec,
                      uint64_t number);
bool opt_update_needs_norms(const struct opt_update *update);
bool opt_update_synchronises(const struct opt_update *update);

/* Bind a tensor to the update; to be called before any of its passes. */
void opt_update_bind(struct opt_tensor_update *tensor, const struct opt_update *update,
                     const struct opt_tensor_options *options,
                     struct opt_tensor_counters *counters);

/* After the NORM pass of a tensor: its blocks' sums, in block order. */
void opt_update_add_norm(struct opt_update *update, struct opt_tensor_update *tensor,
                         const struct opt_block_sums *sums, size_t blocks);
/* After the last tensor's NORM pass, tensors added in model order. */
void opt_update_end_norms(struct opt_update *update);
/* After opt_update_end_norms: false if an aggregate is not finite though `nonfinite`
 * asks for it (finite gradients can overflow in `aggregate = sum`). Nothing has changed
 * yet, and the caller drops the update: no other call on it. */
bool opt_update_finite(const struct opt_update *update);

/* Sweep 2: advance t and prepare the scalars. */
void opt_update_tensor(struct opt_tensor_update *tensor);
/* After the first of two passes: its blocks' sums, in block order; trust ratio. */
void opt_update_end_first(struct opt_tensor_update *tensor,
                          const struct opt_block_sums *sums, size_t blocks);
/* Run one pass on one block. sums is written by NORM and DIRECTION; STEP
 * writes held, and there it may be NULL. */
void opt_block_run(const struct opt_tensor_update *tensor, enum opt_pass pass,
                   const struct opt_block_memory *memory, struct opt_block_sums *sums);

/* Form once what the passes read of a block's contributions, bit for bit: n values of
 * the dtype to out, which may not overlap them. OPT_FP32; or, if there is one
 * contribution and its factor is 1, its own dtype, and its bytes. Of shared memory,
 * what would count as 0 is 0. Whoever then gives out to the passes instead, with factor
 * 1 and not shared, gets the same update; but for shared values that are beyond fp32
 * once they are scaled, which are held like any others. */
void opt_block_aggregate(const struct opt_tensor_update *tensor,
                         const struct opt_block_memory *memory, enum opt_dtype dtype,
                         void *out);

/* Learning rate of update T. */
double opt_schedule_lr(const struct opt_options *options, uint64_t T);

/* Sync epochs completed after T updates. */
uint64_t opt_lookahead_epochs(const struct opt_spec *spec, uint64_t T);

/* For who holds the slow weights elsewhere. Which slot is the first moment, or -1; and
 * what lookahead_momentum and lookahead_alpha make of n elements of it at a
 * synchronisation. slow_moment starts as zeros and is used by pullback alone. */
int opt_lookahead_moment_slot(const struct opt_spec *spec);
bool opt_lookahead_pulls_back(const struct opt_spec *spec); /* and so has a slow one */
void opt_lookahead_moment(const struct opt_options *options, float *moment,
                          float *slow_moment, size_t n);

/* The training view of n elements: out may be w. True if it differs from w at all;
 * false, and out untouched, if the training view is the weights themselves. */
bool opt_view_train(const struct opt_spec *spec, const float *w, float *const *slots,
                    float *out, size_t n);
/* Whether opt_view_train would compute something; and which slot is the evaluation
 * view, or -1 for the weights. */
bool opt_view_train_differs(const struct opt_spec *spec);
int opt_view_eval_slot(const struct opt_spec *spec);

/* Instruction sets of the kernels: chosen once, by the processor, all with equal bits.
 */
enum opt_isa { OPT_ISA_BASELINE, OPT_ISA_V3, OPT_ISA_V4, OPT_ISA_COUNT };
const char *opt_isa_name(enum opt_isa isa);
bool opt_isa_supported(enum opt_isa isa);
enum opt_isa opt_isa_current(void);
/* For tests and benchmarks, before any update runs: false if not supported. */
bool opt_isa_force(enum opt_isa isa);

/* A whole update on the calling thread: for local steps, tests and tools. */
struct opt_tensor_memory {
    size_t n;
    const struct opt_tensor_options *options;
    struct opt_tensor_counters *counters;
    float *w;
    float *slots[OPT_SLOTS_MAX];
    const struct opt_contribution
        *contributions; /* of the whole tensor; NULL: not in it */
    size_t contribution_count;
    float *direction; /* n floats of scratch if the specification has a layerwise
                         wrapper */
};
/* scratch: opt_update_scratch(count, largest n) bytes, aligned for any type. number as
 * in opt_update_begin. False if opt_update_finite was; then nothing has changed. */
size_t opt_update_scratch(size_t tensors, size_t largest_n);
bool opt_update_serial(const struct opt_spec *spec, uint64_t number,
                       struct opt_tensor_memory *tensors, size_t count, void *scratch);

#endif
