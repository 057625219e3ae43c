/* profile — other libraries' optimizers, as expressions.
 *
 * PROFILE.NAME stands for what that library's optimizer does by default, so that a job
 * that moves here keeps its trajectory. Each row has golden cases that were computed
 * with that library too (tests/optim/test_profile.c); what cannot be said exactly, or
 * is not compared with anything, has no expression but a reason. Any thread.
 */
#include <string.h>
#include <strings.h>

#include "common/optim/rule.h"

static const struct opt_profile profiles[] = {
    { "torch", "torch.optim 1.13; nadam as since 2.0" },
    { "keras", "keras.optimizers 3, commit 3422977a5e" },
    { "optax", "optax, commit 2edbcbe239" },
};

#define NO_RATE "theirs has no default learning rate"
#define RATE_OF_SGD "1.13 has no default learning rate, later ones have 0.001"
#define UNCOMPARED "no golden case compares with it; "

/* clang-format off */
static const struct opt_profile_row rows[] = {
    { "torch.sgd", "SGD", "sgd(lr=0.001)", "dampening has no counterpart; " RATE_OF_SGD },
    { "torch.momentum", "SGD(momentum)", "momentum(lr=0.001, momentum_form=heavy_ball)",
      "dampening has no counterpart; " RATE_OF_SGD },
    { "torch.nag", "SGD(nesterov)", "nag(lr=0.001, momentum_form=heavy_ball, nesterov_form=reformulated)",
      RATE_OF_SGD },
    { "torch.adagrad", "Adagrad", "adagrad(eps=1e-10, eps_mode=outside_sqrt)",
      "lr_decay has no counterpart" },
    { "torch.rmsprop", "RMSprop",
      "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt, momentum_form=heavy_ball)",
      "alpha is rho here; a centered variance that rounds below 0 is 0 here" },
    { "torch.adadelta", "Adadelta", "adadelta", NULL },
    { "torch.adam", "Adam", "adam", NULL },
    { "torch.adamw", "AdamW", "adam + decay(0.01, decoupled)", NULL },
    { "torch.sparse_adam", "SparseAdam", "adam(eps_mode=epsilon_hat)", "for sparse tensors" },
    { "torch.adamax", "Adamax", "adamax(eps_mode=in_max)", NULL },
    { "torch.nadam", "NAdam", "nadam(nadam_form=scheduled)",
      "as since 2.0, where its scheduled products are right" },
    { "torch.amsgrad", "Adam(amsgrad)", "amsgrad(bias_correction=true)", NULL },
    { "torch.radam", "RAdam", "radam(eps_mode=epsilon_hat, rectify_threshold=5)", NULL },

    { "keras.sgd", "SGD", NULL,
      UNCOMPARED "plain sgd leaves nothing to choose: write sgd(lr=0.01)" },
    { "keras.momentum", "SGD(momentum)", "momentum", NULL },
    { "keras.nag", "SGD(nesterov)", "nag(nesterov_form=reformulated)", NULL },
    { "keras.adagrad", "Adagrad", "adagrad(lr=0.001, eps=1e-7, initial_accumulator=0.1)", NULL },
    { "keras.rmsprop", "RMSprop", "rmsprop(eps=1e-7)", NULL },
    { "keras.adadelta", "Adadelta", "adadelta(lr=0.001, rho=0.95, eps=1e-7)", NULL },
    { "keras.adam", "Adam", "adam(eps=1e-7, eps_mode=epsilon_hat)", NULL },
    { "keras.adamw", "AdamW", NULL,
      UNCOMPARED "its text says adam(eps=1e-7, eps_mode=epsilon_hat) + decay(0.004, decoupled)" },
    { "keras.adamax", "Adamax", "adamax(lr=0.001, eps=1e-7, eps_mode=outside)", NULL },
    { "keras.nadam", "Nadam",
      "nadam(lr=0.001, eps=1e-7, nadam_form=scheduled, momentum_decay=1)", NULL },
    { "keras.amsgrad", "Adam(amsgrad)", NULL,
      UNCOMPARED "its text says amsgrad(eps=1e-7, eps_mode=epsilon_hat, bias_correction=true)" },
    { "keras.lamb", "Lamb", "adam(eps=1e-7) + layerwise(update)", "no decay inside the direction" },

    { "optax.sgd", "sgd", "sgd", NO_RATE },
    { "optax.momentum", "sgd(momentum)", "momentum(momentum_form=heavy_ball)", NO_RATE },
    { "optax.nag", "sgd(nesterov)", "nag(momentum_form=heavy_ball, nesterov_form=reformulated)",
      NO_RATE },
    { "optax.adagrad", "adagrad", "adagrad(eps=1e-7, initial_accumulator=0.1)", NO_RATE },
    { "optax.rmsprop", "rmsprop", "rmsprop",
      "eps_in_sqrt=False is eps_mode=outside_sqrt here; " NO_RATE },
    { "optax.adadelta", "adadelta", "adadelta", NO_RATE },
    { "optax.adam", "adam", "adam", "eps_root is eps with eps_mode=inside_sqrt here; " NO_RATE },
    { "optax.adamw", "adamw", "adam + decay(0.0001, decoupled)", NO_RATE },
    { "optax.adamax", "adamax", "adamax(eps_mode=in_max)", NO_RATE },
    { "optax.nadam", "nadam", "nadam(nadam_form=next_step)", NO_RATE },
    { "optax.amsgrad", "amsgrad", "amsgrad(bias_correction=true, max_of=corrected)", NO_RATE },
    { "optax.radam", "radam", "radam(rectify_threshold=5)", NO_RATE },
    { "optax.lamb", "lamb", "adam(eps=1e-6) + decay(0, update) + layerwise(update)", NO_RATE },
    { "optax.lars", "lars", NULL,
      "it multiplies with the learning rate before the momentum, which has no counterpart "
      "for layerwise=update; see lars and lars2017" },
};
/* clang-format on */

