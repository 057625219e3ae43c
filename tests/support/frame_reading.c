#include "tests/support/frame_reading.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"

/* ---------------------------------------------------------------- building */

void bytes_put_varint(struct bytes *bytes, uint64_t value)
{
    bytes->size += opt_varint_write(value, bytes->at + bytes->size);
}

uint8_t bytes_pattern(size_t index, unsigned seed)
{
    return (uint8_t)(index * 31 + (index >> 8) * 7 + seed * 13 + 1);
}

void bytes_put_field(struct bytes *bytes, uint32_t number, size_t size, unsigned seed)
{
    bytes_put_varint(bytes, (uint64_t)number << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(bytes, size);
    for (size_t i = 0; i < size; i++) {
        bytes->at[bytes->size + i] = bytes_pattern(i, seed);
    }
    bytes->size += size;
}

void bytes_put_number(struct bytes *bytes, uint32_t number, uint64_t value)
{
    bytes_put_varint(bytes, (uint64_t)number << 3 | OPT_FIELD_VARINT);
    bytes_put_varint(bytes, value);
}

void bytes_put_data(struct bytes *bytes, size_t size, unsigned seed)
{
    bytes_put_field(bytes, OPT_FRAME_DATA_FIELD, size, seed);
}

void bytes_put_prefix(struct bytes *bytes, size_t size)
{
    for (int i = 0; i < 4; i++) {
        bytes->at[bytes->size++] = (uint8_t)(size >> (8 * i));
    }
}

void bytes_put_frame(struct bytes *stream, const struct bytes *message)
{
    bytes_put_prefix(stream, message->size);
    memcpy(stream->at + stream->size, message->at, message->size);
    stream->size += message->size;
}

void bytes_put_plain_frame(struct bytes *stream, size_t header, size_t data,
                           unsigned seed)
{
    static struct bytes message;
    message.size = 0;
    bytes_put_number(&message, 1, seed + 1);
    if (header > 8) {
        bytes_put_field(&message, 16, header - 6, seed);
    }
    if (data != SIZE_MAX) {
        bytes_put_data(&message, data, seed + 1);
    }
    bytes_put_frame(stream, &message);
}

/* ---------------------------------------------------------------- reading */

const struct opt_frame_limits frame_usual = { .frame_bytes = 1 << 20,
                                              .header_bytes = 64 << 10 };

struct reading *reading_new(struct opt_frame_limits limits)
{
    struct reading *reading = calloc(1, sizeof(*reading));
    cr_assert_not_null(reading);
    reading->reader = opt_frame_reader_new(limits);
    cr_assert_not_null(reading->reader);
    return reading;
}

void reading_free(struct reading *reading)
{
    for (size_t i = 0; i < reading->count + reading->open; i++) {
        free(reading->frames[i].header);
        free(reading->frames[i].data);
    }
    if (reading->early) {
        free(reading->frames[reading->count].data);
    }
    free(reading->first);
    opt_frame_reader_free(reading->reader);
    free(reading);
}

/* Exactly as long: ASan sees a byte too many. */
static uint8_t *data_new(size_t size)
{
    uint8_t *data = malloc(size + 1);
    cr_assert_not_null(data);
    return data;
}

void reading_take_header(struct reading *reading)
{
    struct got *got = &reading->frames[reading->count];
    const uint8_t *header = opt_frame_header(reading->reader, &got->header_size);
    got->header = malloc(got->header_size + 1);
    memcpy(got->header, header, got->header_size);
    got->data_size = opt_frame_data_size(reading->reader);
    got->early = opt_frame_is_early(reading->reader);
    if (!got->early || reading->elsewhere) {
        free(reading->first);
        reading->first = got->data;
        got->data = data_new(got->data_size);
    }
    reading->open = true;
    opt_frame_place(reading->reader, reading->discard ? NULL : got->data);
}

static void on_early(struct reading *reading)
{
    struct got *got = &reading->frames[reading->count];
    got->data = data_new(opt_frame_data_size(reading->reader));
    opt_frame_place(reading->reader, reading->discard ? NULL : got->data);
}

void reading_drain(struct reading *reading)
{
    size_t filled = 0;
    for (;;) {
        switch (opt_frame_next(reading->reader)) {
        case OPT_FRAME_MORE:
            return;
        case OPT_FRAME_HEADER:
            cr_assert(!reading->open);
            reading->early = false;
            reading_take_header(reading);
            filled = 0;
            break;
        case OPT_FRAME_DATA:
            cr_assert(reading->open && !reading->discard);
            cr_assert_gt(opt_frame_data_filled(reading->reader), filled);
            filled = opt_frame_data_filled(reading->reader);
            break;
        case OPT_FRAME_END:
            cr_assert(reading->open);
            cr_assert_eq(opt_frame_data_filled(reading->reader),
                         reading->discard ? 0
                                          : reading->frames[reading->count].data_size);
            reading->open = false;
            reading->count++;
            break;
        case OPT_FRAME_LONG:
            cr_assert_gt(opt_frame_wanted(reading->reader),
                         opt_frame_taken(reading->reader));
            cr_assert_eq(opt_frame_next(reading->reader), OPT_FRAME_LONG);
            cr_assert(opt_frame_grow(reading->reader));
            break;
        case OPT_FRAME_EARLY:
            cr_assert(!reading->open && !reading->early);
            cr_assert_eq(opt_frame_next(reading->reader), OPT_FRAME_EARLY);
            reading->early = true;
            on_early(reading);
            break;
        case OPT_FRAME_BROKEN:
            reading->broken = true;
            cr_assert_eq(opt_frame_next(reading->reader), OPT_FRAME_BROKEN);
            return;
        }
    }
}

void reading_feed(struct reading *reading, const uint8_t *bytes, size_t size,
                  size_t step)
{
    while (size > 0 && !reading->broken) {
        uint8_t *base = NULL, *lent = malloc(OPT_FRAME_AHEAD);
        size_t space = 0;
        opt_frame_lend(reading->reader, lent);
        opt_frame_space(reading->reader, &base, &space);
        cr_assert_gt(space, 0);
        size_t n = size < step ? size : step;
        n = n < space ? n : space;
        memcpy(base, bytes, n);
        opt_frame_received(reading->reader, n);
        bytes += n;
        size -= n;
        reading_drain(reading);
        cr_assert(opt_frame_take_back(reading->reader));
        memset(lent, 0xEE, OPT_FRAME_AHEAD);
        free(lent);
    }
}

void bytes_expect_pattern(const uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(bytes[i], bytes_pattern(i, seed), "byte %zu of %zu", i, size);
    }
}

