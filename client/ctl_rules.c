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
    const char *does;
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
        line->does = option->does;
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
                            json_pack("{s:s, s:s, s:s}", "default", lines[i].value,
                                      "range", lines[i].range, "does", lines[i].does));
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
           rule->source, slots, "OPTION", "DEFAULT", "RANGE, AND WHAT IT DOES");
    for (size_t i = 0; i < n; i++) {
        printf("  %-20s %-14s %s\n  %-35s %s\n", lines[i].name, lines[i].value,
               lines[i].range, "", lines[i].does);
    }
    free(lines);
    return true;
}

static bool print_all(void)
{
    size_t rules, presets, profiles;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    const struct opt_profile *profile = opt_profiles(&profiles);
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
    printf("\n%-12s %s\n", "PROFILE", "OF");
    for (size_t i = 0; i < profiles; i++) {
        printf("%-12s %s\n", profile[i].name, profile[i].source);
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

/* A preset, or a row of a profile: a name for an expression. */
static bool print_named(const char *name, const char *expression, const char *note,
                        bool json)
{
    if (json) {
        return ctl_print_json(json_pack("{s:s, s:s?, s:s?}", "name", name, "expression",
                                        expression, "note", note));
    }
    if (expression == NULL) {
        printf("%s is not offered: %s\n", name, note);
    } else {
        printf("%s is %s%s%s\n", name, expression, note == NULL ? "" : "; ",
               note == NULL ? "" : note);
    }
    return true;
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
    const struct opt_preset *preset = opt_preset_find(name);
    if (preset != NULL) {
        return print_named(name, preset->expression, NULL, json);
    }
    const struct opt_profile_row *row = opt_profile_row_find(name);
    *found = row != NULL;
    return row == NULL || print_named(name, row->expression, row->note, json);
}

static void print_row(const struct opt_profile_row *row)
{
    if (row->expression == NULL) {
        printf("%-18s %-16s not offered: %s\n", row->name, row->theirs, row->note);
        return;
    }
    printf("%-18s %-16s %s\n", row->name, row->theirs, row->expression);
    if (row->note != NULL) {
        printf("%-35s %s\n", "", row->note);
    }
}

bool ctl_print_profile(const char *profile, bool json, bool *found)
{
    size_t count;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    json_t *all = json ? json_array() : NULL;
    *found = false;
    for (size_t i = 0; i < count; i++) {
        if (!opt_profile_row_of(&rows[i], profile)) {
            continue;
        }
        if (!json && !*found) {
            printf("%-18s %-16s %s\n", "NAME", "THEIRS", "IS");
        }
        *found = true;
        if (json) {
            json_array_append_new(all, json_pack("{s:s, s:s, s:s?, s:s?}", "name",
                                                 rows[i].name, "theirs", rows[i].theirs,
                                                 "expression", rows[i].expression,
                                                 "note", rows[i].note));
        } else {
            print_row(&rows[i]);
        }
    }
    if (!json || !*found) {
        json_decref(all);
        return true;
    }
    return ctl_print_json(all);
}
