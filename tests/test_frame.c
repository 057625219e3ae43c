#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "common/frame.h"

/* ---------------------------------------------------------------- building */

struct bytes {
    size_t size;
    uint8_t at[1 << 18];
};

static void put_varint(struct bytes *bytes, uint64_t value)
{
    bytes->size += opt_varint_write(value, bytes->at + bytes->size);
}

static uint8_t pattern(size_t index, unsigned seed)
{
    return (uint8_t)(index * 31 + (index >> 8) * 7 + seed * 13 + 1);
}

/* A BYTES field of size bytes of a pattern. */
static void put_bytes_field(struct bytes *bytes, uint32_t number, size_t size,
                            unsigned seed)
{
    put_varint(bytes, (uint64_t)number << 3 | OPT_FIELD_BYTES);
    put_varint(bytes, size);
    for (size_t i = 0; i < size; i++) {
        bytes->at[bytes->size + i] = pattern(i, seed);
    }
    bytes->size += size;
}

static void put_varint_field(struct bytes *bytes, uint32_t number, uint64_t value)
{
    put_varint(bytes, (uint64_t)number << 3 | OPT_FIELD_VARINT);
    put_varint(bytes, value);
}

static void put_data(struct bytes *bytes, size_t size, unsigned seed)
{
    put_bytes_field(bytes, OPT_FRAME_DATA_FIELD, size, seed);
}

static void put_prefix(struct bytes *bytes, size_t size)
{
    for (int i = 0; i < 4; i++) {
        bytes->at[bytes->size++] = (uint8_t)(size >> (8 * i));
    }
}

/* Append message as a frame. */
static void put_frame(struct bytes *stream, const struct bytes *message)
{
    put_prefix(stream, message->size);
    memcpy(stream->at + stream->size, message->at, message->size);
    stream->size += message->size;
}

/* A frame whose header part has about header bytes, with data bytes of data (no data
 * field at all for SIZE_MAX). */
static void put_plain_frame(struct bytes *stream, size_t header, size_t data,
                            unsigned seed)
{
    static struct bytes message;
    message.size = 0;
    put_varint_field(&message, 1, seed + 1);
    if (header > 8) {
        put_bytes_field(&message, 16, header - 6, seed);
    }
    if (data != SIZE_MAX) {
        put_data(&message, data, seed + 1);
    }
    put_frame(stream, &message);
}

/* ---------------------------------------------------------------- reading */

struct got {
    uint8_t *header;
    size_t header_size;
    uint8_t *data;
    size_t data_size;
    bool early;
};

struct reading {
    struct opt_frame_reader *reader;
    struct got frames[256];
    size_t count;
    bool open;  /* HEADER without END */
    bool early; /* EARLY without HEADER */
    bool broken;
    bool discard;   /* give data no place */
    bool elsewhere; /* give data that came early another place later */
    uint8_t *first; /* its first one */
};

static const struct opt_frame_limits usual = { .frame_bytes = 1 << 20,
                                               .header_bytes = 64 << 10 };

static struct reading *reading_new(struct opt_frame_limits limits)
{
    struct reading *reading = calloc(1, sizeof(*reading));
    cr_assert_not_null(reading);
    reading->reader = opt_frame_reader_new(limits);
    cr_assert_not_null(reading->reader);
    return reading;
}

static void reading_free(struct reading *reading)
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

static void on_header(struct reading *reading)
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

