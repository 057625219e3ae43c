/* round — see round.h. */
#include "server/engine/round.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/flow.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/push.h"
#include "server/engine/resend.h"
#include "server/engine/view.h"
#include "server/engine/worker.h"

/* ---------------------------------------------------------------- answers */

static void unpin(struct model *model, const struct letter *answer)
{
    if (answer != NULL && answer->request.message == OPT_MESSAGE_PUSH_PULL &&
        answer->request.body.push_pull.has_pull) {
        view_unpin(model, &answer->request.body.push_pull.pull);
    }
}

/* Answer a push, and the pull that goes with it. */
static void answer_push(struct engine *engine, struct model *model,
                        struct letter *letter, struct opt_push_reply fate)
{
    fate.epoch = model_epoch(model);
    if (letter->request.message == OPT_MESSAGE_PUSH) {
        engine_reply(letter, OPT_MESSAGE_PUSH)->body.push = fate;
        engine_return(engine, letter);
        return;
    }
    struct opt_reply *reply = engine_reply(letter, OPT_MESSAGE_PUSH_PULL);
    reply->body.push_pull.has_push = true;
    reply->body.push_pull.push = fate;
    flow_pull(engine, model, letter);
}

/* An error in a frame: it answers the whole push. */
static void refuse_frame(struct engine *engine, struct member *member,
                         struct letter *letter, const struct opt_error *error)
{
    if (member != NULL) {
        member->refused++;
    }
    engine->counters.pushes_refused++;
    engine_fail(engine, letter, error->status, "%s", error->text);
}

void round_drop_gathering(struct engine *engine, struct member *member)
{
    struct push *push = member->gathering;
    if (push != NULL) {
        member->gathering = NULL;
        push_recycle(engine, push);
    }
}

/* ---------------------------------------------------------------- the queue */

static void enqueue(struct member *member, struct push *push)
{
    push->next = NULL;
    if (member->last == NULL) {
        member->first = push;
        if (member->joined) {
            member->model->missing--;
        }
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
    if (member->first == NULL && member->joined) {
        member->model->missing++;
    }
}

void round_recount(struct model *model)
{
    model->joined = 0;
    model->missing = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        model->joined += member->joined;
        model->missing += member->joined && member->first == NULL;
    }
    if (model->joined == 0) {
        model->gathered = false;
    } else if (model->joined >= model->consistency.min_workers) {
        model->gathered = true;
    }
}

void round_withdraw(struct engine *engine, struct push *push, enum opt_status status,
                    const char *text)
{
    struct member *member = push->member;
    struct letter *answer = push->answer;
    if (member->gathering == push) {
        /* The first frame answers; the others are swallowed as they come. */
        member->gathering = NULL;
        answer = push->frames;
        while (answer != NULL && answer->next != NULL) {
            answer = answer->next;
        }
        push->answer = answer;
    } else {
        unqueue(push);
        unpin(push->model, answer);
    }
    if (!push->echo) {
        lease_note(member, push->head.sequence, OPT_FATE_REFUSED, status);
    }
    push_recycle(engine, push);
    engine->counters.pushes_withdrawn++;
    if (answer != NULL) {
        engine_fail(engine, answer, status, "%s", text);
    }
}

void round_missing(const struct model *model, char *text, size_t capacity)
{
    if (model->consistency.mode == OPT_SYNC && !model->gathered) {
        snprintf(text, capacity,
                 "the first round waits for %" PRIu32 " workers, %zu have joined",
                 model->consistency.min_workers, model->joined);
        return;
    }
    size_t used = (size_t)snprintf(text, capacity, "%zu of %zu workers have not pushed",
                                   model->missing, model->joined);
    size_t named = 0;
    for (size_t i = 0; i < model->member_count && used < capacity; i++) {
        const struct member *member = model->members[i];
        if (!member->joined || member->first != NULL) {
            continue;
        }
        if (named == 8) {
            snprintf(text + used, capacity - used, ", and %zu more",
                     model->missing - named);
            return;
        }
        used += (size_t)snprintf(text + used, capacity - used, "%s\"%.40s\"%s",
                                 named == 0 ? ": " : ", ", member->worker->name,
                                 member->away ? " (not connected)" : "");
        named++;
    }
}

