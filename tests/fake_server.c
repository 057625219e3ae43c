#include "tests/fake_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/frame.h"

enum { MODELS = 8, CONNS = 256, WORKERS = 64, FILES = 4 };

struct fake_worker {
    char name[OPT_NAME_MAX + 1];
    uint64_t last_sequence;
};

struct fake_model {
    char name[OPT_NAME_MAX + 1]; /* "": this place is free */
    char specification[256];
    uint8_t *table;
    size_t table_size;
    struct opt_arena arena; /* of tensors */
    struct opt_tensor_entry *tensors;
    size_t count;
    float **values;
    uint64_t step;
    bool ready;
    uint64_t identity;
    struct fake_conn *creator;
    struct fake_worker workers[WORKERS];
};

struct fake_conn {
    struct fake_server *server;
    unsigned number;
    int fd;
    atomic_bool cut; /* read without the lock by its thread */
    bool ended;
    pthread_t thread;
    char worker[OPT_NAME_MAX + 1];
    /* the push whose frames are coming */
    float **gradients; /* of the model's tensors, NULL where none came */
    size_t gradient_count;
    uint64_t push_id;
};

struct fake_server {
    struct fake_options options;
    int fd;
    char address[sizeof("unix:") + sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    pthread_t thread;
    pthread_mutex_t lock;   /* guards the rest */
    pthread_cond_t changed; /* a connection or a request has come */
    bool stopping;
    struct fake_conn *conns[CONNS];
    unsigned connections, frames, pushes, heartbeats;
    uint64_t made; /* models: each has the number as its identity */
    struct fake_model models[MODELS];
};

/* -------------------------------------------------------------------------- sending */

void fake_send(struct fake_conn *conn, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0 && !conn->cut) {
        ssize_t sent = send(conn->fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            conn->cut = true;
            return;
        }
        at += sent;
        size -= (size_t)sent;
    }
}

unsigned fake_number(const struct fake_conn *conn)
{
    return conn->number;
}

/* A frame is about to be read or written: is it the one at which all ends? */
static bool cut_here(struct fake_conn *conn)
{
    struct fake_server *server = conn->server;
    server->frames++;
    if (server->options.cut_at != 0 && server->frames == server->options.cut_at) {
        conn->cut = true;
    }
    return conn->cut;
}

void fake_reply(struct fake_conn *conn, const struct opt_reply *reply, const void *data,
                size_t data_size)
{
    if (conn->server->options.silent || cut_here(conn)) {
        return;
    }
    size_t size = opt_reply_pack(reply, NULL, 0);
    uint8_t *head = malloc(size + OPT_FRAME_BEGIN_MAX);
    if (head == NULL) {
        abort();
    }
    uint8_t tag[12];
    size_t tag_size;
    opt_frame_begin(size, data_size, head, tag, &tag_size);
    opt_reply_pack(reply, head + OPT_FRAME_PREFIX, size);
    memcpy(head + OPT_FRAME_PREFIX + size, tag, tag_size);
    fake_send(conn, head, OPT_FRAME_PREFIX + size + tag_size);
    fake_send(conn, data, data_size);
    free(head);
}

void fake_reply_files(struct fake_conn *conn, const struct opt_reply *reply,
                      const int *files, size_t count)
{
    uint8_t frame[512], tag[12];
    size_t tag_size;
    size_t size = opt_reply_pack(reply, frame + OPT_FRAME_PREFIX,
                                 sizeof(frame) - OPT_FRAME_PREFIX);
    opt_frame_begin(size, 0, frame, tag, &tag_size);
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FILES * sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec part = { .iov_base = frame, .iov_len = OPT_FRAME_PREFIX + size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), files, count * sizeof(int));
    if (!cut_here(conn) && sendmsg(conn->fd, &message, MSG_NOSIGNAL) <= 0) {
        conn->cut = true;
    }
}

