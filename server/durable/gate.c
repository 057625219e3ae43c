/* gate — see gate.h. */
#include "server/durable/gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/durable/durable.h"
#include "server/durable/journaling.h"
#include "server/engine/answer.h"
#include "server/engine/events.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/model/model.h"

enum {
    GAP_RETRY_MS = 1000,
    ERROR_MS = 5000, /* that an error waits beyond its deadline */
    NS_PER_MS = 1000000
};

struct gate {
    struct letters written; /* wait until their records are written, */
    struct letters synced;  /* durable; each queue in the order of these, */
    struct letters saved;   /* or until a checkpoint has their models' step */
    struct alarm alarm;     /* the earliest of their deadlines, or an earlier one */
};

enum opt_status gate_open(struct durable *durable, struct opt_error *error)
{
    durable->gate = calloc(1, sizeof *durable->gate);
    return durable->gate != NULL
               ? OPT_OK
               : opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                             "no memory for the journal");
}

void gate_close(struct durable *durable)
{
    free(durable->gate);
}

bool gate_is_empty(const struct durable *durable)
{
    const struct gate *gate = durable->gate;
    return gate->written.first == NULL && gate->synced.first == NULL &&
           gate->saved.first == NULL;
}

/* ---------------------------------------------------------------- what is told */

/* The push in an answer, or NULL. */
static struct opt_push_reply *push_of(struct letter *letter)
{
    struct opt_reply *reply = &letter->reply;
    if (reply->message == OPT_MESSAGE_PUSH) {
        return &reply->body.push;
    }
    return reply->message == OPT_MESSAGE_PUSH_PULL && reply->body.push_pull.has_push
               ? &reply->body.push_pull.push
               : NULL;
}

/* Whether what becomes of the model's pushes is in the journal. */
static bool is_journaled(const struct model *model)
{
    return model->durability.mode == OPT_DURABILITY_ALWAYS ||
           model->durability.mode == OPT_DURABILITY_INTERVAL;
}

/* Whether records of the model are missing which no checkpoint has either. */
static bool has_gap(const struct model *model)
{
    return model->durability.lost > model->durability.saved;
}

/* The answer says whether what it tells, up to that record, is durable. */
static void mark(const struct durable *durable, const struct model *model,
                 struct letter *letter, uint64_t record)
{
    bool safe = is_journaled(model) && !has_gap(model) && record <= durable->safe;
    struct opt_push_reply *push = push_of(letter);
    if (push != NULL) {
        push->durable = safe;
    }
    if (letter->reply.message == OPT_MESSAGE_MODEL) {
        struct opt_model_reply *reply = &letter->reply.body.model;
        struct opt_settled *settled = (struct opt_settled *)(uintptr_t)reply->settled;
        for (size_t i = 0; i < reply->settled_count; i++) {
            settled[i].durable = safe; /* it lies in the letter's arena */
        }
    }
}

/* What is in the letter's answer is not to be told, but this. */
static void refuse(struct durable *durable, struct letter *letter,
                   enum opt_status status, uint32_t retry_ms, const char *why)
{
    const struct opt_push_reply *push = push_of(letter);
    struct opt_error error;
    if (push == NULL) {
        opt_fail_as(&error, status, OPT_DETAIL_NOT_DURABLE,
                    "it has taken effect, but %s; ask again", why);
    } else if (push->fate == OPT_FATE_APPLIED || push->fate == OPT_FATE_DUPLICATE) {
        opt_fail_as(&error, status, OPT_DETAIL_NOT_DURABLE,
                    "the push was applied at step %" PRIu64
                    ", but %s; sent again under the same number it is answered when it "
                    "is durable",
                    push->step, why);
        error.fate = OPT_FATE_APPLIED;
        error.step = push->step;
    } else {
        opt_fail_as(&error, status, OPT_DETAIL_NOT_DURABLE,
                    "what became of the push, which was not applied, is to be durable, "
                    "but %s; send it again under the same number",
                    why);
        error.fate = OPT_FATE_NOT_TAKEN;
    }
    letter_drop_pieces(letter);
    letter_refuse(letter, &error);
    letter->reply.body.error.retry_after_ms = retry_ms;
    durable->engine->counters.errors++;
    event_request_failed(letter);
}

/* The same because of a disk that fails. */
static void refuse_degraded(struct durable *durable, struct letter *letter)
{
    char why[OPT_ERROR_TEXT], text[OPT_ERROR_TEXT + 64];
    uint32_t retry_ms = journaling_why(durable, why, sizeof why);
    if (durable->degraded) {
        snprintf(text, sizeof text, "it cannot be made durable at present: %.300s",
                 why);
        refuse(durable, letter, OPT_RESOURCE_EXHAUSTED, retry_ms, text);
    } else {
        refuse(durable, letter, OPT_RESOURCE_EXHAUSTED, GAP_RETRY_MS,
               "records before it were lost while the disk failed, and the checkpoint "
               "that makes up for them is not there yet");
    }
}

