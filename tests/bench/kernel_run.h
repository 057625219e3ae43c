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
    size_t n;        /* parameters, in tensors of equal size */
    size_t tensors;  /* at least 1 */
    int threads;     /* of the team */
    int updates;     /* in one run */
    double bytes;    /* true traffic of one parameter in one update */
    uint64_t number; /* updates so far */

    float *w, *slots[OPT_SLOTS_MAX];
    size_t slot_count;
    void *gradients[KERNEL_RUN_GRADIENTS_MAX];
    size_t gradient_count;
    enum opt_dtype dtype; /* of the gradients */

    struct opt_tensor_options *options;   /* per tensor */
    struct opt_tensor_counters *counters; /* per tensor */
    struct opt_tensor_update *bound;      /* per tensor */
    struct opt_block_sums *sums;          /* per block of a tensor */
};

/* A model of n parameters (rounded down to whole blocks of equal tensors) with this
 * optimizer, `workers` gradients a round. bytes is set to that of a rule with one pass:
 * weights and slots read and written, gradients read. False with a sentence. */
bool kernel_run_init(struct kernel_run *run, const char *expression, size_t n,
                     size_t tensors, enum opt_dtype dtype, size_t workers,
                     char problem[256]);
void kernel_run_fini(struct kernel_run *run);

/* Most memory that a run of n parameters takes. */
size_t kernel_run_bytes(size_t n);

/* One update. */
void kernel_run_update(struct kernel_run *run);

/* A compare_side each: GB/s of true traffic; ns per parameter. */
bool kernel_run_rate(void *run, double *values, char problem[256]);
bool kernel_run_time(void *run, double *values, char problem[256]);

#endif
