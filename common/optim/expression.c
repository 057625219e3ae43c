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
 * Terms and what they may contain are a table (options.c). One pass, no recursion, no
 * memory beyond the result; errors name the place by its character. Any thread.
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

enum opt_status opt_compose_expression(const char *text,
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
    enum opt_status status = opt_compose_expression(text, &composition, error);

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
