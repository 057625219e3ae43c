/* update — the order of one update, and its passes over a block.
 *
 * Everything that is one number per tensor is computed here in double and rounded when
 * it becomes a scalar of the loops. Called by the engine's team, by local steps and by
 * tests; any thread, each with its own structs.
 */
#include "common/optim/update.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "common/optim/passes.h"
#include "common/optim/rule.h"

void opt_update_begin(struct opt_update *update, const struct opt_spec *spec,
                      uint64_t number)
{
    assert(number >= 1);
    *update = (struct opt_update){
        .spec = spec,
        .T = number,
        .lr = opt_schedule_lr(&spec->options, number),
        .global_clip = 1.0,
    };
}

/* Finite gradients whose plain sum overflows are the only way to a non-finite
 * aggregate of checked contributions: means do not grow. */
static bool may_overflow(const struct opt_spec *spec)
{
    return spec->options.aggregate == OPT_SUM &&
           spec->options.nonfinite != OPT_PROPAGATE;
}

bool opt_update_needs_norms(const struct opt_update *update)
{
    const struct opt_options *options = &update->spec->options;

    return options->clip == OPT_CLIP_TENSOR_NORM ||
           options->clip == OPT_CLIP_GLOBAL_NORM || may_overflow(update->spec);
}

static float value_bound(const struct opt_options *options)
{
    return options->clip == OPT_CLIP_VALUE ? (float)options->clip_max : INFINITY;
}

void opt_update_bind(struct opt_tensor_update *tensor, const struct opt_update *update,
                     const struct opt_tensor_options *options,
                     struct opt_tensor_counters *counters)
{
    const struct opt_spec *spec = update->spec;
    bool of_direction = spec->options.layerwise == OPT_LAYERWISE_UPDATE;

    *tensor = (struct opt_tensor_update){
        .update = update,
        .options = options,
        .counters = counters,
        .lr = update->lr * options->lr_scale,
        .trust_ratio = 1.0,
        .two_passes =
            options->layerwise && (of_direction || !opt_update_needs_norms(update)),
        .first_pass = of_direction ? OPT_PASS_DIRECTION : OPT_PASS_NORM,
        .kernel = (int)spec->rule->kernel,
        .direction_slot = -1,
        .scalars = { .scale = 1.0f,
                     .bound = value_bound(&spec->options),
                     .largest = spec->options.nonfinite == OPT_PROPAGATE ? INFINITY
                                                                         : FLT_MAX },
    };
}

static void add_sums(struct opt_tensor_update *tensor, double *first,
                     const struct opt_block_sums *sums, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) {
        *first += sums[i].first;
        tensor->weight_sum += sums[i].second;
    }
}

void opt_update_add_norm(struct opt_update *update, struct opt_tensor_update *tensor,
                         const struct opt_block_sums *sums, size_t blocks)
{
    add_sums(tensor, &tensor->gradient_sum, sums, blocks);
    update->gradient_sum += tensor->gradient_sum;
}

/* The bound itself is allowed. A norm that is NaN clips nothing: NaN then travels on by
 * itself. */
static double clip_factor(double square_sum, double bound)
{
    double norm = sqrt(square_sum);

    return norm > bound ? bound / norm : 1.0;
}

void opt_update_end_norms(struct opt_update *update)
{
    const struct opt_options *options = &update->spec->options;

    if (options->clip == OPT_CLIP_GLOBAL_NORM) {
        update->global_clip = clip_factor(update->gradient_sum, options->clip_max);
    }
}

bool opt_update_finite(const struct opt_update *update)
{
    return !may_overflow(update->spec) || isfinite(update->gradient_sum);
}

/* lambda times lr, or times the schedule's share of it. */
static double decoupled_factor(const struct opt_tensor_update *tensor)
{
    const struct opt_options *options = &tensor->update->spec->options;
    double decay = tensor->options->weight_decay;

    if (options->decay_lr == OPT_DECAY_SCHEDULE) {
        return tensor->update->lr / options->lr * decay * tensor->options->lr_scale;
    }
    return tensor->lr * decay;
}

