/* stream — rounds that are applied shard by shard (shard_schedule): what counts when,
 * and what stays of a push that goes half way.
 *
 * Gradients are integers and the rule is sgd(lr=1), so weights tell which shards were
 * applied and from whom.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/model.h"
#include "tests/desk.h"

/* Shards: "first" alone, three of "large", "last" alone. */
enum { LARGE = 2 * OPT_SHARD + OPT_BLOCK + 3, PARTS = 5, ELEMENTS = 4 + LARGE + 3 };
static const uint64_t shape_first[] = { 4 }, shape_large[] = { LARGE };
static const uint64_t shape_last[] = { 3 };
static const struct opt_tensor_entry tensors[] = {
    { .name = "first", .shape = shape_first, .rank = 1, .elements = 4 },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
    { .name = "last", .shape = shape_last, .rank = 1, .elements = 3 },
};
/* One frame each. */
static const struct opt_segment parts[PARTS] = {
    { .tensor = 0, .count = 4 },
    { .tensor = 1, .count = OPT_SHARD },
    { .tensor = 1, .offset = OPT_SHARD, .count = OPT_SHARD },
    { .tensor = 1, .offset = 2 * OPT_SHARD, .count = OPT_BLOCK + 3 },
    { .tensor = 2, .count = 3 },
};
/* Where each begins in a pull of everything. */
static const size_t begins[PARTS] = { 0, 4, 4 + OPT_SHARD, 4 + 2 * OPT_SHARD,
                                      4 + LARGE };

static struct opt_consistency policy(enum opt_loss loss)
{
    return (struct opt_consistency){ .mode = OPT_SYNC,
                                     .loss = loss,
                                     .atomic = OPT_ATOMIC_SHARD };
}

/* A worker's push under way. */
struct pushing {
    const struct caller *caller;
    uint32_t model;
    uint64_t sequence, id;
    uint32_t frames;
};

static struct pushing pushing_new(const struct caller *caller, uint32_t model,
                                  uint64_t sequence)
{
    return (struct pushing){ .caller = caller, .model = model, .sequence = sequence };
}

/* The next frame: one part, all of one value. */
static struct letter *make_part(struct pushing *pushing, size_t part, float value,
                                bool last)
{
    size_t n = (size_t)parts[part].count;
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = value;
    }
    struct letter *letter =
        push_letter(pushing->caller, pushing->model, pushing->sequence, OPT_FP32,
                    &parts[part], 1, values, n * sizeof *values);
    free(values);
    if (pushing->frames == 0) {
        pushing->id = letter->request.id;
    }
    letter->request.id = pushing->id;
    letter->request.body.push.frame = pushing->frames++;
    letter->request.body.push.last = last;
    return letter;
}

static struct letter *send_part(struct pushing *pushing, size_t part, float value,
                                bool last)
{
    struct letter *letter = make_part(pushing, part, value, last);
    letter_send(pushing->caller, letter);
    return letter;
}

/* Parts from first to the last one; returns the letter that will be answered. The
 * others are put into frames for their test to free. */
static struct letter *send_parts(struct pushing *pushing, size_t first, float value,
                                 struct letter *frames[PARTS])
{
    for (size_t i = first; i + 1 < PARTS; i++) {
        frames[i] = send_part(pushing, i, value, false);
    }
    return send_part(pushing, PARTS - 1, value, true);
}

static void take_back(struct desk *desk, struct letter *frames[PARTS])
{
    for (size_t i = 0; i < PARTS; i++) {
        if (frames[i] != NULL) {
            frames[i] = letter_await(desk, frames[i]);
            cr_expect(frames[i]->silent, "%s", reply_text(frames[i]));
            desk_free(frames[i]);
            frames[i] = NULL;
        }
    }
}

