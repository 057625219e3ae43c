/* segment — pieces of tensors as requests name them, against a model.
 *
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_SEGMENT_H
#define OPTIMD_SERVER_WEIGHTS_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/status.h"
#include "common/wire.h"

struct model;
struct shard;

/* What a request does with its segments. A sparse tensor is assigned as a whole, pushed
 * by rows, and pulled either way. */
enum segment_use { SEGMENT_ASSIGN, SEGMENT_PUSH, SEGMENT_PULL };

/* Resolve and check a segment: count 0 becomes the rest of the tensor, or the elements
 * of its rows. */
enum opt_status segment_check(const struct model *model, enum segment_use use,
                              const struct opt_segment *segment,
                              struct opt_segment *out, struct opt_error *error);
/* Resolve all segments of a frame and check that data_size bytes are their values. */
enum opt_status segments_check(const struct model *model, enum segment_use use,
                               enum opt_dtype dtype, const struct opt_segment *segments,
                               size_t count, size_t data_size, struct opt_segment *out,
                               struct opt_error *error);
/* Which tensor and element the index-th value of a frame belongs to. */
void segments_locate(const struct opt_segment *segments, size_t count, size_t index,
                     uint32_t *tensor, uint64_t *element);

/* The shard that holds an element, and how many of count elements from there it has. */
struct shard *segment_shard(const struct model *model, uint32_t tensor, uint64_t offset,
                            uint64_t count, size_t *run);

#endif
