/* test_finite — finite gradients leave weights and slots finite, whatever their size.
 *
 * Squares of gradients beyond 1e19 are more than fp32 has, sums of the largest values
 * too: what would be infinite is held at the largest finite value, from which a moment
 * decays again, so that no element is lost for good.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "common/optim/rule.h"
#include "tests/support/engine_harness.h"
#include "tests/support/toy.h"

enum { N = 64, UPDATES = 12, TEXT = 200 };

/* What each rule and preset is tried with besides its defaults. */
static const char *const variants[] = {
    "momentum(momentum_form=heavy_ball)",
    "momentum(momentum_form=ema) + decay(0.1)",
    "nag(nesterov_form=reformulated, momentum_form=heavy_ball)",
    "nag + decay(0.1) + layerwise(gradient)",
    "adagrad(eps=0)",
    "adagrad(eps_mode=outside_sqrt)",
    "rmsprop(centered=true)",
    "rmsprop(momentum=0.9, momentum_form=heavy_ball)",
    "rmsprop(centered=true, momentum=0.9, momentum_form=heavy_ball, eps=0)",
    "adam(eps=0)",
    "adam(bias_correction=false, eps_mode=inside_sqrt)",
    "adam + decay(1) + clip(value, 1e30)",
    "adam + decay(1, update)",
    "adam + decay(1, decoupled)",
    "nadam(nadam_form=next_step)",
    "nadam(nadam_form=scheduled)",
    "amsgrad(bias_correction=true, max_of=corrected)",
    "radam(rectify_threshold=5)",
    "radam(rectify_fallback=skip)",
    "lamb + layerwise(trust_max=3)",
    "sgd + clip(tensor_norm, 1)",
    "momentum + lookahead(2, momentum=pullback)",
    "adam + lookahead(3, momentum=reset)",
    "adam(lr=1000) + decay(0.5, update) + layerwise(update)",
    "sgd(lr=1000)",
};

/* Sizes around which something is left: squares, sums, and the edge itself. */
static const float sizes[] = { 1e-45f, 1e-20f, 1.0f,    1e18f, 1.8e19f,        1e20f,
                               1e21f,  1e30f,  1.7e38f, 3e38f, (float)FLT_MAX, 0.0f };
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Every size meets every other one, with both signs, in some element. */
static void fill(float *gradient, uint64_t update)
{
    for (size_t i = 0; i < N; i++) {
        uint64_t state = i * 977 + update * 131 + 7;
        uint64_t random = toy_random(&state);
        float size = sizes[i < SIZES ? i : random / 2 % SIZES];
        gradient[i] = i < SIZES || random % 2 == 0 ? size : -size;
    }
}

static void check(const char *expression, uint64_t update, const char *what,
                  const float *values)
{
    for (size_t i = 0; i < N; i++) {
        cr_assert(isfinite(values[i]), "%s: update %d made %g of %s[%zu]", expression,
                  (int)update, (double)values[i], what, i);
    }
}

static void train(const char *expression)
{
    float initial[N], gradient[N];
    const char *slots[OPT_SLOTS_MAX];
    struct toy toy;
    for (size_t i = 0; i < N; i++) {
        initial[i] = i % 7 == 3 ? -(float)FLT_MAX : (float)i / 8 - 4;
    }
    toy_init(&toy, expression, initial, N);
    opt_spec_slots(&toy.spec, slots);
    for (uint64_t update = 0; update < UPDATES; update++) {
        fill(gradient, update);
        toy_update(&toy, gradient);
        check(expression, update, "w", toy.w);
        for (size_t s = 0; s < toy.slot_count; s++) {
            check(expression, update, slots[s], toy.slots[s]);
        }
    }
    toy_fini(&toy);
}

static void train_all(enum opt_isa isa)
{
    size_t rule_count, preset_count;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    const struct opt_preset *presets = opt_presets(&preset_count);
    if (!opt_isa_supported(isa)) {
        cr_skip_test("this processor has no %s", opt_isa_name(isa));
    }
    opt_isa_force(isa);
    for (size_t i = 0; i < rule_count; i++) {
        train(rules[i]->name);
    }
    for (size_t i = 0; i < preset_count; i++) {
        train(presets[i].name);
    }
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        train(variants[i]);
    }
}

