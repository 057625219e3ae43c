#include "client/replies.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>
#include <xxhash.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/in_flight.h"
#include "client/open_model.h"
#include "client/requests.h"
#include "client/resend.h"

enum {
    NS_PER_MS = 1000000,
    RECEIVES_AT_ONCE = 4,  /* before others have their turn at the lock */
    RETRY_WORTH_MS = 1000, /* least time left that makes asking again worth it */
};

static uint32_t or_default(uint64_t value, uint32_t fallback)
{
    return value == 0 ? fallback : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* Absent limits are those of the protocol; those nobody could work with are refused. */
static bool limits_valid(struct optclient *client, struct opt_hello_reply *daemon)
{
    daemon->block_elements = or_default(daemon->block_elements, OPT_BLOCK);
    daemon->chunk_bytes = or_default(daemon->chunk_bytes, OPT_CHUNK_BYTES);
    daemon->max_header_bytes = or_default(daemon->max_header_bytes, OPT_HEADER_BYTES);
    uint64_t frame = or_default(daemon->max_frame_bytes, OPT_FRAME_BYTES);
    uint64_t block = (uint64_t)daemon->block_elements * sizeof(float);
    uint64_t around = (uint64_t)daemon->max_header_bytes + OPT_FRAME_BEGIN_MAX;
    if (daemon->max_header_bytes < 4 * REQUEST_HEADER_FIXED || frame < around + block) {
        struct opt_error error;
        opt_fail(&error, OPT_UNIMPLEMENTED,
                 "%s accepts frames of %" PRIu64 " bytes with headers of %" PRIu32
                 "; blocks of %" PRIu32 " elements do not fit",
                 client->peer, frame, daemon->max_header_bytes, daemon->block_elements);
        calls_refuse(client, &error);
        return false;
    }
    if (daemon->chunk_bytes > frame - around) {
        daemon->chunk_bytes = (uint32_t)(frame - around);
    }
    if (daemon->chunk_bytes < block) {
        daemon->chunk_bytes = (uint32_t)block;
    }
    return true;
}

/* Whether a code will be the same however often the connection is made again. */
static bool is_final(enum opt_status status)
{
    return status == OPT_INVALID_ARGUMENT || status == OPT_PERMISSION_DENIED ||
           status == OPT_FAILED_PRECONDITION || status == OPT_UNIMPLEMENTED ||
           status == OPT_UNAUTHENTICATED;
}

/* The daemon does not want this connection, or this client. */
static void on_connection_error(struct optclient *client,
                                const struct opt_error_reply *reply, bool final)
{
    client->retry_after_ms = reply->retry_after_ms;
    if (final) {
        struct opt_error error;
        opt_fail_as(&error, reply->status, reply->detail, "%s: %s", client->peer,
                    reply->text);
        calls_refuse(client, &error);
    } else {
        client_disconnect(client, "the daemon says %s: %s",
                          opt_status_name(reply->status), reply->text);
        client->trouble.detail = reply->detail;
    }
}

static void on_hello(struct optclient *client, const struct opt_reply *reply)
{
    client->hello_id = 0;
    if (reply->message == OPT_MESSAGE_ERROR) {
        on_connection_error(client, &reply->body.error,
                            is_final(reply->body.error.status));
        return;
    }
    if (reply->message != OPT_MESSAGE_HELLO) {
        client_disconnect(client, "the daemon answered hello with %s",
                          opt_message_name(reply->message));
        return;
    }
    struct opt_hello_reply daemon = reply->body.hello;
    daemon.server = ""; /* belongs to the arena */
    daemon.lost = "";
    if (daemon.protocol != OPT_PROTOCOL) {
        struct opt_error error;
        opt_fail(&error, OPT_UNIMPLEMENTED,
                 "%s speaks protocol %" PRIu32 "; this library speaks %d", client->peer,
                 daemon.protocol, (int)OPT_PROTOCOL);
        calls_refuse(client, &error);
    } else if (limits_valid(client, &daemon)) {
        client->daemon = daemon;
        client->incarnation = daemon.incarnation;
        snprintf(client->lost, sizeof(client->lost), "%s", reply->body.hello.lost);
        client->state = CONNECTION_REOPENING;
    }
}

static void on_restored(struct optclient *client, struct optclient_model *model,
                        const struct opt_reply *reply)
{
    const struct opt_model_reply *found = &reply->body.model;
    if (reply->message == OPT_MESSAGE_ERROR) {
        const struct opt_error_reply *error = &reply->body.error;
        if (error->status == OPT_UNAVAILABLE ||
            error->status == OPT_RESOURCE_EXHAUSTED ||
            error->status == OPT_FAILED_PRECONDITION) {
            on_connection_error(client, error,
                                error->status == OPT_FAILED_PRECONDITION);
            return;
        }
        calls_fail_model(model, error->status,
                         "model \"%s\" is gone after the connection was lost: %s",
                         model->name, error->text);
    } else if (reply->message != OPT_MESSAGE_MODEL) {
        client_disconnect(client, "the daemon answered open with %s",
                          opt_message_name(reply->message));
        return;
    } else if (found->identity != model->identity) {
        calls_fail_model(model, OPT_NOT_FOUND,
                         "model \"%s\" is gone after the connection was lost; "
                         "another one has its name: %s, %" PRIu64 " tensors",
                         model->name, found->specification, found->tensors);
    } else {
        model->number = found->model;
        client->daemon.inflight_bytes = found->inflight_bytes;
        model->step = found->step;
        model->known_after = found->step;
        resend_pushes(client, model, found);
        if (model->last_sequence < found->last_sequence) {
            model->last_sequence = found->last_sequence;
        }
    }
    model->reopen_id = REOPEN_DONE;
}

/* Ask again, later. What became of a push so far goes with it: it has the same number
 * unless the daemon has settled that. */
static void ask_later(struct optclient *client, struct optclient_call *call,
                      uint32_t wait_ms)
{
    in_flight_forget(client, call);
    call_unlink(call);
    call->state = CALL_LATER;
    call->begun = false;
    fate_resend(&call->fate);
    call->not_before_ns = uv_hrtime() + (uint64_t)wait_ms * NS_PER_MS;
    call_append(&client->later, call);
    client_alarm(client, call->not_before_ns);
}

/* Whether a request that was refused so may be granted later. *wait_ms: when. */
static bool may_heal(const struct optclient *client, const struct optclient_call *call,
                     const struct opt_error_reply *reply, uint32_t *wait_ms)
{
    enum opt_status status = reply->status;
    uint32_t left_ms = call_ms_left(call);
    if (call->request.message == OPT_MESSAGE_ASSIGN || !fate_may_resend(&call->fate)) {
        return false;
    }
    if (status == OPT_DEADLINE_EXCEEDED || reply->detail == OPT_DETAIL_OUT_OF_ORDER) {
        /* The daemon's limit is shorter than this call's; or, while a copy of the push
         * was lost, a later one has passed it. */
        *wait_ms = 0;
        return left_ms >= RETRY_WORTH_MS;
    }
    *wait_ms = reply->retry_after_ms > client->backoff.min_ms ? reply->retry_after_ms
                                                              : client->backoff.min_ms;
    bool busy = status == OPT_UNAVAILABLE ||
                (status == OPT_RESOURCE_EXHAUSTED && reply->retry_after_ms > 0);
    /* Or what was sent came damaged. */
    return (busy || status == OPT_DATA_LOSS) && *wait_ms < left_ms;
}

static void end_refused(struct optclient *client, struct optclient_call *call,
                        const struct opt_error_reply *reply)
{
    if (call->model != NULL && call->model->closing && call_has_push(call)) {
        opt_fail(&call->error, OPT_CANCELLED, "the model is being closed%s",
                 fate_words(&call->fate));
        calls_end(client, call, OPT_CANCELLED);
        return;
    }
    bool untold = call_has_push(call) && fate_is_open(&call->fate);
    opt_fail_as(&call->error, reply->status, reply->detail, "%s%s", reply->text,
                untold ? fate_words(&call->fate) : "");
    calls_end(client, call, reply->status);
}

static void on_error(struct optclient *client, struct optclient_call *call,
                     const struct opt_error_reply *reply)
{
    enum opt_message message = call->request.message;
    enum opt_status status = reply->status;
    if (call_pushes(call) && fate_is_untold(&call->fate, reply)) {
        client_disconnect(client, "part of a push was refused: %s", reply->text);
        return;
    }
    if (status == OPT_FAILED_PRECONDITION) {
        /* Is it this call, or has another process taken this worker's name? Only in the
         * second case a heartbeat is refused as well. */
        client->heartbeat_due = true;
    }
    if (message == OPT_MESSAGE_LEAVE ||
        (message == OPT_MESSAGE_DELETE && call->resent && status == OPT_NOT_FOUND)) {
        calls_end(client, call, OPT_OK);
        return;
    }
    if (call_pushes(call)) {
        fate_refuse(&call->fate, reply);
        call->pushed = call->fate.settled == OPT_FATE_APPLIED;
    }
    if (!call_pushes(call) || fate_tell(&call->fate) != OPT_FATE_NOT_KNOWN) {
        call->placed = false; /* else a copy that stands may still be read from there */
    }
    uint32_t wait_ms;
    if (may_heal(client, call, reply, &wait_ms)) {
        opt_fail_as(&call->error, status, reply->detail, "%s", reply->text);
        ask_later(client, call, wait_ms);
    } else {
        end_refused(client, call, reply);
    }
}

static void take_lost(struct optclient_call *call, const struct opt_lost *lost)
{
    for (size_t i = 0; i < lost->count; i++) {
        open_model_note_lost(call->model, lost->names[i]);
    }
    call->result.lost += lost->count;
}

static void take_push(struct optclient_call *call, const struct opt_push_reply *reply)
{
    call->placed = false; /* the daemon has no more use for it */
    take_lost(call, &reply->lost);
    fate_answer(&call->fate, reply->fate);
    call->result.fate = (enum optclient_fate)reply->fate;
    call->result.step = reply->step;
    call->result.staleness = reply->staleness;
    call->result.epoch = reply->epoch;
    if (reply->fate == OPT_FATE_DROPPED) {
        opt_fail(&call->error, OPT_OK, "%s", reply->reason);
    }
}

static void see_step(struct optclient_model *model, uint64_t step)
{
    if (model->step < step) {
        model->step = step;
    }
}

static void fail_reply(struct optclient *client, struct optclient_call *call,
                       enum opt_status status, const char *what)
{
    struct opt_error error;
    opt_fail(&error, status, "%s: %s%s", call_name(call), what,
             call_has_push(call) ? fate_words(&call->fate) : "");
    call->error = error;
    calls_end(client, call, status);
}

/* The whole answer to a pull is here. */
static void finish_pull(struct optclient *client, struct optclient_call *call,
                        const struct opt_pull_reply *reply)
{
    if (!sink_full(&call->sink)) {
        fail_reply(client, call, OPT_DATA_LOSS,
                   "the daemon ended its answer before all weights had come");
        return;
    }
    if (call->lent && !socket_alive(client->socket)) {
        client_disconnect(client, "the connection ended while weights were read");
        return; /* and they are asked for again */
    }
    if (call->in_place) {
        shm_view_end(call->model, call->lent ? call->id : 0);
        call->lent = false; /* it is the view's */
    }
    call->result.step = reply->step;
    call->result.epoch = reply->epoch;
    call->result.unchanged = call->sink.unchanged;
    call->result.held = call->sink.held;
    see_step(call->model, reply->step);
    if (call_pull_of(&call->request)->view != OPT_VIEW_SLOT) {
        call->model->pulled_step = reply->step;
    }
    calls_end(client, call, OPT_OK);
}

static void finish_wait(struct optclient *client, struct optclient_call *call,
                        const struct opt_wait_reply *reply)
{
    take_lost(call, &reply->lost);
    call->result.step = reply->step;
    call->result.epoch = reply->epoch;
    see_step(call->model, reply->step);
    calls_end(client, call, OPT_OK);
}

/* Keep a reply's strings with the call. */
static void keep_reply(struct optclient *client, struct optclient_call *call)
{
    struct opt_arena arena = call->arena;
    call->arena = client->arena;
    client->arena = arena;
    call->reply = client->in_reply;
    if (call->reply.message == OPT_MESSAGE_MODEL && call->model != NULL) {
        const struct opt_model_reply *reply = &call->reply.body.model;
        call->model->stage = OPEN_MAKING;
        call->model->number = reply->model;
        call->model->identity = reply->identity;
        call->model->step = reply->step;
        call->model->last_sequence = reply->last_sequence;
        client->daemon.inflight_bytes = reply->inflight_bytes;
    }
    calls_end(client, call, OPT_OK);
}

static void on_answer(struct optclient *client, struct optclient_call *call,
                      const struct opt_reply *reply)
{
    switch (reply->message) {
    case OPT_MESSAGE_ERROR:
        on_error(client, call, &reply->body.error);
        break;
    case OPT_MESSAGE_PUSH:
        take_push(call, &reply->body.push);
        if (call->result.fate == OPTCLIENT_UNKNOWN_FATE) {
            fail_reply(client, call, OPT_INTERNAL, "the daemon did not say its fate");
            break;
        }
        see_step(call->model, reply->body.push.step);
        calls_end(client, call, OPT_OK);
        break;
    case OPT_MESSAGE_PULL:
        if (reply->body.pull.last) {
            finish_pull(client, call, &reply->body.pull);
        }
        break;
    case OPT_MESSAGE_PUSH_PULL:
        if (reply->body.push_pull.has_push) {
            take_push(call, &reply->body.push_pull.push);
        }
        if (reply->body.push_pull.pull.last) {
            if (call->result.fate == OPTCLIENT_UNKNOWN_FATE) {
                fail_reply(client, call, OPT_INTERNAL,
                           "the daemon did not say the push's fate");
            } else {
                finish_pull(client, call, &reply->body.push_pull.pull);
            }
        }
        break;
    case OPT_MESSAGE_WAIT:
        finish_wait(client, call, &reply->body.wait);
        break;
    case OPT_MESSAGE_BARRIER:
        finish_wait(client, call, &reply->body.barrier);
        break;
    case OPT_MESSAGE_SHARE:
        shm_take(call->model, &reply->body.share, client->socket);
        calls_end(client, call, OPT_OK);
        break;
    case OPT_MESSAGE_MODEL:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_SET:
        keep_reply(client, call);
        break;
    default: /* list, describe: their data is with the call; others say no more */
        /* A frame of an upload may be answered before the next has been begun. */
        if (reply->message != OPT_MESSAGE_ASSIGN ||
            (reply->id == call->id && cutter_done(&call->cutter))) {
            calls_end(client, call, OPT_OK);
        }
        break;
    }
}

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
        fail_reply(client, call, status, error.text);
        return;
    }
    if (data_size > 0) {
        client->in_data = (uint8_t *)sink_place(&call->sink, reply);
        if (client->in_data == NULL) {
            if (!reserve_buffer(client, data_size)) {
                fail_reply(client, call, OPT_RESOURCE_EXHAUSTED, "no memory");
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
        fail_reply(client, call, OPT_RESOURCE_EXHAUSTED, "no memory");
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
        fail_reply(client, call, OPT_INTERNAL, what);
        return;
    }
    if (!error && client->settings.checksum && !reply->has_checksum && data_size > 0) {
        fail_reply(client, call, OPT_DATA_LOSS, "the daemon left out the checksum");
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
            fail_reply(client, call, OPT_INTERNAL,
                       "the daemon answered with data that nobody asked for");
        } else {
            client->in_call = call;
        }
        break;
    }
}

