/* expression — the grammar of specifications.
 *
 *     expression = optimizer { "+" term }
 *     optimizer  = RULE-OR-PRESET [ "(" [ NAME "=" VALUE { "," ... } ] ")" ]
 *     term       = TERM [ "(" [ argument { "," argument } ] ")" ]
 *     argument   = VALUE | NAME "=" VALUE
 *     term       = "tensors" "(" STRING { "," NAME "=" VALUE } ")"
 *     change     = part { "," part }
 *     part       = NAME "=" VALUE | term
 *
 * Terms and what they may contain are a table (options.c). One pass, no recursion but
 * for a preset, which stands for an expression with a rule, no memory beyond the
 * result; errors name the place by its character. Any thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/compose.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

enum { WORD_BYTES = 64 };

struct parser {
    const char *text, *at;
    struct opt_composition *composition;
    struct opt_error *error;
};

/* The sentence, with the place. */
static enum opt_status fail_at(struct parser *p, const char *place, const char *format,
                               ...) __attribute__((format(printf, 3, 4)));
static enum opt_status fail_at(struct parser *p, const char *place, const char *format,
                               ...)
{
    char sentence[OPT_ERROR_TEXT];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return opt_fail(p->error, OPT_INVALID_ARGUMENT, "at character %zu: %.400s",
                    (size_t)(place - p->text) + 1, sentence);
}

/* Add the place to a sentence that somebody else has written. */
static enum opt_status located(struct parser *p, const char *place,
                               const struct opt_error *error)
{
    return fail_at(p, place, "%.400s", error->text);
}

static void skip_space(struct parser *p)
{
    p->at += strspn(p->at, " \t\r\n");
}

static bool take(struct parser *p, char c)
{
    skip_space(p);
    if (*p->at != c) {
        return false;
    }
    p->at++;
    return true;
}

static enum opt_status expected(struct parser *p, const char *what)
{
    skip_space(p);
    size_t size = strcspn(p->at, " \t\r\n,()+=\"");
    if (*p->at == '\0') {
        return fail_at(p, p->at, "expected %s, but the text ends", what);
    }
    return fail_at(p, p->at, "expected %s, not '%.*s'", what,
                   size == 0   ? 1
                   : size > 40 ? 40
                               : (int)size,
                   p->at);
}

/* A name or a bare value: everything up to the next delimiter. A + belongs to a number
 * after its exponent's e, or in front. */
static enum opt_status take_word(struct parser *p, const char *what,
                                 char out[WORD_BYTES])
{
    skip_space(p);
    const char *start = p->at;
    bool number = *start != '\0' && strchr("+-.0123456789", *start) != NULL;
    const char *end = start + (number && *start == '+' ? 1 : 0);

    for (;;) {
        end += strcspn(end, " \t\r\n,()+=\"");
        if (!number || *end != '+' || end == start ||
            (end[-1] != 'e' && end[-1] != 'E')) {
            break;
        }
        end++;
    }
    size_t size = (size_t)(end - start);
    if (size == 0 || (size == 1 && *start == '+')) {
        return expected(p, what);
    }
    if (size >= WORD_BYTES) {
        return fail_at(p, start, "'%.40s...' is too long for %s", start, what);
    }
    memcpy(out, start, size);
    out[size] = '\0';
    p->at = end;
    return OPT_OK;
}

/* One argument: [NAME =] VALUE. name is "" if there is none. A value of the optimizer's
 * that another library has need not be one here, such as a pair. */
static enum opt_status take_argument(struct parser *p, bool of_optimizer,
                                     char name[WORD_BYTES], char word[WORD_BYTES],
                                     const char **place, struct opt_wire_option *value)
{
    struct opt_error error;
    enum opt_status status;

    skip_space(p);
    *place = p->at;
    name[0] = '\0';
    status = take_word(p, "a name or a value", word);
    if (status == OPT_OK && take(p, '=')) {
        memcpy(name, word, WORD_BYTES);
        if (of_optimizer &&
            opt_compose_theirs(p->composition, name, &error) != OPT_OK) {
            return located(p, *place, &error);
        }
        status = take_word(p, "a value", word);
    }
    *value = (struct opt_wire_option){ .name = name };
    if (status == OPT_OK && opt_compose_value(word, value, &error) != OPT_OK) {
        return located(p, *place, &error);
    }
    return status;
}

