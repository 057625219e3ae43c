/* fate — a push that comes again is answered with the truth and never applied twice;
 * who is told that one was refused is told whether its number is used up.
 */
#include "server/rounds/fate.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "server/rounds/window.h"
#include "tests/support/engine_harness.h"

static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};
static const struct opt_consistency shrink = { .mode = OPT_SYNC,
                                               .loss = OPT_LOSS_SHRINK };

struct stage {
    struct harness harness;
    struct caller worker;
    uint32_t model;
};

static void stage_open(struct stage *stage)
{
    harness_open(&stage->harness, harness_settings());
    stage->worker = caller_new(&stage->harness, "w", 1);
    stage->model =
        model_create(&stage->worker, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
}

/* The weights are minus the sum of what was applied. */
static void stage_close(struct stage *stage, float sum)
{
    float weights[4];
    model_pull(&stage->worker, stage->model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_assert_eq(weights[0], -sum, "%g was applied, not %g", (double)-weights[0],
                 (double)sum);
    caller_gone(&stage->worker, false);
    harness_close(&stage->harness);
}

static void expect_push(struct stage *stage, uint64_t sequence, float value,
                        enum opt_fate fate, uint64_t step)
{
    struct letter *push =
        letter_ask(&stage->worker,
                   push_constant(&stage->worker, stage->model, sequence, 4, value));
    cr_assert_eq(push->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(push));
    cr_assert_eq(push->reply.body.push.fate, fate);
    cr_assert_eq(push->reply.body.push.step, step);
    harness_free(push);
}

static void expect_refusal(struct stage *stage, uint64_t sequence, float value,
                           enum opt_status status, const char *words)
{
    struct letter *push =
        letter_ask(&stage->worker,
                   push_constant(&stage->worker, stage->model, sequence, 4, value));
    cr_assert_eq(reply_status(push), status, "%s", reply_text(push));
    cr_assert_not_null(strstr(reply_text(push), words), "%s", reply_text(push));
    harness_free(push);
}

Test(resend, says_at_which_step_a_push_was_applied)
{
    struct stage stage;
    stage_open(&stage);
    for (uint64_t i = 1; i <= 20; i++) {
        expect_push(&stage, i, 1.0f, OPT_FATE_APPLIED, i);
    }
    for (uint64_t i = 1; i <= 20; i++) {
        expect_push(&stage, i, 1.0f, OPT_FATE_DUPLICATE, i);
    }
    cr_assert_eq(statistic(&stage.worker, "pushes_resent"), 20);
    stage_close(&stage, 20);
}

/* The answer of the refused one was lost, and later ones were applied. */
Test(resend, refuses_again_what_was_refused)
{
    struct stage stage;
    stage_open(&stage);
    expect_push(&stage, 1, 1.0f, OPT_FATE_APPLIED, 1);
    expect_refusal(&stage, 2, NAN, OPT_INVALID_ARGUMENT, "not finite");
    expect_push(&stage, 3, 1.0f, OPT_FATE_APPLIED, 2);
    expect_refusal(&stage, 2, NAN, OPT_INVALID_ARGUMENT, "refused before");
    expect_refusal(&stage, 2, 5.0f, OPT_INVALID_ARGUMENT, "refused before");
    stage_close(&stage, 2);
}

Test(resend, does_not_apply_what_comes_out_of_order)
{
    struct stage stage;
    stage_open(&stage);
    expect_push(&stage, 5, 1.0f, OPT_FATE_APPLIED, 1);
    expect_refusal(&stage, 3, 1.0f, OPT_INVALID_ARGUMENT, "sequences must ascend");
    expect_push(&stage, 6, 1.0f, OPT_FATE_APPLIED, 2);
    expect_refusal(&stage, 4, 1.0f, OPT_INVALID_ARGUMENT, "sequences must ascend");
    stage_close(&stage, 2);
}

Test(resend, says_so_where_it_does_not_remember)
{
    struct stage stage;
    stage_open(&stage);
    expect_push(&stage, 1, 1.0f, OPT_FATE_APPLIED, 1);
    expect_push(&stage, 1 + WINDOW_PUSHES, 1.0f, OPT_FATE_APPLIED, 2);
    expect_refusal(&stage, 1, 1.0f, OPT_OUT_OF_RANGE, "too old");
    stage_close(&stage, 2);
}

/* Refusals that have nothing to do with the push leave its number free. */
Test(resend, takes_a_push_that_could_not_be_taken_before)
{
    struct stage stage;
    stage_open(&stage);
    struct letter *leave = letter_start(&stage.worker, OPT_MESSAGE_LEAVE);
    leave->request.body.leave = stage.model;
    harness_free(letter_ask(&stage.worker, leave));
    expect_refusal(&stage, 1, 1.0f, OPT_FAILED_PRECONDITION, "has not joined");
    model_join(&stage.worker, "m");
    expect_push(&stage, 1, 1.0f, OPT_FATE_APPLIED, 1);
    stage_close(&stage, 1);
}

/* Its deadline passed while it waited, and the answer was lost. */
Test(resend, tells_again_that_a_push_was_withdrawn)
{
    struct stage stage;
    stage_open(&stage);
    struct caller other = caller_new(&stage.harness, "x", 2);
    model_join(&other, "m");
    struct letter *push = push_constant(&stage.worker, stage.model, 1, 4, 1.0f);
    push->request.timeout_ms = 20;
    push = letter_ask(&stage.worker, push);
    cr_assert_eq(reply_status(push), OPT_DEADLINE_EXCEEDED);
    harness_free(push);
    expect_refusal(&stage, 1, 1.0f, OPT_DEADLINE_EXCEEDED, "refused before");
    caller_gone(&other, true);
    expect_push(&stage, 2, 1.0f, OPT_FATE_APPLIED, 1);
    stage_close(&stage, 1);
}

/* What a push_pull pulls is answered also if its push comes again, unless it is
 * refused. */
Test(resend, refuses_a_push_pull_again_as_a_whole)
{
    struct stage stage;
    stage_open(&stage);
    for (int i = 0; i < 2; i++) {
        struct letter *both = push_constant(&stage.worker, stage.model, 1, 4, INFINITY);
        struct opt_push push = both->request.body.push;
        both->request.message = OPT_MESSAGE_PUSH_PULL;
        both->request.body.push_pull = (struct opt_push_pull){
            .push = push, .pull = { .model = stage.model, .slot = "" }, .has_pull = true
        };
        both = letter_ask(&stage.worker, both);
        cr_assert_eq(reply_status(both), OPT_INVALID_ARGUMENT);
        harness_free(both);
    }
    expect_push(&stage, 2, 1.0f, OPT_FATE_APPLIED, 1);
    stage_close(&stage, 1);
}

/* ---------------------------------------------------------------- what is told */

static struct letter *open_again(const struct caller *caller, const uint64_t *asked,
                                 size_t count)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_OPEN);
    letter->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = asked, .unanswered_count = count
    };
    letter = letter_ask(caller, letter);
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_MODEL, "%s", reply_text(letter));
    return letter;
}

