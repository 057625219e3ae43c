/* written — see written.h. */
#include "server/update/written.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/base/memory.h"
#include "server/base/slabs.h"
#include "server/base/team.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/update/gradient.h"
#include "server/update/update.h"

enum { BLOCKS, ROWS };      /* slabs */
enum { WRITTEN_LINE = 64 }; /* what lies in a slab begins at a multiple of it */

struct writing {
    size_t elements; /* of the model's dense tensors */
    size_t sparse;   /* of its tensors */
    /* The update that is being written, or has just been: */
    struct slab *slab[2]; /* NULL: none is */
    size_t used;          /* bytes of the blocks' slab */
    struct written *first, *last;
    uint8_t *values; /* of the batch in progress; NULL: there is none */
    enum opt_dtype dtype;
    float *row_values;
    bool awaited; /* a round waits for memory, or for the recorder */
};

static size_t lines(size_t bytes)
{
    return (bytes + WRITTEN_LINE - 1) / WRITTEN_LINE * WRITTEN_LINE;
}

/* ---------------------------------------------------------------- the model */

/* Tables of an update in so many batches that names so many tensors, whose spans are
 * cut at so many borders of shards. */
static size_t table_bytes(size_t batches, size_t tensors, size_t shards)
{
    size_t each = sizeof(struct span) + 2 * sizeof(struct written_run);
    return batches * (lines(sizeof(struct written)) + 4 * (size_t)WRITTEN_LINE) +
           (tensors + shards) * each;
}

size_t written_reserve_bytes(size_t elements, size_t tensors, size_t shards)
{
    size_t total;
    if (size_multiply(elements, sizeof(float), &total) &&
        size_add(total, table_bytes(shards + 1, tensors, shards), &total)) {
        return total;
    }
    return SIZE_MAX;
}

bool written_open(struct engine *engine, struct model *model, size_t elements,
                  size_t sparse)
{
    struct writing *writing = calloc(1, sizeof *writing);
    if (writing == NULL) {
        return false;
    }
    model->update.writing = writing;
    writing->elements = elements;
    writing->sparse = sparse;
    for (int kind = BLOCKS; kind <= ROWS; kind++) {
        model->update.slabs[kind] = slabs_new(&engine->budget, model);
        if (model->update.slabs[kind] == NULL) {
            return false;
        }
    }
    return slabs_reserve(
        model->update.slabs[BLOCKS],
        written_reserve_bytes(elements, model->tensor_count, model->shard_count));
}

/* Of an update with so many rows of so many elements. */
static size_t row_bytes(const struct writing *writing, size_t rows, size_t elements)
{
    size_t tensors = rows < writing->sparse ? rows : writing->sparse;
    return rows == 0 ? 0
                     : lines(tensors * sizeof(struct written_rows)) +
                           lines(rows * sizeof(uint32_t)) + elements * sizeof(float);
}

bool written_reserve_rows(struct model *model, size_t rows, size_t elements)
{
    struct writing *writing = model->update.writing;
    return writing == NULL ||
           slabs_reserve(model->update.slabs[ROWS], row_bytes(writing, rows, elements));
}

size_t written_cut(struct model *model, size_t most)
{
    size_t freed = 0;
    written_forget(model);
    for (int kind = BLOCKS; kind <= ROWS && freed == 0; kind++) {
        freed = slabs_cut(model->update.slabs[kind], most);
    }
    return freed;
}

void written_close(struct model *model)
{
    struct writing *writing = model->update.writing;
    if (writing == NULL) {
        return;
    }
    written_forget(model);
    for (int kind = BLOCKS; kind <= ROWS; kind++) {
        slabs_close(model->update.slabs[kind]);
        model->update.slabs[kind] = NULL;
    }
    free(writing);
    model->update.writing = NULL;
}

/* ---------------------------------------------------------------- room */

/* Whether the gradient is written as it came: it is alone, and its factor is 1. */
static bool is_raw(const struct model *model, const struct gradient *gradient,
                   double damping)
{
    bool moves = model->consistency.delay_compensation != 0 &&
                 gradient->last_pull != NULL && gradient->basis != model->step;
    double factor;
    opt_aggregate_factors((enum opt_aggregate)model->spec.options.aggregate,
                          &gradient->samples, &gradient->form, 1, &factor);
    return !moves && factor * damping == 1.0;
}

/* What an update with these gradients writes at most. */
struct extent {
    size_t tensors, values, rows, row_elements;
};

static struct extent extent_of(const struct model *model,
                               const struct gradient *const *gradients, size_t count)
{
    struct extent extent = { 0 };
    const struct writing *writing = model->update.writing;
    size_t element = sizeof(float);
    for (size_t i = 0; i < count; i++) {
        extent.tensors += gradients[i]->tensor_count;
        extent.values += gradients[i]->elements;
        extent.rows += gradients[i]->row_count;
        extent.row_elements += gradients[i]->row_elements;
    }
    if (extent.tensors > model->tensor_count) {
        extent.tensors = model->tensor_count;
    }
    if (extent.values > writing->elements) {
        extent.values = writing->elements;
    }
    if (count == 1 && !model->consistency.damping && is_raw(model, gradients[0], 1)) {
        element = opt_dtype_size(gradients[0]->dtype);
    }
    extent.values *= element;
    return extent;
}

