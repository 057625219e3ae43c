#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "client/sink.h"

enum { LARGE = 3 * OPT_BLOCK + 5 };
static const uint64_t elements[] = { 3, LARGE, 2 };
static float small[3], large[LARGE], last[2];
static const uint64_t dense[] = { 0, 0, 0 };
static const struct optclient_values all[] = { { .tensor = 0, .values = small },
                                               { .tensor = 1, .values = large },
                                               { .tensor = 2, .values = last } };

static struct sink sink_of(const struct optclient_values *values, size_t count)
{
    struct sink sink;
    struct opt_error error;
    cr_assert_eq(sink_init(&sink, values, count, elements, dense, 3, &error), OPT_OK);
    cr_assert(sink_begin(&sink, OPT_BLOCK));
    return sink;
}

/* Accept a frame of these segments with as much data as they need, or size bytes. */
static enum opt_status accept_of(struct sink *sink, const struct opt_segment *segments,
                                 size_t count, uint64_t step, size_t size,
                                 struct opt_error *error)
{
    struct opt_pull_reply reply = { .step = step,
                                    .segments = segments,
                                    .segment_count = count };
    size_t needed = 0;
    for (size_t i = 0; i < count; i++) {
        needed += (size_t)segments[i].count * sizeof(float);
    }
    return sink_accept(sink, &reply, size == 0 ? needed : size, OPT_FP32, error);
}

static void expect_refused(struct sink *sink, struct opt_segment segment, size_t size,
                           enum opt_status expected, const char *words)
{
    struct opt_error error;
    cr_assert_eq(accept_of(sink, &segment, 1, 1, size, &error), expected, "%s", words);
    cr_assert(strstr(error.text, words) != NULL, "%s", error.text);
}

Test(sink, is_full_when_every_block_has_come_in_any_order)
{
    struct sink sink = sink_of(all, 3);
    struct opt_error error;
    cr_assert(sink_wants_all(&sink));
    struct opt_segment end = { .tensor = 1,
                               .offset = 2 * OPT_BLOCK,
                               .count = OPT_BLOCK + 5 };
    struct opt_segment mixed[] = { { .tensor = 2, .count = 2 }, { .count = 3 } };
    struct opt_segment begin = { .tensor = 1, .count = 2 * OPT_BLOCK };
    cr_assert_eq(accept_of(&sink, &end, 1, 7, 0, &error), OPT_OK);
    cr_assert_eq(accept_of(&sink, mixed, 2, 7, 0, &error), OPT_OK);
    cr_assert_not(sink_full(&sink));
    cr_assert_eq(accept_of(&sink, &begin, 1, 7, 0, &error), OPT_OK);
    cr_assert(sink_full(&sink));
    /* The call is sent again: everything is asked for again. */
    cr_assert(sink_begin(&sink, OPT_BLOCK));
    cr_assert_not(sink_full(&sink));
    cr_assert_eq(accept_of(&sink, &begin, 1, 8, 0, &error), OPT_OK);
    sink_fini(&sink);
}

Test(sink, refuses_what_was_not_asked_or_cannot_be)
{
    struct sink sink = sink_of(all, 3);
    struct opt_segment block = { .tensor = 1, .offset = OPT_BLOCK, .count = OPT_BLOCK };
    struct opt_error error;
    cr_assert_eq(accept_of(&sink, &block, 1, 1, 0, &error), OPT_OK);
    expect_refused(&sink, block, 0, OPT_INTERNAL, "twice");
    expect_refused(&sink, (struct opt_segment){ .tensor = 3, .count = 1 }, 0,
                   OPT_INTERNAL, "tensor 3");
    expect_refused(&sink, (struct opt_segment){ .count = 4 }, 0, OPT_INTERNAL, "has 3");
    expect_refused(&sink, (struct opt_segment){ .offset = 1, .count = 2 }, 0,
                   OPT_INTERNAL, "blocks");
    expect_refused(
        &sink, (struct opt_segment){ .tensor = 1, .offset = 4 * OPT_BLOCK, .count = 1 },
        0, OPT_INTERNAL, "elements");
    expect_refused(&sink,
                   (struct opt_segment){ .tensor = 1,
                                         .offset = UINT64_MAX - OPT_BLOCK + 1,
                                         .count = OPT_BLOCK },
                   0, OPT_INTERNAL, "elements");
    expect_refused(&sink, (struct opt_segment){ .tensor = 1, .count = UINT64_MAX }, 4,
                   OPT_INTERNAL, "elements");
    expect_refused(&sink, (struct opt_segment){ .tensor = 1, .count = 100 }, 0,
                   OPT_INTERNAL, "inside");
    expect_refused(&sink, (struct opt_segment){ .count = 3 }, 8, OPT_DATA_LOSS,
                   "8 bytes");
    sink_fini(&sink);
}

