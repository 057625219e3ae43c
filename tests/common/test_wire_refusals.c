/* What the wire refuses, and that it says why. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "common/wire.h"

enum { ROOM = 1 << 20 };
static uint8_t packed[ROOM];
static struct opt_error error;

/* ---------------------------------------------------------------- values */

static void expect_request_refused(const uint8_t *bytes, size_t size, size_t data_size,
                                   enum opt_status expected, const char *words)
{
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request request;
    memset(&request, 0x5A, sizeof(request));
    struct opt_request before = request;
    enum opt_status status =
        opt_request_read(bytes, size, data_size, &arena, &request, &error);
    cr_assert_eq(status, expected, "\"%s\": %s", words,
                 status == OPT_OK ? "accepted" : error.text);
    cr_assert_eq(error.status, expected);
    cr_assert_not_null(strstr(error.text, words), "\"%s\" is not in \"%s\"", words,
                       error.text);
    before.id = request.id;
    cr_assert_arr_eq((const char *)&before, (const char *)&request, sizeof(request));
    opt_arena_fini(&arena);
}

static void expect_refused(const struct opt_request *request, size_t data_size,
                           const char *words)
{
    size_t size = opt_request_pack(request, packed, sizeof(packed));
    cr_assert_leq(size, sizeof(packed));
    expect_request_refused(packed, size, data_size, OPT_INVALID_ARGUMENT, words);
}

static char *long_name(size_t size)
{
    char *name = malloc(size + 1);
    memset(name, 'n', size);
    name[size] = '\0';
    return name;
}

Test(wire, bad_names_are_refused)
{
    char *just_right = long_name(255);
    char *too_long = long_name(256);
    static const struct {
        const char *name, *words;
    } cases[] = {
        { "", "model name is empty" },
        { "a\nb", "control character (0x0A) at byte 1" },
        { "a\x7F", "control character (0x7F)" },
        { "a\xC2\x85", "control character (0x85) at byte 1" },
        { "\xC0\x80", "not UTF-8: byte 0 is 0xC0" }, /* overlong NUL */
        { "ab\xE0\x80\xAF", "not UTF-8: byte 2" },   /* overlong */
        { "\xED\xA0\x80", "not UTF-8: byte 0" },     /* surrogate */
        { "\xF4\x90\x80\x80", "not UTF-8: byte 0" }, /* past U+10FFFF */
        { "\xF5\x80\x80\x80", "not UTF-8: byte 0" },
        { "\x80", "not UTF-8: byte 0" },
        { "a\xE2\x82", "not UTF-8: byte 1" },        /* cut */
        { "\xF0\x8F\xBF\xBF", "not UTF-8: byte 0" }, /* overlong */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect_refused(&(struct opt_request){ .id = 1,
                                              .message = OPT_MESSAGE_OPEN,
                                              .body.open.model = cases[i].name },
                       0, cases[i].words);
    }
    struct opt_request open = { .id = 1,
                                .message = OPT_MESSAGE_OPEN,
                                .body.open.model = too_long };
    expect_refused(&open, 0, "256 bytes; it must have 1 to 255");
    open.body.open.model = just_right;
    size_t size = opt_request_pack(&open, packed, sizeof(packed));
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &open, &error), OPT_OK);
    cr_assert_str_eq(open.body.open.model, just_right);
    opt_arena_fini(&arena);
    free(just_right);
    free(too_long);
}

Test(wire, a_name_with_a_nul_inside_is_refused_not_cut)
{
    struct opt_request open = { .id = 1,
                                .message = OPT_MESSAGE_OPEN,
                                .body.open.model = "abcdef" };
    size_t size = opt_request_pack(&open, packed, sizeof(packed));
    uint8_t *name = memchr(packed, 'a', size);
    name[3] = '\0';
    expect_request_refused(packed, size, 0, OPT_INVALID_ARGUMENT,
                           "OpenModel.model has a control character (0x00) at byte 3");
}

static const struct opt_segment one_block[] = { { .count = OPT_BLOCK } };

static struct opt_request a_push(const struct opt_segment *segments, size_t count)
{
    return (struct opt_request){
        .id = 1,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .sequence = 1, .segments = segments, .segment_count = count }
    };
}

