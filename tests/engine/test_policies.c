/* policies — by which rule pushes become updates: samples, backup workers, bounded
 * staleness, damping, delay compensation, rest. Gradients are whole numbers and the
 * rule is sgd(lr=1, aggregate=sum), so the weights tell which pushes counted.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};
static const char summing[] = "sgd(lr=1, aggregate=sum)";

static const struct opt_push_reply *fate(const struct letter *letter)
{
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    return &letter->reply.body.push;
}

/* A push of value in all elements. */
static struct letter *push_of(const struct caller *caller, uint32_t model,
                              uint64_t sequence, uint64_t basis, uint64_t samples,
                              float value)
{
    struct letter *letter = push_constant(caller, model, sequence, 4, value);
    letter->request.body.push.basis = basis;
    letter->request.body.push.samples = samples;
    return letter;
}

static struct letter *push_sent(const struct caller *caller, uint32_t model,
                                uint64_t sequence, uint64_t basis, float value)
{
    struct letter *letter = push_of(caller, model, sequence, basis, 1, value);
    letter_send(caller, letter);
    return letter;
}

static void expect_applied(struct harness *harness, struct letter *letter,
                           uint64_t step)
{
    letter = letter_await(harness, letter);
    cr_assert_eq(fate(letter)->fate, OPT_FATE_APPLIED, "%s", fate(letter)->reason);
    cr_expect_eq(fate(letter)->step, step);
    harness_free(letter);
}

static void expect_weights(const struct caller *caller, uint32_t model, float value)
{
    float weights[4];
    model_pull(caller, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_expect(weights[0] == value && weights[3] == value, "%.9g, not %.9g",
              (double)weights[0], (double)value);
}

static struct letter *rest_letter(const struct caller *caller, uint32_t model)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_REST);
    letter->request.body.rest = model;
    return letter;
}

static struct letter *describe(const struct caller *caller, struct opt_arena *arena,
                               struct opt_description *out)
{
    struct opt_error error;
    struct letter *letter = letter_start(caller, OPT_MESSAGE_DESCRIBE);
    letter->request.body.describe = "m";
    letter = letter_ask(caller, letter);
    opt_arena_init(arena, opt_table_budget(letter->table_size));
    cr_assert_eq(
        opt_description_read(letter->table, letter->table_size, arena, out, &error),
        OPT_OK, "%s", error.text);
    return letter;
}

/* ---------------------------------------------------------------- what can be asked */

struct refusal {
    struct opt_consistency policy;
    const char *spec, *says;
    enum opt_status status;
    bool sparse;
};

Test(policies, that_cannot_be_are_refused_by_name)
{
    static const struct refusal refusals[] = {
        { { .mode = OPT_ASYNC, .samples = 5 },
          "sgd(lr=1)",
          "samples is given, but the mode is async",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_BOUNDED, .staleness = 1, .backup = 1 },
          "sgd(lr=1)",
          "backup is given, but the mode is bounded",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_SYNC, .staleness = 1 },
          "sgd(lr=1)",
          "staleness is given, but the mode is sync",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_SYNC, .damping = true },
          "sgd(lr=1)",
          "damping is given",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_SYNC, .delay_compensation = 1 },
          "sgd(lr=1)",
          "delay_compensation is given",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_SYNC, .samples = 10, .backup = 1 },
          "sgd(lr=1)",
          "samples is 10 and backup is 1",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_BOUNDED },
          "sgd(lr=1)",
          "staleness is 0; it must be at least 1",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_ASYNC, .atomic = OPT_ATOMIC_SHARD },
          "sgd(lr=1)",
          "atomic SHARD is given, but the mode is async",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_ASYNC, .delay_compensation = 1 },
          "nag(lr=1, nesterov_form=classical)",
          "at the weights themselves",
          OPT_INVALID_ARGUMENT,
          false },
        { { .mode = OPT_ASYNC, .delay_compensation = 1 },
          "sgd(lr=1)",
          "is sparse",
          OPT_INVALID_ARGUMENT,
          true },
    };
    static const uint64_t rows[] = { 4, 2 };
    static const struct opt_tensor_entry table = {
        .name = "t", .shape = rows, .rank = 2, .elements = 8, .sparse = true
    };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *refusal = &refusals[i];
        struct letter *create = letter_ask(
            &a, create_letter(&a, "m", refusal->spec, refusal->policy,
                              refusal->sparse ? &table : &four, 1, false, true));
        cr_expect_eq(reply_status(create), refusal->status, "case %zu: %s", i,
                     reply_text(create));
        cr_expect(strstr(reply_text(create), refusal->says) != NULL, "case %zu: %s", i,
                  reply_text(create));
        harness_free(create);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

