/* What travels on a connection: requests out, replies in. Lock held throughout. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "client/session.h"

enum {
    NS_PER_MS = 1000000,
    SEND_AT_ONCE = 8 << 20, /* bytes, before others have their turn at the lock */
    HEADER_FIXED = 1024,    /* room in a header part for all but segments */
    RETRY_WORTH_MS = 1000,  /* least time left that makes asking again worth it */
    IDS = SESSION_ID_BUCKETS
};

/* ------------------------------------------------------------------------------ ids */

static void id_insert(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **bucket = &client->by_id[call->id % IDS];
    call->next_of_id = *bucket;
    *bucket = call;
}

static void id_remove(struct optclient *client, struct optclient_call *call)
{
    struct optclient_call **place = &client->by_id[call->id % IDS];
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

static struct optclient_call *id_find(struct optclient *client, uint64_t id)
{
    struct optclient_call *call = client->by_id[id % IDS];
    while (call != NULL && call->id != id) {
        call = call->next_of_id;
    }
    if (call == NULL) {
        call = find_assign(&client->queue, id);
    }
    return call != NULL ? call : find_assign(&client->sent, id);
}

/* -------------------------------------------------------------------------- sending */

static uint32_t ms_left(const struct optclient_call *call)
{
    uint64_t now = uv_hrtime();
    uint64_t left = call->deadline_ns <= now
                        ? 1
                        : (call->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

/* Begin a frame without data of a call: hello, open, heartbeat, goodbye. */
static uint64_t begin_own(struct optclient *client, struct opt_request *request)
{
    request->id = ++client->last_id;
    request->timeout_ms = SESSION_STEP_MS;
    size_t header_size;
    if (!uplink_begin(client->uplink, request, 0, SIZE_MAX, &header_size)) {
        session_break(client, "no memory for a request");
    }
    client->active = true;
    return request->id;
}

void exchange_greet(struct optclient *client)
{
    struct opt_request request = {
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = client->settings.worker,
                        .session = client->session,
                        .client = "liboptclient " OPTIMD_VERSION },
    };
    client->hello_id = begin_own(client, &request);
}

static bool needs_restoring(const struct optclient_model *model)
{
    return model->stage == MODEL_OPEN && model->restore_id == MODEL_NOT_RESTORED &&
           model->loss.status == OPT_OK;
}

static void begin_restore(struct optclient *client, struct optclient_model *model)
{
    struct opt_request request = {
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = model->name, .join = model->joined && !model->closing },
    };
    model->restore_id = begin_own(client, &request);
}

static struct opt_pull *pull_of(struct opt_request *request)
{
    return request->message == OPT_MESSAGE_PULL ? &request->body.pull
                                                : &request->body.push_pull.pull;
}

static struct opt_push *push_of(struct opt_request *request)
{
    return request->message == OPT_MESSAGE_PUSH ? &request->body.push
                                                : &request->body.push_pull.push;
}

/* What of a call is filled in anew each time it is sent. False: no memory. */
static bool begin_call(struct optclient *client, struct optclient_call *call)
{
    call->begun = true;
    call->id = ++client->last_id;
    call->first_id = call->id;
    id_insert(client, call);
    cutter_rewind(&call->cutter);
    if (call_pushes(call)) {
        if (call->sequence == 0) {
            call->sequence = ++call->model->last_sequence;
        }
        client->usage.resends += call->resent;
    }
    return !call_pulls(call) || sink_begin(&call->sink, client->daemon.block_elements);
}

/* The list of segments of a pull, if it is short enough for a header; else all tensors
 * are asked for, and those not wanted are thrown away. */
static bool lists_segments(const struct optclient *client,
                           const struct optclient_call *call)
{
    return call->segments != NULL &&
           call->segment_bytes <= client->daemon.max_header_bytes / 2;
}

static void fill_pull(const struct optclient *client, const struct optclient_call *call,
                      struct opt_pull *pull)
{
    pull->model = call->model->number;
    if (lists_segments(client, call)) {
        pull->segments = call->segments;
        pull->segment_count = call->sink.count;
    }
}

static size_t cut_frame(struct optclient *client, struct optclient_call *call)
{
    size_t header = client->daemon.max_header_bytes - HEADER_FIXED;
    if (call_pulls(call) && lists_segments(client, call)) {
        header -= call->segment_bytes;
    }
    struct cutter_limits limits = { .data_bytes = client->daemon.chunk_bytes,
                                    .header_bytes = header,
                                    .block = client->daemon.block_elements };
    cutter_next(&call->cutter, &limits, &client->cut);
    return client->cut.elements * opt_dtype_size(call->cutter.dtype);
}

/* Fill in what is asked by this frame of the call. Returns the size of its data. */
static size_t fill_request(struct optclient *client, struct optclient_call *call,
                           struct opt_request *request)
{
    bool applied = call->pushed;
    *request = call->request;
    request->message = call_message(call);
    if (applied) {
        request->body.pull = call->request.body.push_pull.pull;
        request->body.pull.min_step = 0;
    }
    request->id = call->id;
    request->timeout_ms = ms_left(call);
    size_t data_size = 0;
    switch (request->message) {
    case OPT_MESSAGE_PUSH:
    case OPT_MESSAGE_PUSH_PULL: {
        struct opt_push *push = push_of(request);
        push->model = call->model->number;
        push->sequence = call->sequence;
        push->frame = call->cutter.frame;
        data_size = cut_frame(client, call);
        push->segments = client->cut.segments;
        push->segment_count = client->cut.count;
        push->last = cutter_done(&call->cutter);
        if (request->message == OPT_MESSAGE_PUSH_PULL) {
            request->body.push_pull.has_pull = push->last;
            fill_pull(client, call, pull_of(request));
        }
        break;
    }
    case OPT_MESSAGE_ASSIGN:
        if (call->cutter.frame > 0) {
            id_remove(client, call);
            call->id = ++client->last_id;
            id_insert(client, call);
            request->id = call->id;
        }
        request->body.assign.model = call->model->number;
        data_size = cut_frame(client, call);
        request->body.assign.segments = client->cut.segments;
        request->body.assign.segment_count = client->cut.count;
        request->body.assign.last = cutter_done(&call->cutter);
        break;
    case OPT_MESSAGE_PULL:
        fill_pull(client, call, pull_of(request));
        break;
    case OPT_MESSAGE_WAIT:
        request->body.wait.model = call->model->number;
        break;
    case OPT_MESSAGE_LEAVE:
        request->body.leave = call->model->number;
        break;
    default:
        data_size = call->table_size;
        break;
    }
    return data_size;
}

static bool has_values(enum opt_message message)
{
    return message == OPT_MESSAGE_PUSH || message == OPT_MESSAGE_PUSH_PULL ||
           message == OPT_MESSAGE_ASSIGN;
}

/* The values of the cut as they go over the wire, in the uplink's memory; NULL if there
 * is none. */
static uint8_t *narrow(struct optclient *client, enum opt_dtype dtype, size_t size)
{
    uint8_t *room = uplink_room(client->uplink, size);
    uint8_t *out = room;
    for (size_t i = 0; out != NULL && i < client->cut.count; i++) {
        size_t elements = (size_t)client->cut.segments[i].count;
        opt_dtype_narrow(dtype, client->cut.places[i], out, elements);
        out += elements * opt_dtype_size(dtype);
    }
    return room;
}

static uint64_t hash_cut(struct optclient *client)
{
    XXH3_64bits_reset(client->hash);
    for (size_t i = 0; i < client->cut.count; i++) {
        XXH3_64bits_update(client->hash, client->cut.places[i],
                           (size_t)client->cut.segments[i].count * sizeof(float));
    }
    return XXH3_64bits_digest(client->hash);
}

static void add_values(struct optclient *client, const uint8_t *narrowed, size_t size)
{
    if (narrowed != NULL) {
        uplink_add(client->uplink, narrowed, size);
        return;
    }
    for (size_t i = 0; i < client->cut.count; i++) {
        uplink_add(client->uplink, client->cut.places[i],
                   (size_t)client->cut.segments[i].count * sizeof(float));
    }
}

/* A call cannot be sent. */
static void fail_call(struct optclient *client, struct optclient_call *call,
                      size_t header_size)
{
    enum opt_status status = OPT_RESOURCE_EXHAUSTED;
    if (header_size > 0) {
        status = OPT_INVALID_ARGUMENT;
        opt_fail(
            &call->error, status,
            "%s: the request's header takes %zu bytes; the daemon accepts %" PRIu32,
            call_name(call), header_size, client->daemon.max_header_bytes);
    } else {
        opt_fail(&call->error, status, "%s: no memory", call_name(call));
    }
    session_end(client, call, status);
}

/* Put the next frame of a call on its way. */
static void begin_frame(struct optclient *client, struct optclient_call *call)
{
    if (!call->begun && !begin_call(client, call)) {
        fail_call(client, call, 0);
        return;
    }
    struct opt_request request;
    size_t data_size = fill_request(client, call, &request);
    bool values = has_values(request.message);
    const uint8_t *narrowed = NULL;
    if (values && call->cutter.dtype != OPT_FP32) {
        narrowed = narrow(client, call->cutter.dtype, data_size);
        if (narrowed == NULL) {
            fail_call(client, call, 0);
            return;
        }
    }
    if (request.has_checksum) {
        request.checksum = narrowed != NULL ? XXH3_64bits(narrowed, data_size)
                           : values         ? hash_cut(client)
                                            : XXH3_64bits(call->table, data_size);
    }
    size_t header_size;
    if (!uplink_begin(client->uplink, &request, data_size,
                      client->daemon.max_header_bytes, &header_size)) {
        fail_call(client, call, header_size);
        return;
    }
    if (values) {
        add_values(client, narrowed, data_size);
    } else if (data_size > 0) {
        uplink_add(client->uplink, call->table, data_size);
    }
    client->out_call = call;
    client->out_last = !values || cutter_done(&call->cutter);
    client->active = true;
    if (client->out_last) {
        call->asked = true;
    }
}

/* Begin the next frame, whatever it is. False: there is nothing to send. */
static bool begin_next(struct optclient *client)
{
    if (client->state == SESSION_RESTORING) {
        for (struct optclient_model *model = client->models; model != NULL;
             model = model->next) {
            if (needs_restoring(model)) {
                begin_restore(client, model);
                return true;
            }
        }
        return false;
    }
    if (client->state != SESSION_READY) {
        return false;
    }
    if (client->queue.first != NULL) {
        begin_frame(client, client->queue.first);
        return true;
    }
    if (client->heartbeat_due && client->heartbeat_id == 0) {
        struct opt_request request = { .message = OPT_MESSAGE_HEARTBEAT };
        client->heartbeat_due = false;
        client->heartbeat_id = begin_own(client, &request);
        return true;
    }
    if (client->goodbye_due) {
        struct opt_request request = { .message = OPT_MESSAGE_GOODBYE };
        client->goodbye_due = false;
        client->goodbye_id = begin_own(client, &request);
        return true;
    }
    return false;
}

/* A frame is out. */
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

void exchange_send(struct optclient *client)
{
    struct uplink *uplink = client->uplink;
    uint64_t enough = uplink->bytes_sent + SEND_AT_ONCE;
    while (!client->broken) {
        struct opt_error error;
        enum uplink_flow flow = uplink_flush(uplink, &error);
        if (flow == UPLINK_BROKEN) {
            session_break(client, "%s", error.text);
        }
        if (flow != UPLINK_DONE) {
            return;
        }
        on_frame_out(client);
        if (uplink->bytes_sent >= enough || !begin_next(client)) {
            return;
        }
    }
}

bool exchange_has_more(const struct optclient *client)
{
    return uplink_sending(client->uplink) ||
           (client->state == SESSION_READY &&
            (client->queue.first != NULL || client->goodbye_due));
}

/* ----------------------------------------------------------------- forgetting calls */

void exchange_forget(struct optclient *client, struct optclient_call *call)
{
    if (call->id != 0) {
        id_remove(client, call);
    }
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
    client->hello_id = 0;
    client->heartbeat_id = 0;
    client->heartbeat_due = false;
    memset(client->by_id, 0, sizeof(client->by_id));
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        model->restore_id = MODEL_NOT_RESTORED;
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
        call->id = 0;
    }
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->stage == MODEL_MAKING && model->loss.status == OPT_OK) {
            session_fail_model(model, OPT_ABORTED,
                               "the connection was lost while model \"%s\" was made",
                               model->name);
        }
    }
}

