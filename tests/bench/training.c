/* training — synchronous steps of a 25 million parameter model, and its memory.
 *
 * A step is what a worker waits for: all gradients up, one Adam update, all weights
 * back. Its reference is the sum of the parts with nothing around them, measured in
 * turn with the steps: the same bytes each way over a bare blocking socket, and Adam
 * alone on as many threads as the daemon uses. Overlap is how a step can be faster. The
 * model is there in two forms, each with a daemon and workers of its own: rounds that
 * are applied as a whole, and shard by shard.
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

struct form {
    enum optclient_atomic atomic;
    unsigned workers, steps;
    struct server server;
    struct trainer trainers[WORKERS_MAX];
};

struct contest {
    unsigned workers;
    struct form whole, shards;
    struct loopback bare;
    struct kernel_run adam;
};

/* Step time in ms, steps per second, GB/s of tensor bytes through the daemon. */
static void step_values(unsigned workers, double seconds, double *values)
{
    values[0] = seconds * 1e3;
    values[1] = 1 / seconds;
    values[2] = 2 * 4 * parameters * workers / seconds / 1e9;
}

static bool run_optimd(void *context, double *values, char problem[256])
{
    struct form *form = context;
    double slowest = 0;
    for (unsigned i = 0; i < form->workers; i++) {
        if (!trainer_order(&form->trainers[i], form->steps)) {
            snprintf(problem, 256, "a worker has died");
            return false;
        }
    }
    for (unsigned i = 0; i < form->workers; i++) {
        double seconds = trainer_result(&form->trainers[i], problem);
        if (seconds < 0) {
            return false;
        }
        slowest = seconds > slowest ? seconds : slowest;
    }
    step_values(form->workers, slowest, values);
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
    step_values(contest->workers, up + down + (seconds_now() - begin), values);
    return true;
}

static const char *suffix_of(const struct form *form)
{
    return form->atomic == OPTCLIENT_ATOMIC_SHARD ? " by shards" : "";
}

static void name_of(const struct form *form, const char *rival, char name[64])
{
    snprintf(name, 64, "step%s%s, %u worker%s", suffix_of(form), rival, form->workers,
             form->workers == 1 ? "" : "s");
}

static void report_memory(const struct bench *bench, const struct contest *contest,
                          const struct form *form)
{
    char name[64];
    name_of(form, "", name);
    resident_report(bench->report, &form->server, name, parameters,
                    contest->adam.slot_count, form->workers);
}

/* One form of the step against a reference, which has a goal if goal is not 0, and is
 * in the name as the rival if it is a form too. */
static bool measure(const struct bench *bench, struct form *form, const char *rival,
                    const char *reference, struct compare_side theirs, double goal)
{
    const struct report_quantity quantities[] = {
        { "time", "ms", REPORT_LESS, bench->quick ? 0 : goal, 0 },
        { "rate", "1/s", REPORT_MORE, 0, 0 },
        { "bytes both ways", "GB/s", REPORT_MORE, 0, 0 },
    };
    char name[64];
    name_of(form, rival, name);
    struct comparison comparison = {
        .name = name,
        .reference = reference,
        .quantities = quantities,
        .quantity_count = sizeof quantities / sizeof quantities[0],
        .ours = { run_optimd, form },
        .theirs = theirs,
    };
    return compare(bench->report, &comparison, &bench->effort);
}

static void measure_all(const struct bench *bench, struct contest *contest)
{
    static const char parts[] = "bare sockets both ways, then Adam alone";
    const struct compare_side bare = { run_parts, contest };
    if (measure(bench, &contest->whole, "", parts, bare, 0.90)) {
        report_memory(bench, contest, &contest->whole);
    }
    if (measure(bench, &contest->shards, "", parts, bare, 0.90)) {
        report_memory(bench, contest, &contest->shards);
    }
    measure(bench, &contest->shards, " / whole rounds", "whole rounds",
            (struct compare_side){ run_optimd, &contest->whole }, 0);
}

/* A daemon and its workers. */
static bool prepare_form(const struct bench *bench, struct form *form,
                         char problem[256])
{
    if (!server_start(&form->server, bench->daemon, problem)) {
        return false;
    }
    struct trainer_model model = { .address = form->server.address,
                                   .expression = expression,
                                   .atomic = form->atomic,
                                   .tensors = TENSORS,
                                   .elements = ELEMENTS,
                                   .workers = form->workers };
    for (unsigned i = 0; i < form->workers; i++) {
        if (!trainer_start(&form->trainers[i], &model, i, problem)) {
            return false;
        }
    }
    return true;
}

static bool end_form(struct form *form)
{
    for (unsigned i = 0; i < form->workers; i++) {
        trainer_stop(&form->trainers[i]);
    }
    return server_stop(&form->server);
}

/* Everything that a contest needs, children first. */
static bool prepare(const struct bench *bench, struct contest *contest,
                    char problem[256])
{
    char congestion[16] = "";
    int threads = machine_cores() > 1 ? machine_cores() - 1 : 1;
    if (!prepare_form(bench, &contest->whole, problem) ||
        !prepare_form(bench, &contest->shards, problem) ||
        !server_congestion(&contest->whole.server, congestion, problem) ||
        !loopback_start(&contest->bare, congestion, (size_t)(4 * parameters),
                        problem) ||
        !kernel_run_init(&contest->adam, expression, (size_t)parameters, 1, problem)) {
        return false;
    }
    contest->adam.threads = threads;
    return true;
}

static void hold(const struct bench *bench, unsigned workers)
{
    const struct form form = { .workers = workers, .steps = bench->quick ? 3 : 10 };
    struct contest contest = {
        .workers = workers, .whole = form, .shards = form, .bare = { .socket = -1 }
    };
    char problem[256];
    contest.shards.atomic = OPTCLIENT_ATOMIC_SHARD;
    if (prepare(bench, &contest, problem)) {
        measure_all(bench, &contest);
    } else {
        report_failure(bench->report, "training: %s", problem);
    }
    kernel_run_fini(&contest.adam);
    loopback_stop(&contest.bare);
    bool ended = end_form(&contest.whole);
    if (!end_form(&contest.shards) || !ended) {
        report_failure(bench->report, "training: the daemon did not stop cleanly");
    }
}

void bench_training(const struct bench *bench)
{
    unsigned most = bench->quick ? 1 : WORKERS_MAX;
    for (unsigned workers = 1; workers <= most; workers++) {
        hold(bench, workers);
    }
}
