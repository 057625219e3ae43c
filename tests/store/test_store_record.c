/* record — what a turn was is read as it was written, and anything else is refused. */
#include "server/store/record.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/files.h"

static struct opt_error error;
static struct record_writer *writer;
static struct opt_arena arena;

static void set_up(void)
{
    writer = record_writer_new();
    cr_assert_not_null(writer);
    opt_arena_init(&arena, 8 << 20);
}

static void tear_down(void)
{
    record_writer_free(writer);
    opt_arena_fini(&arena);
}

TestSuite(store_record, .init = set_up, .fini = tear_down);

static void add(struct record_writer *to, const struct record_entry *entry)
{
    cr_assert_eq(record_add(to, entry, &error), OPT_OK, "%s", error.text);
}

/* The record as one piece of memory, aligned; to be freed. */
static uint8_t *bytes_of(struct record_writer *from, size_t *size)
{
    const struct iovec *parts;
    size_t count;
    cr_assert_eq(record_parts(from, &parts, &count, &error), OPT_OK);
    *size = 0;
    for (size_t i = 0; i < count; i++) {
        *size += parts[i].iov_len;
    }
    uint8_t *bytes = aligned_alloc(64, (*size + 64) / 64 * 64);
    cr_assert_not_null(bytes);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(bytes + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    return bytes;
}

static struct record read_back(const uint8_t *bytes, size_t size)
{
    struct record record = { .count = 0 };
    cr_assert_eq(record_read(bytes, size, &arena, &record, &error), OPT_OK, "%s",
                 error.text);
    return record;
}

static const float floats[] = { 1, -2.5f, 3e-20f, 4, 5, 6, 7, 8, 9, 10 };
static const uint16_t halves[] = { 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500 };
static const uint32_t rows[] = { 3, 7, 99 };

/* An entry of each kind, with values in several parts, aligned and not. */
static void add_all(struct record_writer *to)
{
    static const uint64_t shape[] = { 3, 5 }, table[] = { 1000, 2 };
    static const struct opt_tensor_entry tensors[] = {
        { .name = "w", .shape = shape, .rank = 2, .elements = 15 },
        { .name = "bias", .elements = 1 },
        { .name = "table",
          .shape = table,
          .rank = 2,
          .elements = 2000,
          .sparse = true },
    };
    static const struct iovec weights[] = { { (void *)(uintptr_t)floats, 12 },
                                            { (void *)(uintptr_t)(floats + 5), 20 } };
    static const struct record_run of_tensors[] = { { 1, 1 }, { 0, 1 }, { 2, 1 } };
    static const struct record_run of_blocks[] = { { 0, 2 }, { 5, 1 } };
    static const struct iovec of_halves = { (void *)(uintptr_t)halves, 6 };
    static const struct iovec of_rows = { (void *)(uintptr_t)floats, 24 };
    static const struct record_rows named = {
        .tensor = 2, .rows = rows, .row_count = 3, .values = { &of_rows, 1, 24 }
    };
    static const struct record_span spans[] = { { 0, 0, 1, 1 }, { 0, 3, 4, 0 } };
    const struct record_member member = { .joined = true,
                                          .lost = true,
                                          .lost_step = 5,
                                          .last_step = 11,
                                          .clock = UINT64_MAX,
                                          .since = 3,
                                          .barrier_session = 0xABCDEF,
                                          .barrier_passed = 4 };
    enum { MODEL = 77 };
    add(to, &(struct record_entry){
                .kind = RECORD_MODEL,
                .model = MODEL,
                .of.made = { .name = "m",
                             .specification = "sgd(lr=0.1)",
                             .consistency = { .mode = OPT_ASYNC,
                                              .min_workers = 3,
                                              .damping = true,
                                              .delay_compensation = 0.1 },
                             .tensors = tensors,
                             .tensor_count = 3,
                             .durability = OPT_DURABILITY_ALWAYS,
                             .checkpoint_steps = UINT64_MAX } });
    add(to, &(struct record_entry){
                .kind = RECORD_WEIGHTS,
                .model = MODEL,
                .of.weights = { 2, 16384, 16, OPT_BF16, { weights, 2, 32 } } });
    add(to, &(struct record_entry){ .kind = RECORD_STATED,
                                    .model = MODEL,
                                    .step = 13,
                                    .of.stated = { "a", "b", "lr=2" } });
    add(to, &(struct record_entry){
                .kind = RECORD_OPTIONS, .model = MODEL, .step = 13, .of.text = "b" });
    add(to, &(struct record_entry){
                .kind = RECORD_WORKER,
                .worker = "w-1",
                .of.worker = { UINT64_MAX, 3, true, "after 5.0 s of silence" } });
    add(to, &(struct record_entry){ .kind = RECORD_BATCH,
                                    .model = UINT64_MAX,
                                    .step = 13,
                                    .of.batch = { .spans = spans,
                                                  .span_count = 2,
                                                  .dtype = OPT_BF16,
                                                  .tensors = of_tensors,
                                                  .tensor_runs = 3,
                                                  .blocks = of_blocks,
                                                  .block_runs = 2,
                                                  .values = { &of_halves, 1, 6 },
                                                  .rows = &named,
                                                  .rows_count = 1 } });
    add(to, &(struct record_entry){ .kind = RECORD_BATCH,
                                    .model = UINT64_MAX,
                                    .step = 13,
                                    .of.batch = { .last = true } });
    add(to, &(struct record_entry){
                .kind = RECORD_PUSH,
                .model = MODEL,
                .worker = "w-1",
                .of.push = { { UINT64_MAX, OPT_FATE_IN_PART, 0, OPT_ABORTED, 17 },
                             member } });
    add(to, &(struct record_entry){ .kind = RECORD_MEMBER,
                                    .model = MODEL,
                                    .worker = "\xc3\xbc",
                                    .of.member = member });
    for (int i = 0; i < 4; i++) {
        static const enum record_kind plain[] = { RECORD_STEP, RECORD_UNDONE,
                                                  RECORD_GONE, RECORD_READY };
        add(to, &(struct record_entry){
                    .kind = plain[i], .model = MODEL, .step = UINT64_MAX });
    }
    add(to, &(struct record_entry){
                .kind = RECORD_FORGOTTEN, .model = MODEL, .worker = "w-1" });
}

Test(store_record, is_read_as_it_was_written)
{
    size_t size, again_size;
    add_all(writer);
    cr_assert_eq(record_entries(writer), 14u);
    uint8_t *bytes = bytes_of(writer, &size);
    struct record record = read_back(bytes, size);
    cr_assert_eq(record.count, 14u);
    struct record_writer *second = record_writer_new();
    cr_assert_not_null(second);
    for (size_t i = 0; i < record.count; i++) {
        add(second, &record.entries[i]);
    }
    uint8_t *again = bytes_of(second, &again_size);
    cr_assert_eq(again_size, size);
    cr_assert_eq(memcmp(again, bytes, size), 0);
    record_writer_free(second);
    free(again);
    free(bytes);
}

/* The other direction of the same: fields that nobody writes would go unnoticed. */
Test(store_record, has_every_field)
{
    size_t size;
    add_all(writer);
    uint8_t *bytes = bytes_of(writer, &size);
    const struct record_entry *entries = read_back(bytes, size).entries;
    const struct record_made *made = &entries[0].of.made;
    cr_assert_eq(entries[0].model, 77u);
    cr_assert_str_eq(made->name, "m");
    cr_assert_str_eq(made->specification, "sgd(lr=0.1)");
    cr_assert_eq(made->consistency.mode, OPT_ASYNC);
    cr_assert_eq(made->consistency.delay_compensation, 0.1);
    cr_assert_eq(made->tensor_count, 3u);
    cr_assert_eq(made->tensors[0].shape[1], 5u);
    cr_assert(made->tensors[2].sparse);
    cr_assert_eq(made->durability, OPT_DURABILITY_ALWAYS);
    cr_assert_eq(made->checkpoint_steps, UINT64_MAX);
    const struct record_weights *weights = &entries[1].of.weights;
    cr_assert_eq(weights->tensor, 2u);
    cr_assert_eq(weights->offset, 16384u);
    cr_assert_eq(weights->count, 16u);
    cr_assert_eq(weights->dtype, OPT_BF16);
    cr_assert_eq(weights->values.size, 32u);
    cr_assert_eq(memcmp(weights->values.parts[0].iov_base, floats, 12), 0);
    cr_assert_str_eq(entries[2].of.stated.before, "a");
    cr_assert_str_eq(entries[2].of.stated.change, "lr=2");
    cr_assert_eq(entries[3].step, 13u);
    cr_assert_str_eq(entries[3].of.text, "b");
    cr_assert_eq(entries[4].of.worker.session, UINT64_MAX);
    cr_assert_eq(entries[4].of.worker.incarnation, 3u);
    cr_assert(entries[4].of.worker.lost);
    cr_assert_str_eq(entries[4].of.worker.lost_why, "after 5.0 s of silence");
    const struct record_batch *batch = &entries[5].of.batch;
    cr_assert_not(batch->last);
    cr_assert_eq(batch->span_count, 2u);
    cr_assert_eq(batch->spans[1].first, 3u);
    cr_assert_eq(batch->dtype, OPT_BF16);
    cr_assert_eq(batch->tensors[1].first, 0u);
    cr_assert_eq(batch->blocks[1].first, 5u);
    cr_assert_eq(memcmp(batch->values.parts[0].iov_base, halves, 6), 0);
    const struct record_rows *named = &batch->rows[0];
    cr_assert_eq(named->tensor, 2u);
    cr_assert_eq(memcmp(named->rows, rows, sizeof rows), 0);
    cr_assert_eq(memcmp(named->values.parts[0].iov_base, floats, 24), 0);
    cr_assert(entries[6].of.batch.last);
    const struct record_push *push = &entries[7].of.push;
    cr_assert_eq(push->settled.sequence, UINT64_MAX);
    cr_assert_eq(push->settled.fate, OPT_FATE_IN_PART);
    cr_assert_eq(push->settled.status, OPT_ABORTED);
    cr_assert_eq(push->settled.shards_applied, 17u);
    cr_assert_eq(push->member.clock, UINT64_MAX);
    cr_assert_eq(push->member.last_step, 11u);
    const struct record_member *member = &entries[8].of.member;
    cr_assert(member->joined && member->lost && !member->resting);
    cr_assert_eq(member->lost_step, 5u);
    cr_assert_eq(member->since, 3u);
    cr_assert_eq(member->barrier_session, 0xABCDEFu);
    cr_assert_eq(member->barrier_passed, 4u);
    cr_assert_eq(entries[9].kind, RECORD_STEP);
    cr_assert_eq(entries[9].step, UINT64_MAX);
    free(bytes);
}

Test(store_record, has_its_values_where_they_can_be_computed_with)
{
    size_t size;
    add_all(writer);
    uint8_t *bytes = bytes_of(writer, &size);
    struct record record = read_back(bytes, size);
    const struct record_batch *batch = &record.entries[5].of.batch;
    cr_assert_eq((uintptr_t)record.entries[1].of.weights.values.parts[0].iov_base % 64,
                 0u);
    cr_assert_eq((uintptr_t)batch->values.parts[0].iov_base % 64, 0u);
    cr_assert_eq((uintptr_t)batch->rows[0].rows % 64, 0u);
    free(bytes);
}

/* Neither copied nor cut into more pieces than they come in. */
Test(store_record, borrows_values)
{
    enum { BLOCK = 65536 };
    static uint8_t memory[4 * BLOCK];
    struct iovec parts[4];
    const struct iovec *written;
    size_t count;
    for (size_t i = 0; i < 4; i++) {
        parts[i] = (struct iovec){ memory + i * BLOCK, BLOCK };
    }
    static const struct record_run blocks = { 0, 4 };
    add(writer,
        &(struct record_entry){ .kind = RECORD_BATCH,
                                .model = 1,
                                .of.batch = { .blocks = &blocks,
                                              .block_runs = 1,
                                              .values = { parts, 4, 4 * BLOCK } } });
    cr_assert_eq(record_parts(writer, &written, &count, &error), OPT_OK);
    cr_assert_eq(count, 2u);
    cr_assert_eq(written[1].iov_base, memory);
    cr_assert_eq(written[1].iov_len, 4u * BLOCK);
    cr_assert_eq(written[0].iov_len % 64, 0u);
}

Test(store_record, is_begun_anew)
{
    size_t size, first_size;
    add_all(writer);
    uint8_t *first = bytes_of(writer, &first_size);
    record_begin(writer);
    cr_assert_eq(record_entries(writer), 0u);
    uint8_t *bytes = bytes_of(writer, &size);
    cr_assert_eq(size, 8u);
    cr_assert_eq(read_back(bytes, size).count, 0u);
    free(bytes);
    add_all(writer);
    bytes = bytes_of(writer, &size);
    cr_assert_eq(size, first_size);
    cr_assert_eq(memcmp(bytes, first, size), 0);
    free(bytes);
    free(first);
}

/* ---------------------------------------------------------------- hostile bytes */

/* Read what may be anything: it is refused with a sentence, or it is read. */
static enum opt_status try(const uint8_t *bytes, size_t size)
{
    struct record record;
    void *exact = NULL; /* and not a byte more */
    cr_assert_eq(posix_memalign(&exact, 64, size), 0);
    memcpy(exact, bytes, size);
    opt_arena_reset(&arena);
    error.text[0] = '\0';
    enum opt_status status = record_read(exact, size, &arena, &record, &error);
    cr_assert(status == OPT_OK || status == OPT_DATA_LOSS ||
                  status == OPT_UNIMPLEMENTED || status == OPT_RESOURCE_EXHAUSTED,
              "%d", (int)status);
    cr_assert(status == OPT_OK || error.text[0] != '\0');
    free(exact);
    return status;
}

Test(store_record, refuses_every_cut)
{
    size_t size;
    add_all(writer);
    uint8_t *bytes = bytes_of(writer, &size);
    for (size_t cut = 0; cut < size; cut++) {
        cr_assert_neq(try(bytes, cut), OPT_OK, "%zu", cut);
    }
    free(bytes);
}

Test(store_record, survives_every_flip)
{
    size_t size;
    add_all(writer);
    uint8_t *bytes = bytes_of(writer, &size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)try(bytes, size);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
}

Test(store_record, survives_bytes_at_random)
{
    uint32_t random = 1;
    size_t size;
    add_all(writer);
    uint8_t *bytes = bytes_of(writer, &size);
    uint8_t *other = malloc(size);
    cr_assert_not_null(other);
    for (int round = 0; round < 20000; round++) {
        memcpy(other, bytes, size);
        for (int i = 0; i < 1 + round % 6; i++) {
            random = random * 1664525u + 1013904223u;
            size_t at = (random >> 8) % size;
            random = random * 1664525u + 1013904223u;
            other[at] = (uint8_t)(random >> 24);
        }
        (void)try(other, size);
    }
    free(other);
    free(bytes);
}

static void expect_refused(const struct record_entry *entry, enum opt_status expected,
                           const char *words)
{
    size_t size;
    record_begin(writer);
    add(writer, entry);
    uint8_t *bytes = bytes_of(writer, &size);
    cr_expect_eq(try(bytes, size), expected, "%s", error.text);
    cr_expect(files_said(&error, words));
    free(bytes);
}

Test(store_record, says_what_is_wrong)
{
    static const struct record_run backwards[] = { { 5, 1 }, { 0, 1 } };
    static const struct record_run endless = { UINT32_MAX, 2 };
    static const struct iovec odd = { (void *)(uintptr_t)floats, 5 };
    static const uint32_t twice[] = { 7, 7 };
    static const struct iovec floats_of = { (void *)(uintptr_t)floats, 8 };
    static const struct record_rows of_twice = { .rows = twice,
                                                 .row_count = 2,
                                                 .values = { &floats_of, 1, 8 } };
    struct record_entry batch = { .kind = RECORD_BATCH, .model = 1 };
    struct record_batch *gradient = &batch.of.batch;
    expect_refused(&(struct record_entry){ .kind = RECORD_KINDS, .model = 1 },
                   OPT_UNIMPLEMENTED,
                   "entry 0 is of kind 14|kinds 1 to 13|a newer one");
    expect_refused(&(struct record_entry){ .kind = RECORD_NONE, .model = 1 },
                   OPT_UNIMPLEMENTED, "kind 0");
    expect_refused(&(struct record_entry){ .kind = RECORD_STEP }, OPT_DATA_LOSS,
                   "entry 0: it is of no model");
    expect_refused(&(struct record_entry){ .kind = RECORD_WORKER }, OPT_DATA_LOSS,
                   "a worker's name");
    expect_refused(&(struct record_entry){ .kind = RECORD_OPTIONS, .model = 1 },
                   OPT_DATA_LOSS, "no specification");
    expect_refused(
        &(struct record_entry){ .kind = RECORD_PUSH, .model = 1, .worker = "w" },
        OPT_DATA_LOSS, "what became of a push");
    expect_refused(&(struct record_entry){ .kind = RECORD_WEIGHTS, .model = 1 },
                   OPT_DATA_LOSS, "which weights");
    expect_refused(
        &(struct record_entry){
            .kind = RECORD_MODEL,
            .model = 1,
            .of.made = { .name = "m", .durability = OPT_DURABILITY_COUNT } },
        OPT_DATA_LOSS, "no such durability");
    *gradient = (struct record_batch){ .dtype = OPT_DTYPE_COUNT };
    expect_refused(&batch, OPT_DATA_LOSS, "no such dtype");
    *gradient = (struct record_batch){ .blocks = backwards, .block_runs = 2 };
    expect_refused(&batch, OPT_DATA_LOSS, "not in order");
    *gradient = (struct record_batch){ .blocks = &endless, .block_runs = 1 };
    expect_refused(&batch, OPT_DATA_LOSS, "too long");
    *gradient = (struct record_batch){ .values = { &odd, 1, 5 } };
    expect_refused(&batch, OPT_DATA_LOSS, "no whole number of elements");
    *gradient = (struct record_batch){ .values = { &odd, 1, 8 } };
    expect_refused(&batch, OPT_DATA_LOSS, "should have 8 bytes of values, but 5");
    *gradient = (struct record_batch){ .values = { &odd, 1, 4 } };
    expect_refused(&batch, OPT_DATA_LOSS, "1 bytes of values belong to no entry");
    *gradient = (struct record_batch){ .rows = &of_twice, .rows_count = 1 };
    expect_refused(&batch, OPT_DATA_LOSS, "rows are not in ascending order");
}

Test(store_record, needs_no_more_memory_than_it_says)
{
    size_t size;
    for (int i = 0; i < 5000; i++) {
        add(writer, &(struct record_entry){ .kind = RECORD_STEP, .model = 1 });
    }
    uint8_t *bytes = bytes_of(writer, &size);
    cr_assert_eq(record_message_bytes(bytes, size), size - 8);
    opt_arena_fini(&arena);
    opt_arena_init(&arena, record_arena(size - 8));
    cr_assert_eq(read_back(bytes, size).count, 5000u);
    opt_arena_fini(&arena);
    opt_arena_init(&arena, 1000);
    cr_assert_eq(try(bytes, size), OPT_RESOURCE_EXHAUSTED);
    free(bytes);
}