/* An answer to open that tells of pushes which are not durable yet: sent again, they
 * wait. False: no memory, and the letter has its error. */
static void tell_waiting(struct durable *durable, struct letter *letter)
{
    struct opt_model_reply *reply = &letter->reply.body.model;
    size_t count = reply->settled_count + reply->waiting_count;
    if (reply->settled_count == 0) {
        return;
    }
    uint64_t *waiting = opt_arena_alloc(&letter->arena, count * sizeof *waiting);
    if (waiting == NULL) {
        refuse_degraded(durable, letter);
        return;
    }
    for (size_t i = 0; i < reply->settled_count; i++) {
        waiting[i] = reply->settled[i].sequence;
    }
    for (size_t i = 0; i < reply->waiting_count; i++) {
        waiting[reply->settled_count + i] = reply->waiting[i];
    }
    reply->waiting = waiting;
    reply->waiting_count = count;
    reply->settled_count = 0;
}

/* A letter that is to wait for a disk which fails: what can be said instead. */
static void go_without(struct durable *durable, struct letter *letter)
{
    if (push_of(letter) != NULL) {
        refuse_degraded(durable, letter);
    } else if (letter->reply.message == OPT_MESSAGE_MODEL) {
        tell_waiting(durable, letter);
    } else if (letter->request.message == OPT_MESSAGE_WAIT &&
               letter->request.body.wait.durable) {
        refuse_degraded(durable, letter);
    }
}

/* ---------------------------------------------------------------- the queues */

/* What the letter was about, if it was about one model and that is still there. */
static const struct model *model_of(const struct durable *durable,
                                    const struct letter *letter)
{
    const struct opt_request *request = &letter->request;
    struct engine *engine = durable->engine;
    switch (request->message) {
    case OPT_MESSAGE_PUSH:
        return registry_numbered(engine, request->body.push.model);
    case OPT_MESSAGE_PUSH_PULL:
        return registry_numbered(engine, request->body.push_pull.push.model);
    case OPT_MESSAGE_WAIT:
        return registry_numbered(engine, request->body.wait.model);
    case OPT_MESSAGE_OPEN:
        return names_find(&engine->models, request->body.open.model);
    case OPT_MESSAGE_CREATE:
        return names_find(&engine->models, request->body.create.model);
    default:
        return NULL;
    }
}

static void release(struct durable *durable, struct letter *letter)
{
    const struct model *model = model_of(durable, letter);
    if (model != NULL && letter->reply.message != OPT_MESSAGE_ERROR) {
        mark(durable, model, letter, letter->awaits);
    }
    answer_release(letter);
}

static void on_deadline(struct engine *engine, struct alarm *alarm);

/* How long the letter waits. An error, which may be that the deadline has passed, has
 * some time more: what it says of a push is true as it is, and not to be replaced. */
static uint64_t limit_of(const struct engine *engine, const struct letter *letter)
{
    uint64_t more = letter->reply.message == OPT_MESSAGE_ERROR ? ERROR_MS : 0;
    return answer_deadline(engine, letter) + more * NS_PER_MS;
}

static void hold(struct durable *durable, struct letters *queue, struct letter *letter,
                 uint64_t record)
{
    struct gate *gate = durable->gate;
    struct engine *engine = durable->engine;
    uint64_t deadline = limit_of(engine, letter);
    letter->awaits = queue->first != NULL && queue->last->awaits > record
                         ? queue->last->awaits
                         : record;
    letters_append(queue, letter);
    if ((gate->alarm.place == 0 || gate->alarm.at_ns > deadline) &&
        !alarm_set(&engine->alarms, &gate->alarm, deadline, on_deadline)) {
        /* No memory for an alarm: the disk's answer will do. */
        gate->alarm.place = 0;
    }
}

/* Answer those of the queue whose time has passed: an error with what it says, which
 * the deadline itself may have caused, the others with why. Returns the earliest
 * deadline of those that still wait. */
static uint64_t expire(struct durable *durable, struct letters *queue, const char *why)
{
    struct engine *engine = durable->engine;
    struct letters all = *queue;
    uint64_t next = UINT64_MAX;
    *queue = (struct letters){ 0 };
    for (struct letter *letter; (letter = letters_take(&all)) != NULL;) {
        uint64_t deadline = limit_of(engine, letter);
        if (deadline <= engine->now_ns) {
            if (letter->reply.message != OPT_MESSAGE_ERROR) {
                engine->counters.deadlines_exceeded++;
                refuse(durable, letter, OPT_DEADLINE_EXCEEDED, 0, why);
            }
            answer_release(letter);
        } else {
            next = deadline < next ? deadline : next;
            letters_append(queue, letter);
        }
    }
    return next;
}