void fake_reply_error(struct fake_conn *conn, uint64_t id, enum opt_status status,
                      const char *text, uint32_t retry_after_ms)
{
    struct opt_reply reply = {
        .id = id,
        .message = OPT_MESSAGE_ERROR,
        .body.error = { .status = status,
                        .text = text,
                        .retry_after_ms = retry_after_ms },
    };
    fake_reply(conn, &reply, NULL, 0);
}

/* A reply to a request, with the checksum that it asks for. */
static struct opt_reply reply_to(const struct opt_request *request,
                                 enum opt_message message, const void *data,
                                 size_t data_size)
{
    return (struct opt_reply){
        .id = request->id,
        .message = message,
        .has_checksum = request->has_checksum,
        .checksum = request->has_checksum ? XXH3_64bits(data, data_size) : 0,
    };
}

/* --------------------------------------------------------------------------- models */

static void model_forget(struct fake_model *model)
{
    if (model->name[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < model->count; i++) {
        free(model->values[i]);
    }
    free(model->values);
    free(model->table);
    opt_arena_fini(&model->arena);
    memset(model, 0, sizeof(*model));
}

static struct fake_model *model_by_name(struct fake_server *server, const char *name)
{
    for (size_t i = 0; i < MODELS; i++) {
        if (name[0] != '\0' && strcmp(server->models[i].name, name) == 0) {
            return &server->models[i];
        }
    }
    return NULL;
}

static struct fake_model *model_by_number(struct fake_server *server, uint32_t number)
{
    if (number >= MODELS || server->models[number].name[0] == '\0') {
        return NULL;
    }
    return &server->models[number];
}

static struct fake_worker *worker_of(struct fake_model *model, const char *name)
{
    for (size_t i = 0; i < WORKERS; i++) {
        struct fake_worker *worker = &model->workers[i];
        if (worker->name[0] == '\0') {
            snprintf(worker->name, sizeof(worker->name), "%s", name);
        }
        if (strcmp(worker->name, name) == 0) {
            return worker;
        }
    }
    abort();
}

static struct fake_model *model_create(struct fake_server *server,
                                       const struct opt_create *create,
                                       const uint8_t *data, size_t data_size)
{
    struct fake_model *model = server->models;
    while (model->name[0] != '\0') {
        model++;
    }
    struct opt_error error;
    opt_arena_init(&model->arena, opt_table_budget(data_size));
    if (opt_tensor_table_read(data, data_size, OPT_TENSORS_MAX, &model->arena,
                              &model->tensors, &model->count, &error) != OPT_OK) {
        fprintf(stderr, "fake_server: %s\n", error.text);
        abort();
    }
    snprintf(model->name, sizeof(model->name), "%s", create->model);
    model->identity = ++server->made;
    snprintf(model->specification, sizeof(model->specification), "%.255s",
             create->specification.expression);
    model->values = calloc(model->count, sizeof(*model->values));
    for (size_t i = 0; i < model->count; i++) {
        model->values[i] = calloc((size_t)model->tensors[i].elements, sizeof(float));
    }
    return model;
}

/* Those of the unanswered pushes that were applied: all up to the last, each of which
 * was one update. */
static size_t report_settled(const struct opt_open *open,
                             const struct fake_model *model, uint64_t last,
                             struct opt_settled settled[OPT_UNANSWERED_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < open->unanswered_count; i++) {
        uint64_t sequence = open->unanswered[i];
        if (sequence <= last) {
            settled[count++] =
                (struct opt_settled){ .sequence = sequence,
                                      .fate = OPT_FATE_APPLIED,
                                      .step = model->step - (last - sequence) };
        }
    }
    return count;
}

static void reply_model(struct fake_conn *conn, const struct opt_request *request,
                        struct fake_model *model, bool created)
{
    struct opt_settled settled[OPT_UNANSWERED_MAX];
    uint64_t last = worker_of(model, conn->worker)->last_sequence;
    uint64_t parameters = 0;
    for (size_t i = 0; i < model->count; i++) {
        parameters += model->tensors[i].elements;
    }
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_MODEL, NULL, 0);
    reply.body.model = (struct opt_model_reply){
        .model = (uint32_t)(model - conn->server->models),
        .created = created,
        .ready = model->ready,
        .step = model->step,
        .last_sequence = last,
        .tensors = model->count,
        .parameters = parameters,
        .workers = 1,
        .specification = model->specification,
        .identity = model->identity,
        .settled = settled,
        .settled_count = request->message == OPT_MESSAGE_OPEN
                             ? report_settled(&request->body.open, model, last, settled)
                             : 0,
    };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_create(struct fake_conn *conn, const struct opt_request *request,
                         const uint8_t *data, size_t data_size)
{
    const struct opt_create *create = &request->body.create;
    struct fake_model *model = model_by_name(conn->server, create->model);
    if (model != NULL) {
        reply_model(conn, request, model, false);
        return;
    }
    model = model_create(conn->server, create, data, data_size);
    model->ready = !create->assigned;
    model->creator = model->ready ? NULL : conn;
    reply_model(conn, request, model, true);
}

static void serve_describe(struct fake_conn *conn, const struct opt_request *request,
                           struct fake_model *model)
{
    struct opt_description description = {
        .summary = { .name = model->name,
                     .model = (uint32_t)(model - conn->server->models),
                     .step = model->step,
                     .tensors = model->count,
                     .specification = model->specification,
                     .identity = model->identity },
        .consistency = { .min_workers = 1 },
        .ready = model->ready,
        .tensors = model->tensors,
        .tensor_count = model->count,
    };
    size_t size = opt_description_pack(&description, NULL, 0);
    uint8_t *table = malloc(size);
    opt_description_pack(&description, table, size);
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_DESCRIBE, table, size);
    fake_reply(conn, &reply, table, size);
    free(table);
}

