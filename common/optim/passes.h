/* passes — what the passes of an update share: loading gradients, sums of squares, the
 * trust ratio. Called by update.c only.
 */
#ifndef OPTIMD_COMMON_OPTIM_PASSES_H
#define OPTIMD_COMMON_OPTIM_PASSES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/optim/kernels.h"
#include "common/optim/update.h"

/* Elements that are aggregated, or squared, while they are in the first-level cache; a
 * multiple of OPT_LANES. */
enum { OPT_SLICE = 1024 };

/* Whether the kernels read these contributions by themselves, and then how. */
bool opt_aggregate_direct(const struct opt_contribution *contributions, size_t count,
                          enum opt_load *load);

/* Sum n <= OPT_SLICE elements from offset on: in fp64, in the order of the
 * contributions, rounded once. clean: what is not finite counts as 0. */
void opt_aggregate_slice(const struct opt_contribution *contributions, size_t count,
                         bool clean, size_t offset, float *out, size_t n);

/* Sum of the squares that opt_kernels()->squares left in the lanes of one block. */
double opt_norm_fold(const double lanes[OPT_LANES]);

/* Trust ratio from the norm of the weights and that of the update: of the direction
 * (decay_norm 0), or of the gradient with decay_norm = decay |w|. */
double opt_layerwise_ratio(const struct opt_options *options, double weight_norm,
                           double update_norm, double decay_norm);

/* Lookahead on one block. */
void opt_lookahead_block(const struct opt_spec *spec,
                         const struct opt_block_memory *memory);

#endif
