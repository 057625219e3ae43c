/* kernel_run — see kernel_run.h. */
#include "tests/bench/kernel_run.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/optim/kernels.h"
#include "common/optim/rule.h"
#include "server/base/team.h"
#include "tests/bench/compare.h"
#include "tests/bench/machine.h"
#include "tests/bench/memory.h"

/* ---------------------------------------------------------------- memory */

static size_t array_bytes(const struct kernel_run *run)
{
    return run->room * sizeof(float);
}

/* For a whole model, or for each thread's tensor. */
static size_t directions_bytes(const struct kernel_run *run)
{
    size_t seats = (size_t)machine_cores() * TEAM_DIRECTION;
    return (run->room > seats ? run->room : seats) * sizeof(float);
}

/* Small weights, gradients with both signs, slots as a new model has them. */
static bool arrays_init(struct kernel_run *run, int threads)
{
    run->w = memory_map(array_bytes(run));
    if (run->w == NULL) {
        return false;
    }
    memory_fill(run->w, run->room, 1, 0.1f, threads);
    for (size_t s = 0; s < run->slot_count; s++) {
        bool copy = false;
        float start = opt_spec_slot_start(&run->spec, s, &copy);
        run->slots[s] = memory_map(array_bytes(run));
        if (run->slots[s] == NULL) {
            return false;
        }
        if (copy) {
            memory_fill(run->slots[s], run->room, 1, 0.1f, threads);
        } else {
            memory_set(run->slots[s], run->room, start, threads);
        }
    }
    for (size_t i = 0; i < run->gradient_count; i++) {
        run->gradients[i] = memory_map(array_bytes(run));
        if (run->gradients[i] == NULL) {
            return false;
        }
    }
    run->directions = memory_map(directions_bytes(run));
    return run->directions != NULL;
}

/* Each part made by the thread that will read it. */
void kernel_run_gradients(struct kernel_run *run, enum opt_dtype dtype)
{
    int threads = machine_cores();
    run->dtype = dtype;
    for (size_t i = 0; i < run->gradient_count; i++) {
        if (dtype == OPT_FP32) {
            memory_fill(run->gradients[i], run->room, 7 + (uint32_t)i, 0.01f, threads);
            continue;
        }
        uint16_t *narrow = run->gradients[i];
        size_t blocks = run->room / OPT_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t b = 0; b < blocks; b++) {
            float block[256];
            for (size_t at = 0; at < OPT_BLOCK; at += 256) {
                memory_fill(block, 256, (uint32_t)(b * OPT_BLOCK + at + i), 0.01f, 1);
                opt_dtype_narrow(dtype, block, narrow + b * OPT_BLOCK + at, 256);
            }
        }
    }
}

static bool tensors_init(struct kernel_run *run)
{
    size_t blocks = run->room / OPT_BLOCK;
    run->options = calloc(blocks, sizeof *run->options);
    run->counters = calloc(blocks, sizeof *run->counters);
    run->bound = calloc(blocks, sizeof *run->bound);
    run->sums = calloc(blocks, sizeof *run->sums);
    return run->options != NULL && run->counters != NULL && run->bound != NULL &&
           run->sums != NULL;
}

void kernel_run_shape(struct kernel_run *run, size_t n, size_t size)
{
    size_t whole = n / OPT_BLOCK * OPT_BLOCK;
    size = size == 0 || size > whole ? whole : size / OPT_BLOCK * OPT_BLOCK;
    run->blocks = size / OPT_BLOCK;
    run->tensors = whole / size;
    run->n = run->tensors * size;
    run->number = 0;
    for (size_t i = 0; i < run->tensors; i++) {
        opt_tensor_options_resolve(&run->spec, "weights", 2, &run->options[i]);
        run->counters[i] = (struct opt_tensor_counters){ .t = 0, .mu_product = 1 };
    }
}

bool kernel_run_init(struct kernel_run *run, const char *expression, size_t n,
                     size_t workers, char problem[256])
{
    struct opt_error error;
    const char *names[OPT_SLOTS_MAX];
    *run = (struct kernel_run){ .threads = 1, .updates = 1, .gradient_count = workers };
    if (opt_spec_parse(expression, &run->spec, &error) != OPT_OK) {
        snprintf(problem, 256, "%.250s", error.text);
        return false;
    }
    run->room = n / OPT_BLOCK * OPT_BLOCK;
    run->slot_count = opt_spec_slots(&run->spec, names);
    if (run->room == 0 || !arrays_init(run, machine_cores()) || !tensors_init(run)) {
        snprintf(problem, 256, "no memory for %zu parameters", n);
        kernel_run_fini(run);
        return false;
    }
    kernel_run_gradients(run, OPT_FP32);
    kernel_run_shape(run, n, 0);
    return true;
}