Test(wire, segments_must_fit_data)
{
    static const struct opt_segment segments[] = {
        { .tensor = 0, .offset = 0, .count = 16384 },
        { .tensor = 1, .offset = 0, .count = 100 },
    };
    struct opt_request push = a_push(segments, 2);
    expect_refused(&push, 65536 + 396,
                   "push: segment 1 names 100 elements but data ends "
                   "after 65932 bytes");
    expect_refused(&push, 65536 + 404,
                   "data has 65940 bytes but its segments name only "
                   "65936");
    expect_refused(&push, 9000,
                   "push: segment 0 names 16384 elements but data ends after "
                   "9000 bytes");
    static const struct opt_segment open[] = { { .count = 0 },
                                               { .tensor = 1, .count = 5 } };
    push = a_push(open, 2);
    expect_refused(&push, 19, "data ends after 19 bytes");
    expect_refused(&push, 25, "not a whole number of fp32 elements");
    push = a_push(NULL, 0);
    expect_refused(&push, 4, "data has 4 bytes but its segments name only 0");

    static const struct opt_segment inside[] = { { .offset = 16383, .count = 1 } };
    push = a_push(inside, 1);
    expect_refused(&push, 4, "starts at element 16383; it must be a multiple of 16384");
    static const struct opt_segment huge[] = { { .count = UINT64_MAX / 4 + 2 } };
    push = a_push(huge, 1);
    expect_refused(&push, 4, "a tensor has at most 1099511627776");
    static const struct opt_segment wraps[] = { { .offset = UINT64_MAX - 16383,
                                                  .count = 16384 } };
    push = a_push(wraps, 1);
    expect_refused(&push, 65536, "a tensor has at most");
    static const struct opt_segment past[] = { { .offset = (UINT64_C(1) << 40) - 16384,
                                                 .count = 16385 } };
    push = a_push(past, 1);
    expect_refused(&push, 65540, "a tensor has at most");

    struct opt_segment *many = calloc(OPT_SEGMENTS_MAX + 1, sizeof(*many));
    push = a_push(many, OPT_SEGMENTS_MAX + 1);
    expect_refused(&push, 0, "4097 segments in one frame; at most 4096");
    free(many);
}

Test(wire, places_must_fit_segments)
{
    static const uint64_t places[] = { 0, 64, 128 };
    static const uint64_t between[] = { 0, 96 };
    static const uint64_t last[] = { UINT64_MAX };
    static const struct opt_segment two[] = { { .count = OPT_BLOCK },
                                              { .tensor = 1, .count = 1 } };
    struct opt_request push = a_push(two, 2);
    push.body.push.places = places;
    expect_refused(&push, 8, "push: values are given by place, but 8 bytes came");
    expect_refused(&push, 65540, "push: values are given by place, but 65540 bytes");
    push.body.push.places = between;
    expect_refused(&push, 0,
                   "push: the place of segment 1 is byte 96; it must be a multiple "
                   "of 64");
    push = a_push(one_block, 1);
    push.body.push.places = last;
    expect_refused(&push, 0, "byte 18446744073709551615; it must be a multiple of 64");

    static const uint32_t row = 7;
    static const struct opt_segment open[] = { { .count = 1 }, { .tensor = 1 } };
    static const struct opt_segment rows[] = { { .rows = &row, .row_count = 1 } };
    push = a_push(open, 2);
    push.body.push.places = places;
    expect_refused(&push, 0, "segment 1 is given by place; it must say how many");
    push = a_push(rows, 1);
    push.body.push.places = places;
    expect_refused(&push, 0, "segment 0 is given by place; it must say how many");

    static const struct opt_segment past[] = { { .count = UINT64_C(1) << 62 } };
    push = a_push(past, 1);
    push.body.push.places = places;
    expect_refused(&push, 0, "a tensor has at most 1099511627776");

    struct opt_request both = { .id = 1, .message = OPT_MESSAGE_PUSH_PULL };
    both.body.push_pull.push = a_push(two, 2).body.push;
    both.body.push_pull.push.places = between;
    expect_refused(&both, 0, "the place of segment 1 is byte 96");
}

