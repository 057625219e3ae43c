/* latency — small pushes against a libuv echo server.
 *
 * A push of 16 floats carries 64 bytes of data. Its reference is a 64-byte message
 * that a libuv loop in another process sends back and a blocking client waits for: the
 * same number of wake-ups with nothing in between. Round trips are timed with both ends
 * on one processor, which shows what the programs do, and with each on its own, where
 * waking the other is the most of it.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/framing.h"
#include "tests/bench/loopback.h"
#include "tests/bench/ping.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"

enum { ELEMENTS = 16, MESSAGE = 64 };

/* One comparison, from both sides. */
struct contest {
    struct ping ping;
    struct server server;
    struct echo echo;
    enum placement placement;
};

static bool pushes(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(contest->placement, getpid(), contest->server.pid);
    return ping_pushes(&contest->ping, values, problem);
}

static bool echoes(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    struct ping *ping = &contest->ping;
    char message[MESSAGE] = { 1 };
    placement_set(contest->placement, getpid(), contest->echo.pid);
    for (size_t i = 0; i < ping->pings; i++) {
        double begin = seconds_now();
        if (!loopback_send(contest->echo.socket, message, sizeof message) ||
            !loopback_receive(contest->echo.socket, message, sizeof message)) {
            snprintf(problem, 256, "the echo server is gone");
            return false;
        }
        ping->seconds[i] = seconds_now() - begin;
    }
    ping_percentiles(ping->seconds, ping->pings, values);
    return true;
}

static bool pushes_many(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    return ping_pushes_many(&contest->ping, values, problem);
}

/* Keep as many messages in flight, each sent by a call of its own. */
static bool echoes_many(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    int echo = contest->echo.socket;
    char message[MESSAGE] = { 1 }, answers[MESSAGE * PING_IN_FLIGHT];
    size_t sent = 0, received = 0, all = contest->ping.messages * MESSAGE;
    double begin = seconds_now();
    while (received < all) {
        while (sent < all && sent - received <= MESSAGE * (PING_IN_FLIGHT - 1)) {
            if (!loopback_send(echo, message, sizeof message)) {
                snprintf(problem, 256, "the echo server is gone");
                return false;
            }
            sent += MESSAGE;
        }
        ssize_t got = recv(echo, answers, sizeof answers, 0);
        if (got <= 0) {
            snprintf(problem, 256, "the echo server does not answer");
            return false;
        }
        received += (size_t)got;
    }
    values[0] = (double)contest->ping.messages / (seconds_now() - begin);
    return true;
}

static void measure_trips(const struct bench *bench, struct contest *contest)
{
    static const struct report_quantity trip[] = { { "p50", "us", REPORT_LESS, 0, 0 },
                                                   { "p99", "us", REPORT_LESS, 0, 0 } };
    for (int i = 0; i < PLACEMENT_END; i++) {
        char name[64];
        contest->placement = (enum placement)i;
        snprintf(name, sizeof name, "push 64 B, %s",
                 placement_name(contest->placement));
        const struct comparison comparison = {
            .name = name,
            .reference = "echo of 64 bytes, placed alike",
            .quantities = trip,
            .quantity_count = 2,
            .ours = { pushes, contest },
            .theirs = { echoes, contest },
        };
        if (placement_possible(contest->placement)) {
            compare(bench->report, &comparison, &bench->effort);
        }
    }
    placement_free();
}

static void measure_rate(const struct bench *bench, struct contest *contest)
{
    static const struct report_quantity rate = { "", "1/s", REPORT_MORE, 0, 0 };
    const struct comparison comparison = {
        .name = "push 64 B, 64 in flight",
        .reference = "echo of 64 bytes, 64 in flight",
        .quantities = &rate,
        .quantity_count = 1,
        .ours = { pushes_many, contest },
        .theirs = { echoes_many, contest },
    };
    compare(bench->report, &comparison, &bench->effort);
}

void bench_latency(const struct bench *bench)
{
    static struct contest contest;
    struct optclient *client = NULL;
    char problem[256], congestion[16] = "";
    contest.echo.socket = -1;
    contest.ping.pings = bench->quick ? PING_MAX / 4 : PING_MAX;
    contest.ping.messages = bench->quick ? 10000 : 40000;
    if (!server_start(&contest.server, bench->daemon, problem) ||
        !server_congestion(&contest.server, congestion, problem) ||
        !echo_start(&contest.echo, congestion, problem)) {
        report_failure(bench->report, "latency: %s", problem);
    } else if (optclient_connect(contest.server.address, NULL, &client) !=
               OPTCLIENT_OK) {
        report_failure(bench->report, "latency: %s", optclient_error());
    } else if (!ping_open(&contest.ping, client, "small", ELEMENTS, problem)) {
        report_failure(bench->report, "latency: %s", problem);
    } else {
        measure_rate(bench, &contest);
        measure_trips(bench, &contest);
    }
    framing_measure(bench);
    ping_close(&contest.ping);
    optclient_close(client);
    echo_stop(&contest.echo);
    if (!server_stop(&contest.server)) {
        report_failure(bench->report, "latency: the daemon did not stop cleanly");
    }
}