void exchange_restored(struct optclient *client)
{
    for (struct optclient_model *model = client->models; model != NULL;
         model = model->next) {
        if (model->stage == MODEL_OPEN && model->restore_id != MODEL_RESTORED &&
            model->loss.status == OPT_OK) {
            return;
        }
    }
    session_ready(client);
}

/* -------------------------------------------------------------------------- replies */

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
    if (daemon->max_header_bytes < 4 * HEADER_FIXED || frame < around + block) {
        struct opt_error error;
        opt_fail(&error, OPT_UNIMPLEMENTED,
                 "%s accepts frames of %" PRIu64 " bytes with headers of %" PRIu32
                 "; blocks of %" PRIu32 " elements do not fit",
                 client->peer, frame, daemon->max_header_bytes, daemon->block_elements);
        session_refuse(client, &error);
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
        opt_fail(&error, reply->status, "%s: %s", client->peer, reply->text);
        session_refuse(client, &error);
    } else {
        session_break(client, "the daemon says %s: %s", opt_status_name(reply->status),
                      reply->text);
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
        session_break(client, "the daemon answered hello with %s",
                      opt_message_name(reply->message));
        return;
    }
    struct opt_hello_reply daemon = reply->body.hello;
    daemon.server = ""; /* belongs to the arena */
    if (daemon.protocol != OPT_PROTOCOL) {
        struct opt_error error;
        opt_fail(&error, OPT_UNIMPLEMENTED,
                 "%s speaks protocol %" PRIu32 "; this library speaks %d", client->peer,
                 daemon.protocol, (int)OPT_PROTOCOL);
        session_refuse(client, &error);
    } else if (limits_valid(client, &daemon)) {
        client->daemon = daemon;
        client->state = SESSION_RESTORING;
        exchange_restored(client);
    }
}