/* Take the slabs that are needed and not there yet. */
static bool take(const struct engine *engine, struct model *model, size_t blocks,
                 size_t rows)
{
    struct update *update = &model->update;
    struct writing *writing = update->writing;
    bool had = writing->slab[BLOCKS] != NULL;
    if (!had) {
        writing->slab[BLOCKS] = slabs_take(update->slabs[BLOCKS], blocks);
    }
    if (writing->slab[BLOCKS] != NULL && rows > 0) {
        writing->slab[ROWS] = slabs_take(update->slabs[ROWS], rows);
    }
    bool all =
        writing->slab[BLOCKS] != NULL && (rows == 0 || writing->slab[ROWS] != NULL);
    if (!all && !had) {
        slab_unref(writing->slab[BLOCKS]);
        writing->slab[BLOCKS] = NULL;
    }
    if (!all) {
        commit_awaited(engine, model);
    }
    return all;
}

bool written_room(struct engine *engine, struct model *model,
                  const struct gradient *const *gradients, size_t count, bool whole)
{
    struct writing *writing = model->update.writing;
    if (writing == NULL) {
        return true;
    }
    written_forget(model);
    struct extent extent = extent_of(model, gradients, count);
    size_t rows = row_bytes(writing, extent.rows, extent.row_elements);
    size_t blocks = table_bytes(1, extent.tensors, 0) + extent.values;
    if (whole) {
        rows = 0;
        blocks = written_reserve_bytes(writing->elements, model->tensor_count,
                                       model->shard_count);
    }
    writing->used = 0;
    writing->awaited = !commit_room(engine, model, blocks + rows) ||
                       !take(engine, model, blocks, rows);
    return !writing->awaited;
}

bool written_room_rest(const struct engine *engine, struct model *model,
                       const struct gradient *const *gradients, size_t count)
{
    struct writing *writing = model->update.writing;
    if (writing == NULL || writing->slab[BLOCKS] == NULL) {
        return true;
    }
    struct extent extent = extent_of(model, gradients, count);
    writing->awaited =
        !take(engine, model, 0, row_bytes(writing, extent.rows, extent.row_elements));
    return !writing->awaited;
}

bool written_is_awaited(const struct model *model)
{
    return model->update.writing != NULL && model->update.writing->awaited;
}

/* ---------------------------------------------------------------- writing */

/* The next bytes of the blocks' slab; there is room for all. */
static void *carve(struct writing *writing, size_t bytes)
{
    void *at = writing->slab[BLOCKS]->bytes + writing->used;
    writing->used += bytes;
    assert(writing->used <= writing->slab[BLOCKS]->size);
    return at;
}

/* Append a number to runs. */
static size_t extend(struct written_run *runs, size_t count, uint32_t first, uint32_t n)
{
    if (count > 0 && runs[count - 1].first + runs[count - 1].count == first) {
        runs[count - 1].count += n;
        return count;
    }
    runs[count] = (struct written_run){ .first = first, .count = n };
    return count + 1;
}

/* The tables of a batch: which tensors, and which blocks. */
static void write_tables(const struct model *model, struct writing *writing,
                         struct written *written)
{
    const struct update *update = &model->update;
    const size_t count = update->span_count;
    if (!update->last) {
        struct span *spans = carve(writing, count * sizeof *spans);
        memcpy(spans, update->spans, count * sizeof *spans);
        written->spans = spans;
        written->span_count = count;
    } else {
        struct written_run *tensors = carve(writing, 0);
        for (size_t i = 0; i < count; i++) {
            uint32_t number = update->spans[i].tensor;
            if (i == 0 || number != update->spans[i - 1].tensor) {
                written->tensor_runs = extend(tensors, written->tensor_runs, number, 1);
            }
        }
        written->tensors = tensors;
        carve(writing, written->tensor_runs * sizeof *tensors);
    }
    struct written_run *blocks = carve(writing, 0);
    for (size_t i = 0; i < count; i++) {
        const struct span *span = &update->spans[i];
        size_t first = model->tensors[span->tensor].first_block + span->first;
        if (span->end > span->first) {
            written->block_runs = extend(blocks, written->block_runs, (uint32_t)first,
                                         span->end - span->first);
        }
    }
    written->blocks = blocks;
    carve(writing, written->block_runs * sizeof *blocks);
    writing->used = lines(writing->used);
}

/* Elements of the batch's dense tensors. */
static size_t dense_elements(const struct update *update)
{
    const struct rows *rows = &update->rows;
    return (size_t)update->elements -
           (rows->group_count > 0 ? rows->groups[rows->group_count].at : 0);
}

