/* scale — whether cost grows in proportion: the same work, of growing size.
 *
 * Every curve has a least size, whose daemon stays up while each larger one is measured
 * by turns with it; what is compared is the time per parameter or tensor, so that 1 is
 * proportion. Where the least size fits the caches, a second one that does not tells
 * growth from caching. Of tables, what is measured is how long it takes to create and
 * describe a model. The curve of connections is connections.c's.
 */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"
#include "tests/bench/process.h"
#include "tests/bench/resident.h"
#include "tests/bench/tables.h"
#include "tests/bench/trainer.h"

enum {
    WORKERS_MAX = 64,
    SIZES_MAX = 8,
    STEPS_MAX = 32,
    STEP_ELEMENTS = 64 << 20, /* of all steps of a measurement together, about */
    LARGE_TENSOR = 1000000,
    SMALL_TENSOR = 256,
    SAME_ELEMENTS = 25600000, /* in few tensors or many */
    TEAM_ELEMENTS = 16 << 20
};

/* A model and the workers that train it, with a daemon of their own. */
struct field {
    size_t tensors, elements; /* of each tensor */
    unsigned workers;
    bool frugal;  /* see trainer.h */
    double parts; /* what the time of a step is divided by */
    struct server server;
    struct trainer trainers[WORKERS_MAX];
};

struct curve {
    const char *series, *axis, *unit;
    double goal;
    void (*shape)(struct field *field, size_t x);
    size_t sizes[SIZES_MAX], quick[SIZES_MAX]; /* ascending, ended by 0 */
    const char *large;  /* series of larger sizes only, or NULL */
    size_t large_least; /* its least */
};

/* What sizes of a curve are compared with. */
struct origin {
    const char *series;
    size_t x;
    struct field field;
};

/* ---------------------------------------------------------------- shapes */

/* Workers have memory for one tensor only, so that the largest model fits beside them.
 */
static void shape_model(struct field *field, size_t parameters)
{
    *field = (struct field){ .tensors = parameters / LARGE_TENSOR,
                             .elements = LARGE_TENSOR,
                             .workers = 1,
                             .frugal = true,
                             .parts = (double)parameters };
}

static void shape_tensors(struct field *field, size_t tensors)
{
    *field = (struct field){ .tensors = tensors,
                             .elements = SMALL_TENSOR,
                             .workers = 1,
                             .parts = (double)tensors };
}

static void shape_pieces(struct field *field, size_t tensors)
{
    *field = (struct field){ .tensors = tensors,
                             .elements = SAME_ELEMENTS / tensors,
                             .workers = 1,
                             .parts = SAME_ELEMENTS };
}

static void shape_round(struct field *field, size_t workers)
{
    *field = (struct field){ .tensors = 1,
                             .elements = LARGE_TENSOR,
                             .workers = (unsigned)workers,
                             .parts = (double)workers * LARGE_TENSOR };
}

static const struct curve curves[] = {
    { "model size",
      "parameters",
      "ns/param",
      1.2,
      shape_model,
      { 1000000, 4000000, 16000000, 64000000, 256000000, 1000000000 },
      { 4000000, 32000000 },
      "model size from memory",
      64000000 },
    { "tensors of 256",
      "tensors",
      "ns/tensor",
      1.2,
      shape_tensors,
      { 1000, 10000, 100000 },
      { 1000, 10000 },
      NULL,
      0 },
    { "25.6 million in",
      "tensors",
      "ns/param",
      3,
      shape_pieces,
      { 100, 1000, 10000, 100000 },
      { 100, 20000 },
      NULL,
      0 },
    { "round of 1 million",
      "workers",
      "ns/param",
      1.2,
      shape_round,
      { 1, 2, 4, 8, 16, 32, 64 },
      { 1, 8 },
      NULL,
      0 },
};
enum { CURVES = sizeof curves / sizeof curves[0] };

/* ---------------------------------------------------------------- fields */

static double parameters_of(const struct field *field)
{
    return (double)field->tensors * (double)field->elements;
}

/* What a daemon and its workers will take: weights, a slot and a gradient of each
 * worker, and the workers' own arrays. */
static double bytes_of(const struct field *field)
{
    double own = field->frugal ? (double)field->elements : parameters_of(field);
    return 4 * parameters_of(field) * (2 + field->workers) + 8 * own * field->workers;
}

static void field_close(const struct bench *bench, struct field *field)
{
    for (unsigned i = 0; i < field->workers; i++) {
        trainer_stop(&field->trainers[i]);
    }
    if (!server_stop(&field->server)) {
        report_failure(bench->report, "scale: a daemon did not stop cleanly");
    }
}

static bool field_open(const struct bench *bench, struct field *field,
                       char problem[256])
{
    if (!server_start(&field->server, bench->daemon, problem)) {
        return false;
    }
    const struct trainer_model model = { .address = field->server.address,
                                         .expression = "momentum(lr=1e-3)",
                                         .tensors = field->tensors,
                                         .elements = field->elements,
                                         .workers = field->workers,
                                         .frugal = field->frugal };
    for (unsigned i = 0; i < field->workers; i++) {
        if (!trainer_start(&field->trainers[i], &model, i, problem)) {
            return false;
        }
    }
    return true;
}

/* Some steps of all workers: ns of one per part, as it passes and of the daemon's
 * processor time, which other programs disturb less. A compare_side. */