struct difference {
    struct opt_consistency policy;
    const char *says;
};

Test(policies, that_differ_from_an_existing_model_say_how)
{
    static const struct opt_consistency has = {
        .mode = OPT_BOUNDED, .staleness = 3, .damping = true, .delay_compensation = 0.5
    };
    static const struct difference differences[] = {
        { { .mode = OPT_ASYNC, .damping = true }, "its mode is bounded, not async" },
        { { .mode = OPT_BOUNDED, .staleness = 4 }, "its staleness is 3, not 4" },
        { { .mode = OPT_BOUNDED, .staleness = 3 }, "its damping is 1, not 0" },
        { { .mode = OPT_BOUNDED, .staleness = 3, .damping = true },
          "its delay_compensation is 0.5, not 0" },
    };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "m", summing, has, &four, 1, NULL);
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++) {
        struct letter *again =
            letter_ask(&a, create_letter(&a, "m", summing, differences[i].policy, &four,
                                         1, false, true));
        cr_expect_eq(reply_status(again), OPT_ALREADY_EXISTS);
        cr_expect(strstr(reply_text(again), differences[i].says) != NULL, "%s",
                  reply_text(again));
        harness_free(again);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- samples */

static const struct opt_consistency ten_samples = { .mode = OPT_SYNC, .samples = 10 };

Test(samples, close_a_round_whoever_they_came_from)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", summing, ten_samples, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *first = push_of(&a, model, 1, 0, 4, 1);
    struct letter *second = push_of(&a, model, 2, 0, 4, 10);
    letter_send(&a, first);
    letter_send(&a, second);
    cr_assert(!letter_is_back(&harness, first) && !letter_is_back(&harness, second));
    struct letter *third = letter_ask(&b, push_of(&b, model, 1, 0, 2, 100));
    expect_applied(&harness, first, 1);
    expect_applied(&harness, second, 1);
    cr_expect_eq(fate(third)->step, 1);
    harness_free(third);
    expect_weights(&a, model, -111);
    /* The one that brings the sum past ten counts whole, and b need not push at all. */
    struct letter *large = letter_ask(&a, push_of(&a, model, 3, 1, 25, 1000));
    cr_expect_eq(fate(large)->step, 2);
    harness_free(large);
    expect_weights(&b, model, -1111);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(samples, that_are_missing_are_told_at_the_deadline)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", summing, ten_samples, &four, 1, NULL);
    struct letter *push = push_of(&a, model, 1, 0, 4, 1);
    push->request.timeout_ms = 50;
    push = letter_ask(&a, push);
    cr_expect_eq(reply_status(push), OPT_DEADLINE_EXCEEDED);
    cr_expect(strstr(reply_text(push), "cover 4 of 10 samples") != NULL, "%s",
              reply_text(push));
    harness_free(push);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(samples, in_more_pushes_than_fit_are_refused_at_once)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct opt_consistency many = { .mode = OPT_SYNC, .samples = 1000 };
    uint32_t model = model_create(&a, "m", summing, many, &four, 1, NULL);
    enum { MOST = 64 };
    struct letter *waiting[MOST];
    for (uint64_t i = 0; i < MOST; i++) {
        waiting[i] = push_sent(&a, model, i + 1, 0, 1);
    }
    struct letter *over = letter_ask(&a, push_of(&a, model, MOST + 1, 0, 1, 1));
    cr_expect_eq(reply_status(over), OPT_RESOURCE_EXHAUSTED);
    cr_expect(strstr(reply_text(over), "cover 64 of 1000 samples") != NULL, "%s",
              reply_text(over));
    harness_free(over);
    struct letter *leave = letter_start(&a, OPT_MESSAGE_LEAVE);
    leave->request.body.leave = model;
    harness_free(letter_ask(&a, leave));
    for (size_t i = 0; i < MOST; i++) {
        struct letter *withdrawn = letter_await(&harness, waiting[i]);
        cr_expect_eq(reply_status(withdrawn), OPT_ABORTED);
        harness_free(withdrawn);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

/* Three workers, each with several pushes of uneven samples, against the mean taken
 * here in the documented order. */
Test(samples, give_the_bits_of_one_process)
{
    enum { PUSHES = 7, N = 1000 };
    static const uint64_t shape[] = { N };
    static const struct opt_tensor_entry tensor = {
        .name = "w", .shape = shape, .rank = 1, .elements = N
    };
    static const size_t owner[PUSHES] = {
        2, 0, 1, 1, 0, 2, 0
    }; /* in order of arrival */
    static const uint64_t samples[PUSHES] = { 3, 1, 4, 1, 5, 9, 2 };
    static const size_t order[PUSHES] = { 1, 4, 6, 2, 3, 0, 5 }; /* worker, sequence */
    struct opt_consistency policy = { .mode = OPT_SYNC, .samples = 25 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller workers[] = { caller_new(&harness, "a", 1),
                                caller_new(&harness, "b", 2),
                                caller_new(&harness, "c", 3) };
    float(*gradients)[N] = malloc(PUSHES * sizeof *gradients);
    float *expected = malloc(N * sizeof *expected),
          *weights = malloc(N * sizeof(float));
    cr_assert(gradients != NULL && expected != NULL && weights != NULL);
    uint32_t model =
        model_create(&workers[0], "m", "sgd(lr=0.1)", policy, &tensor, 1, NULL);
    model_join(&workers[1], "m");
    model_join(&workers[2], "m");
    struct letter *letters[PUSHES];
    uint64_t sequences[3] = { 0 };
    srand(7);
    for (size_t i = 0; i < PUSHES; i++) {
        const struct caller *worker = &workers[owner[i]];
        struct opt_segment segment = { .tensor = 0 };
        for (size_t k = 0; k < N; k++) {
            gradients[i][k] = (float)rand() / (float)RAND_MAX - 0.5f;
        }
        letters[i] = push_letter(worker, model, ++sequences[owner[i]], OPT_FP32,
                                 &segment, 1, gradients[i], sizeof gradients[i]);
        letters[i]->request.body.push.samples = samples[i];
        letter_send(worker, letters[i]);
    }
    for (size_t i = 0; i < PUSHES; i++) {
        expect_applied(&harness, letters[i], 1);
    }
    for (size_t k = 0; k < N; k++) {
        double sum = 0;
        for (size_t i = 0; i < PUSHES; i++) {
            double factor = (double)samples[order[i]] / 25.0;
            double product = factor * (double)gradients[order[i]][k];
            sum = i == 0 ? product : sum + product;
        }
        expected[k] = 0.0f - 0.1f * (float)sum;
    }
    model_pull(&workers[0], model, OPT_VIEW_TRAIN, "", weights, N);
    cr_expect(same_bits(weights, expected, N));
    free(gradients);
    free(expected);
    free(weights);
    for (size_t i = 0; i < 3; i++) {
        caller_gone(&workers[i], false);
    }
    harness_close(&harness);
}

/* ---------------------------------------------------------------- backup workers */

Test(backup, lets_a_round_close_without_the_slowest_which_is_dropped)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2),
                  c = caller_new(&harness, "c", 3);
    struct opt_consistency policy = { .mode = OPT_SYNC, .backup = 1, .min_workers = 3 };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    model_join(&b, "m");
    model_join(&c, "m");
    struct letter *first = push_sent(&a, model, 1, 0, 1);
    cr_assert(!letter_is_back(&harness, first));
    struct letter *second = push_sent(&b, model, 1, 0, 10);
    expect_applied(&harness, first, 1);
    expect_applied(&harness, second, 1);
    /* Once, and once more as if the answer had been lost, and after a later one. */
    for (int i = 0; i < 3; i++) {
        struct letter *late = letter_ask(&c, push_of(&c, model, 1, 0, 1, 100));
        cr_expect_eq(fate(late)->fate, OPT_FATE_DROPPED);
        cr_expect(strstr(fate(late)->reason,
                         i == 0 ? "round 1 closed" : "had closed") != NULL,
                  "%s", fate(late)->reason);
        cr_expect_eq(fate(late)->step, 1);
        harness_free(late);
        if (i == 1) {
            struct letter *next = push_sent(&c, model, 2, 1, 1000);
            expect_applied(&harness, push_sent(&a, model, 2, 1, 10000), 2);
            expect_applied(&harness, next, 2);
        }
    }
    expect_weights(&a, model, -11011);
    cr_expect_eq(statistic(&a, "pushes_dropped"), 1);
    struct opt_arena arena;
    struct opt_description description;
    struct letter *shown = describe(&a, &arena, &description);
    cr_expect_eq(description.dropped, 1);
    cr_expect_eq(description.rounds, 2);
    cr_expect_eq(description.workers[2].dropped, 1);
    opt_arena_fini(&arena);
    harness_free(shown);
    caller_gone(&a, false);
    caller_gone(&b, false);
    caller_gone(&c, false);
    harness_close(&harness);
}

Test(backup, drops_what_waits_for_a_round_that_has_closed)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency policy = { .mode = OPT_SYNC, .backup = 1, .min_workers = 3 };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *first = push_sent(&a, model, 1, 0, 1);
    struct letter *ahead = push_sent(&a, model, 2, 0, 10);
    struct letter *other = push_sent(&b, model, 1, 0, 100);
    cr_assert(!letter_is_back(&harness, other));
    struct caller c = caller_new(&harness, "c", 3);
    model_join(&c, "m");
    expect_applied(&harness, first, 1);
    expect_applied(&harness, other, 1);
    ahead = letter_await(&harness, ahead);
    cr_expect_eq(fate(ahead)->fate, OPT_FATE_DROPPED);
    harness_free(ahead);
    expect_weights(&a, model, -101);
    caller_gone(&a, false);
    caller_gone(&b, false);
    caller_gone(&c, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- bounded staleness */

Test(bounded, lets_nobody_get_too_far_ahead_of_the_slowest)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency policy = { .mode = OPT_BOUNDED,
                                      .staleness = 2,
                                      .min_workers = 2 };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    struct letter *early = push_sent(&a, model, 1, 0, 1);
    cr_assert(!letter_is_back(&harness, early), "b has not joined");
    model_join(&b, "m");
    expect_applied(&harness, early, 1);
    expect_applied(&harness, push_sent(&a, model, 2, 0, 10), 2);
    struct letter *third = push_sent(&a, model, 3, 0, 100);
    cr_assert(!letter_is_back(&harness, third));
    expect_applied(&harness, push_sent(&b, model, 1, 0, 1000), 3);
    expect_applied(&harness, third, 4);
    struct letter *fourth = push_of(&a, model, 4, 4, 1, 10000);
    fourth->request.timeout_ms = 50;
    fourth = letter_ask(&a, fourth);
    cr_expect_eq(reply_status(fourth), OPT_DEADLINE_EXCEEDED);
    cr_expect(strstr(reply_text(fourth), "more than 2 ahead of the slowest") != NULL &&
                  strstr(reply_text(fourth), "made 1 pushes: \"b\"") != NULL,
              "%s", reply_text(fourth));
    harness_free(fourth);
    expect_weights(&a, model, -1111);
    /* Somebody new starts where the slowest is; who is lost is not waited for. */
    struct caller c = caller_new(&harness, "c", 3);
    model_join(&c, "m");
    caller_gone(&b, true);
    for (uint64_t i = 1; i <= 4; i++) {
        expect_applied(&harness, push_sent(&c, model, i, 4, 0), 4 + i);
    }
    struct letter *blocked = push_sent(&c, model, 5, 4, 0);
    cr_assert(!letter_is_back(&harness, blocked), "c is at 5, a at 3");
    expect_applied(&harness, push_sent(&a, model, 5, 4, 0), 9);
    expect_applied(&harness, blocked, 10);
    struct opt_arena arena;
    struct opt_description description;
    struct letter *shown = describe(&a, &arena, &description);
    cr_expect_eq(description.workers[0].waits, 1);
    opt_arena_fini(&arena);
    harness_free(shown);
    caller_gone(&a, false);
    caller_gone(&c, false);
    harness_close(&harness);
}

Test(bounded, does_not_wait_for_who_rests)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency policy = { .mode = OPT_BOUNDED, .staleness = 1 };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    model_join(&b, "m");
    harness_free(letter_ask(&b, rest_letter(&b, model)));
    for (uint64_t i = 1; i <= 5; i++) {
        expect_applied(&harness, push_sent(&a, model, i, 0, 1), i);
    }
    /* b comes back where a is, so that a need not wait for four of its pushes. */
    expect_applied(&harness, push_sent(&b, model, 1, 0, 1), 6);
    expect_applied(&harness, push_sent(&a, model, 6, 0, 1), 7);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- staleness */

Test(damping, divides_a_gradient_by_one_more_than_its_staleness)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct opt_consistency policy = { .mode = OPT_ASYNC, .damping = true };
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", policy, &four, 1, NULL);
    expect_applied(&harness, push_sent(&a, model, 1, 0, 12), 1); /* 12 */
    expect_applied(&harness, push_sent(&a, model, 2, 0, 12), 2); /* 6 */
    expect_applied(&harness, push_sent(&a, model, 3, 0, 12), 3); /* 4 */
    expect_applied(&harness, push_sent(&a, model, 4, 3, 12), 4); /* 12 */
    expect_weights(&a, model, -34);
    struct opt_arena arena;
    struct opt_description description;
    struct letter *shown = describe(&a, &arena, &description);
    cr_expect_eq(description.workers[0].staleness[0], 2);
    cr_expect_eq(description.workers[0].staleness[1], 1);
    cr_expect_eq(description.workers[0].staleness[2], 1);
    cr_expect_eq(description.mean_staleness, 0.75);
    opt_arena_fini(&arena);
    harness_free(shown);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(damping, is_for_rows_too)
{
    static const uint64_t rows[] = { 4, 2 };
    static const struct opt_tensor_entry table = {
        .name = "t", .shape = rows, .rank = 2, .elements = 8, .sparse = true
    };
    static const uint32_t row = 3;
    static const float gradient[] = { 12, 24 };
    struct opt_consistency policy = { .mode = OPT_ASYNC, .damping = true };
    struct opt_segment segment = { .rows = &row, .row_count = 1 };
    struct harness harness;
    float weights[8];
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", policy, &table, 1, NULL);
    for (uint64_t i = 1; i <= 3; i++) { /* all from step 0: whole, a half, a third */
        harness_free(letter_ask(&a, push_letter(&a, model, i, OPT_FP32, &segment, 1,
                                                gradient, sizeof gradient)));
    }
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 8);
    cr_expect(weights[6] == -22 && weights[7] == -44, "%g %g", (double)weights[6],
              (double)weights[7]);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* a pulls, b moves the weights, a pushes: by the formula, written out. */
static void compensates(size_t n, enum opt_dtype dtype, double lambda)
{
    const uint64_t shape[] = { n };
    const struct opt_tensor_entry tensor = {
        .name = "w", .shape = shape, .rank = 1, .elements = n
    };
    struct opt_consistency policy = { .mode = OPT_ASYNC,
                                      .damping = true,
                                      .delay_compensation = lambda };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=0.25)", policy, &tensor, 1, NULL);
    model_join(&b, "m");
    float *then = malloc(n * sizeof *then), *now = malloc(n * sizeof *now),
          *after = malloc(n * sizeof *after), *expected = malloc(n * sizeof *expected);
    uint16_t *half = malloc(n * sizeof *half);
    cr_assert(then != NULL && now != NULL && after != NULL && expected != NULL &&
              half != NULL);
    struct opt_segment segment = { .tensor = 0 };
    uint64_t sequence = 0;
    for (size_t k = 0; k < n; k++) {
        now[k] = (float)(k % 31) / 7.0f;
    }
    harness_free(letter_ask(
        &b, push_letter(&b, model, 1, OPT_FP32, &segment, 1, now, n * sizeof *now)));
    model_pull(&a, model, OPT_VIEW_TRAIN, "", then, n);
    struct letter *moves =
        push_letter(&b, model, 2, OPT_FP32, &segment, 1, now, n * sizeof *now);
    moves->request.body.push.basis = 1;
    harness_free(letter_ask(&b, moves));
    model_pull(&b, model, OPT_VIEW_TRAIN, "", now, n);
    for (size_t k = 0; k < n; k++) {
        expected[k] = (float)((int)(k % 17) - 8) / 8.0f;
    }
    expected[5] = 1e38f; /* cannot be compensated: it stays as it is */
    expected[6] = -0.0f;
    opt_dtype_narrow(dtype, expected, half, dtype == OPT_FP32 ? 0 : n);
    opt_dtype_widen(dtype, half, expected, dtype == OPT_FP32 ? 0 : n);
    const void *values = dtype == OPT_FP32 ? (const void *)expected : half;
    struct letter *push = push_letter(&a, model, ++sequence, dtype, &segment, 1, values,
                                      n * opt_dtype_size(dtype));
    push->request.body.push.basis = 1;
    push = letter_ask(&a, push);
    cr_assert_eq(fate(push)->staleness, 1);
    harness_free(push);
    model_pull(&b, model, OPT_VIEW_TRAIN, "", after, n);
    for (size_t k = 0; k < n; k++) {
        float g = expected[k], l = (float)lambda;
        float moved = l * g;
        moved = moved * g;
        moved = moved * (now[k] - then[k]);
        moved = g + moved;
        g = moved - moved == 0.0f ? moved : g;
        expected[k] = now[k] - 0.25f * (float)(0.5 * (double)g);
    }
    cr_expect(same_bits(after, expected, n));
    cr_expect_eq(statistic(&a, "versions_fresh"), 0, "readers hold nothing");
    free(then);
    free(now);
    free(after);
    free(expected);
    free(half);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(delay_compensation, follows_its_formula_in_fp32)
{
    compensates(3 * OPT_BLOCK + 77, OPT_FP32, 0.04);
}

/* A pull that is remembered in several pieces, and holds nothing afterwards. */
Test(delay_compensation, remembers_large_pulls)
{
    compensates(3 * (size_t)OPT_SHARD + 77, OPT_FP32, 0.04);
}

Test(delay_compensation, takes_gradients_of_half_precision)
{
    compensates(3 * OPT_BLOCK + 77, OPT_BF16, 2);
}

Test(delay_compensation, leaves_a_gradient_of_another_basis_as_it_is)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct opt_consistency policy = { .mode = OPT_ASYNC, .delay_compensation = 1 };
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", policy, &four, 1, NULL);
    float weights[4];
    expect_applied(&harness, push_sent(&a, model, 1, 0, 2),
                   1);                                     /* nothing pulled yet: 2 */
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4); /* -2, of step 1 */
    expect_applied(&harness, push_sent(&a, model, 2, 1, 3),
                   2); /* nothing in between: 3 */
    expect_applied(&harness, push_sent(&a, model, 3, 0, 4), 3); /* of step 0: 4 */
    /* Of step 1, when the weights were -2 and not -9: 2 + 4 (-9 + 2) = -26. */
    expect_applied(&harness, push_sent(&a, model, 4, 1, 2), 4);
    expect_weights(&a, model, 17);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* Where the direction is kept in the gradient's place, the gradient is read once. */
