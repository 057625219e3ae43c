/* Where the data of frames goes, in what order ever their fields come. */
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

TestSuite(frame_places, .init = start);

/* ---------------------------------------------------------------- where data goes */

Test(frame_places, data_is_read_straight_into_its_place)
{
    bytes_put_plain_frame(&stream, 40, 200000, 1);
    struct reading *reading = reading_new(frame_usual);
    reading_feed(reading, stream.at, OPT_FRAME_STAGE, SIZE_MAX);
    cr_assert(reading->open);
    uint8_t *base = NULL;
    size_t space = 0;
    opt_frame_space(reading->reader, &base, &space);
    size_t filled = opt_frame_data_filled(reading->reader);
    cr_assert_gt(filled, 4000);
    cr_assert_eq(base, reading->frames[0].data + filled);
    cr_assert_eq(space, 200000 - filled);
    reading_feed(reading, stream.at + OPT_FRAME_STAGE, stream.size - OPT_FRAME_STAGE,
                 SIZE_MAX);
    reading_expect_plain(reading, 0, 40, 200000, 1);
    cr_assert_eq(opt_frame_moved(reading->reader), filled);
    reading_free(reading);
}

Test(frame_places, data_without_a_place_is_thrown_away)
{
    static const size_t steps[] = { 1, 1000, SIZE_MAX };
    bytes_put_plain_frame(&stream, 40, 30000, 1);
    bytes_put_plain_frame(&stream, 40, 10, 2);
    bytes_put_plain_frame(&stream, 40, 0, 3);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reading *reading = reading_new(frame_usual);
        reading->discard = true;
        reading_feed(reading, stream.at, stream.size, steps[i]);
        cr_assert_eq(reading->count, 3);
        reading_expect_plain(reading, 1, 40, 10, 2);
        cr_assert_eq(opt_frame_moved(reading->reader), 0);
        reading_free(reading);
    }
}

/* id, data, body, more: what another encoder might send. */
static void put_unordered(size_t data, size_t header)
{
    bytes_put_number(&message, 1, 77);
    bytes_put_data(&message, data, 5);
    bytes_put_field(&message, 16, header, 6);
    bytes_put_number(&message, 2, 30000);
    bytes_put_frame(&stream, &message);
}

static void expect_unordered(const struct reading *reading, size_t index, size_t data,
                             size_t header)
{
    static struct bytes expected;
    expected.size = 0;
    bytes_put_number(&expected, 1, 77);
    bytes_put_field(&expected, 16, header, 6);
    bytes_put_number(&expected, 2, 30000);
    const struct got *got = &reading->frames[index];
    cr_assert(got->early);
    cr_assert_eq(got->header_size, expected.size);
    cr_assert_arr_eq(got->header, expected.at, expected.size);
    cr_assert_eq(got->data_size, data);
    bytes_expect_pattern(got->data, data, 5);
}

Test(frame_places, data_before_other_fields_goes_where_the_reader_is_told)
{
    static const size_t sizes[] = { 0, 1, 100, 4000, 4080, 4096, 5000, 150000 };
    static const size_t steps[] = { 1, 777, 4096, SIZE_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
            start();
            put_unordered(sizes[i], 50);
            bytes_put_plain_frame(&stream, 20, 30, 9);
            message.size = 0;
            put_unordered(10, 6000);
            struct reading *reading = reading_new(frame_usual);
            reading_feed(reading, stream.at, stream.size, steps[j]);
            cr_assert_eq(reading->count, 3, "%zu bytes by %zu", sizes[i], steps[j]);
            expect_unordered(reading, 0, sizes[i], 50);
            reading_expect_plain(reading, 1, 20, 30, 9);
            expect_unordered(reading, 2, 10, 6000);
            cr_assert_leq(opt_frame_moved(reading->reader),
                          (size_t)3 * OPT_FRAME_STAGE);
            reading_free(reading);
        }
    }
}

Test(frame_places, data_first_can_be_split_at_every_byte)
{
    bytes_put_data(&message, 60, 5);
    bytes_put_number(&message, 1, 7);
    bytes_put_frame(&stream, &message);
    bytes_put_plain_frame(&stream, 20, 30, 9);
    for (size_t cut = 0; cut <= stream.size; cut++) {
        struct reading *reading = reading_new(frame_usual);
        reading_feed(reading, stream.at, cut, SIZE_MAX);
        reading_feed(reading, stream.at + cut, stream.size - cut, SIZE_MAX);
        cr_assert_eq(reading->count, 2);
        cr_assert_eq(reading->frames[0].header_size, 2);
        cr_assert_eq(reading->frames[0].data_size, 60);
        bytes_expect_pattern(reading->frames[0].data, 60, 5);
        reading_expect_plain(reading, 1, 20, 30, 9);
        reading_free(reading);
    }
}

