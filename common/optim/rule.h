/* rule — an optimizer's base rule as one row of data.
 *
 * A rule is an element function (momentum.h, adagrad.h, adam.h) and a row: its name,
 * where it comes from, its slots, its options with their defaults, and prepare, which
 * turns options and step counts into the scalars that the loop multiplies with.
 * Specifications, checkpoints, tests and manuals walk the registry; nothing switches on
 * a name. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_RULE_H
#define OPTIMD_COMMON_OPTIM_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/kernels.h"
#include "common/optim/spec.h"
#include "common/optim/update.h"

struct opt_slot {
    const char *name;
    bool first_moment; /* what Lookahead resets or pulls back */
    bool (*wanted)(const struct opt_options *options);  /* NULL: always */
    double (*start)(const struct opt_options *options); /* NULL: 0 */
};

struct opt_rule_option {
    const char *name;
    double value;         /* default; words and flags by number */
    unsigned words;       /* bit i: word i is offered; 0: all */
    const char *needs;    /* in this rule it has an effect only where that option ... */
    unsigned needs_words; /* ... is one of these words; 0: is above 0 */
};

struct opt_rule {
    const char *name;
    const char *source; /* the paper */
    enum opt_kernel kernel;
    const struct opt_slot *slots;          /* at most 3, ends with name NULL */
    const struct opt_rule_option *options; /* ends with name NULL */
    bool lazy; /* may leave the rows of a sparse tensor alone that an update lacks */

    /* The tensor's lr, trust-free, is tensor->lr; its counters are those of this
     * update; the shell's scalars are set and may be changed. */
    void (*prepare)(const struct opt_options *options,
                    struct opt_tensor_update *tensor);

    /* Whether the direction contains the learning rate; NULL: it does not. */
    bool (*includes_lr)(const struct opt_options *options);
    /* What only this rule can judge of its options; NULL: nothing. */
    enum opt_status (*check)(const struct opt_options *options,
                             struct opt_error *error);
    /* Factor of the first slot in the training view w - factor a; NULL: the weights. */
    double (*look_ahead)(const struct opt_options *options);
};

/* All rules; *count of them. */
const struct opt_rule *const *opt_rules(size_t *count);

/* A rule by name, or NULL. */
const struct opt_rule *opt_rule_find(const char *name);

/* Named specifications, each only an expression. */
struct opt_preset {
    const char *name;
    const char *expression;
};
const struct opt_preset *opt_presets(size_t *count);
const struct opt_preset *opt_preset_find(const char *name); /* or NULL */

/* Other libraries' optimizers, each as an expression that starts from a rule. */
struct opt_profile {
    const char *name;
    const char *source; /* which version was compared with */
};
struct opt_profile_row {
    const char *name;       /* PROFILE.NAME */
    const char *theirs;     /* what that library calls it */
    const char *expression; /* NULL: it is not offered */
    const char *note;       /* what differs; why it is not offered; or NULL */
};
const struct opt_profile *opt_profiles(size_t *count);
const struct opt_profile_row *opt_profile_rows(size_t *count);
const struct opt_profile_row *opt_profile_row_find(const char *name); /* or NULL */
bool opt_profile_row_of(const struct opt_profile_row *row, const char *profile);

/* What that library's users write, and what it is here. */
/* Of a name with other capitals or a folder's name in it, such as torch.optim.AdamW or
 * keras.optimizers.SGD: the row's name, or NULL. */
const char *opt_profile_meant(const char *name);
/* Of an argument of theirs that the row does not take, such as betas: a sentence part
 * that says how it is written here, or NULL. */
const char *opt_profile_argument(const struct opt_profile_row *row, const char *name);

/* Whether s contains lr, judged by the rule. */
bool opt_rule_includes_lr(const struct opt_spec *spec);

#endif