/* Everything that the bytes so far amount to. */
static void drain(struct reading *reading)
{
    size_t filled = 0;
    for (;;) {
        switch (opt_frame_next(reading->reader)) {
        case OPT_FRAME_MORE:
            return;
        case OPT_FRAME_HEADER:
            cr_assert(!reading->open);
            reading->early = false;
            on_header(reading);
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

/* Feed bytes, at most step at a time (as a socket would), until they are used up. The
 * memory that is lent for a read is gone after it. */
static void feed(struct reading *reading, const uint8_t *bytes, size_t size,
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
        drain(reading);
        cr_assert(opt_frame_take_back(reading->reader));
        memset(lent, 0xEE, OPT_FRAME_AHEAD);
        free(lent);
    }
}

static void expect_pattern(const uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(bytes[i], pattern(i, seed), "byte %zu of %zu", i, size);
    }
}

/* Frame number index is what put_plain_frame wrote. */
static void expect_plain(const struct reading *reading, size_t index, size_t header,
                         size_t data, unsigned seed)
{
    cr_assert_lt(index, reading->count, "frame %zu did not end", index);
    static struct bytes message;
    message.size = 0;
    put_varint_field(&message, 1, seed + 1);
    if (header > 8) {
        put_bytes_field(&message, 16, header - 6, seed);
    }
    const struct got *got = &reading->frames[index];
    cr_assert_eq(got->header_size, message.size);
    cr_assert_arr_eq(got->header, message.at, message.size);
    cr_assert_eq(got->data_size, data == SIZE_MAX ? 0 : data);
    if (!reading->discard) {
        expect_pattern(got->data, got->data_size, seed + 1);
    }
}

/* The stream breaks the reader, with these words in its sentence. */
static void expect_broken(struct opt_frame_limits limits, const struct bytes *stream,
                          enum opt_status status, const char *words)
{
    static const size_t steps[] = { 1, 3, 4096 };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(limits);
        feed(reading, stream->at, stream->size, steps[i]);
        cr_assert(reading->broken, "it was accepted");
        const struct opt_error *error = opt_frame_error(reading->reader);
        cr_assert_eq(error->status, status, "%s: %s", opt_status_name(error->status),
                     error->text);
        cr_assert_not_null(strstr(error->text, words), "%s", error->text);
        reading_free(reading);
    }
}

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
    put_plain_frame(&stream, 40, 1000, 1);
    struct reading *reading = reading_new(usual);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 1);
    expect_plain(reading, 0, 40, 1000, 1);
    cr_assert(!reading->frames[0].early);
    cr_assert(!opt_frame_pending(reading->reader));
    reading_free(reading);
}

Test(frame, can_be_split_at_every_byte)
{
    put_plain_frame(&stream, 40, 70, 1);
    put_plain_frame(&stream, 0, SIZE_MAX, 2);
    put_plain_frame(&stream, 20, 0, 3);
    put_plain_frame(&stream, 20, 3, 4);
    for (size_t first = 0; first <= stream.size; first++) {
        for (size_t second = first; second <= stream.size; second++) {
            struct reading *reading = reading_new(usual);
            feed(reading, stream.at, first, SIZE_MAX);
            feed(reading, stream.at + first, second - first, SIZE_MAX);
            feed(reading, stream.at + second, stream.size - second, SIZE_MAX);
            cr_assert_eq(reading->count, 4, "cut at %zu and %zu", first, second);
            expect_plain(reading, 0, 40, 70, 1);
            expect_plain(reading, 1, 0, SIZE_MAX, 2);
            expect_plain(reading, 2, 20, 0, 3);
            expect_plain(reading, 3, 20, 3, 4);
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
        put_plain_frame(&stream, 40, data, 1);
        put_plain_frame(&stream, 20, 10, 2);
        put_plain_frame(&stream, data, 33, 3);
        put_plain_frame(&stream, data, SIZE_MAX, 4);
        put_plain_frame(&stream, 20, 5, 5);
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            struct reading *reading = reading_new(usual);
            feed(reading, stream.at, stream.size, steps[i]);
            cr_assert_eq(reading->count, 5);
            expect_plain(reading, 0, 40, data, 1);
            expect_plain(reading, 1, 20, 10, 2);
            expect_plain(reading, 2, data, 33, 3);
            expect_plain(reading, 3, data, SIZE_MAX, 4);
            expect_plain(reading, 4, 20, 5, 5);
            reading_free(reading);
        }
    }
}

Test(frame, comes_out_of_one_read_with_many_others)
{
    for (unsigned i = 0; i < 100; i++) {
        put_plain_frame(&stream, 20, i % 7, i);
    }
    cr_assert_lt(stream.size, OPT_FRAME_STAGE);
    struct reading *reading = reading_new(usual);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 100);
    for (unsigned i = 0; i < 100; i++) {
        expect_plain(reading, i, 20, i % 7, i);
    }
    reading_free(reading);
}

/* Frames of data bytes each, of which the first has the seed. */
static void put_many(size_t count, size_t data, unsigned seed)
{
    for (unsigned i = 0; i < count; i++) {
        put_plain_frame(&stream, 20, data, seed + i);
    }
}

