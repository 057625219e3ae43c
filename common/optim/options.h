/* options — the one table of everything that can be set in a specification.
 *
 * Name, kind, place, range or words, default, what it depends on, and where expressions
 * mention it. Setters, the parser, the printer, checks and manuals read it. Internal to
 * common/optim except for tools that list options. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_OPTIONS_H
#define OPTIMD_COMMON_OPTIM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/rule.h"
#include "common/optim/spec.h"

enum opt_kind { OPT_KIND_NUMBER, OPT_KIND_COUNT, OPT_KIND_WORD, OPT_KIND_FLAG };

struct opt_option {
    const char *name;
    enum opt_kind kind;
    size_t offset; /* in struct opt_options */
    double value;  /* default, where no rule says otherwise; words by number */
    double low, high;
    bool low_open, high_open;
    const char *const *words; /* ends with NULL */
    bool of_rules;            /* only where the rule lists it */
    const char *needs;        /* has an effect only where that option ... */
    unsigned needs_words;     /* ... is one of these words; 0: is above 0 */
    const char *does;         /* a phrase for manuals */
};

const struct opt_option *opt_options_table(size_t *count);

/* By name of size bytes, or NULL. */
const struct opt_option *opt_option_find(const char *name, size_t size);
size_t opt_option_index(const struct opt_option *option);

/* Value in the struct, words and flags as numbers. */
double opt_option_get(const struct opt_option *option,
                      const struct opt_options *options);
void opt_option_put(const struct opt_option *option, struct opt_options *options,
                    double value);

/* Whether the rule has it, its default there and its words as bits. */
bool opt_option_applies(const struct opt_option *option, const struct opt_rule *rule);
double opt_option_default(const struct opt_option *option, const struct opt_rule *rule);
unsigned opt_option_words(const struct opt_option *option, const struct opt_rule *rule);

/* The option without which it has no effect there: one of *words, or above 0 if that is
 * 0. NULL: it always has. */
const char *opt_option_needs(const struct opt_option *option,
                             const struct opt_rule *rule, unsigned *words);

/* Whether the other options leave it an effect. */
bool opt_option_active(const struct opt_option *option, const struct opt_spec *spec);

/* A value as users write it. */
void opt_option_print(const struct opt_option *option, double value, char *out,
                      size_t capacity);

/* "[0, 1)", or the words joined by commas. */
void opt_option_range(const struct opt_option *option, unsigned words, char *out,
                      size_t capacity);

/* The one of count names nearest to word by edit distance, if it is near at all: at
 * most a third of its length. NULL: none is. name(i, context) gives the names. */
const char *opt_nearest(const char *word, size_t size, size_t count,
                        const char *(*name)(size_t i, const void *context),
                        const void *context);

/* A part of an expression: NAME(first, second, key=value, ...). */
enum { OPT_TERM_OPTIONS = 8 };
struct opt_term {
    const char *name;
    const char *does;    /* a phrase for manuals */
    const char *selects; /* option that the term itself sets, and to which word */
    int word;
    struct {
        const char *option;
        const char *key; /* short name inside the term */
    } options[OPT_TERM_OPTIONS];
    size_t positional; /* how many of them may come without a name */
    size_t required;   /* how many have to be there */
};
const struct opt_term *opt_terms(size_t *count);
/* By name, or NULL. */
const struct opt_term *opt_term_find(const char *name);

enum { OPT_EXPRESSION_BYTES = 256 << 10 };

/* Set an option to a value that is already a number; checks availability and range. */
enum opt_status opt_option_set(struct opt_spec *spec, const struct opt_option *option,
                               const struct opt_wire_option *value,
                               struct opt_error *error);

/* Set one option of a group: weight_decay, lr_scale, layerwise=none or missing=ok, once
 * each. */
enum opt_status opt_group_set(struct opt_group *group,
                              const struct opt_wire_option *value,
                              struct opt_error *error);

/* Append an empty group to a specification whose groups are its own. */
enum opt_status opt_group_add(struct opt_spec *spec, const char *pattern,
                              struct opt_group **out, struct opt_error *error);

/* "unknown option 'bet1' ...: did you mean 'beta1'?" for a rule. */
enum opt_status opt_option_unknown(const char *name, size_t size,
                                   const struct opt_rule *rule,
                                   struct opt_error *error);

#endif