Test(finite, gradients_of_any_size_leave_finite_weights_and_slots)
{
    train_all(OPT_ISA_BASELINE);
}

Test(finite, gradients_of_any_size_leave_finite_weights_and_slots_v3)
{
    train_all(OPT_ISA_V3);
}

Test(finite, gradients_of_any_size_leave_finite_weights_and_slots_v4)
{
    train_all(OPT_ISA_V4);
}

/* Before it rectifies, RAdam is momentum, in which the gradient's square has no part.
 */
Test(finite, radam_moves_by_momentum_before_it_rectifies)
{
    static const char *const rules[] = { "radam(lr=0.001)",
                                         "radam(lr=0.001, rectify_threshold=5)" };
    for (size_t i = 0; i < 2; i++) {
        const float initial[2] = { 1, 1 }, gradient[2] = { 1e21f, 1e-3f };
        struct toy toy;
        toy_init(&toy, rules[i], initial, 2);
        toy_update(&toy, gradient);
        cr_assert_float_eq((double)toy.w[0], -1e18, 1e12, "%s: %g", rules[i],
                           (double)toy.w[0]);
        toy_fini(&toy);
    }
}

/* A second moment that fp32 cannot hold decays from its largest value. */
Test(finite, an_element_moves_again_after_one_gradient_too_large_to_square)
{
    const float initial[1] = { 1 }, large[1] = { 1e25f }, small[1] = { 1e15f };
    struct toy toy;
    toy_init(&toy, "adam(lr=0.001, beta2=0.9)", initial, 1);
    toy_update(&toy, large);
    float before = toy.w[0];
    for (int i = 0; i < 400; i++) {
        toy_update(&toy, small);
    }
    cr_assert(toy.w[0] < before - 0.1f, "%g after %g", (double)toy.w[0],
              (double)before);
    toy_fini(&toy);
}

/* What is stepped again because a value had to be held comes to what it would have come
 * to alone: every element but the one that is held is as it is beside a small one. */
Test(finite, one_element_that_is_held_leaves_its_neighbours_alone)
{
    static const char *const expressions[] = { "sgd",     "momentum",
                                               "adagrad", "adam",
                                               "amsgrad", "adam + decay(0.1)",
                                               "rmsprop", "nadam" };
    enum { MANY = 600, HELD = 300 };
    float initial[MANY], gradient[MANY];
    for (size_t i = 0; i < MANY; i++) {
        initial[i] = (float)i / 128 - 2;
        gradient[i] = (float)(i % 17) / 8 - 1;
    }
    for (size_t e = 0; e < sizeof expressions / sizeof *expressions; e++) {
        struct toy held, plain;
        toy_init(&held, expressions[e], initial, MANY);
        toy_init(&plain, expressions[e], initial, MANY);
        for (int update = 0; update < 3; update++) {
            gradient[HELD] = 3e38f;
            toy_update(&held, gradient);
            gradient[HELD] = 1;
            toy_update(&plain, gradient);
        }
        held.w[HELD] = plain.w[HELD];
        cr_expect_arr_eq(held.w, plain.w, sizeof initial, "%s", expressions[e]);
        for (size_t s = 0; s < held.slot_count; s++) {
            held.slots[s][HELD] = plain.slots[s][HELD];
            cr_expect_arr_eq(held.slots[s], plain.slots[s], sizeof initial,
                             "%s, slot %zu", expressions[e], s);
        }
        toy_fini(&held);
        toy_fini(&plain);
    }
}

/* Alone, an element is stepped quickly unless it is seen that something of it must be
 * held; beside the others of fill, something always must. */
