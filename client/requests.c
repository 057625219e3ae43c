#include "client/requests.h"

#include "client/client.h"
#include "client/handshake.h"
#include "client/open_model.h"
#include "client/reconnect.h"
#include "client/request_frame.h"
#include "client/shm.h"

enum {
    SEND_AT_ONCE = 8 << 20,  /* bytes, before others have their turn at the lock */
    PLACED_AT_ONCE = 1 << 20 /* bytes copied to shared memory, before the daemon is
                                told of them */
};

/* Ask for memory to share of the next model that wants it. False: none does. */
static bool begin_share(struct optclient *client)
{
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->shm.wanted && model->stage == OPEN_READY &&
            model->loss.status == OPT_OK && !model->closing && shm_claim(model)) {
            struct opt_request request = { .message = OPT_MESSAGE_SHARE,
                                           .body.share = model->number };
            model->shm.wanted = false;
            model->shm.asked = request_frame_begin_own(client, &request);
            return true;
        }
    }
    client->share_due = false;
    return false;
}

/* Begin the next frame, whatever it is. False: there is nothing to send. */
static bool begin_next(struct optclient *client)
{
    if (client->state == CONNECTION_REOPENING) {
        for (struct optclient_model *model = client->models; model != NULL;
             model = model->next) {
            if (reconnect_is_due(model)) {
                handshake_reopen(client, model);
                return true;
            }
        }
        return false;
    }
    if (client->state != CONNECTION_READY) {
        return false;
    }
    if (client->share_due && begin_share(client)) {
        return true;
    }
    if (client->queue.first != NULL && request_frame_has_room(client)) {
        request_frame_begin(client, client->queue.first);
        return true;
    }
    if (client->heartbeat_due && client->heartbeat_id == 0) {
        struct opt_request request = { .message = OPT_MESSAGE_HEARTBEAT };
        client->heartbeat_due = false;
        client->heartbeat_id = request_frame_begin_own(client, &request);
        return true;
    }
    if (client->goodbye_due) {
        struct opt_request request = { .message = OPT_MESSAGE_GOODBYE };
        client->goodbye_due = false;
        client->goodbye_id = request_frame_begin_own(client, &request);
        return true;
    }
    return false;
}

/* The frame begun last is out. */
static void on_frame_out(struct optclient *client)
{
    struct optclient_call *call = client->out_call;
    client->out_call = NULL;
    if (call != NULL && client->out_last) {
        call_unlink(call);
        call->state = CALL_SENT;
        call_append(&client->sent, call);
    }
}

/* Begin as many frames as can leave in one write. */
static void begin_frames(struct optclient *client)
{
    while (!client->broken && socket_joins(client->socket) &&
           client->placed_bytes < PLACED_AT_ONCE && begin_next(client)) {
        if (!socket_borrows(client->socket)) {
            on_frame_out(client); /* as good as: nothing of the caller's is needed */
        }
    }
}

void requests_send(struct optclient *client)
{
    struct socket *socket = client->socket;
    uint64_t enough = socket->bytes_sent + SEND_AT_ONCE;
    for (size_t placed = 0;;) {
        begin_frames(client);
        placed += client->placed_bytes;
        client->placed_bytes = 0;
        if (client->broken || !socket_sending(socket)) {
            return;
        }
        struct opt_error error;
        enum socket_flow flow = socket_flush(socket, &error);
        if (flow == SOCKET_BROKEN) {
            handshake_on_broken(client, &error);
        }
        if (flow != SOCKET_DONE) {
            return;
        }
        on_frame_out(client);
        if (socket->bytes_sent + placed >= enough) {
            return;
        }
    }
}

bool requests_have_more(const struct optclient *client)
{
    return socket_sending(client->socket) ||
           (client->state == CONNECTION_READY &&
            ((client->queue.first != NULL && request_frame_has_room(client)) ||
             client->goodbye_due || client->share_due));
}