static void compensates_in_two_passes(const char *spec)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    float weights[2][4];
    static const float start[4] = { 1, 2, 3, 4 };
    for (int i = 0; i < 2; i++) {
        struct caller a = caller_new(&harness, "a", 1);
        struct opt_consistency policy = { .mode = OPT_ASYNC,
                                          .delay_compensation = i == 0 ? 1 : 0 };
        uint32_t model = model_create(&a, i == 0 ? "with" : "without", spec, policy,
                                      &four, 1, start);
        float now[4], then[4], values[4];
        struct opt_segment segment = { .tensor = 0 };
        model_pull(&a, model, OPT_VIEW_TRAIN, "", then, 4);
        harness_free(letter_ask(&a, push_constant(&a, model, 1, 4, 1)));
        struct caller b = caller_new(&harness, "b", 2); /* whose pulls are its own */
        model_pull(&b, model, OPT_VIEW_TRAIN, "", now, 4);
        for (size_t k = 0; k < 4; k++) {
            values[k] = i == 0 ? 2.0f : 2.0f + 4.0f * (now[k] - then[k]);
        }
        harness_free(letter_ask(&a, push_letter(&a, model, 2, OPT_FP32, &segment, 1,
                                                values, sizeof values)));
        model_pull(&b, model, OPT_VIEW_TRAIN, "", weights[i], 4);
        caller_gone(&b, false);
        caller_gone(&a, false);
    }
    cr_expect(same_bits(weights[0], weights[1], 4), "%s", spec);
    harness_close(&harness);
}

