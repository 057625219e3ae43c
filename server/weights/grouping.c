/* grouping — see grouping.h. */
#include "server/weights/grouping.h"

#include <stdlib.h>

#include "server/engine/state.h"

struct grouping *grouping_new(struct engine *engine, size_t tensors)
{
    size_t bytes = sizeof(struct grouping) + tensors * sizeof(uint16_t);
    if (!budget_take(&engine->budget, bytes)) {
        return NULL;
    }
    struct grouping *grouping = malloc(bytes);
    if (grouping == NULL) {
        budget_give(&engine->budget, bytes);
        return NULL;
    }
    grouping->references = 1;
    grouping->bytes = bytes;
    return grouping;
}

struct grouping *grouping_ref(struct grouping *grouping)
{
    grouping->references++;
    return grouping;
}

void grouping_unref(struct engine *engine, struct grouping *grouping)
{
    if (grouping != NULL && --grouping->references == 0) {
        budget_give(&engine->budget, grouping->bytes);
        free(grouping);
    }
}
