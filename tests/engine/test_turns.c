/* test_turns — nobody holds up others: what the engine does before it looks for other
 * letters is bounded, whatever is asked of it.
 *
 * Judged by what the engine counts (work_done), not by a clock: the measure is one
 * element of an update, and so much of it takes about a millisecond. bench_optimd shows
 * what it is in milliseconds.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

enum { MOST = 5 << 18 }; /* about a millisecond, and what is begun before it is over */

static const struct opt_consistency alone = { .mode = OPT_ASYNC };

static void expect_short_turns(const struct caller *caller, const char *what)
{
    uint64_t most = statistic(caller, "turn_cost_most");
    cr_expect_leq(most, MOST, "%s: a turn of %llu", what, (unsigned long long)most);
}

/* A model of so many tensors of n elements each. */
static uint32_t make_tensors(const struct caller *caller, const char *spec,
                             struct opt_consistency consistency, size_t count, size_t n)
{
    struct opt_tensor_entry *tensors = calloc(count, sizeof *tensors);
    char(*names)[24] = calloc(count, sizeof *names);
    uint64_t shape[] = { n };
    cr_assert(tensors != NULL && names != NULL);
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = shape, .rank = 1, .elements = n
        };
    }
    uint32_t model = model_create(caller, "m", spec, consistency, tensors, count, NULL);
    free(tensors);
    free(names);
    return model;
}

/* A push in frames as a header has room for. */
enum { FRAME = 4096, FRAMES = 32 };
struct frames {
    struct letter *letters[FRAMES];
    size_t count;
};

/* Push ones for the first so many tensors of n elements, and pull all if that is given.
 */
static struct frames push_begin(const struct caller *caller, uint32_t model,
                                uint64_t sequence, size_t count, size_t n,
                                const struct opt_pull *pull)
{
    struct frames all = { .count = 0 };
    struct opt_segment *segments = calloc(count, sizeof *segments);
    size_t most = (count < FRAME ? count : FRAME) * n;
    float *ones = malloc(most * sizeof *ones);
    cr_assert(segments != NULL && ones != NULL && count <= (size_t)FRAME * FRAMES);
    for (size_t i = 0; i < count; i++) {
        segments[i] = (struct opt_segment){ .tensor = (uint32_t)i, .count = n };
    }
    for (size_t i = 0; i < most; i++) {
        ones[i] = 1;
    }
    uint64_t id = 0;
    for (size_t i = 0; i < count; i += FRAME) {
        size_t part = count - i < FRAME ? count - i : FRAME;
        struct letter *letter =
            push_letter(caller, model, sequence, OPT_FP32, segments + i, part, ones,
                        part * n * sizeof *ones);
        struct opt_push push = letter->request.body.push;
        push.frame = (uint32_t)all.count;
        push.last = i + part == count;
        letter->request.id = id = all.count == 0 ? letter->request.id : id;
        letter->request.body.push = push;
        if (pull != NULL) {
            letter->request.message = OPT_MESSAGE_PUSH_PULL;
            letter->request.body.push_pull =
                (struct opt_push_pull){ .push = push, .pull = *pull, .has_pull = true };
        }
        all.letters[all.count++] = letter;
        letter_send(caller, letter);
    }
    free(segments);
    free(ones);
    return all;
}

static void push_end(const struct caller *caller, const struct frames *all)
{
    for (size_t i = 0; i < all->count; i++) {
        struct letter *letter = letter_await(caller->harness, all->letters[i]);
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        harness_free(letter);
    }
}

static void push_first(const struct caller *caller, uint32_t model, uint64_t sequence,
                       size_t count, size_t n, const struct opt_pull *pull)
{
    struct frames all = push_begin(caller, model, sequence, count, n, pull);
    push_end(caller, &all);
}