/* The slot that is the kernel's direction, or -1. */
static int direction_slot(int kernel)
{
#define KEPT_update(slots) (-1)
#define KEPT_update_kept(slots) ((slots)-1)
#define KEPT(name, NAME, slots, goal) [OPT_KERNEL_##NAME] = KEPT_##goal(slots),
    static const signed char kept[OPT_KERNEL_COUNT] = { OPT_RULES(KEPT, KEPT) };

    return kept[kernel];
}

/* A factor as the loops take it. A trust ratio may be more than any float, and infinity
 * times an element that is 0 would be NaN. */
static float rounded(double factor)
{
    return factor > (double)FLT_MAX ? FLT_MAX : (float)factor;
}

/* Everything that the loops multiply with, from options, counters and norms. */
static void prepare(struct opt_tensor_update *tensor)
{
    const struct opt_update *update = tensor->update;
    const struct opt_rule *rule = update->spec->rule;
    const struct opt_options *options = &update->spec->options;
    struct opt_scalars *k = &tensor->scalars;
    double decay = tensor->options->weight_decay;
    double clip = update->global_clip, ratio = 1.0;
    double coupled = options->decay == OPT_DECAY_COUPLED ? decay : 0.0;
    bool includes_lr = opt_rule_includes_lr(update->spec);

    if (options->clip == OPT_CLIP_TENSOR_NORM) {
        clip = clip_factor(tensor->gradient_sum, options->clip_max);
    }
    if (tensor->options->layerwise && options->layerwise == OPT_LAYERWISE_GRADIENT) {
        double weight_norm = sqrt(tensor->weight_sum);
        ratio =
            opt_layerwise_ratio(options, weight_norm, clip * sqrt(tensor->gradient_sum),
                                coupled * weight_norm);
        tensor->trust_ratio = ratio;
    }
    k->scale = rounded(clip * ratio);
    k->bound = (float)((double)value_bound(options) * (ratio > 0.0 ? ratio : 1.0));
    k->coupled = rounded(ratio * coupled);
    k->step = includes_lr ? 1.0f : (float)tensor->lr;
    if (options->decay == OPT_DECAY_UPDATE) {
        k->inside = (float)(includes_lr ? tensor->lr * decay : decay);
    }
    if (options->decay == OPT_DECAY_DECOUPLED) {
        k->decoupled = (float)decoupled_factor(tensor);
    }
    rule->prepare(options, tensor);
    tensor->direction_slot = k->inside == 0.0f ? direction_slot(tensor->kernel) : -1;
}

void opt_update_tensor(struct opt_tensor_update *tensor)
{
    tensor->counters->t++;
    if (!tensor->two_passes || tensor->first_pass == OPT_PASS_DIRECTION) {
        prepare(tensor);
    }
}

void opt_update_end_first(struct opt_tensor_update *tensor,
                          const struct opt_block_sums *sums, size_t blocks)
{
    if (tensor->first_pass == OPT_PASS_NORM) {
        add_sums(tensor, &tensor->gradient_sum, sums, blocks);
        prepare(tensor);
        return;
    }
    add_sums(tensor, &tensor->direction_sum, sums, blocks);
    tensor->trust_ratio =
        opt_layerwise_ratio(&tensor->update->spec->options, sqrt(tensor->weight_sum),
                            sqrt(tensor->direction_sum), 0.0);
    tensor->scalars.step = rounded((double)tensor->scalars.step * tensor->trust_ratio);
}

static size_t slice_of(size_t n, size_t start)
{
    return n - start < OPT_SLICE ? n - start : OPT_SLICE;
}

/* Whether somebody may be writing what was found to be finite. Where one contribution
 * is cleaned all are, which changes nothing of those that are what they were. */
