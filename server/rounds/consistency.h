/* consistency — what a model's policy may say, and how two of them differ.
 *
 * Asked when a model is created. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_CONSISTENCY_H
#define OPTIMD_SERVER_ROUNDS_CONSISTENCY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/wire.h"

struct opt_spec;

/* Whether a model of this specification can have the policy. OPT_INVALID_ARGUMENT: a
 * field that the mode does not know, or one that is missing; delay compensation or
 * atomic SHARD where it cannot be. */
enum opt_status consistency_check(const struct opt_consistency *consistency,
                                  const struct opt_spec *spec, struct opt_error *error);
/* Whether one with this tensor can. OPT_INVALID_ARGUMENT. */
enum opt_status consistency_check_tensor(const struct opt_consistency *consistency,
                                         const struct opt_tensor_entry *tensor,
                                         struct opt_error *error);

/* Whether rounds of the specification can be applied shard by shard.
 * OPT_INVALID_ARGUMENT: it needs the whole gradient first. */
enum opt_status consistency_check_atomic(const struct opt_spec *spec,
                                         struct opt_error *error);

/* The first difference, as a sentence part ("its mode is sync, not async"); false if
 * there is none. */
bool consistency_differs(const struct opt_consistency *has,
                         const struct opt_consistency *asked, char *text,
                         size_t capacity);

#endif
