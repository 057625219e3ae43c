/* barrier — who is waited for, who is let go, and what a lost worker means. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};

static struct letter *barrier_letter(const struct caller *caller, uint32_t model,
                                     uint64_t sequence)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_BARRIER);
    letter->request.body.barrier =
        (struct opt_barrier){ .model = model, .sequence = sequence };
    return letter;
}

static struct letter *arrive(const struct caller *caller, uint32_t model,
                             uint64_t sequence)
{
    struct letter *letter = barrier_letter(caller, model, sequence);
    letter_send(caller, letter);
    return letter;
}

static void expect_passed(struct harness *harness, struct letter *letter,
                          const char *lost)
{
    letter = letter_await(harness, letter);
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_BARRIER, "%s", reply_text(letter));
    const struct opt_lost *names = &letter->reply.body.barrier.lost;
    cr_assert_eq(names->count, lost == NULL ? 0 : 1);
    if (lost != NULL) {
        cr_expect_str_eq(names->names[0], lost);
    }
    harness_free(letter);
}

static void expect_failed(struct harness *harness, struct letter *letter,
                          enum opt_status status, const char *says)
{
    letter = letter_await(harness, letter);
    cr_expect_eq(reply_status(letter), status);
    cr_expect(strstr(reply_text(letter), says) != NULL, "%s", reply_text(letter));
    harness_free(letter);
}

/* Three workers of a model with this policy. */
struct scene {
    struct harness harness;
    struct caller a, b, c;
    uint32_t model;
};

static void scene_open(struct scene *scene, struct opt_consistency policy,
                       uint32_t grace_ms)
{
    struct engine_settings settings = harness_settings();
    settings.grace_ms = grace_ms;
    harness_open(&scene->harness, settings);
    scene->a = caller_new(&scene->harness, "a", 1);
    scene->b = caller_new(&scene->harness, "b", 2);
    scene->c = caller_new(&scene->harness, "c", 3);
    scene->model = model_create(&scene->a, "m", "sgd(lr=1)", policy, &four, 1, NULL);
    model_join(&scene->b, "m");
    model_join(&scene->c, "m");
}

static void scene_close(struct scene *scene)
{
    caller_gone(&scene->a, false);
    caller_gone(&scene->b, false);
    harness_close(&scene->harness);
}

Test(barrier, lets_everybody_go_when_the_last_has_come)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_ASYNC }, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct letter *first = arrive(&s.a, s.model, i);
        struct letter *second = arrive(&s.b, s.model, i);
        cr_assert(!letter_is_back(&s.harness, first) &&
                  !letter_is_back(&s.harness, second));
        expect_passed(&s.harness, arrive(&s.c, s.model, i), NULL);
        expect_passed(&s.harness, first, NULL);
        expect_passed(&s.harness, second, NULL);
    }
    cr_expect_eq(statistic(&s.a, "barriers"), 3);
    caller_gone(&s.c, false);
    scene_close(&s);
}

Test(barrier, does_not_mix_with_the_next_one)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *first = arrive(&s.a, s.model, 1);
    struct letter *second = arrive(&s.b, s.model, 1);
    expect_passed(&s.harness, arrive(&s.c, s.model, 1), NULL);
    /* c is at the next before the others have heard that they passed this one. */
    struct letter *next = arrive(&s.c, s.model, 2);
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, second, NULL);
    cr_assert(!letter_is_back(&s.harness, next));
    /* The answer was lost: asked again, it is answered and counts for nothing. */
    expect_passed(&s.harness, arrive(&s.a, s.model, 1), NULL);
    cr_assert(!letter_is_back(&s.harness, next));
    first = arrive(&s.a, s.model, 2);
    expect_passed(&s.harness, arrive(&s.b, s.model, 2), NULL);
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, next, NULL);
    caller_gone(&s.c, false);
    scene_close(&s);
}

Test(barrier, names_who_is_missing_and_takes_the_coming_back)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *short_of_time = barrier_letter(&s.a, s.model, 1);
    short_of_time->request.timeout_ms = 50;
    letter_send(&s.a, short_of_time);
    expect_failed(&s.harness, short_of_time, OPT_DEADLINE_EXCEEDED,
                  "2 of 3 workers have not come: \"b\", \"c\"");
    struct letter *second = arrive(&s.b, s.model, 1);
    struct letter *third = arrive(&s.c, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, third), "a is not here any more");
    expect_passed(&s.harness, arrive(&s.a, s.model, 2), NULL);
    expect_passed(&s.harness, second, NULL);
    expect_passed(&s.harness, third, NULL);
    caller_gone(&s.c, false);
    scene_close(&s);
}

