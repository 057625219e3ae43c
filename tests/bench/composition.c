/* composition — what it costs that rules are composed and that kernels are portable.
 *
 * The loop that the shell makes of a rule with whatever is around it, against a loop
 * written by hand for the rule alone; and the kernels that this process has chosen
 * against the same source compiled for this very machine. From memory, where bandwidth
 * hides most of it, and in cache, where nothing is hidden.
 */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/hand_fused.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"

enum {
    IN_CACHE = 2 * OPT_BLOCK, /* parameters: with two slots half a megabyte */
    IN_CACHE_UPDATES = 2000,  /* in a run */
    FROM_MEMORY = 96 * 1000 * 1000,
    SAMPLE = 8 * 1000 * 1000
};

struct contest {
    struct kernel_run run; /* for its memory */
    struct opt_update update;
    struct opt_tensor_update bound;
    hand_fused_loop *by_hand;
    const struct opt_kernels *kernels;
};

/* Seconds for the updates of one run. */
static bool timed(struct contest *contest, double *values,
                  void (*block)(const struct contest *contest, size_t first))
{
    const struct kernel_run *run = &contest->run;
    double begin = seconds_now();
    for (int i = 0; i < run->updates; i++) {
#pragma omp parallel for schedule(dynamic)                                             \
    num_threads(run->threads) if (run->threads > 1)
        for (size_t first = 0; first < run->n; first += OPT_BLOCK) {
            block(contest, first);
        }
    }
    double seconds = (seconds_now() - begin) / run->updates;
    values[0] = seconds / (double)run->n * 1e9;
    return true;
}

static void composed_block(const struct contest *contest, size_t first)
{
    const struct kernel_run *run = &contest->run;
    struct opt_contribution gradient = { (const float *)run->gradients[0] + first,
                                         OPT_FP32, 1.0, false };
    struct opt_block_memory memory = { .n = OPT_BLOCK,
                                       .w = run->w + first,
                                       .w_out = run->w + first,
                                       .contributions = &gradient,
                                       .contribution_count = 1 };
    for (size_t s = 0; s < run->slot_count; s++) {
        memory.slots[s] = run->slots[s] + first;
    }
    opt_block_run(&contest->bound, OPT_PASS_STEP, &memory, NULL);
}

static void by_hand_block(const struct contest *contest, size_t first)
{
    const struct kernel_run *run = &contest->run;
    contest->by_hand(&contest->bound.scalars, (const float *)run->gradients[0] + first,
                     run->w + first, run->slots[0] + first,
                     run->slot_count > 1 ? run->slots[1] + first : NULL, OPT_BLOCK);
}

static void kernel_block(const struct contest *contest, size_t first)
{
    const struct kernel_run *run = &contest->run;
    struct opt_slice slice = { .scalars = &contest->bound.scalars,
                               .n = OPT_BLOCK,
                               .load = OPT_LOAD_FP32,
                               .gradient = { (const float *)run->gradients[0] + first },
                               .w = run->w + first,
                               .w_out = run->w + first };
    for (size_t s = 0; s < run->slot_count; s++) {
        slice.slots[s] = run->slots[s] + first;
    }
    contest->kernels->update[contest->bound.kernel](&slice);
}

static bool run_composed(void *context, double *values, char problem[256])
{
    (void)problem;
    return timed(context, values, composed_block);
}

static bool run_by_hand(void *context, double *values, char problem[256])
{
    (void)problem;
    return timed(context, values, by_hand_block);
}

static bool run_portable(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    (void)problem;
    contest->kernels = opt_kernels();
    return timed(contest, values, kernel_block);
}

static bool run_native(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    (void)problem;
    contest->kernels = &opt_kernels_native;
    return timed(contest, values, kernel_block);
}

/* The loops by hand for the instruction set that the kernels use. */
static const struct hand_fused *by_hand(void)
{
    static const struct hand_fused *const table[OPT_ISA_COUNT] = {
        [OPT_ISA_BASELINE] = &hand_fused_baseline,
#ifdef __x86_64__
        [OPT_ISA_V3] = &hand_fused_v3,
        [OPT_ISA_V4] = &hand_fused_v4,
#endif
    };
    return table[opt_isa_current()];
}

static void versus(const struct bench *bench, struct contest *contest, const char *what,
                   const char *reference, double goal, const struct compare_side *ours,
                   const struct compare_side *theirs)
{
    char name[128];
    int threads = contest->run.threads;
    struct report_quantity quantity = { .name = "",
                                        .unit = "ns/param",
                                        .better = REPORT_LESS,
                                        .goal = bench->quick ? 0 : goal };
    struct comparison comparison = { .name = name,
                                     .reference = reference,
                                     .quantities = &quantity,
                                     .quantity_count = 1,
                                     .ours = *ours,
                                     .theirs = *theirs };
    snprintf(name, sizeof name, "%s / %s, %s, %d thread%s", what, reference,
             contest->run.n == IN_CACHE ? "cache" : "memory", threads,
             threads == 1 ? "" : "s");
    compare(bench->report, &comparison, &bench->effort);
}

/* One composition at one size and team. */
static void measure(const struct bench *bench, struct contest *contest,
                    const char *name, bool plain)
{
    struct opt_tensor_counters *counters = &contest->run.counters[0];
    bool cached = contest->run.n == IN_CACHE;
    opt_update_begin(&contest->update, &contest->run.spec, 1000);
    counters->t = 999;
    opt_update_bind(&contest->bound, &contest->update, &contest->run.options[0],
                    counters);
    opt_update_tensor(&contest->bound);
    contest->run.updates = cached ? IN_CACHE_UPDATES : 1;
    versus(bench, contest, name, "by hand", cached ? 1.45 : 1.06,
           &(struct compare_side){ run_composed, contest },
           &(struct compare_side){ run_by_hand, contest });
    if (plain) {
        versus(bench, contest, name, "-march=native", 1.03,
               &(struct compare_side){ run_portable, contest },
               &(struct compare_side){ run_native, contest });
    }
}

void bench_composition(const struct bench *bench)
{
    const struct hand_fused *hand = by_hand();
    const struct {
        const char *name, *expression;
        hand_fused_loop *by_hand;
    } rows[] = {
        { "adam", "adam", hand->adam },
        { "adam, decay, clip", "adam + decay(0.01) + clip(value, 0.5)", hand->adam },
        { "adamw", "adamw + cosine(5000)", hand->adam },
        { "momentum", "momentum", hand->momentum },
        { "momentum, decay, clip", "momentum + decay(0.01) + clip(value, 0.5)",
          hand->momentum },
    };
    size_t large = bench->quick ? SAMPLE : FROM_MEMORY;
    if (machine_available() / 2 < kernel_run_bytes(large)) {
        large = SAMPLE;
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct contest contest = { .by_hand = rows[i].by_hand };
        bool plain = i == 0 || rows[i].by_hand != rows[i - 1].by_hand;
        char problem[256];
        if (!kernel_run_init(&contest.run, rows[i].expression, large, 1, problem)) {
            report_failure(bench->report, "%s: %s", rows[i].expression, problem);
            continue;
        }
        kernel_run_shape(&contest.run, IN_CACHE, 0);
        measure(bench, &contest, rows[i].name, plain);
        kernel_run_shape(&contest.run, large, 0);
        measure(bench, &contest, rows[i].name, plain);
        contest.run.threads = machine_cores();
        if (contest.run.threads > 1 && !bench->quick) {
            measure(bench, &contest, rows[i].name, plain);
        }
        kernel_run_fini(&contest.run);
    }
}
