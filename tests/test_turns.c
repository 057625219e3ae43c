/* test_turns — nobody holds up others: what the engine does before it looks for other
 * letters is bounded, whatever is asked of it.
 *
 * Judged by what the engine counts (engine_worked), not by a clock: the measure is one
 * element of an update, and so much of it takes about a millisecond. bench_optimd shows
 * what it is in milliseconds.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/desk.h"

enum { MOST = 5 << 18 }; /* about a millisecond, and what is begun before it is over */

static const struct opt_consistency alone = { .mode = OPT_ASYNC };

static void expect_short_turns(const struct caller *caller, const char *what)
{
    uint64_t most = statistic(caller, "turn_cost_most");
    cr_expect_leq(most, MOST, "%s: a turn of %llu", what, (unsigned long long)most);
}

/* A model of so many tensors of n elements each. */
static uint32_t make_tensors(const struct caller *caller, const char *spec,
                             size_t count, size_t n)
{
    struct opt_tensor_entry *tensors = calloc(count, sizeof *tensors);
    char(*names)[16] = calloc(count, sizeof *names);
    uint64_t shape[] = { n };
    cr_assert(tensors != NULL && names != NULL);
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = shape, .rank = 1, .elements = n
        };
    }
    uint32_t model = model_create(caller, "m", spec, alone, tensors, count, NULL);
    free(tensors);
    free(names);
    return model;
}

/* Push ones for the first so many tensors of n elements. */
static void push_first(const struct caller *caller, uint32_t model, uint64_t sequence,
                       size_t count, size_t n)
{
    struct opt_segment *segments = calloc(count, sizeof *segments);
    float *ones = malloc(count * n * sizeof *ones);
    cr_assert(segments != NULL && ones != NULL);
    for (size_t i = 0; i < count; i++) {
        segments[i] = (struct opt_segment){ .tensor = (uint32_t)i, .count = n };
    }
    for (size_t i = 0; i < count * n; i++) {
        ones[i] = 1;
    }
    struct letter *letter =
        letter_ask(caller, push_letter(caller, model, sequence, OPT_FP32, segments,
                                       count, ones, count * n * sizeof *ones));
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    desk_free(letter);
    free(segments);
    free(ones);
}

Test(turns, are_short_when_a_small_push_moves_all_slow_weights)
{
    enum { TENSORS = 12, ELEMENTS = 1 << 20, PUSHES = 6 };
    struct desk desk;
    desk_open(&desk, desk_settings());
    struct caller a = caller_new(&desk, "a", 1);
    uint32_t model = make_tensors(&a, "sgd + lookahead(2)", TENSORS, ELEMENTS);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        push_first(&a, model, i, 1, ELEMENTS);
    }
    expect_short_turns(&a, "lookahead");
    caller_gone(&a, false);
    desk_close(&desk);
}

Test(turns, are_short_when_a_push_has_very_many_small_tensors)
{
    static const char *const specs[] = { "sgd", "lamb", "adam + clip(global_norm, 1)",
                                         "adam + lookahead(2)" };
    enum { TENSORS = 20000, PUSHES = 2 };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct desk desk;
        desk_open(&desk, desk_settings());
        struct caller a = caller_new(&desk, "a", 1);
        uint32_t model = make_tensors(&a, specs[i], TENSORS, 1);
        for (uint64_t k = 1; k <= PUSHES; k++) {
            push_first(&a, model, k, TENSORS, 1);
        }
        expect_short_turns(&a, specs[i]);
        caller_gone(&a, false);
        desk_close(&desk);
    }
}
