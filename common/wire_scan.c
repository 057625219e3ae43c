/* wire_scan — the raw bytes of a message against its descriptor, before protobuf-c. */
#include <inttypes.h>
#include <stdio.h>

#include "common/field.h"
#include "common/frame.h"
#include "common/name.h"
#include "common/wire_parts.h"

enum { FIRST_BODY = 9 }; /* lowest number of a body in Request and Reply */

static enum opt_status scan(const ProtobufCMessageDescriptor *descriptor,
                            const uint8_t *bytes, size_t size,
                            struct opt_wire_seen *seen, struct opt_error *error);

/* Whether a field holds one message: at the top of a Request or a Reply, its body. */
static bool is_single_message(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_MESSAGE &&
           field->label != PROTOBUF_C_LABEL_REPEATED;
}

/* A message that may be given once: a message has one of each, and one body. */
static enum opt_status scan_single(const ProtobufCMessageDescriptor *descriptor,
                                   const ProtobufCFieldDescriptor *known,
                                   uint64_t *given, struct opt_wire_seen *seen,
                                   struct opt_error *error)
{
    uint64_t bit = UINT64_C(1) << (known - descriptor->fields);
    if (seen != NULL && seen->body != OPT_MESSAGE_NONE) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s has a second body, %s; it must have one",
                        descriptor->short_name, known->name);
    }
    if ((*given & bit) != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s.%s is given twice",
                        descriptor->short_name, known->name);
    }
    *given |= bit;
    if (seen != NULL) {
        seen->body = (enum opt_message)known->id;
    }
    return OPT_OK;
}

/* Packed 32-bit numbers: protobuf-c would cut larger ones. */
static enum opt_status scan_packed(const ProtobufCMessageDescriptor *descriptor,
                                   const ProtobufCFieldDescriptor *known,
                                   const uint8_t *value, size_t size,
                                   struct opt_error *error)
{
    uint64_t number = 0;
    unsigned shift = 0;
    for (size_t i = 0; i < size; i++) {
        if (shift < 64) {
            number |= (uint64_t)(value[i] & 0x7f) << shift;
        }
        shift += 7;
        if ((value[i] & 0x80) != 0) {
            continue;
        }
        if (number > UINT32_MAX) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s.%s has %" PRIu64 "; it must fit 32 bits",
                            descriptor->short_name, known->name, number);
        }
        number = 0;
        shift = 0;
    }
    return OPT_OK;
}

static enum opt_status scan_value(const ProtobufCMessageDescriptor *descriptor,
                                  const ProtobufCFieldDescriptor *known,
                                  const struct opt_field *field, const uint8_t *value,
                                  struct opt_error *error)
{
    char what[128];
    switch (known->type) {
    case PROTOBUF_C_TYPE_STRING:
        if (field->type != OPT_FIELD_BYTES) {
            break;
        }
        if (opt_text_good((const char *)value, (size_t)field->size) == field->size) {
            return OPT_OK;
        }
        (void)snprintf(what, sizeof(what), "%s.%s", descriptor->short_name,
                       known->name);
        return opt_text_check((const char *)value, (size_t)field->size, what, error);
    case PROTOBUF_C_TYPE_MESSAGE:
        if (field->type != OPT_FIELD_BYTES) {
            break;
        }
        return scan(known->descriptor, value, (size_t)field->size, NULL, error);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
        if (field->type == OPT_FIELD_VARINT && field->varint > UINT32_MAX) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s.%s is %" PRIu64 "; it must fit 32 bits",
                            descriptor->short_name, known->name, field->varint);
        }
        if (field->type == OPT_FIELD_BYTES) {
            return scan_packed(descriptor, known, value, (size_t)field->size, error);
        }
        break;
    default:
        break;
    }
    return OPT_OK; /* a wrong wire type is left to protobuf-c, which refuses it */
}

static enum opt_status scan(const ProtobufCMessageDescriptor *descriptor,
                            const uint8_t *bytes, size_t size,
                            struct opt_wire_seen *seen, struct opt_error *error)
{
    uint64_t given = 0;
    for (size_t at = 0; at < size;) {
        struct opt_field field;
        const char *reason = "it ends inside a field";
        enum opt_field_found found =
            opt_field_read(bytes + at, size - at, &field, &reason);
        if (found != OPT_FIELD_READ || field.size > size - at - field.head) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s is not a protobuf message: %s at byte %zu of %zu",
                            descriptor->short_name,
                            found == OPT_FIELD_READ ? "a field reaches past its end"
                                                    : reason,
                            at, size);
        }
        const uint8_t *value = bytes + at + field.head;
        at += field.head + (size_t)field.size;
        if (seen != NULL) {
            if (field.number == 1 && field.type == OPT_FIELD_VARINT) {
                seen->id = field.varint;
            }
            if (field.number == OPT_FRAME_DATA_FIELD) {
                return opt_fail(error, OPT_INVALID_ARGUMENT, "%s: data is given twice",
                                descriptor->short_name);
            }
        }
        const ProtobufCFieldDescriptor *known =
            protobuf_c_message_descriptor_get_field(descriptor, field.number);
        if (known == NULL) {
            if (seen != NULL && field.type == OPT_FIELD_BYTES &&
                field.number >= FIRST_BODY) {
                seen->unknown_body = field.number;
            }
            continue;
        }
        enum opt_status status = OPT_OK;
        if (is_single_message(known)) {
            status = scan_single(descriptor, known, &given, seen, error);
        }
        if (status == OPT_OK) {
            status = scan_value(descriptor, known, &field, value, error);
        }
        if (status != OPT_OK) {
            return status;
        }
    }
    return OPT_OK;
}

bool opt_walk_next(struct opt_walk *walk)
{
    const char *reason = NULL;
    if (walk->at >= walk->size) {
        return false;
    }
    walk->start = walk->bytes + walk->at;
    size_t left = walk->size - walk->at;
    if (opt_field_read(walk->start, left, &walk->field, &reason) != OPT_FIELD_READ ||
        walk->field.size > left - walk->field.head) {
        return false;
    }
    walk->value = walk->start + walk->field.head;
    walk->at += walk->field.head + (size_t)walk->field.size;
    return true;
}

enum opt_status opt_wire_scan(const ProtobufCMessageDescriptor *descriptor,
                              const uint8_t *bytes, size_t size,
                              struct opt_wire_seen *seen, struct opt_error *error)
{
    if (seen != NULL) {
        *seen = (struct opt_wire_seen){ 0 };
    }
    return scan(descriptor, bytes, size, seen, error);
}
