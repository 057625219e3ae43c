/* worker — identities and their incarnations. */
#include "server/workers/worker.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};
static const struct opt_consistency shrink = { .mode = OPT_SYNC,
                                               .loss = OPT_LOSS_SHRINK };

/* Connect as worker "w" with this session, which was granted this incarnation before.
 * The answer to hello is the caller's. */
static struct letter *connect_as(struct harness *harness, struct caller *out,
                                 uint64_t session, uint64_t incarnation)
{
    *out = caller_new(harness, NULL, 0);
    return caller_greet(out, (struct opt_hello){ .protocol = 1,
                                                 .worker = "w",
                                                 .session = session,
                                                 .incarnation = incarnation });
}

static void expect_incarnation(struct letter *hello, uint64_t incarnation,
                               const char *lost)
{
    cr_assert_eq(hello->reply.message, OPT_MESSAGE_HELLO, "%s", reply_text(hello));
    cr_assert_eq(hello->reply.body.hello.incarnation, incarnation);
    cr_assert_str_eq(hello->reply.body.hello.lost, lost);
    harness_free(hello);
}

static struct letter *push_of(const struct caller *caller, uint32_t model,
                              uint64_t sequence, uint64_t incarnation)
{
    struct letter *letter = push_constant(caller, model, sequence, 4, 1.0f);
    letter->request.body.push.incarnation = incarnation;
    return letter;
}