static bool must_clean(const struct opt_tensor_update *tensor,
                       const struct opt_block_memory *memory)
{
    bool shared = false;

    for (size_t i = 0; i < memory->contribution_count; i++) {
        shared = shared || memory->contributions[i].shared;
    }
    return shared && tensor->update->spec->options.nonfinite != OPT_PROPAGATE;
}

static void load_slice(const struct opt_block_memory *memory, bool clean, size_t start,
                       float *scratch, size_t n)
{
    opt_aggregate_slice(memory->contributions, memory->contribution_count, clean,
                        memory->contribution_offset + start, scratch, n);
}

/* 0 for what is not finite in memory that nobody else writes. */
static void clean_copy(enum opt_dtype dtype, void *values, size_t n)
{
    size_t size = opt_dtype_size(dtype);
    uint8_t *at = values;

    if (opt_kernels()->all_finite(dtype, values, n)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!opt_kernels()->all_finite(dtype, at + i * size, 1)) {
            memset(at + i * size, 0, size);
        }
    }
}

void opt_block_aggregate(const struct opt_tensor_update *tensor,
                         const struct opt_block_memory *memory, enum opt_dtype dtype,
                         void *out)
{
    const struct opt_contribution *one = memory->contributions;
    bool clean = must_clean(tensor, memory);

    assert(memory->contribution_count > 0);
    if (memory->contribution_count == 1 && one->factor == 1.0 && one->dtype == dtype) {
        size_t size = opt_dtype_size(dtype);

        memcpy(out, (const char *)one->values + memory->contribution_offset * size,
               memory->n * size);
        if (clean) {
            clean_copy(dtype, out, memory->n);
        }
        return;
    }
    assert(dtype == OPT_FP32);
    for (size_t start = 0; start < memory->n; start += OPT_SLICE) {
        load_slice(memory, clean, start, (float *)out + start,
                   slice_of(memory->n, start));
    }
}

/* Where the two sums of a block are formed (norm.c). */
struct lanes {
    double first[OPT_LANES], second[OPT_LANES];
};

static void fold(const struct lanes *lanes, struct opt_block_sums *sums)
{
    sums->first = opt_norm_fold(lanes->first);
    sums->second = opt_norm_fold(lanes->second);
}

static void norm_block(const struct opt_tensor_update *tensor,
                       const struct opt_block_memory *memory,
                       struct opt_block_sums *sums)
{
    const struct opt_kernels *kernels = opt_kernels();
    const struct opt_contribution *one = memory->contributions;
    bool direct = memory->contribution_count == 1 && one->factor == 1.0;
    bool clean = must_clean(tensor, memory);
    /* A cleaned gradient is finite, but for a sum of several. */
    bool check = may_overflow(tensor->update->spec) && !(direct && clean);
    bool weights = tensor->update->spec->options.layerwise == OPT_LAYERWISE_GRADIENT;
    struct lanes lanes = { { 0 }, { 0 } };
    float scratch[OPT_SLICE];
    bool finite = true;

    for (size_t start = 0; start < memory->n; start += OPT_SLICE) {
        size_t n = slice_of(memory->n, start);
        enum opt_dtype dtype = direct ? one->dtype : OPT_FP32;
        const void *gradient = scratch;

        if (direct) {
            gradient = (const char *)one->values +
                       (memory->contribution_offset + start) * opt_dtype_size(dtype);
        } else {
            load_slice(memory, clean, start, scratch, n);
        }
        finite = finite && (!check || kernels->all_finite(dtype, gradient, n));
        kernels->squares(dtype, direct && clean, gradient, tensor->scalars.bound,
                         lanes.first, weights ? memory->w + start : NULL, lanes.second,
                         n);
    }
    fold(&lanes, sums);
    if (!finite) {
        sums->first = (double)INFINITY;
    }
}

/* The rule's loop over elements start to start + n, whose aggregated gradient is either
 * in the contributions themselves or in scratch; lanes: of a DIRECTION pass, or NULL.
 * True if a value had to be held.
 */