Test(frame, is_read_with_many_others_once_all_are_short)
{
    uint8_t *base, *lent = malloc(OPT_FRAME_AHEAD);
    size_t space;
    struct reading *reading = reading_new(usual);
    put_many(OPT_FRAME_SHORT_RUN - 1, OPT_FRAME_STAGE, 1);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_eq(space, OPT_FRAME_STAGE);
    start();
    put_many(1, OPT_FRAME_STAGE, OPT_FRAME_SHORT_RUN);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    opt_frame_lend(reading->reader, lent);
    opt_frame_space(reading->reader, &base, &space);
    cr_assert_eq(space, OPT_FRAME_AHEAD);
    cr_assert_eq(base, lent);
    cr_assert(opt_frame_take_back(reading->reader));
    for (unsigned i = 0; i < OPT_FRAME_SHORT_RUN; i++) {
        expect_plain(reading, i, 20, OPT_FRAME_STAGE, i + 1);
    }
    start();
    put_many(1, OPT_FRAME_STAGE + 1, 50);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    expect_plain(reading, OPT_FRAME_SHORT_RUN, 20, OPT_FRAME_STAGE + 1, 50);
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
    put_plain_frame(&stream, 20000, 5000, 42);
    put_many(30, 3000, 43);
    put_plain_frame(&stream, 20000, SIZE_MAX, 73);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(usual);
        feed(reading, stream.at, stream.size, steps[i]);
        cr_assert_eq(reading->count, 73);
        for (unsigned k = 1; k <= 73; k++) {
            size_t data = k <= 20   ? 100
                          : k == 21 ? 100000
                          : k <= 41 ? 30
                          : k == 42 ? 5000
                          : k <= 72 ? 3000
                                    : SIZE_MAX;
            expect_plain(reading, k - 1, k == 42 || k == 73 ? 20000 : 20, data, k);
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
    struct reading *reading = reading_new(usual);
    put_many(OPT_FRAME_SHORT_RUN, 10, 1);
    feed(reading, stream.at, stream.size, SIZE_MAX);
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
    on_header(reading);
    drain(reading);
    cr_assert_eq(reading->count, OPT_FRAME_SHORT_RUN + 30);
    for (unsigned i = 0; i < 30; i++) {
        expect_plain(reading, OPT_FRAME_SHORT_RUN + i, 20, 1000, 20 + i);
    }
    reading_free(reading);
}

Test(frame, of_no_bytes_is_an_empty_message)
{
    put_prefix(&stream, 0);
    put_plain_frame(&stream, 20, 9, 1);
    struct reading *reading = reading_new(usual);
    feed(reading, stream.at, stream.size, SIZE_MAX);
    cr_assert_eq(reading->count, 2);
    cr_assert_eq(reading->frames[0].header_size, 0);
    cr_assert_eq(reading->frames[0].data_size, 0);
    expect_plain(reading, 1, 20, 9, 1);
    reading_free(reading);
}

Test(frame, may_have_a_header_longer_than_the_stage)
{
    static const size_t headers[] = { 4090, 4096, 8191, 8192, 8193, 20000, 65000 };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        for (size_t step = 1; step < 70000; step = step * 9 + 1) {
            start();
            put_plain_frame(&stream, headers[i], 5000, 1);
            put_plain_frame(&stream, 30, 50, 2);
            struct reading *reading = reading_new(usual);
            feed(reading, stream.at, stream.size, step);
            cr_assert_eq(reading->count, 2);
            expect_plain(reading, 0, headers[i], 5000, 1);
            expect_plain(reading, 1, 30, 50, 2);
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
            (size_t)(usual.header_bytes - 5 + (size_t)more); /* tag 2, length 3 */
        put_bytes_field(&message, 16, value, 3);
        cr_assert_eq(message.size, usual.header_bytes + (size_t)more);
        put_data(&message, 10, 4);
        put_frame(&stream, &message);
        struct reading *reading = reading_new(usual);
        feed(reading, stream.at, stream.size, SIZE_MAX);
        cr_assert_eq(reading->count, more ? 0 : 1);
        cr_assert_eq(reading->broken, more == 1);
        reading_free(reading);
    }
}

/* ---------------------------------------------------------------- where data goes */

Test(frame, data_is_read_straight_into_its_place)
{
    put_plain_frame(&stream, 40, 200000, 1);
    struct reading *reading = reading_new(usual);
    feed(reading, stream.at, OPT_FRAME_STAGE, SIZE_MAX);
    cr_assert(reading->open);
    uint8_t *base = NULL;
    size_t space = 0;
    opt_frame_space(reading->reader, &base, &space);
    size_t filled = opt_frame_data_filled(reading->reader);
    cr_assert_gt(filled, 4000);
    cr_assert_eq(base, reading->frames[0].data + filled);
    cr_assert_eq(space, 200000 - filled);
    feed(reading, stream.at + OPT_FRAME_STAGE, stream.size - OPT_FRAME_STAGE, SIZE_MAX);
    expect_plain(reading, 0, 40, 200000, 1);
    cr_assert_eq(opt_frame_moved(reading->reader), filled);
    reading_free(reading);
}

Test(frame, data_without_a_place_is_thrown_away)
{
    static const size_t steps[] = { 1, 1000, SIZE_MAX };
    put_plain_frame(&stream, 40, 30000, 1);
    put_plain_frame(&stream, 40, 10, 2);
    put_plain_frame(&stream, 40, 0, 3);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(usual);
        reading->discard = true;
        feed(reading, stream.at, stream.size, steps[i]);
        cr_assert_eq(reading->count, 3);
        expect_plain(reading, 1, 40, 10, 2);
        cr_assert_eq(opt_frame_moved(reading->reader), 0);
        reading_free(reading);
    }
}