Test(wire, a_request_releases_as_many_as_allowed_and_no_more)
{
    uint64_t ids[OPT_RELEASED_MAX + 1];
    for (size_t i = 0; i <= OPT_RELEASED_MAX; i++) {
        ids[i] = UINT64_MAX - i;
    }
    struct opt_request request = { .id = 1,
                                   .message = OPT_MESSAGE_HEARTBEAT,
                                   .released = ids,
                                   .released_count = OPT_RELEASED_MAX + 1 };
    expect_refused(&request, 0, "a request releases 65 others; at most 64");
    request.released_count = OPT_RELEASED_MAX;
    size_t size = opt_request_pack(&request, packed, sizeof(packed));
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &request, &error), OPT_OK,
                 "%s", error.text);
    cr_assert_eq(request.released_count, OPT_RELEASED_MAX);
    cr_assert_arr_eq(request.released, ids, OPT_RELEASED_MAX * sizeof(ids[0]));
    opt_arena_fini(&arena);
}

Test(wire, numbers_out_of_range_are_refused)
{
    struct opt_request push = a_push(one_block, 1);
    push.id = 0;
    expect_refused(&push, 65536, "id 0");
    push = a_push(one_block, 1);
    push.body.push.sequence = 0;
    expect_refused(&push, 65536, "sequences count from 1");
    push = a_push(one_block, 1);
    push.body.push.dtype = (enum opt_dtype)3;
    expect_refused(&push, 65536, "Push.dtype is 3; it must be 0 to 2");
    push.body.push.dtype = (enum opt_dtype) - 1;
    expect_refused(&push, 65536, "Push.dtype");
    push.body.push.dtype = OPT_FP32;
    push.body.push.form = (enum opt_form)2;
    expect_refused(&push, 65536, "Push.form is 2; it must be 0 to 1");

    struct opt_request pull = { .id = 1, .message = OPT_MESSAGE_PULL };
    pull.body.pull.view = (enum opt_view)3;
    expect_refused(&pull, 0, "Pull.view is 3");
    pull.body.pull.view = OPT_VIEW_SLOT;
    expect_refused(&pull, 0, "slot name is empty");
    pull.body.pull.view = OPT_VIEW_EVAL;
    pull.body.pull.slot = "exp_avg";
    expect_refused(&pull, 0, "the view is not SLOT");
    pull.body.pull.slot = "";
    pull.body.pull.dtype = (enum opt_dtype)3;
    expect_refused(&pull, 0, "Pull.dtype is 3");

    struct opt_request both = { .id = 1, .message = OPT_MESSAGE_PUSH_PULL };
    both.body.push_pull.push.sequence = 1;
    both.body.push_pull.push.model = 1;
    both.body.push_pull.pull.model = 2;
    both.body.push_pull.has_pull = true;
    expect_refused(&both, 0, "the push is for model 1, the pull for model 2");
    both.body.push_pull.has_pull = false;
    both.body.push_pull.push.last = true;
    expect_refused(&both, 0, "no pull in the last frame");

    struct opt_request hello = { .id = 1, .message = OPT_MESSAGE_HELLO };
    expect_refused(&hello, 0, "Hello.session is 0");
    hello.body.hello.session = 1;
    hello.body.hello.incarnation = (uint64_t)INT64_MAX + 1;
    expect_refused(&hello, 0, "Hello.incarnation is 9223372036854775808");
    hello.body.hello.incarnation = 0;
    hello.body.hello.max_frame_bytes = OPT_ANSWER_BYTES - 1;
    expect_refused(&hello, 0, "Hello.max_frame_bytes is 5242879");
}

static struct opt_request a_create(void)
{
    return (struct opt_request){ .id = 1,
                                 .message = OPT_MESSAGE_CREATE,
                                 .body.create = { .model = "m",
                                                  .specification.rule = "sgd" } };
}

