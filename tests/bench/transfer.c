/* transfer — goodput of pushes and pulls against bare blocking sockets.
 *
 * A model of one tensor and one worker, updated by sgd, so that arithmetic is next to
 * nothing. Gradients are taken from, and weights put to, a region much larger than any
 * cache, as the bare peers do. "one at a time" waits for each answer before the next
 * request; "many" keeps several requests in flight, and its reference is an
 * uninterrupted stream of the same bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/loopback.h"
#include "tests/bench/memory.h"
#include "tests/bench/process.h"

enum { REGION = 200 << 20, IN_FLIGHT_MAX = 64, TIMEOUT_MS = 20000 };

static const struct size {
    const char *name;
    size_t bytes;
    size_t in_flight;            /* when many */
    size_t one, many;            /* messages in a run */
    double push_goal, pull_goal; /* of many */
} sizes[] = {
    { "4 KiB", 4 << 10, 64, 1000, 16384, 0, 0 },
    { "64 KiB", 64 << 10, 64, 500, 2048, 0, 0 },
    { "1 MiB", 1 << 20, 8, 96, 128, 0, 0 },
    { "16 MiB", 16 << 20, 4, 8, 12, 0.90, 0.85 },
    { "100 MiB", 100 << 20, 2, 2, 4, 0.90, 0.85 },
};

enum operation { PUSH, PULL, PUSH_PULL, OPERATIONS };

static const struct {
    const char *name, *one_reference, *many_reference;
    enum loopback_pattern one, many; /* of the bare sockets */
    int directions;
} operations[OPERATIONS] = {
    [PUSH] = { "push", "message, one byte back", "stream", LOOPBACK_UP_EACH,
               LOOPBACK_UP, 1 },
    [PULL] = { "pull", "one byte, message back", "stream", LOOPBACK_DOWN_EACH,
               LOOPBACK_DOWN, 1 },
    [PUSH_PULL] = { "push and pull", "message, message back", "message, message back",
                    LOOPBACK_THERE_BACK, LOOPBACK_THERE_BACK, 2 },
};

/* One comparison, from both sides. */
struct exchange {
    const struct size *size;
    enum operation operation;
    bool many;
    size_t messages;
    struct optclient_model *model;
    struct loopback *bare;
    float *gradients, *weights; /* the bare side's regions, used by both */
    size_t at;                  /* byte of our next message in them */
};

static double gigabytes(const struct exchange *exchange)
{
    return (double)exchange->size->bytes * (double)exchange->messages *
           operations[exchange->operation].directions / 1e9;
}

static size_t next_place(struct exchange *exchange)
{
    if (exchange->at + exchange->size->bytes > REGION) {
        exchange->at = 0;
    }
    size_t place = exchange->at / sizeof(float);
    exchange->at += exchange->size->bytes;
    return place;
}

/* Start the next message of an exchange. */
static enum optclient_status start(struct exchange *exchange,
                                   struct optclient_call **call)
{
    size_t place = next_place(exchange);
    struct optclient_values gradient = { .values = exchange->gradients + place };
    struct optclient_values weight = { .values = exchange->weights + place };
    struct optclient_push_options push = { .timeout_ms = TIMEOUT_MS };
    struct optclient_pull_options pull = { .timeout_ms = TIMEOUT_MS };
    switch (exchange->operation) {
    case PUSH:
        return optclient_push_start(exchange->model, &gradient, 1, &push, NULL, NULL,
                                    call);
    case PULL:
        return optclient_pull_start(exchange->model, &weight, 1, &pull, NULL, NULL,
                                    call);
    default:
        return optclient_push_pull_start(exchange->model, &gradient, 1, &push, &weight,
                                         1, &pull, NULL, NULL, call);
    }
}

/* The same and wait. */
static enum optclient_status perform(struct exchange *exchange)
{
    size_t place = next_place(exchange);
    struct optclient_values gradient = { .values = exchange->gradients + place };
    struct optclient_values weight = { .values = exchange->weights + place };
    struct optclient_push_options push = { .timeout_ms = TIMEOUT_MS };
    struct optclient_pull_options pull = { .timeout_ms = TIMEOUT_MS };
    switch (exchange->operation) {
    case PUSH:
        return optclient_push(exchange->model, &gradient, 1, &push, NULL);
    case PULL:
        return optclient_pull(exchange->model, &weight, 1, &pull, NULL);
    default:
        return optclient_push_pull(exchange->model, &gradient, 1, &push, &weight, 1,
                                   &pull, NULL);
    }
}

static enum optclient_status one_at_a_time(struct exchange *exchange)
{
    enum optclient_status status = OPTCLIENT_OK;
    for (size_t i = 0; i < exchange->messages && status == OPTCLIENT_OK; i++) {
        status = perform(exchange);
    }
    return status;
}

