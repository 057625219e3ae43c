/* Memory for gradients and weights that the program uses in place. */
#include "client/api.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/shm.h"

float *optclient_gradient(struct optclient_model *model, size_t tensor)
{
    struct shm *shm = &model->shm;
    float *memory = NULL;
    if (api_check(model->client) != OPTCLIENT_OK) {
        return NULL;
    }
    client_lock(model->client);
    if (tensor >= model->tensor_count || model->widths[tensor] > 0) {
        api_fail(OPT_INVALID_ARGUMENT,
                 "model \"%s\" has no dense tensor %zu to keep a gradient for",
                 model->name, tensor);
    } else if (shm->user != NULL) {
        api_fail(OPT_FAILED_PRECONDITION,
                 "the memory for gradients of model \"%s\" is in use by a push; ask "
                 "for it before the first",
                 model->name);
    } else {
        memory = shm_give(model, tensor);
        if (memory == NULL) {
            api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for gradients");
        }
    }
    client_unlock(model->client);
    return memory;
}

const float *optclient_weights(const struct optclient_model *model, size_t tensor)
{
    const float *view = NULL;
    client_lock(model->client);
    if (model->shm.views != NULL && tensor < model->tensor_count) {
        view = model->shm.views[tensor];
    }
    client_unlock(model->client);
    return view;
}
