/* set — options of a model that runs get other values. */
#include "server/engine/change.h"
#include "server/engine/flow.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/messages/serve.h"

void serve_set(struct engine *engine, struct letter *letter)
{
    const struct opt_set *set = &letter->request.body.set;
    struct model *model = engine_model_named(engine, letter, set->model);
    if (model == NULL || flow_postponed(engine, model, letter, false)) {
        return;
    }
    if (stream_is_open(model)) { /* its step has begun with the options that are */
        flow_wait(engine, model, letter, model->step + 1);
        return;
    }
    uint64_t step;
    const char *text;
    struct opt_error error;
    enum opt_status status = change_state(engine, model, set, &step, &text, &error);
    if (status != OPT_OK) {
        engine_fail(engine, letter, status, "%s", error.text);
        return;
    }
    engine_reply(letter, OPT_MESSAGE_SET)->body.set =
        (struct opt_set_reply){ .step = step,
                                .specification = letter_text(letter, text) };
    engine_return(engine, letter);
}
