/* test_update — the order of one update, its edges, views and epochs. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/toy.h"

static void one_step(const char *expression, const float *w, const float *g, size_t n,
                     float *out)
{
    struct toy toy;

    toy_init(&toy, expression, w, n);
    toy_update(&toy, g);
    memcpy(out, toy.w, n * sizeof *out);
    toy_fini(&toy);
}

Test(update, a_norm_at_the_bound_is_not_clipped)
{
    const float w[2] = { 0, 0 }, g[2] = { 3, 4 };
    float out[2];

    one_step("sgd(lr=1) + clip(tensor_norm, 5)", w, g, 2, out);
    cr_assert(out[0] == -3.0f && out[1] == -4.0f);
    one_step("sgd(lr=1) + clip(tensor_norm, 2.5)", w, g, 2, out);
    cr_assert(out[0] == -1.5f && out[1] == -2.0f);
    one_step("sgd(lr=1) + clip(value, 3.5)", w, g, 2, out);
    cr_assert(out[0] == -3.0f && out[1] == -3.5f);
}

Test(update, global_norm_is_over_all_tensors_of_the_update)
{
    float a[1] = { 0 }, b[1] = { 0 };
    const float ga[1] = { 3 }, gb[1] = { 4 };
    struct opt_contribution from[2] = { { ga, OPT_FP32, 1, false },
                                        { gb, OPT_FP32, 1, false } };
    struct opt_tensor_counters counters[2] = { { 0, 1 }, { 0, 1 } };
    struct opt_tensor_options options;
    struct opt_spec spec;
    void *scratch = malloc(opt_update_scratch(2, 1));

    cr_assert_eq(opt_spec_parse("sgd(lr=1) + clip(global_norm, 1)", &spec, NULL),
                 OPT_OK);
    opt_tensor_options_resolve(&spec, "w", 1, &options);
    struct opt_tensor_memory memory[2] = {
        { .n = 1,
          .options = &options,
          .counters = &counters[0],
          .w = a,
          .contributions = &from[0],
          .contribution_count = 1 },
        { .n = 1,
          .options = &options,
          .counters = &counters[1],
          .w = b,
          .contributions = &from[1],
          .contribution_count = 1 },
    };
    cr_assert(opt_update_serial(&spec, 1, memory, 2, scratch));
    cr_assert(fabsf(a[0] + 0.6f) < 1e-7f && fabsf(b[0] + 0.8f) < 1e-7f);
    free(scratch);
}

Test(update, zero_gradients_pass_every_norm)
{
    const float w[2] = { 1, 2 }, g[2] = { 0, 0 };
    static const char *const expressions[] = { "sgd + clip(tensor_norm, 1)",
                                               "sgd + clip(global_norm, 1)", "lamb",
                                               "lars2017" };
    float out[2];

    for (size_t i = 0; i < 4; i++) {
        one_step(expressions[i], w, g, 2, out);
        cr_assert(isfinite(out[0]) && isfinite(out[1]), "%s", expressions[i]);
    }
}

Test(update, a_trust_ratio_beyond_every_float_makes_no_nan)
{
    const float w[3] = { 1e3f, -2e3f, 3 }, g[3] = { 1e-44f, 0, -1e-44f };
    static const char *const expressions[] = { "lars(lr=10) + decay(0)",
                                               "lars2017 + decay(0)", "ralamb(lr=10)" };
    float out[3];

    for (size_t i = 0; i < 3; i++) {
        one_step(expressions[i], w, g, 3, out);
        cr_assert(isfinite(out[0]) && isfinite(out[1]) && isfinite(out[2]), "%s",
                  expressions[i]);
        cr_assert_eq(out[1], w[1], "%s", expressions[i]);
    }
}

Test(update, a_sum_that_overflows_changes_nothing)
{
    float w[2] = { 1, 2 };
    const float g[2] = { 3e38f, 1 };
    struct opt_contribution twice[2] = { { g, OPT_FP32, 1, false },
                                         { g, OPT_FP32, 1, false } };
    struct opt_tensor_counters counters = { 0, 1 };
    struct opt_tensor_options options;
    struct opt_spec spec;
    void *scratch = malloc(opt_update_scratch(1, 2));
    struct opt_tensor_memory memory = { .n = 2,
                                        .options = &options,
                                        .counters = &counters,
                                        .w = w,
                                        .contributions = twice,
                                        .contribution_count = 2 };

    for (int value_clip = 0; value_clip < 2; value_clip++) {
        cr_assert_eq(opt_spec_parse(value_clip ? "sgd + aggregate(sum) + clip(value, 1)"
                                               : "sgd + aggregate(sum)",
                                    &spec, NULL),
                     OPT_OK);
        opt_tensor_options_resolve(&spec, "w", 1, &options);
        cr_assert_not(opt_update_serial(&spec, 1, &memory, 1, scratch));
        cr_assert(w[0] == 1.0f && w[1] == 2.0f && counters.t == 0);
    }
    free(scratch);
}

Test(update, non_finite_values_travel_on_under_propagate)
{
    const float w[3] = { 1, 1, 1 }, g[3] = { 1, NAN, INFINITY };
    float out[3];

    one_step("sgd(lr=1) + nonfinite(propagate) + clip(value, 2)", w, g, 3, out);
    cr_assert(out[0] == 0.0f && isnan(out[1]) && out[2] == -1.0f);
    one_step("adam + nonfinite(propagate)", w, g, 3, out);
    cr_assert(isfinite(out[0]) && isnan(out[1]) && isnan(out[2]));
}

Test(update, writes_beside_the_weights_that_readers_hold)
{
    enum { N = 40 };
    static const char *const expressions[] = { "adam", "lamb", "ranger" };
    float w[N], g[N], fresh[N], held[N];

    toy_fill(TOY_ORDINARY, 1, w, N);
    toy_fill(TOY_ORDINARY, 2, g, N);
    for (size_t e = 0; e < 3; e++) {
        struct opt_contribution one = { g, OPT_FP32, 1, false };
        struct opt_tensor_update tensor;
        struct opt_block_sums sums;
        struct opt_update update;
        struct toy in_place, beside;

        toy_init(&in_place, expressions[e], w, N);
        toy_init(&beside, expressions[e], w, N);
        toy_update(&in_place, g);
        opt_update_begin(&update, &beside.spec, 1);
        opt_update_bind(&tensor, &update, &beside.options, &beside.counters);
        opt_update_tensor(&tensor);
        memcpy(held, beside.w, sizeof held);
        struct opt_block_memory memory = { .n = N,
                                           .w = beside.w,
                                           .w_out = fresh,
                                           .contributions = &one,
                                           .contribution_count = 1,
                                           .direction = beside.direction };
        memcpy(memory.slots, beside.slots, sizeof memory.slots);
        if (tensor.two_passes) {
            opt_block_run(&tensor, tensor.first_pass, &memory, &sums);
            opt_update_end_first(&tensor, &sums, 1);
        }
        opt_block_run(&tensor, OPT_PASS_STEP, &memory, NULL);
        cr_assert(toy_same(fresh, in_place.w, N), "%s", expressions[e]);
        cr_assert(toy_same(held, beside.w, N), "%s", expressions[e]);
        toy_fini(&in_place);
        toy_fini(&beside);
    }
}

Test(update, directions_may_overwrite_the_gradient_they_are_made_from)
{
    enum { N = 3000 };
    static float w[N], g[N];
    struct opt_contribution one = { g, OPT_FP32, 1, false };
    struct toy apart, shared;

    toy_fill(TOY_ORDINARY, 1, w, N);
    toy_fill(TOY_ORDINARY, 2, g, N);
    toy_init(&apart, "lamb", w, N);
    toy_init(&shared, "lamb", w, N);
    toy_update(&apart, g);
    float *direction = shared.direction;
    shared.direction = g;
    toy_update_from(&shared, &one, 1);
    shared.direction = direction;
    cr_assert(toy_equal(&apart, &shared));
    toy_fini(&apart);
    toy_fini(&shared);
}

Test(update, non_finite_values_of_shared_memory_travel_on_under_propagate)
{
    const float w[2] = { 1, 1 }, g[2] = { NAN, INFINITY };
    const struct opt_contribution one = { g, OPT_FP32, 1, true };
    struct toy toy;

    toy_init(&toy, "sgd(lr=1) + nonfinite(propagate)", w, 2);
    toy_update_from(&toy, &one, 1);
    cr_assert(isnan(toy.w[0]) && toy.w[1] == -INFINITY);
    toy_fini(&toy);
}

/* One update from shared gradients that are others in the step than when their norms
 * were taken. */
