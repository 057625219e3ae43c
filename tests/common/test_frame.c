/* Frames as they arrive, are refused and are written. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "tests/support/frame_reading.h"

static struct bytes stream, message;

static void start(void)
{
    stream.size = 0;
    message.size = 0;
}

TestSuite(frame, .init = start);

/* ---------------------------------------------------------------- what arrives */

Test(frame, delivers_header_and_data)
{
    bytes_put_plain_frame(&stream, 40, 1000, 1);
    struct reading *reading = reading_new(frame_usual);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 1);
    reading_expect_plain(reading, 0, 40, 1000, 1);
    cr_assert(!reading->frames[0].early);
    cr_assert(!opt_frame_pending(reading->reader));
    reading_free(reading);
}

Test(frame, can_be_split_at_every_byte)
{
    bytes_put_plain_frame(&stream, 40, 70, 1);
    bytes_put_plain_frame(&stream, 0, SIZE_MAX, 2);
    bytes_put_plain_frame(&stream, 20, 0, 3);
    bytes_put_plain_frame(&stream, 20, 3, 4);
    for (size_t first = 0; first <= stream.size; first++) {
        for (size_t second = first; second <= stream.size; second++) {
            struct reading *reading = reading_new(frame_usual);
            reading_feed(reading, stream.at, first, SIZE_MAX);
            reading_feed(reading, stream.at + first, second - first, SIZE_MAX);
            reading_feed(reading, stream.at + second, stream.size - second, SIZE_MAX);
            cr_assert_eq(reading->count, 4, "cut at %zu and %zu", first, second);
            reading_expect_plain(reading, 0, 40, 70, 1);
            reading_expect_plain(reading, 1, 0, SIZE_MAX, 2);
            reading_expect_plain(reading, 2, 20, 0, 3);
            reading_expect_plain(reading, 3, 20, 3, 4);
            cr_assert(!opt_frame_pending(reading->reader));
            reading_free(reading);
        }
    }
}

Test(frame, of_every_size_around_the_stage_is_read)
{
    static const size_t steps[] = { 1, 1000, 4095, 4096, SIZE_MAX };
    for (size_t data = OPT_FRAME_STAGE - 80; data < OPT_FRAME_STAGE + 40; data++) {
        start();
        bytes_put_plain_frame(&stream, 40, data, 1);
        bytes_put_plain_frame(&stream, 20, 10, 2);
        bytes_put_plain_frame(&stream, data, 33, 3);
        bytes_put_plain_frame(&stream, data, SIZE_MAX, 4);
        bytes_put_plain_frame(&stream, 20, 5, 5);
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            struct reading *reading = reading_new(frame_usual);
            reading_feed(reading, stream.at, stream.size, steps[i]);
            cr_assert_eq(reading->count, 5);
            reading_expect_plain(reading, 0, 40, data, 1);
            reading_expect_plain(reading, 1, 20, 10, 2);
            reading_expect_plain(reading, 2, data, 33, 3);
            reading_expect_plain(reading, 3, data, SIZE_MAX, 4);
            reading_expect_plain(reading, 4, 20, 5, 5);
            reading_free(reading);
        }
    }
}

Test(frame, comes_out_of_one_read_with_many_others)
{
    for (unsigned i = 0; i < 100; i++) {
        bytes_put_plain_frame(&stream, 20, i % 7, i);
    }
    cr_assert_lt(stream.size, OPT_FRAME_STAGE);
    struct reading *reading = reading_new(frame_usual);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 100);
    for (unsigned i = 0; i < 100; i++) {
        reading_expect_plain(reading, i, 20, i % 7, i);
    }
    reading_free(reading);
}

/* Frames of data bytes each, of which the first has the seed. */
static void put_many(size_t count, size_t data, unsigned seed)
{
    for (unsigned i = 0; i < count; i++) {
        bytes_put_plain_frame(&stream, 20, data, seed + i);
    }
}

Test(frame, is_read_with_many_others_once_all_are_short)
{
    uint8_t *base, *lent = malloc(OPT_FRAME_AHEAD);
    size_t space;
    struct reading *reading = reading_new(frame_usual);
    put_many(OPT_FRAME_SHORT_RUN - 1, OPT_FRAME_STAGE, 1);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_eq(space, OPT_FRAME_STAGE);
    start();
    put_many(1, OPT_FRAME_STAGE, OPT_FRAME_SHORT_RUN);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_eq(space, OPT_FRAME_AHEAD);
    cr_assert_eq(base, lent);
    cr_assert(opt_frame_take_back(reading->reader));
    for (unsigned i = 0; i < OPT_FRAME_SHORT_RUN; i++) {
        reading_expect_plain(reading, i, 20, OPT_FRAME_STAGE, i + 1);
    }
    start();
    put_many(1, OPT_FRAME_STAGE + 1, 50);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    reading_expect_plain(reading, OPT_FRAME_SHORT_RUN, 20, OPT_FRAME_STAGE + 1, 50);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_eq(space, OPT_FRAME_STAGE);
    reading_free(reading);
    free(lent);
}

