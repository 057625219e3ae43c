/* round — who has pushed what, and when that becomes an update. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};

static enum opt_fate fate_of(const struct letter *letter)
{
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    return letter->reply.body.push.fate;
}

Test(round, closes_when_the_only_worker_has_pushed)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float start[4] = { 1, 2, 3, 4 };
    uint32_t model = model_create(&a, "m", "sgd(lr=0.5)", sync_shrink, &four, 1, start);
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f));
    cr_assert(fate_of(push) == OPT_FATE_APPLIED);
    cr_assert(push->reply.body.push.step == 1);
    float weights[4];
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4) == 1);
    for (size_t i = 0; i < 4; i++) {
        cr_assert(weights[i] == start[i] - 0.5f);
    }
    harness_free(push);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, waits_for_every_joined_worker)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    cr_assert(model_join(&b, "m") == model);
    struct letter *first = push_constant(&a, model, 1, 4, 1.0f);
    letter_send(&a, first);
    cr_assert(!letter_is_back(&harness, first));
    struct letter *second = letter_ask(&b, push_constant(&b, model, 1, 4, 3.0f));
    first = letter_await(&harness, first);
    cr_assert(fate_of(first) == OPT_FATE_APPLIED &&
              fate_of(second) == OPT_FATE_APPLIED);
    float weights[4];
    cr_assert(model_pull(&b, model, OPT_VIEW_TRAIN, "", weights, 4) == 1);
    cr_assert(weights[0] == -2.0f, "the mean of 1 and 3");
    harness_free(first);
    harness_free(second);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, applies_every_push_at_once_in_async_mode)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model =
        model_create(&a, "m", "sgd(lr=1)",
                     (struct opt_consistency){ .mode = OPT_ASYNC }, &four, 1, NULL);
    model_join(&b, "m");
    for (uint64_t i = 1; i <= 3; i++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, 4, 1.0f));
        cr_assert(fate_of(push) == OPT_FATE_APPLIED);
        cr_assert(push->reply.body.push.step == i);
        cr_assert(push->reply.body.push.staleness == i - 1, "all are based on step 0");
        harness_free(push);
    }
    float weights[4];
    cr_assert(model_pull(&b, model, OPT_VIEW_TRAIN, "", weights, 4) == 3);
    cr_assert(weights[3] == -3.0f);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, answers_a_sequence_that_was_applied_as_duplicate)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    harness_free(letter_ask(&a, push_constant(&a, model, 5, 4, 1.0f)));
    harness_free(letter_ask(&a, push_constant(&a, model, 6, 4, 0.0f)));
    struct letter *again = letter_ask(&a, push_constant(&a, model, 5, 4, 9.f));
    cr_assert(fate_of(again) == OPT_FATE_DUPLICATE);
    cr_assert(again->reply.body.push.step == 1, "the update it was part of");
    harness_free(again);
    /* A push_pull that is known answers its pull all the same. */
    struct letter *both = push_constant(&a, model, 5, 4, 9.f);
    struct opt_push push = both->request.body.push;
    both->request.message = OPT_MESSAGE_PUSH_PULL;
    both->request.body.push_pull = (struct opt_push_pull){
        .push = push, .pull = { .model = model, .slot = "" }, .has_pull = true
    };
    both = letter_ask(&a, both);
    cr_assert(both->reply.message == OPT_MESSAGE_PUSH_PULL);
    cr_assert(both->reply.body.push_pull.push.fate == OPT_FATE_DUPLICATE);
    cr_assert(both->piece_count == 1 && both->pieces[0].values[0] == -1.0f);
    harness_free(both);
    cr_assert(statistic(&a, "pushes_applied") == 2);
    cr_assert(statistic(&a, "pushes_duplicate") == 2);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, moves_the_answer_to_a_push_that_is_sent_again)
{
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.grace_ms = 10000;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *first = push_constant(&a, model, 1, 4, 2.0f);
    letter_send(&a, first);
    caller_gone(&a, false);
    struct caller again = caller_new(&harness, "a", 1);
    struct letter *second = push_constant(&again, model, 1, 4, 100.0f);
    letter_send(&again, second);
    cr_assert(!letter_is_back(&harness, second));
    harness_free(letter_ask(&b, push_constant(&b, model, 1, 4, 4.0f)));
    first = letter_await(&harness, first);
    second = letter_await(&harness, second);
    cr_assert(first->silent && !second->silent);
    cr_assert(fate_of(second) == OPT_FATE_APPLIED);
    float weights[4];
    model_pull(&b, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_assert(weights[0] == -3.0f, "the first copy's data count: %g",
              (double)weights[0]);
    harness_free(first);
    harness_free(second);
    caller_gone(&again, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, rejects_a_gradient_that_is_not_finite_by_element)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    float values[4] = { 1, 2, NAN, INFINITY };
    struct opt_segment segment = { .tensor = 0 };
    struct letter *push = letter_ask(
        &a, push_letter(&a, model, 1, OPT_FP32, &segment, 1, values, sizeof values));
    cr_assert(reply_status(push) == OPT_INVALID_ARGUMENT);
    cr_assert(strstr(reply_text(push), "\"w\"") != NULL);
    cr_assert(strstr(reply_text(push), "element 2") != NULL, "%s", reply_text(push));
    harness_free(push);
    /* It is settled: whatever comes under its number is not applied. */
    push = letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f));
    cr_assert(reply_status(push) == OPT_INVALID_ARGUMENT, "%s", reply_text(push));
    harness_free(push);
    push = letter_ask(&a, push_constant(&a, model, 2, 4, 1.0f));
    cr_assert(fate_of(push) == OPT_FATE_APPLIED && push->reply.body.push.step == 1);
    harness_free(push);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, skips_a_whole_round_with_a_gradient_that_is_not_finite)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "adam(lr=1) + nonfinite(skip)", sync_shrink,
                                  &four, 1, NULL);
    model_join(&b, "m");
    struct letter *bad = push_constant(&a, model, 1, 4, NAN);
    letter_send(&a, bad);
    struct letter *good = letter_ask(&b, push_constant(&b, model, 1, 4, 1.0f));
    bad = letter_await(&harness, bad);
    cr_assert(fate_of(bad) == OPT_FATE_SKIPPED && fate_of(good) == OPT_FATE_SKIPPED);
    cr_assert(good->reply.body.push.step == 0);
    harness_free(bad);
    harness_free(good);
    float slot[4];
    cr_assert(model_pull(&a, model, OPT_VIEW_SLOT, "exp_avg", slot, 4) == 0);
    cr_assert(slot[0] == 0.0f);
    cr_assert(statistic(&a, "rounds_skipped") == 1);
    /* Sent again, its fate is the same. */
    struct letter *again = letter_ask(&b, push_constant(&b, model, 1, 4, 1.0f));
    cr_assert(fate_of(again) == OPT_FATE_SKIPPED);
    harness_free(again);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, lets_what_is_not_finite_through_if_asked_to)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1) + nonfinite(propagate)",
                                  sync_shrink, &four, 1, NULL);
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, 4, NAN));
    cr_assert(fate_of(push) == OPT_FATE_APPLIED);
    float weights[4];
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_assert(isnan(weights[0]));
    harness_free(push);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, refuses_a_sum_that_overflows_and_changes_nothing)
{
    enum { N = 2 * OPT_BLOCK + 5, AT = N - 2 };
    static float values[N];
    const uint64_t shape[] = { N };
    const struct opt_tensor_entry long_one = {
        .name = "w", .shape = shape, .rank = 1, .elements = N
    };
    const struct opt_segment all = { .count = N };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1) + aggregate(sum)", sync_shrink,
                                  &long_one, 1, NULL);
    model_join(&b, "m");
    values[0] = 1;
    values[AT] = 3e38f;
    struct letter *first =
        push_letter(&a, model, 1, OPT_FP32, &all, 1, values, sizeof values);
    letter_send(&a, first);
    struct letter *second = letter_ask(
        &b, push_letter(&b, model, 1, OPT_FP32, &all, 1, values, sizeof values));
    first = letter_await(&harness, first);
    cr_assert(reply_status(first) == OPT_INVALID_ARGUMENT, "%s", reply_text(first));
    cr_assert(reply_status(second) == OPT_INVALID_ARGUMENT);
    cr_assert(strstr(reply_text(first), "element 32771 of tensor \"w\"") != NULL, "%s",
              reply_text(first));
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", values, N) == 0);
    cr_assert(values[0] == 0.0f && values[AT] == 0.0f);
    harness_free(first);
    harness_free(second);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, names_the_workers_that_are_missing_at_the_deadline)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "ann", 1),
                  b = caller_new(&harness, "bob", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *push = push_constant(&a, model, 1, 4, 1.0f);
    push->request.timeout_ms = 50;
    push = letter_ask(&a, push);
    cr_assert(reply_status(push) == OPT_DEADLINE_EXCEEDED);
    cr_assert(strstr(reply_text(push), "\"bob\"") != NULL, "%s", reply_text(push));
    cr_assert(strstr(reply_text(push), "\"ann\"") == NULL, "%s", reply_text(push));
    harness_free(push);
    /* It was withdrawn: bob's push alone does not close the round, ann's new one does.
     */
    struct letter *bob = push_constant(&b, model, 1, 4, 1.0f);
    letter_send(&b, bob);
    cr_assert(!letter_is_back(&harness, bob));
    harness_free(letter_ask(&a, push_constant(&a, model, 2, 4, 3.0f)));
    bob = letter_await(&harness, bob);
    cr_assert(fate_of(bob) == OPT_FATE_APPLIED && bob->reply.body.push.step == 1);
    harness_free(bob);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, waits_until_min_workers_have_come_together)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency two = { .mode = OPT_SYNC, .min_workers = 2 };
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", two, &four, 1, NULL);
    struct letter *early = push_constant(&a, model, 1, 4, 1.0f);
    early->request.timeout_ms = 50;
    early = letter_ask(&a, early);
    cr_assert(reply_status(early) == OPT_DEADLINE_EXCEEDED);
    cr_assert(strstr(reply_text(early), "waits for 2 workers, 1 ha") != NULL, "%s",
              reply_text(early));
    harness_free(early);
    struct letter *first = push_constant(&a, model, 2, 4, 1.0f);
    letter_send(&a, first);
    model_join(&b, "m");
    cr_assert(!letter_is_back(&harness, first));
    harness_free(letter_ask(&b, push_constant(&b, model, 1, 4, 1.0f)));
    harness_free(letter_await(&harness, first));
    /* Training has begun: the one that is left goes on alone. */
    caller_gone(&b, true);
    struct letter *alone = letter_ask(&a, push_constant(&a, model, 3, 4, 1.0f));
    cr_assert(fate_of(alone) == OPT_FATE_APPLIED);
    harness_free(alone);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- frames */

