/* momentum — rows of sgd, momentum, nag and lion; their elements are in momentum.h.
 *
 * In the velocity form the buffer holds complete steps, learning rate included, so that
 * a change of the rate leaves old steps at their old size. Any thread.
 */

#include "common/optim/rules.h"

static const struct opt_slot no_slots[] = { { 0 } };
static const struct opt_slot momentum_slots[] = {
    { .name = "momentum_buffer", .first_moment = true },
    { 0 },
};

static void sgd_prepare(const struct opt_options *options,
                        struct opt_tensor_update *tensor)
{
    (void)options, (void)tensor;
}

const struct opt_rule opt_rule_sgd = {
    .name = "sgd",
    .source = "Robbins and Monro 1951",
    .kernel = OPT_KERNEL_SGD,
    .lazy = true,
    .slots = no_slots,
    .options = (const struct opt_rule_option[]){ { "lr", .value = 0.01 }, { 0 } },
    .prepare = sgd_prepare,
};

static bool velocity(const struct opt_options *options)
{
    return options->momentum_form == OPT_VELOCITY;
}

const struct opt_rule opt_rule_momentum = {
    .name = "momentum",
    .source = "Polyak 1964",
    .kernel = OPT_KERNEL_MOMENTUM,
    .lazy = true,
    .slots = momentum_slots,
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.01 },
            { "momentum", .value = 0.9 },
            { "momentum_form", .value = OPT_VELOCITY },
            { 0 },
        },
    .prepare = opt_prepare_momentum,
    .includes_lr = velocity,
};

static void nag_prepare(const struct opt_options *options,
                        struct opt_tensor_update *tensor)
{
    struct opt_scalars *k = &tensor->scalars;

    opt_prepare_momentum(options, tensor);
    if (options->nesterov_form == OPT_CLASSICAL) {
        k->ahead = (float)((double)k->coupled * options->momentum);
        k->from_m = 1.0f;
    } else {
        k->from_m = (float)options->momentum;
        k->from_g = k->gain1;
    }
}

static enum opt_status nag_check(const struct opt_options *options,
                                 struct opt_error *error)
{
    if (options->nesterov_form == OPT_CLASSICAL && !velocity(options)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "nesterov_form=classical has momentum_form=velocity only; for "
                        "heavy_ball give nesterov_form=reformulated");
    }
    return OPT_OK;
}

static double nag_look_ahead(const struct opt_options *options)
{
    return options->nesterov_form == OPT_CLASSICAL ? options->momentum : 0.0;
}

const struct opt_rule opt_rule_nag = {
    .name = "nag",
    .source = "Nesterov 1983; Sutskever et al. 2013",
    .kernel = OPT_KERNEL_NAG,
    .slots = momentum_slots,
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.01 },
            { "momentum", .value = 0.9 },
            { "momentum_form", .value = OPT_VELOCITY,
              .words = 1u << OPT_VELOCITY | 1u << OPT_HEAVY_BALL },
            { "nesterov_form", .value = OPT_CLASSICAL },
            { 0 },
        },
    .prepare = nag_prepare,
    .includes_lr = velocity,
    .check = nag_check,
    .look_ahead = nag_look_ahead,
};

static void lion_prepare(const struct opt_options *options,
                         struct opt_tensor_update *tensor)
{
    opt_prepare_betas(options, &tensor->scalars);
}

const struct opt_rule opt_rule_lion = {
    .name = "lion",
    .source = "Chen et al. 2023, algorithm 2",
    .kernel = OPT_KERNEL_LION,
    .slots =
        (const struct opt_slot[]){
            { .name = "exp_avg", .first_moment = true },
            { 0 },
        },
    .options =
        (const struct opt_rule_option[]){
            { "lr", .value = 0.0001 },
            { "beta1", .value = 0.9 },
            { "beta2", .value = 0.99 },
            { 0 },
        },
    .prepare = lion_prepare,
};