void reading_expect_plain(const struct reading *reading, size_t index, size_t header,
                          size_t data, unsigned seed)
{
    cr_assert_lt(index, reading->count, "frame %zu did not end", index);
    static struct bytes message;
    message.size = 0;
    bytes_put_number(&message, 1, seed + 1);
    if (header > 8) {
        bytes_put_field(&message, 16, header - 6, seed);
    }
    const struct got *got = &reading->frames[index];
    cr_assert_eq(got->header_size, message.size);
    cr_assert_arr_eq(got->header, message.at, message.size);
    cr_assert_eq(got->data_size, data == SIZE_MAX ? 0 : data);
    if (!reading->discard) {
        bytes_expect_pattern(got->data, got->data_size, seed + 1);
    }
}

void bytes_expect_broken(struct opt_frame_limits limits, const struct bytes *stream,
                         enum opt_status status, const char *words)
{
    static const size_t steps[] = { 1, 3, 4096 };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(limits);
        reading_feed(reading, stream->at, stream->size, steps[i]);
        cr_assert(reading->broken, "it was accepted");
        const struct opt_error *error = opt_frame_error(reading->reader);
        cr_assert_eq(error->status, status, "%s: %s", opt_status_name(error->status),
                     error->text);
        cr_assert_not_null(strstr(error->text, words), "%s", error->text);
        reading_free(reading);
    }
}
