/* checkpointing — one checkpoint, from a model's memory to the disk.
 *
 * The engine copies, about a millisecond at a time, and the checkpoints' thread writes
 * what was copied; the pool of the snapshot (server/weights/snapshot.h) is all that is
 * between them. The model goes on meanwhile: only while what belongs to one step is
 * taken down no update of it runs, which is the caller's to see to.
 *
 *   engine: names -> counters, cut -> pieces ... pieces -> wait -> over
 *                                      |  ^ given back      ^
 *   thread:       make the folder -> write ... write -> sync, rename, remove old ones
 *
 * If the model goes, or anything fails, what has been written is removed. In the
 * engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_CHECKPOINTING_H
#define OPTIMD_SERVER_DURABLE_CHECKPOINTING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "server/store/checkpoint.h"

struct checkpointing;
struct durable;
struct model;

/* What came of one. */
struct checkpoint_outcome {
    struct opt_error error; /* status OPT_OK: it is there, durable */
    struct opt_error prune; /* not OPT_OK: it is, but older ones could not be removed */
    char name[CHECKPOINT_NAME];
    uint64_t step, record;
    uint64_t bytes, ns; /* of values; from the cut on */
};

/* Begin a checkpoint of a model that has weights. NULL: no memory. */
struct checkpointing *checkpointing_new(struct durable *durable, struct model *model,
                                        struct opt_error *error);

enum checkpointing_progress {
    CHECKPOINTING_MORE,  /* there is more to do at once */
    CHECKPOINTING_WAITS, /* for the disk, or for the model's update to end */
    CHECKPOINTING_OVER
};
/* Do some of it. */
enum checkpointing_progress checkpointing_go_on(struct checkpointing *saving);
/* Whether the model is between two updates. */
bool checkpointing_can_cut(const struct model *model);
/* Whether the cut has been made: what becomes true of the model from then on is not in
 * the checkpoint, and updates need not wait. */
bool checkpointing_is_cut(const struct checkpointing *saving);

/* The model goes: give the checkpoint up. */
void checkpointing_lose(struct checkpointing *saving);

/* What came of it; it is over. */
const struct checkpoint_outcome *
checkpointing_outcome(const struct checkpointing *saving);
/* It is over, or nothing of it is on its way. */
void checkpointing_free(struct checkpointing *saving);

#endif
