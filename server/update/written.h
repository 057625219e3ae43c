/* written — an update as it is written down while it runs, so that it can be made
 * again.
 *
 * An update whose recorder wants it (commit.h) writes down what it reads: the pass that
 * first comes to a block puts its gradient into memory of the update's own, and from
 * then on the update reads that. So what was written is what was computed from, even
 * where a worker was writing meanwhile (GRADIENT_SHARED):
 *
 *   one gradient whose factor is 1      its bytes, in its dtype; of shared memory: with
 *                                       0 for what is not finite
 *   anything else                       what the gradients come to (factors, damping,
 *                                       delay compensation), in fp32
 *   rows of sparse tensors              what each row comes to, in fp32, once per row
 *
 * That is one gradient with factor 1, whatever it was before, and has no basis and no
 * samples any more. An update that writes gives the same bits as one that does not; but
 * for values of shared memory that are beyond fp32 once scaled by a trust ratio, which
 * are held as those of any other push, since nobody can change them any more.
 *
 * Each batch of an update (update.h) is written by itself. They are complete with
 * COMMIT_STEP, when the recorder takes them; one that it does not take, or that is
 * undone, is forgotten. replay.h makes a batch again.
 *
 * The memory. An update begins only if there is room for what it will write
 * (written_room), so nothing is allocated while it runs. Room for one update is
 * reserved with the model, and with the pushes that bring rows, so that one can always
 * begin when nothing of the model is still in the recorder's hands. More are taken from
 * the budget while that has room; else the round waits, and the model is settled again
 * when the recorder gives one back. Memory that comes back is used again.
 *
 * In the engine's turn, but for written_block and written_row, which the team calls.
 */
#ifndef OPTIMD_SERVER_UPDATE_WRITTEN_H
#define OPTIMD_SERVER_UPDATE_WRITTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"

struct engine;
struct gradient;
struct model;
struct opt_block_memory;
struct opt_contribution;
struct slab;
struct span;
struct work;
struct writing;

/* first, first + 1, ..., count of them. */
struct written_run {
    uint32_t first, count;
};

/* Rows of a sparse tensor. */
struct written_rows {
    uint32_t tensor;
    size_t count;
    const uint32_t *rows; /* ascending, each once */
    const float *values;  /* row after row */
    size_t value_bytes;
};

/* A batch. What the engine has written is freed with written_free; what has been read
 * from elsewhere, to be made again, is its reader's, and next and slabs are NULL. */
struct written {
    struct written *next; /* of the same update */
    bool last;            /* it ends the update */
    /* Of a batch that is not the last: spans, ascending, at the borders of shards. */
    const struct span *spans;
    size_t span_count;
    /* Of the last one: tensors that its gradients name, ascending. What batches before
     * it have not had of them is in it. */
    const struct written_run *tensors;
    size_t tensor_runs;
    /* Of both: blocks of the model, ascending, and their values, one block after the
     * other, each as long as it is: OPT_BLOCK elements, or the rest of its tensor. */
    enum opt_dtype dtype;
    const struct written_run *blocks;
    size_t block_runs;
    const void *values; /* aligned to 64 bytes */
    size_t value_bytes;
    /* Of the last one: by tensor, ascending. */
    const struct written_rows *rows;
    size_t rows_count;     /* tensors */
    size_t bytes;          /* of all values and row numbers */
    struct slab *slabs[2]; /* where it is: tables and blocks, and rows */
};

/* All batches of the update that has just ended, in order: the caller's from now on.
 * NULL: it was not written down. At COMMIT_STEP. */
struct written *written_take(const struct model *model);
/* Free a batch and all that follow it by next, of whatever updates and models. A model
 * may be gone; the engine must not be. Rounds that wait for this memory are looked at
 * again at the end of the turn. NULL is allowed. */
void written_free(struct engine *engine, struct written *written);

/* ---- for the model */

/* What is reserved with a model of which so many elements are dense. */
size_t written_reserve_bytes(size_t elements, size_t tensors, size_t shards);
/* Updates of the model are written down. Its tensors and shards have been counted, and
 * so many of them are sparse. False: no memory. */
bool written_open(struct engine *engine, struct model *model, size_t elements,
                  size_t sparse);
/* Reserve room for so many rows, of so many elements together; false: no memory. True
 * if updates are not written down. */
bool written_reserve_rows(struct model *model, size_t rows, size_t elements);
/* The model goes: free about so many bytes of what nobody uses; 0: nothing is left.
 * Then the rest; what the recorder has taken stays its own. */
size_t written_cut(struct model *model, size_t most);
void written_close(struct model *model);

/* ---- for rounds */

/* Have room for an update with these gradients, which begins now; or, with whole, with
 * any gradients at all, but for rows (written_room_rest). False: it has to wait, and
 * the model is settled when it should be tried again. True if updates are not written
 * down. */
bool written_room(struct engine *engine, struct model *model,
                  const struct gradient *const *gradients, size_t count, bool whole);
/* The same for the rows of the last batch. */
bool written_room_rest(const struct engine *engine, struct model *model,
                       const struct gradient *const *gradients, size_t count);
/* Whether a round waits for that. */
bool written_is_awaited(const struct model *model);

/* ---- for the update */

/* A batch has been started: its spans and rows are known. */
void written_start(struct model *model);
/* The batch is over; what it has written stays. */
void written_end(struct model *model);
/* The update did not happen, or nobody has taken what it has written. */
void written_forget(struct model *model);

/* Where the work's block is, or will be, written: a contribution by itself. False: the
 * batch is not written down. */
bool written_block(const struct model *model, const struct work *work,
                   struct opt_contribution *out);
/* The same for the row of a group. */
bool written_row(const struct model *model, size_t group, struct opt_contribution *out);

#endif
