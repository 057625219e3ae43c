/* barrier — wait until all workers of a model have come. */
#include "server/workers/barrier.h"

#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/rounds/waiting.h"

void serve_barrier(struct engine *engine, struct letter *letter)
{
    struct model *model =
        registry_model(engine, letter, letter->request.body.barrier.model);
    if (model != NULL && !waiting_postponed(engine, model, letter, true)) {
        barrier_arrive(engine, model, letter);
    }
}
