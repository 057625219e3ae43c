/* kernel_run — updates of a model that exists only for measuring its arithmetic.
 *
 * One model's weights, gradients and slots, updated block by block on an OpenMP team as
 * the engine does it, with nothing else going on. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_KERNEL_RUN_H
#define OPTIMD_TESTS_BENCH_KERNEL_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/update.h"

enum { KERNEL_RUN_GRADIENTS_MAX = 2 };

struct kernel_run {
    struct opt_spec spec;
    size_t room;       /* parameters that there is memory for */
    size_t n;          /* of them used, in tensors of equal size */
    size_t tensors;    /* at least 1 */
    size_t blocks;     /* of each, at least 1 */
    int threads;       /* of the team */
    int updates;       /* in one run */
    bool accumulating; /* sum the gradients in a pass of its own, then update */
    uint64_t number;   /* updates so far */

    float *w, *slots[OPT_SLOTS_MAX];
    size_t slot_count;
    void *gradients[KERNEL_RUN_GRADIENTS_MAX];
    size_t gradient_count;
    enum opt_dtype dtype; /* of the gradients */
    float *directions;    /* scratch for those that no fp32 gradient can take */

    struct opt_tensor_options *options;   /* per tensor */
    struct opt_tensor_counters *counters; /* per tensor */
    struct opt_tensor_update *bound;      /* per tensor */
    struct opt_block_sums *sums;          /* per block */
};

/* A model of n parameters in one tensor with this optimizer, one thread, `workers` fp32
 * gradients in a round. False with a sentence. */
bool kernel_run_init(struct kernel_run *run, const char *expression, size_t n,
                     size_t workers, char problem[256]);
void kernel_run_fini(struct kernel_run *run);

/* Use the first n parameters only, as tensors of so many, both rounded down to whole
 * blocks; size 0: as one tensor. The model is new again. */
void kernel_run_shape(struct kernel_run *run, size_t n, size_t size);
/* Have the gradients in this dtype. */
void kernel_run_gradients(struct kernel_run *run, enum opt_dtype dtype);

/* Most memory that a run of n parameters takes. */
size_t kernel_run_bytes(size_t n);

/* What one update must move of one parameter, in bytes, if nothing stays in cache from
 * one pass to the next. */
double kernel_run_traffic(const struct kernel_run *run);

/* One update. */
void kernel_run_update(struct kernel_run *run);

/* A compare_side each: GB/s of that traffic; ns per parameter. */
bool kernel_run_rate(void *run, double *values, char problem[256]);
bool kernel_run_time(void *run, double *values, char problem[256]);

#endif
