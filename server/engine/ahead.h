/* ahead — what a round that is applied as a whole gives away before its update is over.
 *
 * Once the steps of an update have begun nothing can undo it. So a shard is published
 * as soon as its last block is stepped: a push_pull that waits for all weights gets it
 * (part.h), and frames all of whose shards are done go back to their loops, whose
 * memory, still in cache, takes the frames of the next push. While the engine updates
 * the one shard, a loop sends the one before. The model stays busy until the update
 * is over, so nobody else sees a step that is half done.
 *
 * An update that ends with a Lookahead synchronisation changes every shard once more,
 * and sparse tensors are stepped last: they give nothing away. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_AHEAD_H
#define OPTIMD_SERVER_ENGINE_AHEAD_H

#include <stddef.h>

struct engine;
struct model;
struct work;

/* The update of a whole round has begun: see what of it can leave early. */
void ahead_begin(struct model *model);
/* A portion of that update is done: these blocks and tensors have been stepped. */
void ahead_stepped(struct engine *engine, struct model *model, const struct work *work,
                   size_t count);

#endif