Test(turns, are_short_when_a_small_push_moves_all_slow_weights)
{
    enum { TENSORS = 12, ELEMENTS = 1 << 20, PUSHES = 6 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = make_tensors(&a, "sgd + lookahead(2)", alone, TENSORS, ELEMENTS);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        push_first(&a, model, i, 1, ELEMENTS, NULL);
    }
    expect_short_turns(&a, "lookahead");
    caller_gone(&a, false);
    harness_close(&harness);
}

/* What a view takes is reserved in pieces, and what is answered is the view. */
Test(turns, are_short_when_a_view_of_many_shards_is_asked_for_with_a_push)
{
    enum { TENSORS = 20, ELEMENTS = 1 << 20, PUSHES = 2 };
    const struct opt_pull pull = { .view = OPT_VIEW_EVAL };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model =
        make_tensors(&a, "sgd(lr=1) + lookahead(2)", alone, TENSORS, ELEMENTS);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        struct opt_pull of = pull;
        of.model = model;
        struct frames all = push_begin(&a, model, i, 1, ELEMENTS, &of);
        struct letter *letter = letter_await(&harness, all.letters[0]);
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        cr_assert_eq(letter->piece_count, TENSORS);
        /* The slow weights stay, and then go half the way of two steps. */
        cr_expect_eq(letter->pieces[0].values[ELEMENTS - 1], i == 1 ? 0.0f : -1.0f);
        cr_expect_eq(letter->pieces[TENSORS - 1].values[0], 0.0f);
        harness_free(letter);
    }
    expect_short_turns(&a, "view");
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(turns, are_short_when_a_push_has_very_many_small_tensors)
{
    static const char *const specs[] = { "sgd", "lamb", "adam + clip(global_norm, 1)",
                                         "adam + lookahead(2)" };
    enum { TENSORS = 20000, PUSHES = 2 };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct harness harness;
        harness_open(&harness, harness_settings());
        struct caller a = caller_new(&harness, "a", 1);
        uint32_t model = make_tensors(&a, specs[i], alone, TENSORS, 1);
        for (uint64_t k = 1; k <= PUSHES; k++) {
            push_first(&a, model, k, TENSORS, 1, NULL);
        }
        expect_short_turns(&a, specs[i]);
        caller_gone(&a, false);
        harness_close(&harness);
    }
}

/* So many tensors whose names nearly match all of so many patterns. */
static struct letter *create_nearly_matching(const struct caller *caller,
                                             size_t tensors, int groups)
{
    enum { ALIKE = 100, TEXT = 16384 };
    struct opt_tensor_entry *entries = calloc(tensors, sizeof *entries);
    char(*names)[ALIKE + 8] = calloc(tensors, sizeof *names);
    char *spec = malloc(TEXT);
    cr_assert(entries != NULL && names != NULL && spec != NULL);
    for (size_t i = 0; i < tensors; i++) {
        memset(names[i], 'a', ALIKE);
        snprintf(names[i] + ALIKE, 8, "%06zu", i);
        entries[i] = (struct opt_tensor_entry){ .name = names[i], .elements = 1 };
    }
    size_t used = (size_t)snprintf(spec, TEXT, "sgd");
    for (int i = 0; i < groups; i++) {
        used += (size_t)snprintf(spec + used, TEXT - used,
                                 " + tensors(\"*%.48sb%d*\", lr_scale=2, missing=ok)",
                                 names[0], i);
    }
    struct letter *letter = letter_ask(
        caller, create_letter(caller, "m", spec, alone, entries, tensors, false, true));
    free(entries);
    free(names);
    free(spec);
    return letter;
}

