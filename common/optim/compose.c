/* compose — see compose.h. */
#include "common/optim/compose.h"

#include <stdio.h>
#include <string.h>

#include "common/optim/number.h"
#include "common/optim/rule.h"

/* ------------------------------------------------------------------ options */

enum opt_status opt_compose_theirs(const struct opt_composition *composition,
                                   const char *name, struct opt_error *error)
{
    const struct opt_profile_row *row = composition->profile;
    const struct opt_option *option = opt_option_find(name, strlen(name));
    const char *here = row == NULL ? NULL : opt_profile_argument(row, name);

    if (here == NULL ||
        (option != NULL && opt_option_applies(option, composition->spec.rule))) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s has no option '%.40s': %s",
                    row->name, name, here);
}

enum opt_status opt_compose_value(const char *word, struct opt_wire_option *out,
                                  struct opt_error *error)
{
    if (word[0] != '\0' && strchr("+-.0123456789", word[0]) != NULL) {
        out->kind = OPT_VALUE_NUMBER;
        if (!opt_number_parse(word, strlen(word), &out->number)) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
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

static uint64_t bit_of(const struct opt_option *option)
{
    return UINT64_C(1) << opt_option_index(option);
}

static enum opt_status set(struct opt_composition *composition,
                           const struct opt_option *option,
                           const struct opt_wire_option *value, struct opt_error *error)
{
    if ((composition->given & bit_of(option)) != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s is given twice", option->name);
    }
    composition->given |= bit_of(option);
    return opt_option_set(&composition->spec, option, value, error);
}

enum opt_status opt_compose_option(struct opt_composition *composition,
                                   const struct opt_wire_option *value,
                                   struct opt_error *error)
{
    size_t size = strlen(value->name);
    const struct opt_option *option = opt_option_find(value->name, size);

    if (opt_compose_theirs(composition, value->name, error) != OPT_OK) {
        return OPT_INVALID_ARGUMENT;
    }
    return option != NULL
               ? set(composition, option, value, error)
               : opt_option_unknown(value->name, size, composition->spec.rule, error);
}

/* ------------------------------------------------------------------ terms */

size_t opt_term_options(const struct opt_term *term)
{
    size_t n = 0;

    while (n < OPT_TERM_OPTIONS && term->options[n].option != NULL) {
        n++;
    }
    return n;
}

static const char *term_name(size_t i, const void *unused)
{
    size_t count;
    const struct opt_term *terms = opt_terms(&count);

    (void)unused;
    return i < count ? terms[i].name : "tensors";
}

enum opt_status opt_term_unknown(const char *name, struct opt_error *error)
{
    size_t count, used = 0;
    char all[200] = "";

    if (opt_option_find(name, strlen(name)) != NULL) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "'%s' is no term but an option: write %s=... in the optimizer's "
            "parentheses",
            name, name);
    }

    opt_terms(&count);
    const char *nearest = opt_nearest(name, strlen(name), count + 1, term_name, NULL);
    if (nearest != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "unknown term '%.40s': did you mean '%s'?", name, nearest);
    }
    for (size_t i = 0; i <= count && used < sizeof all; i++) {
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s",
                                 i == 0       ? ""
                                 : i == count ? " and "
                                              : ", ",
                                 term_name(i, NULL));
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "unknown term '%.40s': there are %s",
                    name, all);
}

static const char *key_of(size_t i, const void *context)
{
    const struct opt_term *term = context;

    return term->options[i].key;
}

/* By the name that it has in the term, or anywhere. */
static enum opt_status find_argument(const struct opt_term *term, const char *name,
                                     size_t *index, struct opt_error *error)
{
    size_t count = opt_term_options(term), used = 0;
    char all[200] = "nothing";

    for (*index = 0; *index < count; ++*index) {
        if (strcmp(term->options[*index].option, name) == 0 ||
            strcmp(term->options[*index].key, name) == 0) {
            return OPT_OK;
        }
        used +=
            (size_t)snprintf(all + used, used < sizeof all ? sizeof all - used : 0,
                             "%s%s", used > 0 ? ", " : "", term->options[*index].key);
    }
    const char *nearest = opt_nearest(name, strlen(name), count, key_of, term);
    if (nearest != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s has no option '%.40s': did you mean '%s'?", term->name,
                        name, nearest);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s has no option '%.40s': it has %s",
                    term->name, name, all);
}

static enum opt_status too_many(const struct opt_term *term,
                                const struct opt_wire_option *value,
                                struct opt_error *error)
{
    char number[OPT_NUMBER_TEXT] = "";
    const char *word = number;

