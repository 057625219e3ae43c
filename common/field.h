/* field — the outside of one protobuf field: its number, its type, how far it reaches.
 *
 * For those who must know where a field lies before anything is unpacked: the frame
 * reader, which looks for `data`, and the scan that a message passes before protobuf-c
 * sees it. Any thread, no state.
 */
#ifndef OPTIMD_COMMON_FIELD_H
#define OPTIMD_COMMON_FIELD_H

#include <stddef.h>
#include <stdint.h>

enum opt_field_type {
    OPT_FIELD_VARINT = 0,
    OPT_FIELD_FIXED64 = 1,
    OPT_FIELD_BYTES = 2,
    OPT_FIELD_FIXED32 = 5
};

struct opt_field {
    uint32_t number;
    enum opt_field_type type;
    size_t head;     /* bytes before the value: tag, and the length of BYTES */
    uint64_t size;   /* bytes of the value, which may lie beyond what is there */
    uint64_t varint; /* the value of a VARINT */
};

enum opt_field_found {
    OPT_FIELD_READ,  /* *out is filled in */
    OPT_FIELD_SHORT, /* the bytes end inside the head (or inside a VARINT) */
    OPT_FIELD_BAD    /* no field starts like this; *reason says why */
};

enum { OPT_FIELD_HEAD_MAX = 15 }; /* tag 5, length 10 */

/* Look at the field that starts at bytes. reason is static text, written if BAD. */
enum opt_field_found opt_field_read(const uint8_t *bytes, size_t available,
                                    struct opt_field *out, const char **reason);

/* Write a varint; returns its size, 1 to 10 bytes. out may be NULL to measure. */
size_t opt_varint_write(uint64_t value, uint8_t *out);

#endif