Test(wire, bad_specifications_are_refused)
{
    struct opt_request create = a_create();
    create.body.create.specification.rule = "";
    expect_refused(&create, 0, "no optimizer is specified");
    create = a_create();
    create.body.create.specification.expression = "sgd";
    expect_refused(&create, 0, "by an expression and in parts");

    struct opt_wire_option options[OPT_OPTIONS_MAX + 1];
    char names[OPT_OPTIONS_MAX + 1][16];
    for (size_t i = 0; i <= OPT_OPTIONS_MAX; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "option%zu", i);
        options[i] = (struct opt_wire_option){ .name = names[i], .number = 1 };
    }
    create = a_create();
    create.body.create.specification.options = options;
    create.body.create.specification.option_count = OPT_OPTIONS_MAX + 1;
    expect_refused(&create, 0, "65 options; at most 64");
    create.body.create.specification.option_count = 2;
    options[1].name = "option0";
    expect_refused(&create, 0, "option option0 is given twice");
    create.body.create.specification.option_count = 1;
    options[0].number = (double)NAN;
    expect_refused(&create, 0, "option option0 is not a number");
    options[0] =
        (struct opt_wire_option){ .name = "lr", .kind = OPT_VALUE_WORD, .word = "" };
    expect_refused(&create, 0, "Option.word is empty");
    create = a_create();
    create.body.create.consistency.mode = (enum opt_mode)3;
    expect_refused(&create, 0, "Consistency.mode is 3");
    create = a_create();
    create.body.create.consistency.atomic = (enum opt_atomic)3;
    expect_refused(&create, 0, "Consistency.atomic is 3");
    create = a_create();
    create.body.create.durability = (enum opt_durability)4;
    expect_refused(&create, 0, "CreateModel.durability is 4");
    create = a_create();
    create.body.create.consistency.delay_compensation = -1;
    expect_refused(&create, 0, "Consistency.delay_compensation is -1");
    create.body.create.consistency.delay_compensation = (double)INFINITY;
    expect_refused(&create, 0, "Consistency.delay_compensation is inf");
    create = a_create();
    create.body.create.consistency.loss = (enum opt_loss)3;
    expect_refused(&create, 0, "Consistency.loss is 3");
    create = a_create();
    struct opt_wire_group group = { .pattern = "" };
    create.body.create.specification.groups = &group;
    create.body.create.specification.group_count = 1;
    expect_refused(&create, 0, "TensorGroup.pattern is empty");
}

/* ---------------------------------------------------------------- raw bytes */

struct raw {
    size_t size;
    uint8_t at[512];
};

static void put(struct raw *raw, uint32_t number, enum opt_field_type type,
                uint64_t value)
{
    raw->size += opt_varint_write((uint64_t)number << 3 | type, raw->at + raw->size);
    raw->size += opt_varint_write(value, raw->at + raw->size);
}

static void put_varint(struct raw *raw, uint64_t value)
{
    raw->size += opt_varint_write(value, raw->at + raw->size);
}

static void put_message(struct raw *raw, uint32_t number, const struct raw *message)
{
    put(raw, number, OPT_FIELD_BYTES, message->size);
    memcpy(raw->at + raw->size, message->at, message->size);
    raw->size += message->size;
}

Test(wire, a_request_has_one_body_that_is_known)
{
    struct raw empty = { 0 };
    struct raw raw = { 0 };
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT, "has no body");
    struct raw two = raw;
    put_message(&two, 14, &empty);
    put_message(&two, 22, &empty);
    expect_request_refused(two.at, two.size, 0, OPT_INVALID_ARGUMENT,
                           "Request has a second body, heartbeat");
    struct raw same = raw;
    put_message(&same, 14, &empty);
    put_message(&same, 14, &empty);
    expect_request_refused(same.at, same.size, 0, OPT_INVALID_ARGUMENT, "second body");
    struct raw unknown = raw;
    put_message(&unknown, 99, &empty);
    expect_request_refused(unknown.at, unknown.size, 0, OPT_UNIMPLEMENTED,
                           "body is field 99");
    expect_request_refused(raw.at, 0, 0, OPT_INVALID_ARGUMENT, "id 0");
    struct raw data = raw;
    put_message(&data, 2047, &empty);
    expect_request_refused(data.at, data.size, 0, OPT_INVALID_ARGUMENT,
                           "data is given twice");
}

