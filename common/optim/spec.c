/* spec — setting and checking specifications; see spec.h. What is common to reading
 * them is in compose.c, the grammar of expressions in expression.c, the canonical form
 * in canonical.c. Any thread.
 */
#include "common/optim/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/compose.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

enum { RANGE_TEXT = 200 };

struct rule_options {
    const struct opt_option *table;
    const struct opt_rule *rule;
};

static const char *option_of_rule(size_t i, const void *context)
{
    const struct rule_options *options = context;

    return opt_option_applies(&options->table[i], options->rule)
               ? options->table[i].name
               : NULL;
}

/* " are rmsprop, adadelta": who has what another rule has not; "" if nobody does. */
static void list_rules_with(const char *name, size_t size, char *out, size_t capacity)
{
    size_t count, used = 0;
    const struct opt_rule *const *rules = opt_rules(&count);
    const struct opt_option *option = opt_option_find(name, size);

    for (size_t i = 0; option != NULL && i < count && used < capacity; i++) {
        if (opt_option_applies(option, rules[i])) {
            used += (size_t)snprintf(out + used, capacity - used, "%s%s",
                                     used > 0 ? ", " : " are ", rules[i]->name);
        }
    }
}

enum opt_status opt_option_unknown(const char *name, size_t size,
                                   const struct opt_rule *rule, struct opt_error *error)
{
    size_t count, used = 0;
    struct rule_options options = { opt_options_table(&count), rule };
    int shown = size > 40 ? 40 : (int)size;
    char own[RANGE_TEXT] = "", others[RANGE_TEXT] = "";

    char copy[64];
    snprintf(copy, sizeof copy, "%.*s", shown, name);
    if (opt_term_find(copy) != NULL && opt_option_find(name, size) == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "'%s' is no option but a term: write %s + %s(...)", copy,
                        rule->name, copy);
    }
    const char *nearest = opt_nearest(name, size, count, option_of_rule, &options);
    if (opt_option_find(name, size) == NULL && nearest != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "unknown option '%.*s' of %s: did you mean '%s'?", shown, name,
                        rule->name, nearest);
    }
    for (const struct opt_rule_option *o = rule->options; o->name != NULL; o++) {
        if (used < sizeof own) {
            used += (size_t)snprintf(own + used, sizeof own - used, "%s%s",
                                     used > 0 ? ", " : "", o->name);
        }
    }
    list_rules_with(name, size, others, sizeof others);
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s has no option '%.*s': it has %s%s%s%s", rule->name, shown, name,
                    own, others[0] != '\0' ? "; those with " : "",
                    others[0] != '\0' ? opt_option_find(name, size)->name : "", others);
}

struct words {
    const char *const *words;
    unsigned offered;
};

static const char *word_at(size_t i, const void *context)
{
    const struct words *words = context;

    return (words->offered >> i & 1u) != 0 ? words->words[i] : NULL;
}

static enum opt_status set_word(struct opt_spec *spec, const struct opt_option *option,
                                const char *word, struct opt_error *error)
{
    struct words words = { option->words, opt_option_words(option, spec->rule) };
    char range[RANGE_TEXT];
    size_t count = 0;

    while (option->words[count] != NULL) {
        if ((words.offered >> count & 1u) != 0 &&
            strcmp(option->words[count], word) == 0) {
            opt_option_put(option, &spec->options, (double)count);
            return OPT_OK;
        }
        count++;
    }
    const char *nearest = opt_nearest(word, strlen(word), count, word_at, &words);
    opt_option_range(option, words.offered, range, sizeof range);
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s=%.40s is not one of %s%s%s%s",
                    option->name, word, range,
                    nearest != NULL ? "; did you mean '" : "",
                    nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}

static enum opt_status check_range(const struct opt_option *option, double value,
                                   struct opt_error *error)
{
    char range[RANGE_TEXT];
    bool whole = option->kind != OPT_KIND_COUNT || value == floor(value);

    /* Written so that NaN is outside. */
    if (whole && (option->low_open ? value > option->low : value >= option->low) &&
        (option->high_open ? value < option->high : value <= option->high)) {
        return OPT_OK;
    }
    opt_option_range(option, 0, range, sizeof range);
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s=%g is out of range: it must be %s%s", option->name, value,
                    option->kind == OPT_KIND_COUNT ? "" : "in ", range);
}

static enum opt_status wrong_kind(const struct opt_option *option,
                                  const struct opt_wire_option *value,
                                  struct opt_error *error)
{
    char range[RANGE_TEXT];

