/* test_lookahead — synchronisations in the engine: of all tensors of the model, and
 * beside what readers hold. What is computed is judged by test_rules.c and the golden
 * cases.
 */
#include <criterion/criterion.h>

#include "tests/support/engine_harness.h"

enum { FIRST = 3, SECOND = 2, ALL = FIRST + SECOND };

static const uint64_t first_shape[] = { FIRST }, second_shape[] = { SECOND };
static const struct opt_tensor_entry tensors[] = {
    { .name = "first", .shape = first_shape, .rank = 1, .elements = FIRST },
    { .name = "second", .shape = second_shape, .rank = 1, .elements = SECOND },
};
static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const char spec[] = "sgd(lr=1) + lookahead(2, alpha=0.5)";

/* A gradient of ones for the first so many tensors. */
static void push_ones(const struct caller *caller, uint32_t model, uint64_t sequence,
                      size_t count)
{
    static const float ones[ALL] = { 1, 1, 1, 1, 1 };
    const struct opt_segment segments[] = {
        { .tensor = 0, .count = FIRST },
        { .tensor = 1, .count = SECOND },
    };
    size_t n = count == 1 ? FIRST : ALL;
    struct letter *letter =
        letter_ask(caller, push_letter(caller, model, sequence, OPT_FP32, segments,
                                       count, ones, n * sizeof *ones));

    cr_assert(reply_status(letter) == OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

static void expect(const float *values, float first, float second)
{
    for (size_t i = 0; i < ALL; i++) {
        cr_expect_eq(values[i], i < FIRST ? first : second, "element %zu: %g", i,
                     (double)values[i]);
    }
}

static void expect_view(const struct caller *caller, uint32_t model, enum opt_view view,
                        float first, float second)
{
    float values[ALL];

    cr_assert_eq(model_pull(caller, model, view, "", values, ALL), 2);
    expect(values, first, second);
}

Test(lookahead, synchronises_tensors_that_the_update_lacks)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", spec, sync_shrink, tensors, 2, NULL);

    push_ones(&a, model, 1, 2);
    push_ones(&a, model, 2, 1);
    expect_view(&a, model, OPT_VIEW_TRAIN, -1, -0.5f);
    expect_view(&a, model, OPT_VIEW_EVAL, -1, -0.5f);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lookahead, leaves_alone_what_a_reader_holds)
{
    struct harness harness;
    float values[ALL];
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", spec, sync_shrink, tensors, 2, NULL);

    push_ones(&a, model, 1, 2);
    struct letter *held = letter_ask(&a, pull_letter(&a, model, OPT_VIEW_TRAIN, ""));
    push_ones(&a, model, 2, 2);
    cr_assert_eq(pieces_copy(held, values, ALL), ALL);
    expect(values, -1, -1);
    expect_view(&a, model, OPT_VIEW_TRAIN, -1, -1);
    expect_view(&a, model, OPT_VIEW_EVAL, -1, -1);
    harness_free(held);
    caller_gone(&a, false);
    harness_close(&harness);
}
