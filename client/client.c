#include "client/client.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

enum { NS_PER_S = 1000000000 };

void client_lock(struct optclient *client)
{
    int state;
    pthread_mutex_lock(&client->lock);
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    client->cancel_state = state;
}

void client_unlock(struct optclient *client)
{
    int state = client->cancel_state;
    pthread_mutex_unlock(&client->lock);
    (void)pthread_setcancelstate(state, NULL);
}

void client_await(struct optclient *client, pthread_cond_t *condition)
{
    int state = client->cancel_state;
    pthread_cond_wait(condition, &client->lock);
    client->cancel_state = state;
}

void client_await_until(struct optclient *client, pthread_cond_t *condition,
                        uint64_t limit_ns)
{
    if (limit_ns == UINT64_MAX) {
        client_await(client, condition);
        return;
    }
    int state = client->cancel_state;
    struct timespec limit = { .tv_sec = (time_t)(limit_ns / NS_PER_S),
                              .tv_nsec = (long)(limit_ns % NS_PER_S) };
    (void)pthread_cond_timedwait(condition, &client->lock, &limit);
    client->cancel_state = state;
}

int client_pause(struct optclient *client)
{
    int state = client->cancel_state;
    pthread_mutex_unlock(&client->lock);
    return state;
}

void client_resume(struct optclient *client, int paused)
{
    pthread_mutex_lock(&client->lock);
    client->cancel_state = paused;
}

/* ------------------------------------------------------------------- waking */

void client_wake(struct optclient *client)
{
    (void)eventfd_write(client->wake, 1);
}

/* Whether the caller is the client's thread. */
static bool on_thread(const struct optclient *client)
{
    return pthread_equal(pthread_self(), client->thread) != 0;
}

void client_alarm(struct optclient *client, uint64_t when_ns)
{
    if (when_ns < client->alarm_ns) {
        client->alarm_ns = when_ns;
    }
    if (client->alarm_ns < client->sleeps_until_ns && !on_thread(client)) {
        client->sleeps_until_ns = client->alarm_ns;
        client_wake(client);
    }
}

void client_nudge(struct optclient *client)
{
    if (client->waiter_events != 0) {
        (void)eventfd_write(client->nudge, 1);
    }
}

void client_disconnect(struct optclient *client, const char *format, ...)
{
    if (client->broken || client->socket == NULL) {
        return;
    }
    char text[OPT_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    opt_fail(&client->trouble, OPT_UNAVAILABLE, "%s", text);
    client->broken = true;
    if (!on_thread(client)) {
        client_wake(client);
    }
}
