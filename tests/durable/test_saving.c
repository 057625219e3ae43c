/* saving — a checkpoint is the model at exactly one step, whatever goes on meanwhile;
 * it is made when it is due, and what fails harms nothing that was there.
 */
#include "server/durable/saving.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/team.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/store/checkpoint.h"
#include "tests/support/kept.h"
#include "tests/support/toy.h"

/* Tensors that share a shard and a piece, one whose passes the whole team does, one of
 * several shards, and rows that lie across the borders of pieces. */
enum { SMALL = OPT_BLOCK + 5, LARGE = TEAM_DIRECTION + OPT_BLOCK + 9 };
enum { HUGE_ONE = OPT_SHARD + 3 * OPT_BLOCK + 1, ROWS = 50, WIDTH = 1000 };
enum { DENSE = 3 + SMALL + LARGE + HUGE_ONE, ALL = DENSE + ROWS * WIDTH };
enum { TENSORS = 5, NAMED = 5 };
static const uint64_t shapes[] = { 3, SMALL, LARGE, HUGE_ONE };
static const uint64_t shape_rows[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[TENSORS] = {
    { .name = "few", .shape = &shapes[0], .rank = 1, .elements = 3 },
    { .name = "small", .shape = &shapes[1], .rank = 1, .elements = SMALL },
    { .name = "large", .shape = &shapes[2], .rank = 1, .elements = LARGE },
    { .name = "huge", .shape = &shapes[3], .rank = 1, .elements = HUGE_ONE },
    { .name = "rows",
      .shape = shape_rows,
      .rank = 2,
      .elements = ROWS * WIDTH,
      .sparse = true },
};
static const uint32_t named[NAMED] = { 3, 16, 32, 40, 49 };

static struct kept kept;

static void open_kept(enum opt_durability durability, uint32_t checkpoint_ms)
{
    struct durable_settings settings = kept_settings();
    settings.durability = durability;
    settings.checkpoint_ms = checkpoint_ms;
    kept_open(&kept, settings);
}

static void tear_down(void)
{
    kept_close(&kept);
}

TestSuite(saving, .fini = tear_down, .timeout = 120);

/* ---------------------------------------------------------------- a model and a copy
 */

static const struct model *model_at(size_t i)
{
    return kept.harness.engine->numbered[i];
}

/* Every other time a tensor is left out, which a look ahead moves none the less. */
static struct letter *push_of(const struct caller *caller, uint32_t model, bool sparse,
                              uint64_t round)
{
    struct opt_segment segments[TENSORS];
    size_t count = 0, n = 0;
    for (uint32_t i = 0; i < 4; i++) {
        if (i != 2 || round % 2 == 0) {
            segments[count++] = (struct opt_segment){ .tensor = i };
            n += shapes[i];
        }
    }
    if (sparse) {
        segments[count++] =
            (struct opt_segment){ .tensor = 4, .rows = named, .row_count = NAMED };
        n += NAMED * WIDTH;
    }
    float *values = malloc(n * sizeof *values);
    cr_assert_not_null(values);
    toy_fill(TOY_ORDINARY, round + 1, values, n);
    struct letter *letter = push_letter(caller, model, round, OPT_FP32, segments, count,
                                        values, n * sizeof *values);
    free(values);
    return letter;
}

static void expect_applied(struct letter *letter, uint64_t step)
{
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    cr_assert_eq(letter->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(letter->reply.body.push.step, step);
    harness_free(letter);
}

/* What a model has in memory. */
struct copy {
    uint64_t step;
    size_t arrays;
    float *values[1 + OPT_SLOTS_MAX]; /* as the model's flat range */
    struct tensor tensors[TENSORS];
    struct window window; /* of its first member */
    uint64_t pushes_applied;
};

static struct copy copy_of(const struct model *model)
{
    uv_mutex_lock(&kept.harness.engine->turn);
    struct copy copy = { .step = model->step,
                         .arrays = 1 + model->slot_count,
                         .pushes_applied = model->pushes_applied };
    for (size_t a = 0; a < copy.arrays; a++) {
        copy.values[a] = malloc(model->floats * sizeof(float));
        cr_assert_not_null(copy.values[a]);
        for (size_t i = 0; i < model->shard_count; i++) {
            const struct shard *shard = &model->shards[i];
            memcpy(copy.values[a] + shard->at,
                   a == 0 ? version_values(shard->current) : shard->slots[a - 1],
                   shard->n * sizeof(float));
        }
    }
    memcpy(copy.tensors, model->tensors, model->tensor_count * sizeof *model->tensors);
    copy.window = model->members[0]->window;
    uv_mutex_unlock(&kept.harness.engine->turn);
    return copy;
}

static void copy_free(struct copy *copy)
{
    for (size_t i = 0; i < copy->arrays; i++) {
        free(copy->values[i]);
    }
}

/* ---------------------------------------------------------------- checkpoints */

static struct letter *ask(const struct caller *caller, const char *model, bool wait)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_CHECKPOINT);
    letter->request.body.checkpoint =
        (struct opt_checkpoint){ .model = model, .wait = wait };
    return letter;
}

