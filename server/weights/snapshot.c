/* snapshot — see snapshot.h. */
#include "server/weights/snapshot.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/weights/shards.h"

struct snapshot {
    struct model *model; /* NULL: the snapshot is lost */
    size_t *first;       /* per shard of the model: the number of its first piece; */
    size_t pieces;       /* of all shards */
    bool *copied;        /* per piece: kept or taken */
    size_t next;         /* pieces before that one have been */
    size_t shard;        /* of it */
    size_t left;         /* not copied yet */
    struct snapshot_piece *pool;
    struct snapshot_piece *spare;      /* of the pool, */
    struct snapshot_piece *kept_first; /* and those that wait to be taken */
    struct snapshot_piece **kept_last; /* where the next one is linked */
    struct snapshot_piece **fresh;     /* to be kept, and still to be copied */
    size_t fresh_count, out;           /* out: taken and not given back */
    float *memory;
    size_t memory_bytes, reserved;
};

static size_t pieces_of(const struct shard *shard)
{
    return (shard->n + OPT_BLOCK - 1) / OPT_BLOCK;
}

/* ---------------------------------------------------------------- memory */

static void snapshot_free(struct engine *engine, struct snapshot *snapshot)
{
    budget_give(&engine->budget, snapshot->reserved);
    memory_free(snapshot->memory, snapshot->memory_bytes);
    free(snapshot->first);
    free(snapshot->copied);
    free(snapshot->pool);
    free(snapshot->fresh);
    free(snapshot);
}

/* What is taken from the budget for a snapshot; SIZE_MAX: more than there can be. */
static size_t bytes_of(const struct model *model, size_t pieces, size_t pool,
                       size_t *memory)
{
    size_t each = (1 + model->slot_count) * OPT_BLOCK * sizeof(float), total;
    if (!size_multiply(pool, each, memory) ||
        !size_multiply(pool,
                       sizeof(struct snapshot_piece) + sizeof(struct snapshot_piece *),
                       &total) ||
        !size_add(total, *memory, &total) ||
        !size_add(total,
                  sizeof(struct snapshot) + model->shard_count * sizeof(size_t) +
                      pieces,
                  &total)) {
        return SIZE_MAX;
    }
    return total;
}

/* Lay the pool out in the memory. */
static void fill_pool(struct snapshot *snapshot, size_t pool, size_t slots)
{
    float *at = snapshot->memory;
    for (size_t i = 0; i < pool; i++) {
        struct snapshot_piece *piece = &snapshot->pool[i];
        piece->weights = at;
        for (size_t s = 0; s < slots; s++) {
            piece->slots[s] = at + (s + 1) * OPT_BLOCK;
        }
        at += (slots + 1) * OPT_BLOCK;
        piece->next = snapshot->spare;
        snapshot->spare = piece;
    }
}

static struct snapshot *make(struct engine *engine, struct model *model, size_t pool)
{
    size_t pieces = 0, memory;
    for (size_t i = 0; i < model->shard_count; i++) {
        pieces += pieces_of(&model->shards[i]);
    }
    size_t bytes = bytes_of(model, pieces, pool, &memory);
    if (bytes > budget_left(&engine->budget)) {
        shards_trim(engine);
    }
    if (!budget_take(&engine->budget, bytes)) {
        return NULL;
    }
    struct snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot == NULL) {
        budget_give(&engine->budget, bytes);
        return NULL;
    }
    *snapshot =
        (struct snapshot){ .model = model,
                           .pieces = pieces,
                           .left = pieces,
                           .first = calloc(model->shard_count, sizeof *snapshot->first),
                           .copied = calloc(pieces, sizeof *snapshot->copied),
                           .pool = calloc(pool, sizeof *snapshot->pool),
                           .fresh = calloc(pool, sizeof(struct snapshot_piece *)),
                           .memory = memory_new(memory),
                           .memory_bytes = memory,
                           .reserved = bytes };
    if (snapshot->first == NULL || snapshot->copied == NULL || snapshot->pool == NULL ||
        snapshot->fresh == NULL || snapshot->memory == NULL) {
        snapshot_free(engine, snapshot);
        return NULL;
    }
    snapshot->kept_last = &snapshot->kept_first;
    for (size_t i = 1; i < model->shard_count; i++) {
        snapshot->first[i] = snapshot->first[i - 1] + pieces_of(&model->shards[i - 1]);
    }
    fill_pool(snapshot, pool, model->slot_count);
    return snapshot;
}

enum opt_status snapshot_open(struct engine *engine, struct model *model, size_t pool,
                              struct snapshot **out, struct opt_error *error)
{
    if (!model->ready) {
        return opt_fail_as(error, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_READY,
                           "model \"%s\" is not ready: it has no weights to be read",
                           model->name);
    }
    if (model->snapshot != NULL) {
        return opt_fail_as(
            error, OPT_FAILED_PRECONDITION, OPT_DETAIL_TOO_MANY,
            "a snapshot of model \"%s\" is being read already; there can be one "
            "at a time",
            model->name);
    }
    if (model->activity == MODEL_UPDATING || model->schedule.open) {
        return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NOT_READY,
                           "update %" PRIu64
                           " of model \"%s\" is in progress; a snapshot is "
                           "opened between two updates",
                           model->step + 1, model->name);
    }
    struct snapshot *snapshot = make(engine, model, pool);
    if (snapshot == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for %zu pieces of model \"%s\", of %zu bytes "
                           "each: %zu of the %zu bytes that --memory allows are left",
                           pool, model->name,
                           (1 + model->slot_count) * OPT_BLOCK * sizeof(float),
                           budget_left(&engine->budget), engine->budget.limit);
    }
    model->snapshot = snapshot;
    *out = snapshot;
    return OPT_OK;
}

