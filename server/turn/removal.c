/* removal — see removal.h. */
#include "server/turn/removal.h"

#include <assert.h>

#include "server/engine/commit.h"
#include "server/engine/events.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/waiting.h"
#include "server/rounds/withdraw.h"
#include "server/workers/barrier.h"
#include "server/workers/membership.h"

void removal_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    const char *why)
{
    enum opt_detail detail =
        status == OPT_UNAVAILABLE ? OPT_DETAIL_STOPPING : OPT_DETAIL_MODEL_GONE;
    waiting_refuse(engine, model, status, detail, why);
    barrier_refuse(engine, model, status, detail, why);
    withdraw_last_round(engine, model, detail, why);
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (member->gathering != NULL) {
            withdraw_push(engine, member->gathering, status, detail, why);
        }
        while (member->last != NULL) {
            withdraw_push(engine, member->last, status, detail, why);
        }
    }
}

void removal_delete(struct engine *engine, struct model *model, const char *why)
{
    assert(model->activity == MODEL_IDLE);
    registry_remove(engine, model);
    model->deleted = true;
    commit_model(engine, COMMIT_GONE, model);
    model->next_dead = engine->dead;
    engine->dead = model;
    removal_refuse(engine, model, OPT_ABORTED, why);
    while (model->member_count > 0) {
        membership_forget(engine, model->members[model->member_count - 1]);
    }
    while (waiting_next(engine, model)) {
    }
}

void removal_creator_gone(struct engine *engine, const struct peer *peer)
{
    for (size_t i = engine->model_count; i-- > 0;) {
        struct model *model = engine->numbered[i];
        if (model->creator == peer) {
            event_model_deleted(model, peer, "its creator vanished");
            removal_delete(engine, model,
                           "whoever created the model vanished before its weights were "
                           "assigned; create it again");
        }
    }
}
