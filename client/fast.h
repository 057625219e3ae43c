/* fast — a worker's own weights, which run ahead of the daemon's, and the optimizer
 * that moves them.
 *
 * Memory and arithmetic; local.c is the way to the daemon. Between two synchronisations
 * the fast weights make steps of their own from where the slow ones were. The kernels
 * are the daemon's, block by block in its order, so that the bits are the daemon's too.
 * Everything runs on the calling thread, one thread at a time.
 */
#ifndef OPTCLIENT_FAST_H
#define OPTCLIENT_FAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/optim/update.h"
#include "common/status.h"

/* The kinds of values that a tensor has here, each a plane of all tensors' values, one
 * tensor after the other, each beginning at a multiple of 64 bytes. */
enum fast_plane {
    FAST_WEIGHTS,
    FAST_SLOW,         /* as of the last synchronisation; filled by the caller */
    FAST_DISPLACEMENT, /* slow - fast; the caller's after fast_depart. During a step it
                          is the room for directions */
    FAST_VIEW,         /* where gradients are taken, if not at the weights */
    FAST_SLOW_MOMENT,  /* of OPTCLIENT_PULLBACK */
    FAST_SLOTS,        /* the first of the optimizer's */
    FAST_PLANES = FAST_SLOTS + OPT_SLOTS_MAX
};

struct fast {
    struct opt_spec spec; /* without Lookahead: that is made of the whole */
    uint64_t steps;       /* made so far, skipped ones not counted */
    size_t count;         /* of tensors; arrays of so many: */
    const struct optclient_tensor *tensors; /* borrowed from the model */
    struct opt_tensor_memory *memory;
    struct opt_tensor_options *options;
    struct opt_tensor_counters *counters;
    struct opt_contribution *gradients; /* of the step in progress */
    size_t *offsets;                    /* of the tensors in every plane */
    size_t floats;                      /* of a plane */
    float *planes[FAST_PLANES];         /* NULL: not needed */
    void *scratch;                      /* of opt_update_serial */
};

/* Make room for a model's tensors and read the specification of their optimizer. The
 * weights are not there yet: fill plane FAST_SLOW and call fast_start. *out is the
 * caller's.
 *
 * tensors  count of them, which outlive it; elements of each beside them
 * options  of optclient_local_open; not NULL
 *
 * OPT_INVALID_ARGUMENT (specification, options), OPT_UNIMPLEMENTED (a sparse tensor),
 * OPT_RESOURCE_EXHAUSTED. */
enum opt_status fast_new(const char *specification,
                         const struct optclient_local_options *options,
                         const struct optclient_tensor *tensors,
                         const uint64_t *elements, size_t count, struct fast **out,
                         struct opt_error *error);
void fast_free(struct fast *fast);

/* Values of one tensor in a plane. */
float *fast_values(const struct fast *fast, enum fast_plane plane, size_t tensor);

/* Where the next gradient of a tensor is to be taken. The place never changes. */
const float *fast_view(const struct fast *fast, size_t tensor);

/* Begin at the slow weights. */
void fast_start(struct fast *fast);

/* One step from gradients of count tensors, each at most once; whole or not at all.
 * *stepped is false if the specification says that it is skipped, because a gradient is
 * not finite. OPT_INVALID_ARGUMENT names what is wrong with the gradients. */
enum opt_status fast_step(struct fast *fast, const struct optclient_values *gradients,
                          size_t count, bool *stepped, struct opt_error *error);

/* Fill plane FAST_DISPLACEMENT. No step until fast_arrive, and FAST_SLOW may be written
 * from now on. */
void fast_depart(struct fast *fast);

/* The slow weights have come into another plane. */
void fast_take_slow(struct fast *fast, enum fast_plane from);

/* The slow weights have come: go on from them, with the first moment treated as the
 * options say. */
void fast_arrive(struct fast *fast);

#endif
