/* test_rules — the kernels against the plain twins, and against each other on every
 * instruction set that this machine has.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/rule.h"
#include "tests/support/reference_rules.h"
#include "tests/support/toy.h"

/* Every rule, every variant of its formula, every wrapper at least once. */
static const char *const expressions[] = {
    "sgd",
    "sgd(lr=0.1) + decay(0.01)",
    "sgd(lr=0.1) + decay(0.01, decoupled)",
    "sgd(lr=0.1) + decay(0.01, update) + clip(value, 0.5)",
    "sgd(lr=0.1) + decay(0.01, decoupled, lr=schedule) + step(2, gamma=0.5)",
    "sgd(lr=0.1) + clip(tensor_norm, 0.1)",
    "sgd(lr=0.1) + clip(global_norm, 0.1) + lookahead(2)",
    "sgd(lr=0.1) + lookahead(2, momentum=reset)",
    "momentum",
    "momentum + decay(0.1, update) + step(2)",
    "momentum(momentum_form=heavy_ball) + decay(0.1)",
    "momentum(momentum_form=ema) + lookahead(3, alpha=0.8, momentum=reset)",
    "momentum(momentum=0.5) + lookahead(2, momentum=pullback)",
    "nag",
    "nag + decay(0.1)",
    "nag + decay(0.1) + layerwise(gradient)",
    "nag(nesterov_form=reformulated) + decay(0.1, decoupled)",
    "nag(nesterov_form=reformulated, momentum_form=heavy_ball)",
    "lion",
    "lion(lr=0.01) + decay(0.1, decoupled)",
    "adagrad",
    "adagrad(eps=0)",
    "adagrad(eps_mode=outside_sqrt, initial_accumulator=0.1)",
    "adagrad(eps_mode=epsilon_hat, eps=1e-3)",
    "rmsprop",
    "rmsprop(eps_mode=outside_sqrt)",
    "rmsprop(lr=0.1) + lookahead(2, momentum=pullback)",
    "rmsprop(centered=true, eps=1e-3)",
    "rmsprop(momentum=0.9)",
    "rmsprop(momentum=0.9, momentum_form=ema)",
    "rmsprop(centered=true, momentum=0.9, momentum_form=heavy_ball, eps=1e-3)",
    "adadelta",
    "adadelta(lr=0.5, rho=0.95) + decay(0.01)",
    "adam",
    "adam(eps=0)",
    "adam(eps_mode=inside_sqrt)",
    "adam(eps_mode=epsilon_hat, eps=1e-3)",
    "adam(bias_correction=false)",
    "adam + decay(0.1) + clip(value, 0.3)",
    "adamw(lr=0.1)",
    "adamax",
    "adamax(eps_mode=in_max, eps=1e-3)",
    "adamax(eps_mode=outside, eps=1e-3)",
    "nadam",
    "nadam(nadam_form=next_step)",
    "nadam(nadam_form=scheduled, momentum_decay=0.01)",
    "nadam(lr=1, nadam_form=scheduled, momentum_decay=1)",
    "amsgrad",
    "amsgrad(bias_correction=true)",
    "amsgrad(bias_correction=true, max_of=corrected, eps_mode=inside_sqrt)",
    "radam",
    "radam(rectify_fallback=skip) + decay(0.1, decoupled)",
    "radam(beta2=0.5)",
    "radam(rectify_threshold=5, eps_mode=epsilon_hat, eps=1e-3)",
    "adabound",
    "adabound(gamma=0.5) + cosine(10, end=1e-5)",
    "amsbound",
    "amsbound(eps=1e-3)",
    "lars(lr=0.1)",
    "lars2017 + clip(value, 0.4)",
    "lamb + layerwise(phi_max=2, trust_max=3)",
    "adam + layerwise(phi_min=0.5, phi_max=1, trust_coefficient=0.5, eps=1e-3)",
    "lamb(lr=0.01) + layerwise(phi_min=50, phi_max=60)",
    "ranger + warmup(3)",
    "ralamb",
    "rangerlars + exponential(5, gamma=0.5)",
    "adam + decay(0.1, update) + tensors(\"w\", lr_scale=0.5, weight_decay=2)",
    "sgd(lr=0.1) + decay(1, decoupled, lr=schedule) + tensors(\"w\", lr_scale=0.25)",
};
enum {
    EXPRESSIONS = sizeof expressions / sizeof expressions[0],
    LENGTHS = 71,
    UPDATES = 9
};

static double largest(const double *values, size_t n)
{
    double found = 0;

    for (size_t i = 0; i < n; i++) {
        found = fmax(found, fabs(values[i]));
    }
    return found;
}

