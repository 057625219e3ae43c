/* test_conformance — what every rule promises in every composition.
 *
 * Walks the registry times decay times wrappers, so that a new row is tested before
 * anybody remembers to.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/optim/rule.h"
#include "tests/support/toy.h"

static const char *const decays[] = { "", " + decay(0.01)", " + decay(0.01, decoupled)",
                                      " + decay(0.01, update)" };
static const char *const wrappers[] = {
    "",
    " + layerwise(update)",
    " + layerwise(gradient)",
    " + lookahead(3)",
    " + lookahead(3, momentum=reset)",
    " + lookahead(4, alpha=0.8, momentum=pullback)",
    " + clip(global_norm, 0.5) + warmup(4) + cosine(30)",
    " + clip(tensor_norm, 0.5) + layerwise(update) + lookahead(6)",
    " + clip(global_norm, 0.5) + layerwise(gradient)",
    " + clip(value, 0.1) + aggregate(sum)",
};
/* Momentum has forms of which not all go with everything. */
static const char *const variants[] = {
    "",
    "(momentum_form=ema)",
    "(nesterov_form=reformulated)",
    "(momentum_form=heavy_ball, nesterov_form=reformulated)",
    "(momentum=0.9, centered=true)",
    "(nadam_form=scheduled)",
};

enum {
    DECAYS = sizeof decays / sizeof decays[0],
    WRAPPERS = sizeof wrappers / sizeof wrappers[0],
    VARIANTS = sizeof variants / sizeof variants[0]
};

/* Call visit with each composition that is a specification; returns how many are. */
static size_t walk(bool with_decay,
                   void (*visit)(const struct opt_spec *spec, const char *expression))
{
    size_t rule_count, visited = 0;
    const struct opt_rule *const *rules = opt_rules(&rule_count);

    for (size_t r = 0; r < rule_count; r++) {
        for (size_t v = 0; v < VARIANTS; v++) {
            for (size_t d = 0; d < (with_decay ? DECAYS : 1); d++) {
                for (size_t w = 0; w < WRAPPERS; w++) {
                    char expression[256];
                    struct opt_spec spec;

                    snprintf(expression, sizeof expression, "%s%s%s%s", rules[r]->name,
                             variants[v], decays[d], wrappers[w]);
                    if (opt_spec_parse(expression, &spec, NULL) == OPT_OK) {
                        visit(&spec, expression);
                        visited++;
                    }
                }
            }
        }
    }
    return visited;
}

enum { STEPS = 20, STOP = 10, SMALL = 37, BIG = 3 * OPT_BLOCK + 77 };

static void resumes(const struct opt_spec *spec, const char *expression)
{
    float initial[SMALL], gradient[SMALL];
    struct toy straight, resumed;

    toy_fill(TOY_ORDINARY, 1, initial, SMALL);
    toy_init_spec(&straight, spec, initial, SMALL);
    toy_fill(TOY_ORDINARY, 2, initial, SMALL);
    toy_init_spec(&resumed, spec, initial, SMALL);
    for (uint64_t step = 1; step <= STEPS; step++) {
        toy_fill(step % 5 == 0 ? TOY_SPARSE : TOY_ORDINARY, step, gradient, SMALL);
        toy_update(&straight, gradient);
        if (step == STOP) {
            toy_copy(&resumed, &straight);
        } else if (step > STOP) {
            toy_update(&resumed, gradient);
        }
    }
    cr_assert(toy_equal(&straight, &resumed), "%s", expression);
    for (size_t i = 0; i < SMALL; i++) {
        cr_assert(isfinite(straight.w[i]), "%s", expression);
    }
    toy_fini(&straight);
    toy_fini(&resumed);
}

Test(conformance, resuming_from_weights_slots_and_counters_equals_never_stopping)
{
    size_t visited = walk(true, resumes);

    cr_assert_geq(visited, 13 * DECAYS * 5, "only %zu compositions", visited);
}

static void any_order(const struct opt_spec *spec, const char *expression)
{
    static float initial[BIG], gradient[BIG];
    struct toy serial, shuffled;

    toy_fill(TOY_ORDINARY, 1, initial, BIG);
    toy_init_spec(&serial, spec, initial, BIG);
    toy_init_spec(&shuffled, spec, initial, BIG);
    for (uint64_t step = 1; step <= 4; step++) {
        toy_fill(TOY_ORDINARY, step, gradient, BIG);
        toy_update(&serial, gradient);
        toy_update_shuffled(&shuffled, gradient, step);
    }
    cr_assert(toy_equal(&serial, &shuffled), "%s", expression);
    toy_fini(&serial);
    toy_fini(&shuffled);
}

Test(conformance, blocks_in_any_order_give_the_same_bits)
{
    cr_assert_gt(walk(true, any_order), 13 * DECAYS * 4);
}