Test(worker, goes_on_with_its_session)
{
    struct harness harness;
    struct caller first, second, third;
    harness_open(&harness, harness_settings());
    expect_incarnation(connect_as(&harness, &first, 7, 0), 1, "");
    model_create(&first, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    expect_incarnation(connect_as(&harness, &second, 7, 1), 1, "");
    caller_gone(&first, false);
    /* Also if the answer to its first hello did not reach it. */
    expect_incarnation(connect_as(&harness, &third, 7, 0), 1, "");
    cr_assert_eq(statistic(&third, "workers_reconnected"), 2);
    caller_gone(&second, false);
    caller_gone(&third, false);
    harness_close(&harness);
}

/* The process that was replaced finds out when its connection breaks, and may not take
 * the name back. */
Test(worker, refuses_a_session_that_was_followed_by_another)
{
    struct harness harness;
    struct caller old, new, back;
    harness_open(&harness, harness_settings());
    expect_incarnation(connect_as(&harness, &old, 1, 0), 1, "");
    expect_incarnation(connect_as(&harness, &new, 2, 0), 2, "");
    uint32_t model = model_create(&new, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    caller_gone(&old, false);
    for (int i = 0; i < 2; i++) {
        struct letter *hello = connect_as(&harness, &back, 1, 1);
        cr_assert_eq(reply_status(hello), OPT_FAILED_PRECONDITION);
        cr_assert(strstr(reply_text(hello), "stale incarnation 1") != NULL, "%s",
                  reply_text(hello));
        harness_free(hello);
        caller_gone(&back, false);
    }
    struct letter *push = letter_ask(&new, push_of(&new, model, 1, 2));
    cr_assert_eq(push->reply.body.push.fate, OPT_FATE_APPLIED, "%s", reply_text(push));
    harness_free(push);
    cr_assert_eq(statistic(&new, "hellos_stale"), 2);
    caller_gone(&new, false);
    harness_close(&harness);
}

Test(worker, counts_on_from_what_a_client_says_if_it_knows_nothing)
{
    struct harness harness;
    struct caller client, other;
    harness_open(&harness, harness_settings());
    expect_incarnation(connect_as(&harness, &client, 1, 41), 42, "");
    /* Even after the daemon has forgotten all, the older of two processes yields. */
    struct letter *hello = connect_as(&harness, &other, 2, 40);
    cr_assert_eq(reply_status(hello), OPT_FAILED_PRECONDITION);
    harness_free(hello);
    caller_gone(&other, false);
    expect_incarnation(connect_as(&harness, &other, 3, 50), 51, "");
    caller_gone(&client, false);
    caller_gone(&other, false);
    harness_close(&harness);
}

Test(worker, begins_a_new_incarnation_after_it_was_taken_for_dead)
{
    struct harness harness;
    struct caller w, again, later;
    harness_open(&harness, harness_settings());
    expect_incarnation(connect_as(&harness, &w, 1, 0), 1, "");
    uint32_t model = model_create(&w, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    harness_free(letter_ask(&w, push_of(&w, model, 1, 1)));
    caller_gone(&w, true);
    expect_incarnation(connect_as(&harness, &again, 1, 1), 2, "after 5.0 s of silence");
    /* It is told again if that answer was lost. */
    expect_incarnation(connect_as(&harness, &later, 1, 1), 2, "after 5.0 s of silence");
    caller_gone(&again, false);
    /* What it sends again of its former life is not applied, nor applied twice. */
    model_join(&later, "m");
    struct letter *applied = letter_ask(&later, push_of(&later, model, 1, 1));
    cr_assert_eq(applied->reply.body.push.fate, OPT_FATE_DUPLICATE);
    cr_assert_eq(applied->reply.body.push.step, 1);
    harness_free(applied);
    struct letter *stale = letter_ask(&later, push_of(&later, model, 2, 1));
    cr_assert_eq(reply_status(stale), OPT_ABORTED);
    cr_assert_str_eq(reply_text(stale),
                     "stale incarnation 1: worker \"w\" was taken for dead at step 1 "
                     "after 5.0 s of silence; pull the weights and push again");
    harness_free(stale);
    struct letter *push = letter_ask(&later, push_of(&later, model, 2, 2));
    cr_assert_eq(push->reply.body.push.fate, OPT_FATE_APPLIED, "%s", reply_text(push));
    cr_assert_eq(push->reply.body.push.step, 2);
    harness_free(push);
    cr_assert_eq(statistic(&later, "pushes_stale"), 1);
    caller_gone(&later, false);
    harness_close(&harness);
}

Test(worker, leaves_nothing_in_queues_when_it_comes_back_from_the_dead)
{
    struct harness harness;
    struct caller w, again;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 9);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    expect_incarnation(connect_as(&harness, &w, 1, 0), 1, "");
    model_join(&w, "m");
    struct letter *waiting = push_of(&w, model, 1, 1);
    letter_send(&w, waiting);
    caller_gone(&w, true);
    expect_incarnation(connect_as(&harness, &again, 1, 1), 2, "after 5.0 s of silence");
    waiting = letter_await(&harness, waiting);
    cr_assert(waiting->silent);
    harness_free(waiting);
    harness_free(letter_ask(&a, push_constant(&a, model, 1, 4, 3.0f)));
    float weights[4];
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_assert_eq(weights[0], -3.0f, "its push was applied all the same");
    /* When it opens the model it learns so. */
    const uint64_t unanswered[] = { 1, 2 };
    struct letter *open = letter_start(&again, OPT_MESSAGE_OPEN);
    open->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = unanswered, .unanswered_count = 2
    };
    open = letter_ask(&again, open);
    const struct opt_model_reply *reply = &open->reply.body.model;
    cr_assert_eq(reply->settled_count, 1);
    cr_assert_eq(reply->settled[0].sequence, 1);
    cr_assert_eq(reply->settled[0].fate, OPT_FATE_REFUSED);
    cr_assert_eq(reply->settled[0].status, OPT_ABORTED);
    cr_assert_eq(reply->last_sequence, 1);
    harness_free(open);
    caller_gone(&again, false);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* The new connection may be there before the end of the old one is noticed. */
Test(worker, drops_half_a_push_when_it_goes_on_over_another_connection)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller before = caller_new(&harness, "a", 7);
    uint32_t model = model_create(&before, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    struct letter *half = push_constant(&before, model, 1, 4, 1);
    half->request.body.push.last = false;
    letter_send(&before, half);
    struct caller after = caller_new(&harness, "a", 7);
    harness_free(letter_await(&harness, half));
    model_join(&after, "m");
    struct letter *whole = letter_ask(&after, push_constant(&after, model, 1, 4, 2));
    cr_expect_eq(reply_status(whole), OPT_OK, "%s", reply_text(whole));
    harness_free(whole);
    float weights[4];
    model_pull(&after, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_expect(weights[0] == -2 && weights[3] == -2, "%g", (double)weights[0]);
    caller_gone(&before, false);
    caller_gone(&after, false);
    harness_close(&harness);
}
