/* pull — weights, or another view of a model. */
#include "server/engine/pull.h"
#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/registry.h"
#include "server/engine/view.h"
#include "server/engine/waiting.h"
#include "server/messages/serve.h"

enum { RETRY_MS = 200 }; /* for memory that others may give back */

void serve_pull(struct engine *engine, struct letter *letter)
{
    const struct opt_pull *pull = &letter->request.body.pull;
    struct model *model = engine_model(engine, letter, pull->model);
    if (model == NULL || waiting_postponed(engine, model, letter, true) ||
        view_plan_ahead(engine, model, letter, pull)) {
        return;
    }
    /* Planned before it waits, so that what is wrong is said at once. */
    struct opt_error error;
    enum opt_status status = view_plan(engine, model, letter, pull, false, &error);
    if (status == OPT_RESOURCE_EXHAUSTED) {
        engine_refuse_for(engine, letter, RETRY_MS, &error);
    } else if (status != OPT_OK) {
        engine_refuse(engine, letter, &error);
    } else if (pull->min_step > model->step) {
        waiting_for_step(engine, model, letter, pull->min_step);
    } else {
        pull_answer(engine, model, letter);
    }
}
