/* describing — see describing.h. */
#include "server/durable/describing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/weights/shards.h"
#include "server/workers/worker.h"

enum {
    PIECE = 1 << 18, /* cost of what is done at a time */
    NAME_COST = 48,  /* of a tensor's name and shape, of memory that is far away */
    COUNT_COST = 24  /* of its counters */
};

static enum opt_status no_memory(const struct engine *engine, const struct model *model,
                                 size_t bytes, struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                       "no memory to describe model \"%s\" for a checkpoint: it takes "
                       "%zu bytes, and %zu of the %zu that --memory allows are left",
                       model->name, bytes, budget_left(&engine->budget),
                       engine->budget.limit);
}

static bool pay(struct engine *engine, struct description *description, size_t bytes)
{
    if (bytes > budget_left(&engine->budget)) {
        shards_trim(engine);
    }
    if (!budget_take(&engine->budget, bytes)) {
        return false;
    }
    description->paid += bytes;
    return true;
}

void describing_free(struct engine *engine, struct description *description)
{
    if (description != NULL) {
        budget_give(&engine->budget, description->paid);
        free(description->starts);
        free(description->tensors);
        free(description->names);
        free(description->shapes);
        free(description->rest);
        free(description);
    }
}

enum opt_status describing_begin(struct engine *engine, const struct model *model,
                                 struct description **out, struct opt_error *error)
{
    size_t count = model->tensor_count, names = model->names_at[count];
    size_t bytes = sizeof(struct description) +
                   count * (sizeof(struct manifest_tensor) + sizeof(size_t)) + names +
                   model->dimensions * sizeof(uint64_t);
    struct description *description = calloc(1, sizeof *description);
    if (description == NULL) {
        return no_memory(engine, model, bytes, error);
    }
    if (!pay(engine, description, bytes)) {
        free(description);
        return no_memory(engine, model, bytes, error);
    }
    description->starts = malloc(count * sizeof *description->starts);
    description->tensors = malloc(count * sizeof *description->tensors);
    description->names = malloc(names);
    description->shapes = malloc((model->dimensions + 1) * sizeof(uint64_t));
    if (description->starts == NULL || description->tensors == NULL ||
        description->names == NULL || description->shapes == NULL) {
        describing_free(engine, description);
        return no_memory(engine, model, bytes, error);
    }
    *out = description;
    return OPT_OK;
}

/* ---------------------------------------------------------------- tensors */

static void copy_name(const struct model *model, struct description *description,
                      size_t i)
{
    const struct tensor *tensor = &model->tensors[i];
    size_t bytes = model->names_at[i + 1] - model->names_at[i];
    char *name = description->names + description->name_bytes;
    uint64_t *shape = description->shapes + description->dimensions;
    memcpy(name, tensor->name, bytes);
    if (tensor->rank > 0) {
        memcpy(shape, tensor->shape, tensor->rank * sizeof *shape);
    }
    description->tensors[i] = (struct manifest_tensor){
        .entry = { .name = name,
                   .shape = shape,
                   .rank = tensor->rank,
                   .elements = tensor->n,
                   .sparse = tensor->width > 0 },
    };
    description->starts[i] = tensor->at;
    description->name_bytes += bytes;
    description->dimensions += tensor->rank;
}

bool describing_names(struct engine *engine, const struct model *model,
                      struct description *description)
{
    uint64_t cost = 0;
    while (description->named < model->tensor_count && cost < PIECE) {
        size_t before = description->name_bytes;
        copy_name(model, description, description->named++);
        cost += NAME_COST + (description->name_bytes - before) / 4;
    }
    work_done(engine, cost);
    return description->named == model->tensor_count;
}

bool describing_counters(struct engine *engine, const struct model *model,
                         struct description *description)
{
    size_t left = model->tensor_count - description->counted;
    size_t end = description->counted +
                 (left < PIECE / COUNT_COST ? left : (size_t)PIECE / COUNT_COST);
    work_done(engine, COUNT_COST * (uint64_t)(end - description->counted));
    for (size_t i = description->counted; i < end; i++) {
        description->tensors[i].entry.step = model->tensors[i].changed;
        description->tensors[i].counters = model->tensors[i].counters;
    }
    description->counted = end;
    return end == model->tensor_count;
}

/* ---------------------------------------------------------------- the rest */

/* One piece of memory for everything else: tables first, then texts. Measured, and then
 * filled by the same hands. */
struct filling {
    char *at;     /* of texts */
    size_t bytes; /* of texts so far */
};

static const char *put_text(struct filling *to, const char *text)
{
    if (text == NULL) {
        text = "";
    }
    size_t size = strlen(text) + 1;
    char *copy = to->at == NULL ? NULL : to->at + to->bytes;
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    to->bytes += size;
    return copy;
}

/* The tables in the rest, one behind the other. */
struct tables {
    struct window *windows;
    struct manifest_member *members;
    struct manifest_change *changes;
    const char **lost;
};

/* Names that are remembered of lost workers, at most. */
static size_t lost_most(const struct model *model)
{
    return model->losses.count < LOSSES_KEPT ? (size_t)model->losses.count
                                             : (size_t)LOSSES_KEPT;
}

static size_t tables_bytes(const struct model *model)
{
    return model->member_count *
               (sizeof(struct window) + sizeof(struct manifest_member)) +
           model->changes.count * sizeof(struct manifest_change) +
           lost_most(model) * sizeof(const char *);
}

