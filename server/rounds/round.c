/* round — see round.h. */
#include "server/rounds/round.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "server/engine/answer.h"
#include "server/engine/events.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"
#include "server/rounds/fate.h"
#include "server/rounds/frames.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/members.h"
#include "server/rounds/pull.h"
#include "server/rounds/push.h"
#include "server/rounds/shard_schedule.h"
#include "server/weights/view.h"

/* ---------------------------------------------------------------- answers */

void round_unpin(struct model *model, const struct letter *answer)
{
    if (answer != NULL && answer->request.message == OPT_MESSAGE_PUSH_PULL &&
        answer->request.body.push_pull.has_pull) {
        view_unpin(model, &answer->request.body.push_pull.pull);
    }
}

void round_answer(struct engine *engine, struct model *model, struct letter *letter,
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

/* ---------------------------------------------------------------- the queue */

static void enqueue(struct member *member, struct push *push, uint64_t now_ns)
{
    push->next = NULL;
    push->complete_ns = now_ns;
    if (member->last == NULL) {
        member->first = push;
        member->model->present++;
        member->model->missing -= member->joined && !member->resting;
    } else {
        member->last->next = push;
    }
    member->last = push;
    member->waiting++;
}

static void unqueue(struct push *push)
{
    struct member *member = push->member;
    struct push *before = NULL;
    for (struct push *at = member->first; at != push; at = at->next) {
        before = at;
    }
    if (before == NULL) {
        member->first = push->next;
    } else {
        before->next = push->next;
    }
    if (member->last == push) {
        member->last = before;
    }
    member->waiting--;
    if (member->first == NULL) {
        member->model->present--;
        member->model->missing += member->joined && !member->resting;
    }
}

void round_recount(struct model *model)
{
    model->joined = 0;
    model->active = 0;
    model->missing = 0;
    model->present = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        bool active = member->joined && !member->resting;
        model->joined += member->joined;
        model->active += active;
        model->missing += active && member->first == NULL;
        model->present += member->first != NULL;
    }
    model->schedule.changed = true;
    if (model->joined == 0) {
        model->gathered = false;
    } else if (model->joined >= model->consistency.min_workers) {
        model->gathered = true;
    }
}

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
    round_answer(engine, model, answer,
                 (struct opt_push_reply){ .fate = OPT_FATE_APPLIED,
                                          .step = model->step + 1,
                                          .staleness = staleness,
                                          .reason = "" });
}

void round_withdraw(struct engine *engine, struct push *push, enum opt_status status,
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
        unqueue(push);
        round_unpin(push->model, answer);
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

void round_drop(struct engine *engine, struct member *member)
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

void round_fail(struct engine *engine, struct model *model, enum opt_detail detail,
                const char *why)
{
    while (model->schedule.open && model->round_count > 0) {
        round_withdraw(engine, model->round[model->round_count - 1], OPT_ABORTED,
                       detail, why);
    }
}

void round_close(struct engine *engine, struct model *model, enum opt_detail detail,
                 const char *why)
{
    round_fail(engine, model, detail, why);
    model->schedule.open = false;
}

void round_expire(struct engine *engine, struct push *push)
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
    round_withdraw(engine, push, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER, text);
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
    round_expire(engine, push);
    work_settle(engine, model);
}

bool round_limit(struct engine *engine, struct push *push, const struct letter *letter)
{
    return alarm_set(&engine->alarms, &push->deadline, answer_deadline(engine, letter),
                     on_push_deadline);
}

/* ---------------------------------------------------------------- too late */

/* The round of the push has closed without it. It is in no queue any more. */
static void drop(struct engine *engine, struct push *push)
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
    round_answer(engine, model, answer,
                 (struct opt_push_reply){ .fate = OPT_FATE_DROPPED,
                                          .step = model->step,
                                          .reason = letter_text(answer, reason) });
}

/* What waits for a round that has closed. */
static void drop_late(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->member_count; i++) {
        struct push *next;
        for (struct push *push = model->members[i]->first; push != NULL; push = next) {
            next = push->next;
            if (closing_too_late(model, push)) {
                unqueue(push);
                drop(engine, push);
            }
        }
    }
}

void round_add(struct engine *engine, struct push *push, struct letter *letter)
{
    struct model *model = push->model;
    push->answer = letter;
    if (closing_too_late(model, push)) {
        drop(engine, push);
        return;
    }
    push->answer_is_frame = true;
    enqueue(push->member, push, engine->now_ns);
    work_settle(engine, model);
}

/* ---------------------------------------------------------------- closing */

/* Take the push at the head of the member's queue into the round. */
static void take(struct engine *engine, struct model *model, struct member *member)
{
    struct push *push = member->first;
    unqueue(push);
    alarm_cancel(&engine->alarms, &push->deadline);
    model->round[model->round_count++] = push;
}

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
        shard_schedule_subtract(push, answer);
        push_recycle(engine, push);
        round_answer(engine, model, answer, reply);
    }
}

