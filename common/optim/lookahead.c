/* lookahead — every k updates the slow weights move and the fast ones follow.
 *
 *     slow = slow + alpha (w - slow),  w = slow
 *
 * Zhang et al. 2019. The first moment of the inner optimizer is kept, reset, or pulled
 * back to its own slow copy in the same way. Any thread.
 */
#include <string.h>

#include "common/optim/passes.h"
#include "common/optim/rule.h"

bool opt_update_synchronises(const struct opt_update *update)
{
    uint64_t k = (uint64_t)update->spec->options.lookahead_k;

    return k > 0 && update->T % k == 0;
}

uint64_t opt_lookahead_epochs(const struct opt_spec *spec, uint64_t T)
{
    uint64_t k = (uint64_t)spec->options.lookahead_k;

    return k > 0 ? T / k : 0;
}

void opt_lookahead_block(const struct opt_spec *spec,
                         const struct opt_block_memory *memory)
{
    const struct opt_options *options = &spec->options;
    const struct opt_kernels *kernels = opt_kernels();
    float alpha = (float)options->lookahead_alpha;
    size_t count = 0, n = memory->n;
    float *moment = NULL;

    for (const struct opt_slot *slot = spec->rule->slots; slot->name != NULL; slot++) {
        if (slot->wanted != NULL && !slot->wanted(options)) {
            continue;
        }
        if (slot->first_moment) {
            moment = memory->slots[count];
        }
        count++;
    }
    float *slow = memory->slots[count];
    kernels->interpolate(slow, memory->w, alpha, slow, n);
    memcpy(memory->w_out, slow, n * sizeof *slow);

    if (options->lookahead_momentum == OPT_RESET) {
        memset(moment, 0, n * sizeof *moment);
    } else if (options->lookahead_momentum == OPT_PULLBACK) {
        float *slow_moment = memory->slots[count + 1];
        kernels->interpolate(slow_moment, moment, alpha, slow_moment, n);
        memcpy(moment, slow_moment, n * sizeof *moment);
    }
}
