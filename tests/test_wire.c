#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "tests/wire_cases.h"

enum { ROOM = 1 << 20 };
static uint8_t packed[ROOM], again[ROOM];
static struct opt_error error;

static enum opt_status read_case(const struct wire_case *c, const uint8_t *bytes,
                                 size_t size, struct opt_arena *arena,
                                 struct wire_any *out)
{
    memset(out, 0, sizeof(*out));
    out->kind = c->any.kind;
    return wire_any_read(bytes, size, c->data_size, arena, out, &error);
}

/* What was accepted keeps to the limits, and says the same when it is sent on. */
static void expect_sound(const struct wire_any *any, size_t data_size, const char *what)
{
    const char *violation = wire_any_violation(any, data_size);
    cr_assert_null(violation, "%s: accepted with %s", what, violation);
    size_t size = wire_any_pack(any, again, sizeof(again));
    cr_assert_leq(size, sizeof(again));
    struct opt_arena arena;
    opt_arena_init(&arena, 4 << 20);
    struct wire_any back = { .kind = any->kind };
    cr_assert_eq(wire_any_read(again, size, data_size, &arena, &back, &error), OPT_OK,
                 "%s: %s", what, error.text);
    cr_assert(wire_any_equal(any, &back), "%s", what);
    opt_arena_fini(&arena);
}

/* ---------------------------------------------------------------- round trips */

Test(wire, every_message_comes_back_as_it_went)
{
    cr_assert_geq(wire_case_count, 38);
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct wire_any back;
        enum opt_status status = read_case(c, packed, size, &arena, &back);
        cr_assert_eq(status, OPT_OK, "%s: %s", c->name, error.text);
        cr_assert(wire_any_equal(&c->any, &back), "%s", c->name);
        expect_sound(&back, c->data_size, c->name);
        cr_assert_eq(wire_any_pack(&back, again, sizeof(again)), size, "%s", c->name);
        cr_assert_arr_eq(again, packed, size, "%s", c->name);
        opt_arena_fini(&arena);
    }
}

Test(wire, packing_touches_nothing_that_is_too_small)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        cr_assert_eq(wire_any_pack(&c->any, NULL, 0), size);
        memset(again, 0xAA, size + 1);
        if (size > 0) {
            cr_assert_eq(wire_any_pack(&c->any, again, size - 1), size);
            for (size_t j = 0; j <= size; j++) {
                cr_assert_eq(again[j], 0xAA, "%s", c->name);
            }
        }
        cr_assert_eq(wire_any_pack(&c->any, again, size), size);
        cr_assert_eq(again[size], 0xAA, "%s", c->name);
        cr_assert_arr_eq(again, packed, size);
    }
}

/* ---------------------------------------------------------------- damage */

Test(wire, every_truncation_is_refused_or_sound)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        for (size_t cut = 0; cut < size; cut++) {
            uint8_t *exact = malloc(cut + 1); /* ASan sees a byte read past it */
            memcpy(exact, packed, cut);
            struct opt_arena arena;
            opt_arena_init(&arena, OPT_ARENA_BYTES);
            struct wire_any back;
            if (read_case(c, exact, cut, &arena, &back) == OPT_OK) {
                expect_sound(&back, c->data_size, c->name);
            } else {
                cr_assert_neq(error.text[0], '\0');
            }
            opt_arena_fini(&arena);
            free(exact);
        }
    }
}

Test(wire, every_flipped_bit_is_refused_or_sound)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        for (size_t bit = 0; bit < 8 * size; bit++) {
            packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
            struct opt_arena arena;
            opt_arena_init(&arena, OPT_ARENA_BYTES);
            struct wire_any back;
            if (read_case(c, packed, size, &arena, &back) == OPT_OK) {
                expect_sound(&back, c->data_size, c->name);
            }
            opt_arena_fini(&arena);
            packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

Test(wire, too_little_memory_is_a_clean_error_at_every_allocation)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        enum opt_status status = OPT_RESOURCE_EXHAUSTED;
        for (size_t limit = 0; status != OPT_OK; limit += 16) {
            struct opt_arena arena;
            opt_arena_init(&arena, limit);
            struct wire_any back;
            status = read_case(c, packed, size, &arena, &back);
            cr_assert(status == OPT_OK || status == OPT_RESOURCE_EXHAUSTED, "%s: %s",
                      c->name, error.text);
            cr_assert_leq(arena.used, limit);
            cr_assert_lt(limit, 1 << 16);
            opt_arena_fini(&arena);
        }
    }
}

/* ---------------------------------------------------------------- refusals */

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
    create.body.create.consistency.mode = (enum opt_mode)2;
    expect_refused(&create, 0, "Consistency.mode is 2");
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

/* ---------------------------------------------------------------- hostile sizes */

