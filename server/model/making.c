/* making — see making.h. */
#include "server/model/making.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/random.h"
#include "common/wire_tensors.h"
#include "server/base/version.h"
#include "server/engine/commit.h"
#include "server/engine/errand.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/model/spec_fit.h"
#include "server/rounds/consistency.h"
#include "server/update/update_memory.h"
#include "server/update/written.h"
#include "server/weights/shards.h"

enum {
    ALIGNED_FLOATS = 16,    /* a tensor starts at a multiple of 64 bytes */
    PIECE = 1 << 17,        /* of cost, done at a time: */
    ENTRY_COST = 512,       /* of an entry of the table, */
    BYTE_COST = 4,          /* and of each byte of it, */
    TENSOR_COST = 64,       /* of a tensor as it is laid out, */
    VERSION_COST = 4 << 10, /* of a shard's weights, */
    FLOATS_CLEARED = 32768  /* which are cleared if they are fewer */
};

static size_t aligned(size_t n)
{
    return (n + ALIGNED_FLOATS - 1) / ALIGNED_FLOATS * ALIGNED_FLOATS;
}

/* Where tensors and shards lie. */
struct layout {
    size_t floats, shards, blocks, largest;
    size_t dense;       /* elements of dense tensors; */
    size_t sparse;      /* the others */
    size_t open;        /* floats of the shard that small tensors are put into, or 0 */
    size_t first_shard; /* of the last tensor added */
    size_t text;        /* bytes of names, */
    size_t dimensions;  /* and numbers in shapes */
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
        layout->sparse++;
        return;
    }
    layout->dense += n;
    layout->blocks += (n + OPT_BLOCK - 1) / OPT_BLOCK;
    if (n > layout->largest) {
        layout->largest = n;
    }
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
           size_add(tables,
                    layout->text + layout->dimensions * sizeof(uint64_t) +
                        sizeof(struct model),
                    &tables) &&
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

/* ---------------------------------------------------------------- stages */

struct making {
    struct errand errand;
    making_end end;
    /* What is left to do, NULL at the end; each is called until it says that it is
     * over. */
    bool (*const *stage)(struct engine *engine, struct model *model,
                         struct making *making);
    struct opt_spec spec; /* to compare with */
    struct opt_tensor_reader reader;
    struct layout layout;
    size_t count; /* tensors of the table */
    struct opt_name_set names;
    size_t held;      /* bytes of the budget for weights that are not made yet */
    size_t cut, part; /* the tensor whose shards are next, and which of them */
    size_t shard;     /* the next one to get weights */
    bool matches;     /* matching has begun */
    struct opt_matching matching;
    size_t checked, filled;          /* tensors, elements of slots */
    char difference[OPT_ERROR_TEXT]; /* "": none */
    enum opt_status status;
    struct opt_error error;
};

/* Read the next entry of the table. False: there is none, or none that is right. */
static bool next_entry(struct engine *engine, struct making *making,
                       struct opt_tensor_entry *entry)
{
    size_t before = making->reader.at;
    making->status = opt_tensors_next(&making->reader, entry, &making->error);
    work_done(engine, ENTRY_COST + BYTE_COST * (uint64_t)(making->reader.at - before));
    return making->status == OPT_OK && entry->name != NULL;
}

static bool has_time(const struct engine *engine, uint64_t before)
{
    return engine->turn_cost - before < PIECE;
}

static enum opt_status no_memory(const struct model *model, struct opt_error *error)
{
    return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                       "the system has no memory for model \"%s\", although --memory "
                       "would allow it",
                       model->name);
}

/* The text of the specification. */
static bool print(struct engine *engine, struct model *model, struct making *making)
{
    model->created = spec_fit_text(&model->spec);
    model->canonical = model->created;
    if (model->created == NULL) {
        making->status = no_memory(model, &making->error);
        return true;
    }
    work_done(engine, SPEC_PRINT_COST * (uint64_t)strlen(model->created));
    return true;
}

/* How many tensors there are, and what they take. */
static bool measure(struct engine *engine, struct model *model, struct making *making)
{
    struct opt_tensor_entry entry;
    struct layout *layout = &making->layout;
    for (uint64_t before = engine->turn_cost; has_time(engine, before);) {
        if (!next_entry(engine, making, &entry)) {
            making->count = making->reader.count;
            if (making->status == OPT_OK) {
                making->status = opt_tensors_check_count(
                    making->count, engine->settings.max_tensors, &making->error);
            }
            return true;
        }
        layout_add(layout, (size_t)entry.elements, entry.sparse);
        layout->text += strlen(entry.name) + 1;
        layout->dimensions += entry.rank;
        making->status =
            consistency_check_tensor(&model->consistency, &entry, &making->error);
        if (making->status != OPT_OK) {
            return true;
        }
    }
    return false;
}