/* One that was asked for is there. Returns its step; name: of its folder. */
static uint64_t expect_granted(struct letter *letter, char name[CHECKPOINT_NAME])
{
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_CHECKPOINT, "%s",
                 reply_text(letter));
    const struct opt_checkpoint_reply *reply = &letter->reply.body.checkpoint;
    uint64_t step = reply->step;
    const char *slash = strrchr(reply->folder, '/');
    cr_assert_eq(strncmp(reply->folder, "models/", 7), 0);
    cr_assert_not_null(slash);
    snprintf(name, CHECKPOINT_NAME, "%s", slash + 1);
    harness_free(letter);
    return step;
}

static uint64_t save(const struct caller *caller, const char *model,
                     char name[CHECKPOINT_NAME])
{
    return expect_granted(letter_ask(caller, ask(caller, model, true)), name);
}

static struct checkpoint_place place_of(uint64_t identity)
{
    struct opt_error error;
    char *path;
    struct checkpoint_place place;
    cr_assert_eq(
        data_dir_model(&kept.dir, identity, false, &place.folder, &path, &error),
        OPT_OK, "%s", error.text);
    place.path = path;
    return place;
}

static void place_close(struct checkpoint_place *place)
{
    close(place->folder);
    free((void *)(uintptr_t)place->path);
}

/* How many there are, all of which can be opened; the newest's name. */
static size_t count_saved(uint64_t identity, char newest[CHECKPOINT_NAME])
{
    struct opt_error error;
    struct checkpoint_entry *entries;
    size_t count;
    struct checkpoint_place place = place_of(identity);
    cr_assert_eq(checkpoint_list(&place, &entries, &count, &error), OPT_OK, "%s",
                 error.text);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(entries[i].error.status, OPT_OK, "%s", entries[i].error.text);
    }
    if (count > 0) {
        memcpy(newest, entries[0].name, CHECKPOINT_NAME);
    }
    free(entries);
    place_close(&place);
    return count;
}

struct comparing {
    const struct copy *copy;
    size_t array, elements;
};

static void compare(void *context, size_t tensor, uint64_t element, const float *values,
                    size_t n)
{
    struct comparing *comparing = context;
    size_t at = comparing->copy->tensors[tensor].at + (size_t)element;
    cr_assert(same_bits(values, comparing->copy->values[comparing->array] + at, n),
              "array %zu, tensor %zu, from element %" PRIu64, comparing->array, tensor,
              element);
    comparing->elements += n;
}

/* The checkpoint is what was copied, to the last bit. */
static void expect_same(uint64_t identity, const char *name, const struct copy *copy,
                        size_t elements)
{
    struct opt_error error;
    struct checkpoint_reader *reader;
    struct checkpoint_place place = place_of(identity);
    cr_assert_eq(checkpoint_open(&place, name, &reader, &error), OPT_OK, "%s",
                 error.text);
    const struct manifest *manifest = checkpoint_manifest(reader);
    cr_assert_eq(manifest->step, copy->step);
    cr_assert_eq(manifest->identity, identity);
    cr_assert_eq(manifest->pushes_applied, copy->pushes_applied);
    cr_assert_eq(1 + manifest->slot_count, copy->arrays);
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        const struct manifest_tensor *tensor = &manifest->tensors[i];
        cr_assert_eq(tensor->counters.t, copy->tensors[i].counters.t);
        cr_assert_eq(tensor->counters.mu_product, copy->tensors[i].counters.mu_product);
        cr_assert_eq(tensor->entry.step, copy->tensors[i].changed);
        cr_assert_str_eq(tensor->entry.name, copy->tensors[i].name);
    }
    cr_assert_geq(manifest->member_count, 1);
    cr_assert_eq(manifest->members[0].window->last, copy->window.last);
    cr_assert_eq(memcmp(manifest->members[0].window->fate, copy->window.fate,
                        sizeof copy->window.fate),
                 0);
    for (size_t i = 0; i < copy->arrays; i++) {
        struct comparing comparing = { .copy = copy, .array = i };
        cr_assert_eq(checkpoint_read(reader, i,
                                     &(struct checkpoint_sink){ compare, &comparing },
                                     &error),
                     OPT_OK, "%s", error.text);
        cr_assert_eq(comparing.elements, elements);
    }
    checkpoint_close(reader);
    place_close(&place);
}

