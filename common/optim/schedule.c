/* schedule — the learning rate of update T. Any thread.
 *
 * A linear warmup over W updates ends at the full rate; the schedule's clock n starts
 * there, at the last update of the warmup or the first of all.
 */
#include <math.h>

#include "common/optim/update.h"

double opt_schedule_lr(const struct opt_options *options, uint64_t T)
{
    const double pi = 3.14159265358979323846;
    double lr = options->lr, end = options->lr_end;
    double warmup = options->warmup_steps, length = options->schedule_steps;

    if ((double)T < warmup) {
        return lr * ((double)T / warmup);
    }
    double n = (double)T - (warmup > 1.0 ? warmup : 1.0);
    double x = (n < length ? n : length) / length;
    switch ((enum opt_schedule)options->schedule) {
    case OPT_STEP:
        return lr * pow(options->schedule_gamma, floor(n / length));
    case OPT_EXPONENTIAL:
        return lr * pow(options->schedule_gamma, n / length);
    case OPT_POLYNOMIAL:
        return end + (lr - end) * pow(1.0 - x, options->schedule_power);
    case OPT_COSINE:
        return end + (lr - end) * 0.5 * (1.0 + cos(pi * x));
    case OPT_CONSTANT:
    default:
        return lr;
    }
}
