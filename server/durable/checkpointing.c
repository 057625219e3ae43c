/* checkpointing — see checkpointing.h. */
#include "server/durable/checkpointing.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "server/durable/describing.h"
#include "server/durable/durable.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/store/data_dir.h"
#include "server/weights/snapshot.h"

enum {
    POOL_LEAST = 8,      /* pieces of copies on their way */
    PORTIONS = 8,        /* in so many jobs */
    COPY_COST = 1 << 19, /* of what is copied at a time */
    ALIGNMENT = 16,      /* of tensors in the flat range, in floats */
    PARTS = OPT_BLOCK / ALIGNMENT + 1
};

enum phase { NAMES, CUTTING, COPYING, ENDING, OVER };

/* Pieces on their way to the disk and back. */
struct portion {
    struct durable_job job;
    struct portion *next; /* spare */
    struct checkpointing *of;
    struct snapshot_piece *pieces; /* by next, in their order */
    bool failed;
};

struct checkpointing {
    struct durable *durable;
    struct model *model; /* NULL: it is gone */
    uint64_t identity;
    enum phase phase;
    struct description *description;
    struct snapshot *snapshot;
    struct portion portions[PORTIONS];
    struct portion *spare;
    size_t out;  /* portions on their way */
    bool failed; /* nothing more is written */
    uint64_t cut_ns;
    struct checkpoint_outcome outcome;
    /* What follows is the thread's while a job is on its way. */
    struct durable_job begin, end;
    bool gives_up; /* set by the engine before the end */
    struct checkpoint_place place;
    char *path;
    struct checkpoint_writer *writer;
    struct opt_error error, prune;
    uint64_t bytes;
    char name[CHECKPOINT_NAME];
};

/* ---------------------------------------------------------------- on the thread */

static struct checkpointing *of_begin(struct disk_job *job)
{
    return (struct checkpointing *)(void *)((char *)job -
                                            offsetof(struct checkpointing, begin));
}

static struct checkpointing *of_end(struct disk_job *job)
{
    return (struct checkpointing *)(void *)((char *)job -
                                            offsetof(struct checkpointing, end));
}

static bool run_begin(struct disk *disk, struct disk_job *job)
{
    struct checkpointing *saving = of_begin(job);
    (void)disk;
    saving->place.folder = -1;
    if (data_dir_model(saving->durable->settings.dir, saving->identity, true,
                       &saving->place.folder, &saving->path,
                       &saving->error) == OPT_OK) {
        saving->place.path = saving->path;
        (void)checkpoint_begin(&saving->place, &saving->description->manifest,
                               &saving->writer, &saving->error);
    }
    return true;
}

