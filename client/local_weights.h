/* local_weights — a worker's own weights, which run ahead of the daemon's, and the
 * optimizer that moves them.
 *
 * Memory and arithmetic; api_local.c is the way to the daemon. Between two
 * synchronisations the fast weights make steps of their own from where the slow ones
 * were. The kernels are the daemon's, block by block in its order, so that the bits are
 * the daemon's too. Everything runs on the calling thread, one thread at a time.
 */
#ifndef OPTCLIENT_LOCAL_WEIGHTS_H
#define OPTCLIENT_LOCAL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/optim/update.h"
#include "common/status.h"

/* The kinds of values that a tensor has here, each a plane of all tensors' values, one
 * tensor after the other, each beginning at a multiple of 64 bytes. */
enum local_plane {
    PLANE_WEIGHTS,
    PLANE_SLOW,         /* as of the last synchronisation; filled by the caller */
    PLANE_DISPLACEMENT, /* slow - fast; the caller's after local_weights_depart. During
                          a step it is the room for directions */
    PLANE_VIEW,         /* where gradients are taken, if not at the weights */
    PLANE_SLOW_MOMENT,  /* of OPTCLIENT_PULLBACK */
    PLANE_SLOTS,        /* the first of the optimizer's */
    PLANE_COUNT = PLANE_SLOTS + OPT_SLOTS_MAX
};

struct local_weights {
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
    float *planes[PLANE_COUNT];         /* NULL: not needed */
    void *scratch;                      /* of opt_update_serial */
};

/* Make room for a model's tensors and read the specification of their optimizer. The
 * weights are not there yet: fill plane PLANE_SLOW and call local_weights_start. *out
 * is the caller's.
 *
 * tensors  count of them, which outlive it; elements of each beside them
 * options  of optclient_local_open; not NULL
 *
 * OPT_INVALID_ARGUMENT (specification, options), OPT_UNIMPLEMENTED (a sparse tensor),
 * OPT_RESOURCE_EXHAUSTED. */
enum opt_status local_weights_new(const char *specification,
                                  const struct optclient_local_options *options,
                                  const struct optclient_tensor *tensors,
                                  const uint64_t *elements, size_t count,
                                  struct local_weights **out, struct opt_error *error);
void local_weights_free(struct local_weights *fast);

/* Values of one tensor in a plane. */
float *local_weights_values(const struct local_weights *fast, enum local_plane plane,
                            size_t tensor);

/* Where the next gradient of a tensor is to be taken. The place never changes. */
const float *local_weights_view(const struct local_weights *fast, size_t tensor);

/* Begin at the slow weights. */
void local_weights_start(struct local_weights *fast);

/* One step from gradients of count tensors, each at most once; whole or not at all.
 * *stepped is false if the specification says that it is skipped, because a gradient is
 * not finite. OPT_INVALID_ARGUMENT names what is wrong with the gradients. */
enum opt_status local_weights_step(struct local_weights *fast,
                                   const struct optclient_values *gradients,
                                   size_t count, bool *stepped,
                                   struct opt_error *error);

/* Fill plane PLANE_DISPLACEMENT. No step until local_weights_arrive, and PLANE_SLOW may
 * be written from now on. */
void local_weights_depart(struct local_weights *fast);

/* The slow weights have come into another plane. */
void local_weights_take_slow(struct local_weights *fast, enum local_plane from);

/* The slow weights have come: go on from them, with the first moment treated as the
 * options say. */
void local_weights_arrive(struct local_weights *fast);

#endif
