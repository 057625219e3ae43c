/* scalars — what the loops multiply with.
 *
 * Made by update.c and the rules' prepare, read by the loops, which include nothing
 * else of the update, so that they are compiled anew only when they change. No state.
 */
#ifndef OPTIMD_COMMON_OPTIM_SCALARS_H
#define OPTIMD_COMMON_OPTIM_SCALARS_H

/* One tensor's numbers in one update, made in double and
 * rounded once. The first group is the shell's (shell.h says what it does with them),
 * the second the rule's; every rule says at its element function what it takes. */
struct opt_scalars {
    float scale, bound, coupled; /* g' = clamp(scale g, bound) + coupled w */
    float inside;                /* u' = u + inside w */
    float decoupled, step;       /* w' = w - (decoupled w + step u') */
    float largest;               /* that any of them may be */

    float decay1, gain1;           /* first moment: kept, and of the gradient */
    float decay2, gain2;           /* second moment */
    float from_m, from_g, from_v;  /* into numerator and denominator */
    float eps_inside, eps_outside; /* of the square root */
    float ahead;                   /* classical nag: part of the look-ahead point */
    float low, high;               /* adabound */
};

#endif