static bool run_rule(const struct opt_tensor_update *tensor,
                     const struct opt_block_memory *memory, struct lanes *lanes,
                     const float *scratch, enum opt_load load, size_t start, size_t n)
{
    bool held = false;
    struct opt_slice slice = {
        .scalars = &tensor->scalars,
        .n = n,
        .load = scratch != NULL ? OPT_LOAD_FP32 : load,
        .clean = must_clean(tensor, memory),
        .held = &held,
        .w = memory->w + start,
    };

    if (scratch != NULL) {
        slice.gradient[0] = scratch;
    } else {
        for (size_t i = 0; i < memory->contribution_count; i++) {
            const struct opt_contribution *one = &memory->contributions[i];
            slice.gradient[i] =
                (const char *)one->values +
                (memory->contribution_offset + start) * opt_dtype_size(one->dtype);
            slice.factor[i] = one->factor;
        }
    }
    for (size_t i = 0; i < sizeof slice.slots / sizeof slice.slots[0]; i++) {
        slice.slots[i] = memory->slots[i] != NULL ? memory->slots[i] + start : NULL;
    }
    if (lanes == NULL) {
        slice.w_out = memory->w_out + start;
    } else {
        slice.direction_lanes = lanes->first;
        slice.weight_lanes = lanes->second;
        slice.direction = tensor->direction_slot < 0 ? memory->direction + start : NULL;
    }
    opt_kernels()->update[tensor->kernel](&slice);
    return held;
}

/* The rule's loop over the block, in slices where the gradient must be summed first. */
static bool run_block(const struct opt_tensor_update *tensor,
                      const struct opt_block_memory *memory, struct lanes *lanes)
{
    bool clean = must_clean(tensor, memory), held = false;
    float scratch[OPT_SLICE];
    enum opt_load load;

    if (opt_aggregate_direct(memory->contributions, memory->contribution_count,
                             &load)) {
        return run_rule(tensor, memory, lanes, NULL, load, 0, memory->n);
    }
    for (size_t start = 0; start < memory->n; start += OPT_SLICE) {
        size_t n = slice_of(memory->n, start);

        load_slice(memory, clean, start, scratch, n);
        held |= run_rule(tensor, memory, lanes, scratch, OPT_LOAD_FP32, start, n);
    }
    return held;
}

static void direction_block(const struct opt_tensor_update *tensor,
                            const struct opt_block_memory *memory,
                            struct opt_block_sums *sums)
{
    struct lanes lanes = { { 0 }, { 0 } };

    sums->held = run_block(tensor, memory, &lanes);
    fold(&lanes, sums);
}

static bool step_block(const struct opt_tensor_update *tensor,
                       const struct opt_block_memory *memory)
{
    if (tensor->two_passes && tensor->first_pass == OPT_PASS_DIRECTION) {
        int slot = tensor->direction_slot;
        return opt_kernels()->step(&tensor->scalars, memory->w,
                                   slot < 0 ? memory->direction : memory->slots[slot],
                                   memory->w_out, memory->n);
    }
    return run_block(tensor, memory, NULL);
}

void opt_block_run(const struct opt_tensor_update *tensor, enum opt_pass pass,
                   const struct opt_block_memory *memory, struct opt_block_sums *sums)
{
    bool held;

    assert(memory->n <= OPT_BLOCK);
    switch (pass) {
    case OPT_PASS_NORM:
        norm_block(tensor, memory, sums);
        break;
    case OPT_PASS_DIRECTION:
        direction_block(tensor, memory, sums);
        break;
    case OPT_PASS_STEP:
        held = step_block(tensor, memory);
        if (sums != NULL) {
            sums->held = held;
        }
        break;
    case OPT_PASS_LOOKAHEAD:
        opt_lookahead_block(tensor->update->spec, memory);
        break;
    }
}