static void serve_list(struct fake_conn *conn, const struct opt_request *request)
{
    struct opt_model_entry entries[MODELS];
    size_t count = 0;
    for (size_t i = 0; i < MODELS; i++) {
        struct fake_model *model = &conn->server->models[i];
        if (model->name[0] != '\0') {
            entries[count++] = (struct opt_model_entry){
                .name = model->name,
                .model = (uint32_t)i,
                .step = model->step,
                .tensors = model->count,
                .specification = model->specification,
            };
        }
    }
    size_t size = opt_model_table_pack(entries, count, NULL, 0);
    uint8_t *table = malloc(size + 1);
    opt_model_table_pack(entries, count, table, size);
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_LIST, table, size);
    fake_reply(conn, &reply, table, size);
    free(table);
}

/* ---------------------------------------------------------------- values in and out */

static void drop_gradients(struct fake_conn *conn)
{
    for (size_t i = 0; i < conn->gradient_count; i++) {
        free(conn->gradients[i]);
    }
    free(conn->gradients);
    conn->gradients = NULL;
    conn->gradient_count = 0;
}

/* Widen the data of one frame into per-tensor arrays. */
static void take_segments(struct fake_model *model, float **out,
                          const struct opt_segment *segments, size_t count,
                          enum opt_dtype dtype, const uint8_t *data)
{
    for (size_t i = 0; i < count; i++) {
        const struct opt_segment *segment = &segments[i];
        size_t all = (size_t)model->tensors[segment->tensor].elements;
        size_t elements =
            segment->count == 0 ? all - segment->offset : (size_t)segment->count;
        float **tensor = &out[segment->tensor];
        if (*tensor == NULL) {
            *tensor = calloc(all, sizeof(float));
        }
        opt_dtype_widen(dtype, data, *tensor + segment->offset, elements);
        data += elements * opt_dtype_size(dtype);
    }
}

