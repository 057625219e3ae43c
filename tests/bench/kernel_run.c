/* kernel_run — see kernel_run.h. */
#include "tests/bench/kernel_run.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/wire.h"
#include "tests/bench/compare.h"
#include "tests/bench/machine.h"
#include "tests/bench/memory.h"

static size_t array_bytes(const struct kernel_run *run)
{
    return run->n * sizeof(float);
}

/* Small weights, gradients with both signs, slots as a new model has them. */
static bool arrays_init(struct kernel_run *run, int threads)
{
    run->w = memory_map(array_bytes(run));
    if (run->w == NULL) {
        return false;
    }
    memory_fill(run->w, run->n, 1, 0.1f, threads);
    for (size_t s = 0; s < run->slot_count; s++) {
        bool copy = false;
        float start = opt_spec_slot_start(&run->spec, s, &copy);
        run->slots[s] = memory_map(array_bytes(run));
        if (run->slots[s] == NULL) {
            return false;
        }
        if (copy) {
            memory_fill(run->slots[s], run->n, 1, 0.1f, threads);
        } else {
            memory_set(run->slots[s], run->n, start, threads);
        }
    }
    return true;
}

/* Gradients of the dtype, each part made by the thread that will read it. */
static bool gradients_init(struct kernel_run *run, int threads)
{
    for (size_t i = 0; i < run->gradient_count; i++) {
        float *values = memory_map(array_bytes(run));
        run->gradients[i] = values;
        if (values == NULL) {
            return false;
        }
        if (run->dtype == OPT_FP32) {
            memory_fill(values, run->n, 7 + (uint32_t)i, 0.01f, threads);
            continue;
        }
        uint16_t *narrow = run->gradients[i];
        size_t blocks = run->n / OPT_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t b = 0; b < blocks; b++) {
            float block[256];
            for (size_t at = 0; at < OPT_BLOCK; at += 256) {
                memory_fill(block, 256, (uint32_t)(b * OPT_BLOCK + at + i), 0.01f, 1);
                opt_dtype_narrow(run->dtype, block, narrow + b * OPT_BLOCK + at, 256);
            }
        }
    }
    return true;
}

static bool tensors_init(struct kernel_run *run)
{
    size_t blocks = run->n / run->tensors / OPT_BLOCK;
    run->options = calloc(run->tensors, sizeof *run->options);
    run->counters = calloc(run->tensors, sizeof *run->counters);
    run->bound = calloc(run->tensors, sizeof *run->bound);
    run->sums = calloc(blocks, sizeof *run->sums);
    if (run->options == NULL || run->counters == NULL || run->bound == NULL ||
        run->sums == NULL) {
        return false;
    }
    for (size_t i = 0; i < run->tensors; i++) {
        opt_tensor_options_resolve(&run->spec, "weights", 2, &run->options[i]);
        run->counters[i] = (struct opt_tensor_counters){ .t = 0, .mu_product = 1 };
    }
    return true;
}

bool kernel_run_init(struct kernel_run *run, const char *expression, size_t n,
                     size_t tensors, enum opt_dtype dtype, size_t workers,
                     char problem[256])
{
    struct opt_error error;
    const char *names[OPT_SLOTS_MAX];
    *run = (struct kernel_run){ .tensors = tensors, .threads = 1, .updates = 1 };
    if (opt_spec_parse(expression, &run->spec, &error) != OPT_OK) {
        snprintf(problem, 256, "%.250s", error.text);
        return false;
    }
    run->n = n / tensors / OPT_BLOCK * OPT_BLOCK * tensors;
    run->dtype = dtype;
    run->gradient_count = workers;
    run->slot_count = opt_spec_slots(&run->spec, names);
    run->bytes =
        8.0 + 8.0 * (double)run->slot_count + (double)(opt_dtype_size(dtype) * workers);
    if (run->n == 0 || !arrays_init(run, machine_cores()) ||
        !gradients_init(run, machine_cores()) || !tensors_init(run)) {
        snprintf(problem, 256, "no memory for %zu parameters", n);
        kernel_run_fini(run);
        return false;
    }
    return true;
}

void kernel_run_fini(struct kernel_run *run)
{
    memory_unmap(run->w, array_bytes(run));
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
    return n * sizeof(float) * (1 + OPT_SLOTS_MAX + 1);
}

/* One block of a tensor; `first` is the block's first element in the model. */
static void run_block(const struct kernel_run *run, size_t tensor, enum opt_pass pass,
                      size_t first, struct opt_block_sums *sums)
{
    struct opt_contribution gradients[KERNEL_RUN_GRADIENTS_MAX];
    size_t step = opt_dtype_size(run->dtype);
    struct opt_block_memory memory = {
        .n = OPT_BLOCK,
        .w = run->w + first,
        .w_out = run->w + first,
        .contributions = gradients,
        .contribution_count = run->gradient_count,
    };
    for (size_t i = 0; i < run->gradient_count; i++) {
        gradients[i] = (struct opt_contribution){
            .values = (const char *)run->gradients[i] + first * step,
            .dtype = run->dtype,
            .factor = 1.0 / (double)run->gradient_count,
        };
    }
    if (run->dtype == OPT_FP32) {
        memory.direction = (float *)run->gradients[0] + first;
    }
    for (size_t s = 0; s < run->slot_count; s++) {
        memory.slots[s] = run->slots[s] + first;
    }
    opt_block_run(&run->bound[tensor], pass, &memory, sums);
}

/* One pass over one tensor; blocks go to whichever thread is free, as in the engine. */
static void run_pass(struct kernel_run *run, size_t tensor, enum opt_pass pass)
{
    size_t blocks = run->n / run->tensors / OPT_BLOCK;
    size_t first = tensor * blocks * OPT_BLOCK;
    bool summed = pass == OPT_PASS_NORM || pass == OPT_PASS_DIRECTION;
#pragma omp parallel for schedule(dynamic) num_threads(run->threads)
    for (size_t b = 0; b < blocks; b++) {
        run_block(run, tensor, pass, first + b * OPT_BLOCK,
                  summed ? &run->sums[b] : NULL);
    }
}

void kernel_run_update(struct kernel_run *run)
{
    struct opt_update update;
    size_t blocks = run->n / run->tensors / OPT_BLOCK;
    opt_update_begin(&update, &run->spec, ++run->number);
    for (size_t i = 0; i < run->tensors; i++) {
        opt_update_bind(&run->bound[i], &update, &run->options[i], &run->counters[i]);
    }
    if (opt_update_needs_norms(&update)) {
        for (size_t i = 0; i < run->tensors; i++) {
            run_pass(run, i, OPT_PASS_NORM);
            opt_update_add_norm(&update, &run->bound[i], run->sums, blocks);
        }
        opt_update_end_norms(&update);
    }
    for (size_t i = 0; i < run->tensors; i++) {
        struct opt_tensor_update *tensor = &run->bound[i];
        opt_update_tensor(tensor);
        if (tensor->two_passes) {
            run_pass(run, i, tensor->first_pass);
            opt_update_end_first(tensor, run->sums, blocks);
        }
        run_pass(run, i, OPT_PASS_STEP);
    }
    if (opt_update_synchronises(&update)) {
        for (size_t i = 0; i < run->tensors; i++) {
            run_pass(run, i, OPT_PASS_LOOKAHEAD);
        }
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
    values[0] = run->bytes * (double)run->n / timed(run) / 1e9;
    return true;
}

bool kernel_run_time(void *context, double *values, char problem[256])
{
    struct kernel_run *run = context;
    (void)problem;
    values[0] = timed(run) / (double)run->n * 1e9;
    return true;
}
