#include "client/request_frame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/in_flight.h"
#include "client/open_model.h"
#include "client/shm.h"

enum {
    FRAME_COST = 64 << 10 /* bytes that a request takes at the daemon beside its data,
                             at most */
};

static void tell_released(const struct optclient *client, struct opt_request *request)
{
    request->released = client->released;
    request->released_count = client->released_count;
}

uint64_t request_frame_begin_own(struct optclient *client, struct opt_request *request)
{
    request->id = ++client->last_id;
    request->timeout_ms = CLIENT_STEP_MS;
    size_t header_size;
    tell_released(client, request);
    if (!socket_begin(client->socket, request, 0, SIZE_MAX, &header_size)) {
        client_disconnect(client, "no memory for a request");
    }
    client->released_count = 0;
    client->active = true;
    return request->id;
}

/* The list of segments of a pull, if it is short enough for a header; else all tensors
 * are asked for, and those not wanted are thrown away. */
static bool lists_segments(const struct optclient *client,
                           const struct optclient_call *call)
{
    return call->segments != NULL &&
           call->segment_bytes <= client->daemon.max_header_bytes / 4 * 3;
}

/* Nothing has come of a pull. */
static bool begin_sink(struct optclient *client, struct optclient_call *call)
{
    uint64_t since = call_pull_of(&call->request)->since;
    call->sink.may_stay = since > call->model->known_after;
    call->sink.listed = lists_segments(client, call);
    return sink_begin(&call->sink, client->daemon.block_elements);
}

/* What of a call is filled in anew each time it is sent. False: no memory. */
static bool begin_call(struct optclient *client, struct optclient_call *call)
{
    call->begun = true;
    call->pushed = call->pushed || fate_is_done(&call->fate);
    call->id = ++client->last_id;
    call->first_id = call->id;
    in_flight_add(client, call);
    cutter_rewind(&call->cutter);
    if (call_pushes(call)) {
        fate_begin(&call->fate, &call->model->last_sequence);
        client->usage.resends += call->resent;
    }
    if (call->in_place) {
        shm_view_again(call->model);
    }
    return !call_pulls(call) || begin_sink(client, call);
}

/* Rows cannot be asked for in another way than by their list. */
static bool rows_fit(const struct optclient *client, struct optclient_call *call)
{
    if (!call->pulls_rows || lists_segments(client, call)) {
        return true;
    }
    opt_fail(&call->error, OPT_INVALID_ARGUMENT,
             "%s: the list of rows and tensors takes %zu bytes; the daemon accepts "
             "lists of %" PRIu32 ", so ask for fewer at a time",
             call_name(call), call->segment_bytes,
             client->daemon.max_header_bytes / 4 * 3);
    return false;
}

static void fill_pull(const struct optclient *client, const struct optclient_call *call,
                      struct opt_pull *pull)
{
    pull->model = call->model->number;
    pull->shared = pull->dtype == OPT_FP32 && call->model->shm.weights != NULL;
    if (!call->sink.may_stay || call->in_place) {
        pull->since = 0;
    }
    if (lists_segments(client, call)) {
        pull->segments = call->segments;
        pull->segment_count = call->sink.count;
    }
}

