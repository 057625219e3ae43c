/* Memory for gradients and weights that the program uses in place. */
#include "client/entry.h"
#include "client/opened.h"
#include "client/session.h"

float *optclient_gradient(struct optclient_model *model, size_t tensor)
{
    struct shared *shared = &model->shared;
    float *memory = NULL;
    if (entry_check(model->client) != OPTCLIENT_OK) {
        return NULL;
    }
    session_lock(model->client);
    if (tensor >= model->tensor_count || model->widths[tensor] > 0) {
        entry_fail(OPT_INVALID_ARGUMENT,
                   "model \"%s\" has no dense tensor %zu to keep a gradient for",
                   model->name, tensor);
    } else if (shared->user != NULL) {
        entry_fail(OPT_FAILED_PRECONDITION,
                   "the memory for gradients of model \"%s\" is in use by a push; ask "
                   "for it before the first",
                   model->name);
    } else {
        memory = shared_give(model, tensor);
        if (memory == NULL) {
            entry_fail(OPT_RESOURCE_EXHAUSTED, "no memory for gradients");
        }
    }
    session_unlock(model->client);
    return memory;
}

const float *optclient_weights(const struct optclient_model *model, size_t tensor)
{
    const float *view = NULL;
    session_lock(model->client);
    if (model->shared.views != NULL && tensor < model->tensor_count) {
        view = model->shared.views[tensor];
    }
    session_unlock(model->client);
    return view;
}
