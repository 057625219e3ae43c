/* engine — the thread as a whole: what may overtake what, what readers see, the end. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const struct opt_consistency async = { .mode = OPT_ASYNC };
static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};

enum { LARGE = 24 << 20, MEDIUM = 2 * OPT_SHARD + 77 };
static const uint64_t shape_large[] = { LARGE }, shape_medium[] = { MEDIUM };
static const struct opt_tensor_entry large = {
    .name = "w", .shape = shape_large, .rank = 1, .elements = LARGE
};
static const struct opt_tensor_entry medium = {
    .name = "w", .shape = shape_medium, .rank = 1, .elements = MEDIUM
};

static struct letter *push_pull(const struct caller *caller, uint32_t model,
                                uint64_t sequence, size_t n, float value,
                                enum opt_view view)
{
    struct letter *letter = push_constant(caller, model, sequence, n, value);
    struct opt_push push = letter->request.body.push;
    letter->request.message = OPT_MESSAGE_PUSH_PULL;
    letter->request.body.push_pull = (struct opt_push_pull){
        .push = push,
        .pull = { .model = model, .slot = "", .view = view },
        .has_pull = true,
    };
    return letter;
}

static bool all_equal(const struct letter *letter, float value)
{
    for (size_t i = 0; i < letter->piece_count; i++) {
        const struct piece *piece = &letter->pieces[i];
        for (size_t k = 0; k < piece->segment.count; k++) {
            if (piece->values[k] != value) {
                return false;
            }
        }
    }
    return true;
}

Test(engine, serves_other_models_while_a_large_update_runs)
{
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.threads = 1;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t big = model_create(&a, "big", "adam(lr=1)", sync_shrink, &large, 1, NULL);
    uint32_t tiny = model_create(&b, "tiny", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    struct letter *update = push_constant(&a, big, 1, LARGE, 1.0f);
    struct letter *after = pull_letter(&b, big, OPT_VIEW_TRAIN, "");
    struct letter *quick[8];
    letter_send(&a, update);
    letter_send(&b, after);
    for (uint64_t i = 0; i < 8; i++) {
        quick[i] = push_constant(&b, tiny, i + 1, 4, 1.0f);
        letter_send(&b, quick[i]);
    }
    update = letter_await(&harness, update);
    cr_assert(update->reply.body.push.fate == OPT_FATE_APPLIED);
    after = letter_await(&harness, after);
    cr_assert(after->reply.body.pull.step == 1, "it waited its turn");
    cr_assert(after->arrived_ns > update->arrived_ns);
    for (size_t i = 0; i < 8; i++) {
        quick[i] = letter_await(&harness, quick[i]);
        cr_assert(quick[i]->reply.body.push.step == i + 1);
        cr_assert(quick[i]->arrived_ns < update->arrived_ns, "it overtook the update");
        harness_free(quick[i]);
    }
    harness_free(update);
    harness_free(after);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(engine, never_shows_a_reader_two_steps_at_once)
{
    enum { STEPS = 40 };
    struct harness harness;
    struct letter *pushes[STEPS], *pulls[STEPS];
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", async, &medium, 1, NULL);
    for (size_t i = 0; i < STEPS; i++) {
        pushes[i] = push_constant(&a, model, i + 1, MEDIUM, 1.0f);
        pulls[i] = pull_letter(&a, model, OPT_VIEW_TRAIN, "");
        letter_send(&a, pushes[i]);
        letter_send(&a, pulls[i]);
        if (i >= 8) { /* some are held over many updates */
            size_t old = i - 8;
            pulls[old] = letter_await(&harness, pulls[old]);
            cr_assert(pulls[old]->reply.body.pull.step == old + 1);
            cr_assert(all_equal(pulls[old], -(float)(old + 1)));
            harness_free(pulls[old]);
            harness_free(letter_await(&harness, pushes[old]));
        }
    }
    for (size_t i = STEPS - 8; i < STEPS; i++) {
        pulls[i] = letter_await(&harness, pulls[i]);
        cr_assert(all_equal(pulls[i], -(float)(i + 1)));
        harness_free(pulls[i]);
        harness_free(letter_await(&harness, pushes[i]));
    }
    cr_assert(statistic(&a, "versions_fresh") > 0);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(engine, writes_in_place_while_nobody_reads)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "adam(lr=1)", sync_shrink, &medium, 1, NULL);
    uint64_t used = statistic(&a, "memory_used");
    for (uint64_t i = 1; i <= 5; i++) {
        harness_free(letter_ask(&a, push_constant(&a, model, i, MEDIUM, 1.0f)));
    }
    cr_assert(statistic(&a, "versions_fresh") == 0);
    cr_assert(statistic(&a, "memory_used") == used);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(engine, delays_an_update_rather_than_go_past_its_budget)
{
    enum { N = OPT_SHARD };
    static const uint64_t shape[] = { N };
    static const struct opt_tensor_entry million = {
        .name = "w", .shape = shape, .rank = 1, .elements = N
    };
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.memory_bytes = 11 << 20; /* weights and one gradient, no second version */
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &million, 1, NULL);
    /* A plain pull is refused: it might stop the next update. */
    struct letter *pull = letter_ask(&a, pull_letter(&a, model, OPT_VIEW_TRAIN, ""));
    cr_assert(reply_status(pull) == OPT_RESOURCE_EXHAUSTED, "%s", reply_text(pull));
    cr_assert(pull->reply.body.error.retry_after_ms > 0);
    harness_free(pull);
    /* The pull of a push_pull cannot be refused any more once the push is applied. */
    struct letter *first =
        letter_ask(&a, push_pull(&a, model, 1, N, 1.0f, OPT_VIEW_TRAIN));
    cr_assert(first->reply.message == OPT_MESSAGE_PUSH_PULL, "%s", reply_text(first));
    struct letter *second = push_constant(&a, model, 2, N, 1.0f);
    letter_send(&a, second);
    while (statistic(&a, "updates_stalled") == 0) {
        /* asked again until the engine has tried; the test's limit ends it otherwise */
    }
    cr_assert(!letter_is_back(&harness, second));
    cr_assert(all_equal(first, -1.0f));
    harness_free(first);
    second = letter_await(&harness, second);
    cr_assert(second->reply.body.push.step == 2);
    harness_free(second);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(engine, computes_the_training_point_once_for_all_who_ask)
{
    struct harness harness;
    struct caller callers[3];
    struct letter *letters[3];
    harness_open(&harness, harness_settings());
    callers[0] = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&callers[0], "m",
                                  "nag(lr=1, momentum=0.5, nesterov_form=classical)",
                                  sync_shrink, &medium, 1, NULL);
    callers[1] = caller_new(&harness, "b", 2);
    callers[2] = caller_new(&harness, "c", 3);
    model_join(&callers[1], "m");
    model_join(&callers[2], "m");
    for (uint64_t step = 1; step <= 3; step++) {
        for (size_t i = 0; i < 3; i++) {
            letters[i] =
                push_pull(&callers[i], model, step, MEDIUM, 1.0f, OPT_VIEW_TRAIN);
            letter_send(&callers[i], letters[i]);
        }
        float *slot = malloc(MEDIUM * sizeof *slot), *w = malloc(MEDIUM * sizeof *w);
        for (size_t i = 0; i < 3; i++) {
            letters[i] = letter_await(&harness, letters[i]);
            cr_assert(letters[i]->reply.message == OPT_MESSAGE_PUSH_PULL, "%s",
                      reply_text(letters[i]));
            cr_assert(letters[i]->reply.body.push_pull.has_push);
            cr_assert(letters[i]->reply.body.push_pull.pull.step == step);
            cr_assert(letters[i]->pieces[0].values == letters[0]->pieces[0].values);
        }
        model_pull(&callers[0], model, OPT_VIEW_EVAL, "", w, MEDIUM);
        model_pull(&callers[0], model, OPT_VIEW_SLOT, "momentum_buffer", slot, MEDIUM);
        cr_assert(slot[3] != 0.0f);
        cr_assert(all_equal(letters[1], w[3] - 0.5f * slot[3]));
        for (size_t i = 0; i < 3; i++) {
            harness_free(letters[i]);
        }
        free(slot);
        free(w);
    }
    for (size_t i = 0; i < 3; i++) {
        caller_gone(&callers[i], false);
    }
    harness_close(&harness);
}