/* ---------------------------------------------------------------- one step */

struct situation {
    const char *spec;
    enum opt_mode mode;
    enum opt_atomic atomic;
    bool sparse;
    enum opt_durability durability;
    size_t memory; /* that is left for the pool; 0: plenty */
};
static const struct situation situations[] = {
    { "adam(lr=1e-3)", OPT_SYNC, OPT_ATOMIC_ROUND, true, OPT_DURABILITY_CHECKPOINT, 0 },
    { "adam(lr=1e-3)", OPT_ASYNC, OPT_ATOMIC_ROUND, false, OPT_DURABILITY_INTERVAL, 0 },
    { "adam(lr=1e-3)", OPT_SYNC, OPT_ATOMIC_SHARD, true, OPT_DURABILITY_INTERVAL, 0 },
    { "nadam(lr=1e-3) + clip(global_norm, 1)", OPT_BOUNDED, OPT_ATOMIC_ROUND, false,
      OPT_DURABILITY_CHECKPOINT, 0 },
    { "lamb(lr=0.01)", OPT_SYNC, OPT_ATOMIC_ROUND, false, OPT_DURABILITY_CHECKPOINT,
      0 },
    { "lamb(lr=0.01) + lookahead(3)", OPT_SYNC, OPT_ATOMIC_SHARD, false,
      OPT_DURABILITY_CHECKPOINT, 0 },
    { "momentum(lr=0.1) + lookahead(2)", OPT_ASYNC, OPT_ATOMIC_ROUND, false,
      OPT_DURABILITY_CHECKPOINT, 0 },
    { "adam(lr=1e-3)", OPT_SYNC, OPT_ATOMIC_ROUND, true, OPT_DURABILITY_CHECKPOINT,
      300 << 10 },
};

ParameterizedTestParameters(saving, is_of_one_step_while_updates_go_on)
{
    enum { COUNT = sizeof situations / sizeof *situations };
    static size_t numbers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, COUNT);
}

/* Leave only so much of the budget; returns what was taken. */
static size_t take_all_but(struct engine *engine, size_t left)
{
    uv_mutex_lock(&engine->turn);
    size_t taken = left == 0 ? 0 : budget_left(&engine->budget) - left;
    cr_assert(taken == 0 || budget_take(&engine->budget, taken));
    uv_mutex_unlock(&engine->turn);
    return taken;
}

/* The disk waits, so the checkpoint is still being made while the next updates run. */
ParameterizedTest(size_t *number, saving, is_of_one_step_while_updates_go_on,
                  .timeout = 120)
{
    const struct situation *situation = &situations[*number];
    const struct opt_consistency policy = { .mode = situation->mode,
                                            .min_workers = 1,
                                            .staleness = situation->mode == OPT_BOUNDED,
                                            .atomic = situation->atomic };
    open_kept(situation->durability, 0);
    struct engine *engine = kept.harness.engine;
    struct caller a = caller_new(&kept.harness, "a", 1);
    struct caller b = caller_new(&kept.harness, "", 0);
    float *start = malloc(ALL * sizeof *start);
    cr_assert_not_null(start);
    toy_fill(TOY_ORDINARY, 1, start, ALL);
    uint32_t model = model_create(&a, "m", situation->spec, policy, tensors,
                                  situation->sparse ? 5 : 4, start);
    free(start);
    uint64_t identity = model_at(0)->identity;
    for (uint64_t round = 1; round <= 5; round += 2) {
        char name[CHECKPOINT_NAME];
        expect_applied(letter_ask(&a, push_of(&a, model, situation->sparse, round)),
                       round);
        struct copy copy = copy_of(model_at(0));
        size_t before = budget_used(&engine->budget);
        size_t taken = take_all_but(engine, situation->memory);
        disk_hold_saving();
        struct letter *asked = ask(&b, "m", true);
        letter_send(&b, asked);
        disk_await_held();
        struct letter *push = push_of(&a, model, situation->sparse, round + 1);
        letter_send(&a, push);
        cr_assert_not(letter_is_back(&kept.harness, asked));
        disk_go_on();
        push = letter_await(&kept.harness, push);
        expect_applied(push, round + 1);
        cr_assert_eq(expect_granted(letter_await(&kept.harness, asked), name), round);
        budget_give(&engine->budget, taken);
        expect_same(identity, name, &copy, situation->sparse ? ALL : DENSE);
        cr_assert_leq(budget_used(&engine->budget), before + (64 << 20));
        copy_free(&copy);
    }
    caller_gone(&a, false);
    caller_gone(&b, false);
}