/* The instruction set that is compared with the baseline. */
static enum opt_isa other_isa;

static void same_on_isa(const struct opt_spec *spec, const char *expression)
{
    enum { N = 2 * OPT_LANES * 16 + 77 };
    static float initial[N], gradient[N];
    static uint16_t narrow[N];
    float views[2][N];
    struct toy toys[2];

    toy_fill(TOY_ORDINARY, 1, initial, N);
    for (int i = 0; i < 2; i++) {
        cr_assert(opt_isa_force(i == 0 ? OPT_ISA_BASELINE : other_isa));
        toy_init_spec(&toys[i], spec, initial, N);
        for (uint64_t step = 1; step <= 4; step++) {
            struct opt_contribution both[2] = { { gradient, OPT_FP32, 0.5, false },
                                                { narrow, OPT_BF16, 0.5, false } };
            toy_fill(step % 3 == 0 ? TOY_SPARSE : TOY_ORDINARY, step, gradient, N);
            opt_dtype_narrow(OPT_BF16, gradient, narrow, N);
            if (step % 2 == 0) {
                toy_update_from(&toys[i], both, 2);
            } else {
                toy_update(&toys[i], gradient);
            }
        }
        memcpy(views[i], toys[i].w, sizeof views[i]);
        opt_view_train(spec, toys[i].w, toys[i].slots, views[i], N);
    }
    cr_assert(toy_equal(&toys[0], &toys[1]) && toy_same(views[0], views[1], N),
              "%s on %s", expression, opt_isa_name(other_isa));
    toy_fini(&toys[0]);
    toy_fini(&toys[1]);
}

static void check_isa(enum opt_isa isa)
{
    if (!opt_isa_supported(isa)) {
        cr_skip_test("this processor has no %s", opt_isa_name(isa));
    }
    other_isa = isa;
    cr_assert_gt(walk(true, same_on_isa), 13 * DECAYS * 4);
}

Test(conformance, avx2_gives_the_bits_of_the_baseline)
{
    check_isa(OPT_ISA_V3);
}

Test(conformance, avx512_gives_the_bits_of_the_baseline)
{
    check_isa(OPT_ISA_V4);
}

static void rests(const struct opt_spec *spec, const char *expression)
{
    float initial[SMALL];
    const float gradient[SMALL] = { 0 };
    struct toy toy;

    toy_fill(TOY_ORDINARY, 1, initial, SMALL);
    toy_init_spec(&toy, spec, initial, SMALL);
    for (uint64_t step = 1; step <= STEPS; step++) {
        toy_update(&toy, gradient);
    }
    cr_assert(toy_same(toy.w, initial, SMALL), "%s", expression);
    toy_fini(&toy);
}

Test(conformance, weights_rest_without_gradient_and_decay)
{
    cr_assert_gt(walk(false, rests), 13 * 4);
}

/* Half the squared distance from c, starting one away in every direction; the rate goes
 * to 0, so that steps of constant length come to rest too. */
static void solves(const struct opt_spec *spec, const char *expression)
{
    enum { N = 8, LONG = 3000 };
    struct opt_spec slow = *spec;
    float initial[N], gradient[N], c[N];
    struct toy toy;
    double distance = 0;

    for (size_t i = 0; i < N; i++) {
        c[i] = (float)i - 3.25f;
        initial[i] = c[i] + (i % 2 == 0 ? 1.0f : -1.0f);
    }
    slow.options.lr = slow.options.lr < 1.0 ? 0.05 : 1.0;
    slow.options.schedule = OPT_COSINE;
    slow.options.schedule_steps = LONG;
    slow.options.warmup_steps = 0;
    toy_init_spec(&toy, &slow, initial, N);
    for (uint64_t step = 1; step <= LONG; step++) {
        float at[N];

        if (!opt_view_train(&toy.spec, toy.w, toy.slots, at, N)) {
            memcpy(at, toy.w, sizeof at);
        }
        for (size_t i = 0; i < N; i++) {
            gradient[i] = at[i] - c[i];
        }
        toy_update(&toy, gradient);
    }
    for (size_t i = 0; i < N; i++) {
        distance += fabs((double)toy.w[i] - (double)c[i]) / N;
    }
    cr_assert_lt(distance, 0.02, "%s: still %g away", expression, distance);
    toy_fini(&toy);
}

Test(conformance, a_convex_quadratic_is_solved, .timeout = 60)
{
    cr_assert_gt(walk(false, solves), 13 * 4);
}

