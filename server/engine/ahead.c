/* ahead — see ahead.h. */
#include "server/engine/ahead.h"

#include "common/optim/update.h"
#include "server/engine/model.h"
#include "server/engine/part.h"
#include "server/engine/published.h"
#include "server/engine/push.h"
#include "server/engine/team.h"
#include "server/letter.h"

enum { AHEAD_ELEMENTS = 1 << 18 }; /* of a smaller update the answer has all */

/* All frames are here: what the last of them says is what will be pulled. */
static void ask_again(struct push *push)
{
    const struct opt_request *request = &push->answer->request;
    bool pulls =
        request->message == OPT_MESSAGE_PUSH_PULL && request->body.push_pull.has_pull;
    push->wishes = false;
    part_wish(push, pulls ? &request->body.push_pull.pull : NULL);
}

void ahead_begin(struct model *model)
{
    struct update *update = &model->update;
    if (update->elements <= AHEAD_ELEMENTS ||
        opt_update_synchronises(&update->scalars)) {
        return;
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        model->shards[i].stage = SHARD_WAITING;
        model->shards[i].unstepped = 0;
    }
    for (size_t i = 0; i < model->round_count; i++) {
        ask_again(model->round[i]);
    }
    for (size_t i = 0; i < update->span_count; i++) {
        const struct tensor *tensor = &model->tensors[update->spans[i].tensor];
        for (size_t block = 0; block < tensor->blocks; block += SHARD_BLOCKS) {
            size_t rest = tensor->blocks - block;
            struct shard *shard = &model->shards[tensor->shard + block / SHARD_BLOCKS];
            update->ahead += shard->unstepped == 0;
            shard->unstepped += rest < SHARD_BLOCKS ? rest : SHARD_BLOCKS;
        }
    }
}

/* From now on others may refer to what the update has written. */
static void publish(const struct model *model, struct shard *shard)
{
    if (shard->current != shard->next) {
        version_unref(shard->current);
        shard->current = shard->next;
    }
    shard->changed = model->step + 1;
    shard->stage = SHARD_APPLIED;
}

void ahead_stepped(struct engine *engine, struct model *model, const struct work *work,
                   size_t count)
{
    size_t before = model->update.ahead;
    for (size_t i = 0; i < count; i++) {
        /* A tensor that is stepped whole lies in one shard. */
        const struct tensor *tensor = &model->tensors[work[i].tensor];
        bool whole = work[i].block == WORK_WHOLE;
        struct shard *shard =
            &model->shards[tensor->shard + (whole ? 0 : work[i].block / SHARD_BLOCKS)];
        shard->unstepped -= whole ? tensor->blocks : 1;
        if (shard->unstepped == 0) {
            publish(model, shard);
            model->update.ahead--;
        }
    }
    /* With the last of them the answers leave too. */
    if (model->update.ahead == before || model->update.ahead == 0) {
        return;
    }
    part_send(engine, model);
    for (size_t i = 0; i < model->round_count; i++) {
        push_release(engine, model->round[i]);
    }
}
