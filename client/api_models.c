/* Open models as the program sees them: what is known of them, and closing them. */
#include <pthread.h>
#include <uv.h>

#include "client/api.h"
#include "client/calls.h"
#include "client/client.h"
#include "client/open_model.h"

enum { CLOSE_WAIT_NS = 1000000000 };

/* Lock held. End what is in progress, and leave the rounds: wait for the daemon for a
 * second at most. closes: weights in place are not read any more, either. */
static void leave(struct optclient_model *model, bool closes)
{
    struct optclient *client = model->client;
    bool leaves = model->joined && !model->left && model->loss.status == OPT_OK;
    model->closing = model->closing || leaves;
    calls_leave(model, false);
    if (closes) {
        shm_view_close(model);
    }
    if (leaves) {
        call_init(&model->leave, client, model, OPT_MESSAGE_LEAVE, 0);
        model->leave.deadline_ns = UINT64_MAX;
        api_post(client, &model->leave);
        model->left = true;
        uint64_t limit = uv_hrtime() + CLOSE_WAIT_NS;
        client->callers++;
        while (model->leave.state < CALL_ENDED && client->state == CONNECTION_READY &&
               uv_hrtime() < limit) {
            client_await_until(client, &model->leave.changed, limit);
        }
        client->callers--;
        if (client->callers == 0 && client->closing) {
            pthread_cond_broadcast(&client->left);
        }
    }
    model->left = true;
    calls_leave(model, true);
}

void optclient_model_leave(struct optclient_model *model)
{
    if (model == NULL || api_check(model->client) != OPTCLIENT_OK) {
        return;
    }
    client_lock(model->client);
    leave(model, false);
    client_unlock(model->client);
}

void optclient_model_close(struct optclient_model *model)
{
    if (model == NULL || api_check(model->client) != OPTCLIENT_OK) {
        return;
    }
    struct optclient *client = model->client;
    client_lock(client);
    leave(model, true);
    if (model->leave.client != NULL && model->leave.state < CALL_ENDED) {
        model->abandoned = true; /* freed when the daemon has been told */
    } else {
        open_model_drop(model);
    }
    client_unlock(client);
}

size_t optclient_model_tensors(const struct optclient_model *model)
{
    return model->tensor_count;
}

const struct optclient_tensor *
optclient_model_tensor(const struct optclient_model *model, size_t index)
{
    return index < model->tensor_count ? &model->tensors[index] : NULL;
}

uint64_t optclient_tensor_elements(const struct optclient_tensor *tensor)
{
    return open_model_count_elements(tensor->shape, tensor->rank);
}

const char *optclient_model_specification(const struct optclient_model *model)
{
    return model->specification;
}

size_t optclient_model_find(const struct optclient_model *model, const char *name)
{
    return open_model_find(model, name);
}