static enum opt_status check_budget(struct engine *engine, const struct model *model,
                                    const struct layout *layout, size_t tensors,
                                    struct opt_error *error)
{
    size_t need, written = 0;
    if (commit_writes(engine, model)) {
        written = written_reserve_bytes(layout->dense, tensors, layout->shards);
    }
    if (!bytes_all(&model->spec, layout, tensors, &need) ||
        !size_add(need, written, &need)) {
        need = SIZE_MAX;
    }
    if (need > budget_left(&engine->budget)) {
        shards_trim(engine);
    }
    size_t left = budget_left(&engine->budget);
    if (need > left) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
            "model \"%s\" needs %zu bytes for weights, slots and scratch%s, "
            "but %zu of the %zu bytes that --memory allows are left",
            model->name, need, written > 0 ? ", and to write an update down" : "", left,
            engine->budget.limit);
    }
    return OPT_OK;
}

static const char *name_of(const void *of, size_t i, size_t *size)
{
    const struct model *model = of;
    *size = model->names_at[i + 1] - model->names_at[i] - 1;
    return model->tensor_names + model->names_at[i];
}

static bool make_slots(struct model *model)
{
    size_t count = opt_spec_slots(&model->spec, model->slot_names);
    while (model->slot_count < count) {
        float *slot = memory_new(model->floats * sizeof(float));
        if (slot == NULL) {
            return false;
        }
        model->slots[model->slot_count++] = slot;
    }
    return true;
}

/* All memory but that of versions, untouched as yet where it is much. */
static bool take_memory(struct engine *engine, struct model *model,
                        struct making *making)
{
    const struct layout *layout = &making->layout;
    size_t beside, slots = opt_name_set_slots(making->count);
    if (!bytes_beside(&model->spec, layout, making->count, &beside) ||
        !budget_take(&engine->budget, beside)) {
        return false;
    }
    model->reserved = beside;
    if (!budget_take(&engine->budget, layout->floats * sizeof(float))) {
        return false;
    }
    making->held = layout->floats * sizeof(float);
    model->tensor_count = making->count;
    model->blocks = layout->blocks;
    model->floats = layout->floats;
    model->largest = layout->largest;
    model->dimensions = layout->dimensions;
    model->shard_count = layout->shards;
    model->shards_bytes = (layout->shards + 1) * sizeof *model->shards;
    model->tensors = memory_new(model_tensor_bytes(making->count));
    model->shards = memory_new(model->shards_bytes);
    model->tensor_names = malloc(layout->text + 1);
    model->shapes = malloc((layout->dimensions + 1) * sizeof *model->shapes);
    model->names_at = malloc((making->count + 1) * sizeof *model->names_at);
    making->names = (struct opt_name_set){ .slots = calloc(slots, sizeof(uint32_t)),
                                           .slot_count = slots };
    return model->tensors != NULL && model->shards != NULL &&
           model->tensor_names != NULL && model->shapes != NULL &&
           model->names_at != NULL && making->names.slots != NULL &&
           (model->grouping = grouping_new(engine, making->count)) != NULL &&
           make_slots(model) && update_memory_init(model) &&
           (!commit_writes(engine, model) ||
            written_open(engine, model, layout->dense, layout->sparse));
}

/* Deleted models give their memory back first. */
static bool allocate(struct engine *engine, struct model *model, struct making *making)
{
    if (engine->dead != NULL) {
        work_done(engine, PIECE);
        return false;
    }
    making->status =
        check_budget(engine, model, &making->layout, making->count, &making->error);
    if (making->status == OPT_OK &&
        !letter_pay(making->errand.letter,
                    opt_name_set_slots(making->count) * sizeof(uint32_t))) {
        making->status =
            opt_fail_as(&making->error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM,
                        "no room to read a table of %zu tensors at present: requests "
                        "and unread answers take what the setting inflight allows",
                        making->count);
    }
    if (making->status == OPT_OK && !take_memory(engine, model, making)) {
        making->status = no_memory(model, &making->error);
    }
    opt_tensors_end(&making->reader);
    opt_tensors_begin(&making->reader, making->errand.letter->data,
                      making->errand.letter->data_size, OPT_TABLE_TENSORS);
    making->layout = (struct layout){ 0 };
    return true;
}

static const char *kept_name(const void *of, size_t i)
{
    return ((const struct model *)of)->tensors[i].name;
}

