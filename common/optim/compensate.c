/* compensate — see compensate.h. */
#include "common/optim/compensate.h"

#include "common/optim/kernels.h"

void opt_compensate(enum opt_dtype dtype, bool clean, const void *gradient,
                    float lambda, const float *now, const float *then, float *out,
                    size_t n)
{
    const struct opt_kernels *kernels = opt_kernels();
    kernels->widen(dtype, gradient, out, n);
    kernels->compensate(clean, lambda, now, then, out, n);
}
