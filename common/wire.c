#include "common/wire.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/field.h"
#include "common/wire_parts.h"

static const char *const message_names[] = {
    [OPT_MESSAGE_NONE] = "none",
    [OPT_MESSAGE_ERROR] = "error",
    [OPT_MESSAGE_HELLO] = "hello",
    [OPT_MESSAGE_CREATE] = "create",
    [OPT_MESSAGE_OPEN] = "open",
    [OPT_MESSAGE_ASSIGN] = "assign",
    [OPT_MESSAGE_LIST] = "list",
    [OPT_MESSAGE_DESCRIBE] = "describe",
    [OPT_MESSAGE_PUSH] = "push",
    [OPT_MESSAGE_PULL] = "pull",
    [OPT_MESSAGE_PUSH_PULL] = "push_pull",
    [OPT_MESSAGE_WAIT] = "wait",
    [OPT_MESSAGE_STATISTICS] = "statistics",
    [OPT_MESSAGE_LEAVE] = "leave",
    [OPT_MESSAGE_HEARTBEAT] = "heartbeat",
    [OPT_MESSAGE_GOODBYE] = "goodbye",
    [OPT_MESSAGE_DELETE] = "delete",
    [OPT_MESSAGE_SET] = "set",
    [OPT_MESSAGE_BARRIER] = "barrier",
    [OPT_MESSAGE_REST] = "rest",
    [OPT_MESSAGE_SHARE] = "share",
    [OPT_MESSAGE_CHECKPOINT] = "checkpoint",
    [OPT_MESSAGE_RELOAD] = "reload",
};
_Static_assert(sizeof(message_names) / sizeof(message_names[0]) == OPT_MESSAGE_LIMIT,
               "every message has a name");

const char *opt_message_name(enum opt_message message)
{
    if ((unsigned)message >= OPT_MESSAGE_LIMIT || message_names[message] == NULL) {
        return message_names[OPT_MESSAGE_NONE];
    }
    return message_names[message];
}

uint64_t opt_checksum(uint64_t sum)
{
    return sum == 0 ? 1 : sum;
}

/* ---------------------------------------------------------------- reading */

struct budget {
    struct opt_arena *arena;
    bool exhausted;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    void *piece = opt_arena_alloc(budget->arena, size);
    budget->exhausted |= piece == NULL;
    return piece;
}

static void budget_free(void *data, void *piece)
{
    (void)data, (void)piece; /* the arena is freed as a whole */
}

static enum opt_status out_of_budget(const struct opt_arena *arena,
                                     struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                       "a message needs more than its memory budget of %zu bytes",
                       arena->limit);
}

enum opt_status opt_wire_unpack(const ProtobufCMessageDescriptor *descriptor,
                                const uint8_t *bytes, size_t size,
                                struct opt_arena *arena, ProtobufCMessage **out,
                                struct opt_error *error)
{
    struct budget budget = { .arena = arena };
    ProtobufCAllocator allocator = { .alloc = budget_alloc,
                                     .free = budget_free,
                                     .allocator_data = &budget };
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
    if (message != NULL) {
        *out = message;
        return OPT_OK;
    }
    if (budget.exhausted) {
        return out_of_budget(arena, error);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s has a field of the wrong wire type", descriptor->short_name);
}

void *opt_wire_array(struct opt_arena *arena, size_t n, size_t size,
                     struct opt_error *error)
{
    void *array = n > SIZE_MAX / size ? NULL : opt_arena_alloc(arena, n * size);
    if (array == NULL) {
        out_of_budget(arena, error);
    }
    return array;
}

enum opt_status opt_wire_enum(int value, int count, const char *what,
                              struct opt_error *error)
{
    if (value >= 0 && value < count) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s is %d; it must be 0 to %d", what,
                    value, count - 1);
}

enum opt_status opt_wire_name(const char *text, const char *what,
                              struct opt_error *error)
{
    return opt_name_check(text, strlen(text), what, error);
}