Test(engine, answers_those_who_wait_for_a_step)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "", 0);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    struct letter *wait = letter_start(&b, OPT_MESSAGE_WAIT);
    wait->request.body.wait = (struct opt_wait){ .model = model, .step = 2 };
    struct letter *pull = pull_letter(&b, model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.min_step = 1;
    letter_send(&b, wait);
    letter_send(&b, pull);
    cr_assert(!letter_is_back(&harness, pull));
    harness_free(letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f)));
    pull = letter_await(&harness, pull);
    cr_assert(pull->reply.body.pull.step == 1 && all_equal(pull, -1.0f));
    harness_free(pull);
    cr_assert(!letter_is_back(&harness, wait));
    harness_free(letter_ask(&a, push_constant(&a, model, 2, 4, 1.0f)));
    wait = letter_await(&harness, wait);
    cr_assert(wait->reply.message == OPT_MESSAGE_WAIT);
    cr_assert(wait->reply.body.wait.step == 2);
    harness_free(wait);
    wait = letter_start(&b, OPT_MESSAGE_WAIT);
    wait->request.timeout_ms = 30;
    wait->request.body.wait = (struct opt_wait){ .model = model, .step = 9 };
    wait = letter_ask(&b, wait);
    cr_assert(reply_status(wait) == OPT_DEADLINE_EXCEEDED);
    cr_assert(strstr(reply_text(wait), "2 updates, not 9") != NULL, "%s",
              reply_text(wait));
    cr_assert(strstr(reply_text(wait), "\"a\"") != NULL, "%s", reply_text(wait));
    harness_free(wait);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(engine, forgets_a_connection_only_after_its_letters)
{
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.threads = 1;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t big = model_create(&a, "big", "sgd(lr=1)", async, &large, 1, NULL);
    model_join(&b, "big");
    struct letter *first = push_constant(&a, big, 1, LARGE, 1.0f);
    struct letter *second = push_constant(&b, big, 1, LARGE, 1.0f);
    struct letter *pull = pull_letter(&b, big, OPT_VIEW_TRAIN, "");
    letter_send(&a, first);
    letter_send(&b, second); /* queued behind the update */
    letter_send(&b, pull);
    caller_gone(&b, true);
    first = letter_await(&harness, first);
    second = letter_await(&harness, second);
    pull = letter_await(&harness, pull);
    cr_assert(!first->silent && second->silent && pull->silent);
    harness_free(first);
    harness_free(second);
    harness_free(pull);
    float *weights = malloc(LARGE * sizeof *weights);
    cr_assert(model_pull(&a, big, OPT_VIEW_TRAIN, "", weights, LARGE) == 2,
              "what had come whole was applied");
    cr_assert(weights[LARGE - 1] == -2.0f);
    free(weights);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(engine, refuses_everything_once_it_stops)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *push = push_constant(&a, model, 1, 4, 1.0f);
    struct letter *pull = pull_letter(&b, model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.min_step = 5;
    letter_send(&a, push);
    letter_send(&b, pull);
    cr_assert(!letter_is_back(&harness, pull));
    engine_stop(harness.engine);
    push = letter_await(&harness, push);
    pull = letter_await(&harness, pull);
    cr_assert(reply_status(push) == OPT_UNAVAILABLE);
    cr_assert(reply_status(pull) == OPT_UNAVAILABLE);
    harness_free(push);
    harness_free(pull);
    struct letter *late = letter_ask(&a, letter_start(&a, OPT_MESSAGE_LIST));
    cr_assert(reply_status(late) == OPT_UNAVAILABLE);
    harness_free(late);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close_stopped(&harness);
}

Test(engine, finishes_the_update_in_progress_before_it_stops)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t big = model_create(&a, "big", "sgd(lr=1)", sync_shrink, &large, 1, NULL);
    struct letter *push = push_constant(&a, big, 1, LARGE, 1.0f);
    letter_send(&a, push);
    engine_stop(harness.engine);
    push = letter_await(&harness, push);
    cr_assert(push->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(push));
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(push);
    caller_gone(&a, false);
    harness_close_stopped(&harness);
}

Test(engine, lists_all_models)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "one", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    uint32_t two = model_create(&a, "two", "adam(lr=1)", async, &medium, 1, NULL);
    harness_free(letter_ask(&a, push_constant(&a, two, 1, MEDIUM, 1.0f)));
    struct letter *list = letter_ask(&a, letter_start(&a, OPT_MESSAGE_LIST));
    struct opt_arena arena;
    struct opt_model_entry *models;
    struct opt_error error;
    size_t count;
    opt_arena_init(&arena, opt_table_budget(list->table_size));
    enum opt_status status = opt_model_table_read(list->table, list->table_size, &arena,
                                                  &models, &count, &error);
    cr_assert(status == OPT_OK, "%s", error.text);
    cr_assert(count == 2 && strcmp(models[0].name, "one") == 0);
    cr_assert(models[1].step == 1 && models[1].parameters == MEDIUM);
    cr_assert(models[1].workers == 1 && models[1].model == two);
    opt_arena_fini(&arena);
    harness_free(list);
    caller_gone(&a, false);
    harness_close(&harness);
}
