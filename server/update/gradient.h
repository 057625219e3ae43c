/* gradient — what an update reads of a push.
 *
 * An update (update.h) takes gradients, a model's options in force and its step, and
 * knows of no push, letter or peer. The same gradients, written down and applied again
 * in the same order to a model in the same state, make the same weights and slots, bit
 * for bit.
 *
 * What an update does with the memory of a gradient depends on whose that is:
 *
 *   OWN     The update reads it. Where it takes two passes with directions in between
 *           (layerwise(update)), it may write the directions over values that are fp32.
 *   KEPT    The update only reads it: the values are what they were when it is over.
 *   SHARED  The update only reads it, and a worker may be writing it meanwhile. Two
 *           reads of an element may differ; what is not finite counts as 0.
 *
 * How long it needs the memory: the values of a block until the block's shard has been
 * published (shards.h), and those of rows, as well as the tables, until the update is
 * over.
 *
 * An update that is written down (written.h) reads each element of a gradient once, and
 * only reads it: from then on it reads what it has written.
 */
#ifndef OPTIMD_SERVER_UPDATE_GRADIENT_H
#define OPTIMD_SERVER_UPDATE_GRADIENT_H

#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/wire.h"

struct last_pull;

enum gradient_memory { GRADIENT_OWN, GRADIENT_KEPT, GRADIENT_SHARED };

/* The rows that one segment names. */
struct row_run {
    struct row_run *next; /* of the gradient, in the order of its segments */
    uint32_t tensor;
    const uint32_t *rows;
    size_t count;
    const uint8_t *values;
};

struct gradient {
    enum opt_dtype dtype;
    enum opt_form form;
    enum gradient_memory memory;
    uint64_t samples;
    uint64_t basis; /* step of the weights it was computed from */
    const struct last_pull
        *last_pull;    /* those weights, for delay compensation; or NULL */
    uint32_t *tensors; /* that it names, in the order of their first segments */
    size_t tensor_count;
    uint32_t *covered; /* per tensor of the model: blocks of it that are there; of a
                          sparse one: segments */
    const uint8_t **blocks; /* per block of the model: its values, or NULL */
    struct row_run *rows_first, *rows_last; /* of sparse tensors */
    size_t row_count;                       /* in all of them, */
    size_t row_elements;                    /* and elements */
    size_t elements;                        /* of the dense tensors that it names */
};

/* Updates that the model had between the gradient's basis and a step. */
static inline uint64_t gradient_staleness(const struct gradient *gradient,
                                          uint64_t step)
{
    return step > gradient->basis ? step - gradient->basis : 0;
}

#endif
