/* stream — a round that is applied shard by shard (policy atomic: SHARD).
 *
 * A round opens as soon as every worker it waits for has begun its push and some shard
 * is there from all of them. From then on its step, its options and who takes part are
 * fixed. Each shard is updated and published when all who take part have sent it, while
 * later ones still arrive; when all their pushes are complete, what is left is done,
 * the update ends and everybody is answered. Between two batches the model is idle:
 * pulls see some shards of the next step, none of them torn.
 *
 *   (not open) -- all have begun, a shard is there --> open <-------.
 *       ^                                               | ready     | applied
 *       |                                               v           |
 *       '-- applied, answered <-- last batch <-- all complete    batch
 *
 * The pushes stay in their workers' hands, gathering or waiting, until the last batch;
 * the model's round lists them. One that goes before (deadline, loss, an error) leaves
 * behind what has been applied, so its sequence counts as used. Its frames cut off by
 * the connection, it stays, and the worker's next copy brings the rest.
 *
 * What is updated at once is a shard, or a whole tensor of several shards where the
 * update needs norms of it. Sparse tensors come with the last batch. In the engine's
 * turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_STREAM_H
#define OPTIMD_SERVER_ENGINE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct engine;
struct model;
struct opt_spec;
struct push;

struct stream {
    bool open;
    bool changed;   /* something has come or gone since it was last looked at */
    size_t applied; /* shards of the open round */
};

/* Whether a specification can be applied shard by shard. OPT_INVALID_ARGUMENT: it needs
 * the whole gradient first. */
enum opt_status stream_check(const struct opt_spec *spec, struct opt_error *error);

/* Whether the model's rounds are applied shard by shard, and whether one is open. */
bool stream_is_policy(const struct model *model);
bool stream_is_open(const struct model *model);

/* A frame of a push has been taken, or who is waited for has changed. */
void stream_changed(struct model *model);
/* Open the round if that can be, and begin its first batch: true. */
bool stream_open(struct engine *engine, struct model *model);
/* Begin the next batch of the open round if there is one: true. */
bool stream_go_on(struct engine *engine, struct model *model);
/* A batch that is not the last has been applied. */
void stream_applied(struct engine *engine, struct model *model);

/* Whether the push takes part in an open round; NULL does not. */
bool stream_has(const struct push *push);
/* And whether a batch is reading it now. */
bool stream_is_using(const struct push *push);
/* It takes part no longer, if it did; the others go on. No batch is using it. */
void stream_withdraw(struct push *push);

/* All who take part are answered ABORTED with the sentence, or APPLIED; the round ends
 * as an update of what has been applied. */
void stream_fail(struct engine *engine, struct model *model, enum opt_detail detail,
                 const char *why);
/* The same, but nothing follows: the model goes, or the daemon. */
void stream_close(struct engine *engine, struct model *model, enum opt_detail detail,
                  const char *why);

#endif
