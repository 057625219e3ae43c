/* push_reply — see push_reply.h. */
#include "server/rounds/push_reply.h"

#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/members.h"
#include "server/rounds/pull.h"
#include "server/weights/view.h"

void push_reply_unpin(struct model *model, const struct letter *answer)
{
    if (answer != NULL && answer->request.message == OPT_MESSAGE_PUSH_PULL &&
        answer->request.body.push_pull.has_pull) {
        view_unpin(model, &answer->request.body.push_pull.pull);
    }
}

void push_reply_send(struct engine *engine, struct model *model, struct letter *letter,
                     struct opt_push_reply fate)
{
    fate.epoch = model_epoch(model);
    fate.lost = lost_workers_tell(model, members_of(model, letter->peer), letter);
    if (letter->request.message == OPT_MESSAGE_PUSH) {
        answer_start(letter, OPT_MESSAGE_PUSH)->body.push = fate;
        answer_send(engine, letter);
        return;
    }
    struct opt_reply *reply = answer_start(letter, OPT_MESSAGE_PUSH_PULL);
    reply->body.push_pull.has_push = true;
    reply->body.push_pull.push = fate;
    pull_answer(engine, model, letter);
}
