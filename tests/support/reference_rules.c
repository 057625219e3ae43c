/* reference_rules — see reference_rules.h. */
#include "tests/support/reference_rules.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/rule.h"

/* One element of one rule: what it is given, what it may change. */
struct element {
    const struct opt_options *o;
    double g, w, lr, t, mu_product;
    double *slot[3];
    double mu_product_after;
};

static double square(double x)
{
    return x * x;
}

static double divide(double a, double b)
{
    return b == 0.0 ? 0.0 : a / b;
}

static double denominator(const struct element *e, double x, double c)
{
    switch (e->o->eps_mode) {
    case OPT_INSIDE_SQRT:
        return sqrt(x / c + e->o->eps);
    case OPT_OUTSIDE_SQRT:
        return sqrt(x / c) + e->o->eps;
    default:
        return (sqrt(x) + e->o->eps) / sqrt(c);
    }
}

static double momentum_stage(const struct element *e, double g, double *b)
{
    switch (e->o->momentum_form) {
    case OPT_VELOCITY:
        *b = e->o->momentum * *b + e->lr * g;
        break;
    case OPT_HEAVY_BALL:
        *b = e->o->momentum * *b + g;
        break;
    default:
        *b = e->o->momentum * *b + (1 - e->o->momentum) * g;
        break;
    }
    return *b;
}

static double sgd(struct element *e)
{
    return e->g;
}

static double momentum(struct element *e)
{
    return momentum_stage(e, e->g, e->slot[0]);
}

static double nag(struct element *e)
{
    double u = momentum_stage(e, e->g, e->slot[0]);

    if (e->o->nesterov_form == OPT_CLASSICAL) {
        return u;
    }
    return e->o->momentum * u +
           (e->o->momentum_form == OPT_VELOCITY ? e->lr : 1) * e->g;
}

static double lion(struct element *e)
{
    double *m = e->slot[0];
    double blend = e->o->beta1 * *m + (1 - e->o->beta1) * e->g;

    *m = e->o->beta2 * *m + (1 - e->o->beta2) * e->g;
    return blend > 0 ? 1 : blend < 0 ? -1 : 0;
}

static double adagrad(struct element *e)
{
    *e->slot[0] += square(e->g);
    return divide(e->g, denominator(e, *e->slot[0], 1));
}

static double rmsprop(struct element *e)
{
    double rho = e->o->rho, x;
    size_t next = 1;

    *e->slot[0] = rho * *e->slot[0] + (1 - rho) * square(e->g);
    x = *e->slot[0];
    if (e->o->centered) {
        *e->slot[next] = rho * *e->slot[next] + (1 - rho) * e->g;
        x = fmax(x - square(*e->slot[next]), 0);
        next++;
    }
    double d = divide(e->g, denominator(e, x, 1));
    return e->o->momentum > 0 ? momentum_stage(e, d, e->slot[next]) : d;
}

static double adadelta(struct element *e)
{
    double rho = e->o->rho, eps = e->o->eps;

    *e->slot[0] = rho * *e->slot[0] + (1 - rho) * square(e->g);
    double u = divide(sqrt(*e->slot[1] + eps), sqrt(*e->slot[0] + eps)) * e->g;
    *e->slot[1] = rho * *e->slot[1] + (1 - rho) * square(u);
    return u;
}

static void moments(struct element *e)
{
    *e->slot[0] = e->o->beta1 * *e->slot[0] + (1 - e->o->beta1) * e->g;
    *e->slot[1] = e->o->beta2 * *e->slot[1] + (1 - e->o->beta2) * square(e->g);
}

static double correction(const struct element *e, double beta)
{
    return 1 - pow(beta, e->t);
}

static double adam(struct element *e)
{
    bool correct = e->o->bias_correction;
    double c1 = correct ? correction(e, e->o->beta1) : 1;
    double c2 = correct ? correction(e, e->o->beta2) : 1;

    moments(e);
    return divide(*e->slot[0] / c1, denominator(e, *e->slot[1], c2));
}

static double adamax(struct element *e)
{
    double m, *n = e->slot[1], eps = e->o->eps;

    *e->slot[0] = e->o->beta1 * *e->slot[0] + (1 - e->o->beta1) * e->g;
    m = *e->slot[0] / correction(e, e->o->beta1);
    *n = fmax(e->o->beta2 * *n, fabs(e->g) + (e->o->eps_mode == OPT_IN_MAX ? eps : 0));
    return divide(m, *n + (e->o->eps_mode == OPT_OUTSIDE ? eps : 0));
}

