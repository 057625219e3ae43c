/* segment — see segment.h. */
#include "server/weights/segment.h"

#include <assert.h>
#include <inttypes.h>

#include "server/model/model.h"

static enum opt_status rows_check(const struct tensor *tensor,
                                  const struct opt_segment *segment,
                                  struct opt_segment *out, struct opt_error *error)
{
    if (segment->offset != 0 || segment->count != 0) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "a segment of tensor \"%s\" names elements; a push names rows of "
            "a sparse tensor",
            tensor->name);
    }
    for (size_t i = 0; i < segment->row_count; i++) {
        if (segment->rows[i] >= tensor->rows) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "a segment names row %" PRIu32
                            " of tensor \"%s\", which has "
                            "the rows 0 to %zu",
                            segment->rows[i], tensor->name, tensor->rows - 1);
        }
    }
    *out = *segment;
    out->count = segment->row_count * tensor->width;
    return OPT_OK;
}

enum opt_status segment_check(const struct model *model, enum segment_use use,
                              const struct opt_segment *segment,
                              struct opt_segment *out, struct opt_error *error)
{
    if (segment->tensor >= model->tensor_count) {
        return opt_fail_as(error, OPT_NOT_FOUND, OPT_DETAIL_NO_TENSOR,
                           "model \"%s\" has no tensor %" PRIu32
                           "; its %zu tensors have the numbers 0 to %zu",
                           model->name, segment->tensor, model->tensor_count,
                           model->tensor_count - 1);
    }
    const struct tensor *tensor = &model->tensors[segment->tensor];
    bool sparse = tensor->width > 0;
    if (segment->row_count > 0 && (!sparse || use == SEGMENT_ASSIGN)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a segment names rows of tensor \"%s\", %s", tensor->name,
                        sparse ? "but weights are assigned by elements"
                               : "which is not sparse");
    }
    if (segment->row_count > 0 || (sparse && use == SEGMENT_PUSH)) {
        return rows_check(tensor, segment, out, error);
    }
    if (segment->offset >= tensor->n || segment->offset % OPT_BLOCK != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a segment of tensor \"%s\" starts at element %" PRIu64
                        "; it must start at a multiple of %d below %zu",
                        tensor->name, segment->offset, OPT_BLOCK, tensor->n);
    }
    uint64_t rest = tensor->n - segment->offset;
    uint64_t count = segment->count == 0 ? rest : segment->count;
    if (count > rest || (count < rest && count % OPT_BLOCK != 0)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a segment of tensor \"%s\" from element %" PRIu64
                        " has %" PRIu64 " elements; it must have a multiple of %d or "
                        "all %" PRIu64 " up to the end",
                        tensor->name, segment->offset, count, OPT_BLOCK, rest);
    }
    *out = *segment;
    out->count = count;
    return OPT_OK;
}

enum opt_status segments_check(const struct model *model, enum segment_use use,
                               enum opt_dtype dtype, const struct opt_segment *segments,
                               size_t count, size_t data_size, struct opt_segment *out,
                               struct opt_error *error)
{
    uint64_t elements = 0;
    for (size_t i = 0; i < count; i++) {
        enum opt_status status =
            segment_check(model, use, &segments[i], &out[i], error);
        if (status != OPT_OK) {
            return status;
        }
        /* At most 2^40 each and 4,096 of them, and 2^20 for each byte of the header
         * that is a row: no overflow. */
        elements += out[i].count;
    }
    if (elements * opt_dtype_size(dtype) != data_size) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the segments name %" PRIu64 " %s elements, which are %" PRIu64
                        " bytes, but data has %zu",
                        elements, opt_dtype_name(dtype),
                        elements * opt_dtype_size(dtype), data_size);
    }
    return OPT_OK;
}

void segments_locate(const struct opt_segment *segments, size_t count, size_t index,
                     uint32_t *tensor, uint64_t *element)
{
    for (size_t i = 0; i < count; i++) {
        if (index < segments[i].count) {
            *tensor = segments[i].tensor;
            const struct opt_segment *in = &segments[i];
            *element = in->offset + index;
            if (in->row_count > 0) {
                size_t width = (size_t)in->count / in->row_count;
                *element = (uint64_t)in->rows[index / width] * width + index % width;
            }
            return;
        }
        index -= segments[i].count;
    }
    assert(!"an element of the frame's data");
}

struct shard *segment_shard(const struct model *model, uint32_t tensor, uint64_t offset,
                            uint64_t count, size_t *run)
{
    const struct tensor *of = &model->tensors[tensor];
    size_t within = (size_t)offset;
    size_t to_border = OPT_SHARD - within % OPT_SHARD;
    *run = count < to_border ? (size_t)count : to_border;
    return &model->shards[of->shard + within / OPT_SHARD];
}
