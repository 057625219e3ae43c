/* replay — updates are made again from what was written down of them (written.h).
 *
 * The model must be as it was when the update began: its weights and slots, its step,
 * its options in force. Then it becomes what it was afterwards, bit for bit. In pieces
 * of about a millisecond, as an update itself:
 *
 *   replay_new
 *     each batch of each update, in order:  replay_begin, then replay_run until it is
 *                                           neither MORE nor SHARDS
 *   replay_free
 *
 * Nobody else may use the model meanwhile: it is busy in whatever way its caller has
 * (model->activity). The update is noted (commit.h) as any other; it is not written
 * down again. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_UPDATE_REPLAY_H
#define OPTIMD_SERVER_UPDATE_REPLAY_H

#include <stdbool.h>

#include "common/status.h"
#include "server/update/update.h"

struct engine;
struct model;
struct replay;
struct written;

/* Tables for one model, from the budget. NULL: no memory. */
struct replay *replay_new(struct engine *engine, struct model *model);
/* Between two updates, or when one has failed; then the model is of no use any more.
 * NULL is allowed. */
void replay_free(struct replay *replay);

/* Begin a batch, the first of an update or the next one of it. Everything in it is
 * checked against the model. It is borrowed, values too, until the batch is over.
 * OPT_DATA_LOSS: it is not one of this model in this state; OPT_RESOURCE_EXHAUSTED: no
 * memory for its rows. Nothing has changed. */
enum opt_status replay_begin(struct replay *replay, const struct written *written,
                             struct opt_error *error);
/* Do a piece of it. UPDATE_PARTLY: the batch is over, others follow; UPDATE_DONE: the
 * update is over, the model's step has grown; UPDATE_STALLED: readers hold a shard (who
 * could?), call again later. UPDATE_OVERFLOW: it cannot be what was written: *error
 * says why. */
enum update_progress replay_run(struct replay *replay, struct opt_error *error);

#endif
