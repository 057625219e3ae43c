/* pull — see pull.h. */
#include "server/rounds/pull.h"

#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/weights/last_pull.h"
#include "server/weights/shards.h"
#include "server/weights/view.h"

enum {
    FEW = 2048,    /* pieces, filled at once whatever has been done before */
    RETRY_MS = 200 /* told to readers whom the budget does not allow */
};

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
        answer_start(letter, OPT_MESSAGE_PULL)->body.pull = pull;
    } else {
        letter->reply.body.push_pull.pull = pull;
        view_unpin(model, letter_pull(letter));
    }
    engine->counters.pulls++;
    answer_send(engine, letter);
}

static bool is_member(const struct model *model, const struct letter *letter)
{
    const struct member *member = members_of(model, letter->peer);
    return member != NULL && member->joined;
}

/* Whether who is no worker of the model may hold the weights that the letter has: if
 * others hold old ones already, there must be memory for one version more, or a worker
 * would be refused for as long as observers read. */
static bool leaves_room(struct engine *engine, struct model *model,
                        const struct letter *letter)
{
    size_t version = model->floats * sizeof(float);
    if (model->joined == 0 || is_member(model, letter) || !shards_are_held(model)) {
        return true;
    }
    if (budget_left(&engine->budget) < version) {
        shards_trim(engine);
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
    struct member *member = members_of(model, letter->peer);
    return member == NULL || last_pull_note(model, &member->last_pull, letter)
               ? VIEW_FILLED
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
    answer_refuse_for(engine, letter, RETRY_MS, &error);
}

void pull_answer(struct engine *engine, struct model *model, struct letter *letter)
{
    /* To compute a view takes as long as an update. */
    bool little =
        letter->piece_count <= FEW && view_is_weights(model, letter_pull(letter));
    bool at_once = (!engine->visited || work_may_do(engine, model->floats)) &&
                   (little || work_may_do(engine, engine->turn_cost));
    if (model->copying.first == NULL && at_once) {
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
    letters_append(&model->copying, letter);
    model->activity = MODEL_COPYING;
    work_go_on(engine, model);
}

bool pull_go_on(struct engine *engine, struct model *model)
{
    struct letter *letter = model->copying.first;
    switch (fill(engine, model, letter)) {
    case VIEW_MORE:
        return true;
    case VIEW_STALLED:
        if (!can_fail(letter)) {
            return false;
        }
        letters_take(&model->copying);
        refuse_pull(engine, model, letter);
        break;
    case VIEW_FILLED:
        letters_take(&model->copying);
        answer_pull(engine, model, letter);
        break;
    }
    if (model->copying.first == NULL) {
        model->activity = MODEL_IDLE;
    }
    return true;
}
