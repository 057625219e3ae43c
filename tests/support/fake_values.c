/* fake_values — gradients into the fake server, weights out of it. */
#include "tests/support/fake_inside.h"

#include <stdlib.h>

void fake_drop_gradients(struct fake_conn *conn)
{
    for (size_t i = 0; i < conn->gradient_count; i++) {
        free(conn->gradients[i]);
    }
    free(conn->gradients);
    conn->gradients = NULL;
    conn->gradient_count = 0;
}

/* Widen the data of one frame into per-tensor arrays. */
void fake_take_segments(struct fake_model *model, float **out,
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
bool fake_take_push(struct fake_conn *conn, const struct opt_request *request,
                    const struct opt_push *push, const uint8_t *data,
                    struct opt_push_reply *reply)
{
    struct fake_model *model = fake_model_numbered(conn->server, push->model);
    if (push->frame == 0) {
        fake_drop_gradients(conn);
        conn->gradients = calloc(model->count, sizeof(*conn->gradients));
        conn->gradient_count = model->count;
        conn->push_id = request->id;
    }
    if (conn->gradients == NULL || conn->push_id != request->id) {
        return false;
    }
    fake_take_segments(model, conn->gradients, push->segments, push->segment_count,
                       push->dtype, data);
    if (!push->last) {
        return false;
    }
    struct fake_worker *worker = fake_worker_of(model, conn->worker);
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
    fake_drop_gradients(conn);
    return true;
}

/* Weights of one tensor from offset as one frame; several tensors are several frames.
 */
void fake_send_weights(struct fake_conn *conn, const struct opt_request *request,
                       const struct opt_pull *pull, const struct opt_push_reply *push)
{
    struct fake_server *server = conn->server;
    struct fake_model *model = fake_model_numbered(server, pull->model);
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
            struct opt_reply reply = fake_answer(request, request->message, data, size);
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
