/* settle — see settle.h. */
#include "server/turn/settle.h"

#include "server/engine/commit.h"
#include "server/engine/errand.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/outcome.h"
#include "server/rounds/pull.h"
#include "server/rounds/round.h"
#include "server/rounds/waiting.h"
#include "server/update/written.h"
#include "server/workers/barrier.h"
#include "server/workers/membership.h"

/* ---------------------------------------------------------------- updates */

/* The batch came to its end, one way or the other. */
static void end_update(struct engine *engine, struct model *model,
                       enum update_progress progress, uint32_t tensor, uint64_t element)
{
    model->activity = MODEL_IDLE;
    if (progress == UPDATE_PARTLY) {
        outcome_published(engine, model);
    } else if (progress == UPDATE_DONE) {
        model->advanced = true;
        commit_model(engine, COMMIT_STEP, model);
        written_forget(model); /* what the recorder has not taken */
        change_due(engine, model);
        outcome_applied(engine, model);
    } else {
        commit_model(engine, COMMIT_UNDONE, model);
        outcome_overflowed(engine, model, tensor, element);
    }
}

/* One piece of the update; false if it waits for readers. */
static bool update_piece(struct engine *engine, struct model *model)
{
    uint32_t tensor = 0;
    uint64_t element = 0;
    enum update_progress progress = update_run(engine, model, &tensor, &element);
    if (progress == UPDATE_SHARDS) {
        outcome_published(engine, model);
    } else if (progress != UPDATE_MORE && progress != UPDATE_STALLED) {
        end_update(engine, model, progress, tensor, element);
    }
    return progress != UPDATE_STALLED;
}

/* A batch has been started: do it at once if it is small. */
static void run_batch(struct engine *engine, struct model *model)
{
    bool at_once = work_may_do(engine, update_cost(model));
    while (model->activity == MODEL_UPDATING) {
        if (!at_once || !update_piece(engine, model)) {
            work_go_on(engine, model);
            return;
        }
    }
}

/* ---------------------------------------------------------------- models */

/* One thing that can happen to an idle model; false: nothing can. */
static bool go_on(struct engine *engine, struct model *model)
{
    if (membership_settle(engine, model)) {
        return true;
    }
    if (model->advanced) {
        waiting_wake(engine, model);
        work_settle(engine, model); /* what has waited is served first */
        return false;
    }
    if (round_try(engine, model) || barrier_try(engine, model)) {
        return true;
    }
    if (model->queue.first != NULL && !work_may_do(engine, engine->turn_cost)) {
        model->activity = MODEL_GIVING_WAY;
        work_go_on(engine, model);
        return false;
    }
    if (waiting_next(engine, model)) {
        work_settle(engine, model);
    }
    return false;
}

void settle_model(struct engine *engine, struct model *model)
{
    while (!model->deleted && !model->listed) {
        if (model->activity == MODEL_UPDATING) {
            run_batch(engine, model);
        } else if (model->activity != MODEL_IDLE || !go_on(engine, model)) {
            return;
        }
    }
}

bool settle_busy(struct engine *engine)
{
    struct model *model = work_busy(engine);
    bool moved = true;
    switch (model->activity) {
    case MODEL_ON_ERRAND:
        errand_go_on(engine, model);
        break;
    case MODEL_GIVING_WAY:
        model->activity = MODEL_IDLE;
        break;
    case MODEL_UPDATING:
        moved = update_piece(engine, model);
        break;
    default:
        moved = pull_go_on(engine, model);
        break;
    }
    if (model->activity == MODEL_IDLE) {
        work_settle(engine, model);
    } else {
        work_go_on(engine, model);
    }
    return moved;
}
