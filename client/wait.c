#include "client/wait.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <uv.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/replies.h"
#include "client/requests.h"

enum { NS_PER_MS = 1000000, NS_PER_US = 1000 };

void wait_by_thread(struct optclient *client)
{
    uint32_t out = requests_have_more(client) ? EPOLLOUT : 0;
    uint32_t events = EPOLLIN | out;
    if (client->waiter != NULL && client->state == CONNECTION_READY) {
        /* When it is awake it does all there is to do before it waits again. */
        bool sees_to_it =
            client->waiter_events == 0 || (client->waiter_events & POLLOUT) != 0;
        events = sees_to_it ? 0 : out;
    }
    if (!socket_watch(client->socket, events)) {
        client_disconnect(client, "cannot watch a socket");
    }
}

void wait_by_thread_later(struct optclient *client)
{
    socket_tell_in(client->socket,
                   client->sent.first == NULL ? CLIENT_CALM_US : CLIENT_PATIENCE_US);
}

static bool is_ready(const struct optclient *client)
{
    return client->state == CONNECTION_READY && !client->broken;
}

void wait_begin(struct optclient_call *call)
{
    struct optclient *client = call->client;
    if (client->waiter == NULL && is_ready(client)) {
        client->waiter = call;
        client->server = pthread_self();
        wait_by_thread(client);
    }
}

/* Whether the caller serves the connection while it waits for the call; others may wait
 * for the same one. */
static bool is_server(const struct optclient_call *call)
{
    return call->client->waiter == call &&
           pthread_equal(call->client->server, pthread_self()) != 0;
}

static void end(struct optclient *client)
{
    client->waiter = NULL;
    if (!is_ready(client)) {
        return;
    }
    if (requests_have_more(client)) {
        wait_by_thread(client);
    } else {
        /* Who has asked once, or for much at once, will soon wait again. */
        wait_by_thread_later(client);
    }
}

/* For poll(2): until the call's time has passed, or the waiter's, rounded up, or it is
 * time to look. */
static int ms_left(const struct optclient_call *call, uint64_t limit_ns)
{
    uint64_t now = uv_hrtime();
    uint64_t limit = calls_limit(call->client, call);
    limit = limit_ns < limit ? limit_ns : limit;
    uint64_t ms = limit <= now ? 0 : (limit - now + NS_PER_MS - 1) / NS_PER_MS;
    return ms > CLIENT_REST_MS ? CLIENT_REST_MS : (int)ms;
}

/* poll(2), which looks for a while before it sleeps, if the client is to do so. */
static int look(const struct optclient *client, struct pollfd watched[2], int ms)
{
    uint64_t spin_ns = (uint64_t)client->settings.spin_us * NS_PER_US;
    uint64_t begin = spin_ns > 0 ? uv_hrtime() : 0;
    int due = 0;
    while (spin_ns > 0 && due == 0 && uv_hrtime() - begin < spin_ns) {
        due = poll(watched, 2, 0);
    }
    return due != 0 ? due : poll(watched, 2, ms);
}

/* Wait for something to do. The connection may be another one afterwards. */
static void sleep_until_due(struct optclient_call *call, uint64_t limit_ns)
{
    struct optclient *client = call->client;
    short events = requests_have_more(client) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd watched[2] = { { .fd = client->socket->transport.fd,
                                   .events = events },
                                 { .fd = client->nudge, .events = POLLIN } };
    int ms = socket_holds(client->socket) ? 0 : ms_left(call, limit_ns);
    client->waiter_events = events;
    int paused = client_pause(client);
    int due = look(client, watched, ms);
    client_resume(client, paused);
    client->waiter_events = 0;
    eventfd_t nudges;
    if (due > 0 && (watched[1].revents & POLLNVAL) != 0) {
        calls_descriptor_lost(client);
    } else if (due > 0 && watched[1].revents != 0) {
        (void)eventfd_read(client->nudge, &nudges);
    }
    if (due == 0) {
        calls_expire(client);
    }
}

static bool is_over(const struct optclient_call *call, uint64_t limit_ns)
{
    return call->state >= CALL_ENDED ||
           (limit_ns != UINT64_MAX && uv_hrtime() >= limit_ns);
}

static void serve(struct optclient_call *call, uint64_t limit_ns)
{
    struct optclient *client = call->client;
    while (!is_over(call, limit_ns) && is_ready(client)) {
        sleep_until_due(call, limit_ns);
        if (is_ready(client)) {
            replies_take(client);
        }
        if (is_ready(client)) {
            requests_send(client);
        }
    }
}

void wait_until_ended(struct optclient_call *call, uint64_t limit_ns)
{
    struct optclient *client = call->client;
    wait_begin(call);
    while (!is_over(call, limit_ns)) {
        if (is_server(call)) {
            serve(call, limit_ns);
            end(client);
        } else {
            client_await_until(client, &call->changed, limit_ns);
        }
    }
    if (is_server(call)) {
        end(client);
    }
}