Test(frame, is_whole_whatever_is_lent_and_taken_back)
{
    static const size_t steps[] = { 1, 7, 4095, 5000, 32767, SIZE_MAX };
    put_many(20, 100, 1);
    put_many(1, 100000, 21);
    put_many(20, 30, 22);
    bytes_put_plain_frame(&stream, 20000, 5000, 42);
    put_many(30, 3000, 43);
    bytes_put_plain_frame(&stream, 20000, SIZE_MAX, 73);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(frame_usual);
        reading_feed(reading, stream.at, stream.size, steps[i]);
        cr_assert_eq(reading->count, 73);
        for (unsigned k = 1; k <= 73; k++) {
            size_t data = k <= 20   ? 100
                          : k == 21 ? 100000
                          : k <= 41 ? 30
                          : k == 42 ? 5000
                          : k <= 72 ? 3000
                                    : SIZE_MAX;
            reading_expect_plain(reading, k - 1, k == 42 || k == 73 ? 20000 : 20, data,
                                 k);
        }
        cr_assert(!opt_frame_pending(reading->reader));
        reading_free(reading);
    }
}

/* Who reads has to stop in the middle: the rest waits in memory of the reader's own. */
Test(frame, that_has_been_read_ahead_waits_until_it_is_wanted)
{
    uint8_t *base, *lent = malloc(OPT_FRAME_AHEAD);
    size_t space;
    struct reading *reading = reading_new(frame_usual);
    put_many(OPT_FRAME_SHORT_RUN, 10, 1);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    start();
    put_many(30, 1000, 20);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_leq(stream.size, space);
    memcpy(base, stream.at, stream.size);
    opt_frame_received(reading->reader, stream.size);
    cr_assert_eq(opt_frame_next(reading->reader), OPT_FRAME_HEADER);
    cr_assert(opt_frame_take_back(reading->reader));
    memset(lent, 0xEE, OPT_FRAME_AHEAD);
    free(lent);
    reading_take_header(reading);
    reading_drain(reading);
    cr_assert_eq(reading->count, OPT_FRAME_SHORT_RUN + 30);
    for (unsigned i = 0; i < 30; i++) {
        reading_expect_plain(reading, OPT_FRAME_SHORT_RUN + i, 20, 1000, 20 + i);
    }
    reading_free(reading);
}

Test(frame, of_no_bytes_is_an_empty_message)
{
    bytes_put_prefix(&stream, 0);
    bytes_put_plain_frame(&stream, 20, 9, 1);
    struct reading *reading = reading_new(frame_usual);
    reading_feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 2);
    cr_assert_eq(reading->frames[0].header_size, 0);
    cr_assert_eq(reading->frames[0].data_size, 0);
    reading_expect_plain(reading, 1, 20, 9, 1);
    reading_free(reading);
}

Test(frame, may_have_a_header_longer_than_the_stage)
{
    static const size_t headers[] = { 4090, 4096, 8191, 8192, 8193, 20000, 65000 };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        for (size_t step = 1; step < 70000; step = step * 9 + 1) {
            start();
            bytes_put_plain_frame(&stream, headers[i], 5000, 1);
            bytes_put_plain_frame(&stream, 30, 50, 2);
            struct reading *reading = reading_new(frame_usual);
            reading_feed(reading, stream.at, stream.size, step);
            cr_assert_eq(reading->count, 2);
            reading_expect_plain(reading, 0, headers[i], 5000, 1);
            reading_expect_plain(reading, 1, 30, 50, 2);
            cr_assert_leq(opt_frame_moved(reading->reader), OPT_FRAME_STAGE + 50);
            reading_free(reading);
        }
    }
}

Test(frame, header_may_be_as_long_as_the_limit)
{
    for (int more = 0; more <= 1; more++) {
        start();
        size_t value =
            (size_t)(frame_usual.header_bytes - 5 + (size_t)more); /* tag 2, length 3 */
        bytes_put_field(&message, 16, value, 3);
        cr_assert_eq(message.size, frame_usual.header_bytes + (size_t)more);
        bytes_put_data(&message, 10, 4);
        bytes_put_frame(&stream, &message);
        struct reading *reading = reading_new(frame_usual);
        reading_feed(reading, stream.at, stream.size, SIZE_MAX);
        cr_assert_eq(reading->count, more ? 0 : 1);
        cr_assert_eq(reading->broken, more == 1);
        reading_free(reading);
    }
}

/* ---------------------------------------------------------------- what is refused */

Test(frame, longer_than_the_limit_is_refused_by_its_length_alone)
{
    bytes_put_prefix(&stream, frame_usual.frame_bytes + 1);
    bytes_expect_broken(frame_usual, &stream, OPT_RESOURCE_EXHAUSTED,
                        "1048577 bytes was announced; the limit is 1048576");
    start();
    bytes_put_prefix(&stream, UINT32_MAX);
    bytes_expect_broken(frame_usual, &stream, OPT_RESOURCE_EXHAUSTED, "4294967295");
}

