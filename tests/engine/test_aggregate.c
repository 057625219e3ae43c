/* test_aggregate — many gradients to one: factors, order, exactness, and that the path
 * through the code does not show in the bits.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "common/optim/passes.h"
#include "tests/support/toy.h"

enum { N = 700, WORKERS = 5 };

Test(aggregate, factors_are_those_of_the_definition)
{
    const uint64_t samples[3] = { 1, 2, 5 };
    const enum opt_form means[3] = { OPT_FORM_MEAN, OPT_FORM_MEAN, OPT_FORM_MEAN };
    const enum opt_form sums[3] = { OPT_FORM_SUM, OPT_FORM_SUM, OPT_FORM_SUM };
    double factors[3];

    opt_aggregate_factors(OPT_WEIGHTED_MEAN, samples, means, 3, factors);
    cr_assert(factors[0] == 1.0 / 8 && factors[1] == 2.0 / 8 && factors[2] == 5.0 / 8);
    opt_aggregate_factors(OPT_WEIGHTED_MEAN, samples, sums, 3, factors);
    cr_assert(factors[0] == 1.0 / 8 && factors[1] == 1.0 / 8 && factors[2] == 1.0 / 8);
    opt_aggregate_factors(OPT_MEAN, samples, means, 3, factors);
    cr_assert(factors[0] == 1.0 / 3 && factors[2] == 1.0 / 3);
    opt_aggregate_factors(OPT_SUM, samples, means, 3, factors);
    cr_assert(factors[0] == 1.0 && factors[2] == 1.0);
}

Test(aggregate, a_single_mean_is_passed_on_unchanged)
{
    const uint32_t bits[] = {
        0x80000000u, 0u, 1u, 0x807fffffu, 0x7f7fffffu, 0x3eaaaaabu
    };
    float values[6], out[6];
    const uint64_t samples = 12345;
    const enum opt_form form = OPT_FORM_MEAN;
    struct opt_contribution one = { values, OPT_FP32, 0.0, false };

    memcpy(values, bits, sizeof bits);
    for (int how = OPT_WEIGHTED_MEAN; how <= OPT_SUM; how++) {
        opt_aggregate_factors((enum opt_aggregate)how, &samples, &form, 1, &one.factor);
        cr_assert_eq(one.factor, 1.0);
        opt_aggregate_slice(&one, 1, false, 0, out, 6);
        cr_assert(toy_same(out, values, 6));
    }
}

/* Contributions of all dtypes over the same memory; returns the widened values. */
static void make(struct opt_contribution list[WORKERS], float wide[WORKERS][N],
                 uint16_t halves[WORKERS][N], float singles[WORKERS][N])
{
    for (size_t i = 0; i < WORKERS; i++) {
        enum opt_dtype dtype = (enum opt_dtype)(i % OPT_DTYPE_COUNT);

        toy_fill(TOY_ORDINARY, i, singles[i], N);
        opt_dtype_narrow(dtype == OPT_FP32 ? OPT_BF16 : dtype, singles[i], halves[i],
                         N);
        list[i] = (struct opt_contribution){
            .values = dtype == OPT_FP32 ? (const void *)singles[i] : halves[i],
            .dtype = dtype,
            .factor = 0.1 + 0.3 * (double)i,
        };
        opt_dtype_widen(dtype, list[i].values, wide[i], N);
    }
}

static struct opt_contribution list[WORKERS];
static float wide[WORKERS][N], singles[WORKERS][N];
static uint16_t halves[WORKERS][N];

Test(aggregate, sums_in_double_in_the_order_given_and_rounds_once)
{
    float out[N];

    make(list, wide, halves, singles);
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        if (!opt_isa_force((enum opt_isa)isa)) {
            continue;
        }
        for (size_t count = 1; count <= WORKERS; count++) {
            opt_aggregate_slice(list, count, false, 3, out, N - 3);
            for (size_t i = 0; i < N - 3; i++) {
                double sum = list[0].factor * (double)wide[0][i + 3];
                for (size_t c = 1; c < count; c++) {
                    sum += list[c].factor * (double)wide[c][i + 3];
                }
                float expected = (float)sum;
                cr_assert(toy_same(&out[i], &expected, 1));
            }
        }
    }
}

Test(aggregate, gives_the_same_update_summed_in_the_loop_or_before_it)
{
    static const char *const expressions[] = { "adam",
                                               "momentum + clip(tensor_norm, 1)",
                                               "lamb" };
    struct opt_contribution pair[2];
    float initial[N], sum[N];

    make(list, wide, halves, singles);
    pair[0] = (struct opt_contribution){ singles[0], OPT_FP32, 0.3, false };
    pair[1] = (struct opt_contribution){ singles[1], OPT_FP32, 0.7, false };
    opt_aggregate_slice(pair, 2, false, 0, sum, N);
    toy_fill(TOY_ORDINARY, 99, initial, N);
    for (size_t e = 0; e < 3; e++) {
        struct toy fused, before;

        toy_init(&fused, expressions[e], initial, N);
        toy_init(&before, expressions[e], initial, N);
        toy_update_from(&fused, pair, 2);
        toy_update(&before, sum);
        cr_assert(toy_equal(&fused, &before), "%s", expressions[e]);
        toy_fini(&fused);
        toy_fini(&before);
    }
}

Test(aggregate, reads_a_half_as_it_reads_its_widened_float)
{
    for (int dtype = OPT_BF16; dtype <= OPT_FP16; dtype++) {
        float initial[N], gradient[N], widened[N];
        uint16_t half[N];
        struct opt_contribution one = { half, (enum opt_dtype)dtype, 1.0, false };
        struct toy a, b;

        toy_fill(TOY_ORDINARY, 1, initial, N);
        toy_fill(TOY_ORDINARY, 2, gradient, N);
        opt_dtype_narrow((enum opt_dtype)dtype, gradient, half, N);
        opt_dtype_widen((enum opt_dtype)dtype, half, widened, N);
        toy_init(&a, "adam", initial, N);
        toy_init(&b, "adam", initial, N);
        toy_update_from(&a, &one, 1);
        toy_update(&b, widened);
        cr_assert(toy_equal(&a, &b));
        toy_fini(&a);
        toy_fini(&b);
    }
}
