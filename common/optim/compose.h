/* compose — a specification while it is read, whatever it is written in.
 *
 * Expressions, YAML and messages differ in how words are written. What a name means,
 * what a term needs and what it says without words, that nothing is given twice, and
 * what is checked at the end is the same for all of them, and here. Sentences say what
 * is wrong; readers add the place. Internal to common/optim. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_COMPOSE_H
#define OPTIMD_COMMON_OPTIM_COMPOSE_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/options.h"
#include "common/optim/spec.h"

struct opt_profile_row;

struct opt_composition {
    struct opt_spec spec;
    uint64_t given; /* options, by index, that the user has set */
    const struct opt_profile_row *profile; /* that it began with, or NULL */
};

/* Begin with a rule, a preset or a rule of a profile, options at their defaults there.
 * (expression.c, as presets are expressions.) */
enum opt_status opt_compose_begin(struct opt_composition *composition, const char *name,
                                  struct opt_error *error);

/* If it began with a profile's row and the name is that library's word for something
 * that is written in another way here: *error says how. OPT_OK: it is not. */
enum opt_status opt_compose_theirs(const struct opt_composition *composition,
                                   const char *name, struct opt_error *error);

/* Set an option by its name, once. */
enum opt_status opt_compose_option(struct opt_composition *composition,
                                   const struct opt_wire_option *value,
                                   struct opt_error *error);

/* A term that is being read. */
struct opt_term_use {
    const struct opt_term *term;
    uint64_t here;   /* its options, by position, that have come */
    size_t position; /* of the next argument that has no name */
};

/* An argument of it; value->name "": by position. */
enum opt_status opt_compose_argument(struct opt_composition *composition,
                                     struct opt_term_use *use,
                                     const struct opt_wire_option *value,
                                     struct opt_error *error);
/* All its arguments have come. */
enum opt_status opt_compose_term(struct opt_composition *composition,
                                 const struct opt_term_use *use,
                                 struct opt_error *error);

/* Options that others leave without effect, and that the user has not given, go back to
 * their defaults; then all is checked. *out is written on success; else the composition
 * gives up what it has. status is how reading has ended: unless it is OPT_OK, that is
 * returned. */
enum opt_status opt_compose_end(struct opt_composition *composition,
                                enum opt_status status, struct opt_spec *out,
                                struct opt_error *error);

/* The first half of that. */
void opt_compose_drop_inactive(struct opt_spec *spec, uint64_t given);

/* What a bare word is: a number if it begins like one, a flag, or a word, which must
 * outlive the result. */
enum opt_status opt_compose_value(const char *word, struct opt_wire_option *out,
                                  struct opt_error *error);

size_t opt_term_options(const struct opt_term *term);

/* "unknown term 'cosin': did you mean 'cosine'?"; more names may be taken there. */
enum opt_status opt_term_unknown(const char *name, struct opt_error *error);

/* The text of a change (change.h) into a composition that has begun with the rule. */
enum opt_status opt_change_parse(const char *text, struct opt_composition *composition,
                                 struct opt_error *error);

#endif
