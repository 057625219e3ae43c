/* cutter — cuts the values of a push (or of initial weights) into frames.
 *
 * A tensor that fits what is left of a frame is added to it; one that does not starts a
 * frame of its own and is cut at block multiples. So small tensors share frames, large
 * ones stream as many, and none is split without need. Rows of a sparse tensor fill
 * what is left of a frame. Nothing is copied: a cut is a list of places in the caller's
 * memory. Called by request_frame.h with the client's lock held.
 */
#ifndef OPTCLIENT_CUTTER_H
#define OPTCLIENT_CUTTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/wire.h"

struct cutter {
    const struct optclient_values *values;
    size_t count;
    const uint64_t *elements; /* of each tensor of the model */
    const uint64_t *widths;   /* of a row of each, 0 if dense; NULL: nothing by rows */
    enum opt_dtype dtype;     /* on the wire */
    size_t next;              /* position in values of what comes next */
    uint64_t offset;          /* and element in it, or row */
    uint32_t frame;           /* number of the next frame, from 0 */
};

/* What the daemon allows one frame. */
struct cutter_limits {
    size_t data_bytes;   /* at least one block in the widest dtype */
    size_t header_bytes; /* for the segments, packed */
    uint64_t block;      /* elements; cuts fall on multiples of it */
};

/* One frame's worth: OPT_SEGMENTS_MAX of both are enough. */
struct cut {
    struct opt_segment *segments;
    const float **places; /* where each segment's values are */
    size_t count;
    size_t elements; /* of all segments */
};

/* values, elements and widths are borrowed as long as the cutter is used. */
void cutter_init(struct cutter *cutter, const struct optclient_values *values,
                 size_t count, const uint64_t *elements, const uint64_t *widths,
                 enum opt_dtype dtype);

/* OPT_INVALID_ARGUMENT names the first value that is finite, and beyond what the dtype
 * has. Any thread. */
enum opt_status cutter_check(const struct cutter *cutter,
                             const struct optclient_tensor *tensors,
                             struct opt_error *error);

/* Start again from the first frame. */
void cutter_rewind(struct cutter *cutter);

/* Whether all frames have been cut. */
bool cutter_done(const struct cutter *cutter);

/* Whether all values together take no more than so many bytes on the wire. */
bool cutter_fits(const struct cutter *cutter, size_t bytes);

/* Cut the next frame into cut's two arrays; at least one segment. */
void cutter_next(struct cutter *cutter, const struct cutter_limits *limits,
                 struct cut *cut);

/* Bytes that a segment takes in a packed header part, its own tag and length included.
 */
size_t cutter_segment_bytes(const struct opt_segment *segment);

#endif
