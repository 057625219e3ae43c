/* delay — see delay.h. */
#include "server/engine/delay.h"

#include "common/optim/compensate.h"
#include "server/engine/gradient.h"
#include "server/engine/model.h"
#include "server/engine/recall.h"
#include "server/engine/team.h"

void delay_compensate(const struct model *model, const struct work *work,
                      const struct opt_block_memory *memory, struct seat *seat)
{
    double lambda = model->consistency.delay_compensation;
    if (lambda == 0 || memory->contribution_count == 0) {
        return;
    }
    const struct gradient *of = model->update.gradients[0]; /* such updates have one */
    const struct tensor *tensor = &model->tensors[work->tensor];
    const float *then =
        of->basis == model->step || of->recall == NULL
            ? NULL
            : recall_of(of->recall, tensor->first_block + work->block,
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