/* A worker whose tensor is not in an update keeps its t. */
Test(conformance, a_tensor_without_a_gradient_keeps_its_count_and_its_weights)
{
    enum { N = 5 };
    float initial[N], gradient[N];
    struct toy in, out;

    toy_fill(TOY_ORDINARY, 1, initial, N);
    toy_fill(TOY_ORDINARY, 2, gradient, N);
    toy_init(&in, "adam + lookahead(2)", initial, N);
    toy_init(&out, "adam + lookahead(2)", initial, N);

    struct opt_contribution one = { gradient, OPT_FP32, 1.0, false };
    struct opt_tensor_memory memory[2];
    struct toy *const toys[2] = { &in, &out };
    void *scratch = malloc(opt_update_scratch(2, N));
    for (uint64_t T = 1; T <= 2; T++) {
        for (int i = 0; i < 2; i++) {
            memory[i] = (struct opt_tensor_memory){
                .n = N,
                .options = &toys[i]->options,
                .counters = &toys[i]->counters,
                .w = toys[i]->w,
                .contributions = i == 0 ? &one : NULL,
                .contribution_count = i == 0 ? 1 : 0,
            };
            memcpy(memory[i].slots, toys[i]->slots, sizeof memory[i].slots);
        }
        cr_assert(opt_update_serial(&in.spec, T, memory, 2, scratch));
    }
    cr_assert_eq(in.counters.t, 2);
    cr_assert_eq(out.counters.t, 0);
    cr_assert(toy_same(out.w, initial, N));
    cr_assert_not(toy_same(in.w, initial, N));
    free(scratch);
    toy_fini(&in);
    toy_fini(&out);
}

/* However late in the job a tensor comes. */
Test(conformance, bias_corrections_bounds_and_rectifiers_follow_the_tensors_own_count)
{
    enum { N = 5, UPDATES = 8 };
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    float initial[N], gradient[N];

    toy_fill(TOY_ORDINARY, 1, initial, N);
    for (size_t r = 0; r < count; r++) {
        struct toy early, late;

        toy_init(&early, rules[r]->name, initial, N);
        toy_init(&late, rules[r]->name, initial, N);
        late.T = 1000;
        for (uint64_t step = 0; step < UPDATES; step++) {
            toy_fill(TOY_ORDINARY, 2 + step, gradient, N);
            toy_update(&early, gradient);
            toy_update(&late, gradient);
        }
        cr_assert(toy_equal(&early, &late), "%s", rules[r]->name);
        toy_fini(&early);
        toy_fini(&late);
    }
}

/* ------------------------------------------------------------ shared gradients */

enum { FORMS = 6, SHARED = 2 * OPT_LANES * 4 + 21 };

/* A gradient in every way that the loops read one. */
struct forms {
    float single[SHARED];
    uint16_t bf16[SHARED], fp16[SHARED];
    struct opt_contribution list[3];
};

static void forms_fill(struct forms *forms, uint64_t seed)
{
    toy_fill(seed % 3 == 0 ? TOY_SPARSE : TOY_ORDINARY, seed, forms->single, SHARED);
    opt_dtype_narrow(OPT_BF16, forms->single, forms->bf16, SHARED);
    opt_dtype_narrow(OPT_FP16, forms->single, forms->fp16, SHARED);
}

/* Put one value at every fifth place. */
static void forms_plant(struct forms *forms, float value)
{
    uint16_t half;

    for (size_t i = 0; i < SHARED; i += 5) {
        forms->single[i] = value;
        opt_dtype_narrow(OPT_BF16, &value, &half, 1);
        forms->bf16[i] = half;
        opt_dtype_narrow(OPT_FP16, &value, &half, 1);
        forms->fp16[i] = half;
    }
}

static size_t forms_use(struct forms *forms, size_t form, bool shared)
{
    static const struct {
        enum opt_dtype dtypes[3];
        double factors[3];
        size_t count;
    } ways[FORMS] = {
        { { OPT_FP32 }, { 1 }, 1 },
        { { OPT_BF16 }, { 1 }, 1 },
        { { OPT_FP16 }, { 1 }, 1 },
        { { OPT_FP32 }, { 0.5 }, 1 },
        { { OPT_FP32, OPT_FP32 }, { 0.25, 0.75 }, 2 },
        { { OPT_FP32, OPT_BF16, OPT_FP16 }, { 0.2, 0.3, 0.5 }, 3 },
    };

    for (size_t i = 0; i < ways[form].count; i++) {
        enum opt_dtype dtype = ways[form].dtypes[i];
        forms->list[i] = (struct opt_contribution){
            .values = dtype == OPT_FP32   ? (const void *)forms->single
                      : dtype == OPT_BF16 ? (const void *)forms->bf16
                                          : (const void *)forms->fp16,
            .dtype = dtype,
            .factor = ways[form].factors[i],
            .shared = shared,
        };
    }
    return ways[form].count;
}

/* Train two toys, one of them from a shared gradient with the given value at some
 * places, the other from one with 0 there; NULL: from the same one. */
