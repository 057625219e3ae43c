#include "client/cutter.h"

#include <inttypes.h>
#include <stdio.h>

/* Where a frame's data may be cut in the middle of a tensor: what the daemon's kernels
 * read begins at a multiple of 64 bytes in every dtype, as in a frame of its own. */
enum { ALIGNED_ELEMENTS = 32 };

void cutter_init(struct cutter *cutter, const struct optclient_values *values,
                 size_t count, const uint64_t *elements, const uint64_t *widths,
                 enum opt_dtype dtype)
{
    *cutter = (struct cutter){ .values = values,
                               .count = count,
                               .elements = elements,
                               .widths = widths,
                               .dtype = dtype };
}

/* How many values of a tensor are to be sent: all, or those of the rows named. */
static uint64_t elements_of(const struct cutter *cutter,
                            const struct optclient_values *values)
{
    uint64_t width = cutter->widths == NULL ? 0 : cutter->widths[values->tensor];
    return width > 0 ? values->row_count * width : cutter->elements[values->tensor];
}

enum opt_status cutter_check(const struct cutter *cutter,
                             const struct optclient_tensor *tensors,
                             struct opt_error *error)
{
    if (cutter->dtype == OPT_FP32) {
        return OPT_OK;
    }
    for (size_t i = 0; i < cutter->count; i++) {
        const struct optclient_values *values = &cutter->values[i];
        size_t n = (size_t)elements_of(cutter, values);
        size_t at = opt_dtype_first_beyond(cutter->dtype, values->values, n);
        if (at == n) {
            continue;
        }
        uint64_t width = cutter->widths == NULL ? 0 : cutter->widths[values->tensor];
        char row[32] = "";
        if (width > 0) {
            snprintf(row, sizeof(row), " of row %" PRIu32, values->rows[at / width]);
        }
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "element %" PRIu64 "%s of the gradient of tensor \"%s\" is %g, "
                        "and %s ends at %g: push %s",
                        width > 0 ? at % width : (uint64_t)at, row,
                        tensors[values->tensor].name, (double)values->values[at],
                        opt_dtype_name(cutter->dtype), opt_dtype_largest(cutter->dtype),
                        cutter->dtype == OPT_FP16 ? "bf16 or fp32" : "fp32");
    }
    return OPT_OK;
}

void cutter_rewind(struct cutter *cutter)
{
    cutter->next = 0;
    cutter->offset = 0;
    cutter->frame = 0;
}

bool cutter_fits(const struct cutter *cutter, size_t bytes)
{
    uint64_t left = bytes / opt_dtype_size(cutter->dtype);
    for (size_t i = 0; i < cutter->count; i++) {
        uint64_t elements = elements_of(cutter, &cutter->values[i]);
        if (elements > left) {
            return false;
        }
        left -= elements;
    }
    return true;
}

bool cutter_done(const struct cutter *cutter)
{
    return cutter->next == cutter->count;
}

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    while (value >= 0x80) {
        value >>= 7;
        bytes++;
    }
    return bytes;
}

/* A field with a one-byte tag; proto3 leaves out zeros. */
static size_t field_bytes(uint64_t value)
{
    return value == 0 ? 0 : 1 + varint_bytes(value);
}

size_t cutter_segment_bytes(const struct opt_segment *segment)
{
    size_t body = field_bytes(segment->tensor);
    if (segment->row_count == 0) {
        body += field_bytes(segment->offset) + field_bytes(segment->count);
    } else {
        size_t rows = 0;
        for (size_t i = 0; i < segment->row_count; i++) {
            rows += varint_bytes(segment->rows[i]);
        }
        body += 1 + varint_bytes(rows) + rows;
    }
    return 1 + varint_bytes(body) + body;
}

/* Add the next rows of a sparse tensor, as many as the frame has room for. False: none,
 * though there are some. */
static bool add_rows(struct cutter *cutter, const struct cutter_limits *limits,
                     struct cut *cut, size_t *room, size_t *header)
{
    enum { SEGMENT_BYTES = 20, ROW_BYTES = 5 }; /* of a header, at most */
    const struct optclient_values *values = &cutter->values[cutter->next];
    uint64_t width = cutter->widths[values->tensor];
    uint64_t rows = values->row_count - cutter->offset;
    size_t left = limits->header_bytes > *header + SEGMENT_BYTES
                      ? limits->header_bytes - *header - SEGMENT_BYTES
                      : 0;
    uint64_t most = *room / width < left / ROW_BYTES ? *room / width : left / ROW_BYTES;
    most = most < OPT_ROWS_MAX ? most : OPT_ROWS_MAX;
    if (cut->count == 0 && most == 0) {
        most = 1; /* a row that is longer than the frame should be */
    }
    if (cut->count > 0 && (left == 0 || (most == 0 && rows > 0))) {
        return false;
    }
    uint64_t n = rows < most ? rows : most;
    struct opt_segment *segment = &cut->segments[cut->count];
    *segment = (struct opt_segment){ .tensor = (uint32_t)values->tensor,
                                     .count = n * width,
                                     .row_count = (size_t)n };
    if (n > 0) {
        segment->rows = values->rows + cutter->offset;
    }
    cut->places[cut->count++] =
        n > 0 ? values->values + cutter->offset * width : values->values;
    cut->elements += (size_t)segment->count;
    *room -= segment->count < *room ? (size_t)segment->count : *room;
    *header += cutter_segment_bytes(segment);
    cutter->offset += n;
    if (n == rows) {
        cutter->offset = 0;
        cutter->next++;
    }
    return true;
}

void cutter_next(struct cutter *cutter, const struct cutter_limits *limits,
                 struct cut *cut)
{
    size_t room = limits->data_bytes / opt_dtype_size(cutter->dtype);
    size_t header = 0;
    cut->count = 0;
    cut->elements = 0;
    while (cutter->next < cutter->count && cut->count < OPT_SEGMENTS_MAX) {
        const struct optclient_values *values = &cutter->values[cutter->next];
        if (cutter->widths != NULL && cutter->widths[values->tensor] > 0) {
            if (!add_rows(cutter, limits, cut, &room, &header)) {
                break;
            }
            continue;
        }
        uint64_t left = cutter->elements[values->tensor] - cutter->offset;
        bool whole = left <= room;
        uint64_t count = whole ? left : room - room % limits->block;
        if (!whole && cut->count > 0 &&
            (count == 0 || cut->elements % ALIGNED_ELEMENTS != 0)) {
            break;
        }
        struct opt_segment segment = {
            .tensor = (uint32_t)values->tensor,
            .offset = cutter->offset,
            .count = count,
        };
        header += cutter_segment_bytes(&segment);
        if (header > limits->header_bytes && cut->count > 0) {
            break;
        }
        cut->segments[cut->count] = segment;
        cut->places[cut->count] = values->values + cutter->offset;
        cut->count++;
        cut->elements += (size_t)segment.count;
        room -= (size_t)segment.count;
        if (!whole) {
            cutter->offset += segment.count;
            break;
        }
        cutter->offset = 0;
        cutter->next++;
    }
    cutter->frame++;
}
