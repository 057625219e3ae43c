/* Messages and tables as large as allowed, and larger. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "common/wire.h"

enum { ROOM = 1 << 20 };
static uint8_t packed[ROOM];
static struct opt_error error;

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
        enum opt_status status;
    } cases[] = {
        { 16, 7 << 3 | 2, 0, 1000000, OPT_RESOURCE_EXHAUSTED },  /* empty segments */
        { 10, 5 << 3 | 2, 0, 1000000, OPT_RESOURCE_EXHAUSTED },  /* empty features */
        { 16, 15 << 3 | 0, 1, 1000000, OPT_RESOURCE_EXHAUSTED }, /* unknown fields */
        /* As many as a header part holds. */
        { 16, 7 << 3 | 2, 0, 30000, OPT_RESOURCE_EXHAUSTED },
        { 22, 15 << 3 | 2, 0, 30000, OPT_OK }, /* unknown to a heartbeat */
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
        cr_assert_eq(status, cases[i].status, "%zu: %s", i, error.text);
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
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request request;
    cr_assert_eq(opt_request_read(bytes + start, size, 0, &arena, &request, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(error.text, "sequences count from 1"), "%s", error.text);
    opt_arena_fini(&arena);
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
    struct opt_request push = { .id = 1, .message = OPT_MESSAGE_PUSH };
    push.body.push.sequence = 1;
    push.body.push.segments = segments;
    push.body.push.segment_count = OPT_SEGMENTS_MAX;
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

Test(wire, as_many_rows_as_promised_fit_a_header_and_the_usual_budget)
{
    uint32_t *rows = malloc(OPT_ROWS_MAX * sizeof(*rows));
    for (uint32_t i = 0; i < OPT_ROWS_MAX; i++) {
        rows[i] = UINT32_MAX - i;
    }
    const struct opt_segment segment = { .tensor = UINT16_MAX,
                                         .rows = rows,
                                         .row_count = OPT_ROWS_MAX };
    struct opt_request both = { .id = UINT64_MAX, .message = OPT_MESSAGE_PUSH_PULL };
    both.body.push_pull.push.sequence = UINT64_MAX;
    both.body.push_pull.push.segments = &segment;
    both.body.push_pull.push.segment_count = 1;
    size_t size = opt_request_pack(&both, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    struct opt_arena arena;
    struct opt_request read;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(
        opt_request_read(packed, size, 4 * OPT_ROWS_MAX, &arena, &read, &error), OPT_OK,
        "%s", error.text);
    const struct opt_segment *back = &read.body.push_pull.push.segments[0];
    cr_assert_eq(back->row_count, OPT_ROWS_MAX);
    cr_assert_arr_eq(back->rows, rows, OPT_ROWS_MAX * sizeof(*rows));
    opt_arena_fini(&arena);

    /* Rows of one byte each, as many as a header can carry at all. */
    size_t most = OPT_HEADER_BYTES - 64;
    rows = realloc(rows, most * sizeof(*rows));
    memset(rows, 0, most * sizeof(*rows));
    const struct opt_segment small = { .rows = rows, .row_count = most };
    struct opt_request pull = { .id = 1, .message = OPT_MESSAGE_PULL };
    pull.body.pull.slot = "";
    pull.body.pull.segments = &small;
    pull.body.pull.segment_count = 1;
    size = opt_request_pack(&pull, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &read, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_eq(read.body.pull.segments[0].row_count, most);
    opt_arena_fini(&arena);
    free(rows);
}

Test(wire, places_and_released_requests_of_the_longest_headers_fit_the_usual_budget)
{
    enum { MANY = 3000, MOST = OPT_HEADER_BYTES - 64 };
    static struct opt_segment segments[MANY];
    static uint64_t places[MANY];
    for (size_t i = 0; i < MANY; i++) {
        segments[i] = (struct opt_segment){ .tensor = (uint32_t)i + 60000,
                                            .offset = 16384 * (i % 100 + 1),
                                            .count = 1 };
        places[i] = (UINT64_C(1) << 42) - 64 * i;
    }
    struct opt_request push = { .id = 1, .message = OPT_MESSAGE_PUSH };
    push.body.push = (struct opt_push){
        .sequence = 1, .segments = segments, .segment_count = MANY, .places = places
    };
    size_t size = opt_request_pack(&push, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    struct opt_arena arena;
    struct opt_request read;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &read, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_arr_eq(read.body.push.places, places, sizeof(places));
    opt_arena_fini(&arena);

    /* Numbers of one byte each, as many as a header can carry at all. */
    uint64_t *released = calloc(MOST, sizeof(*released));
    struct opt_request heartbeat = { .id = 1,
                                     .message = OPT_MESSAGE_HEARTBEAT,
                                     .released = released,
                                     .released_count = MOST };
    size = opt_request_pack(&heartbeat, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &read, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_str_eq(error.text, "a request releases 65472 others; at most 64");
    opt_arena_fini(&arena);
    free(released);
}

Test(wire, asks_about_as_many_pushes_as_an_open_may_and_no_more)
{
    static uint64_t sequences[OPT_UNANSWERED_MAX + 1];
    for (size_t i = 0; i <= OPT_UNANSWERED_MAX; i++) {
        sequences[i] = UINT64_MAX - i;
    }
    for (size_t more = 0; more < 2; more++) {
        const struct opt_request open = {
            .id = 1,
            .message = OPT_MESSAGE_OPEN,
            .body.open = { .model = "m",
                           .unanswered = sequences,
                           .unanswered_count = OPT_UNANSWERED_MAX + more }
        };
        size_t size = opt_request_pack(&open, packed, sizeof(packed));
        cr_assert_leq(size, OPT_HEADER_BYTES);
        struct opt_arena arena;
        struct opt_request read;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        cr_assert_eq(opt_request_read(packed, size, 0, &arena, &read, &error),
                     more ? OPT_INVALID_ARGUMENT : OPT_OK, "%s", error.text);
        cr_assert(more || read.body.open.unanswered_count == OPT_UNANSWERED_MAX);
        opt_arena_fini(&arena);
    }
    cr_assert_str_eq(error.text,
                     "open: asks about 1025 unanswered pushes; at most 1024");
}

static void expect_fits(const struct opt_reply *reply, struct opt_arena *arena,
                        struct opt_reply *read)
{
    size_t size = opt_reply_pack(reply, packed, sizeof(packed));
    cr_assert_leq(size, OPT_HEADER_BYTES);
    opt_arena_init(arena, OPT_ARENA_BYTES);
    cr_assert_eq(opt_reply_read(packed, size, 0, arena, read, &error), OPT_OK, "%s",
                 error.text);
}

/* Each of the pushes asked about is settled, or waits. */
Test(wire, what_became_of_all_pushes_asked_about_fits_a_header_and_the_usual_budget)
{
    static struct opt_settled settled[OPT_UNANSWERED_MAX];
    static uint64_t waiting[OPT_UNANSWERED_MAX];
    for (size_t i = 0; i < OPT_UNANSWERED_MAX; i++) {
        settled[i] = (struct opt_settled){ .sequence = UINT64_MAX - i,
                                           .fate = OPT_FATE_IN_PART,
                                           .step = UINT64_MAX,
                                           .status = OPT_DEADLINE_EXCEEDED,
                                           .shards_applied = UINT64_MAX };
        waiting[i] = UINT64_MAX - i;
    }
    struct opt_reply reply = { .id = UINT64_MAX, .message = OPT_MESSAGE_MODEL };
    reply.body.model = (struct opt_model_reply){ .specification = "sgd(lr=1)",
                                                 .settled = settled,
                                                 .settled_count = OPT_UNANSWERED_MAX };
    struct opt_arena arena;
    struct opt_reply read;
    expect_fits(&reply, &arena, &read);
    cr_assert_eq(read.body.model.settled_count, OPT_UNANSWERED_MAX);
    cr_assert_eq(read.body.model.settled[1023].sequence, UINT64_MAX - 1023);
    opt_arena_fini(&arena);
    reply.body.model = (struct opt_model_reply){ .specification = "sgd(lr=1)",
                                                 .waiting = waiting,
                                                 .waiting_count = OPT_UNANSWERED_MAX };
    expect_fits(&reply, &arena, &read);
    cr_assert_eq(read.body.model.waiting_count, OPT_UNANSWERED_MAX);
    cr_assert_eq(read.body.model.waiting[1023], UINT64_MAX - 1023);
    opt_arena_fini(&arena);
}

Test(wire, as_many_unchanged_tensors_as_a_frame_names_fit_the_usual_budget)
{
    static struct opt_segment unchanged[OPT_SEGMENTS_MAX];
    for (size_t i = 0; i < OPT_SEGMENTS_MAX; i++) {
        unchanged[i] = (struct opt_segment){ .tensor = (uint32_t)i + 60000,
                                             .offset = 16384 * (i % 100 + 1),
                                             .count = 1 };
    }
    struct opt_reply reply = { .id = 1, .message = OPT_MESSAGE_PULL };
    reply.body.pull = (struct opt_pull_reply){ .unchanged = unchanged,
                                               .unchanged_count = OPT_SEGMENTS_MAX,
                                               .held = UINT64_MAX,
                                               .last = true };
    struct opt_arena arena;
    struct opt_reply read;
    expect_fits(&reply, &arena, &read);
    cr_assert_eq(read.body.pull.unchanged_count, OPT_SEGMENTS_MAX);
    cr_assert_eq(read.body.pull.unchanged[4095].tensor, 64095);
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

Test(wire, sparse_tensors_have_rows_that_can_be_numbered)
{
    static const uint64_t one[] = { 5 };
    static const uint64_t longest[] = { 3, OPT_SHARD };
    static const uint64_t longer[] = { 3, OPT_SHARD, 2 };
    static const uint64_t most[] = { UINT32_MAX, 1 };
    static const uint64_t more[] = { UINT64_C(1) << 32, 1 };
    struct opt_tensor_entry table = { .name = "t", .sparse = true };
    expect_tensors_refused(&table, 1, "tensor t cannot be sparse");
    table.shape = one;
    table.rank = 1;
    expect_tensors_refused(&table, 1, "at least 2 dimensions");
    table.shape = longer;
    table.rank = 3;
    expect_tensors_refused(&table, 1, "at most 1048576 elements a row");
    table.shape = more;
    table.rank = 2;
    expect_tensors_refused(&table, 1, "at most 4294967295 rows");
    table.shape = longest;
    cr_assert_eq(read_tensors(&table, 1, 1), OPT_OK, "%s", error.text);
    table.shape = most;
    cr_assert_eq(read_tensors(&table, 1, 1), OPT_OK, "%s", error.text);
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
        strstr(error.text, "1048576 tensors; a model may have at most 1048575"), "%s",
        error.text);
    free(names);
    free(tensors);
}

/* What a reader of tables unpacks at a time is bounded, whatever an entry is made of:
 * here of a field that nobody knows. */
Test(wire, an_entry_of_a_table_has_at_most_64_kib)
{
    enum { MOST = 64 << 10, HEAD = 4, NAMED = 3, UNKNOWN = 4 };
    static uint8_t table[HEAD + MOST + 1];
    for (size_t size = MOST; size <= MOST + 1; size++) {
        size_t rest = size - NAMED - UNKNOWN;
        const uint8_t begin[] = { 10,
                                  (uint8_t)(size % 128 + 128),
                                  (uint8_t)(size / 128 % 128 + 128),
                                  (uint8_t)(size / 128 / 128), /* the entry */
                                  10,
                                  1,
                                  'w', /* its name */
                                  122,
                                  (uint8_t)(rest % 128 + 128),
                                  (uint8_t)(rest / 128 % 128 + 128),
                                  (uint8_t)(rest / 128 / 128) };
        memcpy(table, begin, sizeof begin);
        struct opt_arena arena;
        struct opt_tensor_entry *read = NULL;
        size_t count = 0;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        enum opt_status status =
            opt_tensor_table_read(table, HEAD + size, 1, &arena, &read, &count, &error);
        if (size == MOST) {
            cr_assert_eq(status, OPT_OK, "%s", error.text);
            cr_assert_str_eq(read[0].name, "w");
        } else {
            cr_assert_eq(status, OPT_INVALID_ARGUMENT);
            cr_assert_not_null(
                strstr(error.text, "the entry of tensor 0 has 65537 bytes"), "%s",
                error.text);
        }
        opt_arena_fini(&arena);
    }
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
