/* push — a frame of a gradient, with or without a pull of what it makes. */
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/rounds/frames.h"
#include "server/rounds/waiting.h"
#include "server/weights/view.h"

void serve_push(struct engine *engine, struct letter *letter)
{
    const struct opt_push *push = &letter->request.body.push;
    struct model *model = registry_model(engine, letter, push->model);
    if (model != NULL && !waiting_postponed(engine, model, letter, true)) {
        frames_take(engine, model, letter, push, NULL);
    }
}

void serve_push_pull(struct engine *engine, struct letter *letter)
{
    const struct opt_push_pull *both = &letter->request.body.push_pull;
    struct model *model = registry_model(engine, letter, both->push.model);
    const struct opt_pull *pull = both->has_pull ? &both->pull : NULL;
    if (model == NULL || waiting_postponed(engine, model, letter, true) ||
        (pull != NULL && both->push.last &&
         view_plan_ahead(engine, model, letter, pull, true))) {
        return;
    }
    frames_take(engine, model, letter, &both->push, pull);
}
