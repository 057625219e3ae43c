/* tables — the registry of rules, options and terms as the tables of docs/optimizers.md
 * and the manual.
 *
 *     tables [--check] FILE...
 *
 * A file has its tables between two comments, of which the first says which it is:
 *
 *     <!-- table: rules -->  ...  <!-- end of table -->       in Markdown
 *     .\" table: rules       ...  .\" end of table            in a manual (*.7)
 *
 * What stands between them is written anew, or with --check only compared. `make
 * tables` and a test run it. Exits with 0, with 1 if a file cannot be read or written
 * or, with
 * --check, has other tables, and with 64 if it was called wrongly.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"

enum { TEXT = 400, EXIT_FAILED = 1, EXIT_WRONG = 64 };

/* ---------------------------------------------------------------- what both say */

/* "clip(mode, max)", "cosine(steps, end=0)": what has to be given, the rest with its
 * default. */
static void signature(const struct opt_term *term, char out[TEXT])
{
    size_t used = (size_t)snprintf(out, TEXT, "%s(", term->name);
    for (size_t i = 0; i < OPT_TERM_OPTIONS && term->options[i].option != NULL; i++) {
        const char *name = term->options[i].option;
        const struct opt_option *option = opt_option_find(name, strlen(name));
        char value[TEXT];
        bool selected = term->selects != NULL && strcmp(term->selects, name) == 0;
        opt_option_print(option, selected ? term->word : option->value, value, TEXT);
        used += (size_t)snprintf(out + used, TEXT - used, "%s%s%s%s", i > 0 ? ", " : "",
                                 term->options[i].key, i < term->required ? "" : "=",
                                 i < term->required ? "" : value);
    }
    snprintf(out + used, TEXT - used, ")");
}

/* The words that a term's options may be: "mode: coupled, decoupled, update". */
static void choices(const struct opt_term *term, char out[TEXT])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < OPT_TERM_OPTIONS && term->options[i].option != NULL; i++) {
        const char *name = term->options[i].option;
        const struct opt_option *option = opt_option_find(name, strlen(name));
        char words[TEXT];
        if (option->words != NULL) {
            opt_option_range(option, ~0u, words, TEXT);
            used += (size_t)snprintf(out + used, TEXT - used, "%s%s: %s",
                                     used > 0 ? "; " : "", term->options[i].key, words);
        }
    }
}

/* Names separated by commas, those that not every specification wants in brackets. */
static void slots_of(const struct opt_rule *rule, const char *quote, char out[TEXT])
{
    size_t used = 0;
    out[0] = '\0';
    for (const struct opt_slot *slot = rule->slots; slot->name != NULL; slot++) {
        bool always = slot->wanted == NULL;
        used += (size_t)snprintf(out + used, TEXT - used, "%s%s%s%s%s%s",
                                 used > 0 ? ", " : "", always ? "" : "[", quote,
                                 slot->name, quote, always ? "" : "]");
    }
}

/* ---------------------------------------------------------------- Markdown */

static void md_rules(FILE *out)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    fputs("| rule | state, 4 bytes a parameter each | source |\n|---|---|---|\n", out);
    for (size_t i = 0; i < count; i++) {
        char slots[TEXT];
        slots_of(rules[i], "`", slots);
        fprintf(out, "| `%s` | %s%s| %s |\n", rules[i]->name, slots,
                slots[0] != '\0' ? " " : "", rules[i]->source);
    }
}

static void md_presets(FILE *out)
{
    size_t count;
    const struct opt_preset *presets = opt_presets(&count);
    fputs("| preset | is |\n|---|---|\n", out);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "| `%s` | `%s` |\n", presets[i].name, presets[i].expression);
    }
}

static void md_terms(FILE *out)
{
    size_t count;
    const struct opt_term *terms = opt_terms(&count);
    fputs("| wrapper | choices | does |\n|---|---|---|\n", out);
    for (size_t i = 0; i < count; i++) {
        char text[TEXT];
        signature(&terms[i], text);
        fprintf(out, "| `%s` | ", text);
        choices(&terms[i], text);
        fprintf(out, "%s%s| %s |\n", text, text[0] != '\0' ? " " : "", terms[i].does);
    }
    fputs(
        "| `tensors(\"PATTERN\", weight_decay, lr_scale, layerwise=none, missing=ok)` "
        "| | other values for some tensors; the first match wins; a pattern that "
        "matches nothing is refused unless it says `missing=ok` |\n",
        out);
}

