/* adam — the elements of Adam and its relatives.
 *
 * Bias corrections c1 = 1 - beta1^t and c2 = 1 - beta2^t never divide an element: with
 * sqrt(v/c2) + eps = (sqrt(v) + eps sqrt(c2)) / sqrt(c2), and inside the root
 * sqrt(v/c2 + eps) = sqrt(v + eps c2) / sqrt(c2), they are part of the numerator's
 * factor and of eps. Arguments as in momentum.h. Included by the kernels; adam.c
 * prepares the scalars.
 */
#ifndef OPTIMD_COMMON_OPTIM_ADAM_H
#define OPTIMD_COMMON_OPTIM_ADAM_H

#include "common/optim/adagrad.h"
#include "common/optim/shell.h"

/* m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2 */
OPT_INLINE void moments(const struct opt_scalars *k, float g, float *m, float *v)
{
    *m = k->decay1 * *m + k->gain1 * g;
    *v = k->decay2 * *v + k->gain2 * g * g;
}

/* u = (m/c1) / D(v),  from_m = sqrt(c2)/c1 */
OPT_INLINE float adam_element(const struct opt_scalars *k, float g, float *a, float *b,
                              float *c)
{
    (void)c;
    moments(k, g, a, b);
    return quotient(k->from_m * *a, denominator(k, *b));
}

/* n = max(beta2 n, |g| + eps_inside),  u = (m/c1) / (n + eps_outside)
 *
 * in_max and outside have one of the two, zero_safe neither: n is 0 only while every
 * gradient was 0, and then m is. */
OPT_INLINE float adamax_element(const struct opt_scalars *k, float g, float *a,
                                float *b, float *c)
{
    (void)c;
    *a = k->decay1 * *a + k->gain1 * g;
    *b = larger(k->decay2 * *b, fabsf(g) + k->eps_inside);
    return quotient(k->from_m * *a, *b + k->eps_outside);
}

/* u = (from_m m + from_g g) / D(v), the two factors by nadam_form */
OPT_INLINE float nadam_element(const struct opt_scalars *k, float g, float *a, float *b,
                               float *c)
{
    (void)c;
    moments(k, g, a, b);
    return quotient(k->from_m * *a + k->from_g * g, denominator(k, *b));
}

/* x = max(x, from_v v),  u = (m/c1) / D(x)
 *
 * max_of raw: from_v = 1; corrected: from_v = 1/c2, and no correction in D. */
OPT_INLINE float amsgrad_element(const struct opt_scalars *k, float g, float *a,
                                 float *b, float *c)
{
    moments(k, g, a, b);
    *c = larger(*c, k->from_v * *b);
    return quotient(k->from_m * *a, denominator(k, *c));
}

/* rectified:  u = r (m/c1) / D(v),  from_v = 1
 * otherwise:  u = m/c1,             from_v = 0, eps_inside = 0, eps_outside = 1
 *
 * v is held before it is used, or an infinite one times from_v = 0 would be NaN. */
OPT_INLINE float radam_element(const struct opt_scalars *k, float g, float *a, float *b,
                               float *c)
{
    (void)c;
    moments(k, g, a, b);
    return quotient(k->from_m * *a, denominator(k, k->from_v * held(k, *b)));
}

/* eta = clip(sqrt(c2)/c1 / (sqrt(x) + eps), low, high),  u = eta m
 *
 * Here x/0 is infinite, and then the upper bound. */
OPT_INLINE float bounded(const struct opt_scalars *k, float m, float x)
{
    float eta = k->from_m / (sqrtf(x) + k->eps_outside);
    eta = eta < k->low ? k->low : eta;
    return (eta > k->high ? k->high : eta) * m;
}

OPT_INLINE float adabound_element(const struct opt_scalars *k, float g, float *a,
                                  float *b, float *c)
{
    (void)c;
    moments(k, g, a, b);
    return bounded(k, *a, *b);
}

/* x = max(x, v) */
OPT_INLINE float amsbound_element(const struct opt_scalars *k, float g, float *a,
                                  float *b, float *c)
{
    moments(k, g, a, b);
    *c = larger(*c, *b);
    return bounded(k, *a, *c);
}

#endif