/* Which of the model's pushes have been applied is known again. */
static void settle_pushes(struct optclient *client, struct optclient_model *model,
                          const struct opt_model_reply *reply)
{
    struct optclient_call *next;
    for (struct optclient_call *call = client->queue.first; call != NULL; call = next) {
        next = call->next;
        if (call->model != model || !call_pushes(call) || call->sequence == 0 ||
            call->sequence > reply->last_sequence) {
            continue;
        }
        if (!call->asked) {
            call->sequence = 0; /* never sent whole, so the number is somebody else's */
            continue;
        }
        call->result.fate = OPTCLIENT_DUPLICATE;
        call->result.step = reply->step;
        if (call->request.message == OPT_MESSAGE_PUSH) {
            session_end(client, call, OPT_OK);
        } else {
            call->pushed = true;
        }
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
        session_fail_model(model, error->status,
                           "model \"%s\" is gone after the connection was lost: %s",
                           model->name, error->text);
    } else if (reply->message != OPT_MESSAGE_MODEL) {
        session_break(client, "the daemon answered open with %s",
                      opt_message_name(reply->message));
        return;
    } else if (found->tensors != model->tensor_count ||
               strcmp(found->specification, model->specification) != 0) {
        session_fail_model(model, OPT_NOT_FOUND,
                           "model \"%s\" is gone after the connection was lost; "
                           "another one has its name: %s, %" PRIu64 " tensors",
                           model->name, found->specification, found->tensors);
    } else if (found->step < model->step) {
        session_fail_model(model, OPT_NOT_FOUND,
                           "model \"%s\" is gone after the connection was lost; one "
                           "with its name has had %" PRIu64 " updates, it had %" PRIu64,
                           model->name, found->step, model->step);
    } else {
        model->number = found->model;
        model->step = found->step;
        settle_pushes(client, model, found);
        if (model->last_sequence < found->last_sequence) {
            model->last_sequence = found->last_sequence;
        }
    }
    model->restore_id = MODEL_RESTORED;
    exchange_restored(client);
}

