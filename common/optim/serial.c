/* serial — a whole update on the calling thread, in the order that update.h draws.
 *
 * For local steps, tests and tools; the engine spreads the same calls over its team.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/optim/update.h"

static size_t blocks_of(size_t n)
{
    return (n + OPT_BLOCK - 1) / OPT_BLOCK;
}

/* An opt_tensor_update per tensor, then the sums of one tensor's blocks. */
size_t opt_update_scratch(size_t tensors, size_t largest_n)
{
    return tensors * sizeof(struct opt_tensor_update) +
           blocks_of(largest_n) * sizeof(struct opt_block_sums);
}

static void run_pass(const struct opt_tensor_update *update, enum opt_pass pass,
                     const struct opt_tensor_memory *tensor,
                     struct opt_block_sums *sums)
{
    for (size_t start = 0; start < tensor->n; start += OPT_BLOCK) {
        struct opt_block_memory memory = {
            .n = tensor->n - start < OPT_BLOCK ? tensor->n - start : OPT_BLOCK,
            .w = tensor->w + start,
            .w_out = tensor->w + start,
            .contributions = tensor->contributions,
            .contribution_count = tensor->contribution_count,
            .contribution_offset = start,
            .direction = tensor->direction != NULL ? tensor->direction + start : NULL,
        };
        for (size_t i = 0; i < OPT_SLOTS_MAX; i++) {
            memory.slots[i] =
                tensor->slots[i] != NULL ? tensor->slots[i] + start : NULL;
        }
        opt_block_run(update, pass, &memory, &sums[start / OPT_BLOCK]);
    }
}

bool opt_update_serial(const struct opt_spec *spec, uint64_t number,
                       struct opt_tensor_memory *tensors, size_t count, void *scratch)
{
    struct opt_tensor_update *updates = scratch;
    struct opt_block_sums *sums = (struct opt_block_sums *)(updates + count);
    struct opt_update update;

    opt_update_begin(&update, spec, number);
    for (size_t i = 0; i < count; i++) {
        opt_update_bind(&updates[i], &update, tensors[i].options, tensors[i].counters);
    }
    if (opt_update_needs_norms(&update)) {
        for (size_t i = 0; i < count; i++) {
            if (tensors[i].contributions != NULL) {
                run_pass(&updates[i], OPT_PASS_NORM, &tensors[i], sums);
                opt_update_add_norm(&update, &updates[i], sums,
                                    blocks_of(tensors[i].n));
            }
        }
        opt_update_end_norms(&update);
        if (!opt_update_finite(&update)) {
            return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].contributions == NULL) {
            continue;
        }
        opt_update_tensor(&updates[i]);
        if (updates[i].two_passes) {
            run_pass(&updates[i], updates[i].first_pass, &tensors[i], sums);
            opt_update_end_first(&updates[i], sums, blocks_of(tensors[i].n));
        }
        run_pass(&updates[i], OPT_PASS_STEP, &tensors[i], sums);
    }
    if (opt_update_synchronises(&update)) {
        for (size_t i = 0; i < count; i++) {
            run_pass(&updates[i], OPT_PASS_LOOKAHEAD, &tensors[i], sums);
        }
    }
    return true;
}
