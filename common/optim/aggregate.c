/* aggregate — many workers' gradients to one.
 *
 * Sums are taken in fp64 in the order of the contributions, which is ascending worker,
 * and rounded once, so the result depends neither on arrival nor on the path: one
 * gradient with factor 1 is read as it is, two fp32 ones are summed inside the rule's
 * loop, everything else goes through a slice that stays in the first-level cache. Any
 * thread.
 */
#include <assert.h>

#include "common/optim/passes.h"

void opt_aggregate_factors(enum opt_aggregate how, const uint64_t *samples,
                           const enum opt_form *forms, size_t n, double *factors)
{
    double total = 0.0;

    for (size_t i = 0; i < n; i++) {
        total += (double)samples[i];
    }
    for (size_t i = 0; i < n; i++) {
        switch (how) {
        case OPT_WEIGHTED_MEAN:
            factors[i] = (forms[i] == OPT_FORM_SUM ? 1.0 : (double)samples[i]) / total;
            break;
        case OPT_MEAN:
            factors[i] = 1.0 / (double)n;
            break;
        case OPT_SUM:
            factors[i] = 1.0;
            break;
        }
    }
}

bool opt_aggregate_direct(const struct opt_contribution *contributions, size_t count,
                          enum opt_load *load)
{
    static const enum opt_load loads[OPT_DTYPE_COUNT] = {
        [OPT_FP32] = OPT_LOAD_FP32,
        [OPT_BF16] = OPT_LOAD_BF16,
        [OPT_FP16] = OPT_LOAD_FP16,
    };

    if (count == 1 && contributions[0].factor == 1.0) {
        *load = loads[contributions[0].dtype];
        return true;
    }
    *load = OPT_LOAD_FP32_PAIR;
    return count == 2 && contributions[0].dtype == OPT_FP32 &&
           contributions[1].dtype == OPT_FP32;
}

void opt_aggregate_slice(const struct opt_contribution *contributions, size_t count,
                         bool clean, size_t offset, float *out, size_t n)
{
    const struct opt_kernels *kernels = opt_kernels();
    double sum[OPT_SLICE];

    assert(n <= OPT_SLICE);
    for (size_t i = 0; i < count; i++) {
        const struct opt_contribution *one = &contributions[i];
        const char *values = one->values;

        kernels->accumulate(one->dtype, clean,
                            values + offset * opt_dtype_size(one->dtype), one->factor,
                            i == 0, sum, n);
    }
    kernels->round(sum, out, n);
}
