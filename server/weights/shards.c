/* shards — see shards.h. */
#include "server/weights/shards.h"

#include <stdlib.h>
#include <string.h>

#include "server/base/slabs.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/model/model.h"

enum { SPARE_IDLE = 16 /* updates after which a spare that was used once is freed */ };

/* ---------------------------------------------------------------- spares */

bool shard_outgrew(const struct model *model, const struct version *version)
{
    return version_pool_region(model->pool) != NULL && version_plane(version) < 0;
}

void shards_collect(struct model *model)
{
    struct version *version = version_pool_returned(model->pool);
    while (version != NULL) {
        struct version *next = version_next(version);
        size_t number = version_number(version);
        if (number < model->shard_count && model->shards[number].spare == NULL &&
            !shard_outgrew(model, version)) {
            model->shards[number].spare = version;
            model->shards[number].idle_updates = 0;
        } else {
            version_free(version);
        }
        version = next;
    }
}

bool shard_back(struct engine *engine, struct model *model, struct shard *shard)
{
    if (shard->spare != NULL) {
        return true;
    }
    shards_collect(model);
    if (shard->spare != NULL) {
        return true;
    }
    size_t number = (size_t)(shard - model->shards);
    shard->spare = version_new(model->pool, shard->n, number);
    if (shard->spare == NULL) {
        shards_trim(engine);
        shard->spare = version_new(model->pool, shard->n, number);
    }
    shard->idle_updates = 0;
    return shard->spare != NULL;
}

bool shards_are_held(struct model *model)
{
    shards_collect(model);
    size_t known = model->shard_count;
    for (size_t i = 0; i < model->shard_count; i++) {
        known += model->shards[i].spare != NULL;
    }
    for (size_t view = 0; view < MIRROR_COUNT; view++) {
        for (size_t i = 0; model->mirrors[view] != NULL && i < model->shard_count;
             i++) {
            known += model->mirrors[view][i].version != NULL;
        }
    }
    return version_pool_alive(model->pool) > known;
}

/* An update did not need the shard's spare: after enough of them it is freed. */
static void spare_idle(struct shard *shard)
{
    /* One in a file that is shared would give no memory back. */
    if (shard->spare != NULL && version_plane(shard->spare) < 0 &&
        ++shard->idle_updates >= SPARE_IDLE) {
        version_free(shard->spare);
        shard->spare = NULL;
    }
}

/* ---------------------------------------------------------------- views */

void shards_drop_view(struct model *model, size_t view)
{
    for (size_t i = 0; model->mirrors[view] != NULL && i < model->shard_count; i++) {
        version_unref(model->mirrors[view][i].version);
    }
    free(model->mirrors[view]);
    model->mirrors[view] = NULL;
}

void shards_outdate_view(struct model *model, size_t view)
{
    struct mirror *mirrors = model->mirrors[view];
    for (size_t i = 0; mirrors != NULL && i < model->shard_count; i++) {
        mirrors[i].step = UINT64_MAX;
    }
}

void shards_trim(struct engine *engine)
{
    for (size_t m = 0; m < engine->model_count; m++) {
        struct model *model = engine->numbered[m];
        if (model->making) {
            continue;
        }
        slabs_trim(model->update.slabs[0]);
        slabs_trim(model->update.slabs[1]);
        shards_collect(model);
        for (size_t i = 0; i < model->shard_count; i++) {
            struct shard *shard = &model->shards[i];
            if (!version_held(shard->current)) {
                version_free(shard->spare);
                shard->spare = NULL;
            }
        }
        for (size_t i = 0; i < MIRROR_COUNT && model->activity == MODEL_IDLE; i++) {
            if (model->mirror_pins[i] == 0) {
                shards_drop_view(model, i);
            }
        }
        shards_collect(model);
    }
}

/* ---------------------------------------------------------------- updates */

/* What the update writes, or has written, of the shard beside one of a large tensor, or
 * NULL. */
static const struct version *neighbour(const struct model *model,
                                       const struct shard *shard)
{
    const struct tensor *tensor = &model->tensors[shard->first_tensor];
    const struct shard *first = &model->shards[tensor->shard];
    const struct shard *end = first + (tensor->n + OPT_SHARD - 1) / OPT_SHARD;
    if (shard > first && shard[-1].next != NULL) {
        return shard[-1].next;
    }
    if (shard + 1 < end && shard[1].next != NULL) {
        return shard[1].next;
    }
    return shard > first && shard[-1].published ? shard[-1].current : NULL;
}

/* Whether the update had better not write in place though nobody reads the shard: to
 * bring it to where workers of this machine can read it, and all of a tensor into one
 * plane, so that they find it in one piece. */
static bool had_better_move(const struct model *model, const struct shard *shard)
{
    if (version_pool_region(model->pool) == NULL) {
        return false;
    }
    const struct version *beside = neighbour(model, shard);
    return shard_outgrew(model, shard->current) ||
           (beside != NULL && version_plane(beside) != version_plane(shard->current));
}

/* Copy what the update does not write into the version that it writes. */
static uint64_t carry_over(const struct model *model, const struct shard *shard,
                           const uint8_t *written)
{
    uint64_t copied = 0;
    for (size_t i = 0; i < shard->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[shard->first_tensor + i];
        if (written == NULL || written[shard->first_tensor + i] == 0 ||
            tensor->width > 0) {
            /* A tensor of several shards is in each of them alone. */
            size_t from = tensor->at > shard->at ? tensor->at - shard->at : 0;
            size_t n = tensor->n < shard->n ? tensor->n : shard->n;
            memcpy(version_values(shard->next) + from,
                   version_values(shard->current) + from, n * sizeof(float));
            copied += n;
        }
    }
    return copied;
}

bool shard_open(struct engine *engine, struct model *model, struct shard *shard,
                const uint8_t *written, uint64_t *copied)
{
    if (shard->next != NULL) {
        return true;
    }
    bool held = version_held(shard->current);
    bool moves = held || had_better_move(model, shard);
    if (moves && !shard_back(engine, model, shard)) {
        if (held) {
            return false;
        }
        moves = false;
    }
    shard->opened = model->opened;
    model->opened = shard;
    if (!moves) {
        shard->next = shard->current;
        spare_idle(shard);
        return true;
    }
    shard->next = shard->spare;
    shard->spare = NULL;
    engine->counters.versions_fresh++;
    *copied += carry_over(model, shard, written);
    return true;
}

void shard_publish(struct model *model, struct shard *shard)
{
    size_t number = (size_t)(shard - model->shards);
    if (shard->next != shard->current) {
        version_unref(shard->current);
        shard->current = shard->next;
    }
    shard->changed = model->step + 1;
    shard->published = true;
    /* Between two batches of an update the step is the same as before. */
    for (size_t view = 0; view < MIRROR_COUNT; view++) {
        if (model->mirrors[view] != NULL) {
            model->mirrors[view][number].step = UINT64_MAX;
        }
    }
}

void shards_close(struct model *model)
{
    while (model->opened != NULL) {
        struct shard *shard = model->opened;
        model->opened = shard->opened;
        shard_publish(model, shard);
        shard->next = NULL;
    }
}
