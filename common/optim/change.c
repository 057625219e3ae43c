/* change — see change.h; the grammar is in expression.c. */
#include "common/optim/change.h"

#include <stdio.h>
#include <string.h>

#include "common/optim/compose.h"
#include "common/optim/groups.h"
#include "common/optim/options.h"
#include "common/optim/update.h"

enum opt_status opt_change_read(const struct opt_rule *rule, const struct opt_set *set,
                                struct opt_change *out, struct opt_error *error)
{
    struct opt_composition composition = { .given = 0 };
    enum opt_status status = opt_compose_begin(&composition, rule->name, error);

    if (status == OPT_OK && set->change[0] != '\0') {
        status = opt_change_parse(set->change, &composition, error);
    }
    for (size_t i = 0; status == OPT_OK && i < set->option_count; i++) {
        status = opt_compose_option(&composition, &set->options[i], error);
    }
    for (size_t i = 0; status == OPT_OK && i < set->group_count; i++) {
        status = opt_spec_group(&composition.spec, &set->groups[i], error);
    }
    if (status == OPT_OK) {
        out->values = composition.spec;
        out->given = composition.given;
    } else {
        opt_spec_fini(&composition.spec);
    }
    return status;
}

/* ------------------------------------------------------------------ applying */

void opt_change_fini(struct opt_change *change)
{
    opt_spec_fini(&change->values);
}

/* Append a group as it is. */
static enum opt_status append(struct opt_spec *spec, const struct opt_group *from,
                              struct opt_error *error)
{
    struct opt_group *to;
    enum opt_status status = opt_group_add(spec, from->pattern, &to, error);
    if (status == OPT_OK) {
        struct opt_group copy = *from;
        copy.pattern = to->pattern;
        *to = copy;
    }
    return status;
}

/* Put what is given for a pattern over what it has. */
static void overlay(struct opt_group *to, const struct opt_group *from)
{
    if (from->has_weight_decay) {
        to->has_weight_decay = true;
        to->weight_decay = from->weight_decay;
    }
    if (from->has_lr_scale) {
        to->has_lr_scale = true;
        to->lr_scale = from->lr_scale;
    }
    to->layerwise_none |= from->layerwise_none;
    to->may_miss |= from->may_miss;
}

/* The groups of a specification and of a change of it: new patterns first, then those
 * that were there, with what is given for them. */
static enum opt_status merge_groups(const struct opt_spec *has,
                                    const struct opt_spec *given, struct opt_spec *out,
                                    struct opt_error *error)
{
    enum opt_status status = OPT_OK;

    out->groups = NULL;
    out->group_count = 0;
    for (size_t i = 0; status == OPT_OK && i < given->group_count; i++) {
        if (opt_group_find(has, given->groups[i].pattern) == NULL) {
            status = append(out, &given->groups[i], error);
        }
    }
    for (size_t i = 0; status == OPT_OK && i < has->group_count; i++) {
        const struct opt_group *over = opt_group_find(given, has->groups[i].pattern);
        status = append(out, &has->groups[i], error);
        if (status == OPT_OK && over != NULL) {
            overlay(&out->groups[out->group_count - 1], over);
        }
    }
    if (status != OPT_OK) {
        opt_spec_fini(out);
    }
    return status;
}

enum opt_status opt_change_apply(const struct opt_change *change, struct opt_spec *spec,
                                 struct opt_error *error)
{
    struct opt_spec result;
    enum opt_status status = OPT_OK;
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    opt_spec_share(&result, spec);
    for (size_t i = 0; i < count; i++) {
        if ((change->given >> i & 1u) != 0) {
            opt_option_put(&table[i], &result.options,
                           opt_option_get(&table[i], &change->values.options));
        }
    }
    if (change->values.group_count > 0) {
        opt_spec_fini(&result);
        status = merge_groups(spec, &change->values, &result, error);
    }
    opt_compose_drop_inactive(&result, change->given);
    if (status == OPT_OK) {
        status = opt_spec_check(&result, error);
    }
    if (status == OPT_OK) {
        opt_spec_fini(spec);
        *spec = result;
    } else {
        opt_spec_fini(&result);
    }
    return status;
}

/* ------------------------------------------------------------------ fitting */

static void join(const char *const *names, size_t count, char *out, size_t capacity)
{
    size_t used = 0;

    snprintf(out, capacity, "none");
    for (size_t i = 0; i < count && used < capacity; i++) {
        used += (size_t)snprintf(out + used, capacity - used, "%s%s", i > 0 ? ", " : "",
                                 names[i]);
    }
}

static enum opt_status check_slots(const struct opt_spec *before,
                                   const struct opt_spec *after,
                                   struct opt_error *error)
{
    const char *has[OPT_SLOTS_MAX], *needs[OPT_SLOTS_MAX];
    size_t has_count = opt_spec_slots(before, has);
    size_t needs_count = opt_spec_slots(after, needs);
    bool same = has_count == needs_count;

    for (size_t i = 0; same && i < has_count; i++) {
        same = strcmp(has[i], needs[i]) == 0;
    }
    if (same) {
        return OPT_OK;
    }
    char has_text[160], needs_text[160];
    join(has, has_count, has_text, sizeof has_text);
    join(needs, needs_count, needs_text, sizeof needs_text);
    return opt_fail_as(
        error, OPT_FAILED_PRECONDITION, OPT_DETAIL_UNFIT,
        "the model has the slots %s, and the change would need %s; create "
        "another model for that",
        has_text, needs_text);
}

enum opt_status opt_change_fits(const struct opt_spec *before,
                                const struct opt_spec *after, struct opt_error *error)
{
    /* What the slots hold, or started from, depends on these. */
    static const char *const fixed[] = { "momentum_form", "initial_accumulator",
                                         "max_of", "nadam_form" };
    enum opt_status status = check_slots(before, after, error);

    for (size_t i = 0; status == OPT_OK && i < sizeof fixed / sizeof fixed[0]; i++) {
        const struct opt_option *option = opt_option_find(fixed[i], strlen(fixed[i]));
        if (opt_option_get(option, &before->options) !=
            opt_option_get(option, &after->options)) {
            return opt_fail_as(error, OPT_FAILED_PRECONDITION, OPT_DETAIL_UNFIT,
                               "%s of a model that runs cannot change: its slots hold "
                               "what the present one made",
                               option->name);
        }
    }
    if (status == OPT_OK &&
        opt_view_train_differs(before) != opt_view_train_differs(after)) {
        return opt_fail_as(error, OPT_FAILED_PRECONDITION, OPT_DETAIL_UNFIT,
                           "nesterov_form of a model that runs cannot change, nor its "
                           "momentum become or cease to be 0: its workers would take "
                           "gradients at another point");
    }
    return status;
}
