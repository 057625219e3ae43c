/* change — options of a specification that shall have other values.
 *
 * A change is read once, for the rule it is meant for, and can then be applied to any
 * specification of that rule: to the present one, or to the one that changes stated
 * before will have made of it. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_CHANGE_H
#define OPTIMD_COMMON_OPTIM_CHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/spec.h"
#include "common/status.h"
#include "common/wire.h"

struct opt_change {
    struct opt_spec values; /* the rule, the options given, the groups given */
    uint64_t given;         /* options, by index */
};

/* Read a change from a message, to be given up with opt_change_fini; SetOptions in
 * optimd.proto says what may be in it. Its model and step are not looked at.
 * OPT_INVALID_ARGUMENT with a sentence, as opt_spec_parse. */
enum opt_status opt_change_read(const struct opt_rule *rule, const struct opt_set *set,
                                struct opt_change *out, struct opt_error *error);

/* As a text that is read back as the same change (SetOptions.change). Returns its
 * length; what does not fit the capacity is cut, as snprintf does. */
size_t opt_change_print(const struct opt_change *change, char *out, size_t capacity);

void opt_change_fini(struct opt_change *change);

/* Apply it. Options that lose their effect go back to their defaults unless they were
 * given. OPT_INVALID_ARGUMENT if the result is no valid specification; then spec is as
 * it was. */
enum opt_status opt_change_apply(const struct opt_change *change, struct opt_spec *spec,
                                 struct opt_error *error);

/* Whether a model that runs may go from one specification to the other: what its slots
 * hold must mean the same, and gradients be taken at the same kind of point.
 * OPT_FAILED_PRECONDITION says what would not fit. */
enum opt_status opt_change_fits(const struct opt_spec *before,
                                const struct opt_spec *after, struct opt_error *error);

#endif
