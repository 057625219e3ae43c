/* round — see round.h. */
#include "server/rounds/round.h"

#include <stddef.h>

#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"
#include "server/rounds/members.h"
#include "server/rounds/outcome.h"
#include "server/rounds/push.h"
#include "server/rounds/queue.h"
#include "server/rounds/shard_schedule.h"
#include "server/rounds/withdraw.h"
#include "server/update/written.h"

/* Take the push at the head of the member's queue into the round. */
static void take(struct engine *engine, struct model *model, struct member *member)
{
    struct push *push = member->first;
    queue_remove(push);
    alarm_cancel(&engine->alarms, &push->deadline);
    model->round[model->round_count++] = push;
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
            outcome_skipped(engine, model);
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

/* What is due of a member. */
static size_t due_of(const struct member *member, enum closing closing)
{
    return closing == CLOSING_ALL ? member->waiting : member->first != NULL;
}

/* Whether a round of what is due has room to be written down. It will be skipped, and
 * writes nothing, if one of its pushes says so. */
static bool has_room(struct engine *engine, struct model *model, enum closing closing,
                     const struct member *one)
{
    size_t count = 0;
    if (model->update.writing == NULL) {
        return true;
    }
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        size_t due = closing != CLOSING_ONE ? due_of(member, closing) : member == one;
        const struct push *push = member->first;
        for (; due > 0; due--, push = push->next) {
            model->gradients[count++] = &push->gradient;
            if (push->skip) {
                return true;
            }
        }
    }
    return written_room(engine, model, model->gradients, count, false);
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
        for (size_t due = due_of(member, closing); due > 0; due--) {
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
            withdraw_unfinished(engine, push->member);
        } else if (push->overdue) {
            withdraw_overdue(engine, push);
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
    if (model->held) {
        return false;
    }
    enum closing closing = closing_due(model, &one);
    if (closing == CLOSING_NOT) {
        return go_on(engine, model);
    }
    if (!has_room(engine, model, closing, one)) {
        return false;
    }
    gather(engine, model, closing, one);
    count_waiting(engine, model);
    close_round(engine, model);
    return true;
}