static double mu(const struct element *e, double i)
{
    return e->o->beta1 * (1 - 0.5 * pow(0.96, i * e->o->momentum_decay));
}

static double nadam(struct element *e)
{
    double beta1 = e->o->beta1, c1 = correction(e, beta1), m, n;

    moments(e);
    m = *e->slot[0];
    switch (e->o->nadam_form) {
    case OPT_SAME_STEP:
        n = (beta1 * m + (1 - beta1) * e->g) / c1;
        break;
    case OPT_NEXT_STEP:
        n = beta1 * m / (1 - pow(beta1, e->t + 1)) + (1 - beta1) * e->g / c1;
        break;
    default:
        e->mu_product_after = e->mu_product * mu(e, e->t);
        n = mu(e, e->t + 1) * m / (1 - e->mu_product_after * mu(e, e->t + 1)) +
            (1 - mu(e, e->t)) * e->g / (1 - e->mu_product_after);
        break;
    }
    return divide(n, denominator(e, *e->slot[1], correction(e, e->o->beta2)));
}

static double amsgrad(struct element *e)
{
    bool correct = e->o->bias_correction;
    double c1 = correct ? correction(e, e->o->beta1) : 1;
    double c2 = correct ? correction(e, e->o->beta2) : 1;

    moments(e);
    if (e->o->max_of == OPT_MAX_RAW) {
        *e->slot[2] = fmax(*e->slot[2], *e->slot[1]);
        return divide(*e->slot[0] / c1, denominator(e, *e->slot[2], c2));
    }
    *e->slot[2] = fmax(*e->slot[2], *e->slot[1] / c2);
    return divide(*e->slot[0] / c1, denominator(e, *e->slot[2], 1));
}

/* The length of the approximated moving average. */
static double radam_rho(const struct opt_options *o, double t)
{
    double power = pow(o->beta2, t);

    return 2 / (1 - o->beta2) - 1 - 2 * t * power / (1 - power);
}

static double radam(struct element *e)
{
    double m, limit = 2 / (1 - e->o->beta2) - 1, rho = radam_rho(e->o, e->t);

    moments(e);
    m = *e->slot[0] / correction(e, e->o->beta1);
    if (rho <= e->o->rectify_threshold) {
        return m;
    }
    double r = sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho));
    return divide(r * m, denominator(e, *e->slot[1], correction(e, e->o->beta2)));
}

static double bounded(struct element *e, double x)
{
    double k = e->o->final_lr / e->o->lr, gt = e->o->gamma * e->t;
    double eta = sqrt(correction(e, e->o->beta2)) / correction(e, e->o->beta1) /
                 (sqrt(x) + e->o->eps);

    return fmin(fmax(eta, k * (1 - 1 / (gt + 1))), k * (1 + 1 / gt)) * *e->slot[0];
}

static double adabound(struct element *e)
{
    moments(e);
    return bounded(e, *e->slot[1]);
}

static double amsbound(struct element *e)
{
    moments(e);
    *e->slot[2] = fmax(*e->slot[2], *e->slot[1]);
    return bounded(e, *e->slot[2]);
}

static const struct {
    const char *rule;
    double (*element)(struct element *e);
} twins[] = {
    { "sgd", sgd },           { "momentum", momentum }, { "nag", nag },
    { "lion", lion },         { "adagrad", adagrad },   { "rmsprop", rmsprop },
    { "adadelta", adadelta }, { "adam", adam },         { "adamax", adamax },
    { "nadam", nadam },       { "amsgrad", amsgrad },   { "radam", radam },
    { "adabound", adabound }, { "amsbound", amsbound },
};

/* ------------------------------------------------------------------ around the rule */

static double norm(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += square(x[i]);
    }
    return sqrt(sum);
}

static double trust(const struct opt_options *o, double w, double u, double extra)
{
    if (w == 0 || u == 0) {
        return 1;
    }
    double phi =
        o->layerwise_phi == OPT_PHI_CLIP ? fmin(fmax(w, o->phi_min), o->phi_max) : w;
    double r = o->trust_coefficient * phi / (u + extra + o->layerwise_eps);
    return o->trust_max > 0 ? fmin(r, o->trust_max) : r;
}

static void clip(const struct opt_options *o, double *g, size_t n)
{
    double length = norm(g, n);

    for (size_t i = 0; i < n; i++) {
        if (o->clip == OPT_CLIP_VALUE) {
            g[i] = fmin(fmax(g[i], -o->clip_max), o->clip_max);
        } else if (o->clip != OPT_CLIP_NONE && length > o->clip_max) {
            g[i] *= o->clip_max / length;
        }
    }
}