enum opt_status opt_wire_optional_name(const char *text, const char *what,
                                       struct opt_error *error)
{
    return text[0] == '\0' ? OPT_OK : opt_wire_name(text, what, error);
}

/* One segment; takes its bytes from *left. */
static enum opt_status segment_check(const struct opt_wire_segments *how, size_t index,
                                     const struct opt_segment *segment, size_t *left,
                                     struct opt_error *error)
{
    if (segment->offset % OPT_BLOCK != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: segment %zu starts at element %" PRIu64
                        "; it must be a multiple of %d",
                        how->what, index, segment->offset, OPT_BLOCK);
    }
    if (segment->row_count > 0 && (segment->offset > 0 || segment->count > 0)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: segment %zu names rows, so offset and count must be 0",
                        how->what, index);
    }
    if (segment->offset >= OPT_ELEMENTS_MAX ||
        segment->count > OPT_ELEMENTS_MAX - segment->offset) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: segment %zu names %" PRIu64 " elements from %" PRIu64
                        "; a tensor has at most %" PRIu64,
                        how->what, index, segment->count, segment->offset,
                        OPT_ELEMENTS_MAX);
    }
    if (segment->count == 0 && segment->row_count == 0 && how->whole) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s: segment %zu has no count",
                        how->what, index);
    }
    if (how->data_size == OPT_WIRE_NO_VALUES) {
        return OPT_OK;
    }
    size_t bytes = (size_t)segment->count * opt_dtype_size(how->dtype);
    if (bytes > *left) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: segment %zu names %" PRIu64
                        " elements but data ends after %zu bytes",
                        how->what, index, segment->count, how->data_size);
    }
    *left -= bytes;
    return OPT_OK;
}

enum opt_status opt_wire_segments_read(const struct opt_wire_segments *how,
                                       Optimd__V1__Segment *const *segments,
                                       size_t count, struct opt_arena *arena,
                                       const struct opt_segment **out,
                                       struct opt_error *error)
{
    if (count > OPT_SEGMENTS_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: %zu segments in one frame; at most %d are allowed",
                        how->what, count, OPT_SEGMENTS_MAX);
    }
    struct opt_segment *read = opt_wire_array(arena, count, sizeof(*read), error);
    if (read == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    size_t left = how->data_size;
    bool open = false; /* the size of a segment depends on its tensor */
    for (size_t i = 0; i < count; i++) {
        read[i] = (struct opt_segment){ .tensor = segments[i]->tensor,
                                        .offset = segments[i]->offset,
                                        .count = segments[i]->count,
                                        .row_count = segments[i]->n_rows };
        if (segments[i]->n_rows > 0) {
            read[i].rows = segments[i]->rows; /* the arena's too */
        }
        open |= read[i].count == 0;
        enum opt_status status = segment_check(how, i, &read[i], &left, error);
        if (status != OPT_OK) {
            return status;
        }
    }
    if (how->data_size != OPT_WIRE_NO_VALUES) {
        if (left > 0 && !open) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s: data has %zu bytes but its segments name only %zu",
                            how->what, how->data_size, how->data_size - left);
        }
        if (left % opt_dtype_size(how->dtype) != 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s: data has %zu bytes, which is not a whole number of %s "
                            "elements",
                            how->what, how->data_size, opt_dtype_name(how->dtype));
        }
    }
    *out = read;
    return OPT_OK;
}

