/* replay — see replay.h. */
#include "server/update/replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/memory.h"
#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/update/gradient.h"
#include "server/update/written.h"

enum {
    PIECE_BLOCKS = 1 << 16, /* found at a time, */
    BLOCK_COST = 8          /* which takes about so long each */
};

struct replay {
    struct engine *engine;
    struct model *model;
    size_t bytes; /* of the budget */
    /* A gradient has one dtype: blocks are one, and rows, which are fp32, another. */
    struct gradient gradient, row_gradient;
    const struct gradient *gradients[2];
    struct row_run *runs; /* one per tensor of the model, of those that are sparse */
    size_t sparse;
    bool open; /* an update has begun, and has had a batch that is not its last */
    /* The batch in progress: */
    const struct written *written;
    bool found;              /* where all of its blocks are */
    bool checked;            /* that they are those of its spans */
    size_t run, block;       /* the next one: of a run, and in it */
    size_t at;               /* bytes of the values before it */
    uint32_t tensor;         /* dense, that has had the block before */
    size_t span, span_block; /* the next to be checked */
};

/* ---------------------------------------------------------------- tables */

static size_t count_sparse(const struct model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        count += model->tensors[i].width > 0;
    }
    return count;
}

/* A gradient whose factor is 1; both name the same tensors. */
static bool gradient_init(struct gradient *gradient, const struct model *model,
                          uint32_t *tensors)
{
    *gradient = (struct gradient){
        .memory = GRADIENT_KEPT,
        .form = OPT_FORM_MEAN,
        .samples = 1,
        .tensors = tensors,
        .covered = calloc(model->tensor_count + 1, sizeof *gradient->covered),
        .blocks = calloc(model->blocks + 1, sizeof *gradient->blocks),
    };
    return gradient->covered != NULL && gradient->blocks != NULL;
}

struct replay *replay_new(struct engine *engine, struct model *model)
{
    struct replay *replay = calloc(1, sizeof *replay);
    if (replay == NULL) {
        return NULL;
    }
    replay->engine = engine;
    replay->model = model;
    replay->sparse = count_sparse(model);
    replay->gradients[0] = &replay->gradient;
    replay->gradients[1] = &replay->row_gradient;
    size_t bytes = (model->tensor_count + 1) * 3 * sizeof(uint32_t) +
                   (model->blocks + 1) * 2 * sizeof(uint8_t *) +
                   (replay->sparse + 1) * sizeof *replay->runs;
    if (!budget_take(&engine->budget, bytes)) {
        free(replay);
        return NULL;
    }
    replay->bytes = bytes;
    uint32_t *tensors = calloc(model->tensor_count + 1, sizeof *tensors);
    replay->runs = calloc(replay->sparse + 1, sizeof *replay->runs);
    bool all = tensors != NULL && replay->runs != NULL;
    all = gradient_init(&replay->gradient, model, tensors) && all;
    all = gradient_init(&replay->row_gradient, model, tensors) && all;
    if (!all || !team_reserve(engine->team, 2)) {
        replay_free(replay);
        return NULL;
    }
    return replay;
}

void replay_free(struct replay *replay)
{
    if (replay == NULL) {
        return;
    }
    free(replay->gradient.tensors);
    free(replay->gradient.covered);
    free(replay->gradient.blocks);
    free(replay->row_gradient.covered);
    free(replay->row_gradient.blocks);
    free(replay->runs);
    budget_give(&replay->engine->budget, replay->bytes);
    free(replay);
}

/* ---------------------------------------------------------------- checking */

static enum opt_status wrong(const struct replay *replay, struct opt_error *error,
                             const char *what)
{
    return opt_fail(error, OPT_DATA_LOSS,
                    "what was written down of update %" PRIu64
                    " of model \"%s\" is not of this model: %s",
                    replay->model->step + 1, replay->model->name, what);
}

/* Whether runs are ascending, and of numbers below a limit. */
static bool are_runs(const struct written_run *runs, size_t count, size_t limit)
{
    uint64_t next = 0;
    for (size_t i = 0; i < count; i++) {
        if (runs[i].count == 0 || runs[i].first < next ||
            (uint64_t)runs[i].first + runs[i].count > limit) {
            return false;
        }
        next = (uint64_t)runs[i].first + runs[i].count;
    }
    return true;
}

/* Whether spans are ascending, of shards that this update has not written. */
static bool are_spans(const struct model *model, bool open, const struct span *spans,
                      size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct span *span = &spans[i], *before = i > 0 ? &spans[i - 1] : NULL;
        if (span->tensor >= model->tensor_count) {
            return false;
        }
        const struct tensor *tensor = &model->tensors[span->tensor];
        if (span->first >= span->end || span->end > tensor->blocks ||
            span->first % SHARD_BLOCKS != 0 ||
            (span->end % SHARD_BLOCKS != 0 && span->end != tensor->blocks) ||
            (before != NULL &&
             (before->tensor > span->tensor ||
              (before->tensor == span->tensor && before->end > span->first)))) {
            return false;
        }
        for (size_t block = span->first; open && block < span->end;
             block += SHARD_BLOCKS) {
            if (model->shards[tensor->shard + block / SHARD_BLOCKS].published) {
                return false;
            }
        }
    }
    return true;
}