static bool take_separator(struct parser *p, bool first, enum opt_status *status)
{
    *status = OPT_OK;
    if (take(p, ')')) {
        return false;
    }
    if (!first && !take(p, ',')) {
        *status = expected(p, "',' or ')'");
        return false;
    }
    return true;
}

static enum opt_status parse_optimizer(struct parser *p)
{
    char name[WORD_BYTES], word[WORD_BYTES];
    struct opt_wire_option value;
    struct opt_error error;
    const char *place;
    enum opt_status status;

    skip_space(p);
    place = p->at;
    status = take_word(p, "an optimizer", word);
    if (status != OPT_OK) {
        return status;
    }
    if (opt_term_find(word) != NULL || strcmp(word, "tensors") == 0) {
        return fail_at(p, place,
                       "'%s' is a term, which follows an optimizer: write "
                       "adam + %s(...)",
                       word, word);
    }
    if (opt_compose_begin(p->composition, word, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    if (!take(p, '(')) {
        return OPT_OK;
    }
    for (bool first = true; take_separator(p, first, &status); first = false) {
        status = take_argument(p, true, name, word, &place, &value);
        if (status != OPT_OK) {
            return status;
        }
        if (name[0] == '\0' && opt_option_find(word, strlen(word)) != NULL) {
            return fail_at(p, place, "%s needs a value: write %s=...", word, word);
        }
        if (name[0] == '\0') {
            return fail_at(p, place, "'%s' needs a name: write lr=%s", word, word);
        }
        if (opt_compose_option(p->composition, &value, &error) != OPT_OK) {
            return located(p, place, &error);
        }
    }
    return status;
}

static enum opt_status parse_arguments(struct parser *p, struct opt_term_use *use)
{
    char name[WORD_BYTES], word[WORD_BYTES];
    struct opt_wire_option value;
    struct opt_error error;
    const char *place;
    enum opt_status status;

    for (bool first = true; take_separator(p, first, &status); first = false) {
        status = take_argument(p, false, name, word, &place, &value);
        if (status != OPT_OK) {
            return status;
        }
        if (opt_compose_argument(p->composition, use, &value, &error) != OPT_OK) {
            return located(p, place, &error);
        }
    }
    return status;
}

static enum opt_status parse_term(struct parser *p, const struct opt_term *term,
                                  const char *place)
{
    struct opt_term_use use = { .term = term };
    struct opt_error error;
    enum opt_status status = OPT_OK;

    if (take(p, '(')) {
        status = parse_arguments(p, &use);
    }
    if (status == OPT_OK && opt_compose_term(p->composition, &use, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    return status;
}

static enum opt_status take_string(struct parser *p, char out[OPT_NAME_MAX + 1])
{
    size_t size = 0;

    if (!take(p, '"')) {
        return expected(p, "a pattern in double quotes");
    }
    const char *start = p->at - 1;
    while (*p->at != '"') {
        if (*p->at == '\\' && (p->at[1] == '"' || p->at[1] == '\\')) {
            p->at++;
        }
        if (*p->at == '\0') {
            return fail_at(p, start, "the pattern has no closing quote");
        }
        if (size == OPT_NAME_MAX) {
            return fail_at(p, start, "the pattern is longer than %d bytes",
                           (int)OPT_NAME_MAX);
        }
        out[size++] = *p->at++;
    }
    p->at++;
    out[size] = '\0';
    return OPT_OK;
}

static enum opt_status parse_tensors(struct parser *p)
{
    char pattern[OPT_NAME_MAX + 1], name[WORD_BYTES], word[WORD_BYTES];
    struct opt_wire_option value;
    struct opt_group *group;
    struct opt_error error;
    enum opt_status status;

    if (!take(p, '(')) {
        return expected(p, "'(' and a pattern after tensors");
    }
    skip_space(p);
    const char *place = p->at;
    status = take_string(p, pattern);
    if (status != OPT_OK) {
        return status;
    }
    if (opt_group_add(&p->composition->spec, pattern, &group, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    while (take_separator(p, false, &status)) {
        status = take_argument(p, false, name, word, &place, &value);
        if (status != OPT_OK) {
            return status;
        }
        if (name[0] == '\0') {
            return fail_at(p, place, "'%s' in tensors needs a name", word);
        }
        if (opt_group_set(group, &value, &error) != OPT_OK) {
            return located(p, place, &error);
        }
    }
    return status;
}

static enum opt_status unknown_term(struct parser *p, const char *word,
                                    const char *place)
{
    struct opt_error error;

    opt_term_unknown(word, &error);
    return located(p, place, &error);
}

static bool is_optimizer(const char *word)
{
    struct opt_spec unused;

    return opt_spec_init(&unused, word, NULL) == OPT_OK;
}

static enum opt_status parse_one(struct parser *p)
{
    char word[WORD_BYTES];

    skip_space(p);
    const char *place = p->at;
    enum opt_status status = take_word(p, "a term after '+'", word);
    if (status != OPT_OK) {
        return status;
    }
    const struct opt_term *term = opt_term_find(word);
    if (term != NULL) {
        return parse_term(p, term, place);
    }
    if (strcmp(word, "tensors") == 0) {
        return parse_tensors(p);
    }
    if (is_optimizer(word)) {
        return fail_at(p, place, "'%s' must come first, and only one optimizer can be",
                       word);
    }
    return unknown_term(p, word, place);
}

/* An expression as far as opt_compose_end. */
static enum opt_status read_expression(const char *text,
                                       struct opt_composition *composition,
                                       struct opt_error *error)
{
    struct parser p = {
        .text = text,
        .at = text,
        .composition = composition,
        .error = error,
    };
    enum opt_status status;

    if (strnlen(text, OPT_EXPRESSION_BYTES + 1) > OPT_EXPRESSION_BYTES) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "an expression may have %d bytes; this one has more",
                        (int)OPT_EXPRESSION_BYTES);
    }
    status = parse_optimizer(&p);
    while (status == OPT_OK && take(&p, '+')) {
        status = parse_one(&p);
    }
    if (status != OPT_OK) {
        return status;
    }
    skip_space(&p);
    return *p.at == '\0' ? OPT_OK : expected(&p, "'+' or the end");
}

enum opt_status opt_spec_parse(const char *text, struct opt_spec *out,
                               struct opt_error *error)
{
    struct opt_composition composition = { .given = 0 };
    enum opt_status status = read_expression(text, &composition, error);

    return opt_compose_end(&composition, status, out, error);
}

/* ------------------------------------------------------------------ changes */

/* A whole term: what it does not mention has its default. */
static enum opt_status parse_whole_term(struct parser *p, const struct opt_term *term,
                                        const char *place)
{
    enum opt_status status = parse_term(p, term, place);

    for (size_t i = 0; i < opt_term_options(term); i++) {
        const char *name = term->options[i].option;
        p->composition->given |=
            UINT64_C(1) << opt_option_index(opt_option_find(name, strlen(name)));
    }
    return status;
}

static enum opt_status parse_part(struct parser *p)
{
    char word[WORD_BYTES], name[WORD_BYTES];
    struct opt_wire_option value = { .name = name };
    struct opt_error error;

    skip_space(p);
    const char *place = p->at;
    enum opt_status status = take_word(p, "an option or a term", word);
    if (status != OPT_OK) {
        return status;
    }
    if (take(p, '=')) {
        memcpy(name, word, WORD_BYTES);
        status = take_word(p, "a value", word);
        if (status == OPT_OK &&
            (opt_compose_value(word, &value, &error) != OPT_OK ||
             opt_compose_option(p->composition, &value, &error) != OPT_OK)) {
            return located(p, place, &error);
        }
        return status;
    }
    const struct opt_term *term = opt_term_find(word);
    if (term != NULL) {
        return parse_whole_term(p, term, place);
    }
    if (strcmp(word, "tensors") == 0) {
        return parse_tensors(p);
    }
    if (opt_option_find(word, strlen(word)) != NULL) {
        return fail_at(p, place, "%s needs a value: write %s=...", word, word);
    }
    if (is_optimizer(word)) {
        return fail_at(p, place,
                       "the rule of a model that runs cannot change; create another "
                       "model with %s",
                       word);
    }
    return unknown_term(p, word, place);
}

enum opt_status opt_change_parse(const char *text, struct opt_composition *composition,
                                 struct opt_error *error)
{
    struct parser p = {
        .text = text,
        .at = text,
        .composition = composition,
        .error = error,
    };
    enum opt_status status;

    if (strnlen(text, OPT_EXPRESSION_BYTES + 1) > OPT_EXPRESSION_BYTES) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a change may have %d bytes; this one has more",
                        (int)OPT_EXPRESSION_BYTES);
    }
    do {
        status = parse_part(&p);
    } while (status == OPT_OK && take(&p, ','));
    if (status != OPT_OK) {
        return status;
    }
    skip_space(&p);
    return *p.at == '\0' ? OPT_OK : expected(&p, "',' or the end");
}

/* ------------------------------------------------------------------ beginning */

/* Rules, presets, then what profiles offer. */
static const char *optimizer_name(size_t i, const void *unused)
{
    size_t rule_count, preset_count, row_count;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    const struct opt_preset *presets = opt_presets(&preset_count);
    const struct opt_profile_row *rows = opt_profile_rows(&row_count);

    (void)unused;
    if (i < rule_count) {
        return rules[i]->name;
    }
    i -= rule_count;
    return i < preset_count ? presets[i].name : rows[i - preset_count].name;
}

static void append(char *all, size_t capacity, const char *name)
{
    size_t used = strlen(all);

    snprintf(all + used, capacity - used, "%s%s", used > 0 ? ", " : "", name);
}

static enum opt_status not_in_profile(const char *name, const char *profile,
                                      struct opt_error *error)
{
    char all[400] = "";
    size_t count;
    const struct opt_profile_row *rows = opt_profile_rows(&count);

    for (size_t i = 0; i < count; i++) {
        if (opt_profile_row_of(&rows[i], profile) && rows[i].expression != NULL) {
            append(all, sizeof all, rows[i].name);
        }
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "the profile %s has no '%.40s': it has %s", profile, name, all);
}

static enum opt_status unknown_optimizer(const char *name, struct opt_error *error)
{
    size_t rule_count, preset_count, row_count, profile_count;
    char all[400] = "";
    const struct opt_profile *profiles = opt_profiles(&profile_count);

    opt_rules(&rule_count);
    opt_presets(&preset_count);
    opt_profile_rows(&row_count);
    size_t plain = rule_count + preset_count;
    const char *nearest = opt_profile_meant(name);
    if (nearest == NULL) {
        nearest =
            opt_nearest(name, strlen(name), plain + row_count, optimizer_name, NULL);
    }
    if (nearest != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "unknown optimizer '%.40s': did you mean '%s'?", name, nearest);
    }
    for (size_t i = 0; i < profile_count; i++) {
        size_t size = strlen(profiles[i].name);
        if (strncmp(name, profiles[i].name, size) == 0 && name[size] == '.') {
            return not_in_profile(name, profiles[i].name, error);
        }
    }
    for (size_t i = 0; i < plain; i++) {
        append(all, sizeof all, optimizer_name(i, NULL));
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "unknown optimizer '%.40s': there are %s", name, all);
}

static void set_defaults(struct opt_spec *spec, const struct opt_rule *rule)
{
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    memset(spec, 0, sizeof *spec);
    spec->rule = rule;
    for (size_t i = 0; i < count; i++) {
        if (opt_option_applies(&table[i], rule)) {
            opt_option_put(&table[i], &spec->options,
                           opt_option_default(&table[i], rule));
        }
    }
}

enum opt_status opt_compose_begin(struct opt_composition *composition, const char *name,
                                  struct opt_error *error)
{
    const struct opt_rule *rule = opt_rule_find(name);
    const struct opt_preset *preset = opt_preset_find(name);
    const struct opt_profile_row *row = opt_profile_row_find(name);
    enum opt_status status = OPT_OK;

    if (rule != NULL) {
        set_defaults(&composition->spec, rule);
    } else if (preset != NULL) {
        status = read_expression(preset->expression, composition, error);
    } else if (row == NULL) {
        return unknown_optimizer(name, error);
    } else if (row->expression == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s is not offered: %s", name,
                        row->note);
    } else {
        status = read_expression(row->expression, composition, error);
    }
    composition->given = 0;
    composition->profile = row;
    return status;
}

enum opt_status opt_spec_init(struct opt_spec *spec, const char *rule,
                              struct opt_error *error)
{
    struct opt_composition composition;
    enum opt_status status = opt_compose_begin(&composition, rule, error);

    if (status == OPT_OK) {
        opt_compose_drop_inactive(&composition.spec, 0);
        *spec = composition.spec;
    }
    return status;
}