Test(wire, the_id_is_known_even_if_the_rest_is_not)
{
    struct raw raw = { 0 };
    struct raw bad = { .size = 1, .at = { 0xFF } };
    put(&raw, 1, OPT_FIELD_VARINT, 12345);
    put_message(&raw, 16, &bad);
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request request;
    cr_assert_eq(opt_request_read(raw.at, raw.size, 0, &arena, &request, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_eq(request.id, 12345);
    struct opt_reply reply;
    cr_assert_eq(opt_reply_read(raw.at, raw.size, 0, &arena, &reply, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_eq(reply.id, 12345);
    opt_arena_fini(&arena);
}

Test(wire, unknown_fields_are_ignored)
{
    struct raw hello = { 0 };
    put(&hello, 1, OPT_FIELD_VARINT, 1);
    hello.at[hello.size++] = 3 << 3 | OPT_FIELD_FIXED64;
    memset(hello.at + hello.size, 7, 8);
    hello.size += 8;
    put(&hello, 77, OPT_FIELD_VARINT, 5);
    struct raw raw = { 0 };
    put_message(&raw, 10, &hello); /* the body before the id */
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put(&raw, 500, OPT_FIELD_VARINT, 5);
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request request;
    cr_assert_eq(opt_request_read(raw.at, raw.size, 0, &arena, &request, &error),
                 OPT_OK, "%s", error.text);
    cr_assert_eq(request.id, 5);
    cr_assert_eq(request.message, OPT_MESSAGE_HELLO);
    cr_assert_eq(request.body.hello.session, 0x0707070707070707);
    cr_assert_str_eq(request.body.hello.worker, "");
    opt_arena_fini(&arena);
}

Test(wire, what_protobuf_would_bend_is_refused)
{
    struct raw wait = { 0 };
    put(&wait, 1, OPT_FIELD_VARINT, (UINT64_C(1) << 32) + 3); /* would become 3 */
    struct raw raw = { 0 };
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put_message(&raw, 19, &wait);
    expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT,
                           "Wait.model is 4294967299; it must fit 32 bits");

    struct raw push = { 0 }; /* would be merged */
    put(&push, 2, OPT_FIELD_VARINT, 1);
    struct raw both = { 0 };
    put_message(&both, 1, &push);
    put_message(&both, 1, &push);
    raw.size = 0;
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put_message(&raw, 18, &both);
    expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT,
                           "PushPull.push is given twice");

    raw.size = 0;
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put(&raw, 16, OPT_FIELD_VARINT, 5);
    expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT,
                           "wrong wire type");

    static const uint8_t group[] = { 8, 5, 9 << 3 | 3, 9 << 3 | 4 };
    expect_request_refused(group, sizeof(group), 0, OPT_INVALID_ARGUMENT, "group");
}

/* A pull of one segment, whose fields are given, as bytes. */
static struct raw pull_of(const struct raw *segment)
{
    struct raw pull = { 0 }, raw = { 0 };
    put_message(&pull, 5, segment);
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put_message(&raw, 17, &pull);
    return raw;
}

Test(wire, rows_come_without_elements)
{
    for (uint32_t field = 2; field <= 3; field++) {
        struct raw segment = { 0 };
        put(&segment, field, OPT_FIELD_VARINT, OPT_BLOCK);
        put(&segment, 4, OPT_FIELD_VARINT, 7);
        struct raw raw = pull_of(&segment);
        expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT,
                               "segment 0 names rows, so offset and count must be 0");
    }
}

Test(wire, rows_may_be_packed_or_not_and_fit_32_bits)
{
    static const uint64_t rows[] = { 3, UINT32_MAX, 0, (UINT64_C(1) << 32) + 3 };
    for (int form = 0; form < 2; form++) {
        for (size_t count = 3; count <= 4; count++) {
            struct raw segment = { 0 };
            struct raw numbers = { 0 };
            for (size_t i = 0; i < count; i++) {
                if (form == 0) {
                    put(&segment, 4, OPT_FIELD_VARINT, rows[i]);
                } else {
                    put_varint(&numbers, rows[i]);
                }
            }
            if (form == 1) {
                put_message(&segment, 4, &numbers);
            }
            struct raw raw = pull_of(&segment);
            if (count == 4) {
                expect_request_refused(raw.at, raw.size, 0, OPT_INVALID_ARGUMENT,
                                       "4294967299; it must fit 32 bits");
                continue;
            }
            struct opt_arena arena;
            opt_arena_init(&arena, OPT_ARENA_BYTES);
            struct opt_request request;
            cr_assert_eq(
                opt_request_read(raw.at, raw.size, 0, &arena, &request, &error), OPT_OK,
                "%s", error.text);
            const struct opt_segment *read = &request.body.pull.segments[0];
            cr_assert_eq(read->row_count, 3);
            for (size_t i = 0; i < 3; i++) {
                cr_assert_eq(read->rows[i], rows[i]);
            }
            opt_arena_fini(&arena);
        }
    }
}

