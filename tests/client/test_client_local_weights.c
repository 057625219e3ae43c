/* fast: a worker's own steps and an outer update by sgd are, bit for bit, what the
 * daemon makes of the same rule with lookahead. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/local_weights.h"
#include "common/optim/rule.h"
#include "tests/support/toy.h"

enum { N = OPT_BLOCK + 1234, STEPS = 25, TEXT = 512 };

static const uint64_t shape[] = { N };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };
static const char *const words[] = { "keep", "reset", "pullback" };

static struct local_weights *make(const char *specification,
                                  const struct optclient_local_options *options)
{
    struct local_weights *fast = NULL;
    struct opt_error error;
    cr_assert_eq(
        local_weights_new(specification, options, &tensor, shape, 1, &fast, &error),
        OPT_OK, "%s: %s", specification, error.text);
    return fast;
}

static void refused(const char *specification,
                    const struct optclient_local_options *options, const char *why)
{
    struct local_weights *fast = NULL;
    struct opt_error error;
    cr_assert_eq(
        local_weights_new(specification, options, &tensor, shape, 1, &fast, &error),
        OPT_INVALID_ARGUMENT, "%s", specification);
    cr_assert(strstr(error.text, why) != NULL, "\"%s\" is not in: %s", why, error.text);
    cr_assert_null(fast);
}

/* A noisy gradient, taken where it is said to be. */
static void gradient_at(const float *at, uint64_t seed, float *out)
{
    for (size_t i = 0; i < N; i++) {
        out[i] = 0.3f * (at[i] - 0.25f) + 0.1f * toy_uniform(&seed);
    }
}

/* ------------------------------------------------------------ equal to the daemon's */

/* One update by the outer rule. */
static void outer_step(struct toy *outer, struct local_weights *fast)
{
    local_weights_depart(fast);
    toy_update(outer, local_weights_values(fast, PLANE_DISPLACEMENT, 0));
    memcpy(local_weights_values(fast, PLANE_SLOW, 0), outer->w, N * sizeof(float));
    local_weights_arrive(fast);
}

/* Train a model that the daemon holds whole beside a worker's, k steps an epoch. */
static void compare(const char *rule, int k, double alpha, int momentum)
{
    static float start[N], gradient[N], view[N];
    char held[TEXT], interpolation[TEXT];
    snprintf(held, sizeof(held), "%s + lookahead(%d, alpha=%.17g, momentum=%s)", rule,
             k, alpha, words[momentum]);
    snprintf(interpolation, sizeof(interpolation), "sgd(lr=%.17g)", alpha);
    toy_fill(TOY_ORDINARY, 7, start, N);
    start[3] = -0.0f;
    struct toy server, outer;
    toy_init(&server, held, start, N);
    toy_init(&outer, interpolation, start, N);
    struct optclient_local_options options = { .momentum =
                                                   (enum optclient_momentum)momentum,
                                               .alpha = alpha };
    struct local_weights *fast = make(rule, &options);
    memcpy(local_weights_values(fast, PLANE_SLOW, 0), start, sizeof(start));
    local_weights_start(fast);

    struct optclient_values values = { .values = gradient };
    for (int i = 1; i <= STEPS; i++) {
        bool differs =
            opt_view_train(&server.spec, server.w, server.slots, view, server.n);
        const float *at = differs ? view : server.w;
        cr_assert(toy_same(at, local_weights_view(fast, 0), N), "%s: before step %d",
                  held, i);
        gradient_at(at, (uint64_t)i, gradient);
        /* A weight that no gradient moves keeps its bits as well. */
        gradient[3] = 0;
        toy_update(&server, gradient);
        bool stepped = false;
        struct opt_error error;
        cr_assert_eq(local_weights_step(fast, &values, 1, &stepped, &error), OPT_OK,
                     "%s: %s", held, error.text);
        cr_assert(stepped);
        if (i % k == 0) {
            outer_step(&outer, fast);
            cr_assert(toy_same(server.slots[opt_view_eval_slot(&server.spec)],
                               local_weights_values(fast, PLANE_SLOW, 0), N),
                      "%s: slow weights after step %d", held, i);
        }
        cr_assert(toy_same(server.w, local_weights_values(fast, PLANE_WEIGHTS, 0), N),
                  "%s: after step %d", held, i);
    }
    local_weights_free(fast);
    toy_fini(&server);
    toy_fini(&outer);
}

