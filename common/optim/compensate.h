/* compensate — delay compensation of a stale gradient.
 *
 * DC-ASGD (Zheng et al. 2017, equation 10): the gradient at the weights as they are
 * now, from the one at the weights as they were then, by the first-order term of its
 * Taylor expansion with lambda g g in the place of the Hessian's diagonal.
 */
#ifndef OPTIMD_COMMON_OPTIM_COMPENSATE_H
#define OPTIMD_COMMON_OPTIM_COMPENSATE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/dtype.h"

/* out = g + ((lambda g) g) (now - then), each operation rounded to fp32, where that is
 * finite; where it is not, g. gradient has n values of the dtype, of which those that
 * are not finite count as 0 if clean; out may not overlap it. Any thread. */
void opt_compensate(enum opt_dtype dtype, bool clean, const void *gradient,
                    float lambda, const float *now, const float *then, float *out,
                    size_t n);

#endif
