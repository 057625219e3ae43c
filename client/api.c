#include "client/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "client/callbacks.h"
#include "client/calls.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/process.h"
#include "client/requests.h"
#include "client/wait.h"

static _Thread_local char sentence[OPT_ERROR_TEXT];
static _Thread_local enum opt_detail detail;

const char *optclient_error(void)
{
    return sentence;
}

uint32_t optclient_version(void)
{
    return OPTCLIENT_VERSION;
}

const char *optclient_version_text(void)
{
    return OPTIMD_VERSION;
}

enum optclient_detail optclient_detail(void)
{
    return (enum optclient_detail)detail;
}

const char *optclient_status_name(enum optclient_status status)
{
    return opt_status_name((enum opt_status)status);
}

enum optclient_status api_fail(enum opt_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    return (enum optclient_status)status;
}

enum optclient_status api_reserved(const uint64_t *words, size_t count,
                                   const char *what)
{
    for (size_t i = 0; i < count; i++) {
        if (words[i] != 0) {
            return api_fail(OPT_UNIMPLEMENTED,
                            "%s: reserved[%zu] is not 0; version %s of the library "
                            "knows no option there",
                            what, i, optclient_version_text());
        }
    }
    return OPTCLIENT_OK;
}

enum optclient_status api_report(const struct opt_error *error)
{
    if (error->text[0] != '\0') {
        memcpy(sentence, error->text, sizeof(sentence));
        detail = error->detail;
    }
    return (enum optclient_status)error->status;
}

enum optclient_status api_check(const struct optclient *client)
{
    if (client->process != process_id()) {
        return api_fail(OPT_FAILED_PRECONDITION,
                        "this client belongs to process %ld, which forked; a child "
                        "needs a client of its own",
                        (long)client->process);
    }
    if (callbacks_inside(client)) {
        return api_fail(OPT_FAILED_PRECONDITION,
                        "a callback must not wait: other callbacks wait for it");
    }
    return OPTCLIENT_OK;
}

/* Send a call that nobody waits for. Who asks is not to be held up by much data; and of
 * little, several requests are worth one write if answers are awaited anyway: then
 * something will soon happen on the connection. */
static void send_soon(struct optclient *client, const struct optclient_call *call)
{
    if (call_pushes(call) && !cutter_fits(&call->cutter, SOCKET_COPY_BYTES)) {
        wait_by_thread(client);
    } else if (client->sent.first == NULL) {
        requests_send(client);
        wait_by_thread(client);
    } else {
        wait_by_thread_later(client);
    }
}

void api_post(struct optclient *client, struct optclient_call *call)
{
    if (client->closing) {
        opt_fail(&call->error, OPT_CANCELLED, "the client is being closed");
    } else if (client->refusal.status != OPT_OK) {
        call->error = client->refusal;
    } else if (call->model != NULL && call->model->loss.status != OPT_OK) {
        call->error = call->model->loss;
    } else if (call->model != NULL && call->model->left) {
        opt_fail_as(&call->error, OPT_FAILED_PRECONDITION, OPT_DETAIL_LEFT,
                    "this program has left model \"%s\"; open it again",
                    call->model->name);
    } else if (call->request.message == OPT_MESSAGE_NONE &&
               client->state == CONNECTION_READY) {
        calls_end(client, call, OPT_OK);
        return;
    }
    if (call->error.status != OPT_OK) {
        calls_end(client, call, call->error.status);
        return;
    }
    if (call->fate.number == 0) { /* else it is taken up again */
        call->fate.incarnation = client->incarnation;
    }
    client_alarm(client, call->deadline_ns);
    if (call->not_before_ns != 0) {
        call->state = CALL_LATER;
        call_append(&client->later, call);
        client_alarm(client, call->not_before_ns);
        return;
    }
    call->state = CALL_QUEUED;
    call_append(&client->queue, call);
    if (client->state != CONNECTION_READY || client->broken) {
        return;
    }
    if (call->on_heap) {
        send_soon(client, call);
    } else {
        requests_send(client); /* who waits anyway sends by itself */
        wait_by_thread(client);
    }
}

void api_wait(struct optclient_call *call, uint64_t limit_ns)
{
    struct optclient *client = call->client;
    client->callers++;
    wait_until_ended(call, limit_ns);
    client->callers--;
    if (client->callers == 0 && client->closing) {
        pthread_cond_broadcast(&client->left);
    }
}

enum optclient_status api_run(struct optclient_call *call)
{
    struct optclient *client = call->client;
    client_lock(client);
    wait_begin(call);
    api_post(client, call);
    api_wait(call, UINT64_MAX);
    client_unlock(client);
    return api_report(&call->error);
}

void api_leave(struct optclient *client)
{
    bool last = client->references == 0;
    client_unlock(client);
    if (!last) {
        return;
    }
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->left);
    pthread_cond_destroy(&client->callback_due);
    opt_arena_fini(&client->arena);
    free(client->in_buffer);
    free(client->cut.segments);
    free(client->cut.places);
    free(client->places);
    XXH3_freeState(client->hash);
    endpoint_free(&client->endpoint);
    free(client);
}
