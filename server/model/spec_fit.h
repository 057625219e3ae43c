/* spec_fit — whether a specification fits a model's tensors, and its text. Asked when a
 * model is made and when its options change. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_MODEL_SPEC_FIT_H
#define OPTIMD_SERVER_MODEL_SPEC_FIT_H

#include <stddef.h>

#include "common/status.h"
#include "server/model/spec_fit.h"

struct engine;
struct grouping;
struct model;
struct opt_spec;

/* In the measure of work_done: to read a byte of a specification's text, to merge a
 * byte of groups with others, to check and print a byte of text. */
enum { SPEC_READ_COST = 4, SPEC_MERGE_COST = 4, SPEC_PRINT_COST = 2 };

/* Whether the next of the sparse tensors, from *checked on, can be updated row by row
 * with that specification; all can if there is no error and *checked is their count. */
enum opt_status spec_fit_sparse(struct engine *engine, const struct model *model,
                                const struct opt_spec *spec,
                                const struct grouping *grouping, size_t *checked,
                                struct opt_error *error);

/* A specification's text, to be freed; NULL without memory. */
char *spec_fit_text(const struct opt_spec *spec);

#endif