static void change_in_between(const char *expression, size_t count, float before,
                              float after, float *out)
{
    const float w[1] = { 1 };
    float g[1] = { before };
    struct opt_contribution list[3] = { { g, OPT_FP32, 1, true },
                                        { g, OPT_FP32, 1, true },
                                        { g, OPT_FP32, 1, true } };
    struct opt_tensor_update tensor;
    struct opt_block_sums sums;
    struct opt_update update;
    struct toy toy;

    toy_init(&toy, expression, w, 1);
    opt_update_begin(&update, &toy.spec, 1);
    opt_update_bind(&tensor, &update, &toy.options, &toy.counters);
    struct opt_block_memory memory = { .n = 1,
                                       .w = toy.w,
                                       .w_out = out,
                                       .contributions = list,
                                       .contribution_count = count };
    memcpy(memory.slots, toy.slots, sizeof memory.slots);
    if (opt_update_needs_norms(&update)) {
        opt_block_run(&tensor, OPT_PASS_NORM, &memory, &sums);
        opt_update_add_norm(&update, &tensor, &sums, 1);
        opt_update_end_norms(&update);
        cr_assert(opt_update_finite(&update));
    }
    opt_update_tensor(&tensor);
    if (tensor.two_passes) {
        opt_block_run(&tensor, tensor.first_pass, &memory, &sums);
        opt_update_end_first(&tensor, &sums, 1);
    }
    g[0] = after;
    opt_block_run(&tensor, OPT_PASS_STEP, &memory, NULL);
    toy_fini(&toy);
}