/* id, data, body, more: what another encoder might send. */
static void put_unordered(size_t data, size_t header)
{
    put_varint_field(&message, 1, 77);
    put_data(&message, data, 5);
    put_bytes_field(&message, 16, header, 6);
    put_varint_field(&message, 2, 30000);
    put_frame(&stream, &message);
}

static void expect_unordered(const struct reading *reading, size_t index, size_t data,
                             size_t header)
{
    static struct bytes expected;
    expected.size = 0;
    put_varint_field(&expected, 1, 77);
    put_bytes_field(&expected, 16, header, 6);
    put_varint_field(&expected, 2, 30000);
    const struct got *got = &reading->frames[index];
    cr_assert(got->early);
    cr_assert_eq(got->header_size, expected.size);
    cr_assert_arr_eq(got->header, expected.at, expected.size);
    cr_assert_eq(got->data_size, data);
    expect_pattern(got->data, data, 5);
}

Test(frame, data_before_other_fields_goes_where_the_reader_is_told)
{
    static const size_t sizes[] = { 0, 1, 100, 4000, 4080, 4096, 5000, 150000 };
    static const size_t steps[] = { 1, 777, 4096, SIZE_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
            start();
            put_unordered(sizes[i], 50);
            put_plain_frame(&stream, 20, 30, 9);
            message.size = 0;
            put_unordered(10, 6000);
            struct reading *reading = reading_new(usual);
            feed(reading, stream.at, stream.size, steps[j]);
            cr_assert_eq(reading->count, 3, "%zu bytes by %zu", sizes[i], steps[j]);
            expect_unordered(reading, 0, sizes[i], 50);
            expect_plain(reading, 1, 20, 30, 9);
            expect_unordered(reading, 2, 10, 6000);
            cr_assert_leq(opt_frame_moved(reading->reader),
                          (size_t)3 * OPT_FRAME_STAGE);
            reading_free(reading);
        }
    }
}

Test(frame, data_first_can_be_split_at_every_byte)
{
    put_data(&message, 60, 5);
    put_varint_field(&message, 1, 7);
    put_frame(&stream, &message);
    put_plain_frame(&stream, 20, 30, 9);
    for (size_t cut = 0; cut <= stream.size; cut++) {
        struct reading *reading = reading_new(usual);
        feed(reading, stream.at, cut, SIZE_MAX);
        feed(reading, stream.at + cut, stream.size - cut, SIZE_MAX);
        cr_assert_eq(reading->count, 2);
        cr_assert_eq(reading->frames[0].header_size, 2);
        cr_assert_eq(reading->frames[0].data_size, 60);
        expect_pattern(reading->frames[0].data, 60, 5);
        expect_plain(reading, 1, 20, 30, 9);
        reading_free(reading);
    }
}