    if (value->kind == OPT_VALUE_NUMBER) {
        opt_number_print(value->number, number);
    } else {
        word = value->kind == OPT_VALUE_WORD ? value->word
               : value->flag                 ? "true"
                                             : "false";
    }
    if (opt_term_options(term) == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s takes no options, and '%.40s' is one", term->name, word);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "'%.40s' in %s needs a name", word,
                    term->name);
}

static bool was_given(const struct opt_composition *composition, const char *option)
{
    return (composition->given & bit_of(opt_option_find(option, strlen(option)))) != 0;
}

/* Whether the word that the term selects is one of its own options. */
static bool names_its_word(const struct opt_term *term)
{
    return opt_term_options(term) > 0 &&
           strcmp(term->options[0].option, term->selects) == 0;
}

enum opt_status opt_compose_argument(struct opt_composition *composition,
                                     struct opt_term_use *use,
                                     const struct opt_wire_option *value,
                                     struct opt_error *error)
{
    const struct opt_term *term = use->term;
    size_t index = use->position;

    if (term->selects != NULL && !names_its_word(term) &&
        was_given(composition, term->selects)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s is a second %s, and there can be one", term->name,
                        term->selects);
    }
    if (value->name[0] != '\0') {
        enum opt_status status = find_argument(term, value->name, &index, error);
        if (status != OPT_OK) {
            return status;
        }
    } else if (use->position++ >= term->positional) {
        return too_many(term, value, error);
    }
    const char *option = term->options[index].option;
    use->here |= UINT64_C(1) << index;
    return set(composition, opt_option_find(option, strlen(option)), value, error);
}

static enum opt_status set_word(struct opt_composition *composition, const char *name,
                                int word, struct opt_error *error)
{
    const struct opt_option *option = opt_option_find(name, strlen(name));
    const struct opt_wire_option value = {
        .name = name,
        .kind = OPT_VALUE_WORD,
        .word = option->words[word],
    };

    return set(composition, option, &value, error);
}

/* What a term says without words: its schedule, layerwise() its usual form, and a bound
 * of phi that phi is clipped. */
static enum opt_status imply(struct opt_composition *composition,
                             const struct opt_term *term, struct opt_error *error)
{
    if (term->selects == NULL) {
        return OPT_OK;
    }
    if (!names_its_word(term) || !was_given(composition, term->selects)) {
        enum opt_status status =
            set_word(composition, term->selects, term->word, error);
        if (status != OPT_OK) {
            return status;
        }
    }
    if ((was_given(composition, "phi_min") || was_given(composition, "phi_max")) &&
        !was_given(composition, "layerwise_phi")) {
        return set_word(composition, "layerwise_phi", OPT_PHI_CLIP, error);
    }
    return OPT_OK;
}

static enum opt_status missing(const struct opt_term *term, size_t index,
                               struct opt_error *error)
{
    const char *name = term->options[index].option;
    const struct opt_option *option = opt_option_find(name, strlen(name));
    char range[200];

    opt_option_range(option, ~0u, range, sizeof range);
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s needs %s, %s%s", term->name,
                    term->options[index].key,
                    option->words != NULL             ? "one of "
                    : option->kind == OPT_KIND_NUMBER ? "a number in "
                                                      : "",
                    range);
}

enum opt_status opt_compose_term(struct opt_composition *composition,
                                 const struct opt_term_use *use,
                                 struct opt_error *error)
{
    for (size_t i = 0; i < use->term->required; i++) {
        if ((use->here >> i & 1u) == 0) {
            return missing(use->term, i, error);
        }
    }
    return imply(composition, use->term, error);
}

/* ------------------------------------------------------------------ ending */

/* An option may need one that needs another. */
void opt_compose_drop_inactive(struct opt_spec *spec, uint64_t given)
{
    enum { DEEPEST = 2 };
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    for (size_t i = 0; i < DEEPEST * count; i++) {
        const struct opt_option *option = &table[i % count];
        if ((given & bit_of(option)) == 0 && opt_option_applies(option, spec->rule) &&
            !opt_option_active(option, spec)) {
            opt_option_put(option, &spec->options,
                           opt_option_default(option, spec->rule));
        }
    }
}

enum opt_status opt_compose_end(struct opt_composition *composition,
                                enum opt_status status, struct opt_spec *out,
                                struct opt_error *error)
{
    if (status == OPT_OK) {
        opt_compose_drop_inactive(&composition->spec, composition->given);
        status = opt_spec_check(&composition->spec, error);
    }
    if (status == OPT_OK) {
        *out = composition->spec;
    } else {
        opt_spec_fini(&composition->spec);
    }
    return status;
}