/* ---------------------------------------------------------------- when */

enum { N = 8 };
static const uint64_t shape_n[] = { N };
static const struct opt_tensor_entry small_tensor = {
    .name = "w", .shape = shape_n, .rank = 1, .elements = N
};
static const struct opt_consistency async = { .mode = OPT_ASYNC, .min_workers = 1 };

static uint32_t create_small(const struct caller *caller, const char *name)
{
    return model_create(caller, name, "momentum(lr=1)", async, &small_tensor, 1, NULL);
}

static void push_small(const struct caller *caller, uint32_t model, uint64_t sequence)
{
    expect_applied(letter_ask(caller, push_constant(caller, model, sequence, N, 1)),
                   sequence);
}

static void await_statistic(const struct caller *caller, const char *name,
                            uint64_t least)
{
    while (statistic(caller, name) < least) {
    }
}

Test(saving, happens_every_so_many_steps)
{
    enum { STEPS = 5, ROUNDS = 17 };
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    struct letter *letter =
        create_letter(&a, "m", "momentum(lr=1)", async, &small_tensor, 1, false, true);
    letter->request.body.create.checkpoint_steps = STEPS;
    letter = letter_ask(&a, letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    uint32_t model = letter->reply.body.model.model;
    harness_free(letter);
    char newest[CHECKPOINT_NAME], expected[CHECKPOINT_NAME];
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        push_small(&a, model, i);
        if (i % STEPS == 0) {
            await_statistic(&a, "checkpoints", i / STEPS);
            cr_assert_eq(count_saved(model_at(0)->identity, newest), i / STEPS);
            snprintf(expected, sizeof expected, "%010d-step-%d", (int)(i / STEPS),
                     (int)i);
            cr_assert_str_eq(newest, expected);
        }
    }
    cr_assert_eq(statistic(&a, "checkpoints"), ROUNDS / STEPS);
    caller_gone(&a, false);
}

Test(saving, happens_by_the_timer_if_something_has_changed)
{
    open_kept(OPT_DURABILITY_INTERVAL, 20);
    struct caller a = caller_new(&kept.harness, "a", 1);
    uint32_t model = create_small(&a, "m");
    push_small(&a, model, 1);
    char newest[CHECKPOINT_NAME] = "";
    do {
        await_statistic(&a, "checkpoints", 1);
        cr_assert_geq(count_saved(model_at(0)->identity, newest), 1);
    } while (strstr(newest, "step-1") == NULL);
    uint64_t made = statistic(&a, "checkpoints");
    char name[CHECKPOINT_NAME]; /* nothing has changed: it is the same */
    cr_assert_eq(save(&a, "m", name), 1);
    cr_assert_str_eq(name, newest);
    cr_assert_eq(statistic(&a, "checkpoints"), made);
    caller_gone(&a, false);
}

Test(saving, keeps_the_last_three)
{
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    uint32_t model = create_small(&a, "m");
    char newest[CHECKPOINT_NAME], name[CHECKPOINT_NAME];
    for (uint64_t i = 1; i <= 6; i++) {
        push_small(&a, model, i);
        cr_assert_eq(save(&a, "m", name), i);
        cr_assert_eq(count_saved(model_at(0)->identity, newest), i < 3 ? i : 3);
        cr_assert_str_eq(newest, name);
    }
    caller_gone(&a, false);
}

