/* wire_parts — what requests, replies and tables have in common.
 *
 * Only the wire_*.c include this: the generated protobuf types stay behind it. Reading
 * is three steps: opt_wire_scan goes over the raw bytes and refuses what protobuf-c
 * would let pass, protobuf-c unpacks into the arena, and the readers of each message
 * check values and copy them into plain structs. Packing needs no memory: a message is
 * written field by field, repeated ones one at a time, which gives the same bytes as
 * packing it whole.
 */
#ifndef OPTIMD_COMMON_WIRE_PARTS_H
#define OPTIMD_COMMON_WIRE_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/field.h"
#include "common/wire.h"
#include "proto/optimd.pb-c.h"

/* ---- reading */

/* What the scan saw at the top of a message. */
struct opt_wire_seen {
    uint64_t id;           /* field 1, if it is a varint */
    enum opt_message body; /* the one that is given, by its field's number */
    uint32_t unknown_body; /* number of an unknown field that may be a body, or 0 */
};

/* Check the raw bytes of a message against its descriptor, to the innermost field: that
 * every field is whole, every string UTF-8 without control characters (protobuf-c
 * checks neither, and cuts a string at a NUL), no 32-bit number larger than that, no
 * singular message given twice, no second body. *seen is written as far as was read;
 * NULL for a table. OPT_INVALID_ARGUMENT. */
enum opt_status opt_wire_scan(const ProtobufCMessageDescriptor *descriptor,
                              const uint8_t *bytes, size_t size,
                              struct opt_wire_seen *seen, struct opt_error *error);

/* The fields of a message, one after another. */
struct opt_walk {
    const uint8_t *bytes;
    size_t size, at;
    struct opt_field field;
    const uint8_t *start; /* of the field, head and all */
    const uint8_t *value;
};
/* False: there is no other, or none that is whole; the walk stays where it is. */
bool opt_walk_next(struct opt_walk *walk);

/* Unpack scanned bytes into the arena. The message is the arena's: never freed alone.
 * OPT_RESOURCE_EXHAUSTED, OPT_INVALID_ARGUMENT. */
enum opt_status opt_wire_unpack(const ProtobufCMessageDescriptor *descriptor,
                                const uint8_t *bytes, size_t size,
                                struct opt_arena *arena, ProtobufCMessage **out,
                                struct opt_error *error);

/* Room for n elements of size bytes in the arena, never NULL for want of elements; or
 * NULL and the error. */
void *opt_wire_array(struct opt_arena *arena, size_t n, size_t size,
                     struct opt_error *error);

/* An enum's value is 0 to count - 1. */
enum opt_status opt_wire_enum(int value, int count, const char *what,
                              struct opt_error *error);

/* A name (1 to 255 bytes), or one that may also be empty. */
enum opt_status opt_wire_name(const char *text, const char *what,
                              struct opt_error *error);
enum opt_status opt_wire_optional_name(const char *text, const char *what,
                                       struct opt_error *error);

/* Segments. what names the message in sentences ("push"). data_size: bytes of values
 * that they describe, or OPT_WIRE_NO_VALUES if they only name elements (pull). whole:
 * every count must be given (replies). */
#define OPT_WIRE_NO_VALUES SIZE_MAX
struct opt_wire_segments {
    const char *what;
    enum opt_dtype dtype;
    size_t data_size;
    bool whole;
};
enum opt_status opt_wire_segments_read(const struct opt_wire_segments *how,
                                       Optimd__V1__Segment *const *segments,
                                       size_t count, struct opt_arena *arena,
                                       const struct opt_segment **out,
                                       struct opt_error *error);

/* The places of segments that were read, if there are any: *out is NULL if not. */
enum opt_status opt_wire_places_read(const char *what, const uint64_t *places,
                                     size_t count, const struct opt_segment *segments,
                                     size_t segment_count, size_t data_size,
                                     const uint64_t **out, struct opt_error *error);

/* NULL: the defaults. */
enum opt_status opt_wire_consistency_read(const Optimd__V1__Consistency *consistency,
                                          struct opt_consistency *out,
                                          struct opt_error *error);

/* ---- packing */

struct opt_writer {
    uint8_t *out; /* NULL: only measure */
    size_t size;
};
typedef void (*opt_write)(struct opt_writer *writer, const void *what);

/* Measure, and write if it fits capacity. Returns the size. */
size_t opt_wire_pack(opt_write write, const void *what, uint8_t *out, size_t capacity);

/* Append the fields of a message. */
void opt_write_fields(struct opt_writer *writer, const ProtobufCMessage *message);
/* Append a number, an enum or a flag, and a text; like every field, they are left out
 * if they are 0 and empty. What is written in each step of a training, often and short,
 * is written so: protobuf-c takes several times as long. */
void opt_write_number(struct opt_writer *writer, uint32_t field, uint64_t value);
void opt_write_text(struct opt_writer *writer, uint32_t field, const char *text);
/* Append a field that is a message: its tag, its length, and what write writes. */
void opt_write_nested(struct opt_writer *writer, uint32_t field, opt_write write,
                      const void *what);
/* The segments of a message, one by one. */
void opt_write_segments(struct opt_writer *writer, uint32_t field,
                        const struct opt_segment *segments, size_t count);
void opt_write_consistency(struct opt_writer *writer, const void *consistency);

/* protobuf-c has no const. "" for NULL, which is a field that is not written. */
char *opt_wire_text(const char *text);

#endif