/* The weights of the parts, and that each is one number. */
static void expect_weights(const struct caller *caller, uint32_t model, uint64_t step,
                           const float expected[PARTS])
{
    float *weights = malloc(ELEMENTS * sizeof *weights);
    cr_expect_eq(model_pull(caller, model, OPT_VIEW_TRAIN, "", weights, ELEMENTS),
                 step);
    for (size_t i = 0; i < PARTS; i++) {
        for (size_t k = 0; k < parts[i].count; k++) {
            float got = weights[begins[i] + k];
            cr_assert(got == expected[i], "part %zu, element %zu is %g, not %g", i, k,
                      (double)got, (double)expected[i]);
        }
    }
    free(weights);
}

static void expect_applied(struct desk *desk, struct letter *letter, uint64_t step)
{
    letter = letter_await(desk, letter);
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    cr_assert_eq(letter->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(letter->reply.body.push.step, step);
    desk_free(letter);
}

static void expect_error(struct desk *desk, struct letter *letter,
                         enum opt_status status, const char *says)
{
    letter = letter_await(desk, letter);
    cr_assert_eq(reply_status(letter), status, "%s", reply_text(letter));
    cr_assert(strstr(reply_text(letter), says) != NULL, "%s", reply_text(letter));
    desk_free(letter);
}

/* Two workers of a model, and b's push. */
struct two {
    struct desk desk;
    struct caller a, b, reader;
    uint32_t model;
    struct pushing from_a, from_b;
    struct letter *frames_a[PARTS], *frames_b[PARTS];
};

static void two_open(struct two *two, enum opt_loss loss, const char *spec)
{
    struct engine_settings settings = desk_settings();
    settings.grace_ms = 20000;
    *two = (struct two){ 0 };
    desk_open(&two->desk, settings);
    two->a = caller_new(&two->desk, "a", 1);
    two->b = caller_new(&two->desk, "b", 2);
    two->reader = caller_new(&two->desk, "reader", 99);
    two->model = model_create(&two->a, "m", spec, policy(loss), tensors, 3, NULL);
    cr_assert_eq(model_join(&two->b, "m"), two->model);
    two->from_a = pushing_new(&two->a, two->model, 1);
    two->from_b = pushing_new(&two->b, two->model, 1);
}

/* Everything that was sent has been looked at, and what can be applied is. */
static void settle(const struct two *two)
{
    desk_free(letter_ask(&two->reader,
                         pull_letter(&two->reader, two->model, OPT_VIEW_TRAIN, "")));
}

/* A connection ends after that. */
static void gone(const struct two *two, struct caller *caller, bool lease_expired)
{
    settle(two);
    caller_gone(caller, lease_expired);
}

/* Both have sent the first two parts: 2 and 4, whose mean is 3. */
static void two_begin(struct two *two)
{
    for (size_t i = 0; i < 2; i++) {
        two->frames_a[i] = send_part(&two->from_a, i, 2, false);
        two->frames_b[i] = send_part(&two->from_b, i, 4, false);
    }
}

static void two_close(struct two *two, bool a, bool b)
{
    if (a) {
        caller_gone(&two->a, true);
    }
    if (b) {
        caller_gone(&two->b, true);
    }
    caller_gone(&two->reader, false);
    take_back(&two->desk, two->frames_a);
    take_back(&two->desk, two->frames_b);
    desk_close(&two->desk);
}

/* ---------------------------------------------------------------- what counts when */

Test(stream, applies_a_shard_when_everybody_has_sent_it)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two.frames_a[0] = send_part(&two.from_a, 0, 2, false);
    two.frames_a[1] = send_part(&two.from_a, 1, 2, false);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ 0 });
    two.frames_b[1] = send_part(&two.from_b, 1, 4, false);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ 0, -3 });
    two.frames_b[0] = send_part(&two.from_b, 0, 4, false);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ -3, -3 });
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ -3, -3 });
    struct letter *last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    cr_assert_eq(statistic(&two.a, "updates"), 1);
    cr_assert_eq(statistic(&two.a, "parameters_updated"), ELEMENTS);
    two_close(&two, true, true);
}

