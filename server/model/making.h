/* making — a model comes to be, or is compared with what is asked for, in pieces.
 *
 * A table of many tensors takes long to read, and a model of them to lay out; others
 * are served in between. The model has its name from the start, so that who asks for it
 * meanwhile waits. In the engine's turn, on behalf of a create.
 */
#ifndef OPTIMD_SERVER_MODEL_MAKING_H
#define OPTIMD_SERVER_MODEL_MAKING_H

#include <stdbool.h>

#include "common/status.h"

struct engine;
struct letter;
struct model;
struct opt_spec;

/* How it ended, told once and borrowed for the call. */
struct made {
    enum opt_status status;        /* not OPT_OK: */
    const struct opt_error *error; /* why */
    const char *difference;        /* of the model that was there, or NULL */
};
typedef void (*making_end)(struct engine *engine, struct model *model,
                           struct letter *letter, const struct made *made);

/* Make the model that the letter, a create of this specification, asks for. Its weights
 * are 0, and it is not ready. end is told OPT_RESOURCE_EXHAUSTED with bytes needed,
 * left and the setting; OPT_UNAVAILABLE if the system has no memory;
 * OPT_INVALID_ARGUMENT; and then deletes the model. An error that is returned is of a
 * model that there never was. */
enum opt_status making_begin(struct engine *engine, struct letter *letter,
                             const struct opt_spec *spec, making_end end,
                             struct opt_error *error);
/* Compare an idle model with what the create asks for, of this specification. */
enum opt_status making_compare(struct engine *engine, struct model *model,
                               struct letter *letter, const struct opt_spec *spec,
                               making_end end, struct opt_error *error);

#endif