enum opt_status opt_wire_places_read(const char *what, const uint64_t *places,
                                     size_t count, const struct opt_segment *segments,
                                     size_t segment_count, size_t data_size,
                                     const uint64_t **out, struct opt_error *error)
{
    *out = NULL;
    if (count == 0) {
        return OPT_OK;
    }
    if (count != segment_count) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: %zu places are given for %zu segments", what, count,
                        segment_count);
    }
    if (data_size > 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: values are given by place, but %zu bytes came with them",
                        what, data_size);
    }
    for (size_t i = 0; i < count; i++) {
        if (segments[i].count == 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s: segment %zu is given by place; it must say how many "
                            "elements it has, and have no rows",
                            what, i);
        }
        if (places[i] % OPT_PLACE_ALIGNMENT != 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s: the place of segment %zu is byte %" PRIu64
                            "; it must be a multiple of %d",
                            what, i, places[i], (int)OPT_PLACE_ALIGNMENT);
        }
    }
    *out = places;
    return OPT_OK;
}

enum opt_status opt_wire_consistency_read(const Optimd__V1__Consistency *consistency,
                                          struct opt_consistency *out,
                                          struct opt_error *error)
{
    if (consistency == NULL) {
        *out = (struct opt_consistency){ .min_workers = 1 };
        return OPT_OK;
    }
    enum opt_status status = opt_wire_enum((int)consistency->mode, OPT_BOUNDED + 1,
                                           "Consistency.mode", error);
    if (status == OPT_OK) {
        status = opt_wire_enum((int)consistency->loss, OPT_LOSS_FAIL + 1,
                               "Consistency.loss", error);
    }
    if (status == OPT_OK) {
        status = opt_wire_enum((int)consistency->atomic, OPT_ATOMIC_SHARD + 1,
                               "Consistency.atomic", error);
    }
    if (status != OPT_OK) {
        return status;
    }
    double lambda = consistency->delay_compensation;
    if (!isfinite(lambda) || lambda < 0) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "Consistency.delay_compensation is %g; it must be a number of at "
            "least 0",
            lambda);
    }
    *out = (struct opt_consistency){
        .mode = (enum opt_mode)consistency->mode,
        .loss = (enum opt_loss)consistency->loss,
        .min_workers = consistency->min_workers > 0 ? consistency->min_workers : 1,
        .samples = consistency->samples,
        .backup = consistency->backup,
        .staleness = consistency->staleness,
        .damping = consistency->damping,
        .delay_compensation = lambda,
        .atomic = (enum opt_atomic)consistency->atomic,
    };
    return OPT_OK;
}

/* ---------------------------------------------------------------- packing */

size_t opt_wire_pack(opt_write write, const void *what, uint8_t *out, size_t capacity)
{
    struct opt_writer measure = { 0 };
    write(&measure, what);
    if (out != NULL && measure.size <= capacity) {
        struct opt_writer writer = { .out = out };
        write(&writer, what);
    }
    return measure.size;
}

void opt_write_fields(struct opt_writer *writer, const ProtobufCMessage *message)
{
    writer->size += writer->out == NULL
                        ? protobuf_c_message_get_packed_size(message)
                        : protobuf_c_message_pack(message, writer->out + writer->size);
}

static void write_varint(struct opt_writer *writer, uint64_t value)
{
    if (value < 0x80) { /* as most are */
        if (writer->out != NULL) {
            writer->out[writer->size] = (uint8_t)value;
        }
        writer->size++;
        return;
    }
    writer->size += opt_varint_write(
        value, writer->out == NULL ? NULL : writer->out + writer->size);
}

void opt_write_nested(struct opt_writer *writer, uint32_t field, opt_write write,
                      const void *what)
{
    struct opt_writer measure = { 0 };
    write(&measure, what);
    write_varint(writer, (uint64_t)field << 3 | OPT_FIELD_BYTES);
    write_varint(writer, measure.size);
    if (writer->out == NULL) {
        writer->size += measure.size;
    } else {
        write(writer, what);
    }
}

void opt_write_number(struct opt_writer *writer, uint32_t field, uint64_t value)
{
    if (value != 0) {
        write_varint(writer, (uint64_t)field << 3 | OPT_FIELD_VARINT);
        write_varint(writer, value);
    }
}

