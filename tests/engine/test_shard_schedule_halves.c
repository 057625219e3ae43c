/* shard_schedule_halves — what stays of a push that goes half way in a round that is
 * applied shard by shard: workers are lost, pushes are sent again, and are told what
 * became of them.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/base/alarm.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "tests/support/shard_rounds.h"

/* ---------------------------------------------------------------- losses */

Test(stream_halves, goes_on_without_a_worker_lost_half_way)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two.frames_b[2] = pushing_send(&two.from_b, 2, 4, false);
    two_gone(&two, &two.b, true);
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_applied(&two.harness, last, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -2, -2, -2 });
    cr_assert_eq(statistic(&two.a, "workers_lost"), 1);
    /* Sent again, the lost push changes nothing: a part of it has counted. */
    two.b = caller_new(&two.harness, "b", 2);
    model_join(&two.b, "m");
    pushing_take_back(&two.harness, two.frames_b);
    two.from_b = pushing_new(&two.b, two.model, 1);
    stream_expect_error(&two.harness, pushing_send(&two.from_b, 0, 9, true),
                        OPT_ABORTED,
                        "shards of it that had been applied by then stay so");
    two_close(&two, true, true);
}

Test(stream_halves, ends_as_an_update_of_what_was_applied_if_nobody_is_left)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.a, true);
    two_gone(&two, &two.b, true);
    stream_expect_weights(&two.reader, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, 0, 0, 0 });
    two_close(&two, false, false);
}

Test(stream_halves, has_not_happened_if_nothing_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two.frames_a[0] = pushing_send(&two.from_a, 0, 2, false);
    two.frames_b[1] = pushing_send(&two.from_b, 1, 4, false);
    two_gone(&two, &two.b, true);
    /* Now a is alone, and its part counts at once. */
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ -2 });
    two_close(&two, true, false);
}

Test(stream_halves, fails_the_others_and_says_how_much_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    two_gone(&two, &two.b, true);
    last = letter_await(&two.harness, last);
    cr_assert_eq(reply_status(last), OPT_ABORTED);
    cr_assert(strstr(reply_text(last), "\"b\" was lost; 2 of 5 shards") != NULL, "%s",
              reply_text(last));
    harness_free(last);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, 0, 0, 0 });
    two_close(&two, true, false);
}

Test(stream_halves, fails_a_push_that_is_not_complete_either)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.b, true);
    stream_expect_error(&two.harness, two.frames_a[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_a[0] = NULL;
    struct letter *late = letter_ask(&two.a, pushing_make(&two.from_a, 2, 2, false));
    cr_assert(late->silent, "swallowed");
    harness_free(late);
    two_close(&two, true, false);
}

/* The deadline of the round's push at this place passes now. */
static void pass_deadline(const struct two *two, size_t place)
{
    struct engine *engine = two->harness.engine;
    uv_mutex_lock(&engine->turn);
    const struct model *model = registry_numbered(engine, two->model);
    cr_assert_lt(place, model->round_count);
    struct alarm *deadline = &model->round[place]->deadline;
    cr_assert(alarm_set(&engine->alarms, deadline, 0, deadline->on_alarm));
    uv_mutex_unlock(&engine->turn);
    two_settle(two); /* wakes the engine */
}

Test(stream_halves, waits_for_a_lost_worker_until_the_deadlines)
{
    struct two two;
    two_open(&two, OPT_LOSS_WAIT, "sgd(lr=1)");
    two.frames_a[0] = pushing_send(&two.from_a, 0, 2, false);
    two.frames_b[0] = pushing_send(&two.from_b, 0, 4, false);
    two_gone(&two, &two.b, true);
    struct letter *last = pushing_send_rest(&two.from_a, 1, 2, two.frames_a);
    cr_assert(!letter_is_back(&two.harness, last));
    pass_deadline(&two, 0); /* a's */
    stream_expect_error(&two.harness, last, OPT_ABORTED, "1 of 5 shards");
    pass_deadline(&two, 0); /* b's: nobody is left */
    pushing_take_back(&two.harness, two.frames_b);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, 0, 0, 0, 0 });
    two_close(&two, true, false);
}

