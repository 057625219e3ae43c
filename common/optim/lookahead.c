/* lookahead — every k updates the slow weights move and the fast ones follow.
 *
 *     slow = slow + alpha (w - slow),  w = slow
 *
 * Zhang et al. 2019. The first moment of the inner optimizer, if it has one, is kept,
 * reset, or pulled back to its own slow copy in the same way. Any thread.
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

void opt_lookahead_moment(const struct opt_options *options, float *moment,
                          float *slow_moment, size_t n)
{
    if (options->lookahead_momentum == OPT_RESET) {
        memset(moment, 0, n * sizeof *moment);
    } else if (options->lookahead_momentum == OPT_PULLBACK) {
        opt_kernels()->interpolate(slow_moment, moment, (float)options->lookahead_alpha,
                                   slow_moment, n);
        memcpy(moment, slow_moment, n * sizeof *moment);
    }
}

void opt_lookahead_block(const struct opt_spec *spec,
                         const struct opt_block_memory *memory)
{
    const struct opt_options *options = &spec->options;
    int moment = opt_lookahead_moment_slot(spec);
    int slow_slot = opt_view_eval_slot(spec);
    float *slow = memory->slots[slow_slot];

    opt_kernels()->interpolate(slow, memory->w, (float)options->lookahead_alpha, slow,
                               memory->n);
    memcpy(memory->w_out, slow, memory->n * sizeof *slow);
    if (moment >= 0 && options->lookahead_momentum != OPT_KEEP) {
        opt_lookahead_moment(options, memory->slots[moment],
                             memory->slots[slow_slot + 1], memory->n);
    }
}