/* Ask again, later, as if for the first time: nothing of it has taken effect. */
static void ask_later(struct optclient *client, struct optclient_call *call,
                      uint32_t wait_ms)
{
    exchange_forget(client, call);
    call_unlink(call);
    call->state = CALL_LATER;
    call->begun = false;
    call->asked = false;
    call->sequence = 0;
    call->not_before_ns = uv_hrtime() + (uint64_t)wait_ms * NS_PER_MS;
    call_append(&client->later, call);
    session_alarm(client, call->not_before_ns);
}

static void on_error(struct optclient *client, struct optclient_call *call,
                     const struct opt_error_reply *reply)
{
    enum opt_message message = call->request.message;
    enum opt_status status = reply->status;
    opt_fail(&call->error, status, "%s", reply->text);
    if (status == OPT_FAILED_PRECONDITION) {
        /* Is it this call, or has another process taken this worker's name? Only in the
         * second case a heartbeat is refused as well. */
        client->heartbeat_due = true;
    }
    if (message == OPT_MESSAGE_LEAVE ||
        (message == OPT_MESSAGE_DELETE && call->resent && status == OPT_NOT_FOUND)) {
        session_end(client, call, OPT_OK);
        return;
    }
    uint32_t left_ms = ms_left(call);
    uint32_t wait_ms = reply->retry_after_ms > client->backoff.min_ms
                           ? reply->retry_after_ms
                           : client->backoff.min_ms;
    bool busy = status == OPT_UNAVAILABLE ||
                (status == OPT_RESOURCE_EXHAUSTED && reply->retry_after_ms > 0);
    if (message == OPT_MESSAGE_ASSIGN) {
        session_end(client, call, status);
    } else if (busy && wait_ms < left_ms) {
        ask_later(client, call, wait_ms);
    } else if (status == OPT_DEADLINE_EXCEEDED && left_ms >= RETRY_WORTH_MS) {
        /* The daemon's limit is shorter than this call's. */
        ask_later(client, call, 0);
    } else {
        session_end(client, call, status);
    }
}

