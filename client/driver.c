#include "client/driver.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <uv.h>

#include "client/exchange.h"
#include "client/session.h"

enum { NS_PER_MS = 1000000, NS_PER_US = 1000 };

static bool is_drivable(const struct optclient *client)
{
    return client->state == SESSION_READY && !client->broken;
}

void driver_begin(struct optclient_call *call)
{
    struct optclient *client = call->client;
    if (client->driver == NULL && is_drivable(client)) {
        client->driver = call;
        exchange_watch(client);
    }
}

static void end(struct optclient *client)
{
    client->driver = NULL;
    if (!is_drivable(client)) {
        return;
    }
    if (exchange_has_more(client)) {
        exchange_watch(client);
    } else {
        /* Who has asked once, or for much at once, will soon wait again. */
        exchange_watch_later(client);
    }
}

/* For poll(2): until the call's time has passed, rounded up, or it is time to look. */
static int ms_left(const struct optclient_call *call)
{
    uint64_t now = uv_hrtime();
    uint64_t limit = session_limit(call->client, call);
    uint64_t ms = limit <= now ? 0 : (limit - now + NS_PER_MS - 1) / NS_PER_MS;
    return ms > SESSION_REST_MS ? SESSION_REST_MS : (int)ms;
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
static void doze(struct optclient_call *call)
{
    struct optclient *client = call->client;
    short events = exchange_has_more(client) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd watched[2] = { { .fd = client->uplink->transport.fd,
                                   .events = events },
                                 { .fd = client->nudge, .events = POLLIN } };
    int ms = uplink_holds(client->uplink) ? 0 : ms_left(call);
    client->driver_events = events;
    int paused = session_pause(client);
    int due = look(client, watched, ms);
    session_resume(client, paused);
    client->driver_events = 0;
    eventfd_t nudges;
    if (due > 0 && (watched[1].revents & POLLNVAL) != 0) {
        session_robbed(client);
    } else if (due > 0 && watched[1].revents != 0) {
        (void)eventfd_read(client->nudge, &nudges);
    }
    if (due == 0) {
        session_expire(client);
    }
}

static void drive(struct optclient_call *call)
{
    struct optclient *client = call->client;
    while (call->state < CALL_ENDED && is_drivable(client)) {
        doze(call);
        if (is_drivable(client)) {
            exchange_take_in(client);
        }
        if (is_drivable(client)) {
            exchange_send(client);
        }
    }
}

void driver_wait(struct optclient_call *call)
{
    struct optclient *client = call->client;
    driver_begin(call);
    while (call->state < CALL_ENDED) {
        if (client->driver == call) {
            drive(call);
            end(client);
        } else {
            session_await(client, &call->changed);
        }
    }
    if (client->driver == call) {
        end(client);
    }
}
