/* test_compensate — delay compensation of what is not finite. (That the engine
 * compensates what it should is shown in test_policies.c.)
 */
#include <criterion/criterion.h>
#include <math.h>

#include "common/optim/compensate.h"
#include "tests/support/toy.h"

enum { N = 37 };

Test(compensate, counts_what_is_not_finite_as_0_if_asked_to)
{
    float now[N], then[N], out[N], expected[N];
    float planted[N], single[N];
    uint16_t half[N];

    toy_fill(TOY_ORDINARY, 1, now, N);
    toy_fill(TOY_ORDINARY, 2, then, N);
    toy_fill(TOY_ORDINARY, 3, planted, N);
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        if (!opt_isa_force((enum opt_isa)isa)) {
            continue;
        }
        for (int dtype = 0; dtype < OPT_DTYPE_COUNT; dtype++) {
            for (size_t i = 0; i < N; i += 4) {
                planted[i] = i % 8 == 0 ? NAN : -INFINITY;
            }
            opt_dtype_narrow((enum opt_dtype)dtype, planted,
                             dtype == OPT_FP32 ? (void *)single : half, N);
            const void *values = dtype == OPT_FP32 ? (const void *)single : half;
            opt_compensate((enum opt_dtype)dtype, false, values, 0.5f, now, then, out,
                           N);
            for (size_t i = 0; i < N; i++) {
                cr_assert_eq(isfinite(out[i]) == 0, i % 4 == 0);
            }
            opt_compensate((enum opt_dtype)dtype, true, values, 0.5f, now, then, out,
                           N);
            for (size_t i = 0; i < N; i += 4) {
                planted[i] = 0;
            }
            opt_dtype_narrow((enum opt_dtype)dtype, planted,
                             dtype == OPT_FP32 ? (void *)single : half, N);
            opt_compensate((enum opt_dtype)dtype, false, values, 0.5f, now, then,
                           expected, N);
            cr_assert(toy_same(out, expected, N));
        }
    }
}
