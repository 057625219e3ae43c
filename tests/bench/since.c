/* since — pulls of what has changed against pulls of everything.
 *
 * Before each pull an update writes some of the model: rows in one shard of a large
 * sparse table, or some of many tensors. Only the pull is timed. The memory that is
 * pulled into holds everything as it was at the last pull, and one form of the pull
 * says so (`since`). Where all has been written there is nothing to leave out.
 */
#include <stdio.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/memory.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"

enum {
    WIDTH = 64,
    ROWS = 200 * 1000, /* of the table, which is some thirteen shards */
    TOUCHED = 4096,    /* of the first of them, in a push */
    TENSORS = 160,
    ELEMENTS = 80 * 1000,  /* of each */
    FLOATS = ROWS * WIDTH, /* the same in either model */
    PULLS = 4              /* in a run */
};

struct contest {
    pid_t daemon;
    struct optclient_model *model;
    size_t pushed, pulled; /* tensors */
    struct optclient_values gradients[TENSORS], weights[TENSORS];
    uint64_t step; /* that the memory is of */
};

static bool pull(struct contest *contest, uint64_t since, double *seconds)
{
    struct optclient_pull_options options = { .since = since };
    struct optclient_result result;
    double begin = seconds_now();
    if (optclient_pull(contest->model, contest->weights, contest->pulled, &options,
                       &result) != OPTCLIENT_OK) {
        return false;
    }
    *seconds += seconds_now() - begin;
    contest->step = result.step;
    return true;
}

static bool run(struct contest *contest, bool since, double *values, char problem[256])
{
    double seconds = 0;
    for (int i = 0; i < PULLS; i++) {
        if (optclient_push(contest->model, contest->gradients, contest->pushed, NULL,
                           NULL) != OPTCLIENT_OK ||
            !pull(contest, since ? contest->step : 0, &seconds)) {
            snprintf(problem, 256, "%.250s", optclient_error());
            return false;
        }
    }
    values[0] = seconds / PULLS * 1e3;
    return true;
}

static bool pull_changed(void *context, double *values, char problem[256])
{
    return run(context, true, values, problem);
}

static bool pull_everything(void *context, double *values, char problem[256])
{
    return run(context, false, values, problem);
}

static void measure(const struct bench *bench, struct contest *contest,
                    const char *name, double goal)
{
    const struct report_quantity time = { "time", "ms", REPORT_LESS, goal, 0 };
    const struct comparison comparison = {
        .name = name,
        .reference = "a pull of everything",
        .quantities = &time,
        .quantity_count = 1,
        .ours = { pull_changed, contest },
        .theirs = { pull_everything, contest },
    };
    double seconds = 0;
    if (pull(contest, 0, &seconds)) {
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "since: %s", optclient_error());
    }
}

static void measure_table(const struct bench *bench, struct optclient *client,
                          struct contest *contest, float *gradient, float *weights)
{
    static uint32_t rows[TOUCHED];
    const uint64_t shape[] = { ROWS, WIDTH };
    const struct optclient_tensor tensor = {
        .name = "table", .shape = shape, .rank = 2, .sparse = 1
    };
    for (uint32_t i = 0; i < TOUCHED; i++) {
        rows[i] = 2 * i;
    }
    contest->pushed = contest->pulled = 1;
    contest->gradients[0] = (struct optclient_values){ .values = gradient,
                                                       .rows = rows,
                                                       .row_count = TOUCHED };
    contest->weights[0] = (struct optclient_values){ .values = weights };
    if (optclient_create(client, "table", "sgd", NULL, &tensor, 1, NULL,
                         &contest->model) == OPTCLIENT_OK) {
        measure(bench, contest, "sparse table, rows of one shard of 13 written", 0.25);
    } else {
        report_failure(bench->report, "since: %s", optclient_error());
    }
    optclient_model_close(contest->model);
    contest->model = NULL;
}

static void measure_tensors(const struct bench *bench, struct optclient *client,
                            struct contest *contest, float *gradient, float *weights)
{
    static char names[TENSORS][16];
    const uint64_t shape = ELEMENTS;
    struct optclient_tensor tensors[TENSORS];
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "layer.%zu", i);
        tensors[i] =
            (struct optclient_tensor){ .name = names[i], .shape = &shape, .rank = 1 };
        contest->gradients[i] =
            (struct optclient_values){ .tensor = i, .values = gradient };
        contest->weights[i] =
            (struct optclient_values){ .tensor = i, .values = weights + i * ELEMENTS };
    }
    contest->pulled = TENSORS;
    if (optclient_create(client, "tensors", "sgd", NULL, tensors, TENSORS, NULL,
                         &contest->model) == OPTCLIENT_OK) {
        contest->pushed = TENSORS / 10;
        measure(bench, contest, "160 tensors, 16 of them written", 0.25);
        contest->pushed = TENSORS;
        measure(bench, contest, "160 tensors, all of them written", 0);
    } else {
        report_failure(bench->report, "since: %s", optclient_error());
    }
    optclient_model_close(contest->model);
    contest->model = NULL;
}

void bench_since(const struct bench *bench)
{
    static struct contest contest;
    struct server server;
    struct optclient *client = NULL;
    char problem[256];
    float *gradient = memory_map(TOUCHED * WIDTH * sizeof *gradient);
    float *weights = memory_map(FLOATS * sizeof *weights);
    if (!server_start(&server, bench->daemon, problem)) {
        report_failure(bench->report, "since: %s", problem);
    } else if (gradient == NULL || weights == NULL ||
               optclient_connect(server.address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "since: %s", optclient_error());
    } else {
        memory_fill(gradient, TOUCHED * WIDTH, 1, 0.01f, 1);
        placement_set(PLACEMENT_TWO, getpid(), server.pid);
        measure_table(bench, client, &contest, gradient, weights);
        measure_tensors(bench, client, &contest, gradient, weights);
        placement_free();
    }
    optclient_close(client);
    memory_unmap(gradient, TOUCHED * WIDTH * sizeof *gradient);
    memory_unmap(weights, FLOATS * sizeof *weights);
    if (!server_stop(&server)) {
        report_failure(bench->report, "since: the daemon did not stop cleanly");
    }
}