static void on_push_deadline(struct engine *engine, struct alarm *alarm)
{
    struct push *push =
        (struct push *)(void *)((char *)alarm - offsetof(struct push, deadline));
    struct model *model = push->model;
    char text[OPT_ERROR_TEXT];
    if (push->member->gathering == push) {
        snprintf(text, sizeof text,
                 "the push of sequence %" PRIu64
                 " was not complete in time: its last frame has not come",
                 push->head.sequence);
    } else {
        char missing[OPT_ERROR_TEXT - 64];
        round_missing(model, missing, sizeof missing);
        snprintf(text, sizeof text, "the round of step %" PRIu64 " did not close: %s",
                 model->step + 1, missing);
    }
    engine->counters.deadlines_exceeded++;
    round_withdraw(engine, push, OPT_DEADLINE_EXCEEDED, text);
    flow_settle(engine, model);
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
        lease_note(member, push->head.sequence, fate, OPT_OK);
        if (fate == OPT_FATE_APPLIED) {
            uint64_t before = model->step - 1;
            reply.staleness = before > push->head.basis ? before - push->head.basis : 0;
            member->last_step = model->step;
            member->applied++;
            engine->counters.pushes_applied++;
        } else {
            reply.reason = "a gradient of its round is not finite";
            engine->counters.pushes_skipped++;
        }
        push_recycle(engine, push);
        answer_push(engine, model, answer, reply);
    }
}

void round_applied(struct engine *engine, struct model *model)
{
    resolve(engine, model, OPT_FATE_APPLIED);
}

static void skip(struct engine *engine, struct model *model)
{
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
        lease_note(push->member, push->head.sequence, OPT_FATE_REFUSED,
                   OPT_INVALID_ARGUMENT);
        unpin(model, answer);
        push_recycle(engine, push);
        engine_fail(engine, answer, OPT_INVALID_ARGUMENT,
                    "the sum of the %zu gradients of this round is not finite at "
                    "element %" PRIu64 " of tensor \"%s\"",
                    count, element, model->tensors[tensor].name);
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
    flow_update(engine, model);
}

bool round_try(struct engine *engine, struct model *model)
{
    if (model->activity != MODEL_IDLE || model->deleted || engine->stopping) {
        return false;
    }
    if (model->consistency.mode == OPT_ASYNC) {
        for (size_t i = 0; i < model->member_count; i++) {
            if (model->members[i]->first != NULL) {
                take(engine, model, model->members[i]);
                close_round(engine, model);
                return true;
            }
        }
        return false;
    }
    if (!model->gathered || model->joined == 0 || model->missing > 0) {
        return false;
    }
    /* Members stand in ascending order of their names, so the round does. */
    for (size_t i = 0; i < model->member_count; i++) {
        if (model->members[i]->first != NULL) {
            take(engine, model, model->members[i]);
        }
    }
    close_round(engine, model);
    return true;
}

/* ---------------------------------------------------------------- frames */

/* What the first frame of a new push must satisfy before anything is kept. */
static enum opt_status check_first(const struct model *model,
                                   const struct member *member,
                                   const struct opt_push *head, struct opt_error *error)
{
    if (member->last != NULL && head->sequence <= member->last->head.sequence) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "sequence %" PRIu64 " follows %" PRIu64
                        ", which is still waiting; sequences must ascend",
                        head->sequence, member->last->head.sequence);
    }
    if (member->waiting >= PUSHES_WAITING) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "%d pushes of worker \"%s\" are waiting for rounds of model "
                        "\"%s\" already",
                        PUSHES_WAITING, member->worker->name, model->name);
    }
    return OPT_OK;
}

/* The answer of a push that waits goes to the letter that asks again. */
static void move_answer(struct engine *engine, struct model *model,
                        struct member *member, struct letter *letter, uint64_t sequence)
{
    struct push *first = resend_waiting(member, sequence);
    struct letter *old = first->answer;
    unpin(model, old);
    first->answer = letter;
    /* The letter that held the answer goes home now, unless it holds values too. */
    if (!first->answer_is_frame) {
        engine_silence(engine, old);
    }
    first->answer_is_frame = false;
    first->peer = letter->peer;
    first->request_id = letter->request.id;
    alarm_set(&engine->alarms, &first->deadline, engine_deadline(engine, letter),
              on_push_deadline);
}

/* The last frame of a push that has come before. */
static void finish_echo(struct engine *engine, struct model *model,
                        struct member *member, struct letter *letter,
                        const struct opt_push *head)
{
    struct opt_push_reply reply;
    struct opt_error error;
    switch (resend_find(member, head, &reply, &error)) {
    case RESEND_WAITING:
        move_answer(engine, model, member, letter, head->sequence);
        return;
    case RESEND_SETTLED:
        answer_push(engine, model, letter, reply);
        return;
    case RESEND_NEW:
        opt_fail(&error, OPT_ABORTED,
                 "the push of sequence %" PRIu64
                 " was given up while it was sent again; send it once more",
                 head->sequence);
        break;
    case RESEND_REFUSED:
    case RESEND_UNKNOWN:
    case RESEND_STALE:
        break;
    }
    unpin(model, letter);
    engine_fail(engine, letter, error.status, "%s", error.text);
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
    push->answer_is_frame = true;
    enqueue(member, push);
    flow_settle(engine, model);
}

