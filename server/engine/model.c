/* model — see model.h. */
#include "server/engine/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/random.h"
#include "server/engine/consistency.h"
#include "server/engine/inside.h"
#include "server/engine/published.h"
#include "server/engine/push.h"
#include "server/engine/region.h"
#include "server/engine/segment.h"
#include "server/engine/shards.h"
#include "server/engine/update_memory.h"
#include "server/engine/work.h"

enum {
    ALIGNED_FLOATS = 16 /* a tensor starts at a multiple of 64 bytes */
};

static size_t aligned(size_t n)
{
    return (n + ALIGNED_FLOATS - 1) / ALIGNED_FLOATS * ALIGNED_FLOATS;
}

/* Where tensors and shards lie. */
struct layout {
    size_t floats, shards, blocks, largest;
    size_t open;        /* floats of the shard that small tensors are put into, or 0 */
    size_t first_shard; /* of the last tensor added */
    size_t words;       /* bytes of names and shapes */
};

static void layout_add(struct layout *layout, size_t n, bool sparse)
{
    size_t room = aligned(n);
    if (n > OPT_SHARD || sparse) {
        layout->first_shard = layout->shards;
        layout->shards += (n + OPT_SHARD - 1) / OPT_SHARD;
        layout->open = 0;
    } else if (layout->open > 0 && layout->open + room <= OPT_SHARD) {
        layout->open += room;
    } else {
        layout->first_shard = layout->shards++;
        layout->open = room;
    }
    layout->floats += room;
    if (sparse) {
        return;
    }
    layout->blocks += (n + OPT_BLOCK - 1) / OPT_BLOCK;
    if (n > layout->largest) {
        layout->largest = n;
    }
}

static struct layout layout_of(const struct opt_tensor_entry *tensors, size_t count)
{
    struct layout layout = { 0 };
    for (size_t i = 0; i < count; i++) {
        layout_add(&layout, (size_t)tensors[i].elements, tensors[i].sparse);
        layout.words +=
            strlen(tensors[i].name) + 1 + tensors[i].rank * sizeof *tensors[i].shape;
    }
    return layout;
}

/* Bytes beside weights: slots, scratch, tables. */
static bool bytes_beside(const struct opt_spec *spec, const struct layout *layout,
                         size_t tensors, size_t *out)
{
    const char *names[OPT_SLOTS_MAX];
    size_t slots, tables, shards;
    return size_multiply(layout->floats, sizeof(float), &slots) &&
           size_multiply(slots, opt_spec_slots(spec, names), &slots) &&
           size_multiply(tensors, sizeof(struct tensor) + sizeof(uint32_t), &tables) &&
           size_add(tables, opt_spec_bytes(spec) + 2 * opt_spec_print(spec, NULL, 0),
                    &tables) &&
           size_multiply(layout->shards, sizeof(struct shard), &shards) &&
           size_add(tables, shards, &tables) &&
           size_add(tables, layout->words + sizeof(struct model), &tables) &&
           size_add(tables,
                    update_memory_bytes(tensors, layout->shards, layout->blocks,
                                        update_memory_scratch(spec, layout->largest)),
                    &tables) &&
           size_add(slots, tables, out);
}

static bool bytes_all(const struct opt_spec *spec, const struct layout *layout,
                      size_t tensors, size_t *out)
{
    size_t weights, beside;
    return size_multiply(layout->floats, sizeof(float), &weights) &&
           bytes_beside(spec, layout, tensors, &beside) &&
           size_add(weights, beside, out);
}

static enum opt_status check_budget(struct engine *engine,
                                    const struct model_plan *plan,
                                    const struct layout *layout,
                                    struct opt_error *error)
{
    size_t need;
    if (!bytes_all(plan->spec, layout, plan->tensor_count, &need)) {
        need = SIZE_MAX;
    }
    if (need > budget_left(&engine->budget)) {
        shards_trim(engine);
    }
    size_t left = budget_left(&engine->budget);
    if (need > left) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
            "model \"%s\" needs %zu bytes for weights, slots and scratch, "
            "but %zu of the %zu bytes that --memory allows are left",
            plan->name, need, left, engine->budget.limit);
    }
    return OPT_OK;
}

static const char *name_of(const void *of, size_t i, size_t *size)
{
    const struct model *model = of;
    *size = model->names_at[i + 1] - model->names_at[i] - 1;
    return model->tensor_names + model->names_at[i];
}