/* A frame of a push; after the last one true, with its fate in *reply. */
static bool take_push(struct fake_conn *conn, const struct opt_request *request,
                      const struct opt_push *push, const uint8_t *data,
                      struct opt_push_reply *reply)
{
    struct fake_model *model = model_by_number(conn->server, push->model);
    if (push->frame == 0) {
        drop_gradients(conn);
        conn->gradients = calloc(model->count, sizeof(*conn->gradients));
        conn->gradient_count = model->count;
        conn->push_id = request->id;
    }
    if (conn->gradients == NULL || conn->push_id != request->id) {
        return false;
    }
    take_segments(model, conn->gradients, push->segments, push->segment_count,
                  push->dtype, data);
    if (!push->last) {
        return false;
    }
    struct fake_worker *worker = worker_of(model, conn->worker);
    *reply = (struct opt_push_reply){ .fate = OPT_FATE_DUPLICATE, .reason = "" };
    if (push->sequence > worker->last_sequence) {
        worker->last_sequence = push->sequence;
        for (size_t i = 0; i < model->count; i++) {
            for (size_t e = 0;
                 conn->gradients[i] != NULL && e < model->tensors[i].elements; e++) {
                model->values[i][e] -= conn->gradients[i][e];
            }
        }
        model->step++;
        conn->server->pushes++;
        reply->fate = OPT_FATE_APPLIED;
        reply->staleness = model->step - 1 - push->basis;
    }
    reply->step = model->step;
    drop_gradients(conn);
    return true;
}

/* Weights of one tensor from offset as one frame; several tensors are several frames.
 */
static void send_weights(struct fake_conn *conn, const struct opt_request *request,
                         const struct opt_pull *pull, const struct opt_push_reply *push)
{
    struct fake_server *server = conn->server;
    struct fake_model *model = model_by_number(server, pull->model);
    size_t chunk = server->options.chunk_bytes == 0 ? OPT_CHUNK_BYTES
                                                    : server->options.chunk_bytes;
    size_t most = chunk / sizeof(float);
    size_t count = pull->segment_count == 0 ? model->count : pull->segment_count;
    for (size_t i = 0; i < count; i++) {
        uint32_t tensor =
            pull->segment_count == 0 ? (uint32_t)i : pull->segments[i].tensor;
        size_t all = (size_t)model->tensors[tensor].elements;
        for (size_t offset = 0; offset < all; offset += most) {
            size_t part = all - offset < most ? all - offset : most;
            struct opt_segment segment = { .tensor = tensor,
                                           .offset = offset,
                                           .count = part };
            size_t size = part * opt_dtype_size(pull->dtype);
            uint8_t *data = malloc(size);
            opt_dtype_narrow(pull->dtype, model->values[tensor] + offset, data, part);
            struct opt_pull_reply weights = {
                .step = model->step,
                .dtype = pull->dtype,
                .segments = &segment,
                .segment_count = 1,
                .last = i == count - 1 && offset + part == all,
            };
            struct opt_reply reply = reply_to(request, request->message, data, size);
            if (request->message == OPT_MESSAGE_PULL) {
                reply.body.pull = weights;
            } else {
                reply.body.push_pull.pull = weights;
                reply.body.push_pull.has_push = weights.last;
                reply.body.push_pull.push = *push;
            }
            fake_reply(conn, &reply, data, size);
            free(data);
        }
    }
}

/* ------------------------------------------------------------------------- requests */

static struct fake_model *model_asked(struct fake_server *server,
                                      const struct opt_request *request)
{
    switch (request->message) {
    case OPT_MESSAGE_OPEN:
        return model_by_name(server, request->body.open.model);
    case OPT_MESSAGE_DESCRIBE:
        return model_by_name(server, request->body.describe);
    case OPT_MESSAGE_DELETE:
        return model_by_name(server, request->body.delete_);
    case OPT_MESSAGE_ASSIGN:
        return model_by_number(server, request->body.assign.model);
    case OPT_MESSAGE_PUSH:
        return model_by_number(server, request->body.push.model);
    case OPT_MESSAGE_PULL:
        return model_by_number(server, request->body.pull.model);
    case OPT_MESSAGE_PUSH_PULL:
        return model_by_number(server, request->body.push_pull.push.model);
    case OPT_MESSAGE_WAIT:
        return model_by_number(server, request->body.wait.model);
    case OPT_MESSAGE_LEAVE:
        return model_by_number(server, request->body.leave);
    case OPT_MESSAGE_REST:
        return model_by_number(server, request->body.rest);
    case OPT_MESSAGE_BARRIER:
        return model_by_number(server, request->body.barrier.model);
    default:
        return NULL;
    }
}

