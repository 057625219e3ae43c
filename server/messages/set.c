/* set — options of a model that runs get other values. */
#include "server/engine/answer.h"
#include "server/engine/events.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/change.h"
#include "server/model/model.h"
#include "server/rounds/waiting.h"

static void answer(struct engine *engine, struct letter *letter,
                   const struct stated *stated)
{
    event_options_set(letter->request.body.set.model, letter->peer, stated->step,
                      stated->text);
    answer_start(letter, OPT_MESSAGE_SET)->body.set =
        (struct opt_set_reply){ .step = stated->step,
                                .specification = letter_text(letter, stated->text) };
    answer_send(engine, letter);
}

void serve_set(struct engine *engine, struct letter *letter)
{
    const struct opt_set *set = &letter->request.body.set;
    struct model *model = registry_named(engine, letter, set->model);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    if (model->schedule.open) { /* its step has begun with the options that are */
        waiting_for_step(engine, model, letter, model->step + 1);
        return;
    }
    change_state(engine, model, letter, answer);
}
