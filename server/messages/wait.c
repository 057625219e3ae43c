/* wait — until a model has had so many updates or Lookahead sync epochs, and they are
 * durable. */
#include "server/durable/gate.h"
#include "server/durable/saving.h"
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/members.h"
#include "server/rounds/waiting.h"

void serve_wait(struct engine *engine, struct letter *letter)
{
    const struct opt_wait *wait = &letter->request.body.wait;
    if (wait->durable && engine->durable == NULL) {
        answer_fail(
            engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_DATA_DIR,
            "what is waited for shall be durable, but this daemon keeps nothing "
            "on disk: it was started without --data-dir");
        return;
    }
    struct model *model = registry_model(engine, letter, wait->model);
    if (model == NULL || waiting_postponed(engine, model, letter, true)) {
        return;
    }
    if (wait->step > model->step) {
        waiting_for_step(engine, model, letter, wait->step);
        return;
    }
    if (wait->epoch > model_epoch(model)) {
        if (model->spec.options.lookahead_k == 0) {
            answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_UNFIT,
                        "model \"%s\" has no Lookahead, so it has no sync epochs",
                        model->name);
            return;
        }
        /* Which update ends the epoch can change until then. */
        waiting_for_step(engine, model, letter, model->step + 1);
        return;
    }
    answer_start(letter, OPT_MESSAGE_WAIT)->body.wait = (struct opt_wait_reply){
        .step = model->step,
        .epoch = model_epoch(model),
        .lost = lost_workers_tell(model, members_of(model, letter->peer), letter),
    };
    if (wait->durable) {
        if (model->durability.mode == OPT_DURABILITY_CHECKPOINT &&
            model->durability.saved_step < model->step) {
            saving_want(engine->durable, model);
        }
        gate_hold(engine->durable, model, letter);
    } else {
        answer_send(engine, letter);
    }
}
