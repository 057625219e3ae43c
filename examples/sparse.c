/* An embedding of 10,000 rows of which each step moves four: only these rows go to the
 * daemon and come back.
 *
 *     optimd &
 *     sparse [HOST:PORT] [STEPS]
 */
#include <optclient.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 10000, WIDTH = 8, BATCH = 4 };

/* What row r shall become. */
static float wanted(uint32_t row, size_t column)
{
    return (float)(row % 7) - 3 + (float)column / WIDTH;
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:7070";
    int steps = argc > 2 ? atoi(argv[2]) : 200;
    struct optclient_tensor table = { .name = "embedding",
                                      .shape = (const uint64_t[]){ ROWS, WIDTH },
                                      .rank = 2,
                                      .sparse = 1 };
    uint32_t rows[BATCH];
    float weight[BATCH][WIDTH], gradient[BATCH][WIDTH];
    struct optclient_values weights = { .values = &weight[0][0],
                                        .rows = rows,
                                        .row_count = BATCH },
                            gradients = { .values = &gradient[0][0],
                                          .rows = rows,
                                          .row_count = BATCH };
    struct optclient *client = NULL;
    struct optclient_model *model = NULL;
    struct optclient_usage usage = { 0 };
    int failed = optclient_connect(address, NULL, &client) != OPTCLIENT_OK ||
                 optclient_create(client, "sparse", "adagrad(lr=1)", NULL, &table, 1,
                                  NULL, &model) != OPTCLIENT_OK;
    float worst = 0;
    for (int step = 0; step < steps && !failed; step++) {
        for (int i = 0; i < BATCH; i++) { /* words of the batch */
            rows[i] = (uint32_t)(step % 5 * BATCH + i) * 401;
        }
        failed = optclient_pull(model, &weights, 1, NULL, NULL) != OPTCLIENT_OK;
        worst = 0;
        for (int i = 0; i < BATCH && !failed; i++) {
            for (size_t column = 0; column < WIDTH; column++) {
                float error = weight[i][column] - wanted(rows[i], column);
                gradient[i][column] = error;
                worst = error * error > worst ? error * error : worst;
            }
        }
        failed =
            failed || optclient_push(model, &gradients, 1, NULL, NULL) != OPTCLIENT_OK;
    }
    if (failed) {
        fprintf(stderr, "sparse: %s\n", optclient_error());
    } else {
        optclient_usage(client, &usage);
        printf("largest squared error %.6f, %llu bytes sent for a table of %d\n",
               (double)worst, (unsigned long long)usage.bytes_sent,
               ROWS * WIDTH * (int)sizeof(float));
    }
    optclient_model_close(model);
    optclient_close(client);
    return failed;
}
