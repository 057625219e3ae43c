/* model — layout, budget, creation and what is said about it. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "tests/support/engine_harness.h"

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};

/* Sizes on both sides of every border of the layout. */
enum { MANY = 9 };
static const uint64_t sizes[MANY] = { 1,  15,        16, OPT_SHARD - 32,
                                      17, OPT_SHARD, 33, OPT_SHARD + 1,
                                      3 };
static size_t tensors_of(struct opt_tensor_entry tensors[MANY])
{
    static char names[MANY][8];
    size_t total = 0;
    for (size_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = &sizes[i], .rank = 1, .elements = sizes[i]
        };
        total += sizes[i];
    }
    return total;
}

Test(model, gives_back_what_was_assigned_whatever_its_layout)
{
    struct opt_tensor_entry tensors[MANY];
    size_t total = tensors_of(tensors);
    float *start = malloc(total * sizeof *start), *got = malloc(total * sizeof *got);
    for (size_t i = 0; i < total; i++) {
        start[i] = (float)i;
    }
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "adam(lr=1) + lookahead(k=5)", sync_shrink,
                                  tensors, MANY, start);
    model_pull(&a, model, OPT_VIEW_TRAIN, "", got, total);
    cr_assert(same_bits(start, got, total));
    model_pull(&a, model, OPT_VIEW_EVAL, "", got, total);
    cr_assert(same_bits(start, got, total), "slow weights start so");
    /* A piece of a tensor, from the middle over a border of shards. */
    struct letter *pull = pull_letter(&a, model, OPT_VIEW_TRAIN, "");
    struct opt_segment segment = { .tensor = 7, .offset = OPT_SHARD - OPT_BLOCK };
    pull->request.body.pull.segments = &segment;
    pull->request.body.pull.segment_count = 1;
    pull = letter_ask(&a, pull);
    cr_assert(pieces_copy(pull, got, total) == OPT_BLOCK + 1);
    size_t before = total - 3 - OPT_BLOCK - 1;
    cr_assert(same_bits(start + before, got, OPT_BLOCK + 1));
    cr_assert(pull->piece_count == 2 && pull->pieces[1].segment.offset == OPT_SHARD);
    for (size_t i = 0; i < pull->piece_count; i++) {
        cr_assert((uintptr_t)pull->pieces[i].values % 64 == 0);
    }
    harness_free(pull);
    free(start);
    free(got);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(model, is_created_once_and_shows_the_first_difference)
{
    static const uint64_t other_shape[] = { 2, 2 };
    struct opt_tensor_entry other = four;
    other.shape = other_shape;
    other.rank = 2;
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    model_create(&a, "m", "adam(lr=1e-3)", sync_shrink, &four, 1, NULL);
    struct letter *same =
        letter_ask(&b, create_letter(&b, "m", "adam(lr=0.001)", sync_shrink, &four, 1,
                                     true, true));
    cr_assert(same->reply.message == OPT_MESSAGE_CREATE, "%s", reply_text(same));
    cr_assert(!same->reply.body.model.created && same->reply.body.model.ready);
    cr_assert(same->reply.body.model.workers == 2);
    cr_assert(same->reply.body.model.parameters == 4);
    harness_free(same);
    struct {
        const char *spec;
        struct opt_consistency consistency;
        const struct opt_tensor_entry *tensor;
        const char *says;
    } cases[] = {
        { "adam(lr=0.002)",
          { .mode = OPT_SYNC },
          &four,
          "specification is adam, not adam(lr=0.002)" },
        { "adam(lr=0.001)", { .mode = OPT_ASYNC }, &four, "mode is sync, not async" },
        { "adam(lr=0.001)",
          { .mode = OPT_SYNC, .loss = OPT_LOSS_WAIT },
          &four,
          "shrink" },
        { "adam(lr=0.001)", { .mode = OPT_SYNC, .min_workers = 3 }, &four, "1, not 3" },
        { "adam(lr=0.001)", { .mode = OPT_SYNC }, &other, "[4], not \"w\" [2, 2]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct letter *letter =
            letter_ask(&b, create_letter(&b, "m", cases[i].spec, cases[i].consistency,
                                         cases[i].tensor, 1, false, false));
        cr_assert(reply_status(letter) == OPT_ALREADY_EXISTS);
        cr_assert(strstr(reply_text(letter), cases[i].says) != NULL, "%s",
                  reply_text(letter));
        harness_free(letter);
    }
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(model, names_the_nearest_if_it_is_not_there)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "mnist", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_create(&a, "imagenet", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    struct letter *open = letter_start(&a, OPT_MESSAGE_OPEN);
    open->request.body.open = (struct opt_open){ .model = "minst" };
    open = letter_ask(&a, open);
    cr_assert(reply_status(open) == OPT_NOT_FOUND);
    cr_assert(strstr(reply_text(open), "\"mnist\"") != NULL, "%s", reply_text(open));
    harness_free(open);
    struct letter *slot = letter_ask(&a, pull_letter(&a, 1, OPT_VIEW_SLOT, "exp_avg"));
    cr_assert(reply_status(slot) == OPT_NOT_FOUND);
    cr_assert(strstr(reply_text(slot), "none") != NULL, "%s", reply_text(slot));
    harness_free(slot);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(model, makes_others_wait_until_its_creator_has_assigned_it)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct letter *create = letter_ask(
        &a, create_letter(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, true, true));
    uint32_t model = create->reply.body.model.model;
    cr_assert(create->reply.body.model.created && !create->reply.body.model.ready);
    harness_free(create);
    struct letter *open = letter_start(&b, OPT_MESSAGE_OPEN);
    open->request.body.open = (struct opt_open){ .model = "m" };
    open = letter_ask(&b, open);
    cr_assert(!open->reply.body.model.ready, "answered at once");
    harness_free(open);
    struct letter *pull = pull_letter(&b, model, OPT_VIEW_TRAIN, "");
    letter_send(&b, pull);
    struct letter *wait = letter_start(&b, OPT_MESSAGE_WAIT);
    wait->request.body.wait = (struct opt_wait){ .model = model };
    letter_send(&b, wait);
    struct letter *late = pull_letter(&b, model, OPT_VIEW_TRAIN, "");
    late->request.timeout_ms = 30;
    late = letter_ask(&b, late);
    cr_assert(reply_status(late) == OPT_DEADLINE_EXCEEDED);
    cr_assert(strstr(reply_text(late), "not ready") != NULL);
    harness_free(late);
    float values[4] = { 1, 2, 3, 4 };
    struct opt_segment segment = { .tensor = 0 };
    struct letter *assign = letter_start(&b, OPT_MESSAGE_ASSIGN);
    assign->request.body.assign = (struct opt_assign){ .model = model, .last = true };
    assign = letter_ask(&b, assign);
    cr_assert(reply_status(assign) == OPT_FAILED_PRECONDITION, "b is not the creator");
    harness_free(assign);
    for (int good = 0; good < 2; good++) {
        values[2] = good ? 3.0f : NAN;
        assign = letter_start(&a, OPT_MESSAGE_ASSIGN);
        assign->request.body.assign = (struct opt_assign){
            .model = model, .segments = &segment, .segment_count = 1, .last = true
        };
        cr_assert(letter_data(assign, sizeof values));
        memcpy(assign->data, values, sizeof values);
        assign = letter_ask(&a, assign);
        cr_assert(reply_status(assign) == (good ? OPT_OK : OPT_INVALID_ARGUMENT));
        harness_free(assign);
    }
    pull = letter_await(&harness, pull);
    cr_assert(pull->reply.message == OPT_MESSAGE_PULL);
    cr_assert(pull->pieces[0].values[3] == 4.0f);
    harness_free(pull);
    wait = letter_await(&harness, wait);
    cr_assert(wait->reply.message == OPT_MESSAGE_WAIT);
    harness_free(wait);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(model, vanishes_with_a_creator_who_never_assigned_it)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    struct letter *create = letter_ask(
        &a, create_letter(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, true, true));
    struct letter *pull =
        pull_letter(&b, create->reply.body.model.model, OPT_VIEW_TRAIN, "");
    harness_free(create);
    letter_send(&b, pull);
    caller_gone(&a, false);
    pull = letter_await(&harness, pull);
    cr_assert(reply_status(pull) == OPT_ABORTED, "%s", reply_text(pull));
    harness_free(pull);
    create = letter_ask(
        &b, create_letter(&b, "m", "sgd(lr=2)", sync_shrink, &four, 1, false, true));
    cr_assert(create->reply.body.model.created);
    harness_free(create);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(model, is_deleted_only_when_nobody_else_is_in_it)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    model_join(&b, "m");
    for (int alone = 0; alone < 2; alone++) {
        struct letter *delete = letter_start(&a, OPT_MESSAGE_DELETE);
        delete->request.body.delete_ = "m";
        struct letter *held =
            letter_ask(&a, pull_letter(&a, model, OPT_VIEW_TRAIN, ""));
        delete = letter_ask(&a, delete);
        cr_assert(reply_status(delete) == (alone ? OPT_OK : OPT_FAILED_PRECONDITION));
        harness_free(delete);
        cr_assert(held->pieces[0].values[0] == 0.0f, "readers keep what they read");
        harness_free(held);
        if (!alone) {
            caller_gone(&b, true);
        }
    }
    struct letter *pull = letter_ask(&a, pull_letter(&a, model, OPT_VIEW_TRAIN, ""));
    cr_assert(reply_status(pull) == OPT_NOT_FOUND);
    harness_free(pull);
    cr_assert(statistic(&a, "memory_used") == 0);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(model, stays_within_the_budget_and_says_what_is_left)
{
    enum { N = 1 << 20 };
    static const uint64_t shape[] = { N };
    static const struct opt_tensor_entry million = {
        .name = "w", .shape = shape, .rank = 1, .elements = N
    };
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.memory_bytes = 25 << 20; /* adam: 12 MiB, and 4 for each worker */
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2),
                  c = caller_new(&harness, "c", 3);
    uint32_t model =
        model_create(&a, "m", "adam(lr=1)", sync_shrink, &million, 1, NULL);
    struct letter *second =
        letter_ask(&b, create_letter(&b, "n", "adam(lr=1)", sync_shrink, &million, 1,
                                     false, false));
    cr_assert(reply_status(second) == OPT_RESOURCE_EXHAUSTED);
    cr_assert(strstr(reply_text(second), "needs 12") != NULL, "%s", reply_text(second));
    cr_assert(strstr(reply_text(second), "--memory") != NULL);
    harness_free(second);
    model_join(&b, "m");
    struct letter *third = letter_start(&c, OPT_MESSAGE_OPEN);
    third->request.body.open = (struct opt_open){ .model = "m", .join = true };
    /* What readers may make necessary is taken by the first pull. */
    struct letter *pull = letter_ask(&c, pull_letter(&c, model, OPT_VIEW_TRAIN, ""));
    cr_assert(pull->reply.message == OPT_MESSAGE_PULL, "%s", reply_text(pull));
    third = letter_ask(&c, third);
    cr_assert(reply_status(third) == OPT_RESOURCE_EXHAUSTED, "%s", reply_text(third));
    harness_free(third);
    /* A slot needs a copy, for which there is no room beside it. */
    struct letter *slot =
        letter_ask(&c, pull_letter(&c, model, OPT_VIEW_SLOT, "exp_avg"));
    cr_assert(reply_status(slot) == OPT_RESOURCE_EXHAUSTED, "%s", reply_text(slot));
    cr_assert(slot->reply.body.error.retry_after_ms > 0);
    harness_free(slot);
    harness_free(pull);
    /* The reader is done: the room is used for what is asked now. */
    slot = letter_ask(&c, pull_letter(&c, model, OPT_VIEW_SLOT, "exp_avg"));
    cr_assert(slot->reply.message == OPT_MESSAGE_PULL, "%s", reply_text(slot));
    harness_free(slot);
    caller_gone(&a, true);
    caller_gone(&b, true);
    struct letter *delete = letter_start(&c, OPT_MESSAGE_DELETE);
    delete->request.body.delete_ = "m";
    harness_free(letter_ask(&c, delete));
    cr_assert(statistic(&c, "memory_used") == 0);
    caller_gone(&c, false);
    harness_close(&harness);
}

Test(model, has_a_hundred_thousand_tensors_without_trouble)
{
    enum { TENSORS = 100000 };
    static char names[TENSORS][16];
    struct opt_tensor_entry *tensors = calloc(TENSORS, sizeof *tensors);
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "layer.%zu", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = shape4, .rank = 1, .elements = 4
        };
    }
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint64_t start = uv_hrtime();
    model_create(&a, "m", "adam(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    struct letter *describe = letter_start(&a, OPT_MESSAGE_DESCRIBE);
    describe->request.body.describe = "m";
    describe = letter_ask(&a, describe);
    uint64_t end = uv_hrtime();
    fprintf(stderr, "create and describe %d tensors: %.0f ms\n", TENSORS,
            (double)(end - start) / 1e6);
    struct opt_arena arena;
    struct opt_description description;
    struct opt_error error;
    opt_arena_init(&arena, opt_table_budget(describe->table_size));
    enum opt_status status = opt_description_read(describe->table, describe->table_size,
                                                  &arena, &description, &error);
    cr_assert(status == OPT_OK, "%s", error.text);
    cr_assert(description.tensor_count == TENSORS && description.worker_count == 1);
    cr_assert(description.slot_count == 2 && description.ready);
    cr_assert(strcmp(description.tensors[TENSORS - 1].name, "layer.99999") == 0);
    cr_assert(description.bytes == (uint64_t)TENSORS * 16 * 4 * 3, "64 bytes each");
    opt_arena_fini(&arena);
    harness_free(describe);
    free(tensors);
    caller_gone(&a, false);
    harness_close(&harness);
}
