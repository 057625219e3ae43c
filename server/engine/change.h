/* change — options of a model that runs get other values at a stated step.
 *
 * A change takes effect between two updates, on all tensors at once: when the update
 * before `step` is over, or at once if `step` is the next one. Until then it is listed
 * with those that are to come; afterwards it stays in the list as a record. Everything
 * that can go wrong is found when it is stated. Engine thread.
 */
#ifndef OPTIMD_SERVER_ENGINE_CHANGE_H
#define OPTIMD_SERVER_ENGINE_CHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/change.h"
#include "common/wire.h"

struct engine;
struct model;

enum {
    CHANGES_KEPT = 64,   /* records of those that have taken effect */
    CHANGES_COMING = 64, /* that have not */
    CHANGES_MAX = CHANGES_KEPT + CHANGES_COMING
};

struct change {
    uint64_t step; /* number of the first update with it */
    struct opt_change what;
    char *before, *after; /* canonical specifications */
};

/* A model's, in the order in which they take effect. */
struct changes {
    struct change *list[CHANGES_MAX];
    size_t count;
    size_t done; /* so many of them, from the first, have taken effect */
};

/* State a change of a model that is idle. *step is the number of the first update with
 * it, *text the specification from then on, borrowed from the model until its next
 * change. OPT_INVALID_ARGUMENT, OPT_FAILED_PRECONDITION, OPT_RESOURCE_EXHAUSTED; then
 * nothing has changed. */
enum opt_status change_state(struct engine *engine, struct model *model,
                             const struct opt_set *set, uint64_t *step,
                             const char **text, struct opt_error *error);

/* An update is over: what was stated for the next one takes effect. */
void change_due(struct model *model);

void change_free_all(struct model *model);

#endif
