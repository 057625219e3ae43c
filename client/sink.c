#include "client/sink.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool all_in_order(const struct optclient_values *values, size_t count,
                         size_t tensors)
{
    if (count != tensors) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (values[i].tensor != i || values[i].row_count > 0) {
            return false;
        }
    }
    return true;
}

enum opt_status sink_init(struct sink *sink, const struct optclient_values *values,
                          size_t count, const uint64_t *elements,
                          const uint64_t *widths, size_t tensors,
                          struct opt_error *error)
{
    *sink = (struct sink){
        .values = values,
        .count = count,
        .elements = elements,
        .widths = widths,
        .tensors = tensors,
    };
    if (all_in_order(values, count, tensors)) {
        return OPT_OK;
    }
    sink->place_of = malloc(tensors * sizeof(*sink->place_of));
    if (sink->place_of == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the call");
    }
    memset(sink->place_of, 0xFF, tensors * sizeof(*sink->place_of));
    for (size_t i = 0; i < count; i++) {
        size_t *place = &sink->place_of[values[i].tensor];
        if (*place != SIZE_MAX) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "values[%zu] and values[%zu] name the same tensor, %zu",
                            *place, i, values[i].tensor);
        }
        *place = i;
    }
    return OPT_OK;
}

void sink_fini(struct sink *sink)
{
    free(sink->place_of);
    free(sink->came);
    free(sink->first_bit);
    free(sink->rows);
    *sink = (struct sink){ 0 };
}

bool sink_wants_all(const struct sink *sink)
{
    return sink->place_of == NULL;
}

static uint64_t blocks_of(const struct sink *sink, uint64_t elements)
{
    return elements / sink->block + (elements % sink->block != 0);
}

/* No row has come yet. */
static bool begin_rows(struct sink *sink)
{
    sink->rows_left = 0;
    for (size_t i = 0; i < sink->count; i++) {
        sink->rows_left += sink->values[i].row_count;
    }
    if (sink->rows_left > 0 && sink->rows == NULL) {
        sink->rows = malloc(sink->count * sizeof(*sink->rows));
    }
    if (sink->rows != NULL) {
        memset(sink->rows, 0, sink->count * sizeof(*sink->rows));
    }
    return sink->rows_left == 0 || sink->rows != NULL;
}

bool sink_begin(struct sink *sink, uint64_t block)
{
    if (!begin_rows(sink)) {
        return false;
    }
    if (sink->block != block) {
        free(sink->first_bit);
        free(sink->came);
        sink->came = NULL;
        sink->block = block;
        sink->first_bit = malloc((sink->count + 1) * sizeof(*sink->first_bit));
        if (sink->first_bit != NULL) {
            uint64_t bits = 0;
            for (size_t i = 0; i < sink->count; i++) {
                sink->first_bit[i] = bits;
                bits += sink->values[i].row_count > 0
                            ? 0
                            : blocks_of(sink, sink->elements[sink->values[i].tensor]);
            }
            sink->first_bit[sink->count] = bits;
            sink->came = malloc((size_t)(bits / 64 + 1) * sizeof(*sink->came));
        }
        if (sink->came == NULL) {
            sink->block = 0;
            return false;
        }
    }
    sink->blocks_left = sink->first_bit[sink->count];
    memset(sink->came, 0, (size_t)(sink->blocks_left / 64 + 1) * sizeof(*sink->came));
    sink->begun = false;
    sink->unchanged = 0;
    sink->held = 0;
    return true;
}

static size_t place_of(const struct sink *sink, uint32_t tensor)
{
    return sink->place_of == NULL ? tensor : sink->place_of[tensor];
}

/* Elements of a segment of an answer; the last ones of a tensor may come as "the rest".
 */
static uint64_t segment_elements(const struct sink *sink,
                                 const struct opt_segment *segment)
{
    if (segment->row_count > 0) {
        return segment->row_count * sink->widths[segment->tensor];
    }
    return segment->count == 0 ? sink->elements[segment->tensor] - segment->offset
                               : segment->count;
}

