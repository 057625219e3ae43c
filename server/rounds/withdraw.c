/* withdraw — see withdraw.h. */
#include "server/rounds/withdraw.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"
#include "server/rounds/fate.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/rounds/push_reply.h"
#include "server/rounds/queue.h"
#include "server/rounds/shard_schedule.h"

/* All shards of a push that goes before its round is over had been applied. A push is
 * told so; of a push_pull only the fate is there, and no weights. */
static void answer_applied(struct engine *engine, struct member *member,
                           struct letter *answer, const struct opt_error *error,
                           uint64_t staleness)
{
    struct model *model = member->model;
    member->applied++;
    engine->counters.pushes_applied++;
    if (answer->request.message != OPT_MESSAGE_PUSH) {
        answer_refuse(engine, answer, error);
        return;
    }
    push_reply_send(engine, model, answer,
                    (struct opt_push_reply){ .fate = OPT_FATE_APPLIED,
                                             .step = model->step + 1,
                                             .staleness = staleness,
                                             .reason = "" });
}

void withdraw_push(struct engine *engine, struct push *push, enum opt_status status,
                   enum opt_detail detail, const char *text)
{
    struct member *member = push->member;
    struct letter *answer = push->answer;
    struct opt_error error;
    opt_fail_as(&error, status, detail, "%s", text);
    fate_settle(engine, push, OPT_FATE_REFUSED, &error);
    if (member->gathering == push) {
        /* The first frame answers; the others are swallowed as they come. */
        member->gathering = NULL;
        answer = push_first_frame(push);
        push->answer = answer;
    } else {
        queue_remove(push);
        push_reply_unpin(push->model, answer);
    }
    bool applied = error.fate == OPT_FATE_APPLIED && !push->echo;
    uint64_t staleness = gradient_staleness(&push->gradient, push->model->step);
    push_recycle(engine, push);
    engine->counters.pushes_withdrawn += !applied;
    if (answer != NULL && applied) {
        answer_applied(engine, member, answer, &error, staleness);
    } else if (answer != NULL) {
        answer_refuse(engine, answer, &error);
    }
}

void withdraw_unfinished(struct engine *engine, struct member *member)
{
    struct push *push = member->gathering;
    if (push == NULL) {
        return;
    }
    if (shard_schedule_has(push)) { /* else it has left nothing, and may come again */
        struct opt_error error;
        /* Nobody waits for this: only the code is kept, with the number. */
        opt_fail_as(&error, OPT_ABORTED, OPT_DETAIL_NONE, "it was not finished");
        fate_settle(engine, push, OPT_FATE_REFUSED, &error);
    }
    member->gathering = NULL;
    push_recycle(engine, push);
}

/* The round of the push has closed without it. It is in no queue any more. */
void withdraw_late(struct engine *engine, struct push *push)
{
    struct member *member = push->member;
    struct model *model = push->model;
    struct letter *answer = push->answer;
    char reason[64];
    snprintf(reason, sizeof reason, "round %" PRIu64 " closed", push->head.basis + 1);
    fate_settle(engine, push, OPT_FATE_DROPPED, NULL);
    member->push_stats.dropped++;
    model->dropped++;
    engine->counters.pushes_dropped++;
    push_recycle(engine, push);
    push_reply_send(engine, model, answer,
                    (struct opt_push_reply){ .fate = OPT_FATE_DROPPED,
                                             .step = model->step,
                                             .reason = letter_text(answer, reason) });
}

void withdraw_round(struct engine *engine, struct model *model, enum opt_detail detail,
                    const char *why)
{
    while (model->schedule.open && model->round_count > 0) {
        withdraw_push(engine, model->round[model->round_count - 1], OPT_ABORTED, detail,
                      why);
    }
}

void withdraw_last_round(struct engine *engine, struct model *model,
                         enum opt_detail detail, const char *why)
{
    withdraw_round(engine, model, detail, why);
    model->schedule.open = false;
}

void withdraw_overdue(struct engine *engine, struct push *push)
{
    struct model *model = push->model;
    char text[OPT_ERROR_TEXT];
    if (push->member->gathering == push) {
        snprintf(text, sizeof text,
                 "the push of sequence %" PRIu64
                 " was not complete in time: its last frame has not come",
                 push->head.sequence);
    } else {
        closing_explain(model, push, text, sizeof text);
    }
    engine->counters.deadlines_exceeded++;
    withdraw_push(engine, push, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER, text);
}

static void on_push_deadline(struct engine *engine, struct alarm *alarm)
{
    struct push *push =
        (struct push *)(void *)((char *)alarm - offsetof(struct push, deadline));
    struct model *model = push->model;
    if (shard_schedule_is_using(push)) {
        push->overdue = true;
        return;
    }
    withdraw_overdue(engine, push);
    work_settle(engine, model);
}

bool withdraw_at_deadline(struct engine *engine, struct push *push,
                          const struct letter *letter)
{
    return alarm_set(&engine->alarms, &push->deadline, answer_deadline(engine, letter),
                     on_push_deadline);
}
