#include "client/call.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "client/client.h"

enum { NS_PER_MS = 1000000 };

void call_init(struct optclient_call *call, struct optclient *client,
               struct optclient_model *model, enum opt_message message,
               uint32_t timeout_ms)
{
    memset(call, 0, sizeof(*call));
    call->client = client;
    call->model = model;
    call->request.message = message;
    call->request.has_checksum = client->settings.checksum;
    uint64_t timeout = timeout_ms == 0 ? client->settings.timeout_ms : timeout_ms;
    call->deadline_ns = uv_hrtime() + timeout * NS_PER_MS;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&call->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    opt_arena_init(&call->arena, OPT_ARENA_BYTES);
}

void call_fini(struct optclient_call *call)
{
    pthread_cond_destroy(&call->changed);
    sink_fini(&call->sink);
    opt_arena_fini(&call->arena);
    free(call->segments);
    free(call->values);
    free(call->slot);
    free(call->data);
}

enum opt_message call_message(const struct optclient_call *call)
{
    return call->pushed ? OPT_MESSAGE_PULL : call->request.message;
}

const char *call_name(const struct optclient_call *call)
{
    return call->request.message == OPT_MESSAGE_NONE
               ? "connect"
               : opt_message_name(call->request.message);
}

bool call_has_push(const struct optclient_call *call)
{
    return call->request.message == OPT_MESSAGE_PUSH ||
           call->request.message == OPT_MESSAGE_PUSH_PULL;
}

bool call_pushes(const struct optclient_call *call)
{
    return call_message(call) == OPT_MESSAGE_PUSH ||
           call_message(call) == OPT_MESSAGE_PUSH_PULL;
}

bool call_pulls(const struct optclient_call *call)
{
    return call->request.message == OPT_MESSAGE_PULL ||
           call->request.message == OPT_MESSAGE_PUSH_PULL;
}

struct opt_push *call_push_of(struct opt_request *request)
{
    return request->message == OPT_MESSAGE_PUSH ? &request->body.push
                                                : &request->body.push_pull.push;
}

struct opt_pull *call_pull_of(struct opt_request *request)
{
    return request->message == OPT_MESSAGE_PULL ? &request->body.pull
                                                : &request->body.push_pull.pull;
}

uint32_t call_ms_left(const struct optclient_call *call)
{
    uint64_t now = uv_hrtime();
    uint64_t left = call->deadline_ns <= now
                        ? 1
                        : (call->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

void call_append(struct call_list *list, struct optclient_call *call)
{
    call->list = list;
    call->previous = list->last;
    call->next = NULL;
    if (list->last != NULL) {
        list->last->next = call;
    } else {
        list->first = call;
    }
    list->last = call;
}

void call_unlink(struct optclient_call *call)
{
    struct call_list *list = call->list;
    if (list == NULL) {
        return;
    }
    if (call->previous != NULL) {
        call->previous->next = call->next;
    } else {
        list->first = call->next;
    }
    if (call->next != NULL) {
        call->next->previous = call->previous;
    } else {
        list->last = call->previous;
    }
    call->list = NULL;
    call->previous = NULL;
    call->next = NULL;
}

void call_release(struct optclient_call *call)
{
    struct optclient *client = call->client;
    call_fini(call);
    free(call);
    client->references--;
}
