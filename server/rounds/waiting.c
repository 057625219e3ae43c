/* waiting — see waiting.h. */
#include "server/rounds/waiting.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>

#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"

bool waiting_postponed(struct engine *engine, struct model *model,
                       struct letter *letter, bool needs_weights)
{
    if (model->activity != MODEL_IDLE) {
        letters_append(&model->queue, letter);
        letter->peer->queued++;
        return true;
    }
    if (needs_weights && !model->ready) {
        waiting_for_step(engine, model, letter, 0);
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
        answer_fail(
            engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NOT_READY,
            "model \"%s\" is not ready: its creator has not assigned all weights",
            model->name);
        return;
    }
    char missing[OPT_ERROR_TEXT / 2];
    closing_missing(model, missing, sizeof missing);
    if (letter->request.message == OPT_MESSAGE_WAIT &&
        letter->request.body.wait.epoch > model_epoch(model)) {
        answer_fail(
            engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER,
            "model \"%.100s\" has had %" PRIu64 " sync epochs, not %" PRIu64 ": %s",
            model->name, model_epoch(model), letter->request.body.wait.epoch, missing);
        return;
    }
    answer_fail(engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER,
                "model \"%.100s\" has had %" PRIu64 " updates, not %" PRIu64 ": %s",
                model->name, model->step, step, missing);
}

void waiting_for_step(struct engine *engine, struct model *model, struct letter *letter,
                      uint64_t step)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);
    if (waiting == NULL || !alarm_set(&engine->alarms, &waiting->deadline,
                                      answer_deadline(engine, letter), on_deadline)) {
        free(waiting);
        answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
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

void waiting_closed(struct engine *engine, const struct peer *peer)
{
    for (size_t i = 0; i < engine->model_count; i++) {
        struct waiting *waiting = engine->numbered[i]->waiting_first;
        while (waiting != NULL) {
            struct waiting *next = waiting->next;
            if (waiting->letter->peer == peer) {
                answer_nothing(engine, stop_waiting(engine, waiting));
            }
            waiting = next;
        }
    }
}

void waiting_wake(struct engine *engine, struct model *model)
{
    struct waiting **link = &model->waiting_first;
    model->advanced = false;
    model->waiting_last = NULL;
    while (*link != NULL) {
        struct waiting *waiting = *link;
        if (model->ready && model->step >= waiting->step) {
            *link = waiting->next;
            alarm_cancel(&engine->alarms, &waiting->deadline);
            work_serve(engine, waiting->letter);
            free(waiting);
        } else {
            model->waiting_last = waiting;
            link = &waiting->next;
        }
    }
}

bool waiting_next(struct engine *engine, struct model *model)
{
    struct letter *letter = letters_take(&model->queue);
    if (letter == NULL) {
        return false;
    }
    letter->peer->queued--;
    work_serve(engine, letter);
    return true;
}

void waiting_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    enum opt_detail detail, const char *why)
{
    while (model->waiting_first != NULL) {
        struct letter *letter = stop_waiting(engine, model->waiting_first);
        answer_fail(engine, letter, status, detail, "%s", why);
    }
}
