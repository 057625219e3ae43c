/* barrier — wait until all workers of a model have come. */
#include "server/engine/barrier.h"

#include "server/engine/inside.h"
#include "server/engine/registry.h"
#include "server/engine/waiting.h"
#include "server/messages/serve.h"

void serve_barrier(struct engine *engine, struct letter *letter)
{
    struct model *model =
        engine_model(engine, letter, letter->request.body.barrier.model);
    if (model != NULL && !waiting_postponed(engine, model, letter, true)) {
        barrier_arrive(engine, model, letter);
    }
}