static void md_profiles(FILE *out)
{
    size_t count, row_count;
    const struct opt_profile *profiles = opt_profiles(&count);
    const struct opt_profile_row *rows = opt_profile_rows(&row_count);
    fputs("| profile | compared with | has |\n|---|---|---|\n", out);
    for (size_t i = 0; i < count; i++) {
        const char *separator = "";
        fprintf(out, "| `%s` | %s | ", profiles[i].name, profiles[i].source);
        for (size_t k = 0; k < row_count; k++) {
            if (opt_profile_row_of(&rows[k], profiles[i].name) &&
                rows[k].expression != NULL) {
                fprintf(out, "%s`%s`", separator, strchr(rows[k].name, '.') + 1);
                separator = ", ";
            }
        }
        fputs(" |\n", out);
    }
}

/* ---------------------------------------------------------------- manual */

/* Words in the line of a macro: as one argument that no macro is found in. */
static void put_argument(FILE *out, const char *text)
{
    fputs("\"\\&", out);
    for (; *text != '\0'; text++) {
        fputs(*text == '"'    ? "\"\""
              : *text == '\\' ? "\\e"
                              : (char[]){ *text, '\0' },
              out);
    }
    fputc('"', out);
}

static void man_rule(FILE *out, const struct opt_rule *rule)
{
    char slots[TEXT];
    slots_of(rule, "", slots);
    fprintf(out, ".It Cm %s\n%s.\n", rule->name, rule->source);
    fprintf(out, "Slots: %s.\n", slots[0] != '\0' ? slots : "none");
    fputs(".Bl -column \"initial_accumulator\" \"reformulated\" -compact\n", out);
    for (const struct opt_rule_option *own = rule->options; own->name != NULL; own++) {
        const struct opt_option *option = opt_option_find(own->name, strlen(own->name));
        char value[TEXT], range[TEXT];
        opt_option_print(option, own->value, value, TEXT);
        opt_option_range(option, opt_option_words(option, rule), range, TEXT);
        fprintf(out, ".It Cm %s Ta ", own->name);
        put_argument(out, value);
        fputs(" Ta ", out);
        put_argument(out, range);
        fputc('\n', out);
    }
    fputs(".El\n", out);
}

static void man_rules(FILE *out)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    fputs(".Bl -tag -width Ds\n", out);
    for (size_t i = 0; i < count; i++) {
        man_rule(out, rules[i]);
    }
    fputs(".El\n", out);
}

static void man_options(FILE *out)
{
    size_t count;
    const struct opt_option *options = opt_options_table(&count);
    fputs(".Bl -tag -width Ds\n", out);
    for (size_t i = 0; i < count; i++) {
        const struct opt_option *option = &options[i];
        char value[TEXT], range[TEXT];
        opt_option_print(option, option->value, value, TEXT);
        opt_option_range(option, ~0u, range, TEXT);
        fprintf(out, ".It Cm %s\n%s; %s", option->name, option->does,
                option->words != NULL ? "one of " : "");
        fprintf(out, "%s", range);
        if (!option->of_rules) {
            fprintf(out, ", unless given %s", value);
        }
        fputs(".\n", out);
        if (option->needs != NULL) {
            const struct opt_option *needs =
                opt_option_find(option->needs, strlen(option->needs));
            char words[TEXT] = "above 0";
            if (option->needs_words != 0) {
                opt_option_range(needs, option->needs_words, words, TEXT);
            }
            fprintf(out, "It needs\n.Cm %s\nto be %s%s.\n", needs->name,
                    strchr(words, ',') != NULL ? "one of " : "", words);
        }
    }
    fputs(".El\n", out);
}

static void man_terms(FILE *out)
{
    size_t count;
    const struct opt_term *terms = opt_terms(&count);
    fputs(".Bl -tag -width Ds\n", out);
    for (size_t i = 0; i < count; i++) {
        char text[TEXT];
        signature(&terms[i], text);
        fputs(".It Li ", out);
        put_argument(out, text);
        fprintf(out, "\n%s.\n", terms[i].does);
        for (size_t k = 0; k < OPT_TERM_OPTIONS && terms[i].options[k].option != NULL;
             k++) {
            if (strcmp(terms[i].options[k].key, terms[i].options[k].option) != 0) {
                fprintf(out, ".Cm %s\nis\n.Cm %s .\n", terms[i].options[k].key,
                        terms[i].options[k].option);
            }
        }
    }
    fputs(".El\n", out);
}