Test(update, shared_gradients_that_change_after_their_norm_make_nothing_infinite)
{
    float out;

    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        if (!opt_isa_force((enum opt_isa)isa)) {
            continue;
        }
        /* What would be scaled by 1e38. */
        change_in_between("sgd(lr=1) + layerwise(gradient)", 1, 1e-38f, 1e10f, &out);
        cr_assert_eq(out, 1.0f);
        change_in_between("sgd(lr=1) + layerwise(gradient)", 1, 1e-38f, NAN, &out);
        cr_assert_eq(out, 1.0f);
        /* Sums that were finite, formed in the loop and before it. */
        for (size_t count = 2; count <= 3; count++) {
            change_in_between("sgd(lr=1) + aggregate(sum)", count, 1, 3e38f, &out);
            cr_assert_eq(out, 1.0f);
            change_in_between("sgd(lr=1) + aggregate(sum)", count, 1, 2, &out);
            cr_assert_eq(out, 1.0f - 2.0f * (float)count);
        }
    }
}

Test(update, a_sum_of_shared_gradients_that_overflows_is_found)
{
    float w[1] = { 1 };
    const float g[1] = { 3e38f };
    const struct opt_contribution list[2] = { { g, OPT_FP32, 1, true },
                                              { g, OPT_FP32, 1, true } };
    struct toy toy;
    void *scratch = malloc(opt_update_scratch(1, 1));

    cr_assert_not_null(scratch);
    toy_init(&toy, "sgd + aggregate(sum)", w, 1);
    struct opt_tensor_memory memory = { .n = 1,
                                        .options = &toy.options,
                                        .counters = &toy.counters,
                                        .w = toy.w,
                                        .contributions = list,
                                        .contribution_count = 2 };
    cr_assert_not(opt_update_serial(&toy.spec, 1, &memory, 1, scratch));
    cr_assert(toy.w[0] == 1.0f && toy.counters.t == 0);
    toy_fini(&toy);
    free(scratch);
}

