/* errand — see errand.h. */
#include "server/engine/errand.h"

#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"

/* Whether that was the last piece. */
static bool errand_piece(struct engine *engine, struct model *model)
{
    struct errand *errand = model->errand;
    if (!errand->go_on(engine, model, errand)) {
        return false;
    }
    model->activity = MODEL_IDLE;
    model->errand = NULL;
    errand->letter->peer->queued--;
    errand->end(engine, model, errand);
    return true;
}

void errand_begin(struct engine *engine, struct model *model, struct errand *errand)
{
    model->activity = MODEL_ON_ERRAND;
    model->errand = errand;
    errand->letter->peer->queued++; /* its end comes after the errand's */
    while (work_may_do(engine, engine->turn_cost)) {
        if (errand_piece(engine, model)) {
            work_settle(engine, model);
            return;
        }
    }
    work_go_on(engine, model);
}

void errand_go_on(struct engine *engine, struct model *model)
{
    errand_piece(engine, model);
}