static enum opt_status segment_check(const struct sink *sink,
                                     const struct opt_segment *segment,
                                     struct opt_error *error)
{
    if (segment->tensor >= sink->tensors) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon answered with tensor %" PRIu32
                        "; the model has 0 to %zu",
                        segment->tensor, sink->tensors - 1);
    }
    uint64_t elements = sink->elements[segment->tensor];
    if (segment->offset >= elements || segment->count > elements - segment->offset ||
        segment->offset % sink->block != 0) {
        return opt_fail(
            error, OPT_INTERNAL,
            "the daemon answered with elements %" PRIu64 " and %" PRIu64
            " more of tensor %" PRIu32 ", which has %" PRIu64 " in blocks of %" PRIu64,
            segment->offset, segment->count, segment->tensor, elements, sink->block);
    }
    uint64_t end = segment->offset + segment_elements(sink, segment);
    if (end != elements && end % sink->block != 0) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon cut tensor %" PRIu32 " at element %" PRIu64
                        ", inside a block of %" PRIu64,
                        segment->tensor, end, sink->block);
    }
    return OPT_OK;
}

/* Rows must be the next ones that were asked for. */
static enum opt_status claim_rows(struct sink *sink, const struct opt_segment *segment,
                                  struct opt_error *error)
{
    size_t place =
        segment->tensor < sink->tensors ? place_of(sink, segment->tensor) : SIZE_MAX;
    const struct optclient_values *values =
        place == SIZE_MAX ? NULL : &sink->values[place];
    size_t came = values == NULL || sink->rows == NULL ? 0 : sink->rows[place].accepted;
    if (values == NULL || segment->row_count > values->row_count - came ||
        memcmp(segment->rows, values->rows + came,
               segment->row_count * sizeof(*values->rows)) != 0) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon answered with %zu rows of tensor %" PRIu32
                        " that were not asked for",
                        segment->row_count, segment->tensor);
    }
    sink->rows[place].accepted += segment->row_count;
    sink->rows_left -= segment->row_count;
    return OPT_OK;
}

/* Where the next rows of a tensor go; its place is taken. */
static float *place_rows(struct sink *sink, const struct opt_segment *segment)
{
    size_t place = place_of(sink, segment->tensor);
    float *to = sink->values[place].values +
                sink->rows[place].placed * sink->widths[segment->tensor];
    sink->rows[place].placed += segment->row_count;
    return to;
}

static enum opt_status segment_claim(struct sink *sink,
                                     const struct opt_segment *segment,
                                     struct opt_error *error)
{
    size_t place = place_of(sink, segment->tensor);
    if (place == SIZE_MAX) {
        return OPT_OK; /* not wanted: all tensors were asked for to keep it short */
    }
    if (sink->values[place].row_count > 0) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon answered with elements of tensor %" PRIu32
                        " instead of rows",
                        segment->tensor);
    }
    uint64_t first = sink->first_bit[place] + segment->offset / sink->block;
    uint64_t blocks = blocks_of(sink, segment_elements(sink, segment));
    for (uint64_t bit = first; bit < first + blocks; bit++) {
        uint64_t mask = UINT64_C(1) << bit % 64;
        if ((sink->came[bit / 64] & mask) != 0) {
            return opt_fail(error, OPT_INTERNAL,
                            "the daemon sent block %" PRIu64 " of tensor %" PRIu32
                            " twice",
                            bit - sink->first_bit[place], segment->tensor);
        }
        sink->came[bit / 64] |= mask;
    }
    sink->blocks_left -= blocks;
    return OPT_OK;
}

/* Count what was left out as come. */
static enum opt_status claim_unchanged(struct sink *sink,
                                       const struct opt_segment *segment,
                                       struct opt_error *error)
{
    if (!sink->may_stay) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon left out values as unchanged, although it was not "
                        "told that they are here");
    }
    enum opt_status status = segment_check(sink, segment, error);
    if (status != OPT_OK) {
        return status;
    }
    if (place_of(sink, segment->tensor) == SIZE_MAX) {
        return sink->listed ? opt_fail(error, OPT_INTERNAL,
                                       "the daemon left out tensor %" PRIu32
                                       " as unchanged, which was not asked for",
                                       segment->tensor)
                            : OPT_OK;
    }
    status = segment_claim(sink, segment, error);
    if (status == OPT_OK) {
        sink->unchanged += segment_elements(sink, segment);
    }
    return status;
}