/* A push of one block with so many places, packed or not. */
static struct raw push_by(size_t places, bool together)
{
    struct raw push = { 0 }, segment = { 0 }, numbers = { 0 }, raw = { 0 };
    put(&push, 2, OPT_FIELD_VARINT, 1);
    put(&segment, 3, OPT_FIELD_VARINT, OPT_BLOCK);
    put_message(&push, 7, &segment);
    for (size_t i = 0; i < places; i++) {
        if (together) {
            put_varint(&numbers, 64 * i);
        } else {
            put(&push, 16, OPT_FIELD_VARINT, 64 * i);
        }
    }
    if (together) {
        put_message(&push, 16, &numbers);
    }
    put(&raw, 1, OPT_FIELD_VARINT, 5);
    put_message(&raw, 16, &push);
    return raw;
}

Test(wire, there_are_as_many_places_as_segments)
{
    for (int together = 0; together < 2; together++) {
        struct raw two = push_by(2, together);
        expect_request_refused(two.at, two.size, 0, OPT_INVALID_ARGUMENT,
                               "push: 2 places are given for 1 segments");
        struct raw one = push_by(1, together);
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct opt_request request;
        cr_assert_eq(opt_request_read(one.at, one.size, 0, &arena, &request, &error),
                     OPT_OK, "%s", error.text);
        cr_assert_not_null(request.body.push.places);
        cr_assert_eq(request.body.push.places[0], 0);
        opt_arena_fini(&arena);
    }
    struct raw none = push_by(0, true); /* an empty list is none: values are in data */
    expect_request_refused(none.at, none.size, 0, OPT_INVALID_ARGUMENT,
                           "data ends after 0 bytes");
}

/* ---------------------------------------------------------------- replies */

static void expect_reply_refused(const struct opt_reply *reply, size_t data_size,
                                 const char *words)
{
    size_t size = opt_reply_pack(reply, packed, sizeof(packed));
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_reply read;
    cr_assert_eq(opt_reply_read(packed, size, data_size, &arena, &read, &error),
                 OPT_INVALID_ARGUMENT, "%s", words);
    cr_assert_not_null(strstr(error.text, words), "%s", error.text);
    opt_arena_fini(&arena);
}

Test(wire, bad_replies_are_refused)
{
    struct opt_reply reply = { .id = 0, .message = OPT_MESSAGE_LEAVE };
    expect_reply_refused(&reply, 0, "id 0; only an error or a heartbeat may");
    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_LEAVE };
    expect_reply_refused(&reply, 8, "leave has 8 bytes of data; it must have none");
    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_NONE };
    expect_reply_refused(&reply, 0, "no body");
    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_PUSH };
    reply.body.push.fate = (enum opt_fate)5;
    expect_reply_refused(&reply, 0, "PushReply.fate is 5; it must be 0 to 4");
    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_PULL };
    reply.body.pull.segments = &(struct opt_segment){ .count = 0 };
    reply.body.pull.segment_count = 1;
    expect_reply_refused(&reply, 0, "segment 0 has no count");
    reply.body.pull.segments = one_block;
    expect_reply_refused(&reply, 65532, "data ends after 65532 bytes");
    expect_reply_refused(&reply, 65540, "data has 65540 bytes");
    static const uint32_t rows[] = { 1 };
    reply.body.pull.unchanged = &(struct opt_segment){ .count = 0 };
    reply.body.pull.unchanged_count = 1;
    expect_reply_refused(&reply, 65536, "segment 0 has no count");
    reply.body.pull.unchanged = &(struct opt_segment){ .rows = rows, .row_count = 1 };
    expect_reply_refused(&reply, 65536, "segment 0 of those unchanged names rows");
    reply.body.pull.unchanged = &(struct opt_segment){ .offset = 1, .count = 1 };
    expect_reply_refused(&reply, 65536, "it must be a multiple of 16384");
    static const struct opt_segment many[OPT_SEGMENTS_MAX + 1];
    reply.body.pull.unchanged = many;
    reply.body.pull.unchanged_count = OPT_SEGMENTS_MAX + 1;
    expect_reply_refused(&reply, 65536, "4097 segments in one frame");
}

