#include "client/callbacks.h"

#include <pthread.h>
#include <signal.h>

#include "client/client.h"

/* On a callback thread: whose. */
static _Thread_local const struct optclient *inside;

bool callbacks_inside(const struct optclient *client)
{
    return inside == client;
}

void callbacks_post(struct optclient *client, struct optclient_call *call)
{
    call_append(&client->ended, call);
    pthread_cond_signal(&client->callback_due);
}

static void run_one(struct optclient *client, struct optclient_call *call)
{
    call_unlink(call);
    client_unlock(client);
    call->on_done(call, call->context);
    client_lock(client);
    call->state = CALL_DONE;
    pthread_cond_broadcast(&call->changed);
    if (call->freed) {
        call_release(call);
    }
}

static void *callback_thread(void *argument)
{
    struct optclient *client = argument;
    inside = client;
    client_lock(client);
    for (;;) {
        if (client->ended.first != NULL) {
            run_one(client, client->ended.first);
        } else if (client->callbacks_over) {
            break;
        } else {
            client_await(client, &client->callback_due);
        }
    }
    client_unlock(client);
    return NULL;
}

bool callbacks_start(struct optclient *client)
{
    if (!client->has_callbacks) {
        /* The library takes no signals: they are the program's. */
        sigset_t all, before;
        sigfillset(&all);
        if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) {
            return false;
        }
        client->has_callbacks =
            pthread_create(&client->callbacks, NULL, callback_thread, client) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return client->has_callbacks;
}

void callbacks_stop(struct optclient *client)
{
    client_lock(client);
    bool started = client->has_callbacks;
    client->callbacks_over = true;
    pthread_cond_signal(&client->callback_due);
    client_unlock(client);
    if (started) {
        pthread_join(client->callbacks, NULL);
    }
}
