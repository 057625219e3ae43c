/* leave — out of one model's rounds; rest — out of them until the next push; goodbye —
 * out of everything. */
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/waiting.h"
#include "server/workers/membership.h"
#include "server/workers/worker.h"

void serve_leave(struct engine *engine, struct letter *letter)
{
    struct model *model = registry_model(engine, letter, letter->request.body.leave);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct member *member = members_of(model, letter->peer);
    if (member != NULL) {
        membership_leave(engine, member);
    }
    if (letter->peer->worker->members != NULL) {
        membership_allow(letter->peer, letter);
    }
    answer_start(letter, OPT_MESSAGE_LEAVE);
    answer_send(engine, letter);
}

void serve_rest(struct engine *engine, struct letter *letter)
{
    struct model *model = registry_model(engine, letter, letter->request.body.rest);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct member *member = members_of(model, letter->peer);
    if (member == NULL || !member->joined) {
        answer_fail(
            engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_JOINED,
            "worker \"%s\" has not joined model \"%s\", so no round waits for it",
            letter->peer->name, model->name);
        return;
    }
    answer_start(letter, OPT_MESSAGE_REST);
    answer_send(engine, letter);
    membership_rest(engine, member);
}

static struct member *joined_one(const struct worker *worker)
{
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        if (member->joined) {
            return member;
        }
    }
    return NULL;
}

void serve_goodbye(struct engine *engine, struct letter *letter)
{
    const struct worker *worker = letter->peer->worker;
    for (struct member *member;
         worker != NULL && (member = joined_one(worker)) != NULL;) {
        membership_leave(engine, member);
    }
    letter->hang_up = true;
    answer_start(letter, OPT_MESSAGE_GOODBYE);
    answer_send(engine, letter);
}
