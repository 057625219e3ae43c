/* sink — where the weights of a pull go, and whether all of them have come.
 *
 * The daemon may answer in any order and cut where it likes (at block multiples); each
 * frame is checked against what was asked before a byte of it is placed: only tensors
 * of the model, only blocks that have not come yet, one step for all frames; rows come
 * in the order in which they were asked for. Blocks that have not changed may be left
 * out if that was said to be enough: they count as come, and the caller's memory stays
 * as it is. The daemon is not trusted. Called by replies.h, answers.h and shm.h with
 * the client's lock held.
 */
#ifndef OPTCLIENT_SINK_H
#define OPTCLIENT_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/status.h"
#include "common/wire.h"

struct sink_rows {
    size_t accepted, placed; /* rows that came, and those of them that have a place */
};

struct sink {
    const struct optclient_values *values;
    size_t count;
    const uint64_t *elements; /* of each tensor of the model */
    const uint64_t *widths;   /* of a row of each, 0 if dense */
    size_t tensors;
    size_t *place_of;     /* for each tensor its position in values, or SIZE_MAX;
                             NULL: the same, for all tensors of the model are wanted */
    uint64_t *came;       /* a bit for each block that has come */
    uint64_t *first_bit;  /* for each of values: that of its first block */
    uint64_t block;       /* elements */
    uint64_t blocks_left; /* wanted and not come yet */
    struct sink_rows
        *rows; /* for each of values how far its rows are; NULL: none has */
    uint64_t rows_left;
    bool begun; /* a frame has come, so that step is known */
    uint64_t step;
    uint64_t unchanged; /* elements that were left out */
    uint64_t held;      /* that came as the largest of their dtype, being beyond it */
    /* How it is asked: set before sink_begin. */
    bool may_stay; /* what has not changed may be left out */
    bool listed;   /* nothing is asked for but what values name */
};

/* Prepare for values of a model; their tensors exist. OPT_INVALID_ARGUMENT if one is
 * named twice; OPT_RESOURCE_EXHAUSTED if there is no memory. values, elements
 * and widths are borrowed until sink_fini, which is to be called after a failure too.
 */
enum opt_status sink_init(struct sink *sink, const struct optclient_values *values,
                          size_t count, const uint64_t *elements,
                          const uint64_t *widths, size_t tensors,
                          struct opt_error *error);
void sink_fini(struct sink *sink);

/* Whether values are all tensors of the model in order, which needs no list. */
bool sink_wants_all(const struct sink *sink);

/* Nothing has come yet, and blocks have that many elements. False: no memory. */
bool sink_begin(struct sink *sink, uint64_t block);

/* A frame's header part has come: check its segments, and count them as come.
 * OPT_INTERNAL, OPT_DATA_LOSS with a sentence if the daemon is wrong. */
enum opt_status sink_accept(struct sink *sink, const struct opt_pull_reply *reply,
                            size_t data_size, enum opt_dtype dtype,
                            struct opt_error *error);

/* The one place where an accepted frame's data can be read to as it is, because its
 * segments follow each other in the caller's memory too; or NULL if it has to be taken
 * apart by sink_spread. */
float *sink_place(struct sink *sink, const struct opt_pull_reply *reply);

/* Put an accepted frame's data into its places. */
void sink_spread(struct sink *sink, const struct opt_pull_reply *reply,
                 const uint8_t *data);

/* Put one segment of an accepted frame, fp32 and without rows, into its place. */
void sink_put(struct sink *sink, const struct opt_segment *segment,
              const float *values);

/* Whether everything has come. */
bool sink_full(const struct sink *sink);

#endif