void kernel_run_fini(struct kernel_run *run)
{
    memory_unmap(run->w, array_bytes(run));
    memory_unmap(run->directions, directions_bytes(run));
    for (size_t s = 0; s < OPT_SLOTS_MAX; s++) {
        memory_unmap(run->slots[s], array_bytes(run));
    }
    for (size_t i = 0; i < KERNEL_RUN_GRADIENTS_MAX; i++) {
        memory_unmap(run->gradients[i], array_bytes(run));
    }
    free(run->options);
    free(run->counters);
    free(run->bound);
    free(run->sums);
    *run = (struct kernel_run){ 0 };
}

size_t kernel_run_bytes(size_t n)
{
    return n * sizeof(float) * (1 + OPT_SLOTS_MAX + KERNEL_RUN_GRADIENTS_MAX);
}

/* ---------------------------------------------------------------- traffic */

/* Slots of the rule itself. */
static size_t rule_slots(const struct kernel_run *run)
{
    size_t count = 0;
    for (const struct opt_slot *slot = run->spec.rule->slots; slot->name != NULL;
         slot++) {
        count += slot->wanted == NULL || slot->wanted(&run->spec.options);
    }
    return count;
}

/* Of the pass before the step, and of reading its result. */
static double first_pass_traffic(const struct kernel_run *run)
{
    struct opt_update update;
    struct opt_tensor_update tensor;
    struct opt_tensor_counters counters = run->counters[0];
    opt_update_begin(&update, &run->spec, 1);
    opt_update_bind(&tensor, &update, &run->options[0], &counters);
    opt_update_tensor(&tensor);
    bool norms = opt_update_needs_norms(&update) ||
                 (tensor.two_passes && tensor.first_pass == OPT_PASS_NORM);
    double gradient = (double)(opt_dtype_size(run->dtype) * run->gradient_count);
    double traffic =
        norms ? gradient + (run->spec.options.layerwise != OPT_LAYERWISE_NONE ? 4 : 0)
              : 0;
    if (tensor.two_passes && tensor.first_pass == OPT_PASS_DIRECTION) {
        /* The weights again, and the directions to and fro unless a slot keeps them. */
        traffic += 4 + (tensor.direction_slot < 0 ? 8 : 4);
    }
    return traffic;
}

double kernel_run_traffic(const struct kernel_run *run)
{
    double gradient = (double)(opt_dtype_size(run->dtype) * run->gradient_count);
    double k = run->spec.options.lookahead_k;
    size_t own = rule_slots(run);
    /* Each slow slot and what follows it, in and out. */
    double slow = k > 0 ? 16 * (double)(run->slot_count - own) / k : 0;
    return 8 + 8 * (double)own + gradient + first_pass_traffic(run) + slow;
}

/* ---------------------------------------------------------------- passes */

/* Whether one thread does both passes of a tensor, as in the engine. */
static bool is_whole(const struct kernel_run *run)
{
    return run->blocks * OPT_BLOCK <= TEAM_DIRECTION;
}

static float *direction_of(const struct kernel_run *run, size_t block)
{
    if (run->dtype == OPT_FP32) {
        return (float *)run->gradients[0] + block * OPT_BLOCK;
    }
    if (!is_whole(run)) {
        return run->directions + block * OPT_BLOCK;
    }
    return run->directions + (size_t)omp_get_thread_num() * TEAM_DIRECTION +
           block % run->blocks * OPT_BLOCK;
}

static void run_block(const struct kernel_run *run, size_t block, enum opt_pass pass)
{
    struct opt_contribution gradients[KERNEL_RUN_GRADIENTS_MAX];
    size_t step = opt_dtype_size(run->dtype), first = block * OPT_BLOCK;
    size_t count = run->accumulating ? 1 : run->gradient_count;
    struct opt_block_memory memory = {
        .n = OPT_BLOCK,
        .w = run->w + first,
        .w_out = run->w + first,
        .contributions = gradients,
        .contribution_count = count,
        .direction = direction_of(run, block),
    };
    for (size_t i = 0; i < count; i++) {
        gradients[i] = (struct opt_contribution){
            .values = (const char *)run->gradients[i] + first * step,
            .dtype = run->dtype,
            .factor = 1.0 / (double)count,
        };
    }
    for (size_t s = 0; s < run->slot_count; s++) {
        memory.slots[s] = run->slots[s] + first;
    }
    opt_block_run(&run->bound[block / run->blocks], pass, &memory, &run->sums[block]);
}

