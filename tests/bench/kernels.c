/* kernels — every rule's and every preset's share of the machine's memory bandwidth.
 *
 * A fused rule that is bound by memory moves its weights and slots in and out once and
 * its gradient in once; how close the rate of that traffic comes to the triad's, on as
 * many elements and threads, is what its code is worth. Rules and presets come from the
 * registry, so that a new one is measured before anyone remembers to.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/rule.h"
#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"
#include "tests/bench/memory.h"

enum {
    SMALL = 1000 * 1000,       /* parameters: in cache, or nearly */
    LARGE = 100 * 1000 * 1000, /* from memory */
    SAMPLE = 8 * 1000 * 1000,  /* what a quick run takes instead of both */
    LAYER = 156288             /* of a tensor, where the rule works layer by layer */
};

struct setting {
    const struct bench *bench;
    size_t sizes[2], size_count;
    int threads[2];
    size_t thread_count;
    struct triad triad;
};

static const char *dtype_name(enum opt_dtype dtype)
{
    return dtype == OPT_FP32 ? "" : ", bf16";
}

/* Enough in a run to be timed well, and whole periods of Lookahead. */
static int updates_for(const struct kernel_run *run)
{
    int least = run->n >= LARGE / 2 ? 1 : (int)(3 * (size_t)SAMPLE / run->n);
    int k = (int)run->spec.options.lookahead_k;
    return k > 0 ? (least + k - 1) / k * k : least;
}

/* Of full-size runs from memory; what is small is measured, not judged. */
static double goal_of(const struct setting *setting, const struct kernel_run *run)
{
    const struct opt_options *options = &run->spec.options;
    if (setting->bench->quick || run->n < LARGE / 2) {
        return 0;
    }
    if (options->layerwise == OPT_LAYERWISE_UPDATE) {
        return 1.15;
    }
    return run->spec.rule == opt_rule_find("adam") ? 1.10 : 0.95;
}

static void measure(struct setting *setting, const char *rule, struct kernel_run *run)
{
    char name[96];
    run->updates = updates_for(run);
    setting->triad.n = run->n;
    setting->triad.threads = run->threads;
    setting->triad.passes = run->updates;
    struct report_quantity quantity = { "", "GB/s", REPORT_MORE, goal_of(setting, run),
                                        kernel_run_traffic(run) };
    snprintf(name, sizeof name, "%s%s, %zu M, %d thread%s", rule,
             dtype_name(run->dtype), (run->n + 500000) / 1000000, run->threads,
             run->threads == 1 ? "" : "s");
    struct comparison comparison = {
        .name = name,
        .reference = "triad of as many elements, 16 bytes each",
        .quantities = &quantity,
        .quantity_count = 1,
        .ours = { kernel_run_rate, run },
        .theirs = { triad_run, &setting->triad },
    };
    compare(setting->bench->report, &comparison, &setting->bench->effort);
}

static size_t layer_of(const struct kernel_run *run)
{
    return run->spec.options.layerwise == OPT_LAYERWISE_NONE ? 0 : LAYER;
}

/* One optimizer with every dtype, size and team. */
static void measure_all(struct setting *setting, const char *expression)
{
    struct kernel_run run;
    char problem[256];
    size_t room = setting->sizes[setting->size_count - 1];
    if (!kernel_run_init(&run, expression, room, 1, problem)) {
        report_failure(setting->bench->report, "%s: %s", expression, problem);
        return;
    }
    for (int narrow = 0; narrow < (setting->bench->quick ? 1 : 2); narrow++) {
        kernel_run_gradients(&run, narrow ? OPT_BF16 : OPT_FP32);
        for (size_t s = 0; s < setting->size_count; s++) {
            kernel_run_shape(&run, setting->sizes[s], layer_of(&run));
            for (size_t t = 0; t < setting->thread_count; t++) {
                run.threads = setting->threads[t];
                measure(setting, expression, &run);
            }
        }
    }
    kernel_run_fini(&run);
}

/* ---------------------------------------------------------------- duels */

