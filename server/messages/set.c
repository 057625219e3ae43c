/* set — options of a model that runs get other values. */
#include "server/engine/answers.h"
#include "server/engine/change.h"
#include "server/engine/events.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/registry.h"
#include "server/engine/waiting.h"
#include "server/messages/serve.h"

static void answer(struct engine *engine, struct letter *letter,
                   const struct stated *stated)
{
    event_options_set(letter->request.body.set.model, letter->peer, stated->step,
                      stated->text);
    engine_reply(letter, OPT_MESSAGE_SET)->body.set =
        (struct opt_set_reply){ .step = stated->step,
                                .specification = letter_text(letter, stated->text) };
    engine_return(engine, letter);
}

void serve_set(struct engine *engine, struct letter *letter)
{
    const struct opt_set *set = &letter->request.body.set;
    struct model *model = engine_model_named(engine, letter, set->model);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    if (model->schedule.open) { /* its step has begun with the options that are */
        waiting_for_step(engine, model, letter, model->step + 1);
        return;
    }
    change_state(engine, model, letter, answer);
}
