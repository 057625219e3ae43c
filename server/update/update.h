/* update — one update of a model, done in pieces of about a millisecond.
 *
 * The round that closes starts it; the engine's loop runs piece after piece, and looks
 * at its mailbox in between. The phases follow common/optim/update.h; in each of them
 * the blocks are independent and are dealt to the team, whose size therefore changes no
 * bit. Nothing is allocated here, and once the norms are known nothing can fail.
 *
 *   [ norms -> ] prepare -> [ first passes -> ] steps -> ... -> [ rows -> lookahead ->
 *                           \_   per group of tensors   _/                      publish
 *
 * What goes through the phases together is a batch of spans. A round that is applied as
 * a whole is one batch, and happens whole or not at all. A round that is applied shard
 * by shard (shard_schedule.h) is several: each publishes its shards, the last one ends
 * the update. Which spans share a batch changes no bit either.
 *
 * Once the steps of a batch have begun nothing can undo it. So the shards of a large
 * one are published as their last blocks are stepped, and update_run says so. An update
 * that ends with a look ahead changes every shard once more, and sparse tensors are
 * stepped last: those are published with the end of their batch.
 *
 * A tensor that takes two passes is done by one thread if it is small, so that nobody
 * waits in between; a large one is a group of its own.
 *
 * Between two pieces the threads of the team sleep, unless the daemon's environment
 * says otherwise (server/patience.h).
 */
#ifndef OPTIMD_SERVER_UPDATE_UPDATE_H
#define OPTIMD_SERVER_UPDATE_UPDATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/update.h"
#include "server/update/rows.h"

struct engine;
struct gradient;
struct model;
struct slabs;
struct writing;

enum update_phase {
    UPDATE_MARK,
    UPDATE_ADD,
    UPDATE_NORMS,
    UPDATE_ROW_NORMS,
    UPDATE_ADD_NORMS,
    UPDATE_PREPARE,
    UPDATE_FIRST,
    UPDATE_STEPS,
    UPDATE_ROWS,
    UPDATE_LOOKAHEAD
};

/* Blocks of one tensor, first to end, end excluded; none if it is sparse. */
struct span {
    uint32_t tensor, first, end;
    bool prepares; /* the tensor's first in this update */
    size_t at;     /* elements of the batch before it */
};

/* The spans of a batch of one update, and where it is. Memory for it is made with the
 * model. */
struct update {
    struct opt_update scalars;
    struct opt_tensor_update *tensors; /* one per tensor of the model */
    struct opt_block_sums *sums;       /* one per block of the model */
    float *scratch; /* directions of one large tensor that its gradient cannot take */
    size_t scratch_bytes;
    struct span *spans; /* of the batch, ascending */
    size_t span_count;
    uint8_t *is_touched;   /* per tensor: in the batch */
    uint8_t *is_bound;     /* per tensor: in this batch or one before */
    bool in_order;         /* the gradients name the same tensors, in ascending order */
    bool last;             /* the batch ends the update */
    bool parted;           /* there has been one before it */
    size_t unstepped;      /* shards that are published when their last block is */
    uint64_t elements;     /* in the batch */
    _Atomic uint64_t held; /* blocks in which a value would have left fp32's range */
    double damping;        /* of its gradients; 1: none */
    uint64_t started_ns;
    enum update_phase phase;
    size_t cursor, cursor_block;   /* next span, and block of it */
    size_t group_begin, group_end; /* spans */
    size_t norm_group;             /* the next group of rows whose norm is added */
    uint64_t copied;               /* elements, of shards opened for one piece */
    struct rows rows;              /* of sparse tensors; cursor is the next group */
    const struct gradient *const *gradients; /* borrowed until the batch is over */
    size_t gradient_count;
    struct writing *writing; /* NULL: updates are not written down (written.h) */
    struct slabs *slabs[2];  /* what they are written into: blocks, rows */
};

/* Begin the model's next update, with its options in force. */
void update_begin(struct engine *engine, struct model *model);
/* Begin the last batch of the update: all that gradients name and no batch before has
 * had. They are in ascending order of worker names. There is room for so many
 * contributions (team_reserve) and rows (rows_reserve). */
void update_rest(struct engine *engine, struct model *model,
                 const struct gradient *const *gradients, size_t count);
/* Batches before it, by hand: open each, add its spans in ascending order, and start
 * it. Each may have other gradients. */
void update_batch(struct model *model, const struct gradient *const *gradients,
                  size_t count);
void update_add(struct model *model, uint32_t tensor, size_t first, size_t end);
void update_batch_start(struct engine *engine, struct model *model, bool last);
/* What the batch that has been started takes: elements, and in the same measure what is
 * to be done besides. A push of one value takes much if it names many tensors, or if
 * all slow weights move. */
uint64_t update_cost(const struct model *model);

/* A block has been run: count it if a value had to be held (any thread of the team). */
static inline void update_note_held(struct update *update,
                                    const struct opt_block_sums *sums)
{
    if (sums->held) {
        atomic_fetch_add_explicit(&update->held, 1, memory_order_relaxed);
    }
}

enum update_progress {
    UPDATE_MORE,    /* call again */
    UPDATE_SHARDS,  /* the same; and shards have been published, more will be */
    UPDATE_STALLED, /* a shard is held by readers and there is no memory for another */
    UPDATE_PARTLY,  /* the batch is applied and published; others follow */
    UPDATE_DONE,    /* applied and published: the model's step has grown */
    UPDATE_OVERFLOW /* the sum is not finite at *tensor, *element; nothing changed */
};
enum update_progress update_run(struct engine *engine, struct model *model,
                                uint32_t *tensor, uint64_t *element);

#endif
