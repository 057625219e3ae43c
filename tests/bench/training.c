/* training — synchronous steps of a 25 million parameter model, and its memory.
 *
 * A step is what a worker waits for: all gradients up, one Adam update, all weights
 * back. Its reference is the sum of the parts with nothing around them, measured in
 * turn with the steps: the same bytes each way over a bare blocking socket, and Adam
 * alone on as many threads as the daemon uses. Overlap is how a step can be faster.
 */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/loopback.h"
#include "tests/bench/machine.h"
#include "tests/bench/memory.h"
#include "tests/bench/process.h"
#include "tests/bench/resident.h"
#include "tests/bench/trainer.h"

enum { TENSORS = 160, ELEMENTS = 156288, WORKERS_MAX = 2 };

static const char expression[] = "adam(lr=1e-3)";
static const double parameters = (double)TENSORS * ELEMENTS;

struct contest {
    unsigned workers, steps;
    struct server server;
    struct trainer trainers[WORKERS_MAX];
    struct loopback bare;
    struct kernel_run adam;
};

/* Step time in ms, steps per second, GB/s of tensor bytes through the daemon. */
static void step_values(const struct contest *contest, double seconds, double *values)
{
    values[0] = seconds * 1e3;
    values[1] = 1 / seconds;
    values[2] = 2 * 4 * parameters * contest->workers / seconds / 1e9;
}

static bool run_optimd(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    double slowest = 0;
    for (unsigned i = 0; i < contest->workers; i++) {
        if (!trainer_order(&contest->trainers[i], contest->steps)) {
            snprintf(problem, 256, "a worker has died");
            return false;
        }
    }
    for (unsigned i = 0; i < contest->workers; i++) {
        double seconds = trainer_result(&contest->trainers[i], problem);
        if (seconds < 0) {
            return false;
        }
        slowest = seconds > slowest ? seconds : slowest;
    }
    step_values(contest, slowest, values);
    return true;
}

static bool run_parts(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    size_t bytes = (size_t)(4 * parameters);
    double up =
        loopback_move(&contest->bare, LOOPBACK_UP, bytes, contest->workers, problem);
    double down = up < 0 ? -1
                         : loopback_move(&contest->bare, LOOPBACK_DOWN, bytes,
                                         contest->workers, problem);
    if (down < 0) {
        return false;
    }
    double begin = seconds_now();
    kernel_run_update(&contest->adam);
    step_values(contest, up + down + (seconds_now() - begin), values);
    return true;
}

static void measure(const struct bench *bench, struct contest *contest)
{
    const struct report_quantity quantities[] = {
        { "time", "ms", REPORT_LESS, bench->quick ? 0 : 0.90, 0 },
        { "rate", "1/s", REPORT_MORE, 0, 0 },
        { "bytes both ways", "GB/s", REPORT_MORE, 0, 0 },
    };
    char name[64];
    snprintf(name, sizeof name, "step, %u worker%s", contest->workers,
             contest->workers == 1 ? "" : "s");
    struct comparison comparison = {
        .name = name,
        .reference = "bare sockets both ways, then Adam alone",
        .quantities = quantities,
        .quantity_count = sizeof quantities / sizeof quantities[0],
        .ours = { run_optimd, contest },
        .theirs = { run_parts, contest },
    };
    if (compare(bench->report, &comparison, &bench->effort)) {
        resident_report(bench->report, &contest->server, name, parameters,
                        contest->adam.slot_count, contest->workers);
    }
}

/* Everything that a contest needs, children first. */
static bool prepare(const struct bench *bench, struct contest *contest,
                    char problem[256])
{
    char congestion[16] = "";
    int threads = machine_cores() > 1 ? machine_cores() - 1 : 1;
    if (!server_start(&contest->server, bench->daemon, problem) ||
        !server_congestion(&contest->server, congestion, problem) ||
        !loopback_start(&contest->bare, congestion, (size_t)(4 * parameters),
                        problem)) {
        return false;
    }
    struct trainer_model model = { .address = contest->server.address,
                                   .expression = expression,
                                   .tensors = TENSORS,
                                   .elements = ELEMENTS,
                                   .workers = contest->workers };
    for (unsigned i = 0; i < contest->workers; i++) {
        if (!trainer_start(&contest->trainers[i], &model, i, problem)) {
            return false;
        }
    }
    if (!kernel_run_init(&contest->adam, expression, (size_t)parameters, 1, problem)) {
        return false;
    }
    contest->adam.threads = threads;
    return true;
}

static void hold(const struct bench *bench, unsigned workers)
{
    struct contest contest = { .workers = workers,
                               .steps = bench->quick ? 3 : 10,
                               .bare = { .socket = -1 } };
    char problem[256];
    if (prepare(bench, &contest, problem)) {
        measure(bench, &contest);
    } else {
        report_failure(bench->report, "training: %s", problem);
    }
    for (unsigned i = 0; i < workers; i++) {
        trainer_stop(&contest.trainers[i]);
    }
    kernel_run_fini(&contest.adam);
    loopback_stop(&contest.bare);
    if (!server_stop(&contest.server)) {
        report_failure(bench->report, "training: the daemon did not stop cleanly");
    }
}

void bench_training(const struct bench *bench)
{
    for (unsigned workers = 1; workers <= WORKERS_MAX; workers++) {
        hold(bench, workers);
    }
}
