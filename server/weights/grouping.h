/* grouping — which group of the specification each tensor of a model is in.
 *
 * Made once for a list of patterns, and shared by the model and the changes of options
 * that leave it as it is. Counted references. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_GROUPING_H
#define OPTIMD_SERVER_WEIGHTS_GROUPING_H

#include <stddef.h>
#include <stdint.h>

struct engine;

struct grouping {
    size_t references, bytes;
    uint16_t of[]; /* each tensor: the number of its group, or OPT_GROUP_NONE */
};

/* With one reference; NULL if the budget or the system has no memory for it. */
struct grouping *grouping_new(struct engine *engine, size_t tensors);
struct grouping *grouping_ref(struct grouping *grouping);
void grouping_unref(struct engine *engine, struct grouping *grouping);

#endif