void opt_write_text(struct opt_writer *writer, uint32_t field, const char *text)
{
    size_t size = text == NULL ? 0 : strlen(text);
    if (size == 0) {
        return;
    }
    write_varint(writer, (uint64_t)field << 3 | OPT_FIELD_BYTES);
    write_varint(writer, size);
    if (writer->out != NULL) {
        memcpy(writer->out + writer->size, text, size);
    }
    writer->size += size;
}

/* Packed: one number after another. */
static void write_rows(struct opt_writer *writer, const void *what)
{
    const struct opt_segment *segment = what;
    for (size_t i = 0; i < segment->row_count; i++) {
        write_varint(writer, segment->rows[i]);
    }
}

enum { SEGMENT_TENSOR = 1, SEGMENT_OFFSET = 2, SEGMENT_COUNT = 3, SEGMENT_ROWS = 4 };

static void write_segment_of_rows(struct opt_writer *writer, const void *what)
{
    const struct opt_segment *segment = what;
    opt_write_number(writer, SEGMENT_TENSOR, segment->tensor);
    opt_write_nested(writer, SEGMENT_ROWS, write_rows, segment);
}

/* A number of a segment behind its one-byte tag; like every field, it is left out if it
 * is 0. */
static size_t number_bytes(uint64_t value)
{
    size_t bytes = value == 0 ? 0 : 2;
    for (; value >= 0x80; value >>= 7) {
        bytes++;
    }
    return bytes;
}

static uint8_t *put_number(uint8_t *out, uint8_t field, uint64_t value)
{
    if (value == 0) {
        return out;
    }
    *out++ = (uint8_t)(field << 3 | OPT_FIELD_VARINT);
    for (; value >= 0x80; value >>= 7) {
        *out++ = (uint8_t)(value | 0x80);
    }
    *out++ = (uint8_t)value;
    return out;
}

/* There may be thousands of these, and each is measured once for every message that it
 * is nested in: it is written with as few steps as it takes. */
static void write_segment(struct opt_writer *writer, uint8_t tag,
                          const struct opt_segment *segment)
{
    size_t size = number_bytes(segment->tensor) + number_bytes(segment->offset) +
                  number_bytes(segment->count); /* at most 28: its length is one byte */
    if (writer->out != NULL) {
        uint8_t *out = writer->out + writer->size;
        *out++ = tag;
        *out++ = (uint8_t)size;
        out = put_number(out, SEGMENT_TENSOR, segment->tensor);
        out = put_number(out, SEGMENT_OFFSET, segment->offset);
        put_number(out, SEGMENT_COUNT, segment->count);
    }
    writer->size += 2 + size;
}

void opt_write_segments(struct opt_writer *writer, uint32_t field,
                        const struct opt_segment *segments, size_t count)
{
    assert(field < 16); /* its tag is one byte */
    for (size_t i = 0; i < count; i++) {
        if (segments[i].row_count > 0) {
            opt_write_nested(writer, field, write_segment_of_rows, &segments[i]);
        } else {
            write_segment(writer, (uint8_t)(field << 3 | OPT_FIELD_BYTES),
                          &segments[i]);
        }
    }
}

void opt_write_consistency(struct opt_writer *writer, const void *what)
{
    const struct opt_consistency *consistency = what;
    Optimd__V1__Consistency message = OPTIMD__V1__CONSISTENCY__INIT;
    message.mode = (Optimd__V1__Consistency__Mode)consistency->mode;
    message.loss = (Optimd__V1__Consistency__Loss)consistency->loss;
    message.min_workers = consistency->min_workers;
    message.samples = consistency->samples;
    message.backup = consistency->backup;
    message.staleness = consistency->staleness;
    message.damping = consistency->damping;
    message.delay_compensation = consistency->delay_compensation;
    message.atomic = (Optimd__V1__Consistency__Atomic)consistency->atomic;
    opt_write_fields(writer, &message.base);
}

char *opt_wire_text(const char *text)
{
    return (char *)(uintptr_t)(text == NULL ? "" : text);
}