/* A ring of calls: the oldest is waited for when all places are taken. */
static enum optclient_status many_at_a_time(struct exchange *exchange)
{
    struct optclient_call *calls[IN_FLIGHT_MAX] = { NULL };
    size_t places = exchange->size->in_flight;
    enum optclient_status status = OPTCLIENT_OK;
    for (size_t i = 0; i < exchange->messages + places && status == OPTCLIENT_OK; i++) {
        struct optclient_call **call = &calls[i % places];
        if (*call != NULL) {
            status = optclient_call_wait(*call, NULL);
            optclient_call_free(*call);
            *call = NULL;
        }
        if (status == OPTCLIENT_OK && i < exchange->messages) {
            status = start(exchange, call);
        }
    }
    for (size_t i = 0; i < places; i++) {
        optclient_call_free(calls[i]);
    }
    return status;
}

static bool run_optimd(void *context, double *values, char problem[256])
{
    struct exchange *exchange = context;
    double begin = seconds_now();
    enum optclient_status status =
        exchange->many ? many_at_a_time(exchange) : one_at_a_time(exchange);
    if (status != OPTCLIENT_OK) {
        snprintf(problem, 256, "%s: %.200s", optclient_status_name(status),
                 optclient_error());
        return false;
    }
    values[0] = gigabytes(exchange) / (seconds_now() - begin);
    return true;
}

static bool run_bare(void *context, double *values, char problem[256])
{
    struct exchange *exchange = context;
    enum loopback_pattern pattern = exchange->many
                                        ? operations[exchange->operation].many
                                        : operations[exchange->operation].one;
    double seconds = loopback_move(exchange->bare, pattern, exchange->size->bytes,
                                   exchange->messages, problem);
    values[0] = gigabytes(exchange) / seconds;
    return seconds > 0;
}

static void measure(const struct bench *bench, struct exchange *exchange)
{
    const struct size *size = exchange->size;
    size_t full = exchange->many ? size->many : size->one;
    double goal = exchange->operation == PUSH   ? size->push_goal
                  : exchange->operation == PULL ? size->pull_goal
                                                : 0;
    struct report_quantity quantity = { "", "GB/s", REPORT_MORE,
                                        exchange->many && !bench->quick ? goal : 0, 0 };
    char name[96];
    exchange->messages = bench->quick ? (full + 3) / 4 : full;
    snprintf(name, sizeof name, "%s %s, %s", operations[exchange->operation].name,
             size->name, exchange->many ? "many" : "one at a time");
    struct comparison comparison = {
        .name = name,
        .reference = exchange->many ? operations[exchange->operation].many_reference
                                    : operations[exchange->operation].one_reference,
        .quantities = &quantity,
        .quantity_count = 1,
        .ours = { run_optimd, exchange },
        .theirs = { run_bare, exchange },
    };
    compare(bench->report, &comparison, &bench->effort);
}

/* All comparisons with one model. */
static void measure_size(const struct bench *bench, struct optclient *client,
                         const struct size *size, struct exchange *exchange)
{
    uint64_t elements = size->bytes / sizeof(float);
    struct optclient_tensor tensor = { .name = "weights",
                                       .shape = &elements,
                                       .rank = 1 };
    if (optclient_create(client, size->name, "sgd(lr=1e-3)", NULL, &tensor, 1, NULL,
                         &exchange->model) != OPTCLIENT_OK) {
        report_failure(bench->report, "a model of %s: %s", size->name,
                       optclient_error());
        return;
    }
    exchange->size = size;
    for (int operation = PUSH; operation < OPERATIONS; operation++) {
        exchange->operation = (enum operation)operation;
        for (int many = 0; many < 2; many++) {
            exchange->many = many == 1;
            measure(bench, exchange);
        }
    }
    optclient_model_close(exchange->model);
    optclient_delete(client, size->name);
}

void bench_transfer(const struct bench *bench)
{
    struct server server;
    struct loopback bare = { .socket = -1 };
    struct optclient *client = NULL;
    struct exchange exchange = { .bare = &bare };
    char problem[256], congestion[16] = "";
    if (!server_start(&server, bench->daemon, problem)) {
        report_failure(bench->report, "transfer: %s", problem);
    } else if (!server_congestion(&server, congestion, problem) ||
               !loopback_start(&bare, congestion, REGION, problem)) {
        report_failure(bench->report, "transfer: %s", problem);
    } else if (optclient_connect(server.address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "transfer: %s", optclient_error());
    } else {
        report_fact(bench->report, "congestion control", "%s, on both sides",
                    congestion);
        exchange.gradients = bare.from;
        exchange.weights = bare.to;
        memory_fill(exchange.gradients, REGION / sizeof(float), 1, 1.0f, 1);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            measure_size(bench, client, &sizes[i], &exchange);
        }
    }
    optclient_close(client);
    loopback_stop(&bare);
    if (!server_stop(&server)) {
        report_failure(bench->report, "transfer: the daemon did not stop cleanly");
    }
}
