#include "client/handshake.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/request_frame.h"
#include "client/resend.h"
#include "client/socket.h"
#include "client/token.h"

/* ------------------------------------------------------------------- asking */

void handshake_greet(struct optclient *client)
{
    struct opt_request request = {
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = client->settings.worker,
                        .session = client->session,
                        .incarnation = client->incarnation,
                        .client = "liboptclient " OPTIMD_VERSION },
    };
    uint8_t token[OPT_TOKEN_MAX];
    const char *path = client->endpoint.token_file;
    struct opt_error error;
    if (path != NULL) {
        size_t size = 0;
        if (token_read(path, token, &size, &error) != OPT_OK) {
            client_disconnect(client, "%s", error.text);
            return;
        }
        request.body.hello.token = token;
        request.body.hello.token_size = size;
    }
    client->hello_id = request_frame_begin_own(client, &request);
    explicit_bzero(token, sizeof(token));
}

/* The pushes of a model whose answers have not come, and which the daemon may have. */
static size_t list_unanswered(struct optclient *client,
                              const struct optclient_model *model,
                              uint64_t sequences[OPT_UNANSWERED_MAX])
{
    size_t count = 0;
    for (struct optclient_call *call = client->queue.first;
         call != NULL && count < OPT_UNANSWERED_MAX; call = call->next) {
        if (call->model == model && call_pushes(call) && fate_is_open(&call->fate)) {
            call->fate.inquired = true;
            sequences[count++] = call->fate.number;
        }
    }
    return count;
}

void handshake_reopen(struct optclient *client, struct optclient_model *model)
{
    uint64_t sequences[OPT_UNANSWERED_MAX];
    struct opt_request request = {
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = model->name,
                       .join = model->joined && !model->closing,
                       .unanswered = sequences,
                       .unanswered_count = list_unanswered(client, model, sequences) },
    };
    model->reopen_id = request_frame_begin_own(client, &request);
}

/* ------------------------------------------------------------------- answers */

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
                 client->endpoint.peer, frame, daemon->max_header_bytes,
                 daemon->block_elements);
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

void handshake_on_error(struct optclient *client, const struct opt_error_reply *reply,
                        bool final)
{
    client->retry_after_ms = reply->retry_after_ms;
    if (final) {
        struct opt_error error;
        opt_fail_as(&error, reply->status, reply->detail, "%s: %s",
                    client->endpoint.peer, reply->text);
        calls_refuse(client, &error);
    } else {
        client_disconnect(client, "the daemon says %s: %s",
                          opt_status_name(reply->status), reply->text);
        client->trouble.detail = reply->detail;
    }
}

void handshake_on_broken(struct optclient *client, const struct opt_error *error)
{
    /* Where it was believed before, somebody may be renewing certificates. */
    if (error->status == OPT_UNAVAILABLE || client->greeted_before) {
        client_disconnect(client, "%s", error->text);
        return;
    }
    struct opt_error refusal;
    opt_fail(&refusal, error->status, "%s: %s", client->endpoint.peer, error->text);
    calls_refuse(client, &refusal);
}

void handshake_on_hello(struct optclient *client, const struct opt_reply *reply)
{
    client->hello_id = 0;
    socket_forget(client->socket);
    if (reply->message == OPT_MESSAGE_ERROR) {
        handshake_on_error(client, &reply->body.error,
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
                 "%s speaks protocol %" PRIu32 "; this library speaks %d",
                 client->endpoint.peer, daemon.protocol, (int)OPT_PROTOCOL);
        calls_refuse(client, &error);
    } else if (limits_valid(client, &daemon)) {
        client->daemon = daemon;
        client->incarnation = daemon.incarnation;
        snprintf(client->lost, sizeof(client->lost), "%s", reply->body.hello.lost);
        client->state = CONNECTION_REOPENING;
    }
}

static struct optclient_model *find_reopened(struct optclient *client, uint64_t id)
{
    struct optclient_model *model = client->models;
    while (model != NULL && model->reopen_id != id) {
        model = model->next;
    }
    return model;
}

static void reopened(struct optclient *client, struct optclient_model *model,
                     const struct opt_reply *reply)
{
    const struct opt_model_reply *found = &reply->body.model;
    if (reply->message == OPT_MESSAGE_ERROR) {
        const struct opt_error_reply *error = &reply->body.error;
        if (error->status == OPT_UNAVAILABLE ||
            error->status == OPT_RESOURCE_EXHAUSTED ||
            error->status == OPT_FAILED_PRECONDITION) {
            handshake_on_error(client, error, error->status == OPT_FAILED_PRECONDITION);
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
        /* What is known of later steps is of updates that a daemon which came back has
         * lost, and others will have their numbers. */
        model->known_after = model->step > found->step ? model->step : found->step;
        model->step = found->step;
        resend_pushes(client, model, found);
        if (model->last_sequence < found->last_sequence) {
            model->last_sequence = found->last_sequence;
        }
    }
    model->reopen_id = REOPEN_DONE;
}

bool handshake_on_reopened(struct optclient *client, const struct opt_reply *reply)
{
    struct optclient_model *model = find_reopened(client, reply->id);
    if (client->state != CONNECTION_REOPENING || model == NULL) {
        return false;
    }
    reopened(client, model, reply);
    return true;
}