/* Which rows there will be. */
static void write_rows(const struct model *model, struct writing *writing,
                       struct written *written)
{
    const struct rows *rows = &model->update.rows;
    const size_t count = rows->group_count;
    if (count == 0) {
        return;
    }
    size_t tensors = 0;
    for (size_t i = 0; i < count; i++) {
        tensors += i == 0 || rows->groups[i].tensor != rows->groups[i - 1].tensor;
    }
    struct slab *slab = writing->slab[ROWS];
    struct written_rows *of = (struct written_rows *)(void *)slab->bytes;
    size_t at = lines(tensors * sizeof *of);
    uint32_t *numbers = (uint32_t *)(void *)(slab->bytes + at);
    at += lines(count * sizeof *numbers);
    writing->row_values = (float *)(void *)(slab->bytes + at);
    assert(at + rows->groups[count].at * sizeof(float) <= slab->size);
    written->rows = of;
    written->rows_count = tensors;
    for (size_t i = 0; i < count; i++) {
        const struct row_group *group = &rows->groups[i];
        numbers[i] = group->row;
        if (i == 0 || group->tensor != rows->groups[i - 1].tensor) {
            *of++ = (struct written_rows){ .tensor = group->tensor,
                                           .rows = numbers + i,
                                           .values = writing->row_values + group->at };
        }
        of[-1].count++;
        of[-1].value_bytes += model->tensors[group->tensor].width * sizeof(float);
    }
    written->bytes += count * sizeof(uint32_t) + rows->groups[count].at * sizeof(float);
    written->slabs[ROWS] = slab_ref(slab);
}

void written_start(struct model *model)
{
    struct update *update = &model->update;
    struct writing *writing = update->writing;
    if (writing == NULL || writing->slab[BLOCKS] == NULL) {
        return;
    }
    struct written *written = carve(writing, lines(sizeof *written));
    *written = (struct written){ .last = update->last };
    write_tables(model, writing, written);
    bool raw = update->gradient_count == 1 &&
               is_raw(model, update->gradients[0], update->damping);
    writing->dtype = raw ? update->gradients[0]->dtype : OPT_FP32;
    written->dtype = writing->dtype;
    written->value_bytes = dense_elements(update) * opt_dtype_size(written->dtype);
    written->values = carve(writing, written->value_bytes);
    written->bytes = written->value_bytes;
    writing->used = lines(writing->used);
    writing->values = (uint8_t *)(uintptr_t)written->values;
    write_rows(model, writing, written);
    written->slabs[BLOCKS] = slab_ref(writing->slab[BLOCKS]);
    if (writing->last != NULL) {
        writing->last->next = written;
    } else {
        writing->first = written;
    }
    writing->last = written;
}

void written_end(struct model *model)
{
    if (model->update.writing != NULL) {
        model->update.writing->values = NULL;
        model->update.writing->row_values = NULL;
    }
}

bool written_block(const struct model *model, const struct work *work,
                   struct opt_contribution *out)
{
    const struct writing *writing = model->update.writing;
    if (writing == NULL || writing->values == NULL) {
        return false;
    }
    const struct span *span = &model->update.spans[work->place];
    size_t at = span->at + (size_t)(work->block - span->first) * OPT_BLOCK;
    *out = (struct opt_contribution){ .values = writing->values +
                                                at * opt_dtype_size(writing->dtype),
                                      .dtype = writing->dtype,
                                      .factor = 1.0 };
    return true;
}

bool written_row(const struct model *model, size_t group, struct opt_contribution *out)
{
    const struct writing *writing = model->update.writing;
    if (writing == NULL || writing->row_values == NULL) {
        return false;
    }
    *out = (struct opt_contribution){ .values = writing->row_values +
                                                model->update.rows.groups[group].at,
                                      .dtype = OPT_FP32,
                                      .factor = 1.0 };
    return true;
}

/* ---------------------------------------------------------------- what becomes of it
 */

/* The update has no part in it any more. */
static struct written *leave(struct writing *writing)
{
    struct written *first = writing->first;
    writing->first = NULL;
    writing->last = NULL;
    writing->values = NULL;
    writing->row_values = NULL;
    for (int kind = BLOCKS; kind <= ROWS; kind++) {
        slab_unref(writing->slab[kind]);
        writing->slab[kind] = NULL;
    }
    return first;
}

/* The batches lie in what is given back. engine: settle whose rounds wait for it; or
 * NULL. */
static void give_back(struct engine *engine, struct written *written)
{
    while (written != NULL) {
        struct written *next = written->next;
        struct slab *blocks = written->slabs[BLOCKS], *rows = written->slabs[ROWS];
        struct model *model = slabs_owner(blocks->of);
        slab_unref(rows);
        slab_unref(blocks);
        if (engine != NULL && model != NULL && !model->deleted &&
            written_is_awaited(model)) {
            work_settle(engine, model);
        }
        written = next;
    }
}

void written_forget(struct model *model)
{
    struct writing *writing = model->update.writing;
    if (writing != NULL) {
        give_back(NULL, leave(writing));
    }
}

struct written *written_take(const struct model *model)
{
    struct writing *writing = model->update.writing;
    return writing == NULL ? NULL : leave(writing);
}

void written_free(struct engine *engine, struct written *written)
{
    give_back(engine, written);
}
