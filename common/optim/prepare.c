/* prepare — options become scalars: what several rules share (rules.h). Any thread. */
#include <math.h>

#include "common/optim/rules.h"

void opt_prepare_momentum(const struct opt_options *options,
                          struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;

    k->decay1 = (float)options->momentum;
    switch ((enum opt_momentum_form)options->momentum_form) {
    case OPT_VELOCITY:
        k->gain1 = (float)tensor->lr;
        break;
    case OPT_HEAVY_BALL:
        k->gain1 = 1.0f;
        break;
    case OPT_EMA:
        k->gain1 = (float)(1.0 - options->momentum);
        break;
    }
}

void opt_prepare_betas(const struct opt_options *options, struct opt_scalars *k)
{
    k->decay1 = (float)options->beta1;
    k->gain1 = (float)(1.0 - options->beta1);
    k->decay2 = (float)options->beta2;
    k->gain2 = (float)(1.0 - options->beta2);
}

double opt_prepare_eps(const struct opt_options *options, double c,
                       struct opt_scalars *k)
{
    switch ((enum opt_eps_mode)options->eps_mode) {
    case OPT_INSIDE_SQRT:
        k->eps_inside = (float)(options->eps * c);
        break;
    case OPT_OUTSIDE_SQRT:
        k->eps_outside = (float)(options->eps * sqrt(c));
        break;
    default:
        k->eps_outside = (float)options->eps;
        break;
    }
    return sqrt(c);
}