Test(stream, does_without_tensors_that_complete_pushes_do_not_name)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    struct letter *only = send_part(&two.from_a, 0, 2, true); /* "first" alone */
    two.frames_b[1] = send_part(&two.from_b, 1, 4, false);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ 0, -4 });
    two.frames_b[2] = send_part(&two.from_b, 2, 4, false);
    two.frames_b[3] = send_part(&two.from_b, 3, 4, false);
    struct letter *last = send_part(&two.from_b, 0, 4, true);
    expect_applied(&two.desk, only, 1);
    expect_applied(&two.desk, last, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -4, -4, -4, 0 });
    two_close(&two, true, true);
}

Test(stream, waits_for_the_whole_of_a_tensor_whose_norms_it_needs)
{
    static const char *const specs[] = { "sgd(lr=1) + layerwise(phi_max=10)",
                                         "sgd(lr=1) + clip(tensor_norm, 1e9)" };
    for (size_t i = 0; i < 2; i++) {
        struct two two;
        two_open(&two, OPT_LOSS_SHRINK, specs[i]);
        two_begin(&two);
        float *weights = malloc(ELEMENTS * sizeof *weights);
        model_pull(&two.a, two.model, OPT_VIEW_TRAIN, "", weights, ELEMENTS);
        cr_assert(weights[0] != 0, "\"first\" is there as a whole");
        cr_assert(weights[begins[1]] == 0, "a part of \"large\" is not enough");
        for (size_t k = 2; k < 4; k++) {
            two.frames_a[k] = send_part(&two.from_a, k, 2, false);
            two.frames_b[k] = send_part(&two.from_b, k, 4, false);
        }
        model_pull(&two.a, two.model, OPT_VIEW_TRAIN, "", weights, ELEMENTS);
        cr_assert(weights[begins[1]] != 0 && weights[begins[4]] == 0);
        free(weights);
        two_close(&two, true, true);
    }
}

Test(stream, shows_computed_views_as_they_are_in_the_middle_of_a_round)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "momentum(lr=1)");
    float *slot = malloc(ELEMENTS * sizeof *slot);
    const char *name = "momentum_buffer";
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(model_pull(&two.a, two.model, OPT_VIEW_SLOT, name, slot, ELEMENTS),
                     0);
        cr_assert(slot[0] == (i > 0 ? 3 : 0), "%g", (double)slot[0]);
        cr_assert(slot[begins[2]] == 0);
        if (i == 0) {
            two_begin(&two);
        }
    }
    free(slot);
    two_close(&two, true, true);
}

/* Which parts a pull of what has changed since a step brings; its own step. */
static uint64_t pull_changed(const struct two *two, uint64_t since, bool came[PARTS])
{
    struct letter *pull = pull_letter(&two->a, two->model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.since = since;
    pull = letter_ask(&two->a, pull);
    cr_assert_eq(pull->piece_count, PARTS, "%s", reply_text(pull));
    for (size_t i = 0; i < PARTS; i++) {
        came[i] = !pull->pieces[i].unchanged;
    }
    uint64_t step = pull->reply.body.pull.step;
    desk_free(pull);
    return step;
}

Test(stream, leaves_out_of_a_pull_the_shards_that_the_open_round_has_not_reached)
{
    struct two two;
    bool came[PARTS];
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    take_back(&two.desk, two.frames_a);
    take_back(&two.desk, two.frames_b);
    two.from_a = pushing_new(&two.a, two.model, 2);
    two.from_b = pushing_new(&two.b, two.model, 2);
    two_begin(&two);
    /* The round is not over, so its step is not; what has been applied comes again and
     * again until it is. */
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(pull_changed(&two, 1, came), 1);
        cr_assert_arr_eq(came, ((bool[PARTS]){ true, true }), sizeof came);
    }
    last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, last_a, 2);
    expect_applied(&two.desk, last_b, 2);
    cr_assert_eq(pull_changed(&two, 1, came), 2);
    cr_assert_arr_eq(came, ((bool[PARTS]){ true, true, true, true, true }),
                     sizeof came);
    cr_assert_eq(pull_changed(&two, 2, came), 2);
    cr_assert_arr_eq(came, (bool[PARTS]){ false }, sizeof came);
    two_close(&two, true, true);
}