Test(update, views_are_the_look_ahead_point_and_the_slow_weights)
{
    const float w[2] = { 1, 2 }, g[2] = { 1, -1 };
    float view[2];
    struct toy toy;

    toy_init(&toy, "nag(lr=0.5, momentum=0.5) + lookahead(2)", w, 2);
    cr_assert(opt_view_train_differs(&toy.spec));
    cr_assert_eq(opt_view_eval_slot(&toy.spec), 1);
    toy_update(&toy, g);
    cr_assert(opt_view_train(&toy.spec, toy.w, toy.slots, view, 2));
    cr_assert(view[0] == 0.25f && view[1] == 2.75f);
    cr_assert(toy.slots[1][0] == 1.0f && toy.slots[1][1] == 2.0f);
    toy_fini(&toy);

    toy_init(&toy, "adam", w, 2);
    cr_assert_not(opt_view_train_differs(&toy.spec));
    cr_assert_not(opt_view_train(&toy.spec, toy.w, toy.slots, view, 2));
    cr_assert_eq(opt_view_eval_slot(&toy.spec), -1);
    toy_fini(&toy);
}

Test(update, fast_and_slow_weights_meet_at_every_epoch)
{
    const float w[1] = { 1 }, g[1] = { 1 };
    struct toy toy;

    toy_init(&toy, "sgd(lr=1) + lookahead(2, alpha=0.5)", w, 1);
    toy_update(&toy, g);
    cr_assert(toy.w[0] == 0.0f && toy.slots[0][0] == 1.0f);
    cr_assert_eq(opt_lookahead_epochs(&toy.spec, 1), 0);
    toy_update(&toy, g);
    cr_assert(toy.w[0] == 0.0f && toy.slots[0][0] == 0.0f);
    cr_assert_eq(opt_lookahead_epochs(&toy.spec, 2), 1);
    cr_assert_eq(opt_lookahead_epochs(&toy.spec, 5), 2);
    toy_fini(&toy);
}

Test(update, scales_of_a_group_act_on_its_tensors_only)
{
    struct opt_spec spec;
    struct opt_tensor_options options;

    cr_assert_eq(opt_spec_parse("lamb + layerwise(min_ndim=2) + tensors(\"*.b?as\", "
                                "weight_decay=0, lr_scale=2) + tensors(\"n*r*\", "
                                "layerwise=none)",
                                &spec, NULL),
                 OPT_OK);
    opt_tensor_options_resolve(&spec, "fc.bias", 1, &options);
    cr_assert(options.weight_decay == 0 && options.lr_scale == 2 && !options.layerwise);
    opt_tensor_options_resolve(&spec, "fc.weight", 2, &options);
    cr_assert(options.weight_decay == 0.01 && options.lr_scale == 1 &&
              options.layerwise);
    opt_tensor_options_resolve(&spec, "norm.weight", 2, &options);
    cr_assert_not(options.layerwise);
    opt_tensor_options_resolve(&spec,
                               "fc.b\xc3\xa4"
                               "as",
                               1, &options);
    cr_assert(options.lr_scale == 2, "? is a character, not a byte");
    opt_tensor_options_resolve(&spec, "fc.bas", 1, &options);
    cr_assert_eq(options.lr_scale, 1);
}

Test(update, instruction_sets_have_names_and_only_supported_ones_are_forced)
{
    cr_assert(opt_isa_supported(OPT_ISA_BASELINE));
    cr_assert(opt_isa_supported(opt_isa_current()));
    cr_assert_not(opt_isa_force(OPT_ISA_COUNT));
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        cr_assert_eq(opt_isa_force((enum opt_isa)isa),
                     opt_isa_supported((enum opt_isa)isa));
        cr_assert_gt(strlen(opt_isa_name((enum opt_isa)isa)), 0);
    }
}
