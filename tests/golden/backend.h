/* backend — whoever does the updates that the golden runner judges. */
#ifndef OPTIMD_TESTS_GOLDEN_BACKEND_H
#define OPTIMD_TESTS_GOLDEN_BACKEND_H

#include "common/optim/spec.h"
#include "common/status.h"
#include "common/wire.h"
#include "tests/support/golden_cases.h"

/* What one worker pushes for one update: a gradient for each tensor of the model. */
struct golden_push {
    const float *const *gradients;
    const uint32_t
        *rows; /* of the only tensor, if it is sparse; its gradient is theirs */
    size_t row_count;
    uint64_t samples;
    enum opt_form form;
};

struct golden_backend {
    /* Make a model of these tensors, with their initial values (NULL: zeros). */
    enum opt_status (*open)(const struct opt_spec *spec,
                            const struct golden_tensor *tensors, size_t count,
                            void **model, struct opt_error *error);
    /* One update from the pushes of all workers, in ascending worker. */
    enum opt_status (*update)(void *model, const struct golden_push *pushes,
                              size_t workers, struct opt_error *error);
    /* A view of one tensor, or for OPT_VIEW_SLOT the slot of that name. */
    enum opt_status (*read)(void *model, enum opt_view view, const char *slot,
                            size_t tensor, float *out, struct opt_error *error);
    void (*close)(void *model);
};

/* In this process, through opt_update_serial. */
extern const struct golden_backend golden_in_process;

#endif
