#include "client/in_flight.h"

#include "client/client.h"
#include "client/shm.h"

void in_flight_add(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **bucket = &client->by_id[call->id % CLIENT_ID_BUCKETS];
    call->next_of_id = *bucket;
    *bucket = call;
}

void in_flight_remove(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **place = &client->by_id[call->id % CLIENT_ID_BUCKETS];
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

struct optclient_call *in_flight_find(struct optclient *client, uint64_t id)
{
    struct optclient_call *call = client->by_id[id % CLIENT_ID_BUCKETS];
    while (call != NULL && call->id != id) {
        call = call->next_of_id;
    }
    if (call == NULL) {
        call = find_assign(&client->queue, id);
    }
    return call != NULL ? call : find_assign(&client->sent, id);
}

void in_flight_forget(struct optclient *client, struct optclient_call *call)
{
    if (call->lent) {
        call->lent = false;
        shm_release(client, call->id);
    }
    if (call->id != 0) {
        in_flight_remove(client, call);
    }
    client->inflight -= call->held;
    call->held = 0;
    if (client->out_call == call) {
        client->out_call = NULL;
        if (!socket_release(client->socket)) {
            client_disconnect(client, "no memory to finish a frame");
        }
    }
    if (client->in_call == call) {
        client->in_call = NULL;
        if (client->in_data != NULL && client->in_data != client->in_buffer &&
            !socket_skip(client->socket)) {
            client_disconnect(client, "no memory to finish a frame");
        }
    }
}
