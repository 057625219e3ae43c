#include "client/calls.h"

#include <stdarg.h>
#include <stdio.h>
#include <uv.h>

#include "client/callbacks.h"
#include "client/client.h"
#include "client/ended.h"
#include "client/in_flight.h"
#include "client/open_model.h"
#include "client/shm.h"

enum { NS_PER_MS = 1000000 };

void calls_end(struct optclient *client, struct optclient_call *call,
               enum opt_status status)
{
    in_flight_forget(client, call);
    call_unlink(call);
    shm_end(call);
    if (call->in_place && status != OPT_OK) {
        shm_view_fail(call->model);
    }
    call->error.status = status;
    if (status != OPT_OK && call_has_push(call)) {
        fate_result(&call->fate, &call->result);
        call->result.detail = (enum optclient_detail)call->error.detail;
    }
    call->state = call->on_done == NULL ? CALL_DONE : CALL_ENDED;
    if (status == OPT_OK) {
        client->usage.pushes += call->result.fate != OPTCLIENT_UNKNOWN_FATE;
        client->usage.pulls += call_pulls(call);
    }
    if (call->on_done != NULL) {
        callbacks_post(client, call);
    } else if (call->on_heap && !call->freed) {
        ended_add(client, call);
    }
    pthread_cond_broadcast(&call->changed);
    if (client->waiter == call) {
        client_nudge(client);
    }
    if (call->freed && call->state == CALL_DONE) {
        call_release(call);
        return;
    }
    if (call->request.message == OPT_MESSAGE_LEAVE && call->model->abandoned) {
        open_model_drop(call->model);
    }
}

/* What is known of a push, as the end of a sentence; "" for a call without one. */
static const char *fate_of(const struct optclient_call *call)
{
    if (!call_has_push(call)) {
        return "";
    }
    return call->pushed ? "; the push was applied, the weights have not come"
                        : fate_words(&call->fate);
}

static bool is_any(const struct optclient_call *call)
{
    (void)call;
    return true;
}

static bool is_not_sent_push(const struct optclient_call *call)
{
    return !call_pushes(call) || call->state != CALL_SENT;
}

static void end_list(struct optclient *client, struct call_list *list,
                     struct optclient_model *model, const struct opt_error *error,
                     bool (*is)(const struct optclient_call *call))
{
    struct optclient_call *next;
    for (struct optclient_call *call = list->first; call != NULL; call = next) {
        next = call->next;
        if ((model == NULL || call->model == model) && is(call)) {
            opt_fail_as(&call->error, error->status, error->detail, "%s%s", error->text,
                        fate_of(call));
            calls_end(client, call, error->status);
        }
    }
}

static void end_lists(struct optclient *client, struct optclient_model *model,
                      const struct opt_error *error,
                      bool (*is)(const struct optclient_call *call))
{
    end_list(client, &client->sent, model, error, is);
    end_list(client, &client->queue, model, error, is);
    end_list(client, &client->later, model, error, is);
}

/* End the calls of one model (NULL: all) with this error. */
static void end_all(struct optclient *client, struct optclient_model *model,
                    const struct opt_error *error)
{
    end_lists(client, model, error, is_any);
}

void calls_cancel(struct optclient *client, struct optclient_model *model,
                  const char *reason)
{
    struct opt_error error;
    opt_fail(&error, OPT_CANCELLED, "%s", reason);
    end_all(client, model, &error);
}

void calls_leave(struct optclient_model *model, bool answered)
{
    struct opt_error error;
    opt_fail(&error, OPT_CANCELLED, "the model is being closed");
    end_lists(model->client, model, &error,
              answered ? call_has_push : is_not_sent_push);
}

