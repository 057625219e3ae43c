/* The shortest honest worker: fits y = 3x - 1 by sending gradients to a daemon.
 *
 *     optimd &
 *     minimal [HOST:PORT] [STEPS]
 */
#include <optclient.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:7070";
    int steps = argc > 2 ? atoi(argv[2]) : 200;
    struct optclient_tensor line = { .name = "slope_and_offset",
                                     .shape = (const uint64_t[]){ 2 },
                                     .rank = 1 };
    float weight[2] = { 0 }, gradient[2];
    struct optclient_values weights = { .values = weight },
                            gradients = { .values = gradient };
    struct optclient *client = NULL;
    struct optclient_model *model = NULL;
    int failed = optclient_connect(address, NULL, &client) != OPTCLIENT_OK ||
                 optclient_create(client, "line", "momentum(lr=0.05)", NULL, &line, 1,
                                  NULL, &model) != OPTCLIENT_OK ||
                 optclient_pull(model, &weights, 1, NULL, NULL) != OPTCLIENT_OK;
    for (int step = 0; step < steps && !failed; step++) {
        gradient[0] = gradient[1] = 0;
        /* of the mean over 16 samples of the squared error */
        for (int i = 0; i < 16; i++) {
            float x = (float)i / 8 - 1, error = weight[0] * x + weight[1] - (3 * x - 1);
            gradient[0] += 2 * error * x / 16;
            gradient[1] += 2 * error / 16;
        }
        failed = optclient_push_pull(model, &gradients, 1, NULL, &weights, 1, NULL,
                                     NULL) != OPTCLIENT_OK;
    }
    if (failed) {
        fprintf(stderr, "minimal: %s\n", optclient_error());
    } else {
        printf("y = %.3f x + %.3f\n", (double)weight[0], (double)weight[1]);
    }
    optclient_model_close(model);
    optclient_close(client);
    return failed;
}
