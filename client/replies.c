#include "client/replies.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "client/answers.h"
#include "client/client.h"
#include "client/handshake.h"
#include "client/in_flight.h"
#include "client/open_model.h"
#include "client/shm.h"

enum { RECEIVES_AT_ONCE = 4 /* before others have their turn at the lock */ };

static enum opt_message expected_reply(const struct optclient_call *call)
{
    enum opt_message message = call_message(call);
    return message == OPT_MESSAGE_OPEN ? OPT_MESSAGE_MODEL : message;
}

static bool reserve_buffer(struct optclient *client, size_t size)
{
    if (size <= client->in_capacity) {
        return true;
    }
    uint8_t *buffer = aligned_alloc(64, (size + 63) / 64 * 64);
    if (buffer == NULL) {
        return false;
    }
    free(client->in_buffer);
    client->in_buffer = buffer;
    client->in_capacity = size;
    return true;
}

static const struct opt_pull_reply *pull_reply(const struct opt_reply *reply)
{
    return reply->message == OPT_MESSAGE_PULL ? &reply->body.pull
                                              : &reply->body.push_pull.pull;
}

/* Find the place for the weights of a frame. */
static void place_weights(struct optclient *client, struct optclient_call *call,
                          size_t data_size)
{
    const struct opt_pull_reply *reply = pull_reply(&client->in_reply);
    struct opt_error error;
    enum opt_status status = reply->places != NULL
                                 ? shm_weights(call, reply, &error)
                                 : sink_accept(&call->sink, reply, data_size,
                                               client->settings.pull_dtype, &error);
    if (status != OPT_OK) {
        answers_fail(client, call, status, error.text);
        return;
    }
    if (data_size > 0) {
        client->in_data = (uint8_t *)sink_place(&call->sink, reply);
        if (client->in_data == NULL) {
            if (!reserve_buffer(client, data_size)) {
                answers_fail(client, call, OPT_RESOURCE_EXHAUSTED, "no memory");
                return;
            }
            client->in_data = client->in_buffer;
        }
    }
    client->in_call = call;
}