static bool copy_tensors(struct model *model, const struct model_plan *plan)
{
    size_t text = 1, dimensions = 1;
    for (size_t i = 0; i < plan->tensor_count; i++) {
        text += strlen(plan->tensors[i].name) + 1;
        dimensions += plan->tensors[i].rank;
    }
    size_t size = (plan->tensor_count + 1) * sizeof *model->tensors;
    model->tensors = aligned_alloc(_Alignof(struct tensor), size);
    model->tensor_names = malloc(text);
    model->shapes = malloc(dimensions * sizeof *model->shapes);
    model->names_at = malloc((plan->tensor_count + 1) * sizeof *model->names_at);
    if (model->tensors == NULL || model->tensor_names == NULL ||
        model->names_at == NULL || model->shapes == NULL) {
        return false;
    }
    memset(model->tensors, 0, size);
    char *name = model->tensor_names;
    uint64_t *shape = model->shapes;
    struct layout layout = { 0 };
    for (size_t i = 0; i < plan->tensor_count; i++) {
        const struct opt_tensor_entry *entry = &plan->tensors[i];
        struct tensor *tensor = &model->tensors[i];
        size_t bytes = strlen(entry->name) + 1;
        memcpy(name, entry->name, bytes);
        tensor->name = name;
        model->names_at[i] = (uint32_t)(name - model->tensor_names);
        name += bytes;
        tensor->rank = entry->rank;
        if (entry->rank > 0) { /* a scalar has no shape to copy */
            memcpy(shape, entry->shape, entry->rank * sizeof *shape);
            tensor->shape = shape;
            shape += entry->rank;
        }
        tensor->n = (size_t)entry->elements;
        if (entry->sparse) {
            tensor->rows = (size_t)entry->shape[0];
            tensor->width = tensor->n / tensor->rows;
            model->sparse_parameters += entry->elements;
        }
        tensor->at = layout.floats;
        tensor->first_block = layout.blocks;
        layout_add(&layout, tensor->n, entry->sparse);
        tensor->blocks = layout.blocks - tensor->first_block;
        tensor->shard = layout.first_shard;
        tensor->counters.mu_product = 1;
        model->parameters += entry->elements;
    }
    model->names_at[plan->tensor_count] = (uint32_t)(name - model->tensor_names);
    model->named =
        (struct opt_named){ .name = name_of, .of = model, .count = plan->tensor_count };
    model->tensor_count = plan->tensor_count;
    model->blocks = layout.blocks;
    model->floats = layout.floats;
    model->shard_count = layout.shards;
    return true;
}

static bool make_shards(struct model *model)
{
    model->shards = calloc(model->shard_count + 1, sizeof *model->shards);
    if (model->shards == NULL) {
        return false;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[i];
        size_t rest = tensor->n;
        for (size_t k = 0; rest > 0; k++) {
            size_t n = rest > OPT_SHARD ? OPT_SHARD : rest;
            struct shard *shard = &model->shards[tensor->shard + k];
            if (shard->tensor_count == 0) {
                shard->at = tensor->at + k * OPT_SHARD;
                shard->first_tensor = i;
            }
            shard->n += aligned(n);
            shard->blocks += tensor->width > 0 ? 0 : (n + OPT_BLOCK - 1) / OPT_BLOCK;
            shard->tensor_count++;
            rest -= n;
        }
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        model->shards[i].current = version_new(model->pool, model->shards[i].n, i);
        if (model->shards[i].current == NULL) {
            return false;
        }
    }
    return true;
}

static bool make_slots(struct model *model)
{
    model->slot_count = opt_spec_slots(&model->spec, model->slot_names);
    for (size_t i = 0; i < model->slot_count; i++) {
        float *slot = memory_new(model->floats * sizeof(float));
        if (slot == NULL) {
            return false;
        }
        model->slots[i] = slot;
    }
    return true;
}

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

enum opt_status model_check_sparse(struct engine *engine, const struct model *model,
                                   const struct opt_spec *spec,
                                   const struct grouping *grouping, size_t *checked,
                                   struct opt_error *error)
{
    enum { CHECKED = 16384, COST = 16 };
    enum opt_status status = OPT_OK;
    size_t rest = model->tensor_count - *checked;
    size_t end = *checked + (rest < CHECKED ? rest : CHECKED);
    work_done(engine, COST * (uint64_t)(end - *checked));
    for (; status == OPT_OK && *checked < end; ++*checked) {
        const struct tensor *tensor = &model->tensors[*checked];
        struct opt_tensor_options options;
        if (tensor->width > 0) {
            opt_group_options(spec, grouping->of[*checked], tensor->rank, &options);
            status = opt_spec_check_sparse(spec, tensor->name, &options, error);
        }
    }
    return status;
}

char *model_print_spec(const struct opt_spec *spec)
{
    size_t size = opt_spec_print(spec, NULL, 0) + 1;
    char *text = malloc(size);
    if (text != NULL) {
        opt_spec_print(spec, text, size);
    }
    return text;
}