Test(sink, refuses_another_dtype_and_another_step)
{
    struct sink sink = sink_of(all, 3);
    struct opt_error error;
    struct opt_segment segment = { .count = 3 };
    struct opt_pull_reply reply = {
        .step = 1, .dtype = OPT_BF16, .segments = &segment, .segment_count = 1
    };
    cr_assert_eq(sink_accept(&sink, &reply, 6, OPT_FP32, &error), OPT_INTERNAL);
    cr_assert(strstr(error.text, "bf16 instead of fp32") != NULL, "%s", error.text);
    cr_assert_eq(accept_of(&sink, &segment, 1, 4, 0, &error), OPT_OK);
    struct opt_segment other = { .tensor = 2, .count = 2 };
    cr_assert_eq(accept_of(&sink, &other, 1, 5, 0, &error), OPT_DATA_LOSS);
    cr_assert(strstr(error.text, "step 4") != NULL, "%s", error.text);
    sink_fini(&sink);
}

/* A frame without values that says that these have not changed. */
static enum opt_status leave_out(struct sink *sink, const struct opt_segment *unchanged,
                                 size_t count, struct opt_error *error)
{
    struct opt_pull_reply reply = { .step = 7,
                                    .unchanged = unchanged,
                                    .unchanged_count = count };
    return sink_accept(sink, &reply, 0, OPT_FP32, error);
}

Test(sink, counts_what_has_not_changed_as_come)
{
    struct sink sink = sink_of(all, 3);
    struct opt_error error;
    sink.may_stay = true;
    cr_assert(sink_begin(&sink, OPT_BLOCK));
    struct opt_segment same[] = {
        { .count = 3 }, { .tensor = 1, .offset = OPT_BLOCK, .count = OPT_BLOCK }
    };
    struct opt_segment changed[] = {
        { .tensor = 1, .count = OPT_BLOCK },
        { .tensor = 1, .offset = 2 * OPT_BLOCK, .count = OPT_BLOCK + 5 },
        { .tensor = 2, .count = 2 }
    };
    cr_assert_eq(leave_out(&sink, same, 2, &error), OPT_OK, "%s", error.text);
    cr_assert_not(sink_full(&sink));
    cr_assert_eq(accept_of(&sink, changed, 3, 7, 0, &error), OPT_OK);
    cr_assert(sink_full(&sink));
    cr_assert_eq(sink.unchanged, OPT_BLOCK + 3);
    cr_assert(sink_begin(&sink, OPT_BLOCK));
    cr_assert_eq(sink.unchanged, 0);
    sink_fini(&sink);
}

Test(sink, refuses_what_cannot_have_stayed)
{
    static const uint64_t one_sparse[] = { 0, 0, 1 };
    static const uint32_t row[] = { 1 };
    const struct optclient_values some[] = {
        { .tensor = 2, .values = last, .rows = row, .row_count = 1 },
        { .tensor = 0, .values = small }
    };
    struct sink sink;
    struct opt_error error;
    cr_assert_eq(sink_init(&sink, some, 2, elements, one_sparse, 3, &error), OPT_OK);
    cr_assert(sink_begin(&sink, OPT_BLOCK));
    const struct opt_segment first = { .count = 3 };
    cr_assert_eq(leave_out(&sink, &first, 1, &error), OPT_INTERNAL);
    cr_assert(strstr(error.text, "not told that they are here") != NULL, "%s",
              error.text);
    sink.may_stay = true;
    sink.listed = true;
    cr_assert_eq(leave_out(&sink, &(struct opt_segment){ .tensor = 1, .count = LARGE },
                           1, &error),
                 OPT_INTERNAL);
    cr_assert(strstr(error.text, "tensor 1 as unchanged, which was not asked") != NULL,
              "%s", error.text);
    cr_assert_eq(
        leave_out(&sink, &(struct opt_segment){ .tensor = 2, .count = 2 }, 1, &error),
        OPT_INTERNAL);
    cr_assert(strstr(error.text, "instead of rows") != NULL, "%s", error.text);
    cr_assert_eq(
        leave_out(&sink, &(struct opt_segment){ .tensor = 3, .count = 1 }, 1, &error),
        OPT_INTERNAL);
    cr_assert_eq(leave_out(&sink, &(struct opt_segment){ .count = 4 }, 1, &error),
                 OPT_INTERNAL);
    cr_assert_eq(leave_out(&sink, &first, 1, &error), OPT_OK);
    cr_assert_eq(leave_out(&sink, &first, 1, &error), OPT_INTERNAL);
    cr_assert(strstr(error.text, "twice") != NULL, "%s", error.text);
    /* All tensors were asked for because the list would have been too long. */
    sink.listed = false;
    cr_assert_eq(leave_out(&sink, &(struct opt_segment){ .tensor = 1, .count = LARGE },
                           1, &error),
                 OPT_OK);
    cr_assert_eq(sink.unchanged, 3);
    sink_fini(&sink);
}

