/* rows — see rows.h. */
#include "server/update/rows.h"

#include <stdlib.h>

#include "server/base/team.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/update/gradient.h"
#include "server/update/written.h"
#include "server/weights/segment.h"

enum { ROWS_LEAST = 1024 };

/* One row that a gradient names. */
struct row_source {
    const uint8_t *values;
    uint32_t gradient; /* its place among the update's */
};

/* ---------------------------------------------------------------- memory */

/* Every struct here is a multiple of 8 bytes, so they can follow each other. */
static bool bytes_of(size_t capacity, size_t *out)
{
    size_t each = sizeof(struct row_group) + sizeof(struct opt_contribution) +
                  sizeof(struct opt_block_sums) + sizeof(struct row_source) +
                  2 * sizeof(struct opt_row);
    return size_multiply(capacity, each, out) &&
           size_add(*out, sizeof(struct row_group), out);
}

bool rows_reserve(struct engine *engine, struct model *model, size_t count)
{
    struct rows *rows = &model->update.rows;
    if (count <= rows->capacity) {
        return true;
    }
    size_t capacity = rows->capacity > 0 ? rows->capacity : ROWS_LEAST;
    while (capacity < count) {
        capacity *= 2;
    }
    size_t before = 0, bytes;
    if (!bytes_of(capacity, &bytes) || !budget_take(&engine->budget, bytes)) {
        return false;
    }
    char *memory = malloc(bytes);
    if (memory == NULL) {
        budget_give(&engine->budget, bytes);
        return false;
    }
    if (rows->capacity > 0 && bytes_of(rows->capacity, &before)) {
        budget_give(&engine->budget, before);
    }
    free(rows->memory);
    model->reserved += bytes - before;
    *rows = (struct rows){ .capacity = capacity, .memory = memory };
    rows->groups = (struct row_group *)(void *)memory;
    rows->contributions = (struct opt_contribution *)(rows->groups + capacity + 1);
    rows->sums = (struct opt_block_sums *)(rows->contributions + capacity);
    rows->sources = (struct row_source *)(rows->sums + capacity);
    rows->order = (struct opt_row *)(rows->sources + capacity);
    rows->spare = rows->order + capacity;
    return true;
}

void rows_fini(struct model *model)
{
    free(model->update.rows.memory);
}

/* ---------------------------------------------------------------- gathering */

/* The factor of each gradient of the update in a tensor: seat->factors, by place. */
static void find_factors(const struct model *model, uint32_t tensor, struct seat *seat)
{
    const struct update *update = &model->update;
    size_t count = 0;
    for (size_t i = 0; i < update->gradient_count; i++) {
        const struct gradient *gradient = update->gradients[i];
        if (gradient->covered[tensor] > 0) {
            seat->samples[count] = gradient->samples;
            seat->forms[count] = gradient->form;
            count++;
        }
    }
    opt_aggregate_factors((enum opt_aggregate)model->spec.options.aggregate,
                          seat->samples, seat->forms, count, seat->factors);
    for (size_t i = update->gradient_count; i-- > 0;) {
        if (update->gradients[i]->covered[tensor] > 0) {
            seat->factors[i] = seat->factors[--count];
        }
    }
}

/* List the rows as they are named: by worker, then by position. */
static size_t list_rows(struct model *model)
{
    struct rows *rows = &model->update.rows;
    size_t count = 0;
    for (size_t i = 0; i < model->update.gradient_count; i++) {
        const struct gradient *gradient = model->update.gradients[i];
        size_t element = opt_dtype_size(gradient->dtype);
        for (const struct row_run *run = gradient->rows_first; run != NULL;
             run = run->next) {
            size_t bytes = model->tensors[run->tensor].width * element;
            for (size_t k = 0; k < run->count; k++) {
                rows->sources[count] =
                    (struct row_source){ .values = run->values + k * bytes,
                                         .gradient = (uint32_t)i };
                rows->order[count] =
                    (struct opt_row){ .key = opt_row_key(run->tensor, run->rows[k]),
                                      .index = (uint32_t)count };
                count++;
            }
        }
    }
    return count;
}

