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

#include "common/optim/number.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

enum { WORD_BYTES = 64 };

struct parser {
    const char *text, *at;
    struct opt_spec spec;
    uint64_t given; /* options, by index, that the user has set */
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
    if (size == 0) {
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

/* What a bare word means to an option. word must outlive the result. */
static enum opt_status value_of(struct parser *p, const char *place, const char *word,
                                struct opt_wire_option *out)
{
    if (strchr("+-.0123456789", word[0]) != NULL) {
        out->kind = OPT_VALUE_NUMBER;
        if (!opt_number_parse(word, strlen(word), &out->number)) {
            return fail_at(p, place,
                           "'%.40s' is not a finite decimal number such as 0.01 or "
                           "1e-3",
                           word);
        }
        return OPT_OK;
    }
    out->kind = OPT_VALUE_WORD;
    out->word = word;
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
        out->kind = OPT_VALUE_FLAG;
        out->flag = word[0] == 't';
    }
    return OPT_OK;
}

static enum opt_status set(struct parser *p, const char *place,
                           const struct opt_option *option,
                           const struct opt_wire_option *value)
{
    struct opt_error error;
    uint64_t bit = UINT64_C(1) << opt_option_index(option);

    if ((p->given & bit) != 0) {
        return fail_at(p, place, "%s is given twice", option->name);
    }
    p->given |= bit;
    if (opt_option_set(&p->spec, option, value, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    return OPT_OK;
}

/* One argument: [NAME =] VALUE. name is "" if there is none. */
static enum opt_status take_argument(struct parser *p, char name[WORD_BYTES],
                                     char word[WORD_BYTES], const char **place,
                                     struct opt_wire_option *value)
{
    enum opt_status status;

    skip_space(p);
    *place = p->at;
    name[0] = '\0';
    status = take_word(p, "a name or a value", word);
    if (status == OPT_OK && take(p, '=')) {
        memcpy(name, word, WORD_BYTES);
        status = take_word(p, "a value", word);
    }
    *value = (struct opt_wire_option){ .name = name };
    return status == OPT_OK ? value_of(p, *place, word, value) : status;
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
    if (opt_spec_init(&p->spec, word, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    if (!take(p, '(')) {
        return OPT_OK;
    }
    for (bool first = true; take_separator(p, first, &status); first = false) {
        status = take_argument(p, name, word, &place, &value);
        if (status != OPT_OK) {
            return status;
        }
        if (name[0] == '\0') {
            return fail_at(p, place, "'%s' needs a name: write lr=%s", word, word);
        }
        const struct opt_option *option = opt_option_find(name, strlen(name));
        if (option == NULL) {
            opt_option_unknown(name, strlen(name), p->spec.rule, &error);
            return located(p, place, &error);
        }
        status = set(p, place, option, &value);
        if (status != OPT_OK) {
            return status;
        }
    }
    return status;
}

static const char *key_of(size_t i, const void *context)
{
    const struct opt_term *term = context;

    return term->options[i].key != NULL ? term->options[i].key
                                        : term->options[i].option;
}

static size_t options_of(const struct opt_term *term)
{
    size_t n = 0;

    while (n < OPT_TERM_OPTIONS && term->options[n].option != NULL) {
        n++;
    }
    return n;
}

static enum opt_status find_key(struct parser *p, const struct opt_term *term,
                                const char *name, const char *place, size_t *index)
{
    size_t count = options_of(term);

    for (*index = 0; *index < count; ++*index) {
        const char *key = term->options[*index].key;
        if (strcmp(term->options[*index].option, name) == 0 ||
            (key != NULL && strcmp(key, name) == 0)) {
            return OPT_OK;
        }
    }
    const char *nearest = opt_nearest(name, strlen(name), count, key_of, term);
    return fail_at(p, place, "%s has no option '%s'%s%s%s", term->name, name,
                   nearest != NULL ? ": did you mean '" : "",
                   nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}

static bool was_given(const struct parser *p, const char *option)
{
    size_t index = opt_option_index(opt_option_find(option, strlen(option)));

    return (p->given >> index & 1u) != 0;
}

/* What a term says without words: its schedule, layerwise() its usual form, and a bound
 * of phi that phi is clipped. */
static enum opt_status imply(struct parser *p, const struct opt_term *term,
                             const char *place)
{
    static const char clip[] = "clip";
    struct opt_wire_option value = { .kind = OPT_VALUE_WORD };
    const struct opt_option *option;

    if (term->selects == NULL) {
        return OPT_OK;
    }
    option = opt_option_find(term->selects, strlen(term->selects));
    if (options_of(term) == 0 || strcmp(term->options[0].option, term->selects) != 0 ||
        !was_given(p, term->selects)) {
        value.word = option->words[term->word];
        enum opt_status status = set(p, place, option, &value);
        if (status != OPT_OK) {
            return status;
        }
    }
    if ((was_given(p, "phi_min") || was_given(p, "phi_max")) &&
        !was_given(p, "layerwise_phi")) {
        value.word = clip;
        return set(p, place, opt_option_find("layerwise_phi", strlen("layerwise_phi")),
                   &value);
    }
    return OPT_OK;
}

static enum opt_status parse_arguments(struct parser *p, const struct opt_term *term,
                                       uint64_t *here)
{
    char name[WORD_BYTES], word[WORD_BYTES];
    struct opt_wire_option value;
    const char *place;
    enum opt_status status;
    size_t position = 0;

    for (bool first = true; take_separator(p, first, &status); first = false) {
        size_t index = position;

        status = take_argument(p, name, word, &place, &value);
        if (status != OPT_OK) {
            return status;
        }
        if (name[0] != '\0') {
            status = find_key(p, term, name, place, &index);
            if (status != OPT_OK) {
                return status;
            }
        } else if (position++ >= term->positional) {
            return fail_at(p, place, "'%s' in %s needs a name", word, term->name);
        }
        const char *option = term->options[index].option;
        status = set(p, place, opt_option_find(option, strlen(option)), &value);
        if (status != OPT_OK) {
            return status;
        }
        *here |= UINT64_C(1) << index;
    }
    return status;
}

static enum opt_status parse_term(struct parser *p, const struct opt_term *term,
                                  const char *place)
{
    enum opt_status status = OPT_OK;
    uint64_t here = 0;

    /* A schedule is chosen by its term's name, before its options are judged. */
    if (take(p, '(')) {
        status = parse_arguments(p, term, &here);
    }
    if (status != OPT_OK) {
        return status;
    }
    for (size_t i = 0; i < term->required; i++) {
        if ((here >> i & 1u) == 0) {
            return fail_at(p, place, "%s needs %s", term->name,
                           term->options[i].option);
        }
    }
    return imply(p, term, place);
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
    if (opt_group_add(&p->spec, pattern, &group, &error) != OPT_OK) {
        return located(p, place, &error);
    }
    while (take_separator(p, false, &status)) {
        status = take_argument(p, name, word, &place, &value);
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

static const char *term_name(size_t i, const void *unused)
{
    size_t count;
    const struct opt_term *terms = opt_terms(&count);

    (void)unused;
    return i < count ? terms[i].name : "tensors";
}

static const struct opt_term *find_term(const char *name)
{
    size_t count;
    const struct opt_term *terms = opt_terms(&count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(terms[i].name, name) == 0) {
            return &terms[i];
        }
    }
    return NULL;
}

static enum opt_status unknown_term(struct parser *p, const char *word,
                                    const char *place)
{
    size_t count;
    opt_terms(&count);
    const char *nearest = opt_nearest(word, strlen(word), count + 1, term_name, NULL);
    return fail_at(p, place, "unknown term '%s'%s%s%s", word,
                   nearest != NULL ? ": did you mean '"
                                   : ": there are decay, clip, layerwise, lookahead, "
                                     "warmup, a schedule, aggregate, nonfinite and "
                                     "tensors",
                   nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
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
    const struct opt_term *term = find_term(word);
    if (term != NULL) {
        return parse_term(p, term, place);
    }
    if (strcmp(word, "tensors") == 0) {
        return parse_tensors(p);
    }
    struct opt_spec unused;
    if (opt_spec_init(&unused, word, NULL) == OPT_OK) {
        return fail_at(p, place, "'%s' must come first, and only one optimizer can be",
                       word);
    }
    return unknown_term(p, word, place);
}

enum opt_status opt_spec_parse(const char *text, struct opt_spec *out,
                               struct opt_error *error)
{
    struct parser p = { .text = text, .at = text, .error = error };
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
    if (*p.at != '\0') {
        return expected(&p, "'+' or the end");
    }
    status = opt_spec_check(&p.spec, error);
    if (status == OPT_OK) {
        *out = p.spec;
    }
    return status;
}

/* ------------------------------------------------------------------ changes */

/* A whole term: what it does not mention has its default. */
static enum opt_status parse_whole_term(struct parser *p, const struct opt_term *term,
                                        const char *place)
{
    enum opt_status status = parse_term(p, term, place);

    for (size_t i = 0; i < options_of(term); i++) {
        const char *name = term->options[i].option;
        p->given |= UINT64_C(1)
                    << opt_option_index(opt_option_find(name, strlen(name)));
    }
    return status;
}

static enum opt_status parse_part(struct parser *p)
{
    char word[WORD_BYTES], name[WORD_BYTES];
    struct opt_wire_option value = { .name = name };
    struct opt_error error;
    struct opt_spec unused;

    skip_space(p);
    const char *place = p->at;
    enum opt_status status = take_word(p, "an option or a term", word);
    if (status != OPT_OK) {
        return status;
    }
    if (take(p, '=')) {
        memcpy(name, word, WORD_BYTES);
        const struct opt_option *option = opt_option_find(name, strlen(name));
        if (option == NULL) {
            opt_option_unknown(name, strlen(name), p->spec.rule, &error);
            return located(p, place, &error);
        }
        status = take_word(p, "a value", word);
        if (status == OPT_OK) {
            status = value_of(p, place, word, &value);
        }
        return status == OPT_OK ? set(p, place, option, &value) : status;
    }
    const struct opt_term *term = find_term(word);
    if (term != NULL) {
        return parse_whole_term(p, term, place);
    }
    if (strcmp(word, "tensors") == 0) {
        return parse_tensors(p);
    }
    if (opt_option_find(word, strlen(word)) != NULL) {
        return fail_at(p, place, "%s needs a value: write %s=...", word, word);
    }
    if (opt_spec_init(&unused, word, NULL) == OPT_OK) {
        return fail_at(p, place,
                       "the rule of a model that runs cannot change; create another "
                       "model with %s",
                       word);
    }
    return unknown_term(p, word, place);
}

enum opt_status opt_change_parse(const char *text, struct opt_spec *spec,
                                 uint64_t *given, struct opt_error *error)
{
    struct parser p = { .text = text, .at = text, .spec = *spec, .error = error };
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
    if (*p.at != '\0') {
        return expected(&p, "',' or the end");
    }
    *spec = p.spec;
    *given = p.given;
    return OPT_OK;
}