enum opt_status model_new(struct engine *engine, const struct model_plan *plan,
                          struct model **out, struct opt_error *error)
{
    struct layout layout = layout_of(plan->tensors, plan->tensor_count);
    enum opt_status status = check_budget(engine, plan, &layout, error);
    if (status != OPT_OK) {
        return status;
    }
    struct model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        goto fail;
    }
    size_t beside;
    if (!bytes_beside(plan->spec, &layout, plan->tensor_count, &beside) ||
        !budget_take(&engine->budget, beside)) {
        goto fail;
    }
    model->reserved = beside;
    opt_spec_share(&model->spec, plan->spec);
    model->consistency = plan->consistency;
    model->name = strdup(plan->name);
    model->created = model_print_spec(plan->spec);
    model->canonical = model->created;
    model->pool = version_pool_new(&engine->budget);
    if (!opt_random_identity(&model->identity) || model->name == NULL ||
        model->created == NULL || model->pool == NULL || !copy_tensors(model, plan) ||
        (model->grouping = grouping_new(engine, model->tensor_count)) == NULL ||
        !make_shards(model) || !make_slots(model) || !update_memory_init(model)) {
        goto fail;
    }
    *out = model;
    return OPT_OK;

fail:
    model_free(engine, model);
    return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                       "the system has no memory for model \"%s\", although --memory "
                       "would allow it",
                       plan->name);
}

void model_free(struct engine *engine, struct model *model)
{
    if (model == NULL) {
        return;
    }
    for (size_t i = 0; i < MIRROR_COUNT; i++) {
        shards_drop_view(model, i);
    }
    for (size_t i = 0; model->shards != NULL && i < model->shard_count; i++) {
        version_unref(model->shards[i].current);
        version_unref(model->shards[i].spare);
    }
    version_pool_close(model->pool);
    for (size_t i = 0; i < model->slot_count; i++) {
        memory_free(model->slots[i], model->floats * sizeof(float));
    }
    update_memory_fini(model);
    while (model->spare_pushes != NULL) {
        struct push *next = model->spare_pushes->next;
        push_free(model->spare_pushes);
        model->spare_pushes = next;
    }
    push_refund(engine, model);
    budget_give(&engine->budget, model->reserved);
    losses_free(model);
    free(model->members);
    free(model->round);
    free(model->gradients);
    free(model->shards);
    free(model->tensors);
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

static bool tensor_differs(const struct model *model, const struct model_plan *plan,
                           char *text, size_t capacity)
{
    if (model->tensor_count != plan->tensor_count) {
        snprintf(text, capacity, "it has %zu tensors, not %zu", model->tensor_count,
                 plan->tensor_count);
        return true;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct tensor *has = &model->tensors[i];
        const struct opt_tensor_entry *asked = &plan->tensors[i];
        if (strcmp(has->name, asked->name) == 0 && has->rank == asked->rank &&
            (has->width > 0) == asked->sparse &&
            (has->rank == 0 ||
             memcmp(has->shape, asked->shape, has->rank * sizeof *has->shape) == 0)) {
            continue;
        }
        char was[160], wanted[160];
        print_tensor(has->name, has->shape, has->rank, has->width > 0, was, sizeof was);
        print_tensor(asked->name, asked->shape, asked->rank, asked->sparse, wanted,
                     sizeof wanted);
        snprintf(text, capacity, "its tensor %zu is %s, not %s", i, was, wanted);
        return true;
    }
    return false;
}

bool model_differs(const struct model *model, const struct model_plan *plan, char *text,
                   size_t capacity)
{
    char *canonical = model_print_spec(plan->spec);
    bool same = canonical != NULL && (strcmp(canonical, model->canonical) == 0 ||
                                      strcmp(canonical, model->created) == 0);
    if (!same) {
        snprintf(text, capacity, "its specification is %s, not %s", model->canonical,
                 canonical == NULL ? "another one" : canonical);
    }
    free(canonical);
    if (!same) {
        return true;
    }
    if (consistency_differs(&model->consistency, &plan->consistency, text, capacity)) {
        return true;
    }
    return tensor_differs(model, plan, text, capacity);
}

/* ---------------------------------------------------------------- weights */

/* Some slots begin as the weights. They get them as these come: all at once would keep
 * everybody waiting for seconds if the model is large. */
static void copy_to_slots(struct model *model, size_t at, const float *weights,
                          size_t n)
{
    for (size_t i = 0; i < model->slot_count; i++) {
        bool copies = false;
        opt_spec_slot_start(&model->spec, i, &copies);
        if (copies) {
            memcpy(model->slots[i] + at, weights, n * sizeof(float));
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
        copy_to_slots(model, tensor->at + (size_t)offset, to, run);
        from += run * opt_dtype_size(dtype);
        done += run;
    }
}

void model_ready(struct model *model)
{
    model->ready = true;
    model->advanced = true;
    model->creator = NULL;
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
