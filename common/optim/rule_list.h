/* rule_list — every rule, one line each.
 *
 *     RULE(name, NAME, slots, goal)   a rule
 *     LOOP(name, NAME, slots, goal)   one more loop, which prepare of the rule above
 *                                     may choose
 *
 * For RULE(adam, ...) the rule's row is opt_rule_adam, and its loop is made of
 * adam_element by shell.h.
 *
 * goal is update_kept where the rule's last slot is its direction, else update. From
 * these lines come the loops of every instruction set (kernels_FAMILY.c), their numbers
 * and table (kernels.h), and the registry. A family is compiled at a time. The order is
 * that of tables and manuals.
 */
#ifndef OPTIMD_COMMON_OPTIM_RULE_LIST_H
#define OPTIMD_COMMON_OPTIM_RULE_LIST_H

/* clang-format off */
#define OPT_MOMENTUM_RULES(RULE, LOOP)                                \
    RULE(sgd, SGD, 0, update)                                         \
    RULE(momentum, MOMENTUM, 1, update_kept)                          \
    RULE(nag, NAG, 1, update)                                         \
    RULE(lion, LION, 1, update)

#define OPT_ADAGRAD_RULES(RULE, LOOP)                                 \
    RULE(adagrad, ADAGRAD, 1, update)                                 \
    RULE(rmsprop, RMSPROP, 1, update)                                 \
    LOOP(rmsprop_centered, RMSPROP_CENTERED, 2, update)               \
    LOOP(rmsprop_momentum, RMSPROP_MOMENTUM, 2, update_kept)          \
    LOOP(rmsprop_centered_momentum, RMSPROP_CENTERED_MOMENTUM, 3, update_kept) \
    RULE(adadelta, ADADELTA, 2, update)

#define OPT_ADAM_RULES(RULE, LOOP)                                    \
    RULE(adam, ADAM, 2, update)                                       \
    RULE(adamax, ADAMAX, 2, update)                                   \
    RULE(nadam, NADAM, 2, update)

#define OPT_AMSGRAD_RULES(RULE, LOOP)                                 \
    RULE(amsgrad, AMSGRAD, 3, update)                                 \
    RULE(radam, RADAM, 2, update)                                     \
    RULE(adabound, ADABOUND, 2, update)                               \
    RULE(amsbound, AMSBOUND, 3, update)

#define OPT_RULES(RULE, LOOP)                                         \
    OPT_MOMENTUM_RULES(RULE, LOOP)                                    \
    OPT_ADAGRAD_RULES(RULE, LOOP)                                     \
    OPT_ADAM_RULES(RULE, LOOP)                                        \
    OPT_AMSGRAD_RULES(RULE, LOOP)
/* clang-format on */

#endif