Test(frame, header_past_the_limit_is_refused_before_it_arrives)
{
    bytes_put_prefix(&stream, 500000);
    bytes_put_number(&stream, 1, 1);
    bytes_put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(&stream, 400000);
    bytes_expect_broken(frame_usual, &stream, OPT_RESOURCE_EXHAUSTED,
                        "the limit is 65536");
}

Test(frame, data_given_twice_is_refused)
{
    bytes_put_data(&message, 5, 1);
    bytes_put_number(&message, 1, 1);
    bytes_put_data(&message, 5, 1);
    bytes_put_frame(&stream, &message);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT, "given twice");
    start();
    bytes_put_data(&message, 5, 1);
    bytes_put_data(&message, 5, 1);
    bytes_put_number(&message, 1, 1);
    bytes_put_frame(&stream, &message);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT, "given twice");
}

Test(frame, field_that_reaches_past_its_end_is_refused)
{
    bytes_put_prefix(&stream, 10);
    bytes_put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(&stream, 8);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "field 16 of a frame announces 8 bytes, but only 7 are left");
    start();
    bytes_put_prefix(&stream, 100);
    bytes_put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(&stream, UINT64_MAX);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "18446744073709551615 bytes");
    start();
    bytes_put_prefix(&stream, 5);
    bytes_put_varint(&stream, 3 << 3 | OPT_FIELD_FIXED64);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "announces 8 bytes");
}

Test(frame, that_ends_inside_a_tag_or_length_is_refused)
{
    bytes_put_prefix(&stream, 1);
    stream.at[stream.size++] = 0xFA;
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "ends inside the head");
    start();
    bytes_put_prefix(&stream, 3);
    bytes_put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    stream.at[stream.size++] = 0x80;
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "ends inside the head");
}

Test(frame, that_is_no_protobuf_message_is_refused)
{
    static const struct {
        const char *words;
        uint8_t bytes[12];
    } cases[] = {
        { "group", { 1 << 3 | 3, 0 } },
        { "group", { 1 << 3 | 4, 0 } },
        { "wire type", { 1 << 3 | 6, 0 } },
        { "wire type", { 1 << 3 | 7, 0 } },
        { "number 0", { 2, 0 } },
        { "tag", { 0x80, 0x80, 0x80, 0x80, 0x80, 0x01 } },
        { "tag", { 0x88, 0x80, 0x80, 0x80, 0x10 } },
        { "varint",
          { 8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0 } },
        { "varint",
          { 8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0 } },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start();
        bytes_put_prefix(&stream, sizeof(cases[i].bytes));
        memcpy(stream.at + stream.size, cases[i].bytes, sizeof(cases[i].bytes));
        stream.size += sizeof(cases[i].bytes);
        bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT, cases[i].words);
    }
    start();
    bytes_put_number(&message, OPT_FRAME_DATA_FIELD, 5);
    bytes_put_frame(&stream, &message);
    bytes_expect_broken(frame_usual, &stream, OPT_INVALID_ARGUMENT,
                        "wire type 0; it must be 2");
}

Test(frame, is_pending_from_its_first_byte_to_its_last)
{
    bytes_put_plain_frame(&stream, 20, 10, 1);
    struct reading *reading = reading_new(frame_usual);
    cr_assert(!opt_frame_pending(reading->reader));
    for (size_t i = 0; i < stream.size; i++) {
        reading_feed(reading, stream.at + i, 1, 1);
        cr_assert_eq(opt_frame_pending(reading->reader), i + 1 < stream.size);
    }
    reading_free(reading);
}

/* ---------------------------------------------------------------- writing */

Test(frame, begin_writes_what_the_reader_reads)
{
    static const size_t sizes[] = { 0, 1, 127, 128, 16383, 16384, 200000 };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        start();
        bytes_put_number(&message, 1, 300);
        uint8_t prefix[4];
        uint8_t tag[12];
        size_t tag_size = SIZE_MAX;
        opt_frame_begin(message.size, sizes[i], prefix, tag, &tag_size);
        cr_assert_eq(tag_size == 0, sizes[i] == 0);
        memcpy(stream.at, prefix, 4);
        memcpy(stream.at + 4, message.at, message.size);
        memcpy(stream.at + 4 + message.size, tag, tag_size);
        size_t head = 4 + message.size + tag_size;
        for (size_t j = 0; j < sizes[i]; j++) {
            stream.at[head + j] = bytes_pattern(j, 3);
        }
        stream.size = head + sizes[i];
        struct reading *reading = reading_new(frame_usual);
        reading_feed(reading, stream.at, stream.size, SIZE_MAX);
        cr_assert_eq(reading->count, 1);
        cr_assert_eq(reading->frames[0].header_size, message.size);
        cr_assert_eq(reading->frames[0].data_size, sizes[i]);
        bytes_expect_pattern(reading->frames[0].data, sizes[i], 3);
        cr_assert(!reading->frames[0].early);
        reading_free(reading);
    }
}