Test(wire, bad_places_of_replies_are_refused)
{
    static const uint64_t places[] = { 64, 32 };
    static const struct opt_segment two[] = { { .count = OPT_BLOCK },
                                              { .tensor = 1, .count = 1 } };
    static const struct opt_segment open[] = { { .count = 0 } };
    static const uint32_t row = 7;
    static const struct opt_segment rows[] = { { .rows = &row, .row_count = 1 } };
    struct opt_reply reply = { .id = 1, .message = OPT_MESSAGE_PULL };
    struct opt_pull_reply *pull = &reply.body.pull;
    *pull = (struct opt_pull_reply){ .segments = two,
                                     .segment_count = 2,
                                     .places = places };
    expect_reply_refused(&reply, 0, "pull: the place of segment 1 is byte 32");
    pull->segment_count = 1;
    expect_reply_refused(&reply, 65536, "pull: values are given by place, but 65536");
    pull->segments = open;
    expect_reply_refused(&reply, 0, "segment 0 has no count");
    pull->segments = rows;
    expect_reply_refused(&reply, 0,
                         "segment 0 is given by place; it must say how many");

    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_PUSH_PULL };
    reply.body.push_pull.pull = (struct opt_pull_reply){ .segments = two,
                                                         .segment_count = 2,
                                                         .places = places };
    expect_reply_refused(&reply, 0, "pull: the place of segment 1 is byte 32");
    reply = (struct opt_reply){ .id = 1, .message = OPT_MESSAGE_SHARE };
    expect_reply_refused(&reply, 8, "share has 8 bytes of data; it must have none");

    /* Two places for one segment, as bytes. */
    struct raw one = { 0 }, message = { 0 }, raw = { 0 };
    put(&one, 3, OPT_FIELD_VARINT, OPT_BLOCK);
    put_message(&message, 3, &one);
    put(&message, 6, OPT_FIELD_VARINT, 0);
    put(&message, 6, OPT_FIELD_VARINT, 64);
    put(&raw, 1, OPT_FIELD_VARINT, 1);
    put_message(&raw, 17, &message);
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_reply_read(raw.at, raw.size, 0, &arena, &reply, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_str_eq(error.text, "pull: 2 places are given for 1 segments");
    opt_arena_fini(&arena);
}

Test(wire, an_error_is_an_error_whatever_its_code)
{
    static const int codes[] = { 0, 17, 99 };
    for (size_t i = 0; i < 3; i++) {
        struct opt_reply reply = { .id = 0, .message = OPT_MESSAGE_ERROR };
        reply.body.error.status = (enum opt_status)codes[i];
        reply.body.error.text = "no";
        size_t size = opt_reply_pack(&reply, packed, sizeof(packed));
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct opt_reply read;
        cr_assert_eq(opt_reply_read(packed, size, 0, &arena, &read, &error), OPT_OK);
        cr_assert_eq(read.body.error.status, OPT_UNKNOWN);
        cr_assert_str_eq(read.body.error.text, "no");
        opt_arena_fini(&arena);
    }
}

Test(wire, sentences_that_cannot_be_sent_are_cleaned)
{
    struct opt_reply reply = { .id = 1, .message = OPT_MESSAGE_ERROR };
    reply.body.error.status = OPT_INTERNAL;
    reply.body.error.text = "tensor caf\xC3\xA9 \"\xFF\n\" is cut \xE2\x82";
    size_t size = opt_reply_pack(&reply, packed, sizeof(packed));
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_reply read;
    cr_assert_eq(opt_reply_read(packed, size, 0, &arena, &read, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_str_eq(read.body.error.text, "tensor caf\xC3\xA9 \"?\?\" is cut ?\?");
    opt_arena_fini(&arena);
}
