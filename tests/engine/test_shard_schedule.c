/* shard_schedule — rounds that are applied shard by shard (shard_schedule): what counts
 * when, and what can be asked.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/shard_rounds.h"

/* ---------------------------------------------------------------- what counts when */

Test(stream, applies_a_shard_when_everybody_has_sent_it)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two.frames_a[0] = pushing_send(&two.from_a, 0, 2, false);
    two.frames_a[1] = pushing_send(&two.from_a, 1, 2, false);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ 0 });
    two.frames_b[1] = pushing_send(&two.from_b, 1, 4, false);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ 0, -3 });
    two.frames_b[0] = pushing_send(&two.from_b, 0, 4, false);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ -3, -3 });
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ -3, -3 });
    struct letter *last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
    cr_assert_eq(statistic(&two.a, "updates"), 1);
    cr_assert_eq(statistic(&two.a, "parameters_updated"), STREAM_ELEMENTS);
    two_close(&two, true, true);
}

Test(stream, does_without_tensors_that_complete_pushes_do_not_name)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    struct letter *only = pushing_send(&two.from_a, 0, 2, true); /* "first" alone */
    two.frames_b[1] = pushing_send(&two.from_b, 1, 4, false);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ 0, -4 });
    two.frames_b[2] = pushing_send(&two.from_b, 2, 4, false);
    two.frames_b[3] = pushing_send(&two.from_b, 3, 4, false);
    struct letter *last = pushing_send(&two.from_b, 0, 4, true);
    stream_expect_applied(&two.harness, only, 1);
    stream_expect_applied(&two.harness, last, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -4, -4, -4, 0 });
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
        float *weights = malloc(STREAM_ELEMENTS * sizeof *weights);
        model_pull(&two.a, two.model, OPT_VIEW_TRAIN, "", weights, STREAM_ELEMENTS);
        cr_assert(weights[0] != 0, "\"first\" is there as a whole");
        cr_assert(weights[stream_begins[1]] == 0, "a part of \"large\" is not enough");
        for (size_t k = 2; k < 4; k++) {
            two.frames_a[k] = pushing_send(&two.from_a, k, 2, false);
            two.frames_b[k] = pushing_send(&two.from_b, k, 4, false);
        }
        model_pull(&two.a, two.model, OPT_VIEW_TRAIN, "", weights, STREAM_ELEMENTS);
        cr_assert(weights[stream_begins[1]] != 0 && weights[stream_begins[4]] == 0);
        free(weights);
        two_close(&two, true, true);
    }
}

Test(stream, shows_computed_views_as_they_are_in_the_middle_of_a_round)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "momentum(lr=1)");
    float *slot = malloc(STREAM_ELEMENTS * sizeof *slot);
    const char *name = "momentum_buffer";
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(
            model_pull(&two.a, two.model, OPT_VIEW_SLOT, name, slot, STREAM_ELEMENTS),
            0);
        cr_assert(slot[0] == (i > 0 ? 3 : 0), "%g", (double)slot[0]);
        cr_assert(slot[stream_begins[2]] == 0);
        if (i == 0) {
            two_begin(&two);
        }
    }
    free(slot);
    two_close(&two, true, true);
}

/* Which parts a pull of what has changed since a step brings; its own step. */
static uint64_t pull_changed(const struct two *two, uint64_t since,
                             bool came[STREAM_PARTS])
{
    struct letter *pull = pull_letter(&two->a, two->model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.since = since;
    pull = letter_ask(&two->a, pull);
    cr_assert_eq(pull->piece_count, STREAM_PARTS, "%s", reply_text(pull));
    for (size_t i = 0; i < STREAM_PARTS; i++) {
        came[i] = !pull->pieces[i].unchanged;
    }
    uint64_t step = pull->reply.body.pull.step;
    harness_free(pull);
    return step;
}

Test(stream, leaves_out_of_a_pull_the_shards_that_the_open_round_has_not_reached)
{
    struct two two;
    bool came[STREAM_PARTS];
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    pushing_take_back(&two.harness, two.frames_a);
    pushing_take_back(&two.harness, two.frames_b);
    two.from_a = pushing_new(&two.a, two.model, 2);
    two.from_b = pushing_new(&two.b, two.model, 2);
    two_begin(&two);
    /* The round is not over, so its step is not; what has been applied comes again and
     * again until it is. */
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(pull_changed(&two, 1, came), 1);
        cr_assert_arr_eq(came, ((bool[STREAM_PARTS]){ true, true }), sizeof came);
    }
    last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 2);
    stream_expect_applied(&two.harness, last_b, 2);
    cr_assert_eq(pull_changed(&two, 1, came), 2);
    cr_assert_arr_eq(came, ((bool[STREAM_PARTS]){ true, true, true, true, true }),
                     sizeof came);
    cr_assert_eq(pull_changed(&two, 2, came), 2);
    cr_assert_arr_eq(came, (bool[STREAM_PARTS]){ false }, sizeof came);
    two_close(&two, true, true);
}