/* Both start from the same float state, so what differs is one update's rounding: of
 * the element itself; of what was added to make it, for whose size the array's largest
 * elements stand before (or `before`, if that is more) and after; and the last place of
 * a subnormal, times a bias correction of 1000. */
static void check_array(const char *expression, const char *name, const float *got,
                        const double *expected, size_t n, double before)
{
    double size = fmax(largest(expected, n), before);

    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - expected[i]);
        cr_assert(error <= 1e-6 * fabs(expected[i]) + 4e-7 * size + 4e-42,
                  "%s: %s[%zu of %zu] %.9g, %.9g", expression, name, i, n,
                  (double)got[i], expected[i]);
    }
}

/* floor: what weights and slots are at least judged by. */
static void check_update(struct toy *toy, const float *gradient, const char *expression,
                         double floor)
{
    size_t n = toy->n, count = toy->slot_count;
    double *values = calloc((count + 2) * n + 1, sizeof *values);
    double *g = values, *w = values + n, *slots[OPT_SLOTS_MAX];
    double mu_product = toy->counters.mu_product, sizes[OPT_SLOTS_MAX];
    const char *names[OPT_SLOTS_MAX];

    cr_assert_not_null(values);
    for (size_t i = 0; i < n; i++) {
        g[i] = (double)gradient[i];
        w[i] = (double)toy->w[i];
    }
    for (size_t s = 0; s < count; s++) {
        slots[s] = values + (s + 2) * n;
        for (size_t i = 0; i < n; i++) {
            slots[s][i] = (double)toy->slots[s][i];
        }
        sizes[s] = fmax(largest(slots[s], n), floor);
    }
    double size = fmax(largest(w, n), floor);
    twin_update(&toy->spec, &toy->options, toy->T + 1, toy->counters.t + 1, &mu_product,
                g, n, w, slots);
    toy_update(toy, gradient);
    cr_assert(n == 0 ||
              fabs(mu_product - toy->counters.mu_product) <= 1e-14 * mu_product);
    check_array(expression, "w", toy->w, w, n, size);
    opt_spec_slots(&toy->spec, names);
    for (size_t s = 0; s < count; s++) {
        check_array(expression, names[s], toy->slots[s], slots[s], n, sizes[s]);
    }
    free(values);
}

Test(rules, every_kernel_does_what_its_plain_twin_does)
{
    float initial[LENGTHS], gradient[LENGTHS];

    for (size_t e = 0; e < EXPRESSIONS; e++) {
        for (size_t n = 0; n < LENGTHS; n++) {
            struct toy toy;

            toy_fill(TOY_ORDINARY, 7 * n + e, initial, n);
            toy_init(&toy, expressions[e], initial, n);
            for (uint64_t step = 0; step < UPDATES; step++) {
                toy_fill(step % 3 == 1 ? TOY_SPARSE : TOY_ORDINARY, 100 * n + step,
                         gradient, n);
                check_update(&toy, gradient, expressions[e], 1);
            }
            toy_fini(&toy);
        }
    }
}

/* The smallest gradients that an optimizer takes like any other. Without eps the
 * direction of what has no square in fp32 is 0 and not 1 (see stay_finite_without_eps),
 * a quotient of subnormals has few digits, a trust ratio must be a float, and of a
 * share that has become 0 there is no sign. */
static float least_gradient(const char *expression, const struct opt_spec *spec)
{
    if (strcmp(expression, "adamax") == 0) {
        return 1e-18f;
    }
    if (spec->options.layerwise != OPT_LAYERWISE_NONE ||
        strncmp(expression, "lion", 4) == 0) {
        return 1e-30f;
    }
    return strstr(expression, "eps=0)") != NULL ? 1 : 0;
}

/* From subnormals to where squares are nearly too large. */
Test(rules, every_kernel_does_so_for_tiny_and_huge_gradients)
{
    static const float scales[] = { 1e-44f, 1e-39f, 1e-30f, 1e-18f,
                                    1e-6f,  1e6f,   1e12f,  1e18f };
    float initial[LENGTHS], gradient[LENGTHS];

    for (size_t e = 0; e < EXPRESSIONS; e++) {
        for (size_t s = 0; s < sizeof scales / sizeof scales[0]; s++) {
            size_t n = 1 + (e * 13 + s * 7) % (LENGTHS - 1);
            struct toy toy;

            toy_fill(TOY_ORDINARY, 3 * n + e, initial, n);
            toy_init(&toy, expressions[e], initial, n);
            bool taken = scales[s] >= least_gradient(expressions[e], &toy.spec);
            for (uint64_t step = 0; taken && step < UPDATES; step++) {
                toy_fill(TOY_ORDINARY, 100 * n + step, gradient, n);
                for (size_t i = 0; i < n; i++) {
                    gradient[i] *= scales[s];
                }
                check_update(&toy, gradient, expressions[e], 0);
            }
            toy_fini(&toy);
        }
    }
}

