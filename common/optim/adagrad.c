/* adagrad — rows of adagrad, rmsprop and adadelta; their elements are in adagrad.h. Any
 * thread.
 */

#include "common/optim/rules.h"

enum {
    EVERYWHERE = 1u << OPT_INSIDE_SQRT | 1u << OPT_OUTSIDE_SQRT | 1u << OPT_EPSILON_HAT
};

static void adagrad_prepare(const struct opt_options *options,
                            struct opt_tensor_update *tensor)
{
    opt_prepare_eps(options, 1.0, &tensor->scalars);
}

static double accumulator_start(const struct opt_options *options)
{
    return options->initial_accumulator;
}

const struct opt_rule opt_rule_adagrad = {
    .name = "adagrad",
    .source = "Duchi, Hazan and Singer 2011",
    .kernel = OPT_KERNEL_ADAGRAD,
    .lazy = true,
    .slots =
        (const struct opt_slot[]){
            { .name = "sum", .start = accumulator_start },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.01 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_INSIDE_SQRT, .words = EVERYWHERE },
            { "initial_accumulator", .value = 0.0 },
            { 0 },
        },
    .prepare = adagrad_prepare,
};

static bool centered(const struct opt_options *options)
{
    return options->centered;
}

static bool with_momentum(const struct opt_options *options)
{
    return options->momentum > 0.0;
}

static bool with_velocity(const struct opt_options *options)
{
    return with_momentum(options) && options->momentum_form == OPT_VELOCITY;
}

static void rmsprop_prepare(const struct opt_options *options,
                            struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;

    k->decay2 = (float)options->rho;
    k->gain2 = (float)(1.0 - options->rho);
    opt_prepare_eps(options, 1.0, k);
    if (with_momentum(options)) {
        opt_prepare_momentum(options, tensor);
        tensor->kernel = options->centered ? OPT_KERNEL_RMSPROP_CENTERED_MOMENTUM
                                           : OPT_KERNEL_RMSPROP_MOMENTUM;
    } else if (options->centered) {
        tensor->kernel = OPT_KERNEL_RMSPROP_CENTERED;
    }
}

const struct opt_rule opt_rule_rmsprop = {
    .name = "rmsprop",
    .source = "Tieleman and Hinton 2012; centered: Graves 2013",
    .kernel = OPT_KERNEL_RMSPROP,
    .lazy = true,
    .slots =
        (const struct opt_slot[]){
            { .name = "square_avg" },
            { .name = "grad_avg", .wanted = centered },
            { .name = "momentum_buffer",
              .first_moment = true,
              .wanted = with_momentum },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.001 },
            { "rho", .value = 0.9 },
            { "eps", .value = 1e-8 },
            { "eps_mode", .value = OPT_INSIDE_SQRT, .words = EVERYWHERE },
            { "centered", .value = false },
            { "momentum", .value = 0.0 },
            { "momentum_form", .value = OPT_VELOCITY, .needs = "momentum" },
            { 0 },
        },
    .prepare = rmsprop_prepare,
    .includes_lr = with_velocity,
};

static void adadelta_prepare(const struct opt_options *options,
                             struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;

    k->decay2 = (float)options->rho;
    k->gain2 = (float)(1.0 - options->rho);
    k->eps_inside = (float)options->eps;
}

const struct opt_rule opt_rule_adadelta = {
    .name = "adadelta",
    .source = "Zeiler 2012",
    .kernel = OPT_KERNEL_ADADELTA,
    .slots =
        (const struct opt_slot[]){
            { .name = "square_avg" },
            { .name = "acc_delta" },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 1.0 },
            { "rho", .value = 0.9 },
            { "eps", .value = 1e-6 },
            { 0 },
        },
    .prepare = adadelta_prepare,
};
