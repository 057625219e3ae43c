/* push — a frame of a gradient, with or without a pull of what it makes. */
#include "server/engine/frames.h"
#include "server/engine/inside.h"
#include "server/engine/registry.h"
#include "server/engine/waiting.h"
#include "server/messages/serve.h"

void serve_push(struct engine *engine, struct letter *letter)
{
    const struct opt_push *push = &letter->request.body.push;
    struct model *model = engine_model(engine, letter, push->model);
    if (model != NULL && !waiting_postponed(engine, model, letter, true)) {
        frames_take(engine, model, letter, push, NULL);
    }
}

void serve_push_pull(struct engine *engine, struct letter *letter)
{
    const struct opt_push_pull *both = &letter->request.body.push_pull;
    struct model *model = engine_model(engine, letter, both->push.model);
    if (model != NULL && !waiting_postponed(engine, model, letter, true)) {
        frames_take(engine, model, letter, &both->push,
                    both->has_pull ? &both->pull : NULL);
    }
}
