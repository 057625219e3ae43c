/* groups — which options a tensor has of its own, by its name. Any thread. */
#include "common/optim/update.h"

/* One character of UTF-8. */
static const char *next(const char *text)
{
    do {
        text++;
    } while (((unsigned char)*text & 0xc0u) == 0x80u);
    return text;
}

/* Shell patterns of * and ?. Linear memory, no recursion: only the last * is ever tried
 * again, because what an earlier one could swallow a later one can too. */
static bool matches(const char *pattern, const char *name)
{
    const char *star = NULL, *resume = NULL;

    while (*name != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            resume = name;
        } else if (*pattern == '?') {
            pattern++;
            name = next(name);
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star;
            resume = next(resume);
            name = resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

void opt_tensor_options_resolve(const struct opt_spec *spec, const char *name,
                                size_t rank, struct opt_tensor_options *out)
{
    const struct opt_options *options = &spec->options;

    *out = (struct opt_tensor_options){
        .weight_decay = options->weight_decay,
        .lr_scale = 1.0,
        .layerwise = options->layerwise != OPT_LAYERWISE_NONE &&
                     (double)rank >= options->layerwise_min_ndim,
    };
    for (size_t i = 0; i < spec->group_count; i++) {
        const struct opt_group *group = &spec->groups[i];

        if (!matches(group->pattern, name)) {
            continue;
        }
        if (group->has_weight_decay) {
            out->weight_decay = group->weight_decay;
        }
        if (group->has_lr_scale) {
            out->lr_scale = group->lr_scale;
        }
        out->layerwise = out->layerwise && !group->layerwise_none;
        break;
    }
}