/* One pass over some blocks, which go to whichever thread is free. */
static void run_pass(const struct kernel_run *run, size_t begin, size_t end,
                     enum opt_pass pass)
{
#pragma omp parallel for schedule(dynamic) num_threads(run->threads)
    for (size_t b = begin; b < end; b++) {
        run_block(run, b, pass);
    }
}

/* Both passes of one tensor on the calling thread, the second backwards. */
static void run_whole(struct kernel_run *run, size_t tensor)
{
    size_t blocks = run->blocks, begin = tensor * blocks;
    struct opt_tensor_update *bound = &run->bound[tensor];
    for (size_t b = 0; b < blocks; b++) {
        run_block(run, begin + b, bound->first_pass);
    }
    opt_update_end_first(bound, run->sums + begin, blocks);
    for (size_t b = blocks; b-- > 0;) {
        run_block(run, begin + b, OPT_PASS_STEP);
    }
}

/* Both passes of every tensor. */
static void run_two_passes(struct kernel_run *run)
{
    size_t blocks = run->blocks;
    if (is_whole(run)) {
#pragma omp parallel for schedule(dynamic) num_threads(run->threads)
        for (size_t i = 0; i < run->tensors; i++) {
            run_whole(run, i);
        }
        return;
    }
    for (size_t i = 0; i < run->tensors; i++) {
        struct opt_tensor_update *bound = &run->bound[i];
        run_pass(run, i * blocks, (i + 1) * blocks, bound->first_pass);
        opt_update_end_first(bound, run->sums + i * blocks, blocks);
        run_pass(run, i * blocks, (i + 1) * blocks, OPT_PASS_STEP);
    }
}

/* The mean of two fp32 gradients in the place of the first, as a server makes it that
 * adds every gradient to a sum when it comes. */
static void accumulate(struct kernel_run *run)
{
    float *sum = run->gradients[0];
    const float *other = run->gradients[1];
#pragma omp parallel for schedule(dynamic) num_threads(run->threads)
    for (size_t at = 0; at < run->n; at += OPT_BLOCK) {
        opt_kernels()->interpolate(sum + at, other + at, 0.5f, sum + at, OPT_BLOCK);
    }
}

void kernel_run_update(struct kernel_run *run)
{
    struct opt_update update;
    size_t blocks = run->blocks, all = run->n / OPT_BLOCK;
    if (run->accumulating) {
        accumulate(run);
    }
    opt_update_begin(&update, &run->spec, ++run->number);
    for (size_t i = 0; i < run->tensors; i++) {
        opt_update_bind(&run->bound[i], &update, &run->options[i], &run->counters[i]);
    }
    if (opt_update_needs_norms(&update)) {
        run_pass(run, 0, all, OPT_PASS_NORM);
        for (size_t i = 0; i < run->tensors; i++) {
            opt_update_add_norm(&update, &run->bound[i], run->sums + i * blocks,
                                blocks);
        }
        opt_update_end_norms(&update);
    }
    for (size_t i = 0; i < run->tensors; i++) {
        opt_update_tensor(&run->bound[i]);
    }
    if (run->bound[0].two_passes) {
        run_two_passes(run);
    } else {
        run_pass(run, 0, all, OPT_PASS_STEP);
    }
    if (opt_update_synchronises(&update)) {
        run_pass(run, 0, all, OPT_PASS_LOOKAHEAD);
    }
}

/* Seconds for one update. */
static double timed(struct kernel_run *run)
{
    double begin = seconds_now();
    for (int i = 0; i < run->updates; i++) {
        kernel_run_update(run);
    }
    return (seconds_now() - begin) / run->updates;
}

bool kernel_run_rate(void *context, double *values, char problem[256])
{
    struct kernel_run *run = context;
    (void)problem;
    values[0] = kernel_run_traffic(run) * (double)run->n / timed(run) / 1e9;
    return true;
}

bool kernel_run_time(void *context, double *values, char problem[256])
{
    struct kernel_run *run = context;
    (void)problem;
    values[0] = timed(run) / (double)run->n * 1e9;
    return true;
}
