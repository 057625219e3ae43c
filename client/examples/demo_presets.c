/* demo_presets — the rates behind `make demo-all`.
 *
 * Called by demo_all.c and by a test. A rule or preset that the table does not have is
 * tried with a rate that suits most.
 *
 * All have the same schedule, cosine to the end, because a constant rate would judge
 * how an optimizer ends rather than how it goes. The rate is the one in the middle of
 * those that work when tried in steps of about three: a neighbour would do as well.
 */
#include "demo_presets.h"

#include <stdio.h>
#include <string.h>

/* A step of about lr for each weight, which is what most rules do. */
static const double USUAL = 0.01;

/* clang-format off */
static const struct demo_preset presets[] = {
    { "sgd",         0.3,    "the highest of 0.1, 0.3, 1, ... that is stable; 1 is not always" },
    { "momentum",    0.1,    "sums ten gradients (1 / (1 - 0.9)), so a third of sgd's is plenty" },
    { "nag",         0.1,    "as momentum" },
    { "adagrad",     0.03,   "its steps shrink with all they have seen: more than adam's" },
    { "rmsprop",     0.01,   "a step is about lr for each weight, whatever the gradient" },
    { "adadelta",    3,      "has its own units; lr only scales, and 1 is slow at first" },
    { "adam",        0.01,   "a step is about lr; 0.1 starts to be unstable" },
    { "adamax",      0.01,   "the largest recent gradient divides: smaller steps than adam's" },
    { "nadam",       0.01,   "as adam" },
    { "amsgrad",     0.003,  "no bias correction: its first steps are three times adam's" },
    { "lion",        0.003,  "a step is lr for each weight, without exception: less than adam's" },
    { "adamw",       0.01,   "as adam; decay at 0.01 changes little in so few steps" },
    { "radam",       0.03,   "its first steps are short, while the variance is not known" },
    { "adabound",    0.01,   "adam's at first, sgd's (final_lr = 0.1) later" },
    { "amsbound",    0.01,   "as adabound" },
    { "lars",        0.01,   "a step is lr of the tensor's own norm: a hundredth" },
    { "lars2017",    3,      "trust_coefficient=0.001 is in the ratio, so lr is large" },
    { "lamb",        0.01,   "a hundredth of the tensor's own norm, as lars" },
    { "ranger",      0.1,    "slow weights go half of the way, and average what radam would overdo" },
    { "ralamb",      0.01,   "as lamb" },
    { "rangerlars",  0.02,   "as ralamb, for half of the way" },
};
/* clang-format on */

const struct demo_preset *demo_presets_table(size_t *count)
{
    *count = sizeof presets / sizeof presets[0];
    return presets;
}

struct demo_preset demo_preset(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return presets[i];
        }
    }
    return (struct demo_preset){ .name = name, .lr = USUAL };
}

void demo_preset_print(const struct demo_preset *preset,
                       char out[DEMO_SPECIFICATION_MAX])
{
    snprintf(out, DEMO_SPECIFICATION_MAX, "%s(lr=%g) + cosine(%d)", preset->name,
             preset->lr, DEMO_STEPS);
}