Test(saving, happens_once_more_when_the_daemon_stops)
{
    open_kept(OPT_DURABILITY_INTERVAL, 3600 * 1000);
    struct caller a = caller_new(&kept.harness, "a", 1);
    uint64_t identities[3];
    char newest[CHECKPOINT_NAME];
    for (size_t i = 0; i < 3; i++) {
        char name[] = { (char)('m' + i), '\0' };
        uint32_t model = create_small(&a, name);
        for (uint64_t k = 1; k <= i; k++) {
            push_small(&a, model, k);
        }
        identities[i] = model_at(i)->identity;
    }
    caller_gone(&a, false);
    kept_stop(&kept);
    for (size_t i = 0; i < 3; i++) {
        char end[16];
        snprintf(end, sizeof end, "step-%zu", i);
        cr_assert_eq(count_saved(identities[i], newest), 1);
        cr_assert_not_null(strstr(newest, end), "%s", newest);
    }
}

/* ---------------------------------------------------------------- what goes wrong */

Test(saving, of_a_deleted_model_is_given_up_and_its_folder_goes)
{
    for (int journaled = 0; journaled < 2; journaled++) {
        open_kept(journaled ? OPT_DURABILITY_ALWAYS : OPT_DURABILITY_CHECKPOINT, 0);
        struct caller a = caller_new(&kept.harness, "a", 1);
        struct caller b = caller_new(&kept.harness, "", 0);
        uint32_t model = model_create(&a, "m", "adam", async, tensors, TENSORS, NULL);
        char name[CHECKPOINT_NAME];
        save(&a, "m", name);
        uint64_t identity = model_at(0)->identity;
        expect_applied(letter_ask(&a, push_of(&a, model, true, 1)), 1);
        disk_hold_saving();
        struct letter *asked = ask(&b, "m", true);
        letter_send(&b, asked);
        disk_await_held();
        struct letter *letter = letter_start(&a, OPT_MESSAGE_DELETE);
        letter->request.body.delete_ = "m";
        letter = letter_ask(&a, letter);
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        harness_free(letter);
        asked = letter_await(&kept.harness, asked);
        cr_assert_eq(reply_status(asked), OPT_ABORTED, "%s", reply_text(asked));
        harness_free(asked);
        disk_go_on();
        caller_gone(&a, false);
        caller_gone(&b, false);
        kept_stop(&kept);
        char path[64];
        snprintf(path, sizeof path, "data/models/%016" PRIx64, identity);
        cr_assert_not(files_there(&kept.files, path));
        cr_assert_str_eq(files_names(&kept.files, "data/models"), "");
        kept_close(&kept);
    }
    open_kept(OPT_DURABILITY_CHECKPOINT, 0); /* for the end */
}

/* Every single call of the checkpoints' thread. */
Test(saving, that_fails_leaves_what_was_there_and_succeeds_later)
{
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    uint32_t model = create_small(&a, "m");
    char before[CHECKPOINT_NAME], name[CHECKPOINT_NAME];
    uint64_t step = 0, failures = 0;
    for (int i = 0; i < 3; i++) {
        push_small(&a, model, ++step);
        save(&a, "m", before);
    }
    for (unsigned at = 1, last = UINT32_MAX; at <= last; at++) {
        push_small(&a, model, ++step);
        disk_fail_saving(at % 2 == 0 ? ENOSPC : EIO, at);
        struct letter *letter = letter_ask(&a, ask(&a, "m", true));
        if (reply_status(letter) == OPT_OK) { /* of old ones, or beyond the last */
            last = disk_saving_calls() < at ? at : last;
            expect_granted(letter, name);
        } else {
            failures++;
            cr_assert(reply_status(letter) == OPT_UNAVAILABLE ||
                          reply_status(letter) == OPT_RESOURCE_EXHAUSTED,
                      "%s", reply_text(letter));
            cr_assert_eq(letter->reply.body.error.detail, OPT_DETAIL_NOT_DURABLE);
            cr_assert_gt(letter->reply.body.error.retry_after_ms, 0);
            harness_free(letter);
            cr_assert_eq(statistic(&a, "checkpoint_failures"), failures);
            cr_assert_eq(statistic(&a, "checkpoints_failing"), 1);
            disk_fail_saving(0, 0);
            cr_assert_geq(count_saved(model_at(0)->identity, name), 3);
            cr_assert_str_eq(name, before);
            push_small(&a, model, ++step);
            cr_assert_eq(save(&a, "m", name), step);
            cr_assert_eq(statistic(&a, "checkpoints_failing"), 0);
        }
        disk_fail_saving(0, 0);
        cr_assert_geq(count_saved(model_at(0)->identity, before), 3);
        cr_assert_str_eq(name, before);
    }
    cr_assert_gt(failures, 20);
    push_small(&a, model, ++step);
    save(&a, "m", name);
    cr_assert_eq(count_saved(model_at(0)->identity, name), 3);
    caller_gone(&a, false);
}