/* Arguments of theirs. row: whose, or a whole profile's if it has no dot; the first
 * that fits is told. */
/* clang-format off */
static const struct argument {
    const char *row, *name, *here;
} arguments[] = {
    { "torch.sgd", "momentum", "torch.momentum(momentum=...) is SGD with momentum" },
    { "torch.sgd", "nesterov", "torch.nag(momentum=...) is SGD with nesterov" },
    { "torch.momentum", "nesterov", "torch.nag(momentum=...) is SGD with nesterov" },
    { "torch", "dampening", "dampening has no counterpart here" },
    { "torch.adam", "amsgrad", "torch.amsgrad is Adam with amsgrad" },
    { "torch.adamw", "amsgrad",
      "torch.amsgrad + decay(0.01, decoupled) is AdamW with amsgrad" },
    { "torch.nadam", "decoupled_weight_decay",
      "+ decay(..., decoupled) is NAdam with decoupled_weight_decay" },
    { "torch.radam", "decoupled_weight_decay",
      "+ decay(..., decoupled) is RAdam with decoupled_weight_decay" },
    { "torch", "betas", "the pair betas=(a, b) is beta1=a, beta2=b here" },
    { "torch", "alpha", "alpha is rho here" },
    { "torch", "lr_decay", "lr_decay has no counterpart here; schedules are terms, such as "
                           "+ exponential(1000, gamma=0.9)" },
    { "torch", "initial_accumulator_value", "it is initial_accumulator here" },
    { "torch", "maximize", "maximize has no counterpart here: push the negative gradient" },
    { "torch", "foreach", "how a step is computed is optimd's own business: leave it out" },
    { "torch", "fused", "how a step is computed is optimd's own business: leave it out" },
    { "torch", "capturable", "how a step is computed is optimd's own business: leave it out" },
    { "torch", "differentiable", "how a step is computed is optimd's own business: leave it out" },
    { "keras.sgd", "momentum", "keras.momentum(momentum=...) is SGD with momentum" },
    { "keras.sgd", "nesterov", "keras.nag(momentum=...) is SGD with nesterov" },
    { "keras.momentum", "nesterov", "keras.nag(momentum=...) is SGD with nesterov" },
    { "keras", "amsgrad", "amsgrad(eps=1e-7, eps_mode=epsilon_hat, bias_correction=true) is "
                          "Adam with amsgrad" },
    { "keras", "learning_rate", "learning_rate is lr here" },
    { "keras", "beta_1", "beta_1 is beta1 here" },
    { "keras", "beta_2", "beta_2 is beta2 here" },
    { "keras", "epsilon", "epsilon is eps here" },
    { "keras", "initial_accumulator_value", "it is initial_accumulator here" },
    { "keras", "clipnorm", "it is a term here: + clip(tensor_norm, ...)" },
    { "keras", "global_clipnorm", "it is a term here: + clip(global_norm, ...)" },
    { "keras", "clipvalue", "it is a term here: + clip(value, ...)" },
    { "optax.sgd", "momentum", "optax.momentum(momentum=...) is sgd with momentum" },
    { "optax.sgd", "nesterov", "optax.nag(momentum=...) is sgd with nesterov" },
    { "optax.momentum", "nesterov", "optax.nag(momentum=...) is sgd with nesterov" },
    { "optax.adam", "nesterov", "optax.nadam is adam with nesterov" },
    { "optax", "learning_rate", "learning_rate is lr here" },
    { "optax", "decay", "decay is rho here" },
    { "optax", "b1", "b1 is beta1 here" },
    { "optax", "b2", "b2 is beta2 here" },
    { "optax", "eps_root", "eps_root is eps with eps_mode=inside_sqrt here" },
    { "optax", "initial_accumulator_value", "it is initial_accumulator here" },
};
/* clang-format on */

const struct opt_profile *opt_profiles(size_t *count)
{
    *count = sizeof profiles / sizeof profiles[0];
    return profiles;
}

const struct opt_profile_row *opt_profile_rows(size_t *count)
{
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

const struct opt_profile_row *opt_profile_row_find(const char *name)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

bool opt_profile_row_of(const struct opt_profile_row *row, const char *profile)
{
    size_t size = strlen(profile);

    return strncmp(row->name, profile, size) == 0 && row->name[size] == '.';
}

const char *opt_profile_argument(const struct opt_profile_row *row, const char *name)
{
    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++) {
        const struct argument *argument = &arguments[i];
        bool of_row = strcmp(argument->row, row->name) == 0 ||
                      (strchr(argument->row, '.') == NULL &&
                       opt_profile_row_of(row, argument->row));
        if (of_row && strcmp(argument->name, name) == 0) {
            return argument->here;
        }
    }
    return NULL;
}

/* Whether what stands behind the last dot is what the row, or its library, calls it. */
static bool is_called(const struct opt_profile_row *row, const char *last)
{
    size_t size = strcspn(row->theirs, "(");

    return strcasecmp(strchr(row->name, '.') + 1, last) == 0 ||
           (row->theirs[size] == '\0' && strcasecmp(row->theirs, last) == 0);
}

const char *opt_profile_meant(const char *name)
{
    const char *last = strrchr(name, '.');
    size_t profile = strcspn(name, ".");

    for (size_t i = 0; last != NULL && i < sizeof rows / sizeof rows[0]; i++) {
        if (strncasecmp(rows[i].name, name, profile) == 0 &&
            rows[i].name[profile] == '.' && is_called(&rows[i], last + 1)) {
            return rows[i].name;
        }
    }
    return NULL;
}
