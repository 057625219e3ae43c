/* rules — the rows of the registry, one per base rule. Read by registry.c only. */
#ifndef OPTIMD_COMMON_OPTIM_RULES_H
#define OPTIMD_COMMON_OPTIM_RULES_H

#include "common/optim/rule.h"

#define OPT_ROW(name, NAME, slots, goal) extern const struct opt_rule opt_rule_##name;
#define OPT_NO_ROW(name, NAME, slots, goal)
OPT_RULES(OPT_ROW, OPT_NO_ROW)
#undef OPT_ROW
#undef OPT_NO_ROW

/* The momentum stage, shared by momentum, nag and rmsprop: decay1, gain1, and step = 1
 * if the learning rate goes into the buffer. */
void opt_prepare_momentum(const struct opt_options *options,
                          struct opt_tensor_update *tensor);

/* The two moments' shares: decay1 and gain1 of beta1, decay2 and gain2 of beta2. */
void opt_prepare_betas(const struct opt_options *options, struct opt_scalars *k);

/* eps by eps_mode for a second moment with correction c; returns the factor sqrt(c) of
 * the numerator that goes with it. */
double opt_prepare_eps(const struct opt_options *options, double c,
                       struct opt_scalars *k);

#endif