/* Whoever reads does not want it, or sees only later that it belongs elsewhere. */
Test(frame, early_data_is_thrown_away_or_moved_as_it_is_told)
{
    static const size_t sizes[] = { 0, 1, 100, 4096, 150000 };
    static const size_t steps[] = { 1, 777, SIZE_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
            for (int discard = 0; discard < 2; discard++) {
                start();
                put_unordered(sizes[i], 5000);
                put_plain_frame(&stream, 20, SIZE_MAX, 9);
                struct reading *reading = reading_new(usual);
                reading->discard = discard == 1;
                reading->elsewhere = true;
                feed(reading, stream.at, stream.size, steps[j]);
                cr_assert_eq(reading->count, 2);
                if (!reading->discard) {
                    expect_unordered(reading, 0, sizes[i], 5000);
                }
                expect_plain(reading, 1, 20, SIZE_MAX, 9);
                cr_assert_eq(opt_frame_taken(reading->reader), 0);
                reading_free(reading);
            }
        }
    }
}

/* Nothing is taken for what a peer announces, or sends, before the caller agrees. */
Test(frame, takes_no_memory_that_it_was_not_given)
{
    struct opt_frame_limits wide = { .frame_bytes = 1 << 30, .header_bytes = 64 << 10 };
    struct opt_frame_reader *reader = opt_frame_reader_new(wide);
    uint8_t *base = NULL;
    size_t space = 0;
    put_prefix(&stream, 1 << 30);
    put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    put_varint(&stream, (1 << 30) - 20);
    opt_frame_space(reader, &base, &space);
    memcpy(base, stream.at, stream.size);
    opt_frame_received(reader, stream.size);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_EARLY);
    cr_assert_eq(opt_frame_data_size(reader), (1 << 30) - 20);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_EARLY);
    cr_assert_eq(opt_frame_taken(reader), 0);
    opt_frame_reader_free(reader);

    start();
    put_prefix(&stream, 60000);
    put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    put_varint(&stream, 50000);
    reader = opt_frame_reader_new(wide);
    opt_frame_space(reader, &base, &space);
    memset(base, 1, space);
    memcpy(base, stream.at, stream.size);
    opt_frame_received(reader, space);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_MORE); /* the prefix gives room */
    opt_frame_space(reader, &base, &space);
    memset(base, 1, space);
    opt_frame_received(reader, space);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_LONG);
    cr_assert_eq(opt_frame_taken(reader), 0);
    cr_assert_eq(opt_frame_wanted(reader), (size_t)2 * OPT_FRAME_STAGE);
    cr_assert(opt_frame_grow(reader));
    cr_assert_eq(opt_frame_taken(reader), (size_t)2 * OPT_FRAME_STAGE);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_MORE);
    opt_frame_reader_free(reader);
}

/* ---------------------------------------------------------------- what is refused */

Test(frame, longer_than_the_limit_is_refused_by_its_length_alone)
{
    put_prefix(&stream, usual.frame_bytes + 1);
    expect_broken(usual, &stream, OPT_RESOURCE_EXHAUSTED,
                  "1048577 bytes was announced; the limit is 1048576");
    start();
    put_prefix(&stream, UINT32_MAX);
    expect_broken(usual, &stream, OPT_RESOURCE_EXHAUSTED, "4294967295");
}

Test(frame, header_past_the_limit_is_refused_before_it_arrives)
{
    put_prefix(&stream, 500000);
    put_varint_field(&stream, 1, 1);
    put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    put_varint(&stream, 400000);
    expect_broken(usual, &stream, OPT_RESOURCE_EXHAUSTED, "the limit is 65536");
}

Test(frame, data_given_twice_is_refused)
{
    put_data(&message, 5, 1);
    put_varint_field(&message, 1, 1);
    put_data(&message, 5, 1);
    put_frame(&stream, &message);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "given twice");
    start();
    put_data(&message, 5, 1);
    put_data(&message, 5, 1);
    put_varint_field(&message, 1, 1);
    put_frame(&stream, &message);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "given twice");
}

Test(frame, field_that_reaches_past_its_end_is_refused)
{
    put_prefix(&stream, 10);
    put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    put_varint(&stream, 8);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT,
                  "field 16 of a frame announces 8 bytes, but only 7 are left");
    start();
    put_prefix(&stream, 100);
    put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    put_varint(&stream, UINT64_MAX);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "18446744073709551615 bytes");
    start();
    put_prefix(&stream, 5);
    put_varint(&stream, 3 << 3 | OPT_FIELD_FIXED64);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "announces 8 bytes");
}

