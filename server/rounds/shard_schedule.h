/* shard_schedule — when the shards of a round are updated, and what leaves of them
 * before the round is over.
 *
 * A shard is updated when all pushes of the round are complete; or, if the model's
 * policy is atomic: SHARD, as soon as everybody who takes part has sent it, while
 * later ones still arrive. A shard is published when its last block is stepped
 * (update.h), and from then on its frames can go back to their loops, and a push_pull
 * that waits for all weights gets it, while the engine updates the next one.
 *
 *   round:  pushes complete --> all shards
 *   shard:  (not open) -- all have begun, a shard is there --> open <-------.
 *               ^                                               | ready     | published
 *               |                                               v           |
 *               '-- applied, answered <-- the rest <-- all complete       some
 *
 * From the moment that a round is open, its step, its options and who takes part are
 * fixed. Its pushes stay in their workers' hands, gathering or waiting, until the rest
 * is begun; the model's round lists them. Between two batches the model is idle: pulls
 * see some shards of the next step, none of them torn. A push that goes before the end
 * (deadline, loss, an error) leaves behind what has been applied, so its sequence
 * counts as used. If the connection cuts its frames off, the push stays,
 * and the worker's next copy brings the rest.
 *
 * What is updated at once is a shard, or a whole tensor of several shards where the
 * update needs norms of it. Sparse tensors come with the rest. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_SHARD_SCHEDULE_H
#define OPTIMD_SERVER_ROUNDS_SHARD_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>

struct engine;
struct letter;
struct model;
struct opt_pull;
struct push;

struct shard_schedule {
    bool open;    /* a round that is applied shard by shard is */
    bool changed; /* something has come or gone since it was last looked at */
    size_t done;  /* shards before this one are published, or never are early */
};

/* Whether the model's rounds are applied shard by shard. */
bool shard_schedule_is_policy(const struct model *model);

/* Begin the update of the model's round, whose pushes are complete. */
void shard_schedule_whole(struct engine *engine, struct model *model);

enum shards_begun { SHARDS_NONE, SHARDS_SOME, SHARDS_REST };
/* Begin the update of shards that are ready, if the policy is that: of the open round,
 * or of one that can be opened. SHARDS_REST: the round's pushes are complete, and all
 * that is left has begun. */
enum shards_begun shard_schedule_next(struct engine *engine, struct model *model);

/* Whether the push takes part in an open round; NULL does not. */
bool shard_schedule_has(const struct push *push);
/* And whether a batch is reading it now. */
bool shard_schedule_is_using(const struct push *push);
/* It takes part no longer, if it did; the others go on. No batch is using it. */
void shard_schedule_withdraw(struct push *push);

/* A push_pull that pulls all tensors as they are gets shards in letters of the engine's
 * own, ahead of the answer, which then has the others. Where an update ends with a look
 * ahead every shard changes once more, so nothing leaves before. */

/* What the push pulls; pull may be NULL. Its first frame may tell early. */
void shard_schedule_wish(struct push *push, const struct opt_pull *pull);
/* Shards of the round have been published: send what can leave of them. */
void shard_schedule_send(struct engine *engine, struct model *model);
/* The letter is the push's answer: mark those of its pieces that have left. */
void shard_schedule_subtract(struct engine *engine, const struct push *push,
                             struct letter *letter);

#endif