Test(barrier, waits_until_min_workers_have_come_together)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_ASYNC, .min_workers = 4 }, 0);
    struct letter *letters[] = { arrive(&s.a, s.model, 1), arrive(&s.b, s.model, 1),
                                 arrive(&s.c, s.model, 1) };
    cr_assert(!letter_is_back(&s.harness, letters[2]));
    struct caller d = caller_new(&s.harness, "d", 4);
    model_join(&d, "m");
    cr_assert(!letter_is_back(&s.harness, letters[2]));
    expect_passed(&s.harness, arrive(&d, s.model, 1), NULL);
    for (size_t i = 0; i < 3; i++) {
        expect_passed(&s.harness, letters[i], NULL);
    }
    caller_gone(&d, false);
    caller_gone(&s.c, false);
    scene_close(&s);
}

Test(barrier, lets_the_others_go_without_a_lost_worker_and_names_it)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *first = arrive(&s.a, s.model, 1);
    struct letter *second = arrive(&s.b, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, second));
    caller_gone(&s.c, true);
    expect_passed(&s.harness, first, "c");
    expect_passed(&s.harness, second, "c");
    /* Once is enough. */
    first = arrive(&s.a, s.model, 2);
    expect_passed(&s.harness, arrive(&s.b, s.model, 2), NULL);
    expect_passed(&s.harness, first, NULL);
    scene_close(&s);
}

Test(barrier, is_not_held_up_by_a_worker_lost_while_it_waited_there)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *third = arrive(&s.c, s.model, 1);
    struct letter *first = arrive(&s.a, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, first));
    caller_gone(&s.c, true);
    third = letter_await(&s.harness, third);
    cr_expect(third->silent);
    harness_free(third);
    expect_passed(&s.harness, arrive(&s.b, s.model, 1), "c");
    expect_passed(&s.harness, first, "c");
    scene_close(&s);
}

Test(barrier, fails_for_all_with_a_lost_worker_if_the_policy_says_so)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC, .loss = OPT_LOSS_FAIL },
               0);
    struct letter *first = arrive(&s.a, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, first));
    caller_gone(&s.c, true);
    expect_failed(&s.harness, first, OPT_ABORTED, "worker \"c\" was lost");
    first = arrive(&s.a, s.model, 2);
    expect_passed(&s.harness, arrive(&s.b, s.model, 1), "c");
    expect_passed(&s.harness, first, "c");
    scene_close(&s);
}

Test(barrier, waits_for_a_lost_worker_if_the_policy_says_so)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC, .loss = OPT_LOSS_WAIT },
               0);
    struct letter *first = arrive(&s.a, s.model, 1);
    struct letter *second = barrier_letter(&s.b, s.model, 1);
    second->request.timeout_ms = 50;
    caller_gone(&s.c, true);
    letter_send(&s.b, second);
    expect_failed(&s.harness, second, OPT_DEADLINE_EXCEEDED, "\"c\" (not connected)");
    s.c = caller_new(&s.harness, "c", 9);
    model_join(&s.c, "m");
    second = arrive(&s.b, s.model, 2);
    expect_passed(&s.harness, arrive(&s.c, s.model, 1), NULL);
    expect_passed(&s.harness, first, "c");
    expect_passed(&s.harness, second, "c");
    caller_gone(&s.c, false);
    scene_close(&s);
}

/* Who has lost the connection may have given up waiting: it is not there until it asks
 * again, and nobody passes with a worker that is somewhere else. */
Test(barrier, is_not_passed_with_a_worker_whose_connection_broke_while_it_waited)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 60000);
    struct letter *gone = arrive(&s.c, s.model, 1);
    struct letter *first = arrive(&s.a, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, first));
    caller_gone(&s.c, false);
    harness_free(letter_await(&s.harness, gone));
    struct letter *second = barrier_letter(&s.b, s.model, 1);
    second->request.timeout_ms = 50;
    letter_send(&s.b, second);
    expect_failed(&s.harness, second, OPT_DEADLINE_EXCEEDED, "\"c\" (not connected)");
    /* Back, and busy with something else. */
    s.c = caller_new(&s.harness, "c", 3);
    second = barrier_letter(&s.b, s.model, 1);
    second->request.timeout_ms = 50;
    letter_send(&s.b, second);
    expect_failed(&s.harness, second, OPT_DEADLINE_EXCEEDED,
                  "1 of 3 workers have not come: \"c\"");
    second = arrive(&s.b, s.model, 2);
    expect_passed(&s.harness, arrive(&s.c, s.model, 2), NULL);
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, second, NULL);
    caller_gone(&s.c, true);
    scene_close(&s);
}

