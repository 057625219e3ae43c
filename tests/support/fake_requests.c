/* fake_requests — each request of the fake server's, served as it should be. */
#include "tests/support/fake_inside.h"

#include <stdio.h>

static struct fake_model *model_asked(struct fake_server *server,
                                      const struct opt_request *request)
{
    switch (request->message) {
    case OPT_MESSAGE_OPEN:
        return fake_model_named(server, request->body.open.model);
    case OPT_MESSAGE_DESCRIBE:
        return fake_model_named(server, request->body.describe);
    case OPT_MESSAGE_DELETE:
        return fake_model_named(server, request->body.delete_);
    case OPT_MESSAGE_ASSIGN:
        return fake_model_numbered(server, request->body.assign.model);
    case OPT_MESSAGE_PUSH:
        return fake_model_numbered(server, request->body.push.model);
    case OPT_MESSAGE_PULL:
        return fake_model_numbered(server, request->body.pull.model);
    case OPT_MESSAGE_PUSH_PULL:
        return fake_model_numbered(server, request->body.push_pull.push.model);
    case OPT_MESSAGE_WAIT:
        return fake_model_numbered(server, request->body.wait.model);
    case OPT_MESSAGE_LEAVE:
        return fake_model_numbered(server, request->body.leave);
    case OPT_MESSAGE_REST:
        return fake_model_numbered(server, request->body.rest);
    case OPT_MESSAGE_BARRIER:
        return fake_model_numbered(server, request->body.barrier.model);
    default:
        return NULL;
    }
}

static void serve_hello(struct fake_conn *conn, const struct opt_request *request)
{
    const struct fake_options *options = &conn->server->options;
    snprintf(conn->worker, sizeof(conn->worker), "%s", request->body.hello.worker);
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_HELLO, NULL, 0);
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
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_STATISTICS, NULL, 0);
    reply.body.statistics = (struct opt_statistics_reply){ counters, 2 };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_wait(struct fake_conn *conn, const struct opt_request *request,
                       const struct fake_model *model)
{
    if (!model->ready || model->step < request->body.wait.step) {
        return; /* it can only be waited for in vain: the client's deadline ends it */
    }
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_WAIT, NULL, 0);
    reply.body.wait = (struct opt_wait_reply){ .step = model->step };
    fake_reply(conn, &reply, NULL, 0);
}

static void serve_with_model(struct fake_conn *conn, const struct opt_request *request,
                             struct fake_model *model, const uint8_t *data)
{
    struct opt_reply reply = fake_answer(request, request->message, NULL, 0);
    struct opt_push_reply push;
    switch (request->message) {
    case OPT_MESSAGE_OPEN:
        fake_reply_model(conn, request, model, false);
        break;
    case OPT_MESSAGE_DESCRIBE:
        fake_describe(conn, request, model);
        break;
    case OPT_MESSAGE_ASSIGN:
        fake_take_segments(model, model->values, request->body.assign.segments,
                           request->body.assign.segment_count,
                           request->body.assign.dtype, data);
        if (request->body.assign.last) {
            model->ready = true;
            model->creator = NULL;
        }
        fake_reply(conn, &reply, NULL, 0);
        break;
    case OPT_MESSAGE_PUSH:
        if (fake_take_push(conn, request, &request->body.push, data, &push)) {
            reply.body.push = push;
            fake_reply(conn, &reply, NULL, 0);
        }
        break;
    case OPT_MESSAGE_PULL:
        fake_send_weights(conn, request, &request->body.pull, NULL);
        break;
    case OPT_MESSAGE_PUSH_PULL:
        if (fake_take_push(conn, request, &request->body.push_pull.push, data, &push)) {
            fake_send_weights(conn, request, &request->body.push_pull.pull, &push);
        }
        break;
    case OPT_MESSAGE_WAIT:
        serve_wait(conn, request, model);
        break;
    case OPT_MESSAGE_DELETE:
        fake_model_forget(model);
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
    struct opt_reply reply = fake_answer(request, request->message, NULL, 0);
    switch (request->message) {
    case OPT_MESSAGE_HELLO:
        serve_hello(conn, request);
        return;
    case OPT_MESSAGE_CREATE:
        fake_create(conn, request, data, data_size);
        return;
    case OPT_MESSAGE_LIST:
        fake_list(conn, request);
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
