/* optimizers — the registry of the library that the examples are built beside.
 *
 * Called by demo_presets.c and gallery_presets.c.
 */
#include "optimizers.h"

#include "common/optim/rule.h"

size_t optimizers_count(void)
{
    size_t rules, presets;
    opt_rules(&rules);
    opt_presets(&presets);
    return rules + presets;
}

const char *optimizers_name(size_t i)
{
    size_t rules, presets;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    return i < rules ? rule[i]->name : preset[i - rules].name;
}