/* Whoever reads does not want it, or sees only later that it belongs elsewhere. */
Test(frame_places, early_data_is_thrown_away_or_moved_as_it_is_told)
{
    static const size_t sizes[] = { 0, 1, 100, 4096, 150000 };
    static const size_t steps[] = { 1, 777, SIZE_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
            for (int discard = 0; discard < 2; discard++) {
                start();
                put_unordered(sizes[i], 5000);
                bytes_put_plain_frame(&stream, 20, SIZE_MAX, 9);
                struct reading *reading = reading_new(frame_usual);
                reading->discard = discard == 1;
                reading->elsewhere = true;
                reading_feed(reading, stream.at, stream.size, steps[j]);
                cr_assert_eq(reading->count, 2);
                if (!reading->discard) {
                    expect_unordered(reading, 0, sizes[i], 5000);
                }
                reading_expect_plain(reading, 1, 20, SIZE_MAX, 9);
                cr_assert_eq(opt_frame_taken(reading->reader), 0);
                reading_free(reading);
            }
        }
    }
}

/* Nothing is taken for what a peer announces, or sends, before the caller agrees. */
Test(frame_places, takes_no_memory_that_it_was_not_given)
{
    struct opt_frame_limits wide = { .frame_bytes = 1 << 30, .header_bytes = 64 << 10 };
    struct opt_frame_reader *reader = opt_frame_reader_new(wide);
    uint8_t *base = NULL;
    size_t space = 0;
    bytes_put_prefix(&stream, 1 << 30);
    bytes_put_varint(&stream, OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(&stream, (1 << 30) - 20);
    opt_frame_space(reader, &base, &space);
    memcpy(base, stream.at, stream.size);
    opt_frame_received(reader, stream.size);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_EARLY);
    cr_assert_eq(opt_frame_data_size(reader), (1 << 30) - 20);
    cr_assert_eq(opt_frame_next(reader), OPT_FRAME_EARLY);
    cr_assert_eq(opt_frame_taken(reader), 0);
    opt_frame_reader_free(reader);

    start();
    bytes_put_prefix(&stream, 60000);
    bytes_put_varint(&stream, 16 << 3 | OPT_FIELD_BYTES);
    bytes_put_varint(&stream, 50000);
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

/* ---------------------------------------------------------------- anything */

static uint64_t random_state;

static size_t random_below(size_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % limit;
}

Test(frame_places, streams_of_random_frames_arrive_whole)
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
                bytes_put_plain_frame(&stream, frames[i].header, frames[i].data, i);
            }
        }
        struct reading *reading = reading_new(frame_usual);
        size_t at = 0;
        while (at < stream.size) {
            size_t n = random_below(random_below(2) == 0 ? 20 : 9000) + 1;
            n = n < stream.size - at ? n : stream.size - at;
            reading_feed(reading, stream.at + at, n, SIZE_MAX);
            at += n;
        }
        cr_assert_eq(reading->count, FRAMES, "seed %u", seed);
        for (unsigned i = 0; i < FRAMES; i++) {
            if (frames[i].unordered) {
                expect_unordered(reading, i, frames[i].data, frames[i].header);
            } else {
                reading_expect_plain(reading, i, frames[i].header, frames[i].data, i);
            }
        }
        reading_free(reading);
    }
}

Test(frame_places, damaged_streams_end_or_break_but_never_crash)
{
    enum { STREAMS = 20000 };
    for (unsigned seed = 0; seed < STREAMS; seed++) {
        random_state = seed;
        start();
        bytes_put_plain_frame(&stream, 30, 100, 1);
        put_unordered(50, 20);
        bytes_put_plain_frame(&stream, 20, SIZE_MAX, 2);
        for (size_t i = random_below(4); i < 4; i++) {
            stream.at[random_below(stream.size)] = (uint8_t)random_below(256);
        }
        struct reading *reading = reading_new(frame_usual);
        reading_feed(reading, stream.at, stream.size, random_below(300) + 1);
        cr_assert_leq(reading->count, 256);
        reading_free(reading);
    }
}
