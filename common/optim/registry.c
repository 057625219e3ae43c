/* registry — the one table of rules, and the named combinations. Any thread. */
#include <string.h>

#include "common/optim/rules.h"

#define ROW(name, NAME, slots, goal) &opt_rule_##name,
#define NO_ROW(name, NAME, slots, goal)
static const struct opt_rule *const rules[] = { OPT_RULES(ROW, NO_ROW) };

static const struct opt_preset presets[] = {
    { "adamw", "adam + decay(0.01, decoupled)" },
    { "lars", "momentum(momentum_form=ema) + decay(0.0001) + layerwise(update)" },
    { "lars2017", "momentum(lr=0.1) + decay(0.0005) + "
                  "layerwise(gradient, trust_coefficient=0.001)" },
    { "lamb", "adam(eps=1e-6) + decay(0.01, update) + layerwise(update)" },
    { "ranger", "radam + lookahead(6)" },
    { "ralamb", "radam + decay(0, update) + layerwise(update)" },
    { "rangerlars", "radam + decay(0, update) + layerwise(update) + lookahead(6)" },
};

const struct opt_rule *const *opt_rules(size_t *count)
{
    *count = sizeof rules / sizeof rules[0];
    return rules;
}

const struct opt_rule *opt_rule_find(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(rules[i]->name, name) == 0) {
            return rules[i];
        }
    }
    return NULL;
}

const struct opt_preset *opt_presets(size_t *count)
{
    *count = sizeof presets / sizeof presets[0];
    return presets;
}

const struct opt_preset *opt_preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}

bool opt_rule_includes_lr(const struct opt_spec *spec)
{
    return spec->rule->includes_lr != NULL && spec->rule->includes_lr(&spec->options);
}