/* A tensor where the layout has come to. */
static void add_tensor(struct model *model, struct making *making, size_t i,
                       const struct opt_tensor_entry *entry)
{
    struct tensor *tensor = &model->tensors[i];
    struct layout *layout = &making->layout;
    char *name = model->tensor_names + layout->text;
    size_t bytes = strlen(entry->name) + 1;
    memcpy(name, entry->name, bytes);
    tensor->name = name;
    model->names_at[i] = (uint32_t)layout->text;
    model->names_at[i + 1] = (uint32_t)(layout->text + bytes);
    layout->text += bytes;
    tensor->rank = entry->rank;
    if (entry->rank > 0) { /* a scalar has no shape to copy */
        uint64_t *shape = model->shapes + layout->dimensions;
        memcpy(shape, entry->shape, entry->rank * sizeof *shape);
        tensor->shape = shape;
        layout->dimensions += entry->rank;
    }
    tensor->n = (size_t)entry->elements;
    if (entry->sparse) {
        tensor->rows = (size_t)entry->shape[0];
        tensor->width = tensor->n / tensor->rows;
        model->sparse_parameters += entry->elements;
    }
    tensor->at = layout->floats;
    tensor->first_block = layout->blocks;
    layout_add(layout, tensor->n, entry->sparse);
    tensor->blocks = layout->blocks - tensor->first_block;
    tensor->shard = layout->first_shard;
    tensor->counters.mu_product = 1;
    model->parameters += entry->elements;
    model->pieces += (tensor->n + OPT_SHARD - 1) / OPT_SHARD;
}

static bool lay_out(struct engine *engine, struct model *model, struct making *making)
{
    struct opt_tensor_entry entry;
    for (uint64_t before = engine->turn_cost; has_time(engine, before);) {
        if (!next_entry(engine, making, &entry)) {
            model->named = (struct opt_named){ .name = name_of,
                                               .of = model,
                                               .count = model->tensor_count };
            return true;
        }
        size_t i = making->reader.count - 1;
        add_tensor(model, making, i, &entry);
        making->status =
            opt_name_set_add(&making->names, kept_name, model, i, &making->error);
        if (making->status != OPT_OK) {
            return true;
        }
    }
    return false;
}

/* Which tensors the shards have. */
static bool cut_shards(struct engine *engine, struct model *model,
                       struct making *making)
{
    for (uint64_t before = engine->turn_cost; has_time(engine, before);) {
        if (making->cut == model->tensor_count) {
            return true;
        }
        const struct tensor *tensor = &model->tensors[making->cut];
        struct shard *shard = &model->shards[tensor->shard + making->part];
        size_t done = making->part * OPT_SHARD, rest = tensor->n - done;
        size_t n = rest > OPT_SHARD ? OPT_SHARD : rest;
        if (shard->tensor_count == 0) {
            shard->at = tensor->at + done;
            shard->first_tensor = making->cut;
            for (size_t i = 0; i < model->slot_count; i++) {
                shard->slots[i] = model->slots[i] + shard->at;
            }
        }
        shard->n += aligned(n);
        shard->blocks += tensor->width > 0 ? 0 : (n + OPT_BLOCK - 1) / OPT_BLOCK;
        shard->tensor_count++;
        making->part = rest > n ? making->part + 1 : 0;
        making->cut += rest == n;
        work_done(engine, TENSOR_COST);
    }
    return false;
}

/* The weights, which are zeros. */
static bool make_weights(struct engine *engine, struct model *model,
                         struct making *making)
{
    for (uint64_t before = engine->turn_cost; has_time(engine, before);) {
        if (making->shard == model->shard_count) {
            return true;
        }
        struct shard *shard = &model->shards[making->shard];
        size_t bytes = shard->n * sizeof(float);
        budget_give(&engine->budget, bytes);
        making->held -= bytes;
        shard->current = version_new(model->pool, shard->n, making->shard++);
        if (shard->current == NULL) {
            making->status = no_memory(model, &making->error);
            return true;
        }
        work_done(engine, VERSION_COST + (shard->n < FLOATS_CLEARED ? shard->n : 0));
    }
    return false;
}

/* Which group of the specification each tensor is in. */
static bool match(struct engine *engine, struct model *model, struct making *making)
{
    uint64_t steps;
    bool over;
    if (!making->matches) {
        opt_matching_begin(&making->matching, &model->spec, &model->named,
                           model->grouping->of);
        making->matches = true;
    }
    making->status =
        opt_matching_go_on(&making->matching, PIECE, &over, &steps, &making->error);
    work_done(engine, steps);
    return over;
}

static bool check_sparse(struct engine *engine, struct model *model,
                         struct making *making)
{
    making->status = spec_fit_sparse(engine, model, &model->spec, model->grouping,
                                     &making->checked, &making->error);
    return making->checked == model->tensor_count;
}

static bool fill_slots(struct engine *engine, struct model *model,
                       struct making *making)
{
    model_fill_slots(engine, model, &making->filled);
    return making->filled == model->floats;
}

