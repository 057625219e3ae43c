/* wait — until a model has had so many updates. */
#include "common/optim/update.h"
#include "server/engine/flow.h"
#include "server/engine/inside.h"
#include "server/messages/serve.h"

void serve_wait(struct engine *engine, struct letter *letter)
{
    const struct opt_wait *wait = &letter->request.body.wait;
    struct model *model = engine_model(engine, letter, wait->model);
    if (model == NULL || flow_postponed(engine, model, letter, true)) {
        return;
    }
    if (wait->step > model->step) {
        flow_wait(engine, model, letter, wait->step);
        return;
    }
    engine_reply(letter, OPT_MESSAGE_WAIT)->body.wait = (struct opt_wait_reply){
        .step = model->step,
        .epoch = opt_lookahead_epochs(&model->spec, model->step),
    };
    engine_return(engine, letter);
}