static struct tables lay_tables(void *rest, const struct model *model)
{
    struct tables tables = { .windows = rest };
    tables.members =
        (struct manifest_member *)(void *)(tables.windows + model->member_count);
    tables.changes =
        (struct manifest_change *)(void *)(tables.members + model->member_count);
    tables.lost = (const char **)(void *)(tables.changes + model->changes.count);
    return tables;
}

/* Of a window that is not full only the first of its places tell anything. */
static void copy_window(struct window *to, const struct window *from)
{
    size_t used = from->last < WINDOW_PUSHES ? (size_t)from->last + 1 : WINDOW_PUSHES;
    to->last = from->last;
    to->newest = from->newest;
    memcpy(to->step, from->step, used * sizeof to->step[0]);
    memcpy(to->fate, from->fate, used * sizeof to->fate[0]);
}

struct record_member describing_member(const struct member *member)
{
    return (struct record_member){
        .joined = member->joined,
        .resting = member->joined && member->resting,
        .lost = member->lost,
        .lost_step = member->lost_step,
        .last_step = member->last_step,
        .clock = member->clock,
        .since = member->since,
        .barrier_session = member->arrival.passed > 0 ? member->arrival.session : 0,
        .barrier_passed = member->arrival.passed,
    };
}

static void put_members(const struct model *model, const struct tables *tables,
                        struct filling *to)
{
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        const struct worker *worker = member->worker;
        const char *name = put_text(to, worker->name);
        const char *why = put_text(to, worker->lost_why);
        if (tables == NULL) { /* only counted */
            continue;
        }
        copy_window(&tables->windows[i], &member->window);
        tables->members[i] = (struct manifest_member){
            .name = name,
            .worker = { .session = worker->session,
                        .incarnation = worker->incarnation,
                        .lost = worker->lost,
                        .lost_why = why },
            .member = describing_member(member),
            .applied = member->applied,
            .duplicates = member->duplicates,
            .refused = member->refused,
            .resends = member->resends,
            .dropped = member->push_stats.dropped,
            .window = &tables->windows[i],
        };
    }
}

static void put_changes(const struct model *model, const struct tables *tables,
                        struct filling *to)
{
    for (size_t i = 0; i < model->changes.count; i++) {
        const struct change *change = model->changes.list[i];
        const char *before = put_text(to, change->before);
        const char *after = put_text(to, change->after);
        const char *asked = put_text(to, change->asked);
        if (to->at != NULL) {
            tables->changes[i] =
                (struct manifest_change){ .step = change->step,
                                          .before = before,
                                          .after = after,
                                          .change = asked,
                                          .done = i < model->changes.done };
        }
    }
}

/* Oldest first, but for those for which there was no memory. */
static void put_lost(const struct model *model, const struct tables *tables,
                     struct filling *to, struct manifest *manifest)
{
    manifest->lost_count = 0;
    for (size_t i = lost_most(model); i > 0; i--) {
        const char *name = model->losses.names[(model->losses.count - i) % LOSSES_KEPT];
        if (name != NULL) {
            name = put_text(to, name);
            if (to->at != NULL) {
                tables->lost[manifest->lost_count++] = name;
            }
        }
    }
}

/* All texts; and all tables, if there is memory for them. */
static void put_rest(const struct model *model, const struct tables *tables,
                     struct filling *to, struct manifest *manifest)
{
    manifest->name = put_text(to, model->name);
    manifest->created = put_text(to, model->created);
    manifest->specification = put_text(to, model->canonical);
    put_members(model, tables, to);
    put_changes(model, tables, to);
    put_lost(model, tables, to, manifest);
}

static void fill_manifest(const struct model *model, struct manifest *manifest)
{
    manifest->identity = model->identity;
    manifest->consistency = model->consistency;
    manifest->durability = model->durability.mode;
    manifest->checkpoint_steps = model->durability.checkpoint_steps;
    manifest->step = model->step;
    manifest->changed = model->changed;
    manifest->epochs_before = model->epochs_before;
    manifest->epochs_from = model->epochs_from;
    manifest->rounds_skipped = model->rounds_skipped;
    manifest->pushes_applied = model->pushes_applied;
    manifest->dropped = model->dropped;
    manifest->staleness_sum = model->staleness_sum;
    manifest->gathered = model->gathered;
    manifest->tensor_count = model->tensor_count;
    manifest->slot_count = model->slot_count;
    manifest->change_count = model->changes.count;
    manifest->member_count = model->member_count;
    manifest->losses = model->losses.count;
}

enum opt_status describing_take(struct engine *engine, const struct model *model,
                                struct description *description, uint64_t directory,
                                uint64_t record, struct opt_error *error)
{
    struct manifest *manifest = &description->manifest;
    struct filling measured = { .at = NULL };
    size_t tables_size = tables_bytes(model);
    put_rest(model, NULL, &measured, manifest);
    size_t bytes = tables_size + measured.bytes;
    if (!pay(engine, description, bytes) ||
        (description->rest = malloc(bytes)) == NULL) {
        return no_memory(engine, model, bytes, error);
    }
    struct tables tables = lay_tables(description->rest, model);
    struct filling filling = { .at = (char *)description->rest + tables_size };
    put_rest(model, &tables, &filling, manifest);
    fill_manifest(model, manifest);
    manifest->directory = directory;
    manifest->record = record;
    memcpy(description->slots, model->slot_names, sizeof description->slots);
    manifest->slots = description->slots; /* their names live as long as the program */
    manifest->tensors = description->tensors;
    manifest->changes = tables.changes;
    manifest->members = tables.members;
    manifest->lost = tables.lost;
    work_done(engine, bytes / 4);
    return OPT_OK;
}