static struct optclient_model *find_restored(struct optclient *client, uint64_t id)
{
    struct optclient_model *model = client->models;
    while (model != NULL && model->reopen_id != id) {
        model = model->next;
    }
    return model;
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
            on_connection_error(client, &reply->body.error,
                                reply->body.error.status == OPT_FAILED_PRECONDITION);
        } else if (reply->message != OPT_MESSAGE_HEARTBEAT) {
            client_disconnect(client, "the daemon sent a reply without an id");
        } /* else it lives, and reads nothing for now, for want of room */
    } else if (reply->id == client->hello_id) {
        on_hello(client, reply);
    } else if (reply->id == client->heartbeat_id) {
        client->heartbeat_id = 0;
        if (error) {
            on_connection_error(client, &reply->body.error,
                                reply->body.error.status == OPT_FAILED_PRECONDITION);
        }
    } else if (reply->id == client->goodbye_id) {
        client_disconnect(client, "goodbye");
    } else if (client->state == CONNECTION_REOPENING &&
               (model = find_restored(client, reply->id)) != NULL) {
        on_restored(client, model, reply);
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
                          client->peer, call_name(call));
        return;
    }
    if (client->in_data != NULL && client->in_data == client->in_buffer) {
        sink_spread(&call->sink, pull_reply(reply), client->in_data);
    }
    on_answer(client, call, reply);
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
            client_disconnect(client, "%s", error.text);
        }
        if (flow != SOCKET_DONE || !receive_frames(client) || client->socket->drained) {
            return;
        }
    }
}
