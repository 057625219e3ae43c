/* part — what leaves of the answers of a round before it is over.
 *
 * A push_pull that pulls all tensors as they are (its first frame says so) gets
 * each shard as soon as it is applied, by a batch of a round that is applied shard by
 * shard (stream.h) or by the update of a whole one (ahead.h): in a letter of the
 * engine's own, sent to the connection ahead of the answer, which then has the rest.
 * Where a round ends with a Lookahead synchronisation every shard changes once more, so
 * nothing leaves before. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_PART_H
#define OPTIMD_SERVER_ENGINE_PART_H

struct engine;
struct letter;
struct model;
struct opt_pull;
struct push;

/* A frame of a push_pull has come that tells early what it pulls, or its last one; pull
 * may be NULL. */
void part_wish(struct push *push, const struct opt_pull *pull);
/* The push goes on over another connection, where nothing has left yet. */
void part_forget(struct push *push);
/* Shards of the round have been applied: send what can be sent. */
void part_send(struct engine *engine, struct model *model);
/* The letter is the answer: take what has left out of its pieces. */
void part_subtract(const struct push *push, struct letter *letter);

#endif
