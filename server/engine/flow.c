/* flow — see flow.h. */
#include "server/engine/flow.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/optim/update.h"
#include "server/engine/barrier.h"
#include "server/engine/closing.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/push.h"
#include "server/engine/recall.h"
#include "server/engine/round.h"
#include "server/engine/view.h"

enum {
    RETRY_MS = 200 /* told to readers whom the budget does not allow */
};

static void append(struct letter **first, struct letter **last, struct letter *letter)
{
    letter->next = NULL;
    if (*first == NULL) {
        *first = letter;
    } else {
        (*last)->next = letter;
    }
    *last = letter;
}

static struct letter *take_first(struct letter **first)
{
    struct letter *letter = *first;
    if (letter != NULL) {
        *first = letter->next;
        letter->next = NULL;
    }
    return letter;
}

/* ---------------------------------------------------------------- waiting */

bool flow_postponed(struct engine *engine, struct model *model, struct letter *letter,
                    bool needs_weights)
{
    if (model->activity != MODEL_IDLE) {
        append(&model->queue_first, &model->queue_last, letter);
        letter->peer->queued++;
        return true;
    }
    if (needs_weights && !model->ready) {
        flow_wait(engine, model, letter, 0);
        return true;
    }
    return false;
}

/* Take it out of the list; the letter is the caller's again. */
static struct letter *stop_waiting(struct engine *engine, struct waiting *waiting)
{
    struct model *model = waiting->model;
    struct waiting **link = &model->waiting_first;
    struct waiting *before = NULL;
    while (*link != waiting) {
        before = *link;
        link = &before->next;
    }
    *link = waiting->next;
    if (model->waiting_last == waiting) {
        model->waiting_last = before;
    }
    alarm_cancel(&engine->alarms, &waiting->deadline);
    struct letter *letter = waiting->letter;
    free(waiting);
    return letter;
}

static void on_deadline(struct engine *engine, struct alarm *alarm)
{
    struct waiting *waiting =
        (struct waiting *)(void *)((char *)alarm - offsetof(struct waiting, deadline));
    struct model *model = waiting->model;
    uint64_t step = waiting->step;
    struct letter *letter = stop_waiting(engine, waiting);
    engine->counters.deadlines_exceeded++;
    if (!model->ready) {
        engine_fail(
            engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NOT_READY,
            "model \"%s\" is not ready: its creator has not assigned all weights",
            model->name);
        return;
    }
    char missing[OPT_ERROR_TEXT / 2];
    closing_missing(model, missing, sizeof missing);
    if (letter->request.message == OPT_MESSAGE_WAIT &&
        letter->request.body.wait.epoch > model_epoch(model)) {
        engine_fail(
            engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER,
            "model \"%.100s\" has had %" PRIu64 " sync epochs, not %" PRIu64 ": %s",
            model->name, model_epoch(model), letter->request.body.wait.epoch, missing);
        return;
    }
    engine_fail(engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER,
                "model \"%.100s\" has had %" PRIu64 " updates, not %" PRIu64 ": %s",
                model->name, model->step, step, missing);
}

void flow_wait(struct engine *engine, struct model *model, struct letter *letter,
               uint64_t step)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);
    if (waiting == NULL || !alarm_set(&engine->alarms, &waiting->deadline,
                                      engine_deadline(engine, letter), on_deadline)) {
        free(waiting);
        engine_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory to let a request wait");
        return;
    }
    waiting->model = model;
    waiting->letter = letter;
    waiting->step = step;
    if (model->waiting_first == NULL) {
        model->waiting_first = waiting;
    } else {
        model->waiting_last->next = waiting;
    }
    model->waiting_last = waiting;
}

void flow_closed(struct engine *engine, const struct peer *peer)
{
    for (size_t i = 0; i < engine->model_count; i++) {
        struct waiting *waiting = engine->numbered[i]->waiting_first;
        while (waiting != NULL) {
            struct waiting *next = waiting->next;
            if (waiting->letter->peer == peer) {
                engine_silence(engine, stop_waiting(engine, waiting));
            }
            waiting = next;
        }
    }
}

/* Serve again all letters that need not wait any longer. */
static void wake(struct engine *engine, struct model *model)
{
    struct letter *first = NULL, *last = NULL;
    struct waiting *kept = NULL, *kept_last = NULL;
    model->advanced = false;
    for (struct waiting *waiting = model->waiting_first; waiting != NULL;) {
        struct waiting *next = waiting->next;
        if (model->ready && model->step >= waiting->step) {
            alarm_cancel(&engine->alarms, &waiting->deadline);
            append(&first, &last, waiting->letter);
            free(waiting);
        } else {
            waiting->next = NULL;
            if (kept == NULL) {
                kept = waiting;
            } else {
                kept_last->next = waiting;
            }
            kept_last = waiting;
        }
        waiting = next;
    }
    model->waiting_first = kept;
    model->waiting_last = kept_last;
    for (struct letter *letter; (letter = take_first(&first)) != NULL;) {
        engine_serve(engine, letter);
    }
}