void round_published(struct engine *engine, struct model *model)
{
    shard_schedule_send(engine, model);
    for (size_t i = 0; i < model->round_count; i++) {
        push_release(engine, model->round[i]);
    }
}

void round_applied(struct engine *engine, struct model *model)
{
    resolve(engine, model, OPT_FATE_APPLIED);
    drop_late(engine, model);
}

static void skip(struct engine *engine, struct model *model)
{
    event_round_failed(model, "a gradient is not finite, so it was skipped");
    model->rounds_skipped++;
    engine->counters.rounds_skipped++;
    resolve(engine, model, OPT_FATE_SKIPPED);
}

void round_overflowed(struct engine *engine, struct model *model, uint32_t tensor,
                      uint64_t element)
{
    if (model->spec.options.nonfinite == OPT_SKIP) {
        skip(engine, model);
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
        round_unpin(model, answer);
        push_recycle(engine, push);
        answer_refuse(engine, answer, &error);
    }
}

/* Others waited for the push that closes the round, if it is the one that came just
 * now: since the last of theirs, or in bounded mode, where it is a round of its own,
 * since the first of those that it lets go on. */
static void count_waiting(const struct engine *engine, struct model *model)
{
    const struct push *last = model->round[0];
    uint64_t before_ns = 0;
    for (size_t i = 1; i < model->round_count; i++) {
        const struct push *push = model->round[i];
        bool later = push->complete_ns > last->complete_ns;
        uint64_t earlier_ns = later ? last->complete_ns : push->complete_ns;
        before_ns = earlier_ns > before_ns ? earlier_ns : before_ns;
        last = later ? push : last;
    }
    for (size_t i = 0;
         model->consistency.mode == OPT_BOUNDED && i < model->member_count; i++) {
        const struct push *waits = model->members[i]->first;
        if (waits != NULL && (before_ns == 0 || waits->complete_ns < before_ns)) {
            before_ns = waits->complete_ns;
        }
    }
    if (before_ns > 0 && last->complete_ns == engine->now_ns &&
        before_ns < last->complete_ns) {
        push_stats_waited(&last->member->push_stats, before_ns, engine->now_ns);
    }
}

/* The round is that of the pushes in it, which still are in their workers' queues, all
 * complete: take them out of there. */
static void take_all(struct engine *engine, struct model *model)
{
    size_t count = model->round_count;
    model->round_count = 0;
    for (size_t i = 0; i < count; i++) {
        take(engine, model, model->round[i]->member);
    }
    if (count > 0) {
        count_waiting(engine, model);
    }
}

static void close_round(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->round_count; i++) {
        if (model->round[i]->skip) {
            skip(engine, model);
            return;
        }
    }
    for (size_t i = 0; i < model->round_count; i++) {
        struct push *push = model->round[i];
        const struct opt_request *request = &push->answer->request;
        bool pulls = request->message == OPT_MESSAGE_PUSH_PULL &&
                     request->body.push_pull.has_pull;
        /* All frames are here: what the last of them says is what will be pulled. */
        shard_schedule_wish(push, pulls ? &request->body.push_pull.pull : NULL);
        engine->counters.round_ns += uv_hrtime() - push->complete_ns;
    }
    shard_schedule_whole(engine, model);
    model->activity = MODEL_UPDATING;
}

/* Take what is due into the round. Members stand in ascending order of their names, and
 * pushes in their queues in that of their sequences, so the round does. */
static void gather(struct engine *engine, struct model *model, enum closing closing,
                   struct member *one)
{
    if (closing == CLOSING_ONE) {
        take(engine, model, one);
        return;
    }
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        size_t due = closing == CLOSING_ALL ? member->waiting : member->first != NULL;
        for (size_t k = 0; k < due; k++) {
            take(engine, model, member);
        }
    }
}

/* Those that came to their end while a batch was reading them. */
static void expire(struct engine *engine, struct model *model)
{
    for (size_t i = model->round_count; i-- > 0;) {
        struct push *push = model->round[i];
        if (push->over) {
            round_drop(engine, push->member);
        } else if (push->overdue) {
            round_expire(engine, push);
        }
    }
}

/* Begin with shards of a round that is applied shard by shard, if any are ready. */
static bool go_on(struct engine *engine, struct model *model)
{
    enum shards_begun begun = shard_schedule_next(engine, model);
    if (begun == SHARDS_REST) {
        take_all(engine, model);
    }
    if (begun != SHARDS_NONE) {
        model->activity = MODEL_UPDATING;
    }
    return begun != SHARDS_NONE;
}

bool round_try(struct engine *engine, struct model *model)
{
    struct member *one = NULL;
    if (model->activity != MODEL_IDLE || model->deleted || engine->stopping) {
        return false;
    }
    if (model->schedule.open) {
        expire(engine, model);
        return go_on(engine, model);
    }
    enum closing closing = closing_due(model, &one);
    if (closing == CLOSING_NOT) {
        return go_on(engine, model);
    }
    gather(engine, model, closing, one);
    count_waiting(engine, model);
    close_round(engine, model);
    return true;
}
