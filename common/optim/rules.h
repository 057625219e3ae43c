/* rules — the rows of the registry, one per base rule. Read by registry.c only. */
#ifndef OPTIMD_COMMON_OPTIM_RULES_H
#define OPTIMD_COMMON_OPTIM_RULES_H

#include "common/optim/rule.h"

extern const struct opt_rule opt_rule_sgd, opt_rule_momentum, opt_rule_nag;
extern const struct opt_rule opt_rule_adagrad, opt_rule_rmsprop, opt_rule_adadelta;
extern const struct opt_rule opt_rule_adam, opt_rule_adamax, opt_rule_nadam;
extern const struct opt_rule opt_rule_amsgrad, opt_rule_radam;
extern const struct opt_rule opt_rule_adabound, opt_rule_amsbound;

/* The momentum stage, shared by momentum, nag and rmsprop: decay1, gain1, and step = 1
 * if the learning rate goes into the buffer. */
void opt_prepare_momentum(const struct opt_options *options,
                          struct opt_tensor_update *tensor);

/* eps by eps_mode for a second moment with correction c; returns the factor sqrt(c) of
 * the numerator that goes with it. */
double opt_prepare_eps(const struct opt_options *options, double c,
                       struct opt_scalars *k);

#endif
