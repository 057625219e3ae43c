/* The other workers of a model: meeting them, not holding them up, and learning that
 * one of them is lost. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/api.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/process.h"

enum optclient_status optclient_barrier(struct optclient_model *model,
                                        uint32_t timeout_ms,
                                        struct optclient_result *result)
{
    struct optclient *client = model->client;
    struct optclient_call call;
    enum optclient_status status = api_check(client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    call_init(&call, client, model, OPT_MESSAGE_BARRIER, timeout_ms);
    client_lock(client);
    call.request.body.barrier.sequence = ++client->last_barrier;
    client_unlock(client);
    status = api_run(&call);
    if (status == OPTCLIENT_OK && result != NULL) {
        *result = call.result;
    }
    call_fini(&call);
    return status;
}

enum optclient_status optclient_rest(struct optclient_model *model)
{
    struct optclient_call call;
    enum optclient_status status = api_check(model->client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    call_init(&call, model->client, model, OPT_MESSAGE_REST, 0);
    status = api_run(&call);
    call_fini(&call);
    return status;
}

int optclient_lost(struct optclient_model *model, char *name, size_t capacity)
{
    int found = 0;
    if (model->client->process != process_id()) {
        return 0; /* the lock may never be given back */
    }
    client_lock(model->client);
    while (found == 0 && model->lost_given < model->lost_count) {
        char **place = &model->lost[model->lost_given++ % OPEN_MODEL_LOST_KEPT];
        if (*place != NULL) {
            snprintf(name, capacity, "%s", *place);
            found = 1;
        }
        free(*place);
        *place = NULL;
    }
    client_unlock(model->client);
    return found;
}
