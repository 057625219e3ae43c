/* delay_compensation — see delay_compensation.h. */
#include "server/update/delay_compensation.h"

#include "common/optim/compensate.h"
#include "server/base/team.h"
#include "server/model/model.h"
#include "server/update/gradient.h"
#include "server/weights/last_pull.h"

void delay_compensation_run(const struct model *model, const struct work *work,
                            const struct opt_block_memory *memory, struct seat *seat)
{
    double lambda = model->consistency.delay_compensation;
    if (lambda == 0 || memory->contribution_count == 0) {
        return;
    }
    const struct gradient *of = model->update.gradients[0]; /* such updates have one */
    const struct tensor *tensor = &model->tensors[work->tensor];
    const float *then =
        of->basis == model->step || of->last_pull == NULL
            ? NULL
            : last_pull_of(of->last_pull, tensor->first_block + work->block,
                           tensor->at + (size_t)work->block * OPT_BLOCK, of->basis);
    if (then == NULL) {
        return;
    }
    struct opt_contribution *gradient = &seat->contributions[0];
    bool clean = gradient->shared && model->spec.options.nonfinite != OPT_PROPAGATE;
    opt_compensate(gradient->dtype, clean, gradient->values, (float)lambda, memory->w,
                   then, seat->compensated, memory->n);
    gradient->values = seat->compensated;
    gradient->dtype = OPT_FP32;
}