static void compare_shared(const struct opt_spec *spec, const char *expression,
                           const float *planted)
{
    static struct forms forms, before;
    float initial[SHARED];

    toy_fill(TOY_ORDINARY, 1, initial, SHARED);
    for (size_t form = 0; form < FORMS; form++) {
        struct toy toys[2];

        for (int i = 0; i < 2; i++) {
            bool shared = i == 0;
            toy_init_spec(&toys[i], spec, initial, SHARED);
            for (uint64_t step = 1; step <= 3; step++) {
                forms_fill(&forms, step);
                if (planted != NULL) {
                    forms_plant(&forms, shared ? *planted : 0.0f);
                }
                size_t count = forms_use(&forms, form, shared);
                before = forms;
                toy_update_from(&toys[i], forms.list, count);
                cr_assert(memcmp(&forms, &before, sizeof forms) == 0);
            }
        }
        cr_assert(toy_equal(&toys[0], &toys[1]), "%s, form %zu, %s", expression, form,
                  opt_isa_name(opt_isa_current()));
        toy_fini(&toys[0]);
        toy_fini(&toys[1]);
    }
}

static void same_if_shared(const struct opt_spec *spec, const char *expression)
{
    compare_shared(spec, expression, NULL);
}

static void zero_if_not_finite(const struct opt_spec *spec, const char *expression)
{
    const float planted[] = { NAN, INFINITY, -INFINITY };

    for (size_t i = 0; i < 3; i++) {
        compare_shared(spec, expression, &planted[i]);
    }
}

static void walk_on_every_isa(void (*visit)(const struct opt_spec *spec,
                                            const char *expression))
{
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        if (opt_isa_force((enum opt_isa)isa)) {
            cr_assert_gt(walk(true, visit), 13 * DECAYS * 4);
        }
    }
}

Test(conformance, a_gradient_that_others_may_write_gives_the_same_bits, .timeout = 120)
{
    walk_on_every_isa(same_if_shared);
}

Test(conformance, what_is_not_finite_in_one_counts_as_0, .timeout = 120)
{
    walk_on_every_isa(zero_if_not_finite);
}

/* Memory that another process writes without a pause: 1 and not a number in turn. */
struct restless {
    float single[SHARED];
    uint16_t bf16[SHARED], fp16[SHARED];
    atomic_bool begun;
};

/* Until its parent ends, however that comes. */
static void never_rest(struct restless *memory, pid_t parent)
{
    volatile float *single = memory->single;
    volatile uint16_t *bf16 = memory->bf16, *fp16 = memory->fp16;

    for (size_t turn = 0; getppid() == parent; turn++) {
        for (size_t i = 0; i < SHARED; i++) {
            single[i] = turn % 2 == 0 ? 1.0f : NAN;
            bf16[i] = turn % 2 == 0 ? 0x3f80 : 0x7fc0;
            fp16[i] = turn % 2 == 0 ? 0x3c00 : 0x7e00;
        }
        atomic_store(&memory->begun, true);
    }
}

static struct restless *restless;

static void stays_finite(const struct opt_spec *spec, const char *expression)
{
    static struct forms forms;
    float initial[SHARED];

    toy_fill(TOY_ORDINARY, 1, initial, SHARED);
    for (size_t form = 0; form < FORMS; form++) {
        struct toy toy;
        size_t count = forms_use(&forms, form, true);

        for (size_t i = 0; i < count; i++) {
            forms.list[i].values =
                forms.list[i].dtype == OPT_FP32   ? (const void *)restless->single
                : forms.list[i].dtype == OPT_BF16 ? (const void *)restless->bf16
                                                  : (const void *)restless->fp16;
        }
        toy_init_spec(&toy, spec, initial, SHARED);
        for (int step = 0; step < 20; step++) {
            toy_update_from(&toy, forms.list, count);
        }
        for (size_t i = 0; i < SHARED; i++) {
            cr_assert(isfinite(toy.w[i]), "%s, form %zu", expression, form);
            for (size_t s = 0; s < toy.slot_count; s++) {
                cr_assert(isfinite(toy.slots[s][i]), "%s, form %zu", expression, form);
            }
        }
        toy_fini(&toy);
    }
}

Test(conformance, a_value_that_changes_while_it_is_read_is_one_or_the_other,
     .timeout = 120)
{
    void *memory = mmap(NULL, sizeof *restless, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(memory != MAP_FAILED);
    restless = memory;
    pid_t parent = getpid(), other = fork();
    cr_assert_geq(other, 0);
    if (other == 0) {
        never_rest(restless, parent);
        _exit(0);
    }
    while (!atomic_load(&restless->begun)) {
        sched_yield();
    }
    walk_on_every_isa(stays_finite);
    cr_assert_eq(kill(other, SIGKILL), 0);
    cr_assert_eq(waitpid(other, NULL, 0), other);
    munmap(memory, sizeof *restless);
}