/* With beta2 = 0.6 the average's length comes to 4, which is not above 4. */
Test(rules, radam_is_not_rectified_at_its_threshold)
{
    enum { N = 5, UNTIL_THE_POWER_IS_GONE = 100 };
    static const char expression[] = "radam(lr=0.1, beta2=0.6)";
    float initial[N], gradient[N];
    struct toy toy;

    toy_fill(TOY_ORDINARY, 1, initial, N);
    toy_init(&toy, expression, initial, N);
    for (uint64_t step = 0; step < UNTIL_THE_POWER_IS_GONE; step++) {
        toy_fill(TOY_ORDINARY, step, gradient, N);
        check_update(&toy, gradient, expression, 1);
    }
    toy_fini(&toy);
}

/* One gradient in every form that a worker may send it. */
struct forms {
    float *single;
    uint16_t *bf16, *fp16;
    struct opt_contribution list[4];
};

enum { FORMS = 6 };

static size_t contributions_of(struct forms *forms, size_t form)
{
    static const struct {
        enum opt_dtype dtypes[4];
        double factors[4];
        size_t count;
    } ways[FORMS] = {
        { { OPT_FP32 }, { 1 }, 1 },
        { { OPT_BF16 }, { 1 }, 1 },
        { { OPT_FP16 }, { 1 }, 1 },
        { { OPT_FP32, OPT_FP32 }, { 0.25, 0.75 }, 2 },
        { { OPT_FP32, OPT_BF16, OPT_FP16, OPT_FP32 }, { 0.1, 0.2, 0.3, 0.4 }, 4 },
        { { OPT_FP16 }, { 1.0 / 3 }, 1 },
    };

    for (size_t i = 0; i < ways[form].count; i++) {
        enum opt_dtype dtype = ways[form].dtypes[i];
        forms->list[i] = (struct opt_contribution){
            .values = dtype == OPT_FP32   ? (const void *)forms->single
                      : dtype == OPT_BF16 ? (const void *)forms->bf16
                                          : (const void *)forms->fp16,
            .dtype = dtype,
            .factor = ways[form].factors[i],
        };
    }
    return ways[form].count;
}

static void train(struct toy *toy, const char *expression, enum toy_input input,
                  size_t form, size_t n)
{
    float *initial = calloc(n + 1, sizeof *initial);
    struct forms forms = { .single = calloc(n + 1, sizeof(float)),
                           .bf16 = calloc(n + 1, sizeof(uint16_t)),
                           .fp16 = calloc(n + 1, sizeof(uint16_t)) };

    cr_assert(initial != NULL && forms.single != NULL && forms.bf16 != NULL &&
              forms.fp16 != NULL);
    toy_fill(TOY_ORDINARY, 1, initial, n);
    toy_init(toy, expression, initial, n);
    for (uint64_t step = 0; step < 5; step++) {
        toy_fill(input, step, forms.single, n);
        opt_dtype_narrow(OPT_BF16, forms.single, forms.bf16, n);
        opt_dtype_narrow(OPT_FP16, forms.single, forms.fp16, n);
        size_t count = contributions_of(&forms, form);
        toy_update_from(toy, forms.list, count);
    }
    free(initial);
    free(forms.single);
    free(forms.bf16);
    free(forms.fp16);
}

static void compare_with_baseline(enum opt_isa isa)
{
    static const size_t lengths[] = { 1, 3, 15, 16, 17, 31, 33, 64, 70, 2085 };
    enum { LENGTH_COUNT = sizeof lengths / sizeof lengths[0] };

    if (!opt_isa_supported(isa)) {
        cr_skip_test("this processor has no %s", opt_isa_name(isa));
    }
    for (size_t e = 0; e < EXPRESSIONS; e++) {
        for (int input = 0; input < TOY_INPUTS; input++) {
            for (size_t form = 0; form < FORMS; form++) {
                size_t n = lengths[(e + (size_t)input + form) % LENGTH_COUNT];
                struct toy first, other;

                cr_assert(opt_isa_force(OPT_ISA_BASELINE));
                train(&first, expressions[e], (enum toy_input)input, form, n);
                cr_assert(opt_isa_force(isa));
                train(&other, expressions[e], (enum toy_input)input, form, n);
                cr_assert(toy_equal(&first, &other), "%s, input %d, form %zu, %s",
                          expressions[e], input, form, opt_isa_name(isa));
                toy_fini(&other);
                toy_fini(&first);
            }
        }
    }
}