enum { LARGE = 3 * OPT_BLOCK + 5 };
static const uint64_t shape_large[] = { LARGE };
static const struct opt_tensor_entry two[] = {
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
    { .name = "small", .shape = shape4, .rank = 1, .elements = 4 },
};

static struct letter *frame(const struct caller *caller, uint32_t model, uint64_t id,
                            uint64_t sequence, uint32_t number, bool last,
                            struct opt_segment segment, size_t count)
{
    static const float zeros[LARGE];
    struct letter *letter = push_letter(caller, model, sequence, OPT_FP32, &segment, 1,
                                        zeros, count * sizeof(float));
    letter->request.id = id;
    letter->request.body.push.frame = number;
    letter->request.body.push.last = last;
    return letter;
}

struct refusal {
    struct opt_segment segment;
    size_t count;
    enum opt_status status;
    const char *says;
};

Test(round, refuses_segments_that_do_not_fit_and_keeps_nothing)
{
    static const struct refusal refusals[] = {
        { { .tensor = 2 }, 4, OPT_NOT_FOUND, "no tensor 2" },
        { { .offset = 1 }, 4, OPT_INVALID_ARGUMENT, "starts at element 1" },
        { { .offset = 4 * OPT_BLOCK }, 4, OPT_INVALID_ARGUMENT, "below 49157" },
        { { .count = 100 }, 100, OPT_INVALID_ARGUMENT, "100 elements" },
        { { .count = LARGE + 1 }, LARGE, OPT_INVALID_ARGUMENT, "49158 elements" },
        { { .count = 0 }, 4, OPT_INVALID_ARGUMENT, "data has 16" },
        { { .count = OPT_BLOCK }, OPT_BLOCK, OPT_INVALID_ARGUMENT, "only a part" },
    };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, two, 2, NULL);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *refusal = &refusals[i];
        struct letter *push = letter_ask(&a, frame(&a, model, 1000 + i, i + 1, 0, true,
                                                   refusal->segment, refusal->count));
        cr_assert(reply_status(push) == refusal->status, "case %zu: %s", i,
                  reply_text(push));
        cr_assert(strstr(reply_text(push), refusal->says) != NULL, "case %zu: %s", i,
                  reply_text(push));
        harness_free(push);
    }
    struct letter *good = letter_ask(&a, frame(&a, model, 2000, 99, 0, true,
                                               (struct opt_segment){ .tensor = 1 }, 4));
    cr_assert(fate_of(good) == OPT_FATE_APPLIED);
    harness_free(good);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, answers_a_push_once_however_many_of_its_frames_are_wrong)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, two, 2, NULL);
    struct letter *frames[4] = {
        frame(&a, model, 77, 1, 0, false, (struct opt_segment){ .count = OPT_BLOCK },
              OPT_BLOCK),
        frame(&a, model, 77, 1, 1, false, (struct opt_segment){ .count = OPT_BLOCK },
              OPT_BLOCK),
        frame(&a, model, 77, 1, 2, false, (struct opt_segment){ .tensor = 5 }, 4),
        frame(&a, model, 77, 1, 3, true, (struct opt_segment){ .tensor = 1 }, 4),
    };
    for (size_t i = 0; i < 4; i++) {
        letter_send(&a, frames[i]);
    }
    size_t answers = 0;
    for (size_t i = 0; i < 4; i++) {
        frames[i] = letter_await(&harness, frames[i]);
        answers += !frames[i]->silent;
    }
    cr_assert(answers == 1);
    cr_assert(!frames[1]->silent, "the frame that was wrong");
    cr_assert(strstr(reply_text(frames[1]), "twice") != NULL, "%s",
              reply_text(frames[1]));
    for (size_t i = 0; i < 4; i++) {
        harness_free(frames[i]);
    }
    /* The same for a model that is not there. */
    for (uint32_t i = 0; i < 3; i++) {
        frames[i] = letter_ask(&a, frame(&a, model + 1, 78, 1, i, i == 2,
                                         (struct opt_segment){ .tensor = 1 }, 4));
        cr_assert(frames[i]->silent == (i > 0));
        harness_free(frames[i]);
    }
    /* And for a frame that belongs to nothing. */
    struct letter *stray = letter_ask(
        &a, frame(&a, model, 79, 1, 1, true, (struct opt_segment){ .tensor = 1 }, 4));
    cr_assert(reply_status(stray) == OPT_INVALID_ARGUMENT);
    harness_free(stray);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(round, drops_half_a_push_with_its_connection)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, two, 2, NULL);
    model_join(&b, "m");
    struct letter *half =
        frame(&a, model, 5, 1, 0, false, (struct opt_segment){ .tensor = 1 }, 4);
    letter_send(&a, half);
    caller_gone(&a, false);
    half = letter_await(&harness, half);
    cr_assert(half->silent);
    harness_free(half);
    /* The grace is 0: the round goes on without it. */
    struct letter *push = letter_ask(
        &b, frame(&b, model, 6, 1, 0, true, (struct opt_segment){ .tensor = 1 }, 4));
    cr_assert(fate_of(push) == OPT_FATE_APPLIED);
    harness_free(push);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, updates_only_the_tensors_that_are_named)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, two, 2, NULL);
    model_join(&b, "m");
    float ones[4] = { 1, 1, 1, 1 }, *many = calloc(LARGE, sizeof *many);
    float *weights = malloc((LARGE + 4) * sizeof *weights);
    many[7] = 4;
    struct opt_segment small = { .tensor = 1 }, large = { .tensor = 0 };
    struct letter *first =
        push_letter(&a, model, 1, OPT_FP32, &small, 1, ones, sizeof ones);
    letter_send(&a, first);
    struct opt_segment both[] = { large, small };
    float *all = calloc(LARGE + 4, sizeof *all);
    memcpy(all, many, LARGE * sizeof *many);
    all[LARGE] = 3;
    harness_free(letter_ask(&b, push_letter(&b, model, 1, OPT_FP32, both, 2, all,
                                            (LARGE + 4) * sizeof *all)));
    harness_free(letter_await(&harness, first));
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, LARGE + 4);
    cr_assert(weights[7] == -4.0f, "the mean over the one who has it");
    cr_assert(weights[LARGE] == -2.0f, "the mean over both");
    free(many);
    free(all);
    free(weights);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(round, takes_one_push_of_each_worker_in_order)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *ahead[3];
    for (uint64_t i = 0; i < 3; i++) {
        ahead[i] = push_constant(&a, model, 10 * i + 10, 4, 1.0f);
        letter_send(&a, ahead[i]);
    }
    struct letter *low = letter_ask(&a, push_constant(&a, model, 15, 4, 1.0f));
    cr_assert(reply_status(low) == OPT_INVALID_ARGUMENT, "sequences must ascend");
    harness_free(low);
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert(!letter_is_back(&harness, ahead[i]));
        harness_free(letter_ask(&b, push_constant(&b, model, i + 1, 4, 1.0f)));
        ahead[i] = letter_await(&harness, ahead[i]);
        cr_assert(ahead[i]->reply.body.push.step == i + 1);
        harness_free(ahead[i]);
    }
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}