static void serve_hello(struct fake_conn *conn, const struct opt_request *request)
{
    const struct fake_options *options = &conn->server->options;
    snprintf(conn->worker, sizeof(conn->worker), "%s", request->body.hello.worker);
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_HELLO, NULL, 0);
    reply.body.hello = (struct opt_hello_reply){
        .protocol = OPT_PROTOCOL,
        .server = "fake",
        .incarnation = 1,
        .lease_ms = options->lease_ms == 0 ? 5000 : options->lease_ms,
        .heartbeat_ms = options->heartbeat_ms == 0 ? 1000 : options->heartbeat_ms,
        .max_frame_bytes = OPT_FRAME_BYTES,
        .max_header_bytes = OPT_HEADER_BYTES,
        .chunk_bytes =
            options->chunk_bytes == 0 ? OPT_CHUNK_BYTES : options->chunk_bytes,
        .block_elements = OPT_BLOCK,
    };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_statistics(struct fake_conn *conn, const struct opt_request *request)
{
    struct opt_counter counters[] = { { "frames", conn->server->frames },
                                      { "pushes", conn->server->pushes } };
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_STATISTICS, NULL, 0);
    reply.body.statistics = (struct opt_statistics_reply){ counters, 2 };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_wait(struct fake_conn *conn, const struct opt_request *request,
                       const struct fake_model *model)
{
    if (!model->ready || model->step < request->body.wait.step) {
        return; /* it can only be waited for in vain: the client's deadline ends it */
    }
    struct opt_reply reply = reply_to(request, OPT_MESSAGE_WAIT, NULL, 0);
    reply.body.wait = (struct opt_wait_reply){ .step = model->step };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_with_model(struct fake_conn *conn, const struct opt_request *request,
                             struct fake_model *model, const uint8_t *data)
{
    struct opt_reply reply = reply_to(request, request->message, NULL, 0);
    struct opt_push_reply push;
    switch (request->message) {
    case OPT_MESSAGE_OPEN:
        reply_model(conn, request, model, false);
        break;
    case OPT_MESSAGE_DESCRIBE:
        serve_describe(conn, request, model);
        break;
    case OPT_MESSAGE_ASSIGN:
        take_segments(model, model->values, request->body.assign.segments,
                      request->body.assign.segment_count, request->body.assign.dtype,
                      data);
        if (request->body.assign.last) {
            model->ready = true;
            model->creator = NULL;
        }
        fake_reply(conn, &reply, NULL, 0);
        break;
    case OPT_MESSAGE_PUSH:
        if (take_push(conn, request, &request->body.push, data, &push)) {
            reply.body.push = push;
            fake_reply(conn, &reply, NULL, 0);
        }
        break;
    case OPT_MESSAGE_PULL:
        send_weights(conn, request, &request->body.pull, NULL);
        break;
    case OPT_MESSAGE_PUSH_PULL:
        if (take_push(conn, request, &request->body.push_pull.push, data, &push)) {
            send_weights(conn, request, &request->body.push_pull.pull, &push);
        }
        break;
    case OPT_MESSAGE_WAIT:
        serve_wait(conn, request, model);
        break;
    case OPT_MESSAGE_DELETE:
        model_forget(model);
        fake_reply(conn, &reply, NULL, 0);
        break;
    default:
        fake_reply(conn, &reply, NULL, 0);
        break;
    }
}

void fake_serve(struct fake_conn *conn, const struct opt_request *request,
                const uint8_t *data, size_t data_size)
{
    struct opt_reply reply = reply_to(request, request->message, NULL, 0);
    switch (request->message) {
    case OPT_MESSAGE_HELLO:
        serve_hello(conn, request);
        return;
    case OPT_MESSAGE_CREATE:
        serve_create(conn, request, data, data_size);
        return;
    case OPT_MESSAGE_LIST:
        serve_list(conn, request);
        return;
    case OPT_MESSAGE_STATISTICS:
        serve_statistics(conn, request);
        return;
    case OPT_MESSAGE_HEARTBEAT:
        conn->server->heartbeats++;
        fake_reply(conn, &reply, NULL, 0);
        return;
    case OPT_MESSAGE_GOODBYE:
        fake_reply(conn, &reply, NULL, 0);
        conn->cut = true;
        return;
    default:
        break;
    }
    struct fake_model *model = model_asked(conn->server, request);
    if (model == NULL) {
        fake_reply_error(conn, request->id, OPT_NOT_FOUND, "there is no such model", 0);
    } else {
        serve_with_model(conn, request, model, data);
    }
}

/* ---------------------------------------------------------------------- connections */

struct incoming {
    struct opt_arena arena;
    struct opt_request request;
    uint8_t *data;
};

static void on_header(struct fake_conn *conn, struct opt_frame_reader *reader,
                      struct incoming *in)
{
    struct fake_server *server = conn->server;
    size_t size;
    const uint8_t *header = opt_frame_header(reader, &size);
    size_t data_size = opt_frame_data_size(reader);
    struct opt_error error;
    opt_arena_reset(&in->arena);
    if (opt_request_read(header, size, data_size, &in->arena, &in->request, &error) !=
        OPT_OK) {
        fprintf(stderr, "fake_server: the client sent: %s\n", error.text);
        abort();
    }
    free(in->data);
    in->data = malloc(data_size + 1);
    opt_frame_place(reader, in->data);
    if (server->options.begun != NULL) {
        pthread_mutex_lock(&server->lock);
        server->options.begun(conn, &in->request, server->options.context);
        pthread_mutex_unlock(&server->lock);
    }
}

static void on_request(struct fake_conn *conn, struct opt_frame_reader *reader,
                       struct incoming *in)
{
    struct fake_server *server = conn->server;
    size_t data_size = opt_frame_data_size(reader);
    pthread_mutex_lock(&server->lock);
    if (!conn->cut && !cut_here(conn)) {
        enum fake_action action = FAKE_SERVE;
        if (server->options.hook != NULL) {
            action = server->options.hook(conn, &in->request, in->data, data_size,
                                          server->options.context);
        }
        if (action == FAKE_HANG_UP) {
            conn->cut = true;
        } else if (action == FAKE_SERVE) {
            fake_serve(conn, &in->request, in->data, data_size);
        }
    }
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void serve_connection(struct fake_conn *conn, struct opt_frame_reader *reader,
                             struct incoming *in)
{
    while (!conn->cut) {
        uint8_t *base;
        size_t size;
        opt_frame_space(reader, &base, &size);
        ssize_t received = recv(conn->fd, base, size, 0);
        if (received <= 0) {
            return;
        }
        opt_frame_received(reader, (size_t)received);
        enum opt_frame_event event;
        while ((event = opt_frame_next(reader)) != OPT_FRAME_MORE) {
            if (event == OPT_FRAME_BROKEN || event == OPT_FRAME_EARLY) {
                fprintf(stderr, "fake_server: %s\n", opt_frame_error(reader)->text);
                abort();
            }
            if (event == OPT_FRAME_LONG && !opt_frame_grow(reader)) {
                abort();
            }
            if (event == OPT_FRAME_HEADER) {
                on_header(conn, reader, in);
            } else if (event == OPT_FRAME_END) {
                on_request(conn, reader, in);
            }
        }
    }
}

static void *conn_thread(void *argument)
{
    struct fake_conn *conn = argument;
    struct fake_server *server = conn->server;
    struct opt_frame_reader *reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES });
    struct incoming in = { .data = NULL };
    opt_arena_init(&in.arena, OPT_ARENA_BYTES);
    serve_connection(conn, reader, &in);
    opt_frame_reader_free(reader);
    opt_arena_fini(&in.arena);
    free(in.data);
    pthread_mutex_lock(&server->lock);
    drop_gradients(conn);
    for (size_t i = 0; i < MODELS; i++) {
        if (server->models[i].creator == conn && !server->options.keep_models) {
            model_forget(&server->models[i]);
        }
    }
    /* Abruptly: what is still on its way is lost, as when a machine dies. */
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(conn->fd);
    conn->fd = -1;
    conn->ended = true;
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static void *accept_thread(void *argument)
{
    struct fake_server *server = argument;
    for (;;) {
        int fd = accept(server->fd, NULL, NULL);
        pthread_mutex_lock(&server->lock);
        if (fd < 0 || server->stopping || server->connections == CONNS) {
            pthread_mutex_unlock(&server->lock);
            if (fd >= 0) {
                close(fd);
            }
            return NULL;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct fake_conn *conn = calloc(1, sizeof(*conn));
        conn->server = server;
        conn->fd = fd;
        server->conns[server->connections++] = conn;
        conn->number = server->connections;
        pthread_create(&conn->thread, NULL, conn_thread, conn);
        pthread_cond_broadcast(&server->changed);
        pthread_mutex_unlock(&server->lock);
    }
}

static bool listen_on_path(struct fake_server *server)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->options.path);
    snprintf(server->address, sizeof(server->address), "unix:%s", address.sun_path);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(server->fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
           listen(server->fd, 64) == 0;
}

static bool listen_on_port(struct fake_server *server)
{
    int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(server->options.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(server->fd, (struct sockaddr *)&address, size) != 0 ||
        listen(server->fd, 64) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &size) != 0) {
        return false;
    }
    snprintf(server->address, sizeof(server->address), "127.0.0.1:%u",
             (unsigned)ntohs(address.sin_port));
    return true;
}