/* A worker that is started anew is given a number above all that were used, also where
 * one that was used still waits and those after it are settled. */
Test(resend, gives_a_worker_that_is_started_anew_unused_numbers)
{
    struct stage stage;
    stage_open(&stage);
    struct caller dying = caller_new(&stage.harness, "v", 2);
    model_join(&dying, "m");
    struct letter *pushes[3];
    for (uint64_t i = 0; i < 3; i++) {
        pushes[i] = push_constant(&dying, stage.model, i + 1, 4, 8.0f);
        letter_send(&dying, pushes[i]);
    }
    cr_assert(!letter_is_back(&stage.harness, pushes[2]));
    caller_gone(&dying, false);
    struct caller reborn = caller_new(&stage.harness, "v", 3);
    struct letter *opened = open_again(&reborn, NULL, 0);
    cr_assert_eq(opened->reply.body.model.last_sequence, 3);
    harness_free(opened);
    struct letter *next = push_constant(&reborn, stage.model, 4, 4, 1.0f);
    letter_send(&reborn, next);
    cr_assert(!letter_is_back(&stage.harness, next), "it waits for its round");
    caller_gone(&reborn, true);
    expect_push(&stage, 1, 1.0f, OPT_FATE_APPLIED, 1);
    harness_free(letter_await(&stage.harness, next));
    for (size_t i = 0; i < 3; i++) {
        harness_free(letter_await(&stage.harness, pushes[i]));
    }
    stage_close(&stage, 4.5f); /* the mean of 1 and of the 8 that waited */
}