static void take_push(struct optclient_call *call, const struct opt_push_reply *reply)
{
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
    bool pushed = call->request.message == OPT_MESSAGE_PUSH ||
                  call->request.message == OPT_MESSAGE_PUSH_PULL;
    struct opt_error error;
    opt_fail(&error, status, "%s: %s%s", call_name(call), what,
             pushed ? "; whether the push was applied is not known" : "");
    call->error = error;
    session_end(client, call, status);
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
    call->result.step = reply->step;
    call->result.epoch = reply->epoch;
    see_step(call->model, reply->step);
    if (pull_of(&call->request)->view != OPT_VIEW_SLOT) {
        call->model->pulled_step = reply->step;
    }
    session_end(client, call, OPT_OK);
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
        call->model->stage = MODEL_MAKING;
        call->model->number = reply->model;
        call->model->step = reply->step;
        call->model->last_sequence = reply->last_sequence;
    }
    session_end(client, call, OPT_OK);
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
        session_end(client, call, OPT_OK);
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
        call->result.step = reply->body.wait.step;
        call->result.epoch = reply->body.wait.epoch;
        see_step(call->model, reply->body.wait.step);
        session_end(client, call, OPT_OK);
        break;
    case OPT_MESSAGE_MODEL:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_SET:
        keep_reply(client, call);
        break;
    default: /* list, describe: their data is with the call; others say no more */
        if (reply->message != OPT_MESSAGE_ASSIGN || reply->id == call->id) {
            session_end(client, call, OPT_OK);
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
    enum opt_status status =
        sink_accept(&call->sink, reply, data_size, client->settings.pull_dtype, &error);
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
    while (model != NULL && model->restore_id != id) {
        model = model->next;
    }
    return model;
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
        } else {
            session_break(client, "the daemon sent a reply without an id");
        }
    } else if (reply->id == client->hello_id) {
        on_hello(client, reply);
    } else if (reply->id == client->heartbeat_id) {
        client->heartbeat_id = 0;
        if (error) {
            on_connection_error(client, &reply->body.error,
                                reply->body.error.status == OPT_FAILED_PRECONDITION);
        }
    } else if (reply->id == client->goodbye_id) {
        session_break(client, "goodbye");
    } else if (client->state == SESSION_RESTORING &&
               (model = find_restored(client, reply->id)) != NULL) {
        on_restored(client, model, reply);
    } else if (reply->id > client->last_id) {
        session_break(client,
                      "the daemon answered request %" PRIu64 ", which nobody made",
                      reply->id);
    }
    /* Else: to a call that has ended by its deadline, or was withdrawn. */
}

static bool on_header(struct optclient *client)
{
    struct opt_frame_reader *reader = client->uplink->reader;
    size_t size;
    const uint8_t *header = opt_frame_header(reader, &size);
    size_t data_size = opt_frame_data_size(reader);
    opt_arena_reset(&client->arena);
    client->in_call = NULL;
    client->in_data = NULL;
    struct opt_error error;
    if (opt_reply_read(header, size, data_size, &client->arena, &client->in_reply,
                       &error) != OPT_OK) {
        session_break(client, "the daemon sent a reply that cannot be read: %s",
                      error.text);
        return false;
    }
    if (client->in_reply.id != 0) {
        struct optclient_call *call = id_find(client, client->in_reply.id);
        if (call != NULL) {
            place_answer(client, call, data_size);
        }
    }
    opt_frame_place(reader, client->in_data);
    return true;
}

static void on_frame_in(struct optclient *client)
{
    client->uplink->skipping = false;
    struct optclient_call *call = client->in_call;
    const struct opt_reply *reply = &client->in_reply;
    client->in_call = NULL;
    if (call == NULL) {
        on_own_reply(client, reply);
        return;
    }
    size_t data_size = opt_frame_data_size(client->uplink->reader);
    if (client->settings.checksum && data_size > 0 &&
        XXH3_64bits(client->in_data, data_size) != reply->checksum) {
        fail_reply(client, call, OPT_DATA_LOSS,
                   "the data that came does not have the daemon's checksum");
        return;
    }
    if (client->in_data != NULL && client->in_data == client->in_buffer) {
        sink_spread(&call->sink, pull_reply(reply), client->in_data);
    }
    on_answer(client, call, reply);
}

bool exchange_receive(struct optclient *client)
{
    struct opt_frame_reader *reader = client->uplink->reader;
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
        case OPT_FRAME_BROKEN:
            session_break(client, "the daemon sent a broken frame: %s",
                          opt_frame_error(reader)->text);
            return false;
        }
    }
    return false;
}
