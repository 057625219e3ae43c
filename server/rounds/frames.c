/* frames — see frames.h. */
#include "server/rounds/frames.h"

#include <inttypes.h>

#include "server/engine/answer.h"
#include "server/engine/commit.h"
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
#include "server/rounds/withdraw.h"
#include "server/weights/view.h"
#include "server/workers/worker.h"

/* An error in a frame: it answers the whole push. */
static void refuse_frame(struct engine *engine, struct member *member,
                         struct letter *letter, const struct opt_error *error)
{
    if (member != NULL) {
        member->refused++;
    }
    engine->counters.pushes_refused++;
    answer_refuse(engine, letter, error);
}

static bool is_part_of(const struct push *push, const struct letter *letter)
{
    return push != NULL && push->peer == letter->peer &&
           push->request_id == letter->request.id;
}

void frames_end(struct engine *engine, struct member *member)
{
    struct push *push = member->gathering;
    if (push != NULL && shard_schedule_is_using(push)) {
        push->over = true;
        push->peer = NULL;
    } else {
        withdraw_unfinished(engine, member);
    }
}

void frames_refused(struct engine *engine, struct letter *letter)
{
    const struct worker *worker = letter->peer->worker;
    if (letter_push(letter) == NULL || worker == NULL) {
        return;
    }
    struct member *member = worker->members;
    while (member != NULL && !is_part_of(member->gathering, letter)) {
        member = member->next_of_worker;
    }
    if (member == NULL) {
        return;
    }
    struct opt_error_reply *told = &letter->reply.body.error;
    struct opt_error error;
    opt_fail_as(&error, told->status, told->detail, "%s", told->text);
    if (shard_schedule_is_using(member->gathering)) {
        error.fate = OPT_FATE_IN_PART; /* it will be known how many */
    } else {
        fate_settle(engine, member->gathering, OPT_FATE_REFUSED, &error);
    }
    uint32_t retry_after_ms = told->retry_after_ms;
    letter_refuse(letter, &error);
    told->retry_after_ms = retry_after_ms;
    frames_end(engine, member);
    if (member->model->schedule.open) {
        work_settle(engine, member->model);
    }
}

void frames_cut_off(struct engine *engine, struct member *member)
{
    struct push *push = member->gathering;
    if (push != NULL && shard_schedule_has(push)) {
        push->peer = NULL;
    } else {
        withdraw_unfinished(engine, member);
    }
}

/* Its next push ends a worker's rest. */
static void end_rest(struct model *model, struct member *member)
{
    if (member->resting) {
        uint64_t slowest = closing_slowest(model);
        member->clock = member->clock > slowest ? member->clock : slowest;
        member->resting = false;
        queue_recount(model);
    }
}

/* Whether the worker may have one more push waiting. */
static enum opt_status check_room(const struct model *model,
                                  const struct member *member, struct opt_error *error)
{
    size_t most = push_limit(model);
    if (member->waiting < most) {
        return OPT_OK;
    }
    if (model->consistency.samples > 0) {
        char missing[OPT_ERROR_TEXT / 2];
        closing_missing(model, missing, sizeof missing);
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
            "%zu pushes of worker \"%.40s\" wait for a round, for more there "
            "is no memory: %s; a push must cover more of them",
            most, member->worker->name, missing);
    }
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                       "%zu pushes of worker \"%s\" are waiting for rounds of model "
                       "\"%s\" already",
                       most, member->worker->name, model->name);
}

/* The answer of a push that waits goes to the letter that asks again. */
static void move_answer(struct engine *engine, struct model *model,
                        struct member *member, struct letter *letter, uint64_t sequence)
{
    struct push *first = fate_waiting(member, sequence);
    struct letter *old = first->answer;
    push_reply_unpin(model, old);
    first->answer = letter;
    /* The letter that held the answer goes home now, unless it holds values too. */
    if (!first->answer_is_frame) {
        answer_nothing(engine, old);
    }
    first->answer_is_frame = false;
    first->peer = letter->peer;
    push_forget_left(first);
    first->request_id = letter->request.id;
    withdraw_at_deadline(engine, first, letter);
}

