/* latency — small pushes against a libuv echo server.
 *
 * A push of 16 floats carries 64 bytes of data. Its reference is a 64-byte message
 * that a libuv loop in another process sends back and a blocking client waits for: the
 * same number of wake-ups with nothing in between.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/loopback.h"
#include "tests/bench/process.h"

enum {
    ELEMENTS = 16,
    MESSAGE = 64,
    IN_FLIGHT = 64,
    PINGS_MAX = 4000,
    TIMEOUT_MS = 20000
};

struct ping {
    size_t pings, messages; /* of a run, one at a time and many */
    struct optclient_model *model;
    float gradient[ELEMENTS];
    int echo;
    double seconds[PINGS_MAX];
};

static bool client_problem(char problem[256])
{
    snprintf(problem, 256, "%.250s", optclient_error());
    return false;
}

/* p50 and p99 of the round trips just made, in us. */
static void percentiles(struct ping *ping, double *values)
{
    struct summary summary = summary_of(ping->seconds, ping->pings); /* sorts */
    values[0] = summary.median * 1e6;
    values[1] = ping->seconds[ping->pings * 99 / 100] * 1e6;
}

static bool pushes_one_at_a_time(void *context, double *values, char problem[256])
{
    struct ping *ping = context;
    struct optclient_values gradient = { .values = ping->gradient };
    struct optclient_push_options options = { .timeout_ms = TIMEOUT_MS };
    for (size_t i = 0; i < ping->pings; i++) {
        double begin = seconds_now();
        if (optclient_push(ping->model, &gradient, 1, &options, NULL) != OPTCLIENT_OK) {
            return client_problem(problem);
        }
        ping->seconds[i] = seconds_now() - begin;
    }
    percentiles(ping, values);
    return true;
}

static bool echoes_one_at_a_time(void *context, double *values, char problem[256])
{
    struct ping *ping = context;
    char message[MESSAGE] = { 1 };
    for (size_t i = 0; i < ping->pings; i++) {
        double begin = seconds_now();
        if (!socket_send(ping->echo, message, sizeof message) ||
            !socket_receive(ping->echo, message, sizeof message)) {
            snprintf(problem, 256, "the echo server is gone");
            return false;
        }
        ping->seconds[i] = seconds_now() - begin;
    }
    percentiles(ping, values);
    return true;
}

static bool pushes_many(void *context, double *values, char problem[256])
{
    struct ping *ping = context;
    struct optclient_call *calls[IN_FLIGHT] = { NULL };
    struct optclient_values gradient = { .values = ping->gradient };
    struct optclient_push_options options = { .timeout_ms = TIMEOUT_MS };
    enum optclient_status status = OPTCLIENT_OK;
    double begin = seconds_now();
    for (size_t i = 0; i < ping->messages + IN_FLIGHT && status == OPTCLIENT_OK; i++) {
        struct optclient_call **call = &calls[i % IN_FLIGHT];
        if (*call != NULL) {
            status = optclient_call_wait(*call, NULL);
            optclient_call_free(*call);
            *call = NULL;
        }
        if (status == OPTCLIENT_OK && i < ping->messages) {
            status = optclient_push_start(ping->model, &gradient, 1, &options, NULL,
                                          NULL, call);
        }
    }
    double seconds = seconds_now() - begin;
    bool good = status == OPTCLIENT_OK || client_problem(problem);
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        optclient_call_free(calls[i]);
    }
    values[0] = (double)ping->messages / seconds;
    return good;
}

/* Keep as many messages in flight, each sent by a call of its own. */
static bool echoes_many(void *context, double *values, char problem[256])
{
    struct ping *ping = context;
    char message[MESSAGE] = { 1 }, answers[MESSAGE * IN_FLIGHT];
    size_t sent = 0, received = 0, all = ping->messages * MESSAGE;
    double begin = seconds_now();
    while (received < all) {
        while (sent < all && sent - received <= MESSAGE * (IN_FLIGHT - 1)) {
            if (!socket_send(ping->echo, message, sizeof message)) {
                snprintf(problem, 256, "the echo server is gone");
                return false;
            }
            sent += MESSAGE;
        }
        ssize_t got = recv(ping->echo, answers, sizeof answers, 0);
        if (got <= 0) {
            snprintf(problem, 256, "the echo server does not answer");
            return false;
        }
        received += (size_t)got;
    }
    values[0] = (double)ping->messages / (seconds_now() - begin);
    return true;
}

static void measure(const struct bench *bench, struct ping *ping)
{
    static const struct report_quantity trip[] = { { "p50", "us", REPORT_LESS, 0, 0 },
                                                   { "p99", "us", REPORT_LESS, 0, 0 } };
    static const struct report_quantity rate = { "", "1/s", REPORT_MORE, 0, 0 };
    struct comparison one = {
        .name = "push 64 B, one at a time",
        .reference = "echo of 64 bytes",
        .quantities = trip,
        .quantity_count = 2,
        .ours = { pushes_one_at_a_time, ping },
        .theirs = { echoes_one_at_a_time, ping },
    };
    struct comparison many = {
        .name = "push 64 B, 64 in flight",
        .reference = "echo of 64 bytes, 64 in flight",
        .quantities = &rate,
        .quantity_count = 1,
        .ours = { pushes_many, ping },
        .theirs = { echoes_many, ping },
    };
    compare(bench->report, &one, &bench->effort);
    compare(bench->report, &many, &bench->effort);
}

static void measure_model(const struct bench *bench, struct optclient *client,
                          struct ping *ping)
{
    uint64_t elements = ELEMENTS;
    struct optclient_tensor tensor = { .name = "weights",
                                       .shape = &elements,
                                       .rank = 1 };
    if (optclient_create(client, "small", "sgd(lr=1e-3)", NULL, &tensor, 1, NULL,
                         &ping->model) != OPTCLIENT_OK) {
        report_failure(bench->report, "latency: %s", optclient_error());
        return;
    }
    measure(bench, ping);
    optclient_model_close(ping->model);
}

void bench_latency(const struct bench *bench)
{
    static struct ping ping;
    struct server server;
    struct echo echo = { .socket = -1 };
    struct optclient *client = NULL;
    char problem[256], congestion[16] = "";
    ping.pings = bench->quick ? PINGS_MAX / 4 : PINGS_MAX;
    ping.messages = bench->quick ? 10000 : 40000;
    for (size_t i = 0; i < ELEMENTS; i++) {
        ping.gradient[i] = i % 2 == 0 ? 0.5f : -0.5f;
    }
    if (!server_start(&server, bench->daemon, problem) ||
        !server_congestion(&server, congestion, problem) ||
        !echo_start(&echo, congestion, problem)) {
        report_failure(bench->report, "latency: %s", problem);
    } else if (optclient_connect(server.address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "latency: %s", optclient_error());
    } else {
        ping.echo = echo.socket;
        measure_model(bench, client, &ping);
    }
    optclient_close(client);
    echo_stop(&echo);
    if (!server_stop(&server)) {
        report_failure(bench->report, "latency: the daemon did not stop cleanly");
    }
}
