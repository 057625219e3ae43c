/* ctl_rules — the registry of rules and options in words; see ctl.h. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

enum { TEXT = 200 };

/* What there is to say of one option of a rule. */
struct line {
    const char *name;
    char value[TEXT], range[TEXT];
};

/* The rule's options, its own first; returns how many. */
static size_t lines_of(const struct opt_rule *rule, struct line *lines)
{
    size_t count, n = 0;
    const struct opt_option *table = opt_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct opt_option *option = &table[i];
        if (!opt_option_applies(option, rule)) {
            continue;
        }
        struct line *line = &lines[n++];
        line->name = option->name;
        opt_option_print(option, opt_option_default(option, rule), line->value, TEXT);
        opt_option_range(option, opt_option_words(option, rule), line->range, TEXT);
    }
    return n;
}

static void slots_of(const struct opt_rule *rule, char out[TEXT])
{
    size_t used = 0;
    snprintf(out, TEXT, "none");
    for (const struct opt_slot *slot = rule->slots; slot->name != NULL; slot++) {
        if (used < TEXT) {
            const char *format = slot->wanted == NULL ? "%s%s" : "%s[%s]";
            used += (size_t)snprintf(out + used, TEXT - used, format,
                                     used > 0 ? ", " : "", slot->name);
        }
    }
}

static json_t *json_rule(const struct opt_rule *rule)
{
    size_t count;
    char slots[TEXT];
    opt_options_table(&count);
    struct line *lines = malloc(count * sizeof(*lines));
    if (lines == NULL) {
        return NULL;
    }
    size_t n = lines_of(rule, lines);
    json_t *options = json_object();
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(options, lines[i].name,
                            json_pack("{s:s, s:s}", "default", lines[i].value, "range",
                                      lines[i].range));
    }
    free(lines);
    slots_of(rule, slots);
    return json_pack("{s:s, s:s, s:s, s:o}", "name", rule->name, "source", rule->source,
                     "slots", slots, "options", options);
}

static bool print_rule(const struct opt_rule *rule)
{
    size_t count;
    char slots[TEXT];
    opt_options_table(&count);
    struct line *lines = malloc(count * sizeof(*lines));
    if (lines == NULL) {
        return false;
    }
    size_t n = lines_of(rule, lines);
    slots_of(rule, slots);
    printf("%s\n  source  %s\n  slots   %s\n\n  %-20s %-14s %s\n", rule->name,
           rule->source, slots, "OPTION", "DEFAULT", "RANGE");
    for (size_t i = 0; i < n; i++) {
        printf("  %-20s %-14s %s\n", lines[i].name, lines[i].value, lines[i].range);
    }
    free(lines);
    return true;
}

static const struct opt_preset *find_preset(const char *name)
{
    size_t count;
    const struct opt_preset *presets = opt_presets(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}

static bool print_all(void)
{
    size_t rules, presets;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    printf("%-12s %-46s %s\n", "RULE", "SLOTS", "SOURCE");
    for (size_t i = 0; i < rules; i++) {
        char slots[TEXT];
        slots_of(rule[i], slots);
        printf("%-12s %-46s %s\n", rule[i]->name, slots, rule[i]->source);
    }
    printf("\n%-12s %s\n", "PRESET", "IS");
    for (size_t i = 0; i < presets; i++) {
        printf("%-12s %s\n", preset[i].name, preset[i].expression);
    }
    return true;
}

static json_t *json_all(void)
{
    size_t rules, presets;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    json_t *of_rules = json_array(), *of_presets = json_object();
    for (size_t i = 0; i < rules; i++) {
        json_array_append_new(of_rules, json_rule(rule[i]));
    }
    for (size_t i = 0; i < presets; i++) {
        json_object_set_new(of_presets, preset[i].name,
                            json_string(preset[i].expression));
    }
    return json_pack("{s:o, s:o}", "rules", of_rules, "presets", of_presets);
}

bool ctl_print_rules(const char *name, bool json, bool *found)
{
    *found = true;
    if (name == NULL) {
        return json ? ctl_print_json(json_all()) : print_all();
    }
    const struct opt_rule *rule = opt_rule_find(name);
    if (rule != NULL) {
        return json ? ctl_print_json(json_rule(rule)) : print_rule(rule);
    }
    const struct opt_preset *preset = find_preset(name);
    *found = preset != NULL;
    if (preset == NULL) {
        return true;
    }
    if (json) {
        return ctl_print_json(
            json_pack("{s:s, s:s}", "name", name, "expression", preset->expression));
    }
    printf("%s is %s\n", name, preset->expression);
    return true;
}
