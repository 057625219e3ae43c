#include "client/cutter.h"

void cutter_init(struct cutter *cutter, const struct optclient_values *values,
                 size_t count, const uint64_t *elements, enum opt_dtype dtype)
{
    *cutter = (struct cutter){
        .values = values, .count = count, .elements = elements, .dtype = dtype
    };
}

void cutter_rewind(struct cutter *cutter)
{
    cutter->next = 0;
    cutter->offset = 0;
    cutter->frame = 0;
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
    size_t body = field_bytes(segment->tensor) + field_bytes(segment->offset) +
                  field_bytes(segment->count);
    return 1 + varint_bytes(body) + body;
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
        uint64_t left = cutter->elements[values->tensor] - cutter->offset;
        bool whole = left <= room;
        if (!whole && cut->count > 0) {
            break;
        }
        struct opt_segment segment = {
            .tensor = (uint32_t)values->tensor,
            .offset = cutter->offset,
            .count = whole ? left : room - room % limits->block,
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
