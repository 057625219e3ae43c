/* share — memory in common with a worker of this machine. */
#include "server/base/region.h"
#include "server/base/version.h"
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/rounds/waiting.h"
#include "server/workers/worker.h"

enum { RETRY_MS = 10 };

void serve_share(struct engine *engine, struct letter *letter)
{
    struct model *model = registry_model(engine, letter, letter->request.body.share);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct opt_error error;
    struct opt_share_reply reply = { 0 };
    struct region **offers = letter->offers;
    const struct member *member = members_of(model, letter->peer);
    enum opt_status status = model_share(engine, model, &error);
    /* A whole table's gradient for a few rows would be too much: they are sent. */
    if (status == OPT_OK && member != NULL && member->joined &&
        push_is_reserved_whole(model)) {
        reply.gradient_bytes = model->floats * sizeof(float);
        status = region_new(REGION_GRADIENTS, reply.gradient_bytes, &engine->budget,
                            &offers[LETTER_GRADIENTS], &error);
    }
    if (status == OPT_UNAVAILABLE) {
        answer_refuse_for(engine, letter, RETRY_MS, &error);
        return;
    }
    if (status != OPT_OK) {
        answer_refuse(engine, letter, &error);
        return;
    }
    offers[LETTER_WEIGHTS] = region_ref(version_pool_region(model->pool));
    reply.weight_bytes = region_size(offers[LETTER_WEIGHTS]);
    answer_start(letter, OPT_MESSAGE_SHARE)->body.share = reply;
    answer_send(engine, letter);
}