Test(delay_compensation, works_with_rules_of_two_passes)
{
    compensates_in_two_passes("lamb(lr=0.5)");
    compensates_in_two_passes("lars2017(lr=0.5)");
    compensates_in_two_passes("adam(lr=0.5) + clip(tensor_norm, 1)");
}

/* ---------------------------------------------------------------- rest */

Test(rest, keeps_a_worker_registered_that_no_round_waits_for)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency policy = { .mode = OPT_SYNC };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    model_join(&b, "m");
    /* What waits is let go, and the resting one's own push still counts. */
    struct letter *mine = push_sent(&b, model, 1, 0, 1);
    harness_free(letter_ask(&b, rest_letter(&b, model)));
    cr_assert(!letter_is_back(&harness, mine), "a has not pushed");
    expect_applied(&harness, push_sent(&a, model, 1, 0, 10), 1);
    expect_applied(&harness, mine, 1);
    expect_applied(&harness, push_sent(&a, model, 2, 1, 100), 2);
    struct opt_arena arena;
    struct opt_description description;
    struct letter *shown = describe(&a, &arena, &description);
    cr_expect(description.worker_count == 2 && description.workers[1].resting);
    opt_arena_fini(&arena);
    harness_free(shown);
    /* Its next push ends it. */
    struct letter *back = push_sent(&b, model, 2, 2, 1000);
    cr_assert(!letter_is_back(&harness, back));
    expect_applied(&harness, push_sent(&a, model, 3, 2, 10000), 3);
    expect_applied(&harness, back, 3);
    expect_weights(&a, model, -11111);
    /* All rest: what is there closes the round. */
    harness_free(letter_ask(&b, rest_letter(&b, model)));
    struct letter *last = push_sent(&a, model, 4, 3, 1);
    expect_applied(&harness, last, 4);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

/* In an asynchronous model nobody is waited for, so nobody can be to blame. */
Test(async, blames_nobody_for_updates_that_have_not_come)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct opt_consistency policy = { .mode = OPT_ASYNC };
    uint32_t model = model_create(&a, "m", summing, policy, &four, 1, NULL);
    model_join(&b, "m");
    expect_applied(&harness, push_sent(&b, model, 1, 0, 1), 1);
    struct letter *pull = pull_letter(&a, model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.min_step = 3;
    pull->request.timeout_ms = 50;
    pull = letter_ask(&a, pull);
    cr_expect_eq(reply_status(pull), OPT_DEADLINE_EXCEEDED);
    cr_expect(strstr(reply_text(pull),
                     "has had 1 updates, not 3: each push is an update "
                     "and none is waiting; 2 workers have joined"),
              "%s", reply_text(pull));
    harness_free(pull);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(rest, is_for_workers_that_have_joined)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model =
        model_create(&a, "m", summing, (struct opt_consistency){ 0 }, &four, 1, NULL);
    struct letter *rest = letter_ask(&b, rest_letter(&b, model));
    cr_expect_eq(reply_status(rest), OPT_FAILED_PRECONDITION);
    harness_free(rest);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}