Test(stream_halves, answers_a_worker_that_leaves_half_way)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *bye = letter_ask(&two.b, letter_start(&two.b, OPT_MESSAGE_GOODBYE));
    cr_assert(bye->reply.message == OPT_MESSAGE_GOODBYE);
    harness_free(bye);
    stream_expect_error(&two.harness, two.frames_b[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_b[0] = NULL;
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_applied(&two.harness, last, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -2, -2, -2 });
    two_close(&two, true, true);
}

Test(stream_halves, keeps_what_was_applied_of_a_push_that_turns_out_wrong)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *bad = pushing_make(&two.from_b, 2, 4, false);
    bad->nonfinite = 5;
    letter_send(&two.b, bad);
    stream_expect_error(&two.harness, bad, OPT_INVALID_ARGUMENT, "2 of 5 shards");
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_applied(&two.harness, last, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -2, -2, -2 });
    two_close(&two, true, true);
}

Test(stream_halves, ends_with_the_model_that_is_deleted)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.b, true);
    struct letter *end = letter_start(&two.a, OPT_MESSAGE_DELETE);
    end->request.body.delete_ = "m";
    end = letter_ask(&two.a, end);
    cr_assert(end->reply.message == OPT_MESSAGE_DELETE, "%s", reply_text(end));
    harness_free(end);
    stream_expect_error(&two.harness, two.frames_a[0], OPT_ABORTED, "was deleted");
    two.frames_a[0] = NULL;
    two_close(&two, true, false);
}

Test(stream_halves, is_given_up_when_the_daemon_stops)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ -3, -3 });
    engine_stop(two.harness.engine);
    stream_expect_error(&two.harness, two.frames_a[0], OPT_ABORTED, "2 of 5 shards");
    stream_expect_error(&two.harness, two.frames_b[0], OPT_ABORTED, "2 of 5 shards");
    two.frames_a[0] = NULL;
    two.frames_b[0] = NULL;
    caller_gone(&two.a, false);
    caller_gone(&two.b, false);
    caller_gone(&two.reader, false);
    pushing_take_back(&two.harness, two.frames_a);
    pushing_take_back(&two.harness, two.frames_b);
    harness_close_stopped(&two.harness);
}

/* ---------------------------------------------------------------- sent again */

Test(stream_halves, takes_the_rest_of_a_push_from_its_second_copy)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two.frames_b[2] = pushing_send(&two.from_b, 2, 4, false);
    two_gone(&two, &two.b, false);
    two.frames_a[2] = pushing_send(&two.from_a, 2, 2, false);
    stream_expect_weights(&two.a, two.model, 0, (float[STREAM_PARTS]){ -3, -3, -3 });
    two.b = caller_new(&two.harness, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *copies[STREAM_PARTS] = { NULL };
    /* What came before is not looked at, so another value tells which copy counts. */
    for (size_t i = 0; i < 3; i++) {
        copies[i] = pushing_send(&two.from_b, i, 9, false);
    }
    struct letter *last_b = pushing_send_rest(&two.from_b, 3, 4, copies);
    for (size_t i = 0; i < 3; i++) {
        stream_expect_weights(&two.a, two.model, 0,
                              (float[STREAM_PARTS]){ -3, -3, -3 });
    }
    two.frames_a[3] = pushing_send(&two.from_a, 3, 2, false);
    struct letter *last_a = pushing_send(&two.from_a, 4, 2, true);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
    pushing_take_back(&two.harness, copies);
    two_close(&two, true, true);
}

Test(stream_halves, answers_a_complete_push_that_is_sent_again)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *lost = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    two_gone(&two, &two.b, false);
    two.b = caller_new(&two.harness, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *copies[STREAM_PARTS] = { NULL };
    struct letter *last_b = pushing_send_rest(&two.from_b, 0, 9, copies);
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
    lost = letter_await(&two.harness, lost);
    cr_assert(lost->silent);
    harness_free(lost);
    pushing_take_back(&two.harness, copies);
    two_close(&two, true, true);
}

Test(stream_halves, ends_a_cut_off_push_when_another_begins)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.b, false);
    struct letter *last_a = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    two.b = caller_new(&two.harness, "b", 2);
    model_join(&two.b, "m");
    cr_assert(!letter_is_back(&two.harness, last_a));
    struct pushing next = pushing_new(&two.b, two.model, 2);
    struct letter *frames[STREAM_PARTS] = { pushing_send(&next, 0, 4, false) };
    stream_expect_applied(&two.harness, last_a, 1);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -2, -2, -2 });
    caller_gone(&two.b, true);
    pushing_take_back(&two.harness, frames);
    two_close(&two, true, false);
}

