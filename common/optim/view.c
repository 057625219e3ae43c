/* view — what readers get: where to take the next gradient, and the answer.
 *
 * Views are computed when they are read and never stored twice. Any thread.
 */
#include "common/optim/rule.h"

bool opt_view_train_differs(const struct opt_spec *spec)
{
    return spec->rule->look_ahead != NULL && spec->rule->look_ahead(&spec->options) > 0;
}

bool opt_view_train(const struct opt_spec *spec, const float *w, float *const *slots,
                    float *out, size_t n)
{
    if (!opt_view_train_differs(spec)) {
        return false;
    }
    opt_kernels()->subtract(w, (float)spec->rule->look_ahead(&spec->options), slots[0],
                            out, n);
    return true;
}

int opt_view_eval_slot(const struct opt_spec *spec)
{
    const char *names[OPT_SLOTS_MAX];
    size_t count = opt_spec_slots(spec, names);

    if (spec->options.lookahead_k == 0) {
        return -1;
    }
    return (int)count - (opt_lookahead_pulls_back(spec) ? 2 : 1);
}
