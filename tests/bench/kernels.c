/* kernels — every rule's share of the machine's memory bandwidth.
 *
 * A fused rule that is bound by memory moves its weights and slots in and out once and
 * its gradient in once; how close the rate of that traffic comes to the triad's, on the
 * same threads, is what its code is worth. Rules come from the registry, so that a new
 * one is measured before anyone remembers to.
 */
#include <stdbool.h>
#include <stdio.h>

#include "common/optim/rule.h"
#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"
#include "tests/bench/memory.h"

/* What is measured beyond the registry: compositions and other gradients. bytes 0: as
 * for any rule with one pass. */
struct variant {
    const char *name, *expression;
    enum opt_dtype dtype;
    size_t workers;
    bool layers; /* in many tensors, as layer-wise rules want it, not in one */
    double bytes, goal;
};

static const struct variant variants[] = {
    { "adam, bf16 gradient", "adam", OPT_BF16, 1, false, 0, 0.95 },
    { "adam, two workers' gradients", "adam", OPT_FP32, 2, false, 0, 0.95 },
    /* direction: gradient, weights, slots in; slots, direction out. step: direction and
     * weights in, weights out */
    { "lamb", "lamb", OPT_FP32, 1, true, 40, 1.15 },
};

enum { LAYER = 600 * 1000 }; /* parameters of a layer, at most */

struct setting {
    const struct bench *bench;
    size_t n; /* parameters */
    struct triad triad;
};

static const struct report_quantity rate = { "", "GB/s", REPORT_MORE, 0 };

static size_t tensors_of(const struct setting *setting, const struct variant *variant)
{
    return variant->layers ? setting->n / LAYER + 1 : 1;
}

/* Full-size runs have goals; in a short one the data is too small for them. */
static double goal(const struct setting *setting, double value)
{
    return setting->bench->quick ? 0 : value;
}

/* Enough updates in a run to be timed well: a quarter of a gigabyte or more. */
static int updates_for(const struct setting *setting)
{
    return setting->n >= 50 * 1000 * 1000 ? 1 : 3;
}

static void measure(struct setting *setting, const struct variant *variant, int threads)
{
    struct kernel_run run;
    char problem[256], name[96];
    if (!kernel_run_init(&run, variant->expression, setting->n,
                         tensors_of(setting, variant), variant->dtype, variant->workers,
                         problem)) {
        report_failure(setting->bench->report, "%s: %s", variant->name, problem);
        return;
    }
    run.threads = threads;
    run.updates = updates_for(setting);
    run.bytes = variant->bytes > 0 ? variant->bytes : run.bytes;
    setting->triad.threads = threads;
    setting->triad.passes = run.updates;
    struct report_quantity quantity = rate;
    quantity.goal = goal(setting, variant->goal);
    snprintf(name, sizeof name, "%s, %d thread%s", variant->name, threads,
             threads == 1 ? "" : "s");
    struct comparison comparison = {
        .name = name,
        .reference = "triad, 16 bytes an element",
        .quantities = &quantity,
        .quantity_count = 1,
        .ours = { kernel_run_rate, &run },
        .theirs = { triad_run, &setting->triad },
    };
    compare(setting->bench->report, &comparison, &setting->bench->effort);
    kernel_run_fini(&run);
}

/* The time of one optimizer against that of another. */
struct duel {
    const char *name, *reference;
    struct variant ours, theirs;
    double goal;
};

static const struct duel duels[] = {
    { "adam bf16",
      "adam fp32",
      { "", "adam", OPT_BF16, 1, false, 0, 0 },
      { "", "adam", OPT_FP32, 1, false, 0, 0 },
      0.85 },
    { "lars",
      "momentum",
      { "", "lars", OPT_FP32, 1, true, 0, 0 },
      { "", "momentum", OPT_FP32, 1, true, 0, 0 },
      1.1 },
};

static void measure_duel(struct setting *setting, const struct duel *duel, int threads)
{
    struct kernel_run runs[2] = { 0 };
    const struct variant *sides[2] = { &duel->ours, &duel->theirs };
    char problem[256], name[96];
    bool good = true;
    for (int i = 0; i < 2 && good; i++) {
        good = kernel_run_init(&runs[i], sides[i]->expression, setting->n,
                               tensors_of(setting, sides[i]), sides[i]->dtype,
                               sides[i]->workers, problem);
        runs[i].threads = threads;
        runs[i].updates = updates_for(setting);
    }
    snprintf(name, sizeof name, "%s / %s, %d thread%s", duel->name, duel->reference,
             threads, threads == 1 ? "" : "s");
    struct report_quantity quantity = { "", "ns/param", REPORT_LESS,
                                        goal(setting, duel->goal) };
    struct comparison comparison = {
        .name = name,
        .reference = duel->reference,
        .quantities = &quantity,
        .quantity_count = 1,
        .ours = { kernel_run_time, &runs[0] },
        .theirs = { kernel_run_time, &runs[1] },
    };
    if (good) {
        compare(setting->bench->report, &comparison, &setting->bench->effort);
    } else {
        report_failure(setting->bench->report, "%s: %s", name, problem);
    }
    kernel_run_fini(&runs[0]);
    kernel_run_fini(&runs[1]);
}

static void measure_all(struct setting *setting, int threads)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    for (size_t i = 0; i < count; i++) {
        bool is_adam = rules[i] == opt_rule_find("adam");
        struct variant plain = { .name = rules[i]->name,
                                 .expression = rules[i]->name,
                                 .dtype = OPT_FP32,
                                 .workers = 1,
                                 .goal = is_adam ? 1.10 : 0.95 };
        measure(setting, &plain, threads);
    }
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        measure(setting, &variants[i], threads);
    }
    for (size_t i = 0; i < sizeof duels / sizeof duels[0]; i++) {
        measure_duel(setting, &duels[i], threads);
    }
}

void bench_kernels(const struct bench *bench)
{
    struct setting setting = { .bench = bench,
                               .n =
                                   bench->quick ? 8 * 1000 * 1000 : 100 * 1000 * 1000 };
    int cores = machine_cores();
    size_t room = machine_available() / 2;
    /* two optimizers at once is the most, and the triad's arrays */
    size_t each = (2 * kernel_run_bytes(1000) + 3 * 1000 * sizeof(float)) / 1000;
    setting.n = setting.n < room / each ? setting.n : room / each;
    report_fact(bench->report, "parameters", "%zu", setting.n);
    if (!triad_init(&setting.triad, setting.n, cores)) {
        report_failure(bench->report, "triad: no memory for 3 x %zu floats", setting.n);
    } else {
        measure_all(&setting, 1);
        if (cores > 1) {
            measure_all(&setting, cores);
        }
    }
    triad_fini(&setting.triad);
}
