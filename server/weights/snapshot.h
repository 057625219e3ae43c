/* snapshot — a model's weights and slots as they are at one step, read while updates go
 * on.
 *
 * A snapshot is opened between two updates. Whoever reads it takes piece after piece,
 * in no particular order, each a copy in memory of a pool that was paid for when the
 * snapshot was opened. What an update is about to write and nobody has taken yet is
 * copied into the pool first (snapshot_keep, at the door through which updates write:
 * portion.c); if the pool has no room, the update waits until the reader has given a
 * piece back.
 *
 *   live --- taken: copied --------------------> taken --- given back --> done
 *     '----- an update writes: copied --> kept ----^
 *
 * A piece is at most OPT_BLOCK floats of one shard. If the model goes while a snapshot
 * of it is open, the snapshot has no more pieces and is lost. In the engine's turn, but
 * for reading a piece that was taken, and snapshot_copy, which works with the team.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_SNAPSHOT_H
#define OPTIMD_SERVER_WEIGHTS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/spec.h"
#include "common/status.h"

struct snapshot;
struct engine;
struct model;
struct shard;

struct snapshot_piece {
    size_t at, n; /* in the model's flat range, padding between tensors included */
    float *weights;
    float *slots[OPT_SLOTS_MAX]; /* as many as the model has */
    const struct shard *shard;   /* the snapshot's own from here */
    struct snapshot_piece *next;
};

/* Open a snapshot of the model at its step, with a pool of so many pieces.
 * OPT_FAILED_PRECONDITION: the model is not ready, or has a snapshot already.
 * OPT_UNAVAILABLE: an update is in progress; ask again. OPT_RESOURCE_EXHAUSTED: there
 * is no memory for the pool. */
enum opt_status snapshot_open(struct engine *engine, struct model *model, size_t pool,
                              struct snapshot **out, struct opt_error *error);
/* Give up what has not been taken, and free the snapshot. No piece of it is in use. */
void snapshot_close(struct engine *engine, struct snapshot *snapshot);

/* The next piece, until it is given back. NULL: all have been taken
 * (snapshot_is_taken), the snapshot is lost, or the pool is empty until one is given
 * back. */
struct snapshot_piece *snapshot_take(struct snapshot *snapshot);
void snapshot_give(struct snapshot *snapshot, struct snapshot_piece *piece);
bool snapshot_is_taken(const struct snapshot *snapshot);
bool snapshot_is_lost(const struct snapshot *snapshot);

/* The model goes, and what is open of it is lost. */
void snapshot_lose(struct model *model);

/* An update is going to write n floats of the shard, from `at` of the flat range on:
 * keep what has not been taken of them. *copied grows by the elements that will be
 * copied. False: the pool has no room now. */
bool snapshot_keep(struct model *model, const struct shard *shard, size_t at, size_t n,
                   uint64_t *copied);
/* Copy what is to be kept: before the update writes. */
void snapshot_copy(struct engine *engine, struct model *model);

#endif