static size_t cut_frame(struct optclient *client, struct optclient_call *call)
{
    size_t header = client->daemon.max_header_bytes - REQUEST_HEADER_FIXED;
    if (call_pulls(call) && lists_segments(client, call)) {
        header -= call->segment_bytes;
    }
    if (call->model->shm.gradients_live) {
        header /= 2; /* a place takes no more than a segment */
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
    request->timeout_ms = call_ms_left(call);
    size_t data_size = 0;
    switch (request->message) {
    case OPT_MESSAGE_PUSH:
    case OPT_MESSAGE_PUSH_PULL: {
        struct opt_push *push = call_push_of(request);
        push->model = call->model->number;
        push->sequence = call->fate.number;
        push->incarnation = call->fate.incarnation;
        push->frame = call->cutter.frame;
        data_size = cut_frame(client, call);
        push->segments = client->cut.segments;
        push->segment_count = client->cut.count;
        push->last = cutter_done(&call->cutter);
        if (request->message == OPT_MESSAGE_PUSH_PULL) {
            /* Said in the first frame as well, the daemon may begin to answer before
             * it has the last. */
            request->body.push_pull.has_pull =
                push->last || (push->frame == 0 && !lists_segments(client, call));
            if (request->body.push_pull.has_pull) {
                fill_pull(client, call, call_pull_of(request));
            }
        }
        break;
    }
    case OPT_MESSAGE_ASSIGN:
        if (call->cutter.frame > 0) {
            in_flight_remove(client, call);
            call->id = ++client->last_id;
            in_flight_add(client, call);
            request->id = call->id;
        }
        request->body.assign.model = call->model->number;
        data_size = cut_frame(client, call);
        request->body.assign.segments = client->cut.segments;
        request->body.assign.segment_count = client->cut.count;
        request->body.assign.last = cutter_done(&call->cutter);
        break;
    case OPT_MESSAGE_PULL:
        fill_pull(client, call, call_pull_of(request));
        break;
    case OPT_MESSAGE_WAIT:
        request->body.wait.model = call->model->number;
        break;
    case OPT_MESSAGE_BARRIER:
        request->body.barrier.model = call->model->number;
        break;
    case OPT_MESSAGE_SHARE:
        request->body.share = call->model->number;
        break;
    case OPT_MESSAGE_REST:
        request->body.rest = call->model->number;
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

/* The values of the cut as they go over the wire, in the socket's memory; NULL if there
 * is none. */
static uint8_t *narrow(struct optclient *client, enum opt_dtype dtype, size_t size)
{
    uint8_t *room = socket_room(client->socket, size);
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
    /* A write of its own would cost more than copying so little. */
    void (*add)(struct socket *, const void *, size_t) =
        size <= SOCKET_COPY_BYTES ? socket_copy : socket_add;
    if (narrowed != NULL) {
        add(client->socket, narrowed, size);
        return;
    }
    for (size_t i = 0; i < client->cut.count; i++) {
        size_t bytes = (size_t)client->cut.segments[i].count * sizeof(float);
        if (bytes > 0) { /* a push may have no rows of a sparse tensor */
            add(client->socket, client->cut.places[i], bytes);
        }
    }
}

/* Whether the values of the cut are given by place, and then where. Few are sent
 * sooner. */
static bool place_cut(struct optclient *client, struct optclient_call *call,
                      struct opt_request *request, size_t data_size)
{
    if (!call_pushes(call) || !call->model->shm.gradients_live ||
        data_size <= SOCKET_COPY_BYTES) {
        return false;
    }
    if (client->places == NULL) {
        client->places = malloc(OPT_SEGMENTS_MAX * sizeof(*client->places));
    }
    if (client->places == NULL ||
        !shm_place(call, &client->cut, client->places, &client->placed_bytes)) {
        return false;
    }
    call_push_of(request)->places = client->places;
    client->usage.bytes_shared += data_size;
    return true;
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
    calls_end(client, call, status);
}

void request_frame_begin(struct optclient *client, struct optclient_call *call)
{
    if (!rows_fit(client, call)) {
        calls_end(client, call, call->error.status);
        return;
    }
    if (!call->begun && !begin_call(client, call)) {
        fail_call(client, call, 0);
        return;
    }
    struct opt_request request;
    size_t data_size = fill_request(client, call, &request);
    bool values = has_values(request.message);
    if (values && place_cut(client, call, &request, data_size)) {
        values = false;
        data_size = 0;
    }
    const uint8_t *narrowed = NULL;
    if (values && data_size > 0 && call->cutter.dtype != OPT_FP32) {
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
    tell_released(client, &request);
    if (!socket_begin(client->socket, &request, data_size,
                      client->daemon.max_header_bytes, &header_size)) {
        fail_call(client, call, header_size);
        return;
    }
    client->released_count = 0;
    call->held += data_size + FRAME_COST;
    client->inflight += data_size + FRAME_COST;
    if (values) {
        add_values(client, narrowed, data_size);
    } else if (data_size > 0) {
        socket_add(client->socket, call->table, data_size);
    }
    client->out_call = call;
    client->out_last = !has_values(request.message) || cutter_done(&call->cutter);
    client->active = true;
    if (client->out_last) {
        fate_send_last(&call->fate);
    }
}

bool request_frame_has_room(const struct optclient *client)
{
    const struct optclient_call *call = client->queue.first;
    uint64_t limit = client->daemon.inflight_bytes;
    if (limit == 0 || client->inflight == call->held) {
        return true;
    }
    uint64_t used = client->inflight + FRAME_COST;
    uint64_t room = used < limit ? limit - used : 0;
    return has_values(call_message(call)) ? room >= client->daemon.chunk_bytes ||
                                                cutter_fits(&call->cutter, (size_t)room)
                                          : room >= call->table_size;
}
