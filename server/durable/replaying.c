/* replaying — see replaying.h. */
#include "server/durable/replaying.h"

#include <inttypes.h>
#include <stdlib.h>

#include "server/model/model.h"
#include "server/store/record.h"
#include "server/update/replay.h"
#include "server/update/written.h"

struct replaying {
    struct model *model;
    struct replay *replay;
    bool parted; /* batches of the update in hand have been */
    /* Of the batch in hand. */
    struct written written;
    struct span *spans;
    size_t span_capacity;
    struct written_rows *rows;
    size_t row_capacity;
};

struct replaying *replaying_new(struct engine *engine, struct model *model)
{
    struct replaying *replaying = calloc(1, sizeof *replaying);
    if (replaying == NULL) {
        return NULL;
    }
    replaying->model = model;
    replaying->replay = replay_new(engine, model);
    if (replaying->replay == NULL) {
        free(replaying);
        return NULL;
    }
    return replaying;
}

void replaying_free(struct replaying *replaying)
{
    if (replaying != NULL) {
        replay_free(replaying->replay);
        free(replaying->spans);
        free(replaying->rows);
        free(replaying);
    }
}

/* Room for so many things of that size; false without memory. */
static bool make_room(void **things, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity) {
        return true;
    }
    void *more = realloc(*things, count * size);
    if (more == NULL) {
        return false;
    }
    *things = more;
    *capacity = count;
    return true;
}

static const void *values_of(const struct record_values *values)
{
    return values->part_count > 0 ? values->parts[0].iov_base : NULL;
}

static bool set_tables(struct replaying *replaying, const struct record_batch *batch)
{
    void *spans = replaying->spans, *rows = replaying->rows;
    bool room = make_room(&spans, &replaying->span_capacity, batch->span_count,
                          sizeof *replaying->spans);
    replaying->spans = spans;
    room = room && make_room(&rows, &replaying->row_capacity, batch->rows_count,
                             sizeof *replaying->rows);
    replaying->rows = rows;
    for (size_t i = 0; room && i < batch->span_count; i++) {
        const struct record_span *span = &batch->spans[i];
        replaying->spans[i] = (struct span){ .tensor = span->tensor,
                                             .first = span->first,
                                             .end = span->end,
                                             .prepares = span->prepares != 0 };
    }
    for (size_t i = 0; room && i < batch->rows_count; i++) {
        const struct record_rows *of = &batch->rows[i];
        replaying->rows[i] =
            (struct written_rows){ .tensor = of->tensor,
                                   .count = of->row_count,
                                   .rows = of->rows,
                                   .values = values_of(&of->values),
                                   .value_bytes = (size_t)of->values.size };
    }
    return room;
}

enum opt_status replaying_begin(struct replaying *replaying,
                                const struct record_entry *entry,
                                struct opt_error *error)
{
    const struct record_batch *batch = &entry->of.batch;
    const struct model *model = replaying->model;
    if (entry->step != model->step + 1 || !model->ready) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "it has update %" PRIu64 " of a model that has had %" PRIu64,
                        entry->step, model->step);
    }
    if (!set_tables(replaying, batch)) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "the system has no memory for it");
    }
    size_t bytes = (size_t)batch->values.size;
    for (size_t i = 0; i < batch->rows_count; i++) {
        bytes += (size_t)batch->rows[i].values.size +
                 batch->rows[i].row_count * sizeof(uint32_t);
    }
    replaying->written = (struct written){
        .last = batch->last,
        .spans = replaying->spans,
        .span_count = batch->span_count,
        .tensors = (const struct written_run *)(const void *)batch->tensors,
        .tensor_runs = batch->tensor_runs,
        .dtype = batch->dtype,
        .blocks = (const struct written_run *)(const void *)batch->blocks,
        .block_runs = batch->block_runs,
        .values = values_of(&batch->values),
        .value_bytes = (size_t)batch->values.size,
        .rows = replaying->rows,
        .rows_count = batch->rows_count,
        .bytes = bytes,
    };
    return replay_begin(replaying->replay, &replaying->written, error);
}

enum restored replaying_run(struct replaying *replaying, struct opt_error *error)
{
    switch (replay_run(replaying->replay, error)) {
    case UPDATE_MORE:
    case UPDATE_SHARDS:
    case UPDATE_STALLED:
        return RESTORING_MORE;
    case UPDATE_PARTLY:
    case UPDATE_DONE:
        return RESTORING_OVER;
    default:
        return RESTORING_FAILED;
    }
}
