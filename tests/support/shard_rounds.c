#include "tests/support/shard_rounds.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t shape_first[] = { 4 }, shape_large[] = { STREAM_LARGE };
static const uint64_t shape_last[] = { 3 };
const struct opt_tensor_entry stream_tensors[3] = {
    { .name = "first", .shape = shape_first, .rank = 1, .elements = 4 },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = STREAM_LARGE },
    { .name = "last", .shape = shape_last, .rank = 1, .elements = 3 },
};
/* One frame each. */
const struct opt_segment stream_parts[STREAM_PARTS] = {
    { .tensor = 0, .count = 4 },
    { .tensor = 1, .count = OPT_SHARD },
    { .tensor = 1, .offset = OPT_SHARD, .count = OPT_SHARD },
    { .tensor = 1, .offset = 2 * OPT_SHARD, .count = OPT_BLOCK + 3 },
    { .tensor = 2, .count = 3 },
};
/* Where each begins in a pull of everything. */
const size_t stream_begins[STREAM_PARTS] = { 0, 4, 4 + OPT_SHARD, 4 + 2 * OPT_SHARD,
                                             4 + STREAM_LARGE };

struct opt_consistency stream_policy(enum opt_loss loss)
{
    return (struct opt_consistency){ .mode = OPT_SYNC,
                                     .loss = loss,
                                     .atomic = OPT_ATOMIC_SHARD };
}

struct pushing pushing_new(const struct caller *caller, uint32_t model,
                           uint64_t sequence)
{
    return (struct pushing){ .caller = caller, .model = model, .sequence = sequence };
}

struct letter *pushing_make(struct pushing *pushing, size_t part, float value,
                            bool last)
{
    size_t n = (size_t)stream_parts[part].count;
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = value;
    }
    struct letter *letter =
        push_letter(pushing->caller, pushing->model, pushing->sequence, OPT_FP32,
                    &stream_parts[part], 1, values, n * sizeof *values);
    free(values);
    if (pushing->frames == 0) {
        pushing->id = letter->request.id;
    }
    letter->request.id = pushing->id;
    letter->request.body.push.frame = pushing->frames++;
    letter->request.body.push.last = last;
    return letter;
}

struct letter *pushing_send(struct pushing *pushing, size_t part, float value,
                            bool last)
{
    struct letter *letter = pushing_make(pushing, part, value, last);
    letter_send(pushing->caller, letter);
    return letter;
}

struct letter *pushing_send_rest(struct pushing *pushing, size_t first, float value,
                                 struct letter *frames[STREAM_PARTS])
{
    for (size_t i = first; i + 1 < STREAM_PARTS; i++) {
        frames[i] = pushing_send(pushing, i, value, false);
    }
    return pushing_send(pushing, STREAM_PARTS - 1, value, true);
}

void pushing_take_back(struct harness *harness, struct letter *frames[STREAM_PARTS])
{
    for (size_t i = 0; i < STREAM_PARTS; i++) {
        if (frames[i] != NULL) {
            frames[i] = letter_await(harness, frames[i]);
            cr_expect(frames[i]->silent, "%s", reply_text(frames[i]));
            harness_free(frames[i]);
            frames[i] = NULL;
        }
    }
}

void stream_expect_weights(const struct caller *caller, uint32_t model, uint64_t step,
                           const float expected[STREAM_PARTS])
{
    float *weights = malloc(STREAM_ELEMENTS * sizeof *weights);
    cr_expect_eq(
        model_pull(caller, model, OPT_VIEW_TRAIN, "", weights, STREAM_ELEMENTS), step);
    for (size_t i = 0; i < STREAM_PARTS; i++) {
        for (size_t k = 0; k < stream_parts[i].count; k++) {
            float got = weights[stream_begins[i] + k];
            cr_assert(got == expected[i], "part %zu, element %zu is %g, not %g", i, k,
                      (double)got, (double)expected[i]);
        }
    }
    free(weights);
}

void stream_expect_applied(struct harness *harness, struct letter *letter,
                           uint64_t step)
{
    letter = letter_await(harness, letter);
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    cr_assert_eq(letter->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(letter->reply.body.push.step, step);
    harness_free(letter);
}

void stream_expect_error(struct harness *harness, struct letter *letter,
                         enum opt_status status, const char *says)
{
    letter = letter_await(harness, letter);
    cr_assert_eq(reply_status(letter), status, "%s", reply_text(letter));
    cr_assert(strstr(reply_text(letter), says) != NULL, "%s", reply_text(letter));
    harness_free(letter);
}

void two_open(struct two *two, enum opt_loss loss, const char *spec)
{
    struct engine_settings settings = harness_settings();
    settings.grace_ms = 20000;
    *two = (struct two){ 0 };
    harness_open(&two->harness, settings);
    two->a = caller_new(&two->harness, "a", 1);
    two->b = caller_new(&two->harness, "b", 2);
    two->reader = caller_new(&two->harness, "reader", 99);
    two->model =
        model_create(&two->a, "m", spec, stream_policy(loss), stream_tensors, 3, NULL);
    cr_assert_eq(model_join(&two->b, "m"), two->model);
    two->from_a = pushing_new(&two->a, two->model, 1);
    two->from_b = pushing_new(&two->b, two->model, 1);
}

void two_settle(const struct two *two)
{
    harness_free(letter_ask(&two->reader,
                            pull_letter(&two->reader, two->model, OPT_VIEW_TRAIN, "")));
}

void two_gone(const struct two *two, struct caller *caller, bool lease_expired)
{
    two_settle(two);
    caller_gone(caller, lease_expired);
}

void two_begin(struct two *two)
{
    for (size_t i = 0; i < 2; i++) {
        two->frames_a[i] = pushing_send(&two->from_a, i, 2, false);
        two->frames_b[i] = pushing_send(&two->from_b, i, 4, false);
    }
}

void two_close(struct two *two, bool a, bool b)
{
    if (a) {
        caller_gone(&two->a, true);
    }
    if (b) {
        caller_gone(&two->b, true);
    }
    caller_gone(&two->reader, false);
    pushing_take_back(&two->harness, two->frames_a);
    pushing_take_back(&two->harness, two->frames_b);
    harness_close(&two->harness);
}