Test(barrier, goes_on_when_a_worker_asks_again_on_another_connection)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 60000);
    struct letter *first = arrive(&s.a, s.model, 1), *second = arrive(&s.b, s.model, 1);
    struct letter *gone = arrive(&s.c, s.model, 1);
    /* Passed, but the answer was lost: asked again, it is answered. */
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, second, NULL);
    harness_free(letter_await(&s.harness, gone));
    caller_gone(&s.c, false);
    s.c = caller_new(&s.harness, "c", 3);
    expect_passed(&s.harness, arrive(&s.c, s.model, 1), NULL);
    /* Not passed yet: it waits anew, and the request before is answered too, though its
     * connection still seems to live. */
    gone = arrive(&s.c, s.model, 2);
    cr_assert(!letter_is_back(&s.harness, gone));
    struct caller before = s.c;
    s.c = caller_new(&s.harness, "c", 3);
    expect_failed(&s.harness, gone, OPT_UNAVAILABLE, "followed by another one");
    struct letter *again = arrive(&s.c, s.model, 2);
    first = arrive(&s.a, s.model, 2);
    cr_assert(!letter_is_back(&s.harness, again));
    expect_passed(&s.harness, arrive(&s.b, s.model, 2), NULL);
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, again, NULL);
    caller_gone(&before, false);
    caller_gone(&s.c, true);
    scene_close(&s);
}

Test(barrier, counts_who_rests_and_not_who_has_left)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *rest = letter_start(&s.c, OPT_MESSAGE_REST);
    rest->request.body.rest = s.model;
    harness_free(letter_ask(&s.c, rest));
    struct letter *first = arrive(&s.a, s.model, 1);
    struct letter *second = arrive(&s.b, s.model, 1);
    cr_assert(!letter_is_back(&s.harness, second));
    struct letter *leave = letter_start(&s.c, OPT_MESSAGE_LEAVE);
    leave->request.body.leave = s.model;
    harness_free(letter_ask(&s.c, leave));
    expect_passed(&s.harness, first, NULL);
    expect_passed(&s.harness, second, NULL);
    expect_failed(&s.harness, arrive(&s.c, s.model, 1), OPT_FAILED_PRECONDITION,
                  "has not joined");
    caller_gone(&s.c, false);
    scene_close(&s);
}

Test(barrier, is_one_at_a_time_for_a_worker_and_ends_with_the_model)
{
    struct scene s;
    scene_open(&s, (struct opt_consistency){ .mode = OPT_SYNC }, 0);
    struct letter *first = arrive(&s.a, s.model, 1);
    expect_failed(&s.harness, arrive(&s.a, s.model, 2), OPT_FAILED_PRECONDITION,
                  "waits at barrier 1");
    struct letter *leave = letter_start(&s.b, OPT_MESSAGE_LEAVE);
    leave->request.body.leave = s.model;
    harness_free(letter_ask(&s.b, leave));
    struct letter *goodbye = letter_ask(&s.c, letter_start(&s.c, OPT_MESSAGE_GOODBYE));
    harness_free(goodbye);
    expect_passed(&s.harness, first, NULL); /* nobody else is left */
    model_join(&s.b, "m");
    first = arrive(&s.a, s.model, 2);
    cr_assert(!letter_is_back(&s.harness, first));
    engine_stop(s.harness.engine);
    expect_failed(&s.harness, first, OPT_UNAVAILABLE, "stopping");
    caller_gone(&s.a, false);
    caller_gone(&s.b, false);
    caller_gone(&s.c, false);
    harness_close_stopped(&s.harness);
}

/* ---------------------------------------------------------------- the lost */

Test(losses, are_told_with_the_answer_to_a_push_a_few_at_a_time)
{
    enum { LOST = 11 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model =
        model_create(&a, "m", "sgd(lr=1)", (struct opt_consistency){ .mode = OPT_SYNC },
                     &four, 1, NULL);
    for (int i = 0; i < LOST; i++) {
        char name[16];
        snprintf(name, sizeof name, "lost-%02d", i);
        struct caller other = caller_new(&harness, name, 7);
        model_join(&other, "m");
        caller_gone(&other, true);
    }
    size_t told = 0;
    for (uint64_t sequence = 1; sequence <= 3; sequence++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, sequence, 4, 1));
        cr_assert_eq(push->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(push));
        const struct opt_lost *lost = &push->reply.body.push.lost;
        cr_expect_eq(lost->count, sequence == 1   ? OPT_LOST_MAX
                                  : sequence == 2 ? LOST - OPT_LOST_MAX
                                                  : 0);
        for (size_t i = 0; i < lost->count; i++, told++) {
            char name[16];
            snprintf(name, sizeof name, "lost-%02zu", told);
            cr_expect_str_eq(lost->names[i], name);
        }
        harness_free(push);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}
