/* Talks to the daemon once in eight steps: the worker has fast weights and an Adam of
 * its own, and the daemon averages how far the workers have come (DiLoCo).
 *
 *     optimd &
 *     local_steps [HOST:PORT] [STEPS]
 */
#include <optclient.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:7070";
    int steps = argc > 2 ? atoi(argv[2]) : 400;
    struct optclient_tensor line = { .name = "slope_and_offset",
                                     .shape = (const uint64_t[]){ 2 },
                                     .rank = 1 };
    float gradient[2];
    struct optclient_values gradients = { .values = gradient };
    struct optclient *client = NULL;
    struct optclient_model *model = NULL;
    struct optclient_local *local = NULL;
    struct optclient_local_result at = { 0 };
    /* The model's specification is the outer rule: with nag(lr=0.7, momentum=0.9,
     * momentum_form=heavy_ball, nesterov_form=reformulated) this is DiLoCo. */
    int failed = optclient_connect(address, NULL, &client) != OPTCLIENT_OK ||
                 optclient_create(client, "local", "sgd(lr=1)", NULL, &line, 1, NULL,
                                  &model) != OPTCLIENT_OK ||
                 optclient_local_open(model, "momentum(lr=0.05)", 8, NULL, &local) !=
                     OPTCLIENT_OK;
    const float *weight = failed ? NULL : optclient_local_view(local, 0);
    for (int step = 0; step < steps && !failed; step++) {
        gradient[0] = gradient[1] = 0;
        for (int i = 0; i < 16; i++) {
            float x = (float)i / 8 - 1, error = weight[0] * x + weight[1] - (3 * x - 1);
            gradient[0] += 2 * error * x / 16;
            gradient[1] += 2 * error / 16;
        }
        failed = optclient_local_step(local, &gradients, 1, 16, &at) != OPTCLIENT_OK;
    }
    failed = failed || optclient_local_sync(local, &at) != OPTCLIENT_OK;
    if (failed) {
        fprintf(stderr, "local_steps: %s\n", optclient_error());
    } else {
        printf("y = %.3f x + %.3f after %llu steps and %llu exchanges\n",
               (double)weight[0], (double)weight[1], (unsigned long long)at.steps,
               (unsigned long long)at.epochs);
    }
    optclient_local_close(local);
    optclient_model_close(model);
    optclient_close(client);
    return failed;
}
