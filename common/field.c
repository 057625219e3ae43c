#include "common/field.h"

enum { TAG_MAX = 5, VARINT_MAX = 10 };

/* Returns the bytes taken; 0 if it does not end within available; more than limit if it
 * does not end within limit bytes or does not fit 64 bits. */
static size_t read_varint(const uint8_t *bytes, size_t available, size_t limit,
                          uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < limit; i++) {
        if (i == available) {
            return 0;
        }
        if (i == VARINT_MAX - 1 && bytes[i] > 1) {
            break;
        }
        value |= (uint64_t)(bytes[i] & 0x7F) << (7 * i);
        if (bytes[i] < 0x80) {
            *out = value;
            return i + 1;
        }
    }
    return limit + 1;
}

enum opt_field_found opt_field_read(const uint8_t *bytes, size_t available,
                                    struct opt_field *out, const char **reason)
{
    uint64_t tag = 0;
    size_t tag_size = read_varint(bytes, available, TAG_MAX, &tag);
    if (tag_size == 0) {
        return OPT_FIELD_SHORT;
    }
    if (tag_size > TAG_MAX || tag > UINT32_MAX) {
        *reason = "a field's tag does not fit 32 bits";
        return OPT_FIELD_BAD;
    }
    if (tag >> 3 == 0) {
        *reason = "a field has the number 0";
        return OPT_FIELD_BAD;
    }
    struct opt_field field = { .number = (uint32_t)(tag >> 3),
                               .type = (enum opt_field_type)(tag & 7),
                               .head = tag_size };
    uint64_t length = 0;
    size_t varint_size = 0;
    switch (field.type) {
    case OPT_FIELD_FIXED64:
        field.size = 8;
        break;
    case OPT_FIELD_FIXED32:
        field.size = 4;
        break;
    case OPT_FIELD_VARINT:
    case OPT_FIELD_BYTES:
        varint_size =
            read_varint(bytes + tag_size, available - tag_size, VARINT_MAX, &length);
        if (varint_size == 0) {
            return OPT_FIELD_SHORT;
        }
        if (varint_size > VARINT_MAX) {
            *reason = "a varint does not fit 64 bits";
            return OPT_FIELD_BAD;
        }
        if (field.type == OPT_FIELD_VARINT) {
            field.size = varint_size;
            field.varint = length;
        } else {
            field.head += varint_size;
            field.size = length;
        }
        break;
    default:
        *reason = "a field is a group or has an unknown wire type";
        return OPT_FIELD_BAD;
    }
    *out = field;
    return OPT_FIELD_READ;
}

size_t opt_varint_write(uint64_t value, uint8_t *out)
{
    size_t size = 0;
    if (out == NULL) {
        size_t bits = 64 - (size_t)__builtin_clzll(value | 1);
        return (bits + 6) / 7;
    }
    for (; value > 0x7F; value >>= 7) {
        out[size++] = (uint8_t)(value | 0x80);
    }
    out[size] = (uint8_t)value;
    return size + 1;
}
