/* open — an existing model; and what create and open answer. */
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/fate.h"
#include "server/rounds/waiting.h"
#include "server/workers/membership.h"

bool serve_model_reply(struct engine *engine, struct letter *letter,
                       struct model *model, bool join, bool created)
{
    const struct peer *peer = letter->peer;
    if (join) {
        struct opt_error error;
        enum opt_status status = membership_join(engine, model, letter->peer, &error);
        if (status != OPT_OK) {
            answer_refuse(engine, letter, &error);
            return false;
        }
        membership_allow(peer, letter);
    }
    const struct member *member = members_of(model, peer);
    struct opt_model_reply reply = {
        .model = model->number,
        .created = created,
        .ready = model->ready,
        .step = model->step,
        .tensors = model->tensor_count,
        .parameters = model->parameters,
        .workers = (uint32_t)model->joined,
        .specification = letter_text(letter, model->canonical),
        .identity = model->identity,
        .inflight_bytes = membership_inflight(engine, letter),
    };
    if (member != NULL) {
        reply.lost_step = member->lost_step;
        if (!fate_report(member, letter, &reply)) {
            answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                        "no memory to say what became of pushes");
            return false;
        }
    }
    answer_start(letter, OPT_MESSAGE_CREATE)->body.model = reply;
    answer_send(engine, letter);
    /* Somebody more: enough may have come together now. */
    work_settle(engine, model);
    return true;
}

void serve_open(struct engine *engine, struct letter *letter)
{
    const struct opt_open *open = &letter->request.body.open;
    if (open->join && letter->peer->observer) {
        answer_fail(engine, letter, OPT_PERMISSION_DENIED, OPT_DETAIL_OBSERVER,
                    "an observer may not join a model; say hello with a worker's name");
        return;
    }
    struct model *model = registry_named(engine, letter, open->model);
    if (model != NULL && !waiting_postponed(engine, model, letter, false)) {
        serve_model_reply(engine, letter, model, open->join, false);
    }
}