struct fake_server *fake_server_start(const struct fake_options *options)
{
    struct fake_server *server = calloc(1, sizeof(*server));
    server->options = *options;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    if (options->path != NULL ? !listen_on_path(server) : !listen_on_port(server)) {
        perror("fake_server");
        abort();
    }
    pthread_create(&server->thread, NULL, accept_thread, server);
    return server;
}

void fake_server_stop(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    fake_server_cut(server);
    for (unsigned i = 0; i < server->connections; i++) {
        pthread_join(server->conns[i]->thread, NULL);
        free(server->conns[i]);
    }
    fake_server_forget(server);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->changed);
    free(server);
}

const char *fake_server_address(const struct fake_server *server)
{
    return server->address;
}

static unsigned count_of(struct fake_server *server, const unsigned *counter)
{
    pthread_mutex_lock(&server->lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&server->lock);
    return value;
}

unsigned fake_server_connections(struct fake_server *server)
{
    return count_of(server, &server->connections);
}

unsigned fake_server_frames(struct fake_server *server)
{
    return count_of(server, &server->frames);
}

unsigned fake_server_pushes(struct fake_server *server)
{
    return count_of(server, &server->pushes);
}

unsigned fake_server_heartbeats(struct fake_server *server)
{
    return count_of(server, &server->heartbeats);
}

bool fake_server_wait(struct fake_server *server, bool (*look)(const void *context),
                      const void *context)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    pthread_mutex_lock(&server->lock);
    while (!look(context) &&
           pthread_cond_timedwait(&server->changed, &server->lock, &limit) == 0) {
    }
    bool reached = look(context);
    pthread_mutex_unlock(&server->lock);
    return reached;
}

struct awaited {
    const struct fake_server *server;
    unsigned connections;
};

static bool are_accepted(const void *context)
{
    const struct awaited *awaited = context;
    return awaited->server->connections >= awaited->connections;
}

bool fake_server_wait_connections(struct fake_server *server, unsigned count)
{
    return fake_server_wait(server, are_accepted, &(struct awaited){ server, count });
}

void fake_server_cut(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < server->connections; i++) {
        struct fake_conn *conn = server->conns[i];
        if (!conn->ended) {
            conn->cut = true;
            shutdown(conn->fd, SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&server->lock);
}

void fake_server_forget(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < MODELS; i++) {
        model_forget(&server->models[i]);
    }
    pthread_mutex_unlock(&server->lock);
}