Test(stream, counts_who_joins_in_the_middle_from_the_next_round_on)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct caller c = caller_new(&two.desk, "c", 3);
    model_join(&c, "m");
    struct letter *none[PARTS] = { NULL };
    struct pushing from_c = pushing_new(&c, two.model, 1);
    struct letter *last_c = send_parts(&from_c, 0, 60, none);
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    cr_assert(!letter_is_back(&two.desk, last_c));
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    gone(&two, &c, true); /* its complete push stays in the next round */
    take_back(&two.desk, two.frames_a);
    take_back(&two.desk, two.frames_b);
    two.from_a = pushing_new(&two.a, two.model, 2);
    two.from_b = pushing_new(&two.b, two.model, 2);
    last_a = send_parts(&two.from_a, 0, 0, two.frames_a);
    last_b = send_parts(&two.from_b, 0, 0, two.frames_b);
    expect_applied(&two.desk, last_a, 2);
    expect_applied(&two.desk, last_b, 2);
    expect_weights(&two.a, two.model, 2, (float[PARTS]){ -23, -23, -23, -23, -23 });
    last_c = letter_await(&two.desk, last_c);
    cr_assert(last_c->silent);
    desk_free(last_c);
    take_back(&two.desk, none);
    two_close(&two, true, true);
}

Test(stream, changes_options_from_the_next_round_on)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *set = letter_start(&two.a, OPT_MESSAGE_SET);
    set->request.body.set = (struct opt_set){ .model = "m", .change = "lr=10" };
    letter_send(&two.a, set);
    cr_assert(!letter_is_back(&two.desk, set));
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    set = letter_await(&two.desk, set);
    cr_assert(set->reply.message == OPT_MESSAGE_SET, "%s", reply_text(set));
    cr_assert_eq(set->reply.body.set.step, 2);
    desk_free(set);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    two_close(&two, true, true);
}

/* ---------------------------------------------------------------- losses */

Test(stream, goes_on_without_a_worker_lost_half_way)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two.frames_b[2] = send_part(&two.from_b, 2, 4, false);
    gone(&two, &two.b, true);
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_applied(&two.desk, last, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -2, -2, -2 });
    cr_assert_eq(statistic(&two.a, "workers_lost"), 1);
    /* Sent again, the lost push changes nothing: a part of it has counted. */
    two.b = caller_new(&two.desk, "b", 2);
    model_join(&two.b, "m");
    take_back(&two.desk, two.frames_b);
    two.from_b = pushing_new(&two.b, two.model, 1);
    expect_error(&two.desk, send_part(&two.from_b, 0, 9, true), OPT_ABORTED,
                 "shards of it that had been applied by then stay so");
    two_close(&two, true, true);
}

Test(stream, ends_as_an_update_of_what_was_applied_if_nobody_is_left)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.a, true);
    gone(&two, &two.b, true);
    expect_weights(&two.reader, two.model, 1, (float[PARTS]){ -3, -3, 0, 0, 0 });
    two_close(&two, false, false);
}

Test(stream, has_not_happened_if_nothing_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two.frames_a[0] = send_part(&two.from_a, 0, 2, false);
    two.frames_b[1] = send_part(&two.from_b, 1, 4, false);
    gone(&two, &two.b, true);
    /* Now a is alone, and its part counts at once. */
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ -2 });
    two_close(&two, true, false);
}