void rows_begin(struct model *model, struct seat *seat)
{
    struct update *update = &model->update;
    struct rows *rows = &update->rows;
    size_t count = list_rows(model);
    rows->group_count = 0;
    if (count == 0) {
        return;
    }
    const struct opt_row *sorted = opt_rows_sort(rows->order, rows->spare, count);
    uint32_t tensor = UINT32_MAX;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct row_source *source = &rows->sources[sorted[i].index];
        const struct gradient *gradient = update->gradients[source->gradient];
        uint32_t of = (uint32_t)(sorted[i].key >> 32);
        if (of != tensor) {
            tensor = of;
            find_factors(model, tensor, seat);
        }
        if (i == 0 || sorted[i].key != sorted[i - 1].key) {
            rows->groups[rows->group_count++] = (struct row_group){
                .tensor = of, .row = (uint32_t)sorted[i].key, .first = i, .at = at
            };
            at += model->tensors[of].width;
        }
        rows->contributions[i] = (struct opt_contribution){
            .values = source->values,
            .dtype = gradient->dtype,
            .factor = seat->factors[source->gradient] * update->damping,
            .shared = gradient->memory == GRADIENT_SHARED,
        };
    }
    rows->groups[rows->group_count].first = count;
    rows->groups[rows->group_count].at = at;
    update->elements += at;
}

/* ---------------------------------------------------------------- passes */

size_t rows_width(const struct model *model, size_t group)
{
    return model->tensors[model->update.rows.groups[group].tensor].width;
}

size_t rows_contributions(const struct rows *rows, size_t group)
{
    return rows->groups[group + 1].first - rows->groups[group].first;
}

/* Whether the pass is the first of the update that reads rows. */
static bool reads_first(const struct update *update, enum opt_pass pass)
{
    return pass == OPT_PASS_NORM || !opt_update_needs_norms(&update->scalars);
}

void rows_run(struct model *model, enum opt_pass pass, size_t group)
{
    struct rows *rows = &model->update.rows;
    const struct row_group *of = &rows->groups[group];
    const struct tensor *tensor = &model->tensors[of->tensor];
    const struct opt_tensor_update *scalars = &model->update.tensors[of->tensor];
    struct opt_block_sums sums = { 0 };
    struct opt_contribution written;
    bool is_written = written_row(model, group, &written);
    bool writes = is_written && reads_first(&model->update, pass);
    /* A row may lie across the border of two shards, and be longer than a block. */
    for (size_t at = 0, n; at < tensor->width; at += n) {
        size_t offset = of->row * tensor->width + at;
        const struct shard *shard =
            segment_shard(model, of->tensor, offset, tensor->width - at, &n);
        n = n < OPT_BLOCK ? n : OPT_BLOCK;
        size_t flat = tensor->at + offset;
        struct opt_block_memory memory = {
            .n = n,
            .w = version_values(shard->current) + (flat - shard->at),
            .contributions = rows->contributions + of->first,
            .contribution_count = rows_contributions(rows, group),
            .contribution_offset = at,
        };
        if (writes) {
            opt_block_aggregate(scalars, &memory, OPT_FP32,
                                (float *)(uintptr_t)written.values + at);
        }
        if (is_written) {
            memory.contributions = &written;
            memory.contribution_count = 1;
        }
        if (pass == OPT_PASS_STEP) {
            memory.w_out = version_values(shard->next) + (flat - shard->at);
        }
        for (size_t i = 0; i < model->slot_count; i++) {
            memory.slots[i] = shard->slots[i] + (flat - shard->at);
        }
        struct opt_block_sums part = { 0 };
        opt_block_run(scalars, pass, &memory, &part);
        update_note_held(&model->update, &part);
        sums.first += part.first;
        sums.second += part.second;
    }
    if (pass == OPT_PASS_NORM) {
        rows->sums[group] = sums;
    }
}

void rows_add_norm(struct model *model, uint32_t tensor, size_t *group)
{
    struct update *update = &model->update;
    const struct rows *rows = &update->rows;
    size_t begin = *group;
    while (*group < rows->group_count && rows->groups[*group].tensor == tensor) {
        ++*group;
    }
    opt_update_add_norm(&update->scalars, &update->tensors[tensor],
                        rows->sums != NULL ? rows->sums + begin : NULL, *group - begin);
}