/* Slots of the rule itself, and which of them Lookahead may touch. */
static double *first_moment(const struct opt_spec *spec, double *const *slots,
                            size_t *own)
{
    const char *names[OPT_SLOTS_MAX];
    size_t count = opt_spec_slots(spec, names);
    double *found = NULL;

    *own = 0;
    for (size_t s = 0; s < count; s++) {
        if (strncmp(names[s], "slow_", strlen("slow_")) == 0) {
            continue;
        }
        if (strcmp(names[s], "momentum_buffer") == 0 ||
            strcmp(names[s], "exp_avg") == 0) {
            found = slots[s];
        }
        ++*own;
    }
    return found;
}

static void lookahead(const struct opt_spec *spec, size_t n, double *w,
                      double *const *slots)
{
    double a = spec->options.lookahead_alpha, *moment;
    size_t own;

    moment = first_moment(spec, slots, &own);
    for (size_t i = 0; i < n; i++) {
        slots[own][i] += a * (w[i] - slots[own][i]);
        w[i] = slots[own][i];
        if (moment == NULL || spec->options.lookahead_momentum == OPT_KEEP) {
            continue;
        }
        if (spec->options.lookahead_momentum == OPT_RESET) {
            moment[i] = 0;
        } else {
            slots[own + 1][i] += a * (moment[i] - slots[own + 1][i]);
            moment[i] = slots[own + 1][i];
        }
    }
}

static double (*element_of(const struct opt_spec *spec))(struct element *)
{
    for (size_t i = 0; i < sizeof twins / sizeof twins[0]; i++) {
        if (opt_rule_find(twins[i].rule) == spec->rule) {
            return twins[i].element;
        }
    }
    return NULL;
}

void twin_update(const struct opt_spec *spec, const struct opt_tensor_options *tensor,
                 uint64_t T, uint64_t t, double *mu_product, const double *gradient,
                 size_t n, double *w, double *const *slots)
{
    const struct opt_options *o = &spec->options;
    double (*element)(struct element *) = element_of(spec);
    double lr = opt_schedule_lr(o, T) * tensor->lr_scale, decay = tensor->weight_decay;
    double *g = calloc(2 * n + 1, sizeof *g), *u = g + n, ratio = 1,
           after = *mu_product;
    bool includes_lr = opt_rule_includes_lr(spec);
    bool classical = element == nag && o->nesterov_form == OPT_CLASSICAL;
    bool still = element == radam && o->rectify_fallback == OPT_FALLBACK_SKIP &&
                 radam_rho(o, (double)t) <= o->rectify_threshold;
    size_t own;

    assert(g != NULL && element != NULL);
    first_moment(spec, slots, &own);
    memcpy(g, gradient, n * sizeof *g);
    clip(o, g, n);
    double coupled = o->decay == OPT_DECAY_COUPLED ? decay : 0;
    if (tensor->layerwise && o->layerwise == OPT_LAYERWISE_GRADIENT) {
        ratio = trust(o, norm(w, n), norm(g, n), coupled * norm(w, n));
    }
    for (size_t i = 0; i < n; i++) {
        double trained = classical ? w[i] - o->momentum * slots[0][i] : w[i];
        struct element e = { .o = o,
                             .g = ratio * (g[i] + coupled * trained),
                             .w = w[i],
                             .lr = lr,
                             .t = (double)t,
                             .mu_product = *mu_product,
                             .mu_product_after = *mu_product };
        for (size_t s = 0; s < own && s < 3; s++) {
            e.slot[s] = &slots[s][i];
        }
        u[i] = element(&e);
        after = e.mu_product_after;
        if (o->decay == OPT_DECAY_UPDATE) {
            u[i] += (includes_lr ? lr : 1) * decay * w[i];
        }
    }
    *mu_product = after;
    if (tensor->layerwise && o->layerwise == OPT_LAYERWISE_UPDATE) {
        ratio = trust(o, norm(w, n), norm(u, n), 0);
    } else {
        ratio = 1;
    }
    double share = o->decay_lr == OPT_DECAY_SCHEDULE
                       ? opt_schedule_lr(o, T) / o->lr * tensor->lr_scale
                       : lr;
    for (size_t i = 0; i < n && !still; i++) {
        double s = (includes_lr ? 1 : lr) * ratio * u[i];
        w[i] -= (o->decay == OPT_DECAY_DECOUPLED ? share * decay * w[i] : 0) + s;
    }
    if (o->lookahead_k > 0 && T % (uint64_t)o->lookahead_k == 0) {
        lookahead(spec, n, w, slots);
    }
    free(g);
}