/* With all that a synchronisation can do to its momentum. */
static void compare_all(const char *rule, int k, double alpha)
{
    struct opt_spec spec;
    struct opt_error error;
    cr_assert_eq(opt_spec_parse(rule, &spec, &error), OPT_OK, "%s", error.text);
    bool has_it = spec.options.lookahead_k > 0;
    opt_spec_fini(&spec);
    if (has_it) {
        return; /* a preset */
    }
    for (int momentum = OPT_KEEP; momentum <= OPT_PULLBACK; momentum++) {
        compare(rule, k, alpha, momentum);
    }
}

Test(fast, of_every_rule_is_lookahead_bit_for_bit)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);
    for (size_t i = 0; i < count; i++) {
        compare_all(rules[i]->name, 5, 0.5);
    }
}

Test(fast, of_every_preset_is_lookahead_bit_for_bit)
{
    size_t count;
    const struct opt_preset *presets = opt_presets(&count);
    for (size_t i = 0; i < count; i++) {
        compare_all(presets[i].name, 6, 0.8);
    }
}

Test(fast, with_other_steps_and_shares_is_lookahead_bit_for_bit)
{
    compare_all("adam(lr=1e-2)", 1, 0.5);
    compare_all("momentum(lr=0.1)", 2, 1);
    compare_all("momentum(lr=0.1)", STEPS, 0.1);
    compare_all("nag(lr=0.1)", 3, 1.0 / 3);
    compare_all("sgd(lr=0.3)", 4, 0.7);
}

Test(fast, with_wrappers_is_lookahead_bit_for_bit)
{
    compare_all("adam(lr=1e-2) + warmup(7) + cosine(20)", 5, 0.5);
    compare_all("rmsprop(momentum=0.9, centered=true) + step(6, gamma=0.5)", 5, 0.5);
    compare_all("nag(lr=0.05) + decay(0.01) + clip(global_norm, 2)", 4, 0.5);
    compare_all("adam + decay(0.1, decoupled) + clip(tensor_norm, 1)", 4, 0.5);
    compare_all("lamb(lr=0.01) + clip(value, 0.1) + tensors(\"w\", lr_scale=0.5)", 4,
                0.5);
}

/* --------------------------------------------------------------------- gradients */

/* Steps that are refused or skipped change nothing. */
static void expect_rest(const char *specification, const struct optclient_values *bad,
                        size_t count, enum opt_status status, const char *why)
{
    static float start[N], good[N];
    toy_fill(TOY_ORDINARY, 7, start, N);
    toy_fill(TOY_ORDINARY, 8, good, N);
    struct local_weights *fast =
        make(specification, &(struct optclient_local_options){ 0 });
    struct local_weights *untroubled =
        make(specification, &(struct optclient_local_options){ 0 });
    struct local_weights *both[] = { fast, untroubled };
    for (size_t i = 0; i < 2; i++) {
        memcpy(local_weights_values(both[i], PLANE_SLOW, 0), start, sizeof(start));
        local_weights_start(both[i]);
    }
    bool stepped = true;
    struct opt_error error;
    cr_assert_eq(local_weights_step(fast, bad, count, &stepped, &error), status);
    if (status == OPT_OK) {
        cr_assert(!stepped);
    } else {
        cr_assert(strstr(error.text, why) != NULL, "\"%s\" is not in: %s", why,
                  error.text);
    }
    cr_assert_eq(fast->steps, 0);
    struct optclient_values values = { .values = good };
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(local_weights_step(both[i], &values, 1, &stepped, &error), OPT_OK);
        cr_assert(stepped);
    }
    cr_assert_eq(fast->steps, 1);
    cr_assert(
        toy_same(local_weights_view(fast, 0), local_weights_view(untroubled, 0), N));
    local_weights_free(fast);
    local_weights_free(untroubled);
}

