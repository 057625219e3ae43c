/* test_norm — sums of squares: right, and the same bits everywhere. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "common/optim/passes.h"
#include "tests/support/toy.h"

static double in_pieces(const float *values, size_t n, size_t piece)
{
    double lanes[OPT_LANES] = { 0 };

    for (size_t start = 0; start < n; start += piece) {
        opt_kernels()->squares(OPT_FP32, false, values + start, INFINITY, lanes, NULL,
                               NULL, n - start < piece ? n - start : piece);
    }
    return opt_norm_fold(lanes);
}

Test(norm, is_the_sum_of_squares)
{
    float values[100];
    double expected = 0;

    toy_fill(TOY_ORDINARY, 1, values, 100);
    for (size_t i = 0; i < 100; i++) {
        expected += (double)values[i] * (double)values[i];
    }
    cr_assert_float_eq(in_pieces(values, 100, 1024), expected, 1e-13);
    cr_assert_eq(in_pieces(values, 0, 16), 0.0);
}

Test(norm, depends_on_neither_pieces_nor_instruction_set)
{
    static float values[OPT_BLOCK];

    toy_fill(TOY_ORDINARY, 1, values, OPT_BLOCK);
    for (size_t n = 1; n <= OPT_BLOCK; n = n * 3 + 5) {
        cr_assert(opt_isa_force(OPT_ISA_BASELINE));
        double first = in_pieces(values, n, OPT_BLOCK);
        for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
            if (opt_isa_force((enum opt_isa)isa)) {
                for (size_t piece = 16; piece <= 4096; piece *= 4) {
                    double other = in_pieces(values, n, piece);
                    /* Sums of squares: neither -0 nor NaN. */
                    cr_assert_eq(first, other);
                }
            }
        }
    }
}

Test(norm, does_not_overflow_or_underflow_for_any_float)
{
    const float large[2] = { 3e38f, -3e38f }, small[2] = { 1e-45f, 1e-45f };

    cr_assert(isfinite(in_pieces(large, 2, 16)));
    cr_assert_gt(in_pieces(small, 2, 16), 0.0);
}

static double ratio(const char *expression, double w, double u, double extra)
{
    struct opt_spec spec;
    struct opt_error error;

    cr_assert_eq(opt_spec_parse(expression, &spec, &error), OPT_OK, "%s", error.text);
    return opt_layerwise_ratio(&spec.options, w, u, extra);
}

Test(norm, trust_ratio_is_one_if_either_norm_is_zero)
{
    const char *clipped = "adam + layerwise(phi_min=2)";

    cr_assert_eq(ratio(clipped, 0, 3, 0), 1);
    cr_assert_eq(ratio(clipped, 3, 0, 0), 1);
}

Test(norm, trust_ratio_follows_phi_coefficient_eps_and_bound)
{
    cr_assert_eq(ratio("adam + layerwise()", 6, 3, 0), 2);
    cr_assert_eq(ratio("adam + layerwise(phi_max=4)", 6, 2, 0), 2);
    cr_assert_eq(ratio("adam + layerwise(phi_min=8)", 6, 2, 0), 4);
    cr_assert_eq(ratio("adam + layerwise(trust_coefficient=0.5)", 6, 3, 0), 1);
    cr_assert_eq(ratio("adam + layerwise(eps=1)", 6, 2, 0), 2);
    cr_assert_eq(ratio("adam + layerwise(trust_max=1.5)", 6, 3, 0), 1.5);
    cr_assert_eq(ratio("sgd + layerwise(gradient)", 6, 2, 1), 2);
}
