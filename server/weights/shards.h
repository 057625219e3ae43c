/* shards — the memory of a model's shards, and the door through which an update writes
 * them.
 *
 * A shard's weights are one version (version.h). An update opens a shard before it
 * writes, which gives it the current version if nobody reads that, and a fresh one
 * otherwise; and publishes it when its last block is stepped. Beside it a shard may
 * have a spare version, which waits for the next reader, and versions of views that
 * were computed of it. All of these come from the budget, and go when it is short. In
 * the engine's turn.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_SHARDS_H
#define OPTIMD_SERVER_WEIGHTS_SHARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct model;
struct shard;
struct version;

/* See that an update may write the shard's weights: in place if nobody reads them, else
 * into a fresh version, into which is carried over what the update does not write: all
 * but dense tensors that are marked in written (per tensor of the model; NULL: all).
 * *copied grows by as many elements. False: a reader holds the weights, and there is no
 * memory for another version now. */
bool shard_open(struct engine *engine, struct model *model, struct shard *shard,
                const uint8_t *written, uint64_t *copied);
/* What the update has written of an open shard is current from now on, as the model's
 * next step. It stays open. */
void shard_publish(struct model *model, struct shard *shard);
/* Publish and close all shards that are open. */
void shards_close(struct model *model);

/* Whether a version of the model is not where the next one would be made: it is in
 * memory of its own, and the model shares its weights. */
bool shard_outgrew(const struct model *model, const struct version *version);
/* See that the shard has a spare version, from those that readers returned or fresh.
 * False if the budget does not allow it. */
bool shard_back(struct engine *engine, struct model *model, struct shard *shard);
/* Take what readers returned: spares of shards; the rest is freed. */
void shards_collect(struct model *model);
/* Whether readers hold versions that updates have superseded. */
bool shards_are_held(struct model *model);

/* Give up a computed view (enum in model.h) of all shards, or only mark it as old. */
void shards_drop_view(struct model *model, size_t view);
void shards_outdate_view(struct model *model, size_t view);
/* Free all spares and views that nobody needs now, of every model. */
void shards_trim(struct engine *engine);

#endif