Test(rules, give_the_bits_of_the_baseline_with_avx2)
{
    compare_with_baseline(OPT_ISA_V3);
}

Test(rules, give_the_bits_of_the_baseline_with_avx512)
{
    compare_with_baseline(OPT_ISA_V4);
}

Test(rules, give_an_element_the_same_bits_alone_and_among_others)
{
    enum { N = 70 };
    float initial[N], gradient[N];

    toy_fill(TOY_ORDINARY, 1, initial, N);
    for (size_t e = 0; e < EXPRESSIONS; e++) {
        struct toy all, one;

        if (strstr(expressions[e], "norm") != NULL) {
            continue;
        }
        toy_init(&all, expressions[e], initial, N);
        if (all.options.layerwise) {
            toy_fini(&all);
            continue;
        }
        for (uint64_t step = 0; step < 3; step++) {
            toy_fill(TOY_ORDINARY, step, gradient, N);
            toy_update(&all, gradient);
        }
        for (size_t i = 0; i < N; i++) {
            toy_init(&one, expressions[e], initial + i, 1);
            for (uint64_t step = 0; step < 3; step++) {
                toy_fill(TOY_ORDINARY, step, gradient, N);
                toy_update(&one, gradient + i);
            }
            cr_assert(toy_same(one.w, all.w + i, 1), "%s", expressions[e]);
            toy_fini(&one);
        }
        toy_fini(&all);
    }
}

/* Where g squared has underflowed and eps is 0, the direction is 0 and not infinite. */
Test(rules, stay_finite_without_eps)
{
    static const char *const bare[] = { "adam(eps=0)",    "adagrad(eps=0)",
                                        "rmsprop(eps=0)", "adadelta(eps=0)",
                                        "amsgrad(eps=0)", "nadam(eps=0)",
                                        "radam(eps=0)",   "adabound(eps=0)",
                                        "adamax" };
    const float initial[4] = { 1, 2, 3, 4 },
                gradient[4] = { 0, 1e-30f, -1e-38f, 1e-45f };

    for (size_t e = 0; e < sizeof bare / sizeof bare[0]; e++) {
        struct toy toy;

        toy_init(&toy, bare[e], initial, 4);
        for (int step = 0; step < 8; step++) {
            toy_update(&toy, gradient);
            for (size_t i = 0; i < 4; i++) {
                cr_assert(isfinite(toy.w[i]) && fabsf(toy.w[i] - initial[i]) < 1.5f,
                          "%s: %g", bare[e], (double)toy.w[i]);
            }
        }
        toy_fini(&toy);
    }
}

/* Of gradients that do not change the variance is 0, and what fp32 makes of it may be
 * less, of which there is no root. */
Test(rules, take_a_variance_that_rounds_below_zero_for_zero)
{
    enum { N = 64, UNTIL_THE_AVERAGES_STAND = 300 };
    float initial[N], gradient[N];
    struct toy toy;

    toy_fill(TOY_ORDINARY, 1, initial, N);
    for (size_t i = 0; i < N; i++) {
        gradient[i] = 0.3f * (float)(i + 1);
    }
    toy_init(&toy, "rmsprop(centered=true)", initial, N);
    for (int step = 0; step < UNTIL_THE_AVERAGES_STAND; step++) {
        toy_update(&toy, gradient);
        for (size_t i = 0; i < N; i++) {
            cr_assert(isfinite(toy.w[i]), "element %zu in step %d", i, step);
        }
    }
    toy_fini(&toy);
}

Test(rules, move_a_tensor_that_starts_at_zero_though_it_has_no_norm)
{
    static const char *const layered[] = { "sgd(lr=0.5) + layerwise(update)",
                                           "sgd(lr=0.5) + layerwise(gradient)",
                                           "sgd(lr=0.5) + layerwise(phi_min=3)" };
    const float initial[2] = { 0, 0 }, gradient[2] = { 1, -2 };

    for (size_t e = 0; e < sizeof layered / sizeof layered[0]; e++) {
        struct toy toy;

        toy_init(&toy, layered[e], initial, 2);
        toy_update(&toy, gradient);
        cr_assert(toy.w[0] == -0.5f && toy.w[1] == 1.0f, "%s: %g, %g", layered[e],
                  (double)toy.w[0], (double)toy.w[1]);
        toy_fini(&toy);
    }
}