static void place_table(struct optclient *client, struct optclient_call *call,
                        size_t data_size)
{
    free(call->data);
    call->data = malloc(data_size + 1);
    if (call->data == NULL) {
        answers_fail(client, call, OPT_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    call->data_size = data_size;
    client->in_data = call->data;
    client->in_call = call;
}

/* A reply to a call: check that it can be one, and find the place of its data. */
static void place_answer(struct optclient *client, struct optclient_call *call,
                         size_t data_size)
{
    const struct opt_reply *reply = &client->in_reply;
    bool error = reply->message == OPT_MESSAGE_ERROR;
    if (!error && reply->message != expected_reply(call)) {
        char what[64];
        snprintf(what, sizeof(what), "the daemon answered with %s",
                 opt_message_name(reply->message));
        answers_fail(client, call, OPT_INTERNAL, what);
        return;
    }
    if (!error && client->settings.checksum && !reply->has_checksum && data_size > 0) {
        answers_fail(client, call, OPT_DATA_LOSS, "the daemon left out the checksum");
        return;
    }
    switch (reply->message) {
    case OPT_MESSAGE_PULL:
    case OPT_MESSAGE_PUSH_PULL:
        place_weights(client, call, data_size);
        break;
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_DESCRIBE:
        place_table(client, call, data_size);
        break;
    default:
        if (data_size > 0) {
            answers_fail(client, call, OPT_INTERNAL,
                         "the daemon answered with data that nobody asked for");
        } else {
            client->in_call = call;
        }
        break;
    }
}

static struct optclient_model *find_asked(struct optclient *client, uint64_t id)
{
    struct optclient_model *model = client->models;
    while (model != NULL && model->shm.asked != id) {
        model = model->next;
    }
    return model;
}

/* The weights in a reply, or NULL. */
static const struct opt_pull_reply *pulled(const struct opt_reply *reply)
{
    bool pulls =
        reply->message == OPT_MESSAGE_PULL || reply->message == OPT_MESSAGE_PUSH_PULL;
    return pulls ? pull_reply(reply) : NULL;
}

/* A reply that is not to a call. */
static void on_own_reply(struct optclient *client, const struct opt_reply *reply)
{
    bool error = reply->message == OPT_MESSAGE_ERROR;
    struct optclient_model *model = NULL;
    if (reply->id == 0) {
        if (error) {
            enum opt_status status = reply->body.error.status;
            handshake_on_error(
                client, &reply->body.error,
                status == OPT_FAILED_PRECONDITION ||
                    (status == OPT_UNAUTHENTICATED && !client->greeted_before));
        } else if (reply->message != OPT_MESSAGE_HEARTBEAT) {
            client_disconnect(client, "the daemon sent a reply without an id");
        } /* else it lives, and reads nothing for now, for want of room */
    } else if (reply->id == client->hello_id) {
        handshake_on_hello(client, reply);
    } else if (reply->id == client->heartbeat_id) {
        client->heartbeat_id = 0;
        if (error) {
            handshake_on_error(client, &reply->body.error,
                               reply->body.error.status == OPT_FAILED_PRECONDITION);
        }
    } else if (reply->id == client->goodbye_id) {
        client_disconnect(client, "goodbye");
    } else if (handshake_on_reopened(client, reply)) {
        return;
    } else if ((model = find_asked(client, reply->id)) != NULL) {
        model->shm.asked = 0;
        if (reply->message == OPT_MESSAGE_SHARE) {
            shm_take(model, &reply->body.share, client->socket);
        }
    } else if (reply->id > client->last_id) {
        client_disconnect(client,
                          "the daemon answered request %" PRIu64 ", which nobody made",
                          reply->id);
    }
    /* Else: to a call that has ended by its deadline, or was withdrawn. */
    const struct opt_pull_reply *pull = pulled(reply);
    if (pull != NULL && pull->last && shm_possible(client)) {
        shm_release(client, reply->id); /* if anything was lent */
    }
}

static bool on_header(struct optclient *client)
{
    struct opt_frame_reader *reader = client->socket->reader;
    size_t size;
    const uint8_t *header = opt_frame_header(reader, &size);
    size_t data_size = opt_frame_data_size(reader);
    opt_arena_reset(&client->arena);
    client->in_call = NULL;
    client->in_data = NULL;
    struct opt_error error;
    if (opt_reply_read(header, size, data_size, &client->arena, &client->in_reply,
                       &error) != OPT_OK) {
        client_disconnect(client, "the daemon sent a reply that cannot be read: %s",
                          error.text);
        return false;
    }
    if (client->in_reply.id != 0) {
        struct optclient_call *call = in_flight_find(client, client->in_reply.id);
        if (call != NULL) {
            place_answer(client, call, data_size);
        }
    }
    opt_frame_place(reader, client->in_data);
    return true;
}

static void take_frame(struct optclient *client)
{
    struct optclient_call *call = client->in_call;
    const struct opt_reply *reply = &client->in_reply;
    client->in_call = NULL;
    if (call == NULL) {
        on_own_reply(client, reply);
        return;
    }
    size_t data_size = opt_frame_data_size(client->socket->reader);
    if (client->settings.checksum && data_size > 0 &&
        opt_checksum(XXH3_64bits(client->in_data, data_size)) != reply->checksum) {
        /* On another connection it is asked again, or its push's fate is. */
        client_disconnect(client,
                          "the data of %s's answer to %s was damaged on its way",
                          client->endpoint.peer, call_name(call));
        return;
    }
    if (client->in_data != NULL && client->in_data == client->in_buffer) {
        sink_spread(&call->sink, pull_reply(reply), client->in_data);
    }
    answers_take(client, call, reply);
}

static void on_frame_in(struct optclient *client)
{
    client->socket->skipping = false;
    take_frame(client);
    if (client->in_reply.message == OPT_MESSAGE_SHARE) {
        /* To a call that has ended: the next answer must not be taken to have brought
         * these. */
        socket_drop_files(client->socket);
    }
}

/* Take in replies, as far as they have come. False if the connection has been given up.
 */
static bool receive_frames(struct optclient *client)
{
    struct opt_frame_reader *reader = client->socket->reader;
    while (!client->broken) {
        switch (opt_frame_next(reader)) {
        case OPT_FRAME_MORE:
            return true;
        case OPT_FRAME_HEADER:
            if (!on_header(client)) {
                return false;
            }
            break;
        case OPT_FRAME_DATA:
            break;
        case OPT_FRAME_END:
            on_frame_in(client);
            break;
        case OPT_FRAME_LONG:
            if (!opt_frame_grow(reader)) {
                client_disconnect(client, "no memory for a reply of the daemon");
                return false;
            }
            break;
        case OPT_FRAME_EARLY:
            client_disconnect(client,
                              "the daemon sent a reply whose data is not its last "
                              "field");
            return false;
        case OPT_FRAME_BROKEN:
            client_disconnect(client, "the daemon sent a broken frame: %s",
                              opt_frame_error(reader)->text);
            return false;
        }
    }
    return false;
}

void replies_take(struct optclient *client)
{
    for (int i = 0; i < RECEIVES_AT_ONCE && !client->broken; i++) {
        struct opt_error error;
        enum socket_flow flow = socket_receive(client->socket, &error);
        if (flow == SOCKET_BROKEN) {
            handshake_on_broken(client, &error);
        }
        if (flow != SOCKET_DONE || !receive_frames(client) || client->socket->drained) {
            return;
        }
    }
}