/* Begin the push of a first frame. NULL: error tells. */
static struct push *begin(struct engine *engine, struct model *model,
                          struct member *member, const struct letter *letter,
                          const struct opt_push *head, bool echo,
                          struct opt_error *error)
{
    if (!echo && check_first(model, member, head, error) != OPT_OK) {
        return NULL;
    }
    struct push *push = push_new(model);
    if (push == NULL || !alarm_set(&engine->alarms, &push->deadline,
                                   engine_deadline(engine, letter), on_push_deadline)) {
        push_free(push);
        opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the tables of a push");
        return NULL;
    }
    push->member = member;
    push->head = *head;
    push->head.segments = NULL;
    push->head.segment_count = 0;
    push->peer = letter->peer;
    push->request_id = letter->request.id;
    push->session = member->worker->session;
    push->echo = echo;
    member->gathering = push;
    return push;
}

/* The push that a frame belongs to, begun if it is the first. NULL: error tells. */
static struct push *push_of(struct engine *engine, struct model *model,
                            struct member *member, const struct letter *letter,
                            const struct opt_push *head, bool echo,
                            struct opt_error *error)
{
    struct push *push = member->gathering;
    bool same = push != NULL && push->peer == letter->peer &&
                push->request_id == letter->request.id;
    if (same) {
        return push_continues(push, head, error) == OPT_OK ? push : NULL;
    }
    if (head->frame != 0) {
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "frame %" PRIu32 " of a push came before its first", head->frame);
        return NULL;
    }
    if (push != NULL) {
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "the push of sequence %" PRIu64 " begins before that of %" PRIu64
                 " has ended; frames of one worker's pushes on a model may not mix",
                 head->sequence, push->head.sequence);
        return NULL;
    }
    return begin(engine, model, member, letter, head, echo, error);
}

/* The frame cannot be used: answer the push, forget what had come of it. */
static void fail_push(struct engine *engine, struct member *member,
                      struct letter *letter, const struct opt_error *error)
{
    struct push *push = member->gathering;
    if (push != NULL && push->peer == letter->peer &&
        push->request_id == letter->request.id) {
        if (!push->echo) {
            lease_note(member, push->head.sequence, OPT_FATE_REFUSED, error->status);
        }
        round_drop_gathering(engine, member);
    }
    refuse_frame(engine, member, letter, error);
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
    enum resend resend = resend_find(member, head, &reply, &error);
    bool again = resend == RESEND_WAITING || resend == RESEND_SETTLED ||
                 resend == RESEND_REFUSED;
    bool settled = again && resend != RESEND_WAITING;
    member->resends += again;
    member->duplicates += settled;
    engine->counters.pushes_resent += again;
    engine->counters.pushes_duplicate += settled;
    engine->counters.pushes_stale += resend == RESEND_STALE;
    if (resend == RESEND_SETTLED && letter->request.message == OPT_MESSAGE_PUSH) {
        answer_push(engine, model, letter, reply);
        return true;
    }
    *echo = resend == RESEND_WAITING || resend == RESEND_SETTLED;
    if (*echo || resend == RESEND_NEW) {
        return false;
    }
    refuse_frame(engine, member, letter, &error);
    return true;
}

void round_frame(struct engine *engine, struct model *model, struct letter *letter,
                 const struct opt_push *head, const struct opt_pull *pull)
{
    struct opt_error error;
    struct peer *peer = letter->peer;
    struct member *member = lease_member(model, peer);
    if (member == NULL || !member->joined) {
        opt_fail(
            &error, OPT_FAILED_PRECONDITION,
            "worker \"%s\" has not joined model \"%s\"; create or open it with join "
            "before pushing",
            peer->name, model->name);
        refuse_frame(engine, member, letter, &error);
        return;
    }
    bool echo = false;
    if (head->frame == 0 && meet_again(engine, model, member, letter, head, &echo)) {
        return;
    }
    struct push *push = push_of(engine, model, member, letter, head, echo, &error);
    if (push == NULL || push_take(engine, push, letter, head, &error) != OPT_OK ||
        (head->last && !push->echo && push_whole(push, &error) != OPT_OK) ||
        (head->last && plan_pull(engine, model, letter, pull, &error) != OPT_OK)) {
        fail_push(engine, member, letter, &error);
        return;
    }
    push->frame_count++;
    letter->next = push->frames;
    push->frames = letter;
    if (head->last) {
        complete(engine, model, push, letter);
    }
}