static bool field_steps(void *context, double *values, char problem[256])
{
    struct field *field = context;
    double wanted = STEP_ELEMENTS / (parameters_of(field) * field->workers);
    unsigned steps = wanted < 1 ? 1 : wanted > STEPS_MAX ? STEPS_MAX : (unsigned)wanted;
    double before = server_processor_seconds(&field->server);
    double slowest = trainers_run(field->trainers, field->workers, steps, problem);
    if (slowest < 0) {
        return false;
    }
    double busy = server_processor_seconds(&field->server) - before;
    values[0] = slowest * 1e9 / field->parts;
    values[1] = busy * 1e9 / steps / field->parts;
    return true;
}

/* ---------------------------------------------------------------- curves */

/* "64 M", "1000". */
static const char *count_text(size_t count, char text[24])
{
    bool whole = count >= 1000000 && count % 1000000 == 0;
    snprintf(text, 24, "%zu%s", whole ? count / 1000000 : count, whole ? " M" : "");
    return text;
}

/* A size of a curve beside a smaller one. */
static bool compare_sizes(const struct bench *bench, const struct curve *curve,
                          struct origin *origin, struct field *field, size_t x)
{
    char name[96], reference[64], size[24], from[24];
    snprintf(name, sizeof name, "%s, %s %s", origin->series, count_text(x, size),
             curve->axis);
    snprintf(reference, sizeof reference, "%s %s", count_text(origin->x, from),
             curve->axis);
    const struct report_quantity quantities[] = {
        { "time", curve->unit, REPORT_LESS, curve->goal, 0 },
        { "processor time", curve->unit, REPORT_LESS, curve->goal, 0 },
    };
    const struct report_point point = { origin->series, curve->axis, (double)x,
                                        (double)origin->x };
    const struct comparison comparison = { .name = name,
                                           .reference = reference,
                                           .quantities = quantities,
                                           .quantity_count = 2,
                                           .ours = { field_steps, field },
                                           .theirs = { field_steps, &origin->field },
                                           .point = &point };
    return compare(bench->report, &comparison, &bench->effort);
}

/* One size of a curve beside all smaller ones that it is compared with. */
static void measure_point(const struct bench *bench, const struct curve *curve,
                          struct origin *origins, size_t count, size_t x)
{
    struct field field;
    char problem[256], name[64], size[24];
    bool good = true;
    curve->shape(&field, x);
    snprintf(name, sizeof name, "%s, %s %s", curve->series, count_text(x, size),
             curve->axis);
    if (bytes_of(&field) > 0.95 * (double)machine_available()) {
        report_fact(bench->report, name, "left out: takes %.1f GiB of memory",
                    bytes_of(&field) / (1 << 30));
        return;
    }
    if (!field_open(bench, &field, problem)) {
        report_failure(bench->report, "%s: %s", name, problem);
        good = false;
    }
    for (size_t i = 0; i < count && good; i++) {
        good = x <= origins[i].x || compare_sizes(bench, curve, &origins[i], &field, x);
    }
    if (good) {
        resident_report(bench->report, &field.server, name, parameters_of(&field), 1,
                        field.workers);
    }
    field_close(bench, &field);
}

static void measure_curve(const struct bench *bench, const struct curve *curve)
{
    const size_t *sizes = bench->quick ? curve->quick : curve->sizes;
    struct origin origins[2] = { { .series = curve->series, .x = sizes[0] },
                                 { .series = curve->large, .x = curve->large_least } };
    size_t count = curve->large == NULL || bench->quick ? 1 : 2, opened = 0;
    char problem[256];
    bool good = true;
    while (opened < count && good) {
        curve->shape(&origins[opened].field, origins[opened].x);
        good = field_open(bench, &origins[opened++].field, problem);
    }
    if (!good) {
        report_failure(bench->report, "%s: %s", curve->series, problem);
    }
    for (size_t i = 1; i < SIZES_MAX && sizes[i] > 0 && good; i++) {
        measure_point(bench, curve, origins, count, sizes[i]);
    }
    while (opened > 0) {
        field_close(bench, &origins[--opened].field);
    }
}

/* The update alone, on teams of growing size. */
static void measure_threads(const struct bench *bench)
{
    struct kernel_run one, team;
    char problem[256], name[64];
    const struct report_quantity quantity = { "", "ns/param", REPORT_LESS, 0, 0 };
    int cores = machine_cores();
    bool made = kernel_run_init(&one, "momentum(lr=1e-3)", TEAM_ELEMENTS, 1, problem);
    if (kernel_run_init(&team, "momentum(lr=1e-3)", TEAM_ELEMENTS, 1, problem) &&
        made) {
        for (int threads = 2; threads <= cores;
             threads = threads * 2 > cores && threads < cores ? cores : threads * 2) {
            const struct report_point point = { "update", "threads", threads, 1 };
            snprintf(name, sizeof name, "update, %d threads", threads);
            const struct comparison comparison = { .name = name,
                                                   .reference = "one thread",
                                                   .quantities = &quantity,
                                                   .quantity_count = 1,
                                                   .ours = { kernel_run_time, &team },
                                                   .theirs = { kernel_run_time, &one },
                                                   .point = &point };
            team.threads = threads;
            compare(bench->report, &comparison, &bench->effort);
        }
    } else {
        report_failure(bench->report, "update: %s", problem);
    }
    kernel_run_fini(&team);
    kernel_run_fini(&one);
}

void bench_scale(const struct bench *bench)
{
    for (size_t i = 0; i < CURVES; i++) {
        measure_curve(bench, &curves[i]);
    }
    measure_threads(bench);
    tables_measure(bench);
}