/* Whether a number is in ascending runs, of which those before *run end before it. */
static bool is_in(const struct written_run *runs, size_t count, size_t *run,
                  uint32_t number)
{
    while (*run < count && runs[*run].first + runs[*run].count - 1 < number) {
        ++*run;
    }
    return *run < count && runs[*run].first <= number;
}

/* Whether rows are those of a sparse tensor after number *next, ascending. */
static bool are_rows(const struct model *model, const struct written_rows *rows,
                     uint64_t *next)
{
    if (rows->tensor < *next || rows->tensor >= model->tensor_count ||
        model->tensors[rows->tensor].width == 0 || rows->count == 0 ||
        rows->value_bytes / sizeof(float) / rows->count !=
            model->tensors[rows->tensor].width ||
        rows->value_bytes % (sizeof(float) * rows->count) != 0) {
        return false;
    }
    *next = (uint64_t)rows->tensor + 1;
    for (size_t i = 0; i < rows->count; i++) {
        if (rows->rows[i] >= model->tensors[rows->tensor].rows ||
            (i > 0 && rows->rows[i] <= rows->rows[i - 1])) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- a batch */

/* What the gradient names: the tensors of the last batch. */
static void name_tensors(struct replay *replay)
{
    const struct written *written = replay->written;
    struct gradient *gradient = &replay->gradient;
    gradient->tensor_count = 0;
    for (size_t i = 0; i < written->tensor_runs; i++) {
        for (uint32_t k = 0; k < written->tensors[i].count; k++) {
            gradient->tensors[gradient->tensor_count++] = written->tensors[i].first + k;
        }
    }
    replay->row_gradient.tensor_count = gradient->tensor_count;
}

static void name_rows(struct replay *replay)
{
    const struct written *written = replay->written;
    struct gradient *gradient = &replay->row_gradient;
    gradient->dtype = OPT_FP32;
    gradient->rows_first = NULL;
    gradient->rows_last = NULL;
    gradient->row_count = 0;
    for (size_t i = 0; i < written->rows_count; i++) {
        const struct written_rows *rows = &written->rows[i];
        struct row_run *run = &replay->runs[i];
        *run = (struct row_run){ .tensor = rows->tensor,
                                 .rows = rows->rows,
                                 .count = rows->count,
                                 .values = (const uint8_t *)rows->values };
        if (gradient->rows_last == NULL) {
            gradient->rows_first = run;
        } else {
            gradient->rows_last->next = run;
        }
        gradient->rows_last = run;
        gradient->covered[rows->tensor] = 1;
        gradient->row_count += rows->count;
    }
}

enum opt_status replay_begin(struct replay *replay, const struct written *written,
                             struct opt_error *error)
{
    const struct model *model = replay->model;
    uint64_t next = 0;
    size_t rows = 0, run = 0;
    if (!are_runs(written->blocks, written->block_runs, model->blocks) ||
        !are_runs(written->tensors, written->tensor_runs, model->tensor_count) ||
        !are_spans(model, replay->open, written->spans, written->span_count)) {
        return wrong(replay, error, "its tensors and blocks are others");
    }
    for (size_t i = 0; i < written->rows_count; i++) {
        if (!are_rows(model, &written->rows[i], &next) ||
            !is_in(written->tensors, written->tensor_runs, &run,
                   written->rows[i].tensor)) {
            return wrong(replay, error, "its rows are others");
        }
        rows += written->rows[i].count;
    }
    if (written->last ? written->span_count > 0
                      : written->tensor_runs > 0 || written->rows_count > 0) {
        return wrong(replay, error, "its last batch is another one");
    }
    if (!rows_reserve(replay->engine, replay->model, rows)) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for an update with %zu rows of model \"%s\"",
                           rows, model->name);
    }
    replay->written = written;
    replay->gradient.dtype = written->dtype;
    name_tensors(replay);
    name_rows(replay);
    replay->found = false;
    replay->checked = false;
    replay->run = 0;
    replay->block = 0;
    replay->at = 0;
    replay->tensor = 0;
    replay->span = 0;
    replay->span_block = 0;
    return OPT_OK;
}