Test(stream, fails_the_others_and_says_how_much_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    gone(&two, &two.b, true);
    last = letter_await(&two.desk, last);
    cr_assert_eq(reply_status(last), OPT_ABORTED);
    cr_assert(strstr(reply_text(last), "\"b\" was lost; 2 of 5 shards") != NULL, "%s",
              reply_text(last));
    desk_free(last);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, 0, 0, 0 });
    two_close(&two, true, false);
}

Test(stream, fails_a_push_that_is_not_complete_either)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.b, true);
    expect_error(&two.desk, two.frames_a[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_a[0] = NULL;
    struct letter *late = letter_ask(&two.a, make_part(&two.from_a, 2, 2, false));
    cr_assert(late->silent, "swallowed");
    desk_free(late);
    two_close(&two, true, false);
}

Test(stream, waits_for_a_lost_worker_until_the_deadlines)
{
    struct two two;
    two_open(&two, OPT_LOSS_WAIT, "sgd(lr=1)");
    two.frames_a[0] = make_part(&two.from_a, 0, 2, false);
    two.frames_a[0]->request.timeout_ms = 1000;
    letter_send(&two.a, two.frames_a[0]);
    two.frames_b[0] = make_part(&two.from_b, 0, 4, false);
    two.frames_b[0]->request.timeout_ms = 2000;
    letter_send(&two.b, two.frames_b[0]);
    gone(&two, &two.b, true);
    struct letter *last = send_parts(&two.from_a, 1, 2, two.frames_a);
    expect_error(&two.desk, last, OPT_ABORTED, "1 of 5 shards");
    take_back(&two.desk, two.frames_b); /* b's deadline: nobody is left */
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, 0, 0, 0, 0 });
    two_close(&two, true, false);
}

Test(stream, answers_a_worker_that_leaves_half_way)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *bye = letter_ask(&two.b, letter_start(&two.b, OPT_MESSAGE_GOODBYE));
    cr_assert(bye->reply.message == OPT_MESSAGE_GOODBYE);
    desk_free(bye);
    expect_error(&two.desk, two.frames_b[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_b[0] = NULL;
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_applied(&two.desk, last, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -2, -2, -2 });
    two_close(&two, true, true);
}

Test(stream, keeps_what_was_applied_of_a_push_that_turns_out_wrong)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *bad = make_part(&two.from_b, 2, 4, false);
    bad->nonfinite = 5;
    letter_send(&two.b, bad);
    expect_error(&two.desk, bad, OPT_INVALID_ARGUMENT, "2 of 5 shards");
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_applied(&two.desk, last, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -2, -2, -2 });
    two_close(&two, true, true);
}

Test(stream, ends_with_the_model_that_is_deleted)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.b, true);
    struct letter *end = letter_start(&two.a, OPT_MESSAGE_DELETE);
    end->request.body.delete_ = "m";
    end = letter_ask(&two.a, end);
    cr_assert(end->reply.message == OPT_MESSAGE_DELETE, "%s", reply_text(end));
    desk_free(end);
    expect_error(&two.desk, two.frames_a[0], OPT_ABORTED, "was deleted");
    two.frames_a[0] = NULL;
    two_close(&two, true, false);
}

