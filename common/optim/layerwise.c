/* layerwise — the trust ratio, once per tensor. Any thread.
 *
 *     r = trust_coefficient phi(|w|) / (|u| + layerwise_eps), at most trust_max
 *
 * You et al. 2020 (LAMB; u is the direction with its decay) and You, Gitman, Ginsburg
 * 2017 (LARS; |g| + decay |w| in the denominator). Either norm 0 gives 1, judged before
 * phi: a tensor that starts at zero must be able to move.
 */
#include "common/optim/passes.h"

double opt_layerwise_ratio(const struct opt_options *options, double weight_norm,
                           double update_norm, double decay_norm)
{
    double phi = weight_norm;

    if (weight_norm == 0.0 || update_norm == 0.0) {
        return 1.0;
    }
    if (options->layerwise_phi == OPT_PHI_CLIP) {
        phi = phi < options->phi_min ? options->phi_min : phi;
        phi = phi > options->phi_max ? options->phi_max : phi;
    }
    double ratio = options->trust_coefficient * phi /
                   (update_norm + decay_norm + options->layerwise_eps);
    if (options->trust_max > 0.0 && ratio > options->trust_max) {
        ratio = options->trust_max;
    }
    return ratio;
}