enum opt_status sink_accept(struct sink *sink, const struct opt_pull_reply *reply,
                            size_t data_size, enum opt_dtype dtype,
                            struct opt_error *error)
{
    if (reply->dtype != dtype) {
        return opt_fail(error, OPT_INTERNAL, "the daemon answered in %s instead of %s",
                        opt_dtype_name(reply->dtype), opt_dtype_name(dtype));
    }
    if (sink->begun && reply->step != sink->step) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "the daemon answered with weights of step %" PRIu64
                        " and of step %" PRIu64 " to one pull",
                        sink->step, reply->step);
    }
    uint64_t elements = 0;
    for (size_t i = 0; i < reply->segment_count; i++) {
        bool by_rows = reply->segments[i].row_count > 0;
        enum opt_status status = by_rows
                                     ? claim_rows(sink, &reply->segments[i], error)
                                     : segment_check(sink, &reply->segments[i], error);
        if (status == OPT_OK && !by_rows) {
            status = segment_claim(sink, &reply->segments[i], error);
        }
        if (status != OPT_OK) {
            return status;
        }
        elements += segment_elements(sink, &reply->segments[i]);
    }
    for (size_t i = 0; i < reply->unchanged_count; i++) {
        enum opt_status status = claim_unchanged(sink, &reply->unchanged[i], error);
        if (status != OPT_OK) {
            return status;
        }
    }
    if (data_size % opt_dtype_size(dtype) != 0 ||
        data_size / opt_dtype_size(dtype) != elements) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "the daemon sent %zu bytes for %" PRIu64 " elements of %s",
                        data_size, elements, opt_dtype_name(dtype));
    }
    sink->begun = true;
    sink->step = reply->step;
    sink->held += reply->held;
    return OPT_OK;
}

float *sink_place(struct sink *sink, const struct opt_pull_reply *reply)
{
    if (reply->segment_count == 0 || reply->dtype != OPT_FP32) {
        return NULL;
    }
    if (reply->segment_count == 1 && reply->segments[0].row_count > 0) {
        return place_rows(sink, &reply->segments[0]);
    }
    float *begin = NULL, *next = NULL;
    for (size_t i = 0; i < reply->segment_count; i++) {
        const struct opt_segment *segment = &reply->segments[i];
        size_t place =
            segment->row_count > 0 ? SIZE_MAX : place_of(sink, segment->tensor);
        if (place == SIZE_MAX) {
            return NULL;
        }
        float *at = sink->values[place].values + segment->offset;
        if (i > 0 && at != next) {
            return NULL;
        }
        begin = i > 0 ? begin : at;
        next = at + segment_elements(sink, segment);
    }
    return begin;
}

void sink_spread(struct sink *sink, const struct opt_pull_reply *reply,
                 const uint8_t *data)
{
    for (size_t i = 0; i < reply->segment_count; i++) {
        const struct opt_segment *segment = &reply->segments[i];
        size_t place = place_of(sink, segment->tensor);
        size_t elements = (size_t)segment_elements(sink, segment);
        if (segment->row_count > 0) {
            opt_dtype_widen(reply->dtype, data, place_rows(sink, segment), elements);
        } else if (place != SIZE_MAX) {
            opt_dtype_widen(reply->dtype, data,
                            sink->values[place].values + segment->offset, elements);
        }
        data += elements * opt_dtype_size(reply->dtype);
    }
}

void sink_put(struct sink *sink, const struct opt_segment *segment, const float *values)
{
    size_t place = place_of(sink, segment->tensor);
    if (place != SIZE_MAX) {
        memcpy(sink->values[place].values + segment->offset, values,
               (size_t)segment_elements(sink, segment) * sizeof(*values));
    }
}

bool sink_full(const struct sink *sink)
{
    return sink->blocks_left == 0 && sink->rows_left == 0;
}