Test(fast, refuses_gradients_that_cannot_be)
{
    static float zeros[N];
    const uint32_t row = 0;
    struct optclient_values of_other = { .tensor = 1, .values = zeros };
    struct optclient_values nowhere = { .values = NULL };
    struct optclient_values by_rows = { .values = zeros, .rows = &row, .row_count = 1 };
    struct optclient_values twice[] = { { .values = zeros }, { .values = zeros } };
    expect_rest("adam", &of_other, 1, OPT_INVALID_ARGUMENT,
                "tensor 1; the model has 0");
    expect_rest("adam", &nowhere, 1, OPT_INVALID_ARGUMENT, "has no memory");
    expect_rest("adam", &by_rows, 1, OPT_INVALID_ARGUMENT, "not sparse");
    expect_rest("adam", twice, 2, OPT_INVALID_ARGUMENT, "once more");
    expect_rest("adam", NULL, 0, OPT_INVALID_ARGUMENT, "no gradients");
}

Test(fast, treats_nan_and_infinity_as_its_specification_says)
{
    static float gradient[N];
    struct optclient_values values = { .values = gradient };
    gradient[N - 1] = NAN;
    expect_rest("adam", &values, 1, OPT_INVALID_ARGUMENT, "is nan at element 17617");
    expect_rest("adam + nonfinite(skip)", &values, 1, OPT_OK, "");
    gradient[N - 1] = -INFINITY;
    expect_rest("nag", &values, 1, OPT_INVALID_ARGUMENT, "\"w\" is -inf");

    struct local_weights *fast =
        make("sgd + nonfinite(propagate)", &(struct optclient_local_options){ 0 });
    bool stepped = false;
    struct opt_error error;
    cr_assert_eq(local_weights_step(fast, &values, 1, &stepped, &error), OPT_OK);
    cr_assert(stepped);
    cr_assert(isinf(local_weights_view(fast, 0)[N - 1]));
    local_weights_free(fast);
}

/* ------------------------------------------------------------------ specifications */

Test(fast, refuses_specifications_that_are_not_of_local_steps)
{
    struct optclient_local_options options = { 0 };
    refused("adam + lookahead(5)", &options, "contains lookahead");
    refused("adma", &options, "adam");
    options.momentum = (enum optclient_momentum)7;
    refused("adam", &options, "momentum 7");
    options = (struct optclient_local_options){ .alpha = 1.5 };
    refused("adam", &options, "alpha 1.5");
    options.alpha = NAN;
    refused("adam", &options, "alpha nan");
}

Test(fast, refuses_sparse_tensors)
{
    const uint64_t table[] = { 10, 4 }, elements = 40;
    const struct optclient_tensor sparse = {
        .name = "embedding", .shape = table, .rank = 2, .sparse = 1
    };
    struct local_weights *fast = NULL;
    struct opt_error error;
    cr_assert_eq(local_weights_new("sgd", &(struct optclient_local_options){ 0 },
                                   &sparse, &elements, 1, &fast, &error),
                 OPT_UNIMPLEMENTED);
    cr_assert(strstr(error.text, "\"embedding\" is sparse") != NULL, "%s", error.text);
}

Test(fast, goes_on_with_the_schedule_of_a_worker_that_comes_back)
{
    static float ones[N];
    for (size_t i = 0; i < N; i++) {
        ones[i] = 1;
    }
    struct optclient_values values = { .values = ones };
    struct local_weights *fast = make("sgd(lr=1) + step(4, gamma=0.5)",
                                      &(struct optclient_local_options){ .steps = 5 });
    bool stepped;
    struct opt_error error;
    cr_assert_eq(local_weights_step(fast, &values, 1, &stepped, &error), OPT_OK);
    cr_assert_eq(fast->steps, 6);
    cr_assert_eq(local_weights_view(fast, 0)[0], -0.5f);
    local_weights_free(fast);
}