/* id, then a body of `count` fields of two bytes. */
static uint8_t *flood(uint32_t body, uint8_t first, uint8_t second, size_t count,
                      size_t *size)
{
    uint8_t *bytes = malloc(count * 2 + 32);
    size_t at = opt_varint_write(1 << 3 | OPT_FIELD_VARINT, bytes);
    at += opt_varint_write(5, bytes + at);
    at += opt_varint_write((uint64_t)body << 3 | OPT_FIELD_BYTES, bytes + at);
    at += opt_varint_write(2 * count, bytes + at);
    for (size_t i = 0; i < count; i++) {
        bytes[at++] = first;
        bytes[at++] = second;
    }
    *size = at;
    return bytes;
}

Test(wire, floods_of_tiny_fields_stay_within_the_budget)
{
    static const struct {
        uint32_t body;
        uint8_t first, second;
        size_t count;
    } cases[] = {
        { 16, 7 << 3 | 2, 0, 1000000 },  /* empty segments of a push */
        { 10, 5 << 3 | 2, 0, 1000000 },  /* empty features of a hello */
        { 16, 15 << 3 | 0, 1, 1000000 }, /* unknown fields */
        { 16, 7 << 3 | 2, 0, 30000 },    /* as many as a header part holds */
        { 22, 15 << 3 | 2, 0, 30000 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size = 0;
        uint8_t *bytes = flood(cases[i].body, cases[i].first, cases[i].second,
                               cases[i].count, &size);
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct opt_request request;
        enum opt_status status =
            opt_request_read(bytes, size, 0, &arena, &request, &error);
        cr_assert_eq(status, OPT_RESOURCE_EXHAUSTED, "%zu: %s", i, error.text);
        cr_assert_leq(arena.used, OPT_ARENA_BYTES);
        opt_arena_fini(&arena);
        free(bytes);
    }
}

Test(wire, nesting_is_as_deep_as_the_schema_and_no_deeper)
{
    enum { DEPTH = 20000 };
    /* Field 16 in field 16 in field 16 ...: only the first is a push. */
    uint8_t *bytes = malloc(8 * DEPTH);
    size_t start = 8 * DEPTH;
    size_t size = 0;
    for (int i = 0; i < DEPTH; i++) {
        uint8_t head[16];
        size_t n = opt_varint_write(16 << 3 | OPT_FIELD_BYTES, head);
        n += opt_varint_write(size, head + n);
        start -= n;
        size += n;
        memcpy(bytes + start, head, n);
    }
    bytes[--start] = 5;
    bytes[--start] = 1 << 3;
    size += 2;
    expect_request_refused(bytes + start, size, 0, OPT_INVALID_ARGUMENT,
                           "sequences count from 1");
    free(bytes);
}

Test(wire, the_longest_headers_are_read_within_the_usual_budget)
{
    struct opt_segment *segments = calloc(OPT_SEGMENTS_MAX, sizeof(*segments));
    for (size_t i = 0; i < OPT_SEGMENTS_MAX; i++) {
        segments[i] = (struct opt_segment){ .tensor = (uint32_t)i + 60000,
                                            .offset = 16384 * (i % 100 + 1),
                                            .count = 1 };
    }
    struct opt_request push = a_push(segments, OPT_SEGMENTS_MAX);
    size_t size = opt_request_pack(&push, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request read;
    cr_assert_eq(
        opt_request_read(packed, size, 4 * OPT_SEGMENTS_MAX, &arena, &read, &error),
        OPT_OK, "%s", error.text);
    cr_assert_eq(read.body.push.segment_count, OPT_SEGMENTS_MAX);
    cr_assert_eq(read.body.push.segments[4095].tensor, 64095);
    opt_arena_reset(&arena);

    /* The same tensors in a push and a pull: twice as many segments, of few bytes. */
    for (size_t i = 0; i < OPT_SEGMENTS_MAX; i++) {
        segments[i] = (struct opt_segment){ .tensor = (uint32_t)i };
    }
    struct opt_request both = { .id = 1, .message = OPT_MESSAGE_PUSH_PULL };
    both.body.push_pull.has_pull = true;
    both.body.push_pull.push.sequence = 1;
    both.body.push_pull.push.segments = segments;
    both.body.push_pull.push.segment_count = OPT_SEGMENTS_MAX;
    both.body.push_pull.pull.segments = segments;
    both.body.push_pull.pull.segment_count = OPT_SEGMENTS_MAX;
    size = opt_request_pack(&both, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &read, &error), OPT_OK, "%s",
                 error.text);
    opt_arena_fini(&arena);
    free(segments);
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
    expect_reply_refused(&reply, 0, "id 0; only an error may");
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

/* ---------------------------------------------------------------- tables */

static enum opt_status read_tensors(const struct opt_tensor_entry *tensors,
                                    size_t count, size_t max)
{
    size_t size = opt_tensor_table_pack(tensors, count, NULL, 0);
    uint8_t *bytes = malloc(size + 1);
    cr_assert_eq(opt_tensor_table_pack(tensors, count, bytes, size), size);
    struct opt_arena arena;
    opt_arena_init(&arena, opt_table_budget(size));
    struct opt_tensor_entry *read = NULL;
    size_t read_count = 0;
    enum opt_status status =
        opt_tensor_table_read(bytes, size, max, &arena, &read, &read_count, &error);
    if (status == OPT_OK) {
        cr_assert_eq(read_count, count);
        for (size_t i = 0; i < count; i++) {
            cr_assert_str_eq(read[i].name, tensors[i].name);
        }
    }
    opt_arena_fini(&arena);
    free(bytes);
    return status;
}

static void expect_tensors_refused(const struct opt_tensor_entry *tensors, size_t count,
                                   const char *words)
{
    cr_assert_eq(read_tensors(tensors, count, OPT_TENSORS_MAX), OPT_INVALID_ARGUMENT,
                 "%s", words);
    cr_assert_not_null(strstr(error.text, words), "%s", error.text);
}

Test(wire, bad_tensors_are_refused)
{
    static const uint64_t zero[] = { 3, 0 };
    static const uint64_t nine[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    static const uint64_t wraps[] = { UINT64_C(1) << 33, UINT64_C(1) << 33 };
    static const uint64_t most[] = { UINT64_C(1) << 20, UINT64_C(1) << 20 };
    static const uint64_t past[] = { (UINT64_C(1) << 40) + 1 };
    struct opt_tensor_entry tensors[3] = { { .name = "a" },
                                           { .name = "b" },
                                           { .name = "a" } };
    expect_tensors_refused(tensors, 0, "the table of tensors is empty");
    expect_tensors_refused(tensors, 3, "two tensors have the name a");
    tensors[1] = (struct opt_tensor_entry){ .name = "b", .shape = zero, .rank = 2 };
    expect_tensors_refused(tensors, 2, "dimension 1 of tensor b is 0");
    tensors[1] = (struct opt_tensor_entry){ .name = "b", .shape = nine, .rank = 9 };
    expect_tensors_refused(tensors, 2, "9 dimensions; at most 8");
    tensors[1] = (struct opt_tensor_entry){ .name = "b", .shape = wraps, .rank = 2 };
    expect_tensors_refused(tensors, 2, "tensor b has more than 1099511627776 elements");
    tensors[1] = (struct opt_tensor_entry){ .name = "b", .shape = past, .rank = 1 };
    expect_tensors_refused(tensors, 2, "tensor b has more than 1099511627776 elements");
    tensors[1] = (struct opt_tensor_entry){ .name = "b", .shape = most, .rank = 2 };
    expect_tensors_refused(tensors, 2, "elements together");
    tensors[0] = tensors[1];
    cr_assert_eq(read_tensors(tensors, 1, 1), OPT_OK, "%s", error.text);
    tensors[1] = (struct opt_tensor_entry){ .name = "" };
    expect_tensors_refused(tensors, 2, "the name of tensor 1 is empty");
}

Test(wire, as_many_tensors_as_allowed_and_no_more)
{
    enum { MOST = OPT_TENSORS_MAX };
    struct opt_tensor_entry *tensors = calloc(MOST, sizeof(*tensors));
    char(*names)[24] = calloc(MOST, sizeof(*names));
    for (size_t i = 0; i < MOST; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%zx", i);
        tensors[i].name = names[i];
    }
    cr_assert_eq(read_tensors(tensors, MOST, MOST), OPT_OK, "%s", error.text);
    cr_assert_eq(read_tensors(tensors, MOST, MOST - 1), OPT_RESOURCE_EXHAUSTED);
    cr_assert_not_null(
        strstr(error.text, "65536 tensors; a model may have at most 65535"), "%s",
        error.text);
    free(names);
    free(tensors);
}

Test(wire, shapes_may_be_written_packed_or_not)
{
    static const uint8_t unpacked[] = { 10, 7, 10, 1, 'w', 16, 3, 16, 4 };
    static const uint8_t in_one[] = { 10, 7, 10, 1, 'w', 18, 2, 3, 4 };
    const uint8_t *const tables[] = { unpacked, in_one };
    for (size_t i = 0; i < 2; i++) {
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct opt_tensor_entry *read = NULL;
        size_t count = 0;
        cr_assert_eq(
            opt_tensor_table_read(tables[i], 9, 1, &arena, &read, &count, &error),
            OPT_OK, "%s", error.text);
        cr_assert_eq(read[0].rank, 2);
        cr_assert_eq(read[0].shape[0], 3);
        cr_assert_eq(read[0].shape[1], 4);
        cr_assert_eq(read[0].elements, 12);
        opt_arena_fini(&arena);
    }
}

Test(wire, a_description_without_a_summary_is_refused)
{
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_description description;
    cr_assert_eq(opt_description_read(NULL, 0, &arena, &description, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_str_eq(error.text, "a model's description has no summary");
    opt_arena_fini(&arena);
}

Test(wire, messages_have_names)
{
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_PUSH_PULL), "push_pull");
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_DELETE), "delete");
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_NONE), "none");
    cr_assert_str_eq(opt_message_name((enum opt_message)5), "none");
    cr_assert_str_eq(opt_message_name((enum opt_message)1000), "none");
}