/* Elements of the next block; *number is its own. False: the values end before. */
static bool next_block(struct replay *replay, size_t *number, size_t *bytes)
{
    const struct model *model = replay->model;
    const struct written *written = replay->written;
    const struct tensor *tensor = &model->tensors[replay->tensor];
    *number = written->blocks[replay->run].first + replay->block;
    while (tensor->width > 0 || tensor->first_block + tensor->blocks <= *number) {
        tensor = &model->tensors[++replay->tensor];
    }
    size_t rest = tensor->n - (*number - tensor->first_block) * OPT_BLOCK;
    *bytes = (rest < OPT_BLOCK ? rest : OPT_BLOCK) * opt_dtype_size(written->dtype);
    return written->value_bytes - replay->at >= *bytes;
}

/* Find where the values of the next blocks are. */
static enum opt_status find_blocks(struct replay *replay, struct opt_error *error)
{
    const struct written *written = replay->written;
    size_t number, bytes, count = 0;
    while (replay->run < written->block_runs && count < PIECE_BLOCKS) {
        if (replay->block == written->blocks[replay->run].count) {
            replay->run++;
            replay->block = 0;
            continue;
        }
        if (!next_block(replay, &number, &bytes)) {
            return wrong(replay, error, "its values end too early");
        }
        replay->gradient.blocks[number] = (const uint8_t *)written->values + replay->at;
        replay->at += bytes;
        replay->block++;
        count++;
    }
    work_done(replay->engine, BLOCK_COST * (uint64_t)count);
    if (replay->run < written->block_runs) {
        return OPT_OK;
    }
    if (replay->at != written->value_bytes) {
        return wrong(replay, error, "its values are too long");
    }
    replay->found = true;
    return OPT_OK;
}

/* Begin the batch, whose blocks have been found. */
static void start(struct replay *replay)
{
    const struct written *written = replay->written;
    size_t count = written->rows_count > 0 ? 2 : 1;
    /* Nothing is stale any more: damping and compensation have been. */
    replay->gradient.basis = replay->model->step;
    replay->row_gradient.basis = replay->model->step;
    if (!replay->open) {
        update_begin(replay->engine, replay->model);
    }
    replay->open = true;
    if (written->last) {
        update_rest(replay->engine, replay->model, replay->gradients, count);
        return;
    }
    update_batch(replay->model, replay->gradients, 1);
    for (size_t i = 0; i < written->span_count; i++) {
        const struct span *span = &written->spans[i];
        update_add(replay->model, span->tensor, span->first, span->end);
    }
    update_batch_start(replay->engine, replay->model, false);
}

/* Whether the blocks of the update's spans are those that were found: walk along both.
 * *over: to the end. */
static bool check_spans(struct replay *replay, bool *over)
{
    const struct model *model = replay->model;
    const struct update *update = &model->update;
    const struct written *written = replay->written;
    size_t count = 0;
    while (replay->span < update->span_count && count < PIECE_BLOCKS) {
        const struct span *span = &update->spans[replay->span];
        const struct tensor *tensor = &model->tensors[span->tensor];
        if (replay->span_block == span->end - span->first) {
            replay->span++;
            replay->span_block = 0;
            continue;
        }
        size_t number = tensor->first_block + span->first + replay->span_block++;
        if (replay->run == written->block_runs ||
            written->blocks[replay->run].first + replay->block != number) {
            return false;
        }
        replay->block++;
        if (replay->block == written->blocks[replay->run].count) {
            replay->run++;
            replay->block = 0;
        }
        count++;
    }
    work_done(replay->engine, BLOCK_COST * (uint64_t)count);
    *over = replay->span == update->span_count;
    return !*over || replay->run == written->block_runs;
}

/* The batch is over: forget what it has named. */
static void forget(struct replay *replay)
{
    for (size_t i = 0; i < replay->written->rows_count; i++) {
        replay->row_gradient.covered[replay->written->rows[i].tensor] = 0;
    }
    replay->written = NULL;
}

enum update_progress replay_run(struct replay *replay, struct opt_error *error)
{
    struct update *update = &replay->model->update;
    uint32_t tensor;
    uint64_t element;
    if (!replay->found) {
        if (find_blocks(replay, error) != OPT_OK) {
            return UPDATE_OVERFLOW;
        }
        if (replay->found) {
            start(replay);
            replay->run = 0;
            replay->block = 0;
        }
        return UPDATE_MORE;
    }
    bool begun = update->phase != UPDATE_MARK && update->phase != UPDATE_ADD;
    if (begun && !replay->checked) {
        if (!check_spans(replay, &replay->checked)) {
            wrong(replay, error, "it has other blocks than the update would have");
            return UPDATE_OVERFLOW;
        }
        return UPDATE_MORE;
    }
    enum update_progress progress =
        update_run(replay->engine, replay->model, &tensor, &element);
    if (progress == UPDATE_OVERFLOW) {
        wrong(replay, error, "its values are not finite");
    } else if (progress == UPDATE_PARTLY || progress == UPDATE_DONE) {
        replay->open = progress == UPDATE_PARTLY;
        forget(replay);
    }
    return progress;
}