/* What was taken and refused has used its number up, what was not taken has not. */
Test(resend, tells_apart_what_was_refused_and_what_was_not_taken)
{
    struct stage stage;
    stage_open(&stage);
    struct letter *push =
        letter_ask(&stage.worker, push_constant(&stage.worker, stage.model, 1, 4, NAN));
    cr_assert_eq(push->reply.body.error.fate, OPT_FATE_REFUSED);
    cr_assert_eq(push->reply.body.error.detail, OPT_DETAIL_NOT_FINITE);
    harness_free(push);
    struct caller stranger = caller_new(&stage.harness, "x", 4);
    push = letter_ask(&stranger, push_constant(&stranger, stage.model, 1, 4, 1.0f));
    cr_assert_eq(push->reply.body.error.fate, OPT_FATE_NOT_TAKEN);
    cr_assert_eq(push->reply.body.error.detail, OPT_DETAIL_NOT_JOINED);
    harness_free(push);
    caller_gone(&stranger, false);
    expect_push(&stage, 3, 1.0f, OPT_FATE_APPLIED, 1);
    push = letter_ask(&stage.worker,
                      push_constant(&stage.worker, stage.model, 2, 4, 1.0f));
    cr_assert_eq(push->reply.body.error.fate, OPT_FATE_REFUSED);
    cr_assert_eq(push->reply.body.error.detail, OPT_DETAIL_OUT_OF_ORDER);
    harness_free(push);
    expect_refusal(&stage, 2, 1.0f, OPT_INVALID_ARGUMENT, "refused before");
    stage_close(&stage, 1.0f);
}

/* Whoever asks on a new connection is told what waits, not only what is settled. */
Test(resend, reports_what_waits_and_what_is_not_there)
{
    struct stage stage;
    stage_open(&stage);
    struct caller first = caller_new(&stage.harness, "v", 2);
    model_join(&first, "m");
    struct letter *waits = push_constant(&first, stage.model, 5, 4, 3.0f);
    letter_send(&first, waits);
    cr_assert(!letter_is_back(&stage.harness, waits));
    struct caller second = caller_new(&stage.harness, "v", 2); /* the same session */
    const uint64_t asked[] = { 4, 5 };
    struct letter *opened = open_again(&second, asked, 2);
    cr_assert_eq(opened->reply.body.model.settled_count, 0);
    cr_assert_eq(opened->reply.body.model.waiting_count, 1);
    cr_assert_eq(opened->reply.body.model.waiting[0], 5);
    cr_assert_eq(opened->reply.body.model.remembered_since, 1);
    harness_free(opened);
    caller_gone(&first, false);
    expect_push(&stage, 1, 1.0f, OPT_FATE_APPLIED, 1);
    harness_free(letter_await(&stage.harness, waits));
    caller_gone(&second, false);
    stage_close(&stage, 2.0f);
}

/* A later frame that is refused before its push is looked at ends that push. */
Test(resend, ends_a_push_of_which_a_frame_names_no_model)
{
    struct stage stage;
    stage_open(&stage);
    struct letter *first = push_constant(&stage.worker, stage.model, 1, 4, 1.0f);
    first->request.body.push.last = false;
    letter_send(&stage.worker, first);
    struct letter *later = push_constant(&stage.worker, stage.model + 9, 1, 4, 1.0f);
    later->request.id = first->request.id;
    later->request.body.push.frame = 1;
    later = letter_ask(&stage.worker, later);
    cr_assert_eq(reply_status(later), OPT_NOT_FOUND);
    cr_assert_eq(later->reply.body.error.fate, OPT_FATE_REFUSED);
    harness_free(later);
    harness_free(letter_await(&stage.harness, first));
    expect_push(&stage, 2, 1.0f, OPT_FATE_APPLIED, 1);
    stage_close(&stage, 1.0f);
}