void calls_fail_model(struct optclient_model *model, enum opt_status status,
                      const char *format, ...)
{
    char text[OPT_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    opt_fail_as(&model->loss, status, OPT_DETAIL_MODEL_GONE, "%s", text);
    end_all(model->client, model, &model->loss);
}

/* End a call that may still be on its way out. */
static void end_early(struct optclient *client, struct optclient_call *call,
                      enum opt_status status)
{
    bool halfway = call_pushes(call) && call->begun && !cutter_done(&call->cutter);
    calls_end(client, call, status);
    if (halfway) {
        /* Its values are not ours any more, and without its last frame no other push
         * can follow: the daemon forgets it with the connection. */
        client_disconnect(client, "a push was withdrawn halfway");
    }
}

/* A call's time has passed. */
static void expire(struct optclient *client, struct optclient_call *call)
{
    const char *name = call_name(call);
    const char *fate = fate_of(call);
    const char *trouble = client->trouble.status == OPT_OK ? "connecting has not ended"
                                                           : client->trouble.text;
    enum opt_status status = OPT_DEADLINE_EXCEEDED;
    if (call->state == CALL_LATER) {
        status = call->error.status; /* what the daemon said last */
    } else if (call->request.message == OPT_MESSAGE_NONE) {
        opt_fail_as(&call->error, status, client->trouble.detail,
                    "no connection to %s before the deadline: %s",
                    client->endpoint.peer, trouble);
    } else if (client->state != CONNECTION_READY) {
        status = OPT_UNAVAILABLE;
        opt_fail_as(&call->error, status, client->trouble.detail,
                    "%s: no connection to %s before the deadline: "
                    "%s%s",
                    name, client->endpoint.peer, trouble, fate);
    } else if (call->begun) {
        opt_fail(&call->error, status, "%s: no answer from %s before the deadline%s",
                 name, client->endpoint.peer, fate);
    } else {
        opt_fail(&call->error, status, "%s: %s did not take it before the deadline%s",
                 name, client->endpoint.peer, fate);
    }
    end_early(client, call, status);
}

void calls_withdraw(struct optclient *client, struct optclient_call *call)
{
    opt_fail(&call->error, OPT_CANCELLED, "%s: the program has cancelled it%s",
             call_name(call), fate_of(call));
    end_early(client, call, OPT_CANCELLED);
}

uint64_t calls_limit(const struct optclient *client, const struct optclient_call *call)
{
    bool may_be_answered = call->begun && client->state == CONNECTION_READY;
    if (!may_be_answered || call->deadline_ns == UINT64_MAX) {
        return call->deadline_ns;
    }
    return call->deadline_ns + (uint64_t)CLIENT_LATENESS_MS * NS_PER_MS;
}

static void expire_list(struct optclient *client, struct call_list *list, uint64_t now)
{
    struct optclient_call *next;
    for (struct optclient_call *call = list->first; call != NULL; call = next) {
        next = call->next;
        uint64_t limit = calls_limit(client, call);
        if (limit <= now) {
            expire(client, call);
            continue;
        }
        client_alarm(client, limit);
        if (call->state == CALL_LATER) {
            if (call->not_before_ns > now) {
                client_alarm(client, call->not_before_ns);
            } else {
                call_unlink(call);
                call->state = CALL_QUEUED;
                call_append(&client->queue, call);
            }
        }
    }
}

void calls_expire(struct optclient *client)
{
    uint64_t now = uv_hrtime();
    expire_list(client, &client->sent, now);
    expire_list(client, &client->queue, now);
    expire_list(client, &client->later, now);
}

void calls_refuse(struct optclient *client, const struct opt_error *error)
{
    client->refusal = *error;
    client_disconnect(client, "%s", error->text);
    end_all(client, NULL, error);
}

void calls_descriptor_lost(struct optclient *client)
{
    struct opt_error error;
    opt_fail(&error, OPT_FAILED_PRECONDITION,
             "this program has closed a descriptor of the client library");
    client_wake(client);
    /* What has the number next may be anybody's: it is not touched any more. */
    client->wake = -1;
    client->nudge = -1;
    calls_refuse(client, &error);
}
