/* create — a new model, or the one that is there with the same definition. */
#include <string.h>

#include "server/engine/answer.h"
#include "server/engine/commit.h"
#include "server/engine/events.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"
#include "server/model/making.h"
#include "server/model/model.h"
#include "server/model/spec_fit.h"
#include "server/rounds/consistency.h"
#include "server/rounds/waiting.h"
#include "server/turn/removal.h"

static void end_new(struct engine *engine, struct model *model, struct letter *letter,
                    const struct made *made)
{
    const struct opt_create *create = &letter->request.body.create;
    if (made->status != OPT_OK) {
        answer_refuse(engine, letter, made->error);
        removal_delete(engine, model, "the model could not be created");
        return;
    }
    commit_model(engine, COMMIT_MODEL, model);
    if (create->assigned && !letter->peer->closed) {
        model->creator = letter->peer;
    } else if (!create->assigned) {
        model_ready(engine, model);
    }
    event_model_created(model, letter->peer);
    if (!serve_model_reply(engine, letter, model, create->join, true)) {
        removal_delete(engine, model, "the model could not be created");
    }
}

static void end_same(struct engine *engine, struct model *model, struct letter *letter,
                     const struct made *made)
{
    if (made->status != OPT_OK) {
        answer_refuse(engine, letter, made->error);
    } else if (made->difference != NULL) {
        answer_fail(engine, letter, OPT_ALREADY_EXISTS, OPT_DETAIL_OTHER_DEFINITION,
                    "model \"%.60s\" exists with another definition: %s", model->name,
                    made->difference);
    } else {
        serve_model_reply(engine, letter, model, letter->request.body.create.join,
                          false);
    }
}

/* Whether the daemon can keep a model so. */
static enum opt_status check_durability(const struct engine *engine,
                                        const struct opt_create *create,
                                        struct opt_error *error)
{
    if (engine->settings.durability != OPT_DURABILITY_DEFAULT ||
        (create->durability == OPT_DURABILITY_DEFAULT &&
         create->checkpoint_steps == 0)) {
        return OPT_OK;
    }
    return opt_fail_as(error, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_DATA_DIR,
                       "%s is given, but this daemon keeps nothing on disk: it was "
                       "started without --data-dir",
                       create->durability != OPT_DURABILITY_DEFAULT
                           ? "durability"
                           : "checkpoint_steps");
}

/* Begin with what the create asks for; model: the one of that name, or NULL. */
static enum opt_status begin(struct engine *engine, struct letter *letter,
                             struct model *model, const struct opt_spec *spec,
                             struct opt_error *error)
{
    const struct opt_create *create = &letter->request.body.create;
    enum opt_status status = consistency_check(&create->consistency, spec, error);
    if (status == OPT_OK) {
        status = check_durability(engine, create, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (model != NULL) {
        return making_compare(engine, model, letter, spec, end_same, error);
    }
    if (engine->model_count >= engine->settings.max_models) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
            "there are %zu models already, as many as the daemon may have",
            engine->model_count);
    }
    return making_begin(engine, letter, spec, end_new, error);
}

void serve_create(struct engine *engine, struct letter *letter)
{
    const struct opt_create *create = &letter->request.body.create;
    if (letter->peer->observer && (create->join || create->assigned)) {
        answer_fail(engine, letter, OPT_PERMISSION_DENIED, OPT_DETAIL_OBSERVER,
                    "an observer may not join a model or assign its weights; say hello "
                    "with a worker's name");
        return;
    }
    if (!registry_allows(engine, letter, create->model)) {
        return;
    }
    struct model *model = names_find(&engine->models, create->model);
    if (model != NULL && waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct opt_spec spec = { .rule = NULL };
    struct opt_error error;
    enum opt_status status = opt_spec_from_wire(&create->specification, &spec, &error);
    const char *text = create->specification.expression;
    work_done(engine, SPEC_READ_COST * (uint64_t)(text != NULL ? strlen(text) : 0));
    if (status == OPT_OK) {
        status = begin(engine, letter, model, &spec, &error);
    }
    if (status != OPT_OK) {
        answer_refuse(engine, letter, &error);
    }
    opt_spec_fini(&spec);
}
