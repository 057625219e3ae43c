#include "client/reconnect.h"

#include <string.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/shm.h"

void reconnect_begin(struct optclient *client)
{
    client->out_call = NULL;
    client->in_call = NULL;
    client->connection++;
    client->released_count = 0;
    client->inflight = 0;
    client->hello_id = 0;
    client->heartbeat_id = 0;
    client->heartbeat_due = false;
    memset(client->by_id, 0, sizeof(client->by_id));
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        model->reopen_id = REOPEN_NOT_ASKED;
        shm_reset(model);
    }
    for (struct optclient_call *call = client->later.first; call != NULL;
         call = call->next) {
        fate_cut(&call->fate);
    }
    /* What was sent goes before what was not, in the order in which it was sent. */
    struct call_list rest = client->queue;
    client->queue = client->sent;
    client->sent = (struct call_list){ NULL, NULL };
    for (struct optclient_call *call = client->queue.first; call != NULL;
         call = call->next) {
        call->list = &client->queue;
    }
    struct optclient_call *next;
    for (struct optclient_call *call = rest.first; call != NULL; call = next) {
        next = call->next;
        call_append(&client->queue, call);
    }
    for (struct optclient_call *call = client->queue.first; call != NULL;
         call = call->next) {
        call->state = CALL_QUEUED;
        call->resent = call->resent || call->begun;
        call->begun = false;
        call->held = 0;
        fate_cut(&call->fate);
        call->placed = false; /* and is sent from the caller's memory */
        call->lent = false;
        call->id = 0;
    }
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->stage == OPEN_MAKING && model->loss.status == OPT_OK) {
            calls_fail_model(model, OPT_ABORTED,
                             "the connection was lost while model \"%s\" was made",
                             model->name);
        }
    }
}

bool reconnect_is_due(const struct optclient_model *model)
{
    return model->stage == OPEN_READY && model->reopen_id == REOPEN_NOT_ASKED &&
           model->loss.status == OPT_OK;
}

bool reconnect_is_over(const struct optclient *client)
{
    for (const struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->stage == OPEN_READY && model->reopen_id != REOPEN_DONE &&
            model->loss.status == OPT_OK) {
            return false;
        }
    }
    return true;
}