static struct letter *next_queued(struct model *model)
{
    struct letter *letter = take_first(&model->queue_first);
    if (letter != NULL) {
        letter->peer->queued--;
    }
    return letter;
}

void flow_settle(struct engine *engine, struct model *model)
{
    if (model->settling) {
        return;
    }
    model->settling = true;
    while (model->activity == MODEL_IDLE && !model->deleted) {
        if (lease_settle(engine, model)) {
            continue;
        }
        if (model->advanced) {
            wake(engine, model);
            continue;
        }
        if (round_try(engine, model) || barrier_try(engine, model)) {
            continue;
        }
        struct letter *letter = next_queued(model);
        if (letter == NULL) {
            break;
        }
        engine_serve(engine, letter);
    }
    model->settling = false;
}

/* ---------------------------------------------------------------- pulls */

static bool can_fail(const struct letter *letter)
{
    return letter->request.message == OPT_MESSAGE_PULL;
}

static void answer_pull(struct engine *engine, struct model *model,
                        struct letter *letter)
{
    struct opt_pull_reply pull = {
        .step = model->step,
        .dtype = letter->dtype,
        .last = true,
        .epoch = model_epoch(model),
    };
    if (can_fail(letter)) {
        engine_reply(letter, OPT_MESSAGE_PULL)->body.pull = pull;
    } else {
        letter->reply.body.push_pull.pull = pull;
        view_unpin(model, letter_pull(letter));
    }
    engine->counters.pulls++;
    engine_return(engine, letter);
}

static bool is_member(const struct model *model, const struct letter *letter)
{
    const struct member *member = lease_member(model, letter->peer);
    return member != NULL && member->joined;
}

/* Whether who is no worker of the model may hold the weights that the letter has: if
 * others hold old ones already, there must be memory for one version more, or a worker
 * would be refused for as long as observers read. */
static bool leaves_room(struct engine *engine, struct model *model,
                        const struct letter *letter)
{
    size_t version = model->floats * sizeof(float);
    if (model->joined == 0 || is_member(model, letter) || !model_is_held(model)) {
        return true;
    }
    if (budget_left(&engine->budget) < version) {
        models_trim(engine);
    }
    return budget_left(&engine->budget) >= version;
}

/* Give the pieces of a pull their values, once, and remember what a worker sees of the
 * weights if its gradients will be compared with them. */
static enum view_progress fill(struct engine *engine, struct model *model,
                               struct letter *letter)
{
    const struct opt_pull *pull = letter_pull(letter);
    if (letter->noted == 0) {
        enum view_progress progress =
            view_fill(engine, model, letter, pull, can_fail(letter));
        if (progress == VIEW_FILLED && can_fail(letter) &&
            !leaves_room(engine, model, letter)) {
            letter_drop_pieces(letter);
            return VIEW_STALLED;
        }
        if (progress != VIEW_FILLED || pull->view != OPT_VIEW_TRAIN) {
            return progress;
        }
    }
    struct member *member = lease_member(model, letter->peer);
    return member == NULL || recall_note(model, &member->recall, letter) ? VIEW_FILLED
                                                                         : VIEW_MORE;
}

static void refuse_pull(struct engine *engine, struct model *model,
                        struct letter *letter)
{
    letter_drop_pieces(letter);
    if (is_member(model, letter)) {
        atomic_store(&engine->refused_ns, uv_hrtime());
    }
    struct opt_error error;
    opt_fail_as(&error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                "model \"%s\": another version of its weights beside the one that "
                "is read does not fit the %zu bytes that are left of the %zu "
                "bytes that --memory allows",
                model->name, budget_left(&engine->budget), engine->budget.limit);
    engine_refuse_for(engine, letter, RETRY_MS, &error);
}

/* Put a busy model at the end of the engine's list, once. */
static void list(struct engine *engine, struct model *model)
{
    if (model->listed) {
        return;
    }
    model->listed = true;
    model->next_busy = NULL;
    if (engine->busy_first == NULL) {
        engine->busy_first = model;
    } else {
        engine->busy_last->next_busy = model;
    }
    engine->busy_last = model;
}

void flow_pull(struct engine *engine, struct model *model, struct letter *letter)
{
    bool at_once = !engine->visited || engine_may_do(engine, model->floats);
    if (model->copying_first == NULL && at_once) {
        switch (fill(engine, model, letter)) {
        case VIEW_FILLED:
            answer_pull(engine, model, letter);
            return;
        case VIEW_STALLED:
            if (can_fail(letter)) {
                refuse_pull(engine, model, letter);
                return;
            }
            break;
        case VIEW_MORE:
            break;
        }
    }
    append(&model->copying_first, &model->copying_last, letter);
    model->activity = MODEL_COPYING;
    list(engine, model);
}

/* ---------------------------------------------------------------- errands */