    opt_option_range(option, ~0u, range, sizeof range);
    if (option->kind == OPT_KIND_NUMBER || option->kind == OPT_KIND_COUNT) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s must be %s%s, not '%.40s'",
                        option->name,
                        option->kind == OPT_KIND_COUNT ? "" : "a number in ", range,
                        value->kind == OPT_VALUE_WORD ? value->word
                        : value->flag                 ? "true"
                                                      : "false");
    }
    if (value->kind == OPT_VALUE_NUMBER) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s must be one of %s, not the number %g", option->name, range,
                        value->number);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s must be one of %s, not '%.40s'",
                    option->name, range,
                    value->kind == OPT_VALUE_WORD ? value->word
                    : value->flag                 ? "true"
                                                  : "false");
}

enum opt_status opt_option_set(struct opt_spec *spec, const struct opt_option *option,
                               const struct opt_wire_option *value,
                               struct opt_error *error)
{
    enum opt_status status;

    if (!opt_option_applies(option, spec->rule)) {
        return opt_option_unknown(option->name, strlen(option->name), spec->rule,
                                  error);
    }
    if (option->kind == OPT_KIND_WORD && value->kind == OPT_VALUE_WORD) {
        return set_word(spec, option, value->word, error);
    }
    if (option->kind == OPT_KIND_FLAG && value->kind == OPT_VALUE_FLAG) {
        opt_option_put(option, &spec->options, value->flag ? 1.0 : 0.0);
        return OPT_OK;
    }
    if (option->words != NULL || value->kind != OPT_VALUE_NUMBER) {
        return wrong_kind(option, value, error);
    }
    status = check_range(option, value->number, error);
    if (status == OPT_OK) {
        /* + 0.0 makes -0 the 0 that it prints as. */
        opt_option_put(option, &spec->options, value->number + 0.0);
    }
    return status;
}

/* ------------------------------------------------------------------ groups */

static enum opt_status set_group_number(const char *name, bool *has, double *place,
                                        const struct opt_wire_option *value,
                                        struct opt_error *error)
{
    if (*has) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s is given twice for one group",
                        name);
    }
    if (value->kind != OPT_VALUE_NUMBER || !(value->number >= 0.0) ||
        value->number > 1e30) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s of a group must be a number in [0, 1e+30]", name);
    }
    *has = true;
    *place = value->number + 0.0;
    return OPT_OK;
}

/* An option that can only be one word. */
static enum opt_status set_group_word(const char *name, const char *word, bool *place,
                                      const struct opt_wire_option *value,
                                      struct opt_error *error)
{
    if (*place) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s is given twice for one group",
                        name);
    }
    if (value->kind != OPT_VALUE_WORD || strcmp(value->word, word) != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s of a group can only be %s",
                        name, word);
    }
    *place = true;
    return OPT_OK;
}

static const char *group_option(size_t i, const void *unused)
{
    static const char *const names[] = { "weight_decay", "lr_scale", "layerwise",
                                         "missing" };

    (void)unused;
    return names[i];
}

enum opt_status opt_group_set(struct opt_group *group,
                              const struct opt_wire_option *value,
                              struct opt_error *error)
{
    const char *name = value->name;

    if (strcmp(name, "weight_decay") == 0) {
        return set_group_number(name, &group->has_weight_decay, &group->weight_decay,
                                value, error);
    }
    if (strcmp(name, "lr_scale") == 0) {
        return set_group_number(name, &group->has_lr_scale, &group->lr_scale, value,
                                error);
    }
    if (strcmp(name, "layerwise") == 0) {
        return set_group_word(name, "none", &group->layerwise_none, value, error);
    }
    if (strcmp(name, "missing") == 0) {
        return set_group_word(name, "ok", &group->may_miss, value, error);
    }
    const char *nearest = opt_nearest(name, strlen(name), 4, group_option, NULL);
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "a group of tensors has no option '%.40s': it has weight_decay, "
                    "lr_scale, layerwise and missing%s%s%s",
                    name, nearest != NULL ? "; did you mean '" : "",
                    nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}

enum opt_status opt_spec_group(struct opt_spec *spec, const struct opt_wire_group *wire,
                               struct opt_error *error)
{
    struct opt_group *group;
    enum opt_status status = opt_group_add(spec, wire->pattern, &group, error);

    for (size_t i = 0; status == OPT_OK && i < wire->option_count; i++) {
        status = opt_group_set(group, &wire->options[i], error);
    }
    return status;
}

/* ------------------------------------------------------------------ checks */

static enum opt_status check_active(const struct opt_spec *spec,
                                    struct opt_error *error)
{
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    for (size_t i = 0; i < count; i++) {
        const struct opt_option *option = &table[i];

        if (!opt_option_applies(option, spec->rule) ||
            opt_option_active(option, spec) ||
            opt_option_get(option, &spec->options) ==
                opt_option_default(option, spec->rule)) {
            continue;
        }
        unsigned words;
        const char *name = opt_option_needs(option, spec->rule, &words);
        const struct opt_option *needs = opt_option_find(name, strlen(name));
        char range[RANGE_TEXT] = "above 0";
        if (words != 0) {
            opt_option_range(needs, words, range, sizeof range);
        }
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s has no effect here: it needs %s to be %s%s", option->name,
                        needs->name, strchr(range, ',') != NULL ? "one of " : "",
                        range);
    }
    return OPT_OK;
}

