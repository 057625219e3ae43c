/* sparse — what an update of some rows costs in a large table and in a small one.
 *
 * The same number of rows of the same width, spread over tables whose sizes differ by a
 * factor of a hundred, pushed to the daemon: the time must follow the rows, not the
 * table. What remains of a difference is memory that the caches do not hold.
 */
#include <stdio.h>
#include <stdlib.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/process.h"

enum {
    WIDTH = 64,
    SMALL = 10 * 1000,   /* rows */
    LARGE = 1000 * 1000, /* rows */
    TOUCHED = 4096,      /* of them, in a push */
    PUSHES = 10          /* in a run */
};

struct table {
    struct optclient_model *model;
    uint32_t rows[TOUCHED];
    float *gradient;
};

static bool push_rows(void *context, double *values, char problem[256])
{
    const struct table *table = context;
    struct optclient_values gradient = { .values = table->gradient,
                                         .rows = table->rows,
                                         .row_count = TOUCHED };
    double begin = seconds_now();
    for (int i = 0; i < PUSHES; i++) {
        if (optclient_push(table->model, &gradient, 1, NULL, NULL) != OPTCLIENT_OK) {
            snprintf(problem, 256, "%.250s", optclient_error());
            return false;
        }
    }
    values[0] = (seconds_now() - begin) / PUSHES / TOUCHED * 1e9;
    return true;
}

static bool table_open(struct optclient *client, const char *name, const char *rule,
                       uint64_t rows, float *gradient, struct table *table)
{
    const uint64_t shape[] = { rows, WIDTH };
    struct optclient_tensor tensor = {
        .name = "table", .shape = shape, .rank = 2, .sparse = 1
    };
    table->gradient = gradient;
    for (uint32_t i = 0; i < TOUCHED; i++) {
        table->rows[i] = (uint32_t)(rows / TOUCHED) * i;
    }
    return optclient_create(client, name, rule, NULL, &tensor, 1, NULL,
                            &table->model) == OPTCLIENT_OK;
}

static void measure(const struct bench *bench, struct optclient *client,
                    const char *rule, float *gradient)
{
    static struct table tables[2];
    char names[2][32], name[96];
    struct report_quantity quantity = { .name = "",
                                        .unit = "ns/row",
                                        .better = REPORT_LESS };
    struct comparison comparison = { .name = name,
                                     .reference = "10,000 rows",
                                     .quantities = &quantity,
                                     .quantity_count = 1,
                                     .ours = { push_rows, &tables[0] },
                                     .theirs = { push_rows, &tables[1] } };
    snprintf(name, sizeof name, "%s, %d rows of a million / of 10,000", rule, TOUCHED);
    snprintf(names[0], sizeof names[0], "%s-large", rule);
    snprintf(names[1], sizeof names[1], "%s-small", rule);
    if (table_open(client, names[0], rule, LARGE, gradient, &tables[0]) &&
        table_open(client, names[1], rule, SMALL, gradient, &tables[1])) {
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "sparse: %s", optclient_error());
    }
    for (int i = 0; i < 2; i++) {
        optclient_model_close(tables[i].model);
        tables[i].model = NULL;
    }
}

void bench_sparse(const struct bench *bench)
{
    struct server server;
    struct optclient *client = NULL;
    char problem[256];
    float *gradient = malloc(TOUCHED * WIDTH * sizeof *gradient);
    for (size_t i = 0; gradient != NULL && i < TOUCHED * WIDTH; i++) {
        gradient[i] = i % 2 == 0 ? 0.01f : -0.01f;
    }
    if (!server_start(&server, bench->daemon, problem)) {
        report_failure(bench->report, "sparse: %s", problem);
    } else if (gradient == NULL ||
               optclient_connect(server.address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "sparse: %s", optclient_error());
    } else {
        measure(bench, client, "sgd", gradient);
        measure(bench, client, "adam", gradient);
    }
    optclient_close(client);
    free(gradient);
    if (!server_stop(&server)) {
        report_failure(bench->report, "sparse: the daemon did not stop cleanly");
    }
}