static bool errand_piece(struct engine *engine, struct model *model)
{
    struct errand *errand = model->errand;
    if (!errand->go_on(engine, model, errand)) {
        return false;
    }
    model->activity = MODEL_IDLE;
    model->errand = NULL;
    errand->letter->peer->queued--;
    errand->end(engine, model, errand);
    return true;
}

void flow_errand(struct engine *engine, struct model *model, struct errand *errand)
{
    model->activity = MODEL_ON_ERRAND;
    model->errand = errand;
    errand->letter->peer->queued++; /* its end comes after the errand's */
    while (!errand_piece(engine, model)) {
        if (!engine_may_do(engine, engine->turn_cost)) {
            list(engine, model);
            return;
        }
    }
    flow_settle(engine, model);
}

/* ---------------------------------------------------------------- work */

/* The batch came to its end, one way or the other. */
static void end_update(struct engine *engine, struct model *model,
                       enum update_progress progress, uint32_t tensor, uint64_t element)
{
    model->activity = MODEL_IDLE;
    if (progress == UPDATE_PARTLY) {
        stream_applied(engine, model);
    } else if (progress == UPDATE_DONE) {
        model->advanced = true;
        change_due(engine, model);
        round_applied(engine, model);
    } else {
        round_overflowed(engine, model, tensor, element);
    }
}

/* One piece of the update; false if it waits for readers. */
static bool update_piece(struct engine *engine, struct model *model)
{
    uint32_t tensor = 0;
    uint64_t element = 0;
    enum update_progress progress = update_run(engine, model, &tensor, &element);
    if (progress != UPDATE_MORE && progress != UPDATE_STALLED) {
        end_update(engine, model, progress, tensor, element);
    }
    return progress != UPDATE_STALLED;
}

void flow_update(struct engine *engine, struct model *model)
{
    view_outdated(model);
    update_start(engine, model, push_gradients(model), model->round_count);
    flow_run(engine, model);
}

void flow_run(struct engine *engine, struct model *model)
{
    model->activity = MODEL_UPDATING;
    bool at_once = engine_may_do(engine, update_cost(model));
    while (model->activity == MODEL_UPDATING) {
        if (!at_once || !update_piece(engine, model)) {
            list(engine, model);
            return;
        }
    }
}

/* One piece of the copies; false if it waits for readers. */
static bool copy_piece(struct engine *engine, struct model *model)
{
    struct letter *letter = model->copying_first;
    switch (fill(engine, model, letter)) {
    case VIEW_MORE:
        return true;
    case VIEW_STALLED:
        if (!can_fail(letter)) {
            return false;
        }
        take_first(&model->copying_first);
        refuse_pull(engine, model, letter);
        break;
    case VIEW_FILLED:
        take_first(&model->copying_first);
        answer_pull(engine, model, letter);
        break;
    }
    if (model->copying_first == NULL) {
        model->activity = MODEL_IDLE;
    }
    return true;
}

bool flow_turn(struct engine *engine)
{
    struct model *model = engine->busy_first;
    engine->busy_first = model->next_busy;
    model->listed = false;
    bool moved = true;
    if (model->activity == MODEL_ON_ERRAND) {
        errand_piece(engine, model);
    } else {
        moved = model->activity == MODEL_UPDATING ? update_piece(engine, model)
                                                  : copy_piece(engine, model);
    }
    if (model->activity != MODEL_IDLE) {
        list(engine, model);
    } else {
        flow_settle(engine, model);
    }
    return moved;
}

/* ---------------------------------------------------------------- the end */

void flow_refuse(struct engine *engine, struct model *model, enum opt_status status,
                 const char *why)
{
    enum opt_detail detail =
        status == OPT_UNAVAILABLE ? OPT_DETAIL_STOPPING : OPT_DETAIL_MODEL_GONE;
    struct waiting *waiting = model->waiting_first;
    model->waiting_first = NULL;
    model->waiting_last = NULL;
    while (waiting != NULL) {
        struct waiting *next = waiting->next;
        struct letter *letter = waiting->letter;
        alarm_cancel(&engine->alarms, &waiting->deadline);
        free(waiting);
        engine_fail(engine, letter, status, detail, "%s", why);
        waiting = next;
    }
    barrier_refuse(engine, model, status, detail, why);
    stream_close(engine, model, detail, why);
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (member->gathering != NULL) {
            round_withdraw(engine, member->gathering, status, detail, why);
        }
        while (member->last != NULL) {
            round_withdraw(engine, member->last, status, detail, why);
        }
    }
}

void flow_delete(struct engine *engine, struct model *model, const char *why)
{
    assert(model->activity == MODEL_IDLE);
    engine_remove_model(engine, model);
    model->deleted = true;
    model->next_dead = engine->dead;
    engine->dead = model;
    flow_refuse(engine, model, OPT_ABORTED, why);
    while (model->member_count > 0) {
        lease_forget(engine, model->members[model->member_count - 1]);
    }
    for (struct letter *letter; (letter = next_queued(model)) != NULL;) {
        engine_serve(engine, letter);
    }
}