/* The time of one way to do it against that of another. */
struct side {
    const char *expression;
    enum opt_dtype dtype;
    size_t workers;
    bool accumulating, layers;
};
struct duel {
    const char *name, *reference;
    struct side sides[2];
    double goal;
};

static const struct duel duels[] = {
    { "adam bf16",
      "adam fp32",
      { { "adam", OPT_BF16, 1, false, false }, { "adam", OPT_FP32, 1, false, false } },
      0.85 },
    { "sgd bf16",
      "sgd fp32",
      { { "sgd", OPT_BF16, 1, false, false }, { "sgd", OPT_FP32, 1, false, false } },
      0.85 },
    { "lars",
      "momentum",
      { { "lars", OPT_FP32, 1, false, true },
        { "momentum", OPT_FP32, 1, false, true } },
      1.1 },
    { "lars2017",
      "momentum",
      { { "lars2017", OPT_FP32, 1, false, true },
        { "momentum", OPT_FP32, 1, false, true } },
      1.1 },
    { "adam of 2 gradients",
      "summed first",
      { { "adam", OPT_FP32, 2, false, false }, { "adam", OPT_FP32, 2, true, false } },
      0.85 },
};

static void measure_duel(struct setting *setting, const struct duel *duel, int threads)
{
    struct kernel_run runs[2];
    char problem[256], name[96];
    bool good = true;
    memset(runs, 0, sizeof runs);
    for (int i = 0; i < 2 && good; i++) {
        const struct side *side = &duel->sides[i];
        size_t n = setting->sizes[setting->size_count - 1];
        good = kernel_run_init(&runs[i], side->expression, n, side->workers, problem);
        if (good) {
            kernel_run_gradients(&runs[i], side->dtype);
            kernel_run_shape(&runs[i], n, side->layers ? LAYER : 0);
            runs[i].accumulating = side->accumulating;
            runs[i].threads = threads;
            runs[i].updates = updates_for(&runs[i]);
        }
    }
    snprintf(name, sizeof name, "%s / %s, %d thread%s", duel->name, duel->reference,
             threads, threads == 1 ? "" : "s");
    struct report_quantity quantity = { "", "ns/param", REPORT_LESS,
                                        setting->bench->quick ? 0 : duel->goal, 0 };
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

/* ---------------------------------------------------------------- all of it */

static void run_all(struct setting *setting)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    for (size_t i = 0; i < count; i++) {
        measure_all(setting, rules[i]->name);
    }
    const struct opt_preset *presets = opt_presets(&count);
    for (size_t i = 0; i < count; i++) {
        measure_all(setting, presets[i].name);
    }
    for (size_t i = 0; i < sizeof duels / sizeof duels[0]; i++) {
        for (size_t t = 0; t < setting->thread_count; t++) {
            measure_duel(setting, &duels[i], setting->threads[t]);
        }
    }
}

/* The largest size that two optimizers and the triad have room for. */
static size_t fitting(size_t n)
{
    size_t room = machine_available() / 2;
    size_t each = (2 * kernel_run_bytes(1000) + 3 * 1000 * sizeof(float)) / 1000;
    return n < room / each ? n : room / each;
}

/* A quick run is a sample: one size that does not fit the caches, all threads, and
 * narrow gradients only in the duels. */
void bench_kernels(const struct bench *bench)
{
    int cores = machine_cores();
    struct setting setting = { .bench = bench };
    if (bench->quick) {
        setting.sizes[setting.size_count++] = fitting(SAMPLE);
    } else {
        setting.sizes[setting.size_count++] = SMALL;
        setting.sizes[setting.size_count++] = fitting(LARGE);
        setting.threads[setting.thread_count++] = 1;
    }
    if (cores > 1 || bench->quick) {
        setting.threads[setting.thread_count++] = cores;
    }
    size_t largest = setting.sizes[setting.size_count - 1];
    if (!triad_init(&setting.triad, largest, cores)) {
        report_failure(bench->report, "triad: no memory for 3 x %zu floats", largest);
    } else {
        run_all(&setting);
    }
    setting.triad.n = largest;
    triad_fini(&setting.triad);
}
