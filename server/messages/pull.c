/* pull — weights, or another view of a model. */
#include "server/rounds/pull.h"
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/waiting.h"
#include "server/weights/view.h"

enum { RETRY_MS = 200 }; /* for memory that others may give back */

void serve_pull(struct engine *engine, struct letter *letter)
{
    const struct opt_pull *pull = &letter->request.body.pull;
    struct model *model = registry_model(engine, letter, pull->model);
    if (model == NULL || waiting_postponed(engine, model, letter, true) ||
        view_plan_ahead(engine, model, letter, pull, false)) {
        return;
    }
    /* Planned before it waits, so that what is wrong is said at once. */
    struct opt_error error;
    enum opt_status status = view_plan(engine, model, letter, pull, false, &error);
    if (status == OPT_RESOURCE_EXHAUSTED) {
        answer_refuse_for(engine, letter, RETRY_MS, &error);
    } else if (status != OPT_OK) {
        answer_refuse(engine, letter, &error);
    } else if (pull->min_step > model->step) {
        waiting_for_step(engine, model, letter, pull->min_step);
    } else {
        pull_answer(engine, model, letter);
    }
}