/* The last frame of a push that has come before. */
static void finish_echo(struct engine *engine, struct model *model,
                        struct member *member, struct letter *letter,
                        const struct opt_push *head)
{
    struct opt_push_reply reply;
    struct opt_error error;
    switch (fate_meet(member, head, &reply, &error)) {
    case FATE_WAITING:
        move_answer(engine, model, member, letter, head->sequence);
        return;
    case FATE_SETTLED:
        push_reply_send(engine, model, letter, reply);
        return;
    case FATE_NEW: /* it was forgotten meanwhile: as if this copy had not come */
        opt_fail_as(&error, OPT_UNAVAILABLE, OPT_DETAIL_SEND_AGAIN,
                    "the push of sequence %" PRIu64
                    " was given up while it was sent again; send it once more",
                    head->sequence);
        break;
    case FATE_REFUSED:
    case FATE_LATE:
    case FATE_STALE:
        break;
    }
    push_reply_unpin(model, letter);
    answer_refuse(engine, letter, &error);
}

/* The last frame is here. */
static void complete(struct engine *engine, struct model *model, struct push *push,
                     struct letter *letter)
{
    struct member *member = push->member;
    member->gathering = NULL;
    if (push->echo) {
        struct opt_push head = push->head;
        push->answer = letter;
        push_recycle(engine, push);
        finish_echo(engine, model, member, letter, &head);
        return;
    }
    push->answer = letter;
    if (closing_too_late(model, push)) {
        withdraw_late(engine, push);
        return;
    }
    push->answer_is_frame = true;
    queue_add(member, push, engine->now_ns);
    work_settle(engine, model);
}

/* Begin the push of a first frame. NULL: error tells. */
static struct push *begin(struct engine *engine, struct model *model,
                          struct member *member, const struct letter *letter,
                          const struct opt_push *head, const struct opt_pull *pull,
                          bool echo, struct opt_error *error)
{
    if (!echo && check_room(model, member, error) != OPT_OK) {
        return NULL;
    }
    struct push *push = push_new(engine, model);
    if (push == NULL || !withdraw_at_deadline(engine, push, letter)) {
        if (push != NULL) {
            push_recycle(engine, push);
        }
        opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for the tables of a push");
        return NULL;
    }
    push->member = member;
    push->head = *head;
    push->head.segments = NULL;
    push->head.segment_count = 0;
    push->gradient.dtype = head->dtype;
    push->gradient.form = head->form;
    push->gradient.samples = head->samples;
    push->gradient.basis = head->basis;
    push->gradient.last_pull = &member->last_pull;
    push->peer = letter->peer;
    push->request_id = letter->request.id;
    push->session = member->worker->session;
    push->echo = echo;
    shard_schedule_wish(push, pull);
    member->gathering = push;
    if (!echo) {
        end_rest(model, member);
    }
    return push;
}

/* The worker is back whose push was cut off in the middle of its round, which is still
 * open: the rest of it comes now, or another push. NULL: error tells. */
static struct push *take_up(struct engine *engine, struct model *model,
                            struct member *member, const struct letter *letter,
                            const struct opt_push *head, const struct opt_pull *pull,
                            bool echo, struct opt_error *error)
{
    struct push *push = member->gathering;
    if (push->head.sequence != head->sequence ||
        push->session != member->worker->session) {
        withdraw_unfinished(engine, member);
        return begin(engine, model, member, letter, head, pull, echo, error);
    }
    if (push_resume(push, letter, head, error) != OPT_OK) {
        return NULL;
    }
    if (!withdraw_at_deadline(engine, push, letter)) {
        opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for the deadline of a push");
        return NULL;
    }
    return push;
}

/* The push that a frame belongs to, begun if it is the first. NULL: error tells. */
static struct push *push_of(struct engine *engine, struct model *model,
                            struct member *member, const struct letter *letter,
                            const struct opt_push *head, const struct opt_pull *pull,
                            bool echo, struct opt_error *error)
{
    struct push *push = member->gathering;
    if (is_part_of(push, letter)) {
        return push_continues(push, head, error) == OPT_OK ? push : NULL;
    }
    if (head->frame != 0) {
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "frame %" PRIu32 " of a push came before its first", head->frame);
        return NULL;
    }
    if (push != NULL && push->peer == NULL) {
        return take_up(engine, model, member, letter, head, pull, echo, error);
    }
    if (push != NULL) {
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "the push of sequence %" PRIu64 " begins before that of %" PRIu64
                 " has ended; frames of one worker's pushes on a model may not mix",
                 head->sequence, push->head.sequence);
        return NULL;
    }
    return begin(engine, model, member, letter, head, pull, echo, error);
}