Test(stream, counts_who_joins_in_the_middle_from_the_next_round_on)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct caller c = caller_new(&two.harness, "c", 3);
    model_join(&c, "m");
    struct letter *none[STREAM_PARTS] = { NULL };
    struct pushing from_c = pushing_new(&c, two.model, 1);
    struct letter *last_c = pushing_send_rest(&from_c, 0, 60, none);
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    cr_assert(!letter_is_back(&two.harness, last_c));
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
    two_gone(&two, &c, true); /* its complete push stays in the next round */
    pushing_take_back(&two.harness, two.frames_a);
    pushing_take_back(&two.harness, two.frames_b);
    two.from_a = pushing_new(&two.a, two.model, 2);
    two.from_b = pushing_new(&two.b, two.model, 2);
    last_a = pushing_send_rest(&two.from_a, 0, 0, two.frames_a);
    last_b = pushing_send_rest(&two.from_b, 0, 0, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 2);
    stream_expect_applied(&two.harness, last_b, 2);
    stream_expect_weights(&two.a, two.model, 2,
                          (float[STREAM_PARTS]){ -23, -23, -23, -23, -23 });
    last_c = letter_await(&two.harness, last_c);
    cr_assert(last_c->silent);
    harness_free(last_c);
    pushing_take_back(&two.harness, none);
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
    cr_assert(!letter_is_back(&two.harness, set));
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    struct letter *last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    set = letter_await(&two.harness, set);
    cr_assert(set->reply.message == OPT_MESSAGE_SET, "%s", reply_text(set));
    cr_assert_eq(set->reply.body.set.step, 2);
    harness_free(set);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
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
    struct engine_settings settings = harness_settings();
    settings.grace_ms = 20000;
    struct harness harness;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1),
                  reader = caller_new(&harness, "r", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", stream_policy(OPT_LOSS_SHRINK),
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
            a = caller_new(&harness, "a", 1);
            model_join(&a, "m");
        }
    }
    stream_expect_applied(&harness, send_frame(&a, model, 1001, 2), 1);
    model_pull(&reader, model, OPT_VIEW_TRAIN, "", weights, 8 + DENSE);
    cr_assert(weights[1] == 0 && weights[2] == -2 && weights[3] == -2);
    cr_assert(weights[8] == -1 && weights[7 + DENSE] == -1);
    free(weights);
    for (size_t i = 0; i < 6; i++) {
        if (frames[i] != NULL) {
            frames[i] = letter_await(&harness, frames[i]);
            cr_expect(frames[i]->silent);
            harness_free(frames[i]);
        }
    }
    caller_gone(&a, false);
    caller_gone(&reader, false);
    harness_close(&harness);
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
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct opt_consistency wanted = refusals[i].policy;
        wanted.atomic = OPT_ATOMIC_SHARD;
        struct letter *create =
            letter_ask(&a, create_letter(&a, "m", refusals[i].spec, wanted,
                                         stream_tensors, 3, false, true));
        cr_expect_eq(reply_status(create), OPT_INVALID_ARGUMENT, "case %zu", i);
        cr_expect(strstr(reply_text(create), refusals[i].says) != NULL, "case %zu: %s",
                  i, reply_text(create));
        harness_free(create);
    }
    model_create(&a, "m", "sgd(lr=1)", stream_policy(OPT_LOSS_SHRINK), stream_tensors,
                 3, NULL);
    struct letter *again =
        letter_ask(&a, create_letter(&a, "m", "sgd(lr=1)",
                                     (struct opt_consistency){ .mode = OPT_SYNC },
                                     stream_tensors, 3, false, true));
    cr_expect_eq(reply_status(again), OPT_ALREADY_EXISTS);
    cr_expect(strstr(reply_text(again), "its atomic is SHARD, not ROUND") != NULL, "%s",
              reply_text(again));
    harness_free(again);
    caller_gone(&a, false);
    harness_close(&harness);
}