/* All but the tensors: if that differs there is no need to look at these. */
static bool compare_rest(struct engine *engine, struct model *model,
                         struct making *making)
{
    const struct opt_create *create = &making->errand.letter->request.body.create;
    work_done(engine, SPEC_PRINT_COST * (uint64_t)opt_spec_bytes(&making->spec));
    if (model_differs(model, &making->spec, create, making->difference,
                      sizeof making->difference)) {
        opt_tensors_end(&making->reader);
        opt_tensors_begin(&making->reader, NULL, 0, OPT_TABLE_TENSORS);
    }
    return true;
}

static bool compare(struct engine *engine, struct model *model, struct making *making)
{
    struct opt_tensor_entry entry;
    char *text = making->difference;
    for (uint64_t before = engine->turn_cost; has_time(engine, before);) {
        if (!next_entry(engine, making, &entry)) {
            making->count = making->reader.count;
            if (making->status == OPT_OK && text[0] == '\0' &&
                making->count != model->tensor_count) {
                snprintf(text, sizeof making->difference, "it has %zu tensors, not %zu",
                         model->tensor_count, making->count);
            }
            return true;
        }
        size_t i = making->reader.count - 1;
        if (text[0] == '\0' && i < model->tensor_count) {
            model_tensor_differs(model, i, &entry, text, sizeof making->difference);
        }
    }
    return false;
}

/* ---------------------------------------------------------------- the errand */

typedef bool (*stage)(struct engine *engine, struct model *model,
                      struct making *making);
static const stage stages_of_new[] = { print,      measure,      allocate, lay_out,
                                       cut_shards, make_weights, match,    check_sparse,
                                       fill_slots, NULL };
static const stage stages_of_old[] = { compare_rest, compare, NULL };

static bool go_on(struct engine *engine, struct model *model, struct errand *errand)
{
    struct making *making = (struct making *)(void *)errand;
    making->stage += (*making->stage)(engine, model, making);
    return making->status != OPT_OK || *making->stage == NULL;
}

static void end(struct engine *engine, struct model *model, struct errand *errand)
{
    struct making *making = (struct making *)(void *)errand;
    struct made made = {
        .status = making->status,
        .error = &making->error,
        .difference = making->difference[0] != '\0' ? making->difference : NULL,
    };
    model->making = false;
    budget_give(&engine->budget, making->held);
    opt_tensors_end(&making->reader);
    opt_spec_fini(&making->spec);
    free(making->names.slots);
    making->end(engine, model, errand->letter, &made);
    free(making);
}

static struct making *making_new(struct letter *letter, const stage *stages,
                                 making_end end_of_it)
{
    struct making *making = calloc(1, sizeof *making);
    if (making != NULL) {
        making->errand =
            (struct errand){ .go_on = go_on, .end = end, .letter = letter };
        making->end = end_of_it;
        making->stage = stages;
        opt_tensors_begin(&making->reader, letter->data, letter->data_size,
                          OPT_TABLE_TENSORS);
    }
    return making;
}

/* What a model has before its tensors are known. */
static struct model *begin(struct engine *engine, const struct opt_create *create,
                           const struct opt_spec *spec)
{
    struct model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return NULL;
    }
    opt_spec_share(&model->spec, spec);
    model->consistency = create->consistency;
    model->durability.mode = create->durability != OPT_DURABILITY_DEFAULT
                                 ? create->durability
                                 : engine->settings.durability;
    model->durability.checkpoint_steps = create->checkpoint_steps;
    model->name = strdup(create->model);
    model->pool = version_pool_new(&engine->budget);
    if (!opt_random_identity(&model->identity) || model->name == NULL ||
        model->pool == NULL || !registry_add(engine, model)) {
        model_free_some(engine, model); /* which is all */
        return NULL;
    }
    return model;
}

enum opt_status making_begin(struct engine *engine, struct letter *letter,
                             const struct opt_spec *spec, making_end end_of_it,
                             struct opt_error *error)
{
    struct making *making = making_new(letter, stages_of_new, end_of_it);
    struct model *model =
        making == NULL ? NULL : begin(engine, &letter->request.body.create, spec);
    if (model == NULL) {
        free(making);
        return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                           "no memory for another model");
    }
    model->making = true;
    errand_begin(engine, model, &making->errand);
    return OPT_OK;
}

enum opt_status making_compare(struct engine *engine, struct model *model,
                               struct letter *letter, const struct opt_spec *spec,
                               making_end end_of_it, struct opt_error *error)
{
    struct making *making = making_new(letter, stages_of_old, end_of_it);
    if (making == NULL) {
        return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                           "no memory to compare model \"%s\"", model->name);
    }
    opt_spec_share(&making->spec, spec);
    errand_begin(engine, model, &making->errand);
    return OPT_OK;
}