Test(stream, is_given_up_when_the_daemon_stops)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ -3, -3 });
    engine_stop(two.desk.engine);
    expect_error(&two.desk, two.frames_a[0], OPT_ABORTED, "2 of 5 shards");
    expect_error(&two.desk, two.frames_b[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_a[0] = NULL;
    two.frames_b[0] = NULL;
    caller_gone(&two.a, false);
    caller_gone(&two.b, false);
    caller_gone(&two.reader, false);
    take_back(&two.desk, two.frames_a);
    take_back(&two.desk, two.frames_b);
    desk_close_stopped(&two.desk);
}

/* ---------------------------------------------------------------- sent again */

Test(stream, takes_the_rest_of_a_push_from_its_second_copy)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two.frames_b[2] = send_part(&two.from_b, 2, 4, false);
    gone(&two, &two.b, false);
    two.frames_a[2] = send_part(&two.from_a, 2, 2, false);
    expect_weights(&two.a, two.model, 0, (float[PARTS]){ -3, -3, -3 });
    two.b = caller_new(&two.desk, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *copies[PARTS] = { NULL };
    /* What came before is not looked at, so another value tells which copy counts. */
    for (size_t i = 0; i < 3; i++) {
        copies[i] = send_part(&two.from_b, i, 9, false);
    }
    struct letter *last_b = send_parts(&two.from_b, 3, 4, copies);
    for (size_t i = 0; i < 3; i++) {
        expect_weights(&two.a, two.model, 0, (float[PARTS]){ -3, -3, -3 });
    }
    two.frames_a[3] = send_part(&two.from_a, 3, 2, false);
    struct letter *last_a = send_part(&two.from_a, 4, 2, true);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    take_back(&two.desk, copies);
    two_close(&two, true, true);
}

Test(stream, answers_a_complete_push_that_is_sent_again)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *lost = send_parts(&two.from_b, 2, 4, two.frames_b);
    gone(&two, &two.b, false);
    two.b = caller_new(&two.desk, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *copies[PARTS] = { NULL };
    struct letter *last_b = send_parts(&two.from_b, 0, 9, copies);
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_applied(&two.desk, last_a, 1);
    expect_applied(&two.desk, last_b, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    lost = letter_await(&two.desk, lost);
    cr_assert(lost->silent);
    desk_free(lost);
    take_back(&two.desk, copies);
    two_close(&two, true, true);
}

Test(stream, ends_a_cut_off_push_when_another_begins)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.b, false);
    struct letter *last_a = send_parts(&two.from_a, 2, 2, two.frames_a);
    two.b = caller_new(&two.desk, "b", 2);
    model_join(&two.b, "m");
    cr_assert(!letter_is_back(&two.desk, last_a));
    struct pushing next = pushing_new(&two.b, two.model, 2);
    struct letter *frames[PARTS] = { send_part(&next, 0, 4, false) };
    expect_applied(&two.desk, last_a, 1);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -2, -2, -2 });
    caller_gone(&two.b, true);
    take_back(&two.desk, frames);
    two_close(&two, true, false);
}

Test(stream, refuses_a_second_copy_that_differs)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.b, false);
    two.b = caller_new(&two.desk, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *other = make_part(&two.from_b, 0, 4, false);
    other->request.body.push.samples = 7;
    letter_send(&two.b, other);
    expect_error(&two.desk, other, OPT_INVALID_ARGUMENT, "another basis");
    two_close(&two, true, true);
}

/* ---------------------------------------------------------------- sparse tensors */

enum { DENSE = OPT_SHARD + 5 };
static const uint64_t shape_table[] = { 4, 2 }, shape_dense[] = { DENSE };
static const struct opt_tensor_entry with_table[] = {
    { .name = "table", .shape = shape_table, .rank = 2, .elements = 8, .sparse = true },
    { .name = "dense", .shape = shape_dense, .rank = 1, .elements = DENSE },
};

/* The frames of a push: row 1 of the table, twice; the two shards of the other. */
static struct letter *send_frame(const struct caller *caller, uint32_t model,
                                 uint64_t id, uint32_t number)
{
    static const uint32_t rows[] = { 1, 1 };
    static const struct opt_segment segments[] = {
        { .tensor = 0, .rows = rows, .row_count = 2 },
        { .tensor = 1, .count = OPT_SHARD },
        { .tensor = 1, .offset = OPT_SHARD, .count = DENSE - OPT_SHARD },
    };
    static const size_t sizes[] = { 4, OPT_SHARD, DENSE - OPT_SHARD };
    static float ones[OPT_SHARD];
    for (size_t i = 0; i < OPT_SHARD; i++) {
        ones[i] = 1;
    }
    struct letter *letter = push_letter(caller, model, 1, OPT_FP32, &segments[number],
                                        1, ones, sizes[number] * sizeof(float));
    letter->request.id = id;
    letter->request.body.push.frame = number;
    letter->request.body.push.last = number == 2;
    letter_send(caller, letter);
    return letter;
}