/* By itself, after a second. */
Test(saving, that_has_failed_is_tried_again)
{
    open_kept(OPT_DURABILITY_CHECKPOINT, 10);
    struct caller a = caller_new(&kept.harness, "a", 1);
    disk_fail_saving(EIO, 3);
    uint32_t model = create_small(&a, "m");
    push_small(&a, model, 1);
    await_statistic(&a, "checkpoint_failures", 1);
    await_statistic(&a, "checkpoints", 1);
    cr_assert_eq(statistic(&a, "checkpoints_failing"), 0);
    cr_assert_eq(statistic(&a, "degraded"), 0);
    caller_gone(&a, false);
}

Test(saving, is_refused_where_nothing_is_kept_or_there_is_nothing)
{
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    struct letter *letter = letter_ask(&a, ask(&a, "m", true));
    cr_assert_eq(reply_status(letter), OPT_NOT_FOUND, "%s", reply_text(letter));
    harness_free(letter);
    harness_free(letter_ask(
        &a, create_letter(&a, "m", "adam", async, &small_tensor, 1, true, true)));
    letter = letter_ask(&a, ask(&a, "m", true));
    cr_assert_eq(reply_status(letter), OPT_FAILED_PRECONDITION);
    cr_assert_not_null(strstr(reply_text(letter), "not ready"), "%s",
                       reply_text(letter));
    harness_free(letter);
    caller_gone(&a, false);
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller c = caller_new(&harness, "c", 1);
    create_small(&c, "m");
    letter = letter_ask(&c, ask(&c, "m", true));
    cr_assert_eq(reply_status(letter), OPT_FAILED_PRECONDITION);
    cr_assert_not_null(strstr(reply_text(letter), "--data-dir"), "%s",
                       reply_text(letter));
    harness_free(letter);
    caller_gone(&c, false);
    harness_close(&harness);
}

/* The letter's deadline passes, and the checkpoint is made all the same. */
Test(saving, goes_on_when_nobody_waits_any_more)
{
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    struct caller b = caller_new(&kept.harness, "", 0);
    create_small(&a, "m");
    disk_hold_saving();
    struct letter *short_one = ask(&a, "m", true);
    short_one->request.timeout_ms = 20;
    short_one = letter_ask(&a, short_one);
    cr_assert_eq(reply_status(short_one), OPT_DEADLINE_EXCEEDED, "%s",
                 reply_text(short_one));
    harness_free(short_one);
    struct letter *asked = ask(&b, "m", true);
    letter_send(&b, asked);
    struct letter *at_once = letter_ask(&a, ask(&a, "m", false));
    cr_assert_eq(at_once->reply.message, OPT_MESSAGE_CHECKPOINT);
    cr_assert_str_eq(at_once->reply.body.checkpoint.folder, "");
    harness_free(at_once);
    caller_gone(&b, false);
    letter_await(&kept.harness, asked);
    harness_free(asked);
    disk_go_on();
    await_statistic(&a, "checkpoints", 1);
    caller_gone(&a, false);
}

/* ---------------------------------------------------------------- long models */

/* No turn takes long, however many tensors there are. */
Test(saving, of_very_many_tensors_is_done_in_short_turns)
{
    enum { COUNT = 131072 };
    open_kept(OPT_DURABILITY_CHECKPOINT, 0);
    struct caller a = caller_new(&kept.harness, "a", 1);
    struct opt_tensor_entry *many = calloc(COUNT, sizeof *many);
    char(*names)[16] = calloc(COUNT, sizeof *names);
    cr_assert(many != NULL && names != NULL);
    static const uint64_t three[] = { 3 };
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "tensor.%zu", i);
        many[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = three, .rank = 1, .elements = 3
        };
    }
    model_create(&a, "m", "adam", async, many, COUNT, NULL);
    uv_mutex_lock(&kept.harness.engine->turn);
    kept.harness.engine->counters.turn_cost_most = 0;
    uv_mutex_unlock(&kept.harness.engine->turn);
    char name[CHECKPOINT_NAME];
    cr_assert_eq(save(&a, "m", name), 0);
    cr_assert_leq(statistic(&a, "turn_cost_most"), 1 << 20);
    struct copy copy = { .arrays = 0 };
    (void)copy;
    cr_assert_eq(count_saved(model_at(0)->identity, name), 1);
    free(many);
    free(names);
    caller_gone(&a, false);
}
