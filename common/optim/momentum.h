/* momentum — the elements of sgd, momentum, nag and lion.
 *
 * Arguments of every element: k the scalars, g the gradient, a b c the slots in the
 * rule's order. Included by the kernels; momentum.c prepares the scalars.
 */
#ifndef OPTIMD_COMMON_OPTIM_MOMENTUM_H
#define OPTIMD_COMMON_OPTIM_MOMENTUM_H

#include "common/optim/shell.h"

/* u = g */
OPT_INLINE float sgd_element(const struct opt_scalars *k, float g, float *a, float *b,
                             float *c)
{
    (void)k, (void)a, (void)b, (void)c;
    return g;
}

/* b = decay1 b + gain1 g,  u = b
 *
 * velocity: gain1 = lr, heavy_ball: 1, ema: 1 - momentum. */
OPT_INLINE float momentum_element(const struct opt_scalars *k, float g, float *a,
                                  float *b, float *c)
{
    (void)b, (void)c;
    *a = k->decay1 * *a + k->gain1 * g;
    return *a;
}

/* g' = g - ahead b,  b = decay1 b + gain1 g',  u = from_m b + from_g g'
 *
 * classical: the gradient was taken at w - momentum b, so coupled decay belongs to that
 * point too: the shell has added coupled w, and ahead = coupled momentum. u = b.
 * reformulated: u = momentum b + gain1 g, ahead = 0. */
OPT_INLINE float nag_element(const struct opt_scalars *k, float g, float *a, float *b,
                             float *c)
{
    (void)b, (void)c;
    g = held(k, g - k->ahead * *a);
    *a = k->decay1 * *a + k->gain1 * g;
    return k->from_m * *a + k->from_g * g;
}

/* u = sign(decay1 m + gain1 g),  m = decay2 m + gain2 g,  sign(0) = 0
 *
 * The direction looks at the gradient more (beta1) than the momentum that is kept does
 * (beta2), and every element moves by the learning rate or not at all. */
OPT_INLINE float lion_element(const struct opt_scalars *k, float g, float *a, float *b,
                              float *c)
{
    (void)b, (void)c;
    float blend = k->decay1 * *a + k->gain1 * g;
    *a = k->decay2 * *a + k->gain2 * g;
    return blend == 0.0f ? 0.0f : copysignf(1.0f, blend);
}

#endif
