/* stream — see stream.h. */
#include "server/engine/stream.h"

#include <stdio.h>
#include <string.h>

#include "server/engine/frames.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/part.h"
#include "server/engine/push.h"
#include "server/engine/round.h"
#include "server/engine/view.h"

enum opt_status stream_check(const struct opt_spec *spec, struct opt_error *error)
{
    const struct opt_options *options = &spec->options;
    const char *why =
        options->clip == OPT_CLIP_GLOBAL_NORM
            ? "clip(global_norm) needs the norm of the whole gradient first"
        : options->nonfinite == OPT_SKIP
            ? "nonfinite(skip) cannot skip what has been applied"
        : options->aggregate == OPT_SUM && options->nonfinite != OPT_PROPAGATE
            ? "aggregate(sum) must look for an overflow in the whole gradient first"
            : NULL;
    if (why == NULL) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "atomic is SHARD, but %s; it is possible with atomic ROUND", why);
}

bool stream_is_policy(const struct model *model)
{
    return model->consistency.atomic == OPT_ATOMIC_SHARD;
}

bool stream_is_open(const struct model *model)
{
    return model->stream.open;
}

void stream_changed(struct model *model)
{
    model->stream.changed = true;
}

/* ---------------------------------------------------------------- units */

/* Shards that are updated at once, from this one on: one, or those of a tensor whose
 * norms the update needs. */
static size_t unit_shards(const struct model *model, size_t shard)
{
    size_t first = model->shards[shard].first_tensor;
    const struct tensor *tensor = &model->tensors[first];
    struct opt_tensor_options options;
    model_tensor_options(model, first, &options);
    bool whole = options.layerwise || model->spec.options.clip == OPT_CLIP_TENSOR_NORM;
    return whole && tensor->n > OPT_SHARD ? (tensor->n + OPT_SHARD - 1) / OPT_SHARD : 1;
}

static bool is_complete(const struct push *push)
{
    return push->member->gathering != push;
}

static bool all_complete(const struct model *model)
{
    for (size_t i = 0; i < model->round_count; i++) {
        if (!is_complete(model->round[i])) {
            return false;
        }
    }
    return true;
}

/* Whether everybody has sent the unit of this shard. What a push that is complete does
 * not name will not come. */
static bool is_ready(const struct model *model, size_t shard)
{
    const struct shard *first = &model->shards[shard];
    const struct tensor *tensor = &model->tensors[first->first_tensor];
    bool several = unit_shards(model, shard) > 1;
    for (size_t i = 0; i < model->round_count; i++) {
        const struct push *push = model->round[i];
        if (!is_complete(push) &&
            (several ? push->gradient.covered[first->first_tensor] != tensor->blocks
                     : push->here[shard] != first->blocks)) {
            return false;
        }
    }
    return true;
}

static bool is_named(const struct model *model, uint32_t tensor)
{
    for (size_t i = 0; i < model->round_count; i++) {
        if (model->round[i]->gradient.covered[tensor] > 0) {
            return true;
        }
    }
    return false;
}

/* Put the blocks of a shard that the round names into the batch. */
static void add_shard(struct model *model, size_t index)
{
    struct shard *shard = &model->shards[index];
    for (size_t i = 0; i < shard->tensor_count; i++) {
        uint32_t number = (uint32_t)(shard->first_tensor + i);
        const struct tensor *tensor = &model->tensors[number];
        size_t first = (index - tensor->shard) * SHARD_BLOCKS;
        size_t end = first + SHARD_BLOCKS;
        bool again =
            tensor->width > 0 && index > tensor->shard; /* named by its first */
        if (is_named(model, number) && !again) {
            update_add(model, number, tensor->width > 0 ? 0 : first,
                       end < tensor->blocks ? end : tensor->blocks);
        }
    }
    shard->stage = SHARD_RUNNING;
}

/* The first unit from a shard on that is not done and is ready; shard_count: none. */
static size_t find_ready(const struct model *model, size_t from)
{
    size_t shard = from;
    while (shard < model->shard_count) {
        const struct shard *first = &model->shards[shard];
        if (first->stage == SHARD_WAITING && first->blocks > 0 &&
            is_ready(model, shard)) {
            break;
        }
        shard += unit_shards(model, shard);
    }
    return shard;
}

/* ---------------------------------------------------------------- batches */

