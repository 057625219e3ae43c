/* profile — other libraries' optimizers, as expressions.
 *
 * PROFILE.NAME stands for what that library's optimizer does by default, so that a job
 * that moves here keeps its trajectory. Each row has golden cases that were computed
 * with that library too (tests/test_profile.c); what cannot be said exactly, or is not
 * compared with anything, has no expression but a reason. Any thread.
 */
#include <string.h>

#include "common/optim/rule.h"

static const struct opt_profile profiles[] = {
    { "torch", "torch.optim 1.13" },
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
