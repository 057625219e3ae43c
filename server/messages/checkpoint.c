/* checkpoint — a model is saved because somebody asks for it. */
#include "server/durable/saving.h"
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"

void serve_checkpoint(struct engine *engine, struct letter *letter)
{
    struct model *model =
        registry_named(engine, letter, letter->request.body.checkpoint.model);
    if (model == NULL) {
        return;
    }
    if (engine->durable == NULL) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_DATA_DIR,
                    "this daemon keeps nothing on disk, so model \"%s\" cannot be "
                    "saved: start it with --data-dir DIR",
                    model->name);
        return;
    }
    if (!model->ready) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_READY,
                    "model \"%s\" is not ready: it has no weights that could be saved",
                    model->name);
        return;
    }
    saving_ask(engine, model, letter);
}