Test(stream, applies_rows_once_and_at_the_end)
{
    struct engine_settings settings = desk_settings();
    settings.grace_ms = 20000;
    struct desk desk;
    desk_open(&desk, settings);
    struct caller a = caller_new(&desk, "a", 1), reader = caller_new(&desk, "r", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", policy(OPT_LOSS_SHRINK),
                                  with_table, 2, NULL);
    float *weights = malloc((8 + DENSE) * sizeof *weights);
    struct letter *frames[6] = { NULL };
    for (size_t copy = 0; copy < 2; copy++) {
        frames[3 * copy] = send_frame(&a, model, 1000 + copy, 0);
        frames[3 * copy + 1] = send_frame(&a, model, 1000 + copy, 1);
        model_pull(&reader, model, OPT_VIEW_TRAIN, "", weights, 8 + DENSE);
        cr_assert(weights[2] == 0 && weights[8] == -1 && weights[7 + DENSE] == 0);
        if (copy == 0) {
            caller_gone(&a, false);
            a = caller_new(&desk, "a", 1);
            model_join(&a, "m");
        }
    }
    expect_applied(&desk, send_frame(&a, model, 1001, 2), 1);
    model_pull(&reader, model, OPT_VIEW_TRAIN, "", weights, 8 + DENSE);
    cr_assert(weights[1] == 0 && weights[2] == -2 && weights[3] == -2);
    cr_assert(weights[8] == -1 && weights[7 + DENSE] == -1);
    free(weights);
    for (size_t i = 0; i < 6; i++) {
        if (frames[i] != NULL) {
            frames[i] = letter_await(&desk, frames[i]);
            cr_expect(frames[i]->silent);
            desk_free(frames[i]);
        }
    }
    caller_gone(&a, false);
    caller_gone(&reader, false);
    desk_close(&desk);
}

/* ---------------------------------------------------------------- what can be asked */

struct refusal {
    struct opt_consistency policy;
    const char *spec, *says;
};

Test(stream, is_refused_where_the_whole_gradient_is_needed_first)
{
    static const struct refusal refusals[] = {
        { { .mode = OPT_ASYNC }, "sgd(lr=1)", "the mode is async" },
        { { .mode = OPT_BOUNDED, .staleness = 2 }, "sgd(lr=1)", "the mode is bounded" },
        { { .backup = 1 }, "sgd(lr=1)", "backup is given" },
        { { .samples = 9 }, "sgd(lr=1)", "samples is given" },
        { { 0 }, "sgd(lr=1) + clip(global_norm, 1)", "clip(global_norm)" },
        { { 0 }, "sgd(lr=1) + nonfinite(skip)", "nonfinite(skip)" },
        { { 0 }, "sgd(lr=1) + aggregate(sum)", "aggregate(sum)" },
    };
    struct desk desk;
    desk_open(&desk, desk_settings());
    struct caller a = caller_new(&desk, "a", 1);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct opt_consistency wanted = refusals[i].policy;
        wanted.atomic = OPT_ATOMIC_SHARD;
        struct letter *create =
            letter_ask(&a, create_letter(&a, "m", refusals[i].spec, wanted, tensors, 3,
                                         false, true));
        cr_expect_eq(reply_status(create), OPT_INVALID_ARGUMENT, "case %zu", i);
        cr_expect(strstr(reply_text(create), refusals[i].says) != NULL, "case %zu: %s",
                  i, reply_text(create));
        desk_free(create);
    }
    model_create(&a, "m", "sgd(lr=1)", policy(OPT_LOSS_SHRINK), tensors, 3, NULL);
    struct letter *again =
        letter_ask(&a, create_letter(&a, "m", "sgd(lr=1)",
                                     (struct opt_consistency){ .mode = OPT_SYNC },
                                     tensors, 3, false, true));
    cr_expect_eq(reply_status(again), OPT_ALREADY_EXISTS);
    cr_expect(strstr(reply_text(again), "its atomic is SHARD, not ROUND") != NULL, "%s",
              reply_text(again));
    desk_free(again);
    caller_gone(&a, false);
    desk_close(&desk);
}