static void compare_alone(const char *expression, size_t element)
{
    float initial[N], gradient[N];
    struct toy all, alone;
    for (size_t i = 0; i < N; i++) {
        initial[i] = i % 7 == 3 ? -(float)FLT_MAX : (float)i / 8 - 4;
    }
    toy_init(&all, expression, initial, N);
    toy_init(&alone, expression, &initial[element], 1);
    for (uint64_t update = 0; update < UPDATES; update++) {
        fill(gradient, update);
        toy_update(&all, gradient);
        toy_update(&alone, &gradient[element]);
        cr_assert_arr_eq(&all.w[element], alone.w, sizeof(float),
                         "%s, update %d, element %zu: %g, alone %g", expression,
                         (int)update, element, (double)all.w[element],
                         (double)alone.w[0]);
        for (size_t s = 0; s < all.slot_count; s++) {
            cr_assert_arr_eq(&all.slots[s][element], alone.slots[s], sizeof(float),
                             "%s, update %d, element %zu, slot %zu", expression,
                             (int)update, element, s);
        }
    }
    toy_fini(&all);
    toy_fini(&alone);
}

static void compare_all_alone(enum opt_isa isa)
{
    static const char *const more[] = {
        "adam(eps=0) + decay(0.1)",
        "adam + decay(1, update)",
        "adam + decay(1, decoupled)",
        "nag(nesterov_form=reformulated, momentum_form=heavy_ball) + decay(0.1)",
        "rmsprop(centered=true, momentum=0.9, momentum_form=heavy_ball, eps=0)",
        "amsgrad(bias_correction=true, max_of=corrected)",
        "radam(rectify_threshold=5)",
        "sgd(lr=1000)",
    };
    size_t rule_count;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    if (!opt_isa_supported(isa)) {
        cr_skip_test("this processor has no %s", opt_isa_name(isa));
    }
    opt_isa_force(isa);
    for (size_t element = 0; element < N; element++) {
        for (size_t i = 0; i < rule_count; i++) {
            compare_alone(rules[i]->name, element);
        }
        for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
            compare_alone(more[i], element);
        }
    }
}

Test(finite, an_element_is_the_same_alone_and_beside_others_that_are_held)
{
    compare_all_alone(OPT_ISA_BASELINE);
}

Test(finite, an_element_is_the_same_alone_and_beside_others_that_are_held_v3)
{
    compare_all_alone(OPT_ISA_V3);
}

Test(finite, an_element_is_the_same_alone_and_beside_others_that_are_held_v4)
{
    compare_all_alone(OPT_ISA_V4);
}

/* Who asks for infinities and NaN gets them. */
Test(finite, nonfinite_propagate_holds_nothing)
{
    const float initial[2] = { 1, 1 }, gradient[2] = { INFINITY, NAN };
    struct toy toy;
    toy_init(&toy, "sgd + nonfinite(propagate)", initial, 2);
    toy_update(&toy, gradient);
    cr_assert(isinf(toy.w[0]) && isnan(toy.w[1]), "%g %g", (double)toy.w[0],
              (double)toy.w[1]);
    toy_fini(&toy);
}

/* Whoever trains towards infinity can see it. */
Test(finite, statistics_count_the_blocks_in_which_a_value_was_held)
{
    enum { TWO_BLOCKS = 2 * OPT_BLOCK };
    const struct opt_tensor_entry tensor = { .name = "w",
                                             .shape = (uint64_t[]){ TWO_BLOCKS },
                                             .rank = 1 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller worker = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&worker, "m", "adam", (struct opt_consistency){ 0 },
                                  &tensor, 1, NULL);
    const float values[] = { 1e15f, 1e25f };
    for (uint64_t i = 0; i < 2; i++) {
        cr_assert_eq(statistic(&worker, "blocks_held"), 0);
        struct letter *push = letter_ask(
            &worker, push_constant(&worker, model, i + 1, TWO_BLOCKS, values[i]));
        cr_assert_eq(reply_status(push), OPT_OK, "%s", reply_text(push));
        harness_free(push);
    }
    cr_assert_eq(statistic(&worker, "blocks_held"), 2);
    caller_gone(&worker, false);
    harness_close(&harness);
}
