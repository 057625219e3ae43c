/* outcome — see outcome.h. */
#include "server/rounds/outcome.h"

#include <inttypes.h>

#include "server/engine/answer.h"
#include "server/engine/events.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"
#include "server/rounds/fate.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/rounds/push_reply.h"
#include "server/rounds/queue.h"
#include "server/rounds/shard_schedule.h"
#include "server/rounds/withdraw.h"

/* Answer all pushes of the round with the same fate; they have taken effect. */
static void resolve(struct engine *engine, struct model *model, enum opt_fate fate)
{
    size_t count = model->round_count;
    model->round_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct push *push = model->round[i];
        struct member *member = push->member;
        struct letter *answer = push->answer;
        struct opt_push_reply reply = { .fate = fate,
                                        .step = model->step,
                                        .reason = "" };
        member->clock++;
        if (fate == OPT_FATE_APPLIED) {
            member->last_step = model->step;
        }
        fate_settle(engine, push, fate, NULL);
        if (fate == OPT_FATE_APPLIED) {
            reply.staleness = gradient_staleness(&push->gradient, model->step - 1);
            member->push_stats.staleness[push_stats_bucket(reply.staleness)]++;
            model->staleness_sum += (double)reply.staleness;
            model->pushes_applied++;
            member->applied++;
            engine->counters.pushes_applied++;
        } else {
            reply.reason = "a gradient of its round is not finite";
            engine->counters.pushes_skipped++;
        }
        shard_schedule_subtract(engine, push, answer);
        push_recycle(engine, push);
        push_reply_send(engine, model, answer, reply);
    }
}

/* What waits for a round that has closed. */
static void drop_late(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->member_count; i++) {
        struct push *next;
        for (struct push *push = model->members[i]->first; push != NULL; push = next) {
            next = push->next;
            if (closing_too_late(model, push)) {
                queue_remove(push);
                withdraw_late(engine, push);
            }
        }
    }
}

void outcome_published(struct engine *engine, struct model *model)
{
    shard_schedule_send(engine, model);
    for (size_t i = 0; i < model->round_count; i++) {
        push_release(engine, model->round[i]);
    }
}

void outcome_applied(struct engine *engine, struct model *model)
{
    resolve(engine, model, OPT_FATE_APPLIED);
    drop_late(engine, model);
}

void outcome_skipped(struct engine *engine, struct model *model)
{
    event_round_failed(model, "a gradient is not finite, so it was skipped");
    model->rounds_skipped++;
    engine->counters.rounds_skipped++;
    resolve(engine, model, OPT_FATE_SKIPPED);
}

void outcome_overflowed(struct engine *engine, struct model *model, uint32_t tensor,
                        uint64_t element)
{
    if (model->spec.options.nonfinite == OPT_SKIP) {
        outcome_skipped(engine, model);
        return;
    }
    size_t count = model->round_count;
    model->round_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct push *push = model->round[i];
        struct letter *answer = push->answer;
        push->member->refused++;
        engine->counters.pushes_refused++;
        struct opt_error error;
        opt_fail_as(&error, OPT_INVALID_ARGUMENT, OPT_DETAIL_NOT_FINITE,
                    "the sum of the %zu gradients of this round is not finite at "
                    "element %" PRIu64 " of tensor \"%s\"",
                    count, element, model->tensors[tensor].name);
        fate_settle(engine, push, OPT_FATE_REFUSED, &error);
        push_reply_unpin(model, answer);
        push_recycle(engine, push);
        answer_refuse(engine, answer, &error);
    }
}
