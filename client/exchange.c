#include "client/exchange.h"

#include <string.h>

#include "client/opened.h"
#include "client/session.h"

void exchange_id_insert(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **bucket = &client->by_id[call->id % SESSION_ID_BUCKETS];
    call->next_of_id = *bucket;
    *bucket = call;
}

void exchange_id_remove(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **place = &client->by_id[call->id % SESSION_ID_BUCKETS];
    while (*place != NULL && *place != call) {
        place = &(*place)->next_of_id;
    }
    if (*place == call) {
        *place = call->next_of_id;
    }
    call->next_of_id = NULL;
    call->id = 0;
}

/* An upload of initial weights is one call, but each of its frames is a request. */
static struct optclient_call *find_assign(const struct call_list *list, uint64_t id)
{
    for (struct optclient_call *call = list->first; call != NULL; call = call->next) {
        if (call->request.message == OPT_MESSAGE_ASSIGN && call->id != 0 &&
            id >= call->first_id && id <= call->id) {
            return call;
        }
    }
    return NULL;
}

struct optclient_call *exchange_id_find(struct optclient *client, uint64_t id)
{
    struct optclient_call *call = client->by_id[id % SESSION_ID_BUCKETS];
    while (call != NULL && call->id != id) {
        call = call->next_of_id;
    }
    if (call == NULL) {
        call = find_assign(&client->queue, id);
    }
    return call != NULL ? call : find_assign(&client->sent, id);
}

void exchange_forget(struct optclient *client, struct optclient_call *call)
{
    if (call->lent) {
        call->lent = false;
        shared_release(client, call->id);
    }
    if (call->id != 0) {
        exchange_id_remove(client, call);
    }
    client->inflight -= call->held;
    call->held = 0;
    if (client->out_call == call) {
        client->out_call = NULL;
        if (!uplink_release(client->uplink)) {
            session_break(client, "no memory to finish a frame");
        }
    }
    if (client->in_call == call) {
        client->in_call = NULL;
        if (client->in_data != NULL && client->in_data != client->in_buffer &&
            !uplink_skip(client->uplink)) {
            session_break(client, "no memory to finish a frame");
        }
    }
}

void exchange_reset(struct optclient *client)
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
        model->restore_id = OPENED_NOT_RESTORED;
        shared_reset(model);
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
        if (model->stage == OPENED_MAKING && model->loss.status == OPT_OK) {
            session_fail_model(model, OPT_ABORTED,
                               "the connection was lost while model \"%s\" was made",
                               model->name);
        }
    }
}

bool exchange_needs_restoring(const struct optclient_model *model)
{
    return model->stage == OPENED_READY && model->restore_id == OPENED_NOT_RESTORED &&
           model->loss.status == OPT_OK;
}

void exchange_restored(struct optclient *client)
{
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->stage == OPENED_READY && model->restore_id != OPENED_RESTORED &&
            model->loss.status == OPT_OK) {
            return;
        }
    }
    session_ready(client);
}