/* Check and pin what the push_pull will pull, while it can still be refused. */
static enum opt_status plan_pull(struct engine *engine, struct model *model,
                                 struct letter *letter, const struct opt_pull *pull,
                                 struct opt_error *error)
{
    if (letter->request.message != OPT_MESSAGE_PUSH_PULL) {
        return OPT_OK;
    }
    if (pull == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the last frame of a push_pull must say what to pull");
    }
    return view_plan(engine, model, letter, pull, true, error);
}

/* The first frame of a push that has come before, or that comes too late: true if that
 * is all there is to say, and the letter is answered. A push whose fate is known needs
 * no second look at its frames, but the last frame of a push_pull says what to pull. */
static bool meet_again(struct engine *engine, struct model *model,
                       struct member *member, struct letter *letter,
                       const struct opt_push *head, bool *echo)
{
    struct opt_push_reply reply;
    struct opt_error error;
    enum fate_meeting met = fate_meet(member, head, &reply, &error);
    bool again = met == FATE_WAITING || met == FATE_SETTLED || met == FATE_REFUSED;
    bool settled = again && met != FATE_WAITING;
    member->resends += again;
    member->duplicates += settled;
    engine->counters.pushes_resent += again;
    engine->counters.pushes_duplicate += settled;
    engine->counters.pushes_stale += met == FATE_STALE;
    if (met == FATE_SETTLED && letter->request.message == OPT_MESSAGE_PUSH) {
        push_reply_send(engine, model, letter, reply);
        return true;
    }
    *echo = met == FATE_WAITING || met == FATE_SETTLED;
    if (*echo || met == FATE_NEW) {
        return false;
    }
    refuse_frame(engine, member, letter, &error);
    return true;
}

/* Whether what becomes of a push can be kept as the model wants it; if not, it has been
 * refused, until later. */
static bool admit(struct engine *engine, const struct model *model,
                  struct member *member, struct letter *letter)
{
    struct opt_error error;
    uint32_t retry_ms = 0;
    if (commit_admits(engine, model, &retry_ms, &error) == OPT_OK) {
        return true;
    }
    member->refused++;
    engine->counters.pushes_refused++;
    answer_refuse_for(engine, letter, retry_ms, &error);
    return false;
}

void frames_take(struct engine *engine, struct model *model, struct letter *letter,
                 const struct opt_push *head, const struct opt_pull *pull)
{
    struct opt_error error;
    struct peer *peer = letter->peer;
    struct member *member = members_of(model, peer);
    if (member == NULL || !member->joined) {
        opt_fail_as(
            &error, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_JOINED,
            "worker \"%s\" has not joined model \"%s\"; create or open it with join "
            "before pushing",
            peer->name, model->name);
        refuse_frame(engine, member, letter, &error);
        return;
    }
    bool echo = false;
    if (head->frame == 0 && (meet_again(engine, model, member, letter, head, &echo) ||
                             (!echo && !admit(engine, model, member, letter)))) {
        return;
    }
    bool used;
    struct push *push =
        push_of(engine, model, member, letter, head, pull, echo, &error);
    if (push == NULL ||
        push_take(engine, push, letter, head, &used, &error) != OPT_OK ||
        (head->last && !push->echo && push_whole(engine, push, &error) != OPT_OK) ||
        (head->last && plan_pull(engine, model, letter, pull, &error) != OPT_OK)) {
        refuse_frame(engine, member, letter, &error);
        return;
    }
    push->frame_count++;
    if (push->again && !used && head->frame > 0 && !head->last) {
        answer_nothing(engine, letter); /* nobody needs what it brings */
        return;
    }
    letter->next = push->frames;
    push->frames = letter;
    model->schedule.changed = true;
    if (head->last) {
        complete(engine, model, push, letter);
    } else if (shard_schedule_is_policy(model)) {
        work_settle(engine, model);
    }
}
