/* groups — which of a specification's groups each tensor of a model is in.
 *
 * The first pattern that a name matches has it. With very many names and patterns this
 * takes long, so it can be done in pieces: others who have the same thread come in
 * between. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_GROUPS_H
#define OPTIMD_COMMON_OPTIM_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/glob.h"
#include "common/optim/spec.h"
#include "common/optim/update.h"

#define OPT_GROUP_NONE UINT16_MAX

/* The group with that pattern, or NULL. */
const struct opt_group *opt_group_find(const struct opt_spec *spec,
                                       const char *pattern);

/* What a tensor of a group has, or of none. */
void opt_group_options(const struct opt_spec *spec, uint16_t group, size_t rank,
                       struct opt_tensor_options *out);

/* All names against all patterns. Everything is borrowed until it is over. */
struct opt_matching {
    const struct opt_spec *spec;
    const struct opt_named *names;
    uint16_t *groups; /* of each name: its group's number, or OPT_GROUP_NONE */
    size_t cleared, group, name;
    bool hit, compiled;
    struct opt_glob glob;
};
void opt_matching_begin(struct opt_matching *matching, const struct opt_spec *spec,
                        const struct opt_named *names, uint16_t *groups);
/* Go on for about so many steps; *steps are those taken, each about a nanosecond.
 * OPT_INVALID_ARGUMENT: a pattern matches nothing and does not say that it may. */
enum opt_status opt_matching_go_on(struct opt_matching *matching, uint64_t most,
                                   bool *over, uint64_t *steps,
                                   struct opt_error *error);

#endif
