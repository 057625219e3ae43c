/* leave — out of one model's rounds; rest — out of them until the next push; goodbye —
 * out of everything. */
#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/registry.h"
#include "server/engine/waiting.h"
#include "server/engine/worker.h"
#include "server/messages/serve.h"

void serve_leave(struct engine *engine, struct letter *letter)
{
    struct model *model = engine_model(engine, letter, letter->request.body.leave);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct member *member = members_of(model, letter->peer);
    if (member != NULL) {
        lease_leave(engine, member);
    }
    if (letter->peer->worker->members != NULL) {
        lease_allow(letter->peer, letter);
    }
    engine_reply(letter, OPT_MESSAGE_LEAVE);
    engine_return(engine, letter);
}

void serve_rest(struct engine *engine, struct letter *letter)
{
    struct model *model = engine_model(engine, letter, letter->request.body.rest);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct member *member = members_of(model, letter->peer);
    if (member == NULL || !member->joined) {
        engine_fail(
            engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_JOINED,
            "worker \"%s\" has not joined model \"%s\", so no round waits for it",
            letter->peer->name, model->name);
        return;
    }
    engine_reply(letter, OPT_MESSAGE_REST);
    engine_return(engine, letter);
    lease_rest(engine, member);
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
        lease_leave(engine, member);
    }
    letter->hang_up = true;
    engine_reply(letter, OPT_MESSAGE_GOODBYE);
    engine_return(engine, letter);
}
