/* delete — a model and its state go. */
#include "server/engine/answer.h"
#include "server/engine/events.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/waiting.h"
#include "server/turn/removal.h"
#include "server/workers/worker.h"

/* Somebody else who is working with the model, or NULL. */
static const char *other_worker(const struct model *model, const struct peer *peer)
{
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        if (member->joined && !member->away && member->worker != peer->worker) {
            return member->worker->name;
        }
    }
    return NULL;
}

void serve_delete(struct engine *engine, struct letter *letter)
{
    struct model *model = registry_named(engine, letter, letter->request.body.delete_);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    const char *other = other_worker(model, letter->peer);
    if (other != NULL) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_IN_USE,
                    "model \"%s\" has other workers, such as \"%s\"; they must leave "
                    "before it can be deleted",
                    model->name, other);
        return;
    }
    if (model->creator != NULL && model->creator != letter->peer) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_IN_USE,
                    "model \"%s\" is being created by another connection", model->name);
        return;
    }
    event_model_deleted(model, letter->peer, "asked for");
    model->deleting = letter; /* answered when its memory is free */
    letter->peer->queued++;
    removal_delete(engine, model, "the model was deleted");
}
