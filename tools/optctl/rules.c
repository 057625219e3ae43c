/* rules — the registry of rules and options, for people and as JSON; see commands.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "tools/optctl/commands.h"

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

/* ---------------------------------------------------------------- JSON */

static json_t *json_number(double value)
{
    bool whole = value > -1e15 && value < 1e15 && value == (double)(json_int_t)value;
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *json_value(const struct opt_option *option, double value)
{
    switch (option->kind) {
    case OPT_KIND_FLAG:
        return json_boolean(value != 0);
    case OPT_KIND_WORD:
        return json_string(option->words[(int)value]);
    default:
        return json_number(value);
    }
}

static json_t *json_words(const struct opt_option *option, const struct opt_rule *rule)
{
    unsigned allowed = opt_option_words(option, rule);
    json_t *words = json_array();
    for (unsigned i = 0; option->words[i] != NULL; i++) {
        if ((allowed >> i & 1u) != 0) {
            json_array_append_new(words, json_string(option->words[i]));
        }
    }
    return words;
}

/* What an option may be, in the words of JSON Schema. */
static json_t *json_option(const struct opt_option *option, const struct opt_rule *rule)
{
    static const char *const types[] = { [OPT_KIND_NUMBER] = "number",
                                         [OPT_KIND_COUNT] = "integer",
                                         [OPT_KIND_WORD] = "string",
                                         [OPT_KIND_FLAG] = "boolean" };
    json_t *all = json_pack("{s:s, s:s, s:o}", "type", types[option->kind],
                            "description", option->does, "default",
                            json_value(option, opt_option_default(option, rule)));
    if (option->kind == OPT_KIND_WORD) {
        json_object_set_new(all, "enum", json_words(option, rule));
    } else if (option->kind != OPT_KIND_FLAG) {
        json_object_set_new(all, option->low_open ? "exclusiveMinimum" : "minimum",
                            json_number(option->low));
        json_object_set_new(all, option->high_open ? "exclusiveMaximum" : "maximum",
                            json_number(option->high));
    }
    return all;
}

static json_t *json_rule(const struct opt_rule *rule)
{
    size_t count;
    const struct opt_option *table = opt_options_table(&count);
    json_t *options = json_object(), *slots = json_array();
    for (size_t i = 0; i < count; i++) {
        if (opt_option_applies(&table[i], rule)) {
            json_object_set_new(options, table[i].name, json_option(&table[i], rule));
        }
    }
    for (const struct opt_slot *slot = rule->slots; slot->name != NULL; slot++) {
        json_array_append_new(slots, json_pack("{s:s, s:b}", "name", slot->name,
                                               "optional", slot->wanted != NULL));
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "name", rule->name, "source", rule->source,
                     "slots", slots, "options", options);
}

static json_t *json_all(void)
{
    size_t rules, presets, profiles;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    const struct opt_profile *profile = opt_profiles(&profiles);
    json_t *of_rules = json_array(), *of_presets = json_object(),
           *of_profiles = json_object();
    for (size_t i = 0; i < rules; i++) {
        json_array_append_new(of_rules, json_rule(rule[i]));
    }
    for (size_t i = 0; i < presets; i++) {
        json_object_set_new(of_presets, preset[i].name,
                            json_string(preset[i].expression));
    }
    for (size_t i = 0; i < profiles; i++) {
        json_object_set_new(of_profiles, profile[i].name,
                            json_string(profile[i].source));
    }
    return json_pack("{s:o, s:o, s:o}", "rules", of_rules, "presets", of_presets,
                     "profiles", of_profiles);
}

static json_t *json_row(const struct opt_profile_row *row)
{
    return json_pack("{s:s, s:s, s:s?, s:s?}", "name", row->name, "theirs", row->theirs,
                     "expression", row->expression, "note", row->note);
}

static json_t *json_profile(const char *profile)
{
    size_t count;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++) {
        if (opt_profile_row_of(&rows[i], profile)) {
            json_array_append_new(all, json_row(&rows[i]));
        }
    }
    return all;
}

/* ---------------------------------------------------------------- people */

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

static void print_all(void)
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
}

/* A preset, or a row of a profile: a name for an expression. */
static void print_named(const char *name, const char *expression, const char *note)
{
    if (expression == NULL) {
        printf("%s is not offered: %s\n", name, note);
    } else {
        printf("%s is %s%s%s\n", name, expression, note == NULL ? "" : "; ",
               note == NULL ? "" : note);
    }
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

static void print_profile(const char *profile)
{
    size_t count;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    printf("%-18s %-16s %s\n", "NAME", "THEIRS", "IS");
    for (size_t i = 0; i < count; i++) {
        if (opt_profile_row_of(&rows[i], profile)) {
            print_row(&rows[i]);
        }
    }
}

/* ---------------------------------------------------------------- the command */

static bool profile_known(const char *name)
{
    size_t count;
    const struct opt_profile *profiles = opt_profiles(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(profiles[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static int tell_profile(struct ctl *ctl, const char *name)
{
    if (ctl->count > 0) {
        return ctl_wrong(ctl, "rules takes one name, or --profile with one");
    }
    if (!profile_known(name)) {
        return ctl_wrong(ctl, "there is no profile '%s'; `optctl rules` lists them",
                         name);
    }
    if (ctl->json) {
        return ctl_answer(ctl, json_profile(name));
    }
    print_profile(name);
    return ctl_done(ctl);
}

static int tell_name(const struct ctl *ctl, const char *name)
{
    const struct opt_rule *rule = opt_rule_find(name);
    const struct opt_preset *preset = opt_preset_find(name);
    const struct opt_profile_row *row = opt_profile_row_find(name);
    if (rule == NULL && preset == NULL && row == NULL) {
        return ctl_wrong(
            ctl, "there is no rule or preset '%s'; `optctl rules` lists them", name);
    }
    if (ctl->json) {
        return ctl_answer(ctl, rule != NULL ? json_rule(rule)
                               : preset != NULL
                                   ? json_pack("{s:s, s:s}", "name", name, "expression",
                                               preset->expression)
                                   : json_row(row));
    }
    if (rule != NULL && !print_rule(rule)) {
        return ctl_answer(ctl, NULL);
    }
    if (rule == NULL) {
        print_named(name, preset != NULL ? preset->expression : row->expression,
                    preset != NULL ? NULL : row->note);
    }
    return ctl_done(ctl);
}

int run_rules(struct ctl *ctl)
{
    const char *profile = ctl_value(ctl, "profile");
    if (profile != NULL) {
        return tell_profile(ctl, profile);
    }
    if (ctl->count > 0) {
        return tell_name(ctl, ctl->arguments[0]);
    }
    if (ctl->json) {
        return ctl_answer(ctl, json_all());
    }
    print_all();
    return ctl_done(ctl);
}
