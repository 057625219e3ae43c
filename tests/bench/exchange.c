/* exchange — see exchange.h. */
#include "tests/bench/exchange.h"

#include <stdint.h>
#include <stdio.h>

#include "tests/bench/clock.h"

enum { TIMEOUT_MS = 20000 };

static const char model_name[] = "exchange";

bool exchange_open(struct exchange *exchange, struct optclient *client, size_t bytes,
                   char problem[256])
{
    const uint64_t elements = bytes / sizeof(float);
    const struct optclient_tensor tensor = { .name = "weights",
                                             .shape = &elements,
                                             .rank = 1 };
    exchange->bytes = bytes;
    if (optclient_create(client, model_name, "sgd(lr=1e-3)", NULL, &tensor, 1, NULL,
                         &exchange->model) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    return true;
}

void exchange_close(struct exchange *exchange, struct optclient *client)
{
    optclient_model_close(exchange->model);
    exchange->model = NULL;
    optclient_delete(client, model_name);
}

double exchange_bytes(const struct exchange *exchange)
{
    int directions = exchange->operation == EXCHANGE_PUSH_PULL ? 2 : 1;
    return (double)exchange->bytes * (double)exchange->messages * directions;
}

size_t exchange_place(size_t *at, size_t bytes)
{
    if (*at + bytes > EXCHANGE_REGION) {
        *at = 0;
    }
    size_t place = *at / sizeof(float);
    *at += bytes;
    return place;
}

/* Start the next message. */
static enum optclient_status start(struct exchange *exchange,
                                   struct optclient_call **call)
{
    size_t place = exchange_place(&exchange->at, exchange->bytes);
    struct optclient_values gradient = { .values = exchange->gradients + place };
    struct optclient_values weight = { .values = exchange->weights + place };
    struct optclient_push_options push = { .timeout_ms = TIMEOUT_MS };
    struct optclient_pull_options pull = { .timeout_ms = TIMEOUT_MS };
    switch (exchange->operation) {
    case EXCHANGE_PUSH:
        return optclient_push_start(exchange->model, &gradient, 1, &push, NULL, NULL,
                                    call);
    case EXCHANGE_PULL:
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
    size_t place = exchange_place(&exchange->at, exchange->bytes);
    struct optclient_values gradient = { .values = exchange->gradients + place };
    struct optclient_values weight = { .values = exchange->weights + place };
    struct optclient_push_options push = { .timeout_ms = TIMEOUT_MS };
    struct optclient_pull_options pull = { .timeout_ms = TIMEOUT_MS };
    switch (exchange->operation) {
    case EXCHANGE_PUSH:
        return optclient_push(exchange->model, &gradient, 1, &push, NULL);
    case EXCHANGE_PULL:
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
    struct optclient_call *calls[EXCHANGE_IN_FLIGHT_MAX] = { NULL };
    size_t places = exchange->in_flight;
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

bool exchange_run(void *context, double *values, char problem[256])
{
    struct exchange *exchange = context;
    double begin = seconds_now();
    enum optclient_status status =
        exchange->in_flight > 1 ? many_at_a_time(exchange) : one_at_a_time(exchange);
    if (status != OPTCLIENT_OK) {
        snprintf(problem, 256, "%s: %.200s", optclient_status_name(status),
                 optclient_error());
        return false;
    }
    values[0] = exchange_bytes(exchange) / (seconds_now() - begin) / 1e9;
    return true;
}