Test(stream_halves, refuses_a_second_copy_that_differs)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.b, false);
    two.b = caller_new(&two.harness, "b", 2);
    model_join(&two.b, "m");
    two.from_b = pushing_new(&two.b, two.model, 1);
    struct letter *other = pushing_make(&two.from_b, 0, 4, false);
    other->request.body.push.samples = 7;
    letter_send(&two.b, other);
    stream_expect_error(&two.harness, other, OPT_INVALID_ARGUMENT, "another basis");
    two_close(&two, true, true);
}

/* ---------------------------------------------------------------- what is told */

/* All of a's push was applied, only the round is not over. */
Test(stream_halves, tells_of_a_push_all_of_whose_shards_count_that_it_was_applied)
{
    struct two two;
    two_open(&two, OPT_LOSS_FAIL, "sgd(lr=1)");
    for (size_t i = 0; i + 1 < STREAM_PARTS; i++) {
        two.frames_b[i] = pushing_send(&two.from_b, i, 4, false);
    }
    struct pushing *from_a = &two.from_a;
    two.frames_a[0] = pushing_send(from_a, 0, 2, false);
    two.frames_a[1] = pushing_send(from_a, 1, 2, false);
    two.frames_a[2] = pushing_send(from_a, 2, 2, false);
    struct letter *last =
        pushing_send(from_a, 3, 2, true); /* without the last tensor */
    cr_assert(!letter_is_back(&two.harness, last));
    two_gone(&two, &two.b, true);
    last = letter_await(&two.harness, last);
    cr_assert_eq(last->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(last));
    cr_assert_eq(last->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(last->reply.body.push.step, 1);
    harness_free(last);
    stream_expect_weights(&two.a, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, 0 });
    two_close(&two, true, false);
}

/* Taken for dead with its push in an open round, and back before that is over: the push
 * stands, and its second copy is answered with what becomes of it. */
Test(stream_halves, answers_a_push_of_a_life_that_is_over_with_what_becomes_of_it)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    cr_assert(!letter_is_back(&two.harness, last));
    two_gone(&two, &two.a, true);
    two.a = caller_new(&two.harness, "a", 1);
    const uint64_t asked[] = { 1 };
    struct letter *opened = letter_start(&two.a, OPT_MESSAGE_OPEN);
    opened->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = asked, .unanswered_count = 1
    };
    opened = letter_ask(&two.a, opened);
    cr_assert_eq(opened->reply.body.model.settled_count, 0);
    cr_assert_eq(opened->reply.body.model.waiting_count, 1);
    harness_free(opened);
    two.from_a = pushing_new(&two.a, two.model, 1);
    struct letter *again[STREAM_PARTS] = { 0 };
    struct letter *answer = pushing_send_rest(&two.from_a, 0, 2, again);
    struct letter *last_b = pushing_send_rest(&two.from_b, 2, 4, two.frames_b);
    stream_expect_applied(&two.harness, answer, 1);
    stream_expect_applied(&two.harness, last_b, 1);
    pushing_take_back(&two.harness, again);
    harness_free(letter_await(&two.harness, last));
    stream_expect_weights(&two.b, two.model, 1,
                          (float[STREAM_PARTS]){ -3, -3, -3, -3, -3 });
    two_close(&two, true, true);
}

/* Half of its push was applied when the worker was lost: the number is used up, and who
 * asks is told how many shards count. */
Test(stream_halves, reports_how_many_shards_of_a_lost_push_count)
{
    struct two two;
    two_open(&two, OPT_LOSS_SHRINK, "sgd(lr=1)");
    two_begin(&two);
    two_gone(&two, &two.b, true);
    struct letter *last = pushing_send_rest(&two.from_a, 2, 2, two.frames_a);
    stream_expect_applied(&two.harness, last, 1);
    two.b = caller_new(&two.harness, "b", 2);
    pushing_take_back(&two.harness, two.frames_b);
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
    harness_free(opened);
    two_close(&two, true, true);
}
