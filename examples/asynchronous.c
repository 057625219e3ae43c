/* Never waits for others: an asynchronous model, and a gradient on its way while the
 * next one is computed. Run as many of these at a time as you like.
 *
 *     optimd &
 *     asynchronous [HOST:PORT] [STEPS]
 */
#include <optclient.h>
#include <stdio.h>
#include <stdlib.h>

/* Of the mean over 16 samples of the squared error of y = weight[0] x + weight[1]. */
static void gradient_of_line(const float weight[2], float gradient[2])
{
    gradient[0] = gradient[1] = 0;
    for (int i = 0; i < 16; i++) {
        float x = (float)i / 8 - 1, error = weight[0] * x + weight[1] - (3 * x - 1);
        gradient[0] += 2 * error * x / 16;
        gradient[1] += 2 * error / 16;
    }
}

/* Steps in pairs of buffers: while the daemon has one gradient, the other is made. */
static enum optclient_status train(struct optclient_model *model, int steps,
                                   float weight[2], struct optclient_result *result)
{
    float arriving[2][2], gradient[2][2];
    struct optclient_call *call = NULL;
    struct optclient_values whole = { .values = weight };
    enum optclient_status status = optclient_pull(model, &whole, 1, NULL, NULL);
    for (int step = 0; step < steps && status == OPTCLIENT_OK; step++) {
        int at = step % 2;
        gradient_of_line(weight, gradient[at]);
        if (call != NULL) { /* the last gradient's weights have had time to come */
            status = optclient_call_wait(call, result);
            optclient_call_free(call);
            call = NULL;
            weight[0] = arriving[1 - at][0];
            weight[1] = arriving[1 - at][1];
        }
        if (status == OPTCLIENT_OK) {
            struct optclient_values push = { .values = gradient[at] };
            struct optclient_values pull = { .values = arriving[at] };
            status = optclient_push_pull_start(model, &push, 1, NULL, &pull, 1, NULL,
                                               NULL, NULL, &call);
        }
    }
    if (call != NULL) {
        status = optclient_call_wait(call, result);
        optclient_call_free(call);
    }
    return status == OPTCLIENT_OK ? optclient_pull(model, &whole, 1, NULL, NULL)
                                  : status;
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:7070";
    int steps = argc > 2 ? atoi(argv[2]) : 400;
    struct optclient_tensor line = { .name = "slope_and_offset",
                                     .shape = (const uint64_t[]){ 2 },
                                     .rank = 1 };
    /* A gradient that is t updates old counts 1/(1 + t). */
    struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC, .damping = 1 };
    struct optclient_result result = { 0 };
    struct optclient *client = NULL;
    struct optclient_model *model = NULL;
    float weight[2] = { 0 };
    int failed = optclient_connect(address, NULL, &client) != OPTCLIENT_OK ||
                 optclient_create(client, "asynchronous", "adam(lr=0.05)", &policy,
                                  &line, 1, NULL, &model) != OPTCLIENT_OK ||
                 train(model, steps, weight, &result) != OPTCLIENT_OK;
    if (failed) {
        fprintf(stderr, "asynchronous: %s\n", optclient_error());
    } else {
        printf("y = %.3f x + %.3f after %llu updates, the last gradient %llu old\n",
               (double)weight[0], (double)weight[1], (unsigned long long)result.step,
               (unsigned long long)result.staleness);
    }
    optclient_model_close(model);
    optclient_close(client);
    return failed;
}