/* Begin a batch of all units that are ready. False: none is. */
static bool run_ready(struct engine *engine, struct model *model)
{
    size_t shard = find_ready(model, 0);
    if (shard >= model->shard_count) {
        return false;
    }
    update_batch(model, push_gradients(model), model->round_count);
    while (shard < model->shard_count) {
        size_t end = shard + unit_shards(model, shard);
        for (; shard < end; shard++) {
            add_shard(model, shard);
        }
        shard = find_ready(model, shard);
    }
    update_batch_start(engine, model, false);
    model->activity = MODEL_UPDATING;
    return true;
}

/* Begin the last batch: all that has not been applied. */
static void run_rest(struct engine *engine, struct model *model)
{
    model->stream.open = false;
    round_take(engine, model);
    update_batch(model, push_gradients(model), model->round_count);
    for (size_t i = 0; i < model->shard_count; i++) {
        if (model->shards[i].stage == SHARD_WAITING) {
            add_shard(model, i);
        }
    }
    update_batch_start(engine, model, true);
    model->activity = MODEL_UPDATING;
}

/* What computed views show of a shard is old. */
static void outdate(struct model *model, size_t shard)
{
    for (size_t i = 0; i < MIRROR_COUNT; i++) {
        if (model->mirrors[i] != NULL) {
            model->mirrors[i][shard].step = UINT64_MAX;
        }
    }
}

void stream_applied(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->shard_count; i++) {
        if (model->shards[i].stage == SHARD_RUNNING) {
            model->shards[i].stage = SHARD_APPLIED;
            model->stream.applied++;
            outdate(model, i);
        }
    }
    part_send(engine, model);
    for (size_t i = 0; i < model->round_count; i++) {
        push_release(engine, model->round[i]);
    }
}

/* ---------------------------------------------------------------- the round */

/* List the pushes that the next round would be made of. False if somebody who is waited
 * for has not begun one. */
static bool list_begun(struct model *model)
{
    model->round_count = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        struct push *push = member->first;
        if (push == NULL && member->gathering != NULL && !member->gathering->echo) {
            push = member->gathering;
        }
        if (push != NULL) {
            model->round[model->round_count++] = push;
        } else if (member->joined && !member->resting) {
            return false;
        }
    }
    return model->round_count > 0;
}

bool stream_open(struct engine *engine, struct model *model)
{
    struct stream *stream = &model->stream;
    if (!stream_is_policy(model) || !stream->changed || !model->gathered) {
        return false;
    }
    stream->changed = false;
    for (size_t i = 0; i < model->shard_count; i++) {
        model->shards[i].stage = SHARD_WAITING;
    }
    if (!list_begun(model) || find_ready(model, 0) >= model->shard_count) {
        model->round_count = 0;
        return false;
    }
    stream->open = true;
    stream->applied = 0;
    view_outdated(model);
    update_begin(engine, model);
    return run_ready(engine, model);
}

/* Those that came to their end while a batch was reading them. */
static void expire(struct engine *engine, struct model *model)
{
    for (size_t i = model->round_count; i-- > 0;) {
        struct push *push = model->round[i];
        if (push->over) {
            frames_drop(engine, push->member);
        } else if (push->overdue) {
            round_expire(engine, push);
        }
    }
}

bool stream_go_on(struct engine *engine, struct model *model)
{
    struct stream *stream = &model->stream;
    expire(engine, model);
    if (!stream->changed) {
        return false;
    }
    stream->changed = false;
    if (!all_complete(model)) {
        return run_ready(engine, model);
    }
    run_rest(engine, model);
    return true;
}

/* ---------------------------------------------------------------- who takes part */

bool stream_has(const struct push *push)
{
    const struct model *model = push == NULL ? NULL : push->model;
    for (size_t i = 0; model != NULL && model->stream.open && i < model->round_count;
         i++) {
        if (model->round[i] == push) {
            return true;
        }
    }
    return false;
}

bool stream_is_using(const struct push *push)
{
    return stream_has(push) && push->model->activity == MODEL_UPDATING;
}

void stream_withdraw(struct push *push)
{
    struct model *model = push->model;
    if (!stream_has(push)) {
        return;
    }
    size_t place = 0;
    while (model->round[place] != push) {
        place++;
    }
    model->round_count--;
    memmove(model->round + place, model->round + place + 1,
            (model->round_count - place) * sizeof(struct push *));
    model->stream.changed = true;
}

void stream_fail(struct engine *engine, struct model *model, enum opt_detail detail,
                 const char *why)
{
    while (model->stream.open && model->round_count > 0) {
        round_withdraw(engine, model->round[model->round_count - 1], OPT_ABORTED,
                       detail, why);
    }
}

void stream_close(struct engine *engine, struct model *model, enum opt_detail detail,
                  const char *why)
{
    stream_fail(engine, model, detail, why);
    model->stream.open = false;
}
