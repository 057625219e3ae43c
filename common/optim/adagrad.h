/* adagrad — the elements of adagrad, rmsprop and adadelta.
 *
 * Arguments as in momentum.h. Included by the kernels; adagrad.c prepares the scalars.
 */
#ifndef OPTIMD_COMMON_OPTIM_ADAGRAD_H
#define OPTIMD_COMMON_OPTIM_ADAGRAD_H

#include "common/optim/shell.h"

/* All three places of eps: inside_sqrt has eps_outside = 0, the others eps_inside = 0.
 */
OPT_INLINE float denominator(const struct opt_scalars *k, float x)
{
    return sqrtf(x + k->eps_inside) + k->eps_outside;
}

/* sum = sum + g^2,  u = g / D(sum) */
OPT_INLINE float adagrad_element(const struct opt_scalars *k, float g, float *a,
                                 float *b, float *c)
{
    (void)b, (void)c;
    *a = *a + g * g;
    return quotient(g, denominator(k, *a));
}

/* W = rho W + (1 - rho) g^2,  u = g / D(W) */
OPT_INLINE float rmsprop_element(const struct opt_scalars *k, float g, float *a,
                                 float *b, float *c)
{
    (void)b, (void)c;
    *a = k->decay2 * *a + k->gain2 * g * g;
    return quotient(g, denominator(k, *a));
}

/* G = rho G + (1 - rho) g,  u = g / D(W - G^2)
 *
 * The variance cannot be negative, its fp32 difference can. */
OPT_INLINE float rmsprop_centered_element(const struct opt_scalars *k, float g,
                                          float *a, float *b, float *c)
{
    (void)c;
    *a = k->decay2 * *a + k->gain2 * g * g;
    *b = k->decay2 * *b + k->gain2 * g;
    return quotient(g, denominator(k, larger(held(k, *a) - *b * *b, 0.0f)));
}

/* b = decay1 b + gain1 d,  u = b, where d is the direction without momentum. */
OPT_INLINE float rmsprop_momentum_element(const struct opt_scalars *k, float g,
                                          float *a, float *b, float *c)
{
    float d = rmsprop_element(k, g, a, c, c);
    *b = k->decay1 * *b + k->gain1 * d;
    return *b;
}

OPT_INLINE float rmsprop_centered_momentum_element(const struct opt_scalars *k, float g,
                                                   float *a, float *b, float *c)
{
    float d = rmsprop_centered_element(k, g, a, b, c);
    *c = k->decay1 * *c + k->gain1 * d;
    return *c;
}

/* W = rho W + (1 - rho) g^2,  u = sqrt(P + eps) / sqrt(W + eps) g,
 * P = rho P + (1 - rho) u^2
 *
 * P is the previous update's in u, and gathers the rule's own u: without learning
 * rate, decay or trust ratio. */
OPT_INLINE float adadelta_element(const struct opt_scalars *k, float g, float *a,
                                  float *b, float *c)
{
    (void)c;
    *a = k->decay2 * *a + k->gain2 * g * g;
    float ratio = quotient(sqrtf(*b + k->eps_inside), sqrtf(*a + k->eps_inside));
    float u = held(k, ratio) * g;
    *b = k->decay2 * *b + k->gain2 * u * u;
    return u;
}

#endif
