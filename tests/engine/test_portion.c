/* test_portion — blocks of an update at work: gradients that their worker can still
 * write are read as if they were not finite where they are not any more, and are never
 * written.
 *
 * Two workers; the first one's push waits for the second one's, and meanwhile the test
 * makes its memory what a hostile worker would.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/workers/membership.h"
#include "tests/support/engine_harness.h"
#include "tests/support/toy.h"

/* One tensor of both passes by one thread, one that takes the whole team. */
enum { SMALL = 3 * OPT_BLOCK + 5, LARGE = TEAM_DIRECTION + OPT_BLOCK + 9 };
enum { ELEMENTS = SMALL + LARGE, ROUNDS = 3, EVERY = 1001 };
static const uint64_t shape_small[] = { SMALL }, shape_large[] = { LARGE };
static const struct opt_tensor_entry tensors[] = {
    { .name = "small", .shape = shape_small, .rank = 1, .elements = SMALL },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
};
static const struct opt_segment segments[] = { { .tensor = 0 }, { .tensor = 1 } };

static struct letter *push_of(const struct caller *caller, uint32_t model,
                              uint64_t round, enum opt_dtype dtype,
                              const float *gradient)
{
    size_t size = ELEMENTS * opt_dtype_size(dtype);
    void *values = malloc(size);
    cr_assert_not_null(values);
    opt_dtype_narrow(dtype, gradient, values, ELEMENTS);
    struct letter *letter =
        push_letter(caller, model, round, dtype, segments, 2, values, size);
    free(values);
    return letter;
}

/* Somebody writes into the data of a push that waits. */
static void change(struct letter *letter, enum opt_dtype dtype, float value)
{
    size_t size = opt_dtype_size(dtype);
    for (size_t i = 0; i < ELEMENTS; i += EVERY) {
        opt_dtype_narrow(dtype, &value, letter->data + i * size, 1);
    }
}

/* One round: a push that waits, what the other worker does to it, and a push of its
 * own. */
static void run_round(struct harness *harness, const struct caller *first,
                      const struct caller *second, uint32_t model, uint64_t round,
                      enum opt_dtype dtype, bool shared)
{
    static float values[ELEMENTS];
    toy_fill(TOY_ORDINARY, 2 * round, values, ELEMENTS);
    struct letter *waits = push_of(first, model, round, dtype, values);
    letter_send(first, waits);
    cr_assert_not(letter_is_back(harness, waits));
    const struct model *of = harness->engine->numbered[0];
    struct push *push = of->members[of->members[0]->first != NULL ? 0 : 1]->first;
    cr_assert_neq(push->gradient.memory, GRADIENT_SHARED);
    push->gradient.memory = shared ? GRADIENT_SHARED : GRADIENT_OWN;
    change(waits, dtype, !shared ? 0.0f : round % 2 == 0 ? NAN : -INFINITY);
    size_t size = waits->data_size;
    const void *data = waits->data;
    void *before = malloc(size);
    cr_assert_not_null(before);
    memcpy(before, data, size);

    toy_fill(TOY_ORDINARY, 2 * round + 1, values, ELEMENTS);
    struct letter *other =
        letter_ask(second, push_of(second, model, round, dtype, values));
    cr_assert_eq(reply_status(other), OPT_OK, "%s", reply_text(other));
    waits = letter_await(harness, waits);
    cr_assert_eq(reply_status(waits), OPT_OK, "%s", reply_text(waits));
    cr_assert(waits->data == data && waits->data_size == size);
    cr_assert(!shared || memcmp(before, data, size) == 0);
    free(before);
    harness_free(other);
    harness_free(waits);
}

/* Train; the first worker's gradients are shared and not finite at some places, or as
 * private as ever and 0 there. */
static void train(const char *const names[2], const char *spec, enum opt_dtype dtype,
                  bool shared, float *w)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller first = caller_new(&harness, names[0], 1);
    struct caller second = caller_new(&harness, names[1], 2);
    toy_fill(TOY_ORDINARY, 1, w, ELEMENTS);
    uint32_t model =
        model_create(&first, "m", spec, (struct opt_consistency){ 0 }, tensors, 2, w);
    cr_assert_eq(model_join(&second, "m"), model);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        run_round(&harness, &first, &second, model, round, dtype, shared);
    }
    cr_assert_eq(model_pull(&first, model, OPT_VIEW_EVAL, NULL, w, ELEMENTS), ROUNDS);
    caller_gone(&first, false);
    caller_gone(&second, false);
    harness_close(&harness);
}

Test(portion, shared_gradients_are_not_written_and_count_as_0_where_not_finite,
     .timeout = 120)
{
    static const char *const specs[] = { "adam", "lamb", "lars",
                                         "lars2017 + clip(global_norm, 1)",
                                         "sgd + aggregate(sum)" };
    static const char *const orders[][2] = { { "a", "b" }, { "b", "a" } };
    static float w[2][ELEMENTS];
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        for (size_t order = 0; order < 2; order++) {
            for (int dtype = 0; dtype < OPT_DTYPE_COUNT; dtype++) {
                for (int shared = 0; shared < 2; shared++) {
                    train(orders[order], specs[i], (enum opt_dtype)dtype, shared == 1,
                          w[shared]);
                }
                cr_assert(same_bits(w[0], w[1], ELEMENTS), "%s, %s, %s first", specs[i],
                          opt_dtype_name((enum opt_dtype)dtype), orders[order][0]);
            }
        }
    }
}

Test(portion, a_push_that_is_used_again_is_private_again)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller first = caller_new(&harness, "a", 1),
                  second = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&first, "m", "sgd", (struct opt_consistency){ 0 },
                                  tensors, 2, NULL);
    cr_assert_eq(model_join(&second, "m"), model);
    run_round(&harness, &first, &second, model, 1, OPT_FP32, true);
    const struct model *of = harness.engine->numbered[0];
    cr_assert_not_null(of->spare_pushes);
    for (const struct push *push = of->spare_pushes; push != NULL; push = push->next) {
        cr_assert_neq(push->gradient.memory, GRADIENT_SHARED);
    }
    caller_gone(&first, false);
    caller_gone(&second, false);
    harness_close(&harness);
}