static void on_deadline(struct engine *engine, struct alarm *alarm)
{
    struct durable *durable = engine->durable;
    struct gate *gate = durable->gate;
    uint64_t next =
        expire(durable, &gate->written, "the disk has not taken it in time");
    uint64_t synced =
        expire(durable, &gate->synced, "the disk has not synced it in time");
    uint64_t saved = expire(durable, &gate->saved, "no checkpoint has had it in time");
    next = synced < next ? synced : next;
    next = saved < next ? saved : next;
    if (next != UINT64_MAX) {
        (void)alarm_set(&engine->alarms, alarm, next, on_deadline);
    }
}

/* ---------------------------------------------------------------- turns */

bool gate_takes(struct durable *durable, struct letter *letter, uint64_t record,
                bool always)
{
    if (letter->kind != LETTER_REQUEST || letter->silent) {
        return false;
    }
    const struct model *model = model_of(durable, letter);
    bool gap = false;
    if (model != NULL && is_journaled(model)) {
        record =
            model->durability.recorded > record ? model->durability.recorded : record;
        always = always || model->durability.mode == OPT_DURABILITY_ALWAYS;
        gap = always && has_gap(model);
        mark(durable, model, letter, record);
    } else if (letter->request.message == OPT_MESSAGE_DELETE) {
        /* It is answered turns after the one that has recorded it. */
        record = durable->recorded;
        always =
            !durable->degraded && durable->settings.durability == OPT_DURABILITY_ALWAYS;
    }
    if (!gap && record <= (always ? durable->safe : durable->written)) {
        return false;
    }
    if (durable->degraded || gap) {
        if (always) {
            go_without(durable, letter);
        }
        return false;
    }
    hold(durable, always ? &durable->gate->synced : &durable->gate->written, letter,
         record);
    return true;
}

enum opt_status gate_admits(struct durable *durable, const struct model *model,
                            uint32_t *retry_ms, struct opt_error *error)
{
    char why[OPT_ERROR_TEXT];
    if (model->durability.mode != OPT_DURABILITY_ALWAYS ||
        (!durable->degraded && !has_gap(model))) {
        return OPT_OK;
    }
    if (durable->degraded) {
        *retry_ms = journaling_why(durable, why, sizeof why);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NOT_DURABLE,
                           "the push cannot be made durable at present, so it is not "
                           "taken: %.300s",
                           why);
    }
    *retry_ms = GAP_RETRY_MS;
    return opt_fail_as(
        error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NOT_DURABLE,
        "model \"%.100s\" takes no push at present: records of it were "
        "lost while the disk failed, and the checkpoint that makes up for "
        "them is not there yet",
        model->name);
}

void gate_hold(struct durable *durable, const struct model *model,
               struct letter *letter)
{
    const struct model_durability *durability = &model->durability;
    struct opt_wait_reply *reply = &letter->reply.body.wait;
    if (!is_journaled(model) || has_gap(model)) {
        reply->durable = durability->saved_step >= reply->step;
        if (reply->durable) {
            answer_release(letter);
        } else {
            hold(durable, &durable->gate->saved, letter, 0);
        }
        return;
    }
    reply->durable = true;
    if (durability->recorded <= durable->safe) {
        answer_release(letter);
    } else if (durable->degraded) {
        refuse_degraded(durable, letter);
        answer_release(letter);
    } else {
        journaling_want(durable, durability->recorded);
        hold(durable, &durable->gate->synced, letter, durability->recorded);
    }
}

void gate_settle(struct durable *durable)
{
    struct gate *gate = durable->gate;
    while (gate->written.first != NULL &&
           (durable->degraded || gate->written.first->awaits <= durable->written)) {
        release(durable, letters_take(&gate->written));
    }
    while (gate->synced.first != NULL &&
           (durable->degraded || gate->synced.first->awaits <= durable->safe)) {
        struct letter *letter = letters_take(&gate->synced);
        if (letter->awaits > durable->safe) {
            go_without(durable, letter);
        }
        release(durable, letter);
    }
}

void gate_saved(struct durable *durable, const struct model *model)
{
    struct letters all = durable->gate->saved;
    durable->gate->saved = (struct letters){ 0 };
    for (struct letter *letter; (letter = letters_take(&all)) != NULL;) {
        if (letter->request.body.wait.model == model->number) {
            gate_hold(durable, model, letter);
        } else {
            letters_append(&durable->gate->saved, letter);
        }
    }
}

void gate_open_all(struct durable *durable)
{
    struct gate *gate = durable->gate;
    struct letters *queues[] = { &gate->written, &gate->synced, &gate->saved };
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++) {
        for (struct letter *letter; (letter = letters_take(queues[i])) != NULL;) {
            if (letter->reply.message != OPT_MESSAGE_ERROR) {
                refuse(durable, letter, OPT_UNAVAILABLE, 0, "the daemon is stopping");
            }
            answer_release(letter);
        }
    }
    alarm_cancel(&durable->engine->alarms, &gate->alarm);
}