/* The last tensor that begins at this place of the flat range or before. */
static size_t find_tensor(const struct description *description, size_t at)
{
    size_t low = 0, high = description->manifest.tensor_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (description->starts[middle] <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* One array's part of a piece: what of it belongs to tensors, without what is between
 * them. */
static enum opt_status write_array(struct checkpointing *saving,
                                   const struct snapshot_piece *piece, size_t array)
{
    const struct description *description = saving->description;
    float *values = array == 0 ? piece->weights : piece->slots[array - 1];
    struct iovec parts[PARTS];
    size_t count = 0, end = piece->at + piece->n, first = 0;
    uint64_t element = 0;
    for (size_t i = find_tensor(description, piece->at);
         i < description->manifest.tensor_count && description->starts[i] < end; i++) {
        size_t start = description->starts[i];
        size_t stop = start + (size_t)description->tensors[i].entry.elements;
        size_t from = start > piece->at ? start : piece->at;
        size_t to = stop < end ? stop : end;
        if (from >= to) {
            continue;
        }
        if (count == 0) {
            first = i;
            element = from - start;
        }
        parts[count++] = (struct iovec){ .iov_base = values + (from - piece->at),
                                         .iov_len = (to - from) * sizeof(float) };
        saving->bytes += (to - from) * sizeof(float);
    }
    return count == 0 ? OPT_OK
                      : checkpoint_write(saving->writer, array, first, element, parts,
                                         count, &saving->error);
}

static bool run_portion(struct disk *disk, struct disk_job *job)
{
    struct portion *portion = (struct portion *)(void *)job;
    struct checkpointing *saving = portion->of;
    size_t arrays = 1 + saving->description->manifest.slot_count;
    (void)disk;
    for (const struct snapshot_piece *piece = portion->pieces;
         piece != NULL && saving->error.status == OPT_OK; piece = piece->next) {
        for (size_t i = 0; i < arrays && saving->error.status == OPT_OK; i++) {
            (void)write_array(saving, piece, i);
        }
    }
    portion->failed = saving->error.status != OPT_OK;
    return true;
}

static bool run_end(struct disk *disk, struct disk_job *job)
{
    struct checkpointing *saving = of_end(job);
    (void)disk;
    if (saving->error.status == OPT_OK && !saving->gives_up) {
        if (checkpoint_finish(saving->writer, saving->name, &saving->error) == OPT_OK) {
            (void)checkpoint_prune(&saving->place, CHECKPOINTS_KEPT, &saving->prune);
        }
    } else {
        checkpoint_abandon(saving->writer);
    }
    saving->writer = NULL;
    if (saving->place.folder >= 0) {
        close(saving->place.folder);
    }
    free(saving->path);
    return true;
}

/* ---------------------------------------------------------------- jobs back */

static void on_begun(struct durable *durable, struct durable_job *job)
{
    (void)durable;
    struct checkpointing *saving = of_begin(&job->disk);
    saving->out--;
}

static void on_written(struct durable *durable, struct durable_job *job)
{
    struct portion *portion = (struct portion *)(void *)job;
    struct checkpointing *saving = portion->of;
    (void)durable;
    for (struct snapshot_piece *piece = portion->pieces; piece != NULL;) {
        struct snapshot_piece *next = piece->next;
        snapshot_give(saving->snapshot, piece);
        piece = next;
    }
    portion->pieces = NULL;
    saving->failed = saving->failed || portion->failed;
    portion->next = saving->spare;
    saving->spare = portion;
    saving->out--;
}

static void on_ended(struct durable *durable, struct durable_job *job)
{
    struct checkpointing *saving = of_end(&job->disk);
    struct checkpoint_outcome *outcome = &saving->outcome;
    (void)durable;
    saving->out--;
    if (saving->error.status != OPT_OK) {
        outcome->error = saving->error;
    } else if (saving->gives_up) {
        opt_fail_as(&outcome->error, OPT_ABORTED, OPT_DETAIL_MODEL_GONE,
                    "the model was deleted while it was saved");
    }
    outcome->prune = saving->prune;
    outcome->bytes = saving->bytes;
    outcome->ns = uv_hrtime() - saving->cut_ns;
    memcpy(outcome->name, saving->name, sizeof outcome->name);
    saving->phase = OVER;
}

/* ---------------------------------------------------------------- in the turn */

struct checkpointing *checkpointing_new(struct durable *durable, struct model *model,
                                        struct opt_error *error)
{
    struct checkpointing *saving = calloc(1, sizeof *saving);
    if (saving == NULL) {
        opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for a checkpoint of model \"%s\"", model->name);
        return NULL;
    }
    saving->durable = durable;
    saving->model = model;
    saving->identity = model->identity;
    saving->begin = (struct durable_job){ .disk.run = run_begin,
                                          .durable = durable,
                                          .done = on_begun };
    saving->end = (struct durable_job){ .disk.run = run_end,
                                        .durable = durable,
                                        .done = on_ended };
    for (size_t i = 0; i < PORTIONS; i++) {
        saving->portions[i] = (struct portion){
            .job = { .disk.run = run_portion, .durable = durable, .done = on_written },
            .next = saving->spare,
            .of = saving,
        };
        saving->spare = &saving->portions[i];
    }
    if (describing_begin(durable->engine, model, &saving->description, error) !=
        OPT_OK) {
        free(saving);
        return NULL;
    }
    return saving;
}

/* Pieces of a pool that is as large as it should be: half of what the budget has left,
 * so that an update of all weights need not wait for the disk. What of it is not needed
 * is never touched, and so takes no memory. */
static size_t pool_of(const struct engine *engine, const struct model *model)
{
    size_t each = (1 + model->slot_count) * OPT_BLOCK * sizeof(float);
    size_t pool = budget_left(&engine->budget) / 2 / each;
    pool = pool < POOL_LEAST ? POOL_LEAST : pool;
    size_t all = model->floats / OPT_BLOCK + model->shard_count;
    return pool < all ? pool : all;
}

/* Where memory is short a small pool does, slowly. */
static enum opt_status open_snapshot(struct checkpointing *saving,
                                     struct opt_error *error)
{
    struct engine *engine = saving->durable->engine;
    size_t pool = pool_of(engine, saving->model);
    enum opt_status status =
        snapshot_open(engine, saving->model, pool, &saving->snapshot, error);
    while (status == OPT_RESOURCE_EXHAUSTED && pool > 1) {
        pool /= 2;
        status = snapshot_open(engine, saving->model, pool, &saving->snapshot, error);
    }
    return status;
}

static void hand_over(struct checkpointing *saving, struct durable_job *job)
{
    saving->out++;
    disk_do(saving->durable->checkpoint_disk, &job->disk);
}

/* It cannot be begun. */
static enum checkpointing_progress fail(struct checkpointing *saving)
{
    saving->phase = OVER;
    return CHECKPOINTING_OVER;
}

/* All that is of one step, in this turn; no update runs. */
static enum checkpointing_progress cut(struct checkpointing *saving)
{
    struct durable *durable = saving->durable;
    struct checkpoint_outcome *outcome = &saving->outcome;
    const struct model *model = saving->model;
    if (describing_take(durable->engine, model, saving->description,
                        durable->settings.dir->identity, durable->recorded,
                        &outcome->error) != OPT_OK ||
        open_snapshot(saving, &outcome->error) != OPT_OK) {
        return fail(saving);
    }
    outcome->error.status = OPT_OK;
    outcome->step = model->step;
    outcome->record = durable->recorded;
    saving->cut_ns = uv_hrtime();
    saving->phase = COPYING;
    hand_over(saving, &saving->begin);
    return CHECKPOINTING_MORE;
}

/* Copy about a millisecond's worth, and hand it over. */
static enum checkpointing_progress copy(struct checkpointing *saving)
{
    struct engine *engine = saving->durable->engine;
    const uint64_t each = (1 + saving->description->manifest.slot_count) * OPT_BLOCK;
    struct portion *portion = saving->spare;
    if (portion == NULL) {
        return CHECKPOINTING_WAITS;
    }
    struct snapshot_piece **last = &portion->pieces;
    uint64_t cost = 0;
    while (cost < COPY_COST && (*last = snapshot_take(saving->snapshot)) != NULL) {
        last = &(*last)->next;
        cost += each;
    }
    *last = NULL;
    if (portion->pieces == NULL) {
        return CHECKPOINTING_WAITS;
    }
    work_done(engine, cost);
    saving->spare = portion->next;
    hand_over(saving, &portion->job);
    return CHECKPOINTING_MORE;
}

/* All has been copied, or nothing more shall be: the thread ends it. The pool goes as
 * soon as nothing of it is in use. */
static void end(struct checkpointing *saving)
{
    saving->phase = ENDING;
    saving->gives_up = saving->failed || saving->model == NULL;
    hand_over(saving, &saving->end);
}

static void close_pool(struct checkpointing *saving)
{
    if (saving->snapshot != NULL) {
        snapshot_close(saving->durable->engine, saving->snapshot);
        saving->snapshot = NULL;
    }
}

static bool pool_is_in_use(const struct checkpointing *saving)
{
    for (size_t i = 0; i < PORTIONS; i++) {
        if (saving->portions[i].pieces != NULL) {
            return true;
        }
    }
    return false;
}

enum checkpointing_progress checkpointing_go_on(struct checkpointing *saving)
{
    struct engine *engine = saving->durable->engine;
    if (saving->phase < COPYING && saving->model == NULL) {
        return fail(saving);
    }
    switch (saving->phase) {
    case NAMES:
        if (describing_names(engine, saving->model, saving->description)) {
            saving->phase = CUTTING;
        }
        return CHECKPOINTING_MORE;
    case CUTTING:
        if (!checkpointing_can_cut(saving->model)) {
            return CHECKPOINTING_WAITS;
        }
        return describing_counters(engine, saving->model, saving->description)
                   ? cut(saving)
                   : CHECKPOINTING_MORE;
    case COPYING:
        if (!saving->failed && !snapshot_is_lost(saving->snapshot) &&
            !snapshot_is_taken(saving->snapshot)) {
            return copy(saving);
        }
        end(saving);
        return CHECKPOINTING_WAITS;
    case ENDING:
        if (!pool_is_in_use(saving)) {
            close_pool(saving);
        }
        return CHECKPOINTING_WAITS;
    default:
        close_pool(saving);
        return CHECKPOINTING_OVER;
    }
}

bool checkpointing_can_cut(const struct model *model)
{
    return model->ready && model->activity != MODEL_UPDATING && !model->schedule.open;
}

bool checkpointing_is_cut(const struct checkpointing *saving)
{
    return saving->phase >= COPYING;
}

void checkpointing_lose(struct checkpointing *saving)
{
    if (saving->model != NULL) {
        snapshot_lose(saving->model);
        saving->model = NULL;
    }
}

const struct checkpoint_outcome *
checkpointing_outcome(const struct checkpointing *saving)
{
    return &saving->outcome;
}

void checkpointing_free(struct checkpointing *saving)
{
    if (saving != NULL) {
        assert(saving->out == 0);
        close_pool(saving);
        describing_free(saving->durable->engine, saving->description);
        free(saving);
    }
}