Test(turns, are_short_while_names_are_compared_with_patterns)
{
    enum { TENSORS = 20000, GROUPS = 40 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct letter *letter = create_nearly_matching(&a, TENSORS, GROUPS);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    expect_short_turns(&a, "create");
    static const char *const changes[] = {
        "lr=0.5", "tensors(\"*aab*bb\", lr_scale=3, missing=ok)"
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct letter *set = letter_start(&a, OPT_MESSAGE_SET);
        set->request.body.set = (struct opt_set){ .model = "m", .change = changes[i] };
        set = letter_ask(&a, set);
        cr_assert_eq(reply_status(set), OPT_OK, "%s", reply_text(set));
        harness_free(set);
        expect_short_turns(&a, changes[i]);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

/* What comes for a model in the making waits, and finds it, or nothing. */
Test(turns, of_a_model_in_the_making_let_others_in_but_not_to_it)
{
    enum { TENSORS = 20000, GROUPS = 40 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    for (int round = 0; round < 2; round++) {
        struct opt_tensor_entry *entries = calloc(TENSORS, sizeof *entries);
        char(*names)[16] = calloc(TENSORS, sizeof *names);
        cr_assert(entries != NULL && names != NULL);
        for (size_t i = 0; i < TENSORS; i++) {
            snprintf(names[i], sizeof names[i], "ab%06zu", i);
            entries[i] = (struct opt_tensor_entry){ .name = names[i], .elements = 1 };
        }
        static const char *const specs[] = {
            "sgd + tensors(\"*a*a*b\", lr_scale=2)", /* is refused */
            "sgd + tensors(\"*a*a*b\", lr_scale=2, missing=ok)"
        };
        struct letter *create =
            create_letter(&a, "m", specs[round], alone, entries, TENSORS, false, true);
        struct letter *open = letter_start(&b, OPT_MESSAGE_OPEN);
        open->request.body.open = (struct opt_open){ .model = "m" };
        letter_send(&a, create);
        letter_send(&b, open);
        create = letter_await(&harness, create);
        open = letter_await(&harness, open);
        cr_expect_eq(reply_status(create), round == 0 ? OPT_INVALID_ARGUMENT : OPT_OK,
                     "%s", reply_text(create));
        cr_expect_eq(reply_status(open), round == 0 ? OPT_NOT_FOUND : OPT_OK, "%s",
                     reply_text(open));
        harness_free(create);
        harness_free(open);
        free(entries);
        free(names);
    }
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- the largest */

enum { MOST_TENSORS = 131072, MOST_MODELS = 1000, MOST_GROUPS = 1024 };

/* Make a model of as many tensors as there may be, with names of about 100 bytes. */
static uint32_t make_largest(const struct caller *caller, const char *spec)
{
    enum { NAME = 112 };
    struct opt_tensor_entry *tensors = calloc(MOST_TENSORS, sizeof *tensors);
    char(*names)[NAME] = calloc(MOST_TENSORS, sizeof *names);
    cr_assert(tensors != NULL && names != NULL);
    for (size_t i = 0; i < MOST_TENSORS; i++) {
        snprintf(names[i], NAME, "%0100d%06zu", 0, i);
        tensors[i] = (struct opt_tensor_entry){ .name = names[i], .elements = 1 };
    }
    struct letter *letter =
        letter_ask(caller, create_letter(caller, "m", spec, alone, tensors,
                                         MOST_TENSORS, false, true));
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    uint32_t model = letter->reply.body.model.model;
    harness_free(letter);
    expect_short_turns(caller, "create");
    /* The same again is compared with what is there. */
    letter = letter_ask(caller, create_letter(caller, "m", spec, alone, tensors,
                                              MOST_TENSORS, false, false));
    cr_expect_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    cr_expect(!letter->reply.body.model.created);
    harness_free(letter);
    /* And what differs in its last tensor. */
    tensors[MOST_TENSORS - 1].name = "another";
    letter = letter_ask(caller, create_letter(caller, "m", spec, alone, tensors,
                                              MOST_TENSORS, false, false));
    cr_expect_eq(reply_status(letter), OPT_ALREADY_EXISTS);
    harness_free(letter);
    /* A name that is there twice is found. */
    tensors[MOST_TENSORS - 1].name = names[0];
    letter = letter_ask(caller, create_letter(caller, "n", spec, alone, tensors,
                                              MOST_TENSORS, false, false));
    cr_expect_eq(reply_status(letter), OPT_INVALID_ARGUMENT);
    harness_free(letter);
    expect_short_turns(caller, "create again");
    free(tensors);
    free(names);
    return model;
}

static struct letter *describe(const struct caller *caller)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_DESCRIBE);
    letter->request.body.describe = "m";
    return letter;
}

Test(turns, are_short_with_as_many_tensors_as_there_may_be)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = make_largest(&a, "nag");
    struct letter *letter = letter_ask(&a, describe(&a));
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    expect_short_turns(&a, "describe");
    static const enum opt_view views[] = { OPT_VIEW_TRAIN, OPT_VIEW_EVAL };
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        letter = letter_ask(&a, pull_letter(&a, model, views[i], ""));
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        cr_expect_eq(letter->piece_count, (size_t)MOST_TENSORS);
        harness_free(letter);
        expect_short_turns(&a, "pull");
    }
    letter = letter_start(&a, OPT_MESSAGE_DELETE);
    letter->request.body.delete_ = "m";
    letter = letter_ask(&a, letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    expect_short_turns(&a, "delete");
    cr_expect_eq(statistic(&a, "models"), 0u);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* Pushes, with and without a pull of weights or of a view that is computed. */
Test(turns, are_short_with_pushes_of_as_many_tensors_as_there_may_be, .timeout = 120)
{
    static const char *const specs[] = { "sgd", "nag", "adam + lookahead(2)" };
    enum { PUSHES = 2 };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct harness harness;
        harness_open(&harness, harness_settings());
        struct caller a = caller_new(&harness, "a", 1);
        uint32_t model = make_tensors(&a, specs[i], alone, MOST_TENSORS, 4);
        struct opt_pull pull = { .model = model, .slot = "", .view = OPT_VIEW_TRAIN };
        for (uint64_t k = 1; k <= 2 * PUSHES; k++) {
            push_first(&a, model, k, MOST_TENSORS, 4, k % 2 == 0 ? &pull : NULL);
            expect_short_turns(&a, k % 2 == 0 ? "push_pull" : "push");
        }
        caller_gone(&a, false);
        harness_close(&harness);
    }
}

/* Rounds of several, shard by shard: of very many tensors, and of large ones, whose
 * shards leave before the answers do. */
Test(turns, are_short_when_rounds_are_applied_shard_by_shard, .timeout = 120)
{
    static const struct {
        size_t tensors, n;
    } models[] = { { MOST_TENSORS, 4 }, { 8, 1 << 20 } };
    enum { WORKERS = 3, ROUNDS = 2 };
    static const char *const names[WORKERS] = { "a", "b", "c" };
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        struct harness harness;
        struct caller callers[WORKERS];
        harness_open(&harness, harness_settings());
        for (size_t i = 0; i < WORKERS; i++) {
            callers[i] = caller_new(&harness, names[i], i + 1);
        }
        struct opt_consistency shards = { .mode = OPT_SYNC,
                                          .atomic = OPT_ATOMIC_SHARD,
                                          .min_workers = WORKERS };
        uint32_t model =
            make_tensors(&callers[0], "sgd", shards, models[k].tensors, models[k].n);
        for (size_t i = 1; i < WORKERS; i++) {
            model_join(&callers[i], "m");
        }
        struct opt_pull pull = { .model = model, .slot = "", .view = OPT_VIEW_TRAIN };
        for (uint64_t round = 1; round <= ROUNDS; round++) {
            struct frames pushes[WORKERS];
            for (size_t i = 0; i < WORKERS; i++) {
                pushes[i] = push_begin(&callers[i], model, round, models[k].tensors,
                                       models[k].n, &pull);
            }
            for (size_t i = 0; i < WORKERS; i++) {
                push_end(&callers[i], &pushes[i]);
            }
            expect_short_turns(&callers[0], "a round");
        }
        for (size_t i = 0; i < WORKERS; i++) {
            caller_gone(&callers[i], false);
        }
        harness_close(&harness);
    }
}

/* What readers ask for and do not take stays with them: others go on. */
Test(turns, are_short_with_many_who_ask_for_tables)
{
    enum { ASKED = 8 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    make_largest(&a, "sgd");
    struct letter *asked[ASKED];
    for (size_t i = 0; i < ASKED; i++) {
        asked[i] = describe(&a);
        letter_send(&a, asked[i]);
    }
    for (size_t i = 0; i < ASKED; i++) {
        asked[i] = letter_await(&harness, asked[i]);
        cr_expect_eq(reply_status(asked[i]), OPT_OK, "%s", reply_text(asked[i]));
    }
    expect_short_turns(&a, "tables");
    for (size_t i = 0; i < ASKED; i++) {
        harness_free(asked[i]);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

/* So many groups, with patterns that are long: as long as they may be together, if they
 * are as many as may be. */
static char *many_groups(const char *begin, const char *between, int groups)
{
    enum { TEXT = 256 << 10, STARS = 212 };
    char *spec = malloc(TEXT);
    cr_assert(spec != NULL);
    size_t used = (size_t)snprintf(spec, TEXT, "%s", begin);
    for (int i = 0; i < groups; i++) {
        used += (size_t)snprintf(spec + used, TEXT - used,
                                 "%stensors(\"*%0*d*\", lr_scale=2, missing=ok)",
                                 between, STARS, i);
    }
    cr_assert_lt(used, (size_t)TEXT);
    return spec;
}

Test(turns, are_short_with_as_many_groups_and_models_as_there_may_be)
{
    struct harness harness;
    struct engine_settings settings = harness_settings();
    settings.max_models = MOST_MODELS;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1);
    char *most = many_groups("sgd", " + ", MOST_GROUPS);
    char *spec = many_groups("sgd", " + ", 16);
    struct opt_tensor_entry tensor = { .name = "w", .elements = 1 };
    for (size_t i = 0; i < MOST_MODELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%zu", i);
        struct letter *letter =
            letter_ask(&a, create_letter(&a, name, i == 0 ? most : spec, alone, &tensor,
                                         1, false, false));
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        harness_free(letter);
    }
    expect_short_turns(&a, "groups");
    char *change = many_groups("lr=0.5", ", ", MOST_GROUPS);
    struct letter *set = letter_start(&a, OPT_MESSAGE_SET);
    set->request.body.set = (struct opt_set){ .model = "m0", .change = change };
    set = letter_ask(&a, set);
    cr_assert_eq(reply_status(set), OPT_OK, "%s", reply_text(set));
    harness_free(set);
    free(change);
    expect_short_turns(&a, "set");
    struct letter *list = letter_ask(&a, letter_start(&a, OPT_MESSAGE_LIST));
    cr_assert_eq(reply_status(list), OPT_OK, "%s", reply_text(list));
    expect_short_turns(&a, "list");
    struct opt_arena arena;
    struct opt_model_entry *models = NULL;
    struct opt_error error;
    size_t count = 0;
    opt_arena_init(&arena, opt_table_budget(list->table_size));
    cr_assert_eq(opt_model_table_read(list->table, list->table_size, &arena, &models,
                                      &count, &error),
                 OPT_OK, "%s", error.text);
    cr_expect_eq(count, (size_t)MOST_MODELS);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(strlen(models[i].specification), (size_t)1024);
        cr_expect_eq(strncmp(models[i].specification, "sgd", 3), 0);
    }
    opt_arena_fini(&arena);
    harness_free(list);
    free(spec);
    free(most);
    caller_gone(&a, false);
    harness_close(&harness);
}
