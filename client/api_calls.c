/* Asynchronous calls after their start: their end, waited for or told of by a
 * descriptor, and their freeing. */
#include <pthread.h>
#include <uv.h>

#include "client/api.h"
#include "client/callbacks.h"
#include "client/calls.h"
#include "client/client.h"
#include "client/ended.h"
#include "client/process.h"

enum { NS_PER_MS = 1000000 };

int optclient_call_done(const struct optclient_call *call)
{
    if (call->client->process != process_id()) {
        return 1; /* nobody is there who could go on with it, or give back the lock */
    }
    client_lock(call->client);
    bool done = call->state >= CALL_ENDED;
    client_unlock(call->client);
    return done;
}

int optclient_call_wait_for(struct optclient_call *call, uint32_t timeout_ms)
{
    struct optclient *client = call->client;
    if (client->process != process_id() || callbacks_inside(client)) {
        return optclient_call_done(call);
    }
    client_lock(client);
    if (call->state < CALL_ENDED && timeout_ms > 0) {
        api_wait(call, uv_hrtime() + (uint64_t)timeout_ms * NS_PER_MS);
    }
    bool done = call->state >= CALL_ENDED;
    client_unlock(client);
    return done;
}

enum optclient_status optclient_call_wait(struct optclient_call *call,
                                          struct optclient_result *result)
{
    struct optclient *client = call->client;
    if (client->process != process_id()) {
        return api_check(client);
    }
    client_lock(client);
    if (call->state < CALL_ENDED) {
        enum optclient_status status = api_check(client);
        if (status != OPTCLIENT_OK) {
            client_unlock(client);
            return status;
        }
        api_wait(call, UINT64_MAX);
    }
    struct opt_error error = call->error;
    if (result != NULL && (error.status == OPT_OK || call_has_push(call))) {
        *result = call->result;
    }
    client_unlock(client);
    return api_report(&error);
}

const char *optclient_call_error(const struct optclient_call *call)
{
    return optclient_call_done(call) && call->client->process == process_id()
               ? call->error.text
               : "";
}

void optclient_call_cancel(struct optclient_call *call)
{
    struct optclient *client = call->client;
    if (client->process != process_id()) {
        return;
    }
    client_lock(client);
    if (call->state < CALL_ENDED) {
        calls_withdraw(client, call);
    }
    client_unlock(client);
}

int optclient_ended_fd(struct optclient *client)
{
    if (client->process != process_id()) {
        (void)api_check(client); /* leaves the sentence */
        return -1;
    }
    client_lock(client);
    if (!ended_start(client)) {
        api_fail(OPT_RESOURCE_EXHAUSTED, "no descriptor to tell of calls that end");
    }
    int fd = client->told_fd;
    client_unlock(client);
    return fd;
}

struct optclient_call *optclient_ended(struct optclient *client)
{
    if (client->process != process_id()) {
        return NULL; /* the lock may never be given back */
    }
    client_lock(client);
    struct optclient_call *call = client->told.first;
    if (call != NULL) {
        ended_remove(client, call);
    }
    client_unlock(client);
    return call;
}

void optclient_call_free(struct optclient_call *call)
{
    if (call == NULL || call->client->process != process_id()) {
        return;
    }
    struct optclient *client = call->client;
    client_lock(client);
    if (call->state != CALL_DONE && callbacks_inside(client)) {
        /* In a callback. Its own call goes when the callback is over; for another one
         * this thread cannot wait. */
        call->freed = true;
    } else {
        client->callers++;
        while (call->state != CALL_DONE) {
            client_await(client, &call->changed);
        }
        client->callers--;
        if (client->callers == 0 && client->closing) {
            pthread_cond_broadcast(&client->left);
        }
        ended_remove(client, call);
        call_release(call);
    }
    api_leave(client);
}
