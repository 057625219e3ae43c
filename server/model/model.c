/* model — see model.h. */
#include "server/model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/region.h"
#include "server/base/version.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/spec_fit.h"
#include "server/rounds/consistency.h"
#include "server/rounds/push.h"
#include "server/update/update_memory.h"
#include "server/update/written.h"
#include "server/weights/segment.h"
#include "server/weights/shards.h"
#include "server/weights/snapshot.h"

enum {
    FREED = 8 << 20,        /* bytes at a time, */
    FREED_COST = 1 << 18,   /* which takes about so long, */
    VERSION_COST = 64 << 10 /* as does a version that has few */
};

void model_fill_slots(struct engine *engine, struct model *model, size_t *filled)
{
    enum { FILLED = 1 << 18 };
    size_t rest = model->floats - *filled, n = rest < FILLED ? rest : FILLED;
    size_t slots = 0;
    for (size_t i = 0; i < model->slot_count; i++) {
        bool copies = false;
        float start = opt_spec_slot_start(&model->spec, i, &copies);
        if (start != 0 && !copies) {
            slots++;
            for (size_t k = 0; k < n; k++) {
                model->slots[i][*filled + k] = start;
            }
        }
    }
    *filled += slots > 0 ? n : rest;
    work_done(engine, slots * n);
}

/* Versions of the last shards, and so on to the first. */
static size_t free_shards(struct model *model)
{
    size_t bytes = 0;
    while (model->shard_count > 0 && bytes < FREED) {
        size_t i = --model->shard_count;
        for (size_t view = 0; view < MIRROR_COUNT; view++) {
            if (model->mirrors[view] != NULL) {
                bytes += model->mirrors[view][i].version != NULL
                             ? model->shards[i].n * sizeof(float)
                             : 0;
                version_unref(model->mirrors[view][i].version);
            }
        }
        version_unref(model->shards[i].current);
        version_unref(model->shards[i].spare);
        bytes += VERSION_COST + model->shards[i].n * sizeof(float);
    }
    return bytes;
}

/* The end of a slab; true: all of it is gone. */
static bool cut(struct model *model, void *slab, size_t whole, size_t *freed)
{
    size_t before = model->left_bytes == 0 ? whole : model->left_bytes;
    model->left_bytes = memory_cut(slab, before, FREED);
    *freed = before - model->left_bytes;
    return model->left_bytes == 0;
}

/* Some bytes of the last slot, or of the tensors; 0: they are gone. */
static size_t free_slabs(struct model *model)
{
    size_t freed = 0, slot = model->slot_count - 1;
    if (model->slot_count > 0) {
        if (cut(model, model->slots[slot], model->floats * sizeof(float), &freed)) {
            model->slot_count--;
        }
    } else if (model->tensors != NULL) {
        if (cut(model, model->tensors, model_tensor_bytes(model->tensor_count),
                &freed)) {
            model->tensors = NULL;
        }
    }
    return freed;
}

static size_t free_push(struct model *model)
{
    struct push *push = model->spare_pushes;
    if (push == NULL) {
        return 0;
    }
    model->spare_pushes = push->next;
    push_free(push);
    return 1 + model->tensor_count * sizeof(uint32_t) + model->blocks * sizeof(void *);
}

static void free_rest(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < MIRROR_COUNT; i++) {
        free(model->mirrors[i]);
    }
    version_pool_close(model->pool);
    update_memory_fini(model);
    push_refund(engine, model);
    budget_give(&engine->budget, model->reserved);
    lost_workers_free(model);
    free(model->members);
    free(model->round);
    free(model->gradients);
    memory_free(model->shards, model->shards_bytes);
    free(model->tensor_names);
    free(model->shapes);
    change_free_all(engine, model);
    grouping_unref(engine, model->grouping);
    opt_spec_fini(&model->spec);
    free(model->names_at);
    free(model->created);
    free(model->name);
    free(model);
}

bool model_free_some(struct engine *engine, struct model *model)
{
    snapshot_lose(model);
    for (size_t bytes = 0, freed; bytes < FREED; bytes += freed) {
        freed = free_shards(model);
        freed = freed > 0 ? freed : free_slabs(model);
        freed = freed > 0 ? freed : written_cut(model, FREED);
        freed = freed > 0 ? freed : free_push(model);
        if (freed == 0) {
            free_rest(engine, model);
            return true;
        }
    }
    work_done(engine, FREED_COST);
    return false;
}

/* ---------------------------------------------------------------- differences */

static void print_tensor(const char *name, const uint64_t *shape, size_t rank,
                         bool sparse, char *text, size_t capacity)
{
    size_t used = (size_t)snprintf(text, capacity, "\"%.64s\" %s[", name,
                                   sparse ? "sparse " : "");
    for (size_t i = 0; i < rank && used < capacity; i++) {
        used += (size_t)snprintf(text + used, capacity - used, "%s%" PRIu64,
                                 i == 0 ? "" : ", ", shape[i]);
    }
    if (used < capacity) {
        snprintf(text + used, capacity - used, "]");
    }
}