static void man_presets(FILE *out)
{
    size_t count;
    const struct opt_preset *presets = opt_presets(&count);
    fputs(".Bl -tag -width Ds\n", out);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, ".It Cm %s\n.Li ", presets[i].name);
        put_argument(out, presets[i].expression);
        fputc('\n', out);
    }
    fputs(".El\n", out);
}

static void man_row(FILE *out, const struct opt_profile_row *row)
{
    fprintf(out, ".It Cm %s\nFor\n.Li ", row->name);
    put_argument(out, row->theirs);
    if (row->expression == NULL) {
        fprintf(out, " :\nnot offered: %s.\n", row->note);
        return;
    }
    fputs(" :\n.Li ", out);
    put_argument(out, row->expression);
    fputs(" .\n", out);
    if (row->note != NULL) {
        fprintf(out, "Note: %s.\n", row->note);
    }
}

static void man_profiles(FILE *out)
{
    size_t count, row_count;
    const struct opt_profile *profiles = opt_profiles(&count);
    const struct opt_profile_row *rows = opt_profile_rows(&row_count);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, ".Ss %s: %s\n.Bl -tag -width Ds\n", profiles[i].name,
                profiles[i].source);
        for (size_t k = 0; k < row_count; k++) {
            if (opt_profile_row_of(&rows[k], profiles[i].name)) {
                man_row(out, &rows[k]);
            }
        }
        fputs(".El\n", out);
    }
}

/* ---------------------------------------------------------------- files */

static const struct table {
    const char *begin; /* the whole line */
    void (*write)(FILE *out);
} tables[] = {
    { "<!-- table: rules -->\n", md_rules },
    { "<!-- table: presets -->\n", md_presets },
    { "<!-- table: wrappers -->\n", md_terms },
    { "<!-- table: profiles -->\n", md_profiles },
    { ".\\\" table: rules\n", man_rules },
    { ".\\\" table: options\n", man_options },
    { ".\\\" table: wrappers\n", man_terms },
    { ".\\\" table: presets\n", man_presets },
    { ".\\\" table: profiles\n", man_profiles },
};

static bool is_end(const char *line)
{
    return strcmp(line, "<!-- end of table -->\n") == 0 ||
           strcmp(line, ".\\\" end of table\n") == 0;
}

static const struct table *find_table(const char *line)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (strcmp(tables[i].begin, line) == 0) {
            return &tables[i];
        }
    }
    return NULL;
}

/* Copy the file as it is to old, and with its tables written anew to new. False if a
 * table has no end, or there is none. */
static bool copy(FILE *file, FILE *old, FILE *new)
{
    char *line = NULL;
    size_t capacity = 0, found = 0;
    bool inside = false;
    while (getline(&line, &capacity, file) > 0) {
        const struct table *table = inside ? NULL : find_table(line);
        fputs(line, old);
        if (inside && is_end(line)) {
            inside = false;
        }
        if (!inside) {
            fputs(line, new);
        }
        if (table != NULL) {
            table->write(new);
            inside = true;
            found++;
        }
    }
    free(line);
    return !inside && found > 0;
}

static bool save(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return false;
    }
    bool well = fputs(text, file) >= 0;
    return fclose(file) == 0 && well;
}

static bool treat(const char *path, bool check)
{
    char *old_text = NULL, *new_text = NULL;
    size_t old_size, new_size;
    FILE *file = fopen(path, "r"), *old = open_memstream(&old_text, &old_size),
         *new = open_memstream(&new_text, &new_size);
    bool well = file != NULL && old != NULL && new != NULL &&copy(file, old, new);
    if (file != NULL) {
        fclose(file);
    }
    well = old != NULL && fclose(old) == 0 && well;
    well = new != NULL &&fclose(new) == 0 && well;
    if (!well) {
        fprintf(stderr, "tables: %s cannot be read, or has no tables with an end\n",
                path);
    } else if (strcmp(old_text, new_text) != 0) {
        well = !check && save(path, new_text);
        if (!well) {
            fprintf(stderr, "tables: %s %s\n", path,
                    check ? "does not say what the registry says: make tables"
                          : "cannot be written");
        }
    }
    free(old_text);
    free(new_text);
    return well;
}

int main(int argc, char **argv)
{
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0, well = true;
    int first = check ? 2 : 1;
    if (first >= argc) {
        fputs("usage: tables [--check] FILE...\n", stderr);
        return EXIT_WRONG;
    }
    for (int i = first; i < argc; i++) {
        well = treat(argv[i], check) && well;
    }
    return well ? EXIT_SUCCESS : EXIT_FAILED;
}
