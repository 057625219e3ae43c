#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>

#include "client/cutter.h"

enum { SEGMENTS = OPT_SEGMENTS_MAX };

static const struct cutter_limits usual = { .data_bytes = OPT_CHUNK_BYTES,
                                            .header_bytes = 60 << 10,
                                            .block = OPT_BLOCK };

static struct cut cut_new(void)
{
    return (struct cut){ .segments = calloc(SEGMENTS, sizeof(struct opt_segment)),
                         .places = calloc(SEGMENTS, sizeof(float *)) };
}

static void cut_free(struct cut *cut)
{
    free(cut->segments);
    free(cut->places);
}

/* Cut everything: within the limits, each element once and in order, places right.
 * Returns the number of frames. */
static size_t cut_all(const uint64_t *elements, size_t count, enum opt_dtype dtype,
                      const struct cutter_limits *limits)
{
    static float base[1];
    struct optclient_values *values = calloc(count, sizeof(*values));
    for (size_t i = 0; i < count; i++) {
        values[i] = (struct optclient_values){ .tensor = i, .values = base };
    }
    struct cutter cutter;
    cutter_init(&cutter, values, count, elements, NULL, dtype);
    struct cut cut = cut_new();
    size_t tensor = 0;
    uint64_t offset = 0;
    size_t frames = 0;
    while (!cutter_done(&cutter)) {
        cr_assert_eq(cutter.frame, frames);
        cutter_next(&cutter, limits, &cut);
        cr_assert_gt(cut.count, 0);
        cr_assert_leq(cut.elements * opt_dtype_size(dtype), limits->data_bytes);
        size_t header = 0;
        for (size_t i = 0; i < cut.count; i++) {
            const struct opt_segment *segment = &cut.segments[i];
            cr_assert_eq(segment->tensor, tensor);
            cr_assert_eq(segment->offset, offset);
            cr_assert_eq((uintptr_t)cut.places[i],
                         (uintptr_t)base + offset * sizeof(float));
            header += cutter_segment_bytes(segment);
            offset += segment->count;
            cr_assert(offset == elements[tensor] || offset % limits->block == 0);
            if (offset == elements[tensor]) {
                tensor++;
                offset = 0;
            }
        }
        cr_assert(header <= limits->header_bytes || cut.count == 1);
        frames++;
    }
    cr_assert_eq(tensor, count);
    cut_free(&cut);
    free(values);
    return frames;
}

Test(cutter, puts_small_tensors_into_one_frame)
{
    uint64_t elements[100];
    for (size_t i = 0; i < 100; i++) {
        elements[i] = i + 1;
    }
    cr_assert_eq(cut_all(elements, 100, OPT_FP32, &usual), 1);
}

Test(cutter, streams_a_large_tensor_in_chunks_of_blocks)
{
    uint64_t elements[] = { (10u << 20) + 1 };
    cr_assert_eq(cut_all(elements, 1, OPT_FP32, &usual), 11);
    cr_assert_eq(cut_all(elements, 1, OPT_BF16, &usual), 6);
}

Test(cutter, fills_frames_with_the_begin_of_the_next_tensor)
{
    /* 3 MiB each. */
    uint64_t elements[] = { 786432, 786432, 786432, 786432 };
    cr_assert_eq(cut_all(elements, 4, OPT_FP32, &usual), 3);
    cr_assert_eq(cut_all(elements, 4, OPT_FP16, &usual), 2);
}

Test(cutter, does_not_split_a_tensor_where_its_values_would_not_be_aligned)
{
    uint64_t elements[] = { 786433, 786432, 786447, 786432 };
    cr_assert_eq(cut_all(elements, 4, OPT_FP32, &usual), 4);
}

Test(cutter, lets_small_ones_follow_the_end_of_a_large_one)
{
    uint64_t elements[] = { 3, (1u << 20) + 16384, 5, 7 };
    cr_assert_eq(cut_all(elements, 4, OPT_FP32, &usual), 3);
}

Test(cutter, keeps_to_the_most_segments_and_to_the_header)
{
    size_t count = 3 * SEGMENTS;
    uint64_t *elements = calloc(count, sizeof(*elements));
    for (size_t i = 0; i < count; i++) {
        elements[i] = 1;
    }
    cr_assert_eq(cut_all(elements, count, OPT_FP32, &usual), 3);
    struct cutter_limits narrow = usual;
    narrow.header_bytes = 4000;
    cr_assert_geq(cut_all(elements, count, OPT_FP32, &narrow), 20);
    free(elements);
}

Test(cutter, gets_on_whatever_the_sizes)
{
    unsigned seed = 1;
    for (int round = 0; round < 200; round++) {
        uint64_t elements[20];
        for (size_t i = 0; i < 20; i++) {
            seed = seed * 1664525u + 1013904223u;
            elements[i] = (seed >> 8) % (seed % 3 == 0 ? 3000000 : 20000) + 1;
        }
        struct cutter_limits limits = usual;
        limits.data_bytes =
            (size_t)OPT_BLOCK * sizeof(float) * (1 + seed % 5) + seed % 7777;
        cut_all(elements, 20, (enum opt_dtype)(round % 3), &limits);
    }
}

Test(cutter, starts_again)
{
    static float base[1];
    uint64_t elements[] = { 5000000 };
    struct optclient_values values = { .values = base };
    struct cutter cutter;
    struct cut cut = cut_new();
    cutter_init(&cutter, &values, 1, elements, NULL, OPT_FP32);
    cutter_next(&cutter, &usual, &cut);
    cutter_next(&cutter, &usual, &cut);
    cr_assert_eq(cut.segments[0].offset, 1u << 20);
    cutter_rewind(&cutter);
    cr_assert_eq(cutter.frame, 0);
    cutter_next(&cutter, &usual, &cut);
    cr_assert_eq(cut.segments[0].offset, 0);
    cut_free(&cut);
}