bool model_tensor_differs(const struct model *model, size_t i,
                          const struct opt_tensor_entry *asked, char *text,
                          size_t capacity)
{
    const struct tensor *has = &model->tensors[i];
    if (strcmp(has->name, asked->name) == 0 && has->rank == asked->rank &&
        (has->width > 0) == asked->sparse &&
        (has->rank == 0 ||
         memcmp(has->shape, asked->shape, has->rank * sizeof *has->shape) == 0)) {
        return false;
    }
    char was[160], wanted[160];
    print_tensor(has->name, has->shape, has->rank, has->width > 0, was, sizeof was);
    print_tensor(asked->name, asked->shape, asked->rank, asked->sparse, wanted,
                 sizeof wanted);
    snprintf(text, capacity, "its tensor %zu is %s, not %s", i, was, wanted);
    return true;
}

/* What is not asked for fits whatever there is. */
static bool durability_differs(const struct model_durability *has,
                               const struct opt_create *asked, char *text,
                               size_t capacity)
{
    static const char *const names[] = { "default", "always", "interval",
                                         "checkpoint" };
    if (asked->durability != OPT_DURABILITY_DEFAULT && asked->durability != has->mode) {
        snprintf(text, capacity, "its durability is %s, not %s", names[has->mode],
                 names[asked->durability]);
        return true;
    }
    if (asked->checkpoint_steps != 0 &&
        asked->checkpoint_steps != has->checkpoint_steps) {
        snprintf(text, capacity, "its checkpoint_steps is %" PRIu64 ", not %" PRIu64,
                 has->checkpoint_steps, asked->checkpoint_steps);
        return true;
    }
    return false;
}

bool model_differs(const struct model *model, const struct opt_spec *spec,
                   const struct opt_create *create, char *text, size_t capacity)
{
    char *canonical = spec_fit_text(spec);
    bool same = canonical != NULL && (strcmp(canonical, model->canonical) == 0 ||
                                      strcmp(canonical, model->created) == 0);
    if (!same) {
        snprintf(text, capacity, "its specification is %s, not %s", model->canonical,
                 canonical == NULL ? "another one" : canonical);
    }
    free(canonical);
    return !same ||
           consistency_differs(&model->consistency, &create->consistency, text,
                               capacity) ||
           durability_differs(&model->durability, create, text, capacity);
}

/* ---------------------------------------------------------------- weights */

/* Some slots begin as the weights. They get them as these come: all at once would keep
 * everybody waiting for seconds if the model is large. */
static void copy_to_slots(const struct model *model, const struct shard *shard,
                          const float *weights, size_t n)
{
    for (size_t i = 0; i < model->slot_count; i++) {
        bool copies = false;
        opt_spec_slot_start(&model->spec, i, &copies);
        if (copies) {
            memcpy(shard->slots[i] + (weights - version_values(shard->current)),
                   weights, n * sizeof(float));
        }
    }
}

void model_assign(struct model *model, const struct opt_segment *segment,
                  enum opt_dtype dtype, const void *values)
{
    const uint8_t *from = values;
    const struct tensor *tensor = &model->tensors[segment->tensor];
    for (uint64_t done = 0; done < segment->count;) {
        size_t run;
        uint64_t offset = segment->offset + done;
        const struct shard *shard =
            segment_shard(model, segment->tensor, offset, segment->count - done, &run);
        float *to =
            version_values(shard->current) + (tensor->at + (size_t)offset - shard->at);
        opt_dtype_widen(dtype, from, to, run);
        copy_to_slots(model, shard, to, run);
        from += run * opt_dtype_size(dtype);
        done += run;
    }
}

void model_ready(struct engine *engine, struct model *model)
{
    model->ready = true;
    model->advanced = true;
    model->creator = NULL;
    commit_model(engine, COMMIT_READY, model);
}

enum opt_status model_share(struct engine *engine, struct model *model,
                            struct opt_error *error)
{
    if (version_pool_region(model->pool) != NULL) {
        return OPT_OK;
    }
    /* Weights, what comes after them while they are read, and the same of the training
     * view where that is another one. */
    size_t planes = opt_view_train_differs(&model->spec) ? 4 : 2;
    size_t bytes;
    if (!size_multiply(model->floats, planes * sizeof(float), &bytes)) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                           "the model is too large");
    }
    size_t *at = malloc(model->shard_count * sizeof *at);
    if (at == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory to share the weights of model \"%s\"",
                           model->name);
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        at[i] = model->shards[i].at;
    }
    struct region *region;
    enum opt_status status =
        region_new(REGION_WEIGHTS, bytes, &engine->budget, &region, error);
    if (status == OPT_OK) {
        if (!version_pool_share(model->pool, region, at, model->shard_count,
                                model->floats)) {
            status = opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                                 "no memory to share the weights of model \"%s\"",
                                 model->name);
        }
        region_unref(region);
    }
    free(at);
    for (size_t i = 0; status == OPT_OK && i < model->shard_count; i++) {
        version_free(model->shards[i].spare); /* the next one is to be in the file */
        model->shards[i].spare = NULL;
    }
    return status;
}