Test(sink, refuses_a_tensor_named_twice)
{
    const struct optclient_values twice[] = { { .tensor = 2, .values = last },
                                              { .tensor = 0, .values = small },
                                              { .tensor = 2, .values = last } };
    struct sink sink;
    struct opt_error error;
    cr_assert_eq(sink_init(&sink, twice, 3, elements, dense, 3, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert(strstr(error.text, "values[0] and values[2]") != NULL, "%s", error.text);
    sink_fini(&sink);
}

Test(sink, spreads_several_segments_and_drops_what_is_not_wanted)
{
    const struct optclient_values some[] = { { .tensor = 2, .values = last },
                                             { .tensor = 0, .values = small } };
    struct sink sink = sink_of(some, 2);
    cr_assert_not(sink_wants_all(&sink));
    struct opt_segment segments[] = { { .count = 3 },
                                      { .tensor = 1, .count = OPT_BLOCK },
                                      { .tensor = 2, .count = 2 } };
    struct opt_pull_reply reply = { .segments = segments, .segment_count = 3 };
    size_t count = 3 + OPT_BLOCK + 2;
    float *data = malloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        data[i] = (float)i;
    }
    struct opt_error error;
    cr_assert_eq(sink_accept(&sink, &reply, count * sizeof(float), OPT_FP32, &error),
                 OPT_OK);
    cr_assert(sink_full(&sink));
    cr_assert_null(sink_place(&sink, &reply));
    sink_spread(&sink, &reply, (const uint8_t *)data);
    cr_assert_eq(small[2], 2.0f);
    cr_assert_eq(last[0], (float)(3 + OPT_BLOCK));
    cr_assert_eq(large[0], 0.0f);
    free(data);
    sink_fini(&sink);
}

Test(sink, gives_the_callers_memory_for_segments_that_follow_each_other_there)
{
    static float flat[3 + LARGE + 2];
    const struct optclient_values cut[] = { { .tensor = 0, .values = flat },
                                            { .tensor = 1, .values = flat + 3 },
                                            { .tensor = 2,
                                              .values = flat + 3 + LARGE } };
    struct sink sink = sink_of(cut, 3);
    struct opt_segment segments[] = {
        { .tensor = 0, .count = 3 },
        { .tensor = 1, .count = 2 * OPT_BLOCK },
        { .tensor = 2, .count = 2 },
    };
    struct opt_pull_reply reply = { .segments = segments, .segment_count = 2 };
    cr_assert_eq((void *)sink_place(&sink, &reply), (void *)flat);
    reply.segment_count = 3;
    cr_assert_null(sink_place(&sink, &reply), "the end of tensor 1 is between them");
    segments[1] = (struct opt_segment){ .tensor = 1,
                                        .offset = 2 * OPT_BLOCK,
                                        .count = OPT_BLOCK + 5 };
    reply.segments = segments + 1;
    reply.segment_count = 2;
    cr_assert_eq((void *)sink_place(&sink, &reply), (void *)(flat + 3 + 2 * OPT_BLOCK));
    sink_fini(&sink);
}

Test(sink, gives_the_callers_memory_for_a_single_fp32_segment)
{
    struct sink sink = sink_of(all, 3);
    struct opt_segment segment = { .tensor = 1,
                                   .offset = OPT_BLOCK,
                                   .count = OPT_BLOCK };
    struct opt_pull_reply reply = { .segments = &segment, .segment_count = 1 };
    cr_assert_eq((void *)sink_place(&sink, &reply), (void *)(large + OPT_BLOCK));
    reply.dtype = OPT_BF16;
    cr_assert_null(sink_place(&sink, &reply));
    sink_fini(&sink);
}