void snapshot_lose(struct model *model)
{
    if (model->snapshot != NULL) {
        model->snapshot->model = NULL;
        model->snapshot = NULL;
    }
}

void snapshot_close(struct engine *engine, struct snapshot *snapshot)
{
    assert(snapshot->out == 0);
    if (snapshot->model != NULL) {
        snapshot_lose(snapshot->model);
    }
    snapshot_free(engine, snapshot);
}

/* ---------------------------------------------------------------- pieces */

/* A piece of the pool for the index-th of the shard, which is not live any more. NULL:
 * there is none. */
static struct snapshot_piece *begin(struct snapshot *snapshot,
                                    const struct shard *shard, size_t index)
{
    struct snapshot_piece *piece = snapshot->spare;
    if (piece == NULL) {
        return NULL;
    }
    snapshot->spare = piece->next;
    piece->next = NULL;
    size_t rest = shard->n - index * OPT_BLOCK;
    piece->shard = shard;
    piece->at = shard->at + index * OPT_BLOCK;
    piece->n = rest < OPT_BLOCK ? rest : OPT_BLOCK;
    snapshot->copied[snapshot->first[shard - snapshot->model->shards] + index] = true;
    snapshot->left--;
    return piece;
}

/* What is current is as it was when the snapshot was opened: nobody has written it
 * since. */
static void copy(const struct snapshot *snapshot, struct snapshot_piece *piece)
{
    const struct shard *shard = piece->shard;
    size_t from = piece->at - shard->at, bytes = piece->n * sizeof(float);
    memcpy(piece->weights, version_values(shard->current) + from, bytes);
    for (size_t i = 0; i < snapshot->model->slot_count; i++) {
        memcpy(piece->slots[i], shard->slots[i] + from, bytes);
    }
}

/* The first piece that is live is next. */
static void skip_copied(struct snapshot *snapshot)
{
    while (snapshot->next < snapshot->pieces && snapshot->copied[snapshot->next]) {
        snapshot->next++;
    }
    while (snapshot->shard + 1 < snapshot->model->shard_count &&
           snapshot->first[snapshot->shard + 1] <= snapshot->next) {
        snapshot->shard++;
    }
}

struct snapshot_piece *snapshot_take(struct snapshot *snapshot)
{
    struct snapshot_piece *piece = snapshot->kept_first;
    if (snapshot->model == NULL) {
        return NULL;
    }
    if (piece != NULL) {
        snapshot->kept_first = piece->next;
        snapshot->kept_last =
            piece->next == NULL ? &snapshot->kept_first : snapshot->kept_last;
        piece->next = NULL;
    } else if (snapshot->left > 0) {
        skip_copied(snapshot);
        piece = begin(snapshot, &snapshot->model->shards[snapshot->shard],
                      snapshot->next - snapshot->first[snapshot->shard]);
        if (piece != NULL) {
            copy(snapshot, piece);
        }
    }
    snapshot->out += piece != NULL;
    return piece;
}

void snapshot_give(struct snapshot *snapshot, struct snapshot_piece *piece)
{
    piece->next = snapshot->spare;
    snapshot->spare = piece;
    snapshot->out--;
}

bool snapshot_is_taken(const struct snapshot *snapshot)
{
    return snapshot->left == 0 && snapshot->kept_first == NULL;
}

bool snapshot_is_lost(const struct snapshot *snapshot)
{
    return snapshot->model == NULL;
}

/* ---------------------------------------------------------------- updates */

bool snapshot_keep(struct model *model, const struct shard *shard, size_t at, size_t n,
                   uint64_t *copied)
{
    struct snapshot *snapshot = model->snapshot;
    if (snapshot == NULL || snapshot->left == 0) {
        return true;
    }
    size_t first = snapshot->first[shard - model->shards];
    for (size_t i = (at - shard->at) / OPT_BLOCK; i * OPT_BLOCK < at + n - shard->at;
         i++) {
        if (snapshot->copied[first + i]) {
            continue;
        }
        struct snapshot_piece *piece = begin(snapshot, shard, i);
        if (piece == NULL) {
            return false;
        }
        snapshot->fresh[snapshot->fresh_count++] = piece;
        *copied += piece->n * (1 + model->slot_count);
    }
    return true;
}

static void copy_fresh(size_t number, void *argument)
{
    const struct snapshot *snapshot = argument;
    copy(snapshot, snapshot->fresh[number]);
}

void snapshot_copy(struct engine *engine, struct model *model)
{
    struct snapshot *snapshot = model->snapshot;
    if (snapshot == NULL || snapshot->fresh_count == 0) {
        return;
    }
    team_each(engine->team, snapshot->fresh_count * OPT_BLOCK >= TEAM_ELEMENTS, 0,
              snapshot->fresh_count, 1, copy_fresh, snapshot);
    for (size_t i = 0; i < snapshot->fresh_count; i++) {
        *snapshot->kept_last = snapshot->fresh[i];
        snapshot->kept_last = &snapshot->fresh[i]->next;
    }
    snapshot->fresh_count = 0;
}