/* ---------------------------------------------------------------- what is told */

/* All of a's push was applied, only the round is not over. */
Test(stream, tells_of_a_push_all_of_whose_shards_count_that_it_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    for (size_t i = 0; i + 1 < PARTS; i++) {
        two.frames_b[i] = send_part(&two.from_b, i, 4, false);
    }
    struct pushing *from_a = &two.from_a;
    two.frames_a[0] = send_part(from_a, 0, 2, false);
    two.frames_a[1] = send_part(from_a, 1, 2, false);
    two.frames_a[2] = send_part(from_a, 2, 2, false);
    struct letter *last = send_part(from_a, 3, 2, true); /* without the last tensor */
    cr_assert(!letter_is_back(&two.desk, last));
    gone(&two, &two.b, true);
    last = letter_await(&two.desk, last);
    cr_assert_eq(last->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(last));
    cr_assert_eq(last->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(last->reply.body.push.step, 1);
    desk_free(last);
    expect_weights(&two.a, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, 0 });
    two_close(&two, true, false);
}

/* Taken for dead with its push in an open round, and back before that is over: the push
 * stands, and its second copy is answered with what becomes of it. */
Test(stream, answers_a_push_of_a_life_that_is_over_with_what_becomes_of_it)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    cr_assert(!letter_is_back(&two.desk, last));
    gone(&two, &two.a, true);
    two.a = caller_new(&two.desk, "a", 1);
    const uint64_t asked[] = { 1 };
    struct letter *opened = letter_start(&two.a, OPT_MESSAGE_OPEN);
    opened->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = asked, .unanswered_count = 1
    };
    opened = letter_ask(&two.a, opened);
    cr_assert_eq(opened->reply.body.model.settled_count, 0);
    cr_assert_eq(opened->reply.body.model.waiting_count, 1);
    desk_free(opened);
    two.from_a = pushing_new(&two.a, two.model, 1);
    struct letter *again[PARTS] = { 0 };
    struct letter *answer = send_parts(&two.from_a, 0, 2, again);
    struct letter *last_b = send_parts(&two.from_b, 2, 4, two.frames_b);
    expect_applied(&two.desk, answer, 1);
    expect_applied(&two.desk, last_b, 1);
    take_back(&two.desk, again);
    desk_free(letter_await(&two.desk, last));
    expect_weights(&two.b, two.model, 1, (float[PARTS]){ -3, -3, -3, -3, -3 });
    two_close(&two, true, true);
}

/* Half of its push was applied when the worker was lost: the number is used up, and who
 * asks is told how many shards count. */
Test(stream, reports_how_many_shards_of_a_lost_push_count)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    gone(&two, &two.b, true);
    struct letter *last = send_parts(&two.from_a, 2, 2, two.frames_a);
    expect_applied(&two.desk, last, 1);
    two.b = caller_new(&two.desk, "b", 2);
    take_back(&two.desk, two.frames_b);
    const uint64_t asked[] = { 1 };
    struct letter *opened = letter_start(&two.b, OPT_MESSAGE_OPEN);
    opened->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = asked, .unanswered_count = 1
    };
    opened = letter_ask(&two.b, opened);
    const struct opt_model_reply *reply = &opened->reply.body.model;
    cr_assert_eq(reply->settled_count, 1);
    cr_assert_eq(reply->settled[0].fate, OPT_FATE_IN_PART);
    cr_assert_eq(reply->settled[0].shards_applied, 2);
    desk_free(opened);
    two_close(&two, true, true);
}