Test(frame, that_ends_inside_a_tag_or_length_is_refused)
{
    put_prefix(&stream, 1);
    stream.at[stream.size++] = 0xFA;
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "ends inside the head");
    start();
    put_prefix(&stream, 3);
    put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    stream.at[stream.size++] = 0x80;
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "ends inside the head");
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
        put_prefix(&stream, sizeof(cases[i].bytes));
        memcpy(stream.at + stream.size, cases[i].bytes, sizeof(cases[i].bytes));
        stream.size += sizeof(cases[i].bytes);
        expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, cases[i].words);
    }
    start();
    put_varint_field(&message, OPT_FRAME_DATA_FIELD, 5);
    put_frame(&stream, &message);
    expect_broken(usual, &stream, OPT_INVALID_ARGUMENT, "wire type 0; it must be 2");
}

Test(frame, is_pending_from_its_first_byte_to_its_last)
{
    put_plain_frame(&stream, 20, 10, 1);
    struct reading *reading = reading_new(usual);
    cr_assert(!opt_frame_pending(reading->reader));
    for (size_t i = 0; i < stream.size; i++) {
        feed(reading, stream.at + i, 1, 1);
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
        put_varint_field(&message, 1, 300);
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
            stream.at[head + j] = pattern(j, 3);
        }
        stream.size = head + sizes[i];
        struct reading *reading = reading_new(usual);
        feed(reading, stream.at, stream.size, SIZE_MAX);
        cr_assert_eq(reading->count, 1);
        cr_assert_eq(reading->frames[0].header_size, message.size);
        cr_assert_eq(reading->frames[0].data_size, sizes[i]);
        expect_pattern(reading->frames[0].data, sizes[i], 3);
        cr_assert(!reading->frames[0].early);
        reading_free(reading);
    }
}

/* ---------------------------------------------------------------- anything */

static uint64_t random_state;

static size_t random_below(size_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % limit;
}

Test(frame, streams_of_random_frames_arrive_whole)
{
    enum { STREAMS = 300, FRAMES = 8 };
    for (unsigned seed = 0; seed < STREAMS; seed++) {
        random_state = seed;
        start();
        struct {
            size_t header, data;
            bool unordered;
        } frames[FRAMES];
        for (unsigned i = 0; i < FRAMES; i++) {
            frames[i].header = random_below(random_below(4) == 0 ? 6000 : 60) + 9;
            frames[i].data = random_below(random_below(4) == 0 ? 9000 : 200);
            frames[i].unordered = random_below(3) == 0;
            if (frames[i].unordered) {
                message.size = 0;
                put_unordered(frames[i].data, frames[i].header);
            } else {
                put_plain_frame(&stream, frames[i].header, frames[i].data, i);
            }
        }
        struct reading *reading = reading_new(usual);
        size_t at = 0;
        while (at < stream.size) {
            size_t n = random_below(random_below(2) == 0 ? 20 : 9000) + 1;
            n = n < stream.size - at ? n : stream.size - at;
            feed(reading, stream.at + at, n, SIZE_MAX);
            at += n;
        }
        cr_assert_eq(reading->count, FRAMES, "seed %u", seed);
        for (unsigned i = 0; i < FRAMES; i++) {
            if (frames[i].unordered) {
                expect_unordered(reading, i, frames[i].data, frames[i].header);
            } else {
                expect_plain(reading, i, frames[i].header, frames[i].data, i);
            }
        }
        reading_free(reading);
    }
}

Test(frame, damaged_streams_end_or_break_but_never_crash)
{
    enum { STREAMS = 20000 };
    for (unsigned seed = 0; seed < STREAMS; seed++) {
        random_state = seed;
        start();
        put_plain_frame(&stream, 30, 100, 1);
        put_unordered(50, 20);
        put_plain_frame(&stream, 20, SIZE_MAX, 2);
        for (size_t i = random_below(4); i < 4; i++) {
            stream.at[random_below(stream.size)] = (uint8_t)random_below(256);
        }
        struct reading *reading = reading_new(usual);
        feed(reading, stream.at, stream.size, random_below(300) + 1);
        cr_assert_leq(reading->count, 256);
        reading_free(reading);
    }
}
