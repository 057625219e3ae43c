/* ping — see ping.h. */
#include "tests/bench/ping.h"

#include <stdint.h>
#include <stdio.h>

#include "tests/bench/compare.h"

enum { TIMEOUT_MS = 20000 };

static bool client_problem(char problem[256])
{
    snprintf(problem, 256, "%.250s", optclient_error());
    return false;
}

bool ping_open(struct ping *ping, struct optclient *client, const char *name,
               size_t elements, char problem[256])
{
    const uint64_t shape = elements;
    const struct optclient_tensor tensor = { .name = "weights",
                                             .shape = &shape,
                                             .rank = 1 };
    ping->elements = elements;
    for (size_t i = 0; i < elements; i++) {
        ping->gradient[i] = i % 2 == 0 ? 0.5f : -0.5f;
    }
    return optclient_create(client, name, "sgd(lr=1e-3)", NULL, &tensor, 1, NULL,
                            &ping->model) == OPTCLIENT_OK ||
           client_problem(problem);
}

void ping_close(struct ping *ping)
{
    optclient_model_close(ping->model);
    ping->model = NULL;
}

void ping_percentiles(double *seconds, size_t count, double *values)
{
    struct summary summary = summary_of(seconds, count); /* sorts */
    values[0] = summary.median * 1e6;
    values[1] = seconds[count * 99 / 100] * 1e6;
}

bool ping_pushes(void *context, double *values, char problem[256])
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
    ping_percentiles(ping->seconds, ping->pings, values);
    return true;
}

bool ping_pushes_many(void *context, double *values, char problem[256])
{
    struct ping *ping = context;
    struct optclient_call *calls[PING_IN_FLIGHT] = { NULL };
    struct optclient_values gradient = { .values = ping->gradient };
    struct optclient_push_options options = { .timeout_ms = TIMEOUT_MS };
    enum optclient_status status = OPTCLIENT_OK;
    double begin = seconds_now();
    for (size_t i = 0; i < ping->messages + PING_IN_FLIGHT && status == OPTCLIENT_OK;
         i++) {
        struct optclient_call **call = &calls[i % PING_IN_FLIGHT];
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
    for (size_t i = 0; i < PING_IN_FLIGHT; i++) {
        optclient_call_free(calls[i]);
    }
    values[0] = (double)ping->messages / seconds;
    return good;
}