enum opt_status opt_spec_check(const struct opt_spec *spec, struct opt_error *error)
{
    const struct opt_options *options = &spec->options;
    enum opt_status status = check_active(spec, error);

    if (status == OPT_OK && spec->rule->check != NULL) {
        status = spec->rule->check(options, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (options->layerwise == OPT_LAYERWISE_UPDATE && opt_rule_includes_lr(spec)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "layerwise=update needs a direction without the learning rate: "
                        "momentum_form=velocity includes it; give momentum_form=ema or "
                        "heavy_ball, or layerwise=gradient");
    }
    if (options->layerwise_phi == OPT_PHI_CLIP && options->phi_min > options->phi_max) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "phi_min=%g is above phi_max=%g",
                        options->phi_min, options->phi_max);
    }
    if (options->decay_lr == OPT_DECAY_SCHEDULE && options->lr == 0.0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "decay_lr=schedule needs lr above 0: the decay follows the "
                        "schedule's share of it");
    }
    for (size_t i = 0; i < spec->group_count; i++) {
        const struct opt_group *group = &spec->groups[i];
        if (!group->has_weight_decay && !group->has_lr_scale &&
            !group->layerwise_none) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "the group \"%.100s\" sets nothing: give weight_decay, "
                            "lr_scale or layerwise=none",
                            group->pattern);
        }
    }
    size_t length = opt_spec_print(spec, NULL, 0);
    if (length > OPT_EXPRESSION_BYTES) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the specification takes %zu bytes as an expression; %d are "
                        "allowed",
                        length, (int)OPT_EXPRESSION_BYTES);
    }
    return OPT_OK;
}

enum opt_status opt_spec_check_sparse(const struct opt_spec *spec, const char *tensor,
                                      const struct opt_tensor_options *options,
                                      struct opt_error *error)
{
    if (!spec->rule->lazy) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "tensor \"%.100s\" is sparse, but rule %s must move all rows "
                        "in every update; make the tensor dense or choose another rule",
                        tensor, spec->rule->name);
    }
    if (spec->options.lookahead_k > 0.0) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "tensor \"%.100s\" is sparse, but lookahead_k=%g moves all rows "
            "at a time; sparse tensors need lookahead_k=0",
            tensor, spec->options.lookahead_k);
    }
    if (options->layerwise) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "tensor \"%.100s\" is sparse, but layerwise needs the norm of "
                        "all its rows; give tensors(\"%.100s\", layerwise=none)",
                        tensor, tensor);
    }
    return OPT_OK;
}

/* ------------------------------------------------------------------ slots */

size_t opt_spec_slots(const struct opt_spec *spec, const char *names[OPT_SLOTS_MAX])
{
    size_t count = 0;

    for (const struct opt_slot *slot = spec->rule->slots; slot->name != NULL; slot++) {
        if (slot->wanted == NULL || slot->wanted(&spec->options)) {
            names[count++] = slot->name;
        }
    }
    if (spec->options.lookahead_k > 0.0) {
        names[count++] = "slow_param";
        if (opt_lookahead_pulls_back(spec)) {
            names[count++] = "slow_momentum";
        }
    }
    return count;
}

float opt_spec_slot_start(const struct opt_spec *spec, size_t slot,
                          bool *copy_of_weights)
{
    size_t count = 0;

    *copy_of_weights = false;
    for (const struct opt_slot *s = spec->rule->slots; s->name != NULL; s++) {
        if (s->wanted != NULL && !s->wanted(&spec->options)) {
            continue;
        }
        if (count++ == slot) {
            return s->start != NULL ? (float)s->start(&spec->options) : 0.0f;
        }
    }
    *copy_of_weights = slot == count && spec->options.lookahead_k > 0.0;
    return 0.0f;
}

int opt_lookahead_moment_slot(const struct opt_spec *spec)
{
    int position = 0;

    for (const struct opt_slot *slot = spec->rule->slots; slot->name != NULL; slot++) {
        if (slot->wanted != NULL && !slot->wanted(&spec->options)) {
            continue;
        }
        if (slot->first_moment) {
            return position;
        }
        position++;
    }
    return -1;
}

bool opt_lookahead_pulls_back(const struct opt_spec *spec)
{
    return spec->options.lookahead_momentum == OPT_PULLBACK &&
           opt_lookahead_moment_slot(spec) >= 0;
}
