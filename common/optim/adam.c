/* adam — rows of Adam and its relatives without bounds; their elements are in adam.h.
 *
 * Powers of beta come from pow in double: a running product in fp32 would be wrong from
 * a few thousand updates on, and RAdam's rho cancels too badly for it. Any thread.
 */
#include <math.h>

#include "common/optim/rules.h"

enum {
    EVERYWHERE = 1u << OPT_INSIDE_SQRT | 1u << OPT_OUTSIDE_SQRT | 1u << OPT_EPSILON_HAT,
    ADAMAX = 1u << OPT_ZERO_SAFE | 1u << OPT_IN_MAX | 1u << OPT_OUTSIDE
};

static const struct opt_slot adam_slots[] = {
    { .name = "exp_avg", .first_moment = true },
    { .name = "exp_avg_sq" },
    { 0 },
};

/* 1 - beta^t, or 1 without bias correction. */
static double correction(const struct opt_options *options, double beta, double t)
{
    return options->bias_correction ? 1.0 - pow(beta, t) : 1.0;
}

static void adam_prepare(const struct opt_options *options,
                         struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;
    double t = (double)tensor->counters->t;

    opt_prepare_betas(options, k);
    k->from_m =
        (float)(opt_prepare_eps(options, correction(options, options->beta2, t), k) /
                correction(options, options->beta1, t));
}

const struct opt_rule opt_rule_adam = {
    .name = "adam",
    .source = "Kingma and Ba 2015, algorithm 1",
    .kernel = OPT_KERNEL_ADAM,
    .lazy = true,
    .slots = adam_slots,
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.001 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.999 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_OUTSIDE_SQRT, .words = EVERYWHERE },
            { "bias_correction", .value = true },
            { 0 },
        },
    .prepare = adam_prepare,
};

static void adamax_prepare(const struct opt_options *options,
                           struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;

    opt_prepare_betas(options, k);
    k->from_m = (float)(1.0 / (1.0 - pow(options->beta1, (double)tensor->counters->t)));
    k->eps_inside = options->eps_mode == OPT_IN_MAX ? (float)options->eps : 0.0f;
    k->eps_outside = options->eps_mode == OPT_OUTSIDE ? (float)options->eps : 0.0f;
}

const struct opt_rule opt_rule_adamax = {
    .name = "adamax",
    .source = "Kingma and Ba 2015, algorithm 2",
    .kernel = OPT_KERNEL_ADAMAX,
    .slots =
        (const struct opt_slot[]){
            { .name = "exp_avg", .first_moment = true },
            { .name = "exp_inf" },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.002 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.999 },
            { "eps", .value = 1e-8, .needs = "eps_mode",
              .needs_words = 1u << OPT_IN_MAX | 1u << OPT_OUTSIDE },
            { "eps_mode", .value = OPT_ZERO_SAFE, .words = ADAMAX },
            { 0 },
        },
    .prepare = adamax_prepare,
};

/* mu_i = beta1 (1 - 0.96^(i psi) / 2) */
static double nadam_mu(const struct opt_options *options, double i)
{
    return options->beta1 * (1.0 - 0.5 * pow(0.96, i * options->momentum_decay));
}

static void nadam_prepare(const struct opt_options *options,
                          struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;
    double beta1 = options->beta1, t = (double)tensor->counters->t;
    double c1 = 1.0 - pow(beta1, t), from_m = 0.0, from_g = (1.0 - beta1) / c1;

    opt_prepare_betas(options, k);
    switch ((enum opt_nadam_form)options->nadam_form) {
    case OPT_SAME_STEP:
        from_m = beta1 / c1;
        break;
    case OPT_NEXT_STEP:
        from_m = beta1 / (1.0 - pow(beta1, t + 1.0));
        break;
    case OPT_SCHEDULED: {
        double mu = nadam_mu(options, t), next = nadam_mu(options, t + 1.0);
        tensor->counters->mu_product *= mu;
        from_m = next / (1.0 - tensor->counters->mu_product * next);
        from_g = (1.0 - mu) / (1.0 - tensor->counters->mu_product);
        break;
    }
    }
    double root = opt_prepare_eps(options, 1.0 - pow(options->beta2, t), k);
    k->from_m = (float)(from_m * root);
    k->from_g = (float)(from_g * root);
}

const struct opt_rule opt_rule_nadam = {
    .name = "nadam",
    .source = "Dozat 2016",
    .kernel = OPT_KERNEL_NADAM,
    .slots = adam_slots,
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.002 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.999 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_OUTSIDE_SQRT, .words = EVERYWHERE },
            { "nadam_form", .value = OPT_SAME_STEP },
            { "momentum_decay", .value = 0.004 },
            { 0 },
        },
    .prepare = nadam_prepare,
};

static void amsgrad_prepare(const struct opt_options *options,
                            struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;
    double t = (double)tensor->counters->t;
    double c1 = correction(options, options->beta1, t);
    double c2 = correction(options, options->beta2, t);
    bool corrected = options->max_of == OPT_MAX_CORRECTED;

    opt_prepare_betas(options, k);
    k->from_v = corrected ? (float)(1.0 / c2) : 1.0f;
    k->from_m = (float)(opt_prepare_eps(options, corrected ? 1.0 : c2, k) / c1);
}

const struct opt_rule opt_rule_amsgrad = {
    .name = "amsgrad",
    .source = "Reddi, Kale and Kumar 2018",
    .kernel = OPT_KERNEL_AMSGRAD,
    .slots =
        (const struct opt_slot[]){
            { .name = "exp_avg", .first_moment = true },
            { .name = "exp_avg_sq" },
            { .name = "max_exp_avg_sq" },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.001 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.999 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_OUTSIDE_SQRT, .words = EVERYWHERE },
            { "bias_correction", .value = false },
            { "max_of", .value = OPT_MAX_RAW },
            { 0 },
        },
    .prepare = amsgrad_prepare,
};

/* rho_inf = 2/(1 - beta2) - 1,  rho = rho_inf - 2 t beta2^t / (1 - beta2^t)
 * r = sqrt((rho-4)(rho-2) rho_inf / ((rho_inf-4)(rho_inf-2) rho)) */
static void radam_prepare(const struct opt_options *options,
                          struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;
    double t = (double)tensor->counters->t, power = pow(options->beta2, t);
    double limit = 2.0 / (1.0 - options->beta2) - 1.0;
    double rho = limit - 2.0 * t * power / (1.0 - power);
    double c1 = 1.0 - pow(options->beta1, t);

    opt_prepare_betas(options, k);
    if (rho > options->rectify_threshold) {
        double r = sqrt((rho - 4.0) * (rho - 2.0) * limit /
                        ((limit - 4.0) * (limit - 2.0) * rho));
        k->from_v = 1.0f;
        k->from_m = (float)(r * opt_prepare_eps(options, 1.0 - power, k) / c1);
        return;
    }
    k->from_m = (float)(1.0 / c1);
    k->eps_outside = 1.0f;
    if (options->rectify_fallback == OPT_FALLBACK_SKIP) {
        k->step = 0.0f;
        k->decoupled = 0.0f;
    }
}

const struct opt_rule opt_rule_radam = {
    .name = "radam",
    .source = "Liu et al. 2020",
    .kernel = OPT_KERNEL_RADAM,
    .slots = adam_slots,
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.001 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.999 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_OUTSIDE_SQRT, .words = EVERYWHERE },
            { "rectify_threshold", .value = 4.0 },
            { "rectify_fallback", .value = OPT_FALLBACK_MOMENTUM },
            { 0 },
        },
    .prepare = radam_prepare,
};

/* k = final_lr / lr with the base rate, so that the bounds follow the schedule;
 * low = k (1 - 1/(gamma t + 1)),  high = k (1 + 1/(gamma t)) */
static void adabound_prepare(const struct opt_options *options,
                             struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;
    double t = (double)tensor->counters->t;
    double final = options->final_lr / options->lr;

    opt_prepare_betas(options, k);
    k->from_m =
        (float)(sqrt(1.0 - pow(options->beta2, t)) / (1.0 - pow(options->beta1, t)));
    k->eps_outside = (float)options->eps;
    k->low = (float)(final * (1.0 - 1.0 / (options->gamma * t + 1.0)));
    k->high = (float)(final * (1.0 + 1.0 / (options->gamma * t)));
}

static enum opt_status adabound_check(const struct opt_options *options,
                                      struct opt_error *error)
{
    if (options->lr == 0.0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "lr=0 leaves the bounds final_lr/lr undefined; give lr > 0");
    }
    return OPT_OK;
}

static const struct opt_rule_option adabound_options[] = {
    { "lr", .value = 0.001 },
    { "beta1", .value = 0.9 },
    { "beta2", .value = 0.999 },
    { "eps", .value = 1e-8 },
    { "final_lr", .value = 0.1 },
    { "gamma", .value = 1e-3 },
    { 0 },
};

const struct opt_rule opt_rule_adabound = {
    .name = "adabound",
    .source = "Luo et al. 2019, as in the authors' code",
    .kernel = OPT_KERNEL_ADABOUND,
    .slots = adam_slots,
    .options = adabound_options,
    .prepare = adabound_prepare,
    .check = adabound_check,
};

const struct opt_rule opt_rule_amsbound = {
    .name = "amsbound",
    .source = "Luo et al. 2019, as in the authors' code",
    .kernel = OPT_KERNEL_AMSBOUND,
    .slots =
        (const struct opt_slot[]){
            { .name = "exp_avg", .first_moment = true },
            { .name = "exp_avg_sq" },
            { .name = "max_exp_avg_sq" },
            { 0 },
        },
    .options = adabound_options,
    .prepare = adabound_prepare,
    .check = adabound_check,
};
