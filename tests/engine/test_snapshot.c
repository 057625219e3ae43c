/* snapshot — a model as it was at a step, read while updates go on: the weights and
 * slots that come are those of the step, bit for bit, whenever the reader takes them,
 * and the memory is given back.
 *
 * The reader is the test, which takes the engine's turn for it.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/weights/shards.h"
#include "server/weights/snapshot.h"
#include "tests/support/engine_harness.h"
#include "tests/support/toy.h"

/* Tensors that share a shard and a piece, one whose passes the whole team does, one of
 * several shards, and rows that lie across the borders of pieces. */
enum { SMALL = 3 * OPT_BLOCK + 5, LARGE = TEAM_DIRECTION + OPT_BLOCK + 9 };
enum { HUGE_ONE = OPT_SHARD + 3 * OPT_BLOCK + 1, ROWS = 50, WIDTH = 1000 };
enum { DENSE = 3 + SMALL + LARGE + HUGE_ONE, ALL = DENSE + ROWS * WIDTH };
enum { ROUNDS = 3, NAMED = 5 };
static const uint64_t shapes[] = { 3, SMALL, LARGE, HUGE_ONE };
static const uint64_t shape_rows[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[] = {
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
static const uint32_t named[NAMED] = { 3, 49, 16, 3, 32 };

struct situation {
    const char *spec;
    bool sparse;
    bool held; /* a reader of the weights holds them besides */
    enum opt_atomic atomic;
    size_t pool, first; /* pieces, and of them taken before the next update begins */
};

static size_t elements(const struct situation *situation)
{
    return situation->sparse ? ALL : DENSE;
}

/* Every other time a tensor is left out, which a look ahead moves none the less. */
static struct letter *push_of(const struct situation *situation,
                              const struct caller *caller, uint32_t model,
                              uint64_t round)
{
    struct opt_segment segments[5];
    size_t count = 0, n = 0;
    for (uint32_t i = 0; i < 4; i++) {
        if (i != 2 || round % 2 == 0) {
            segments[count++] = (struct opt_segment){ .tensor = i };
            n += shapes[i];
        }
    }
    if (situation->sparse) {
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

/* ---------------------------------------------------------------- the reader */

/* Weights, and slots, as the flat range of the model. */
struct copy {
    float *values[1 + OPT_SLOTS_MAX];
    size_t floats, count;
    uint8_t *times; /* how often each float has come */
};

static struct copy copy_new(const struct model *model)
{
    struct copy copy = { .floats = model->floats, .count = 1 + model->slot_count };
    for (size_t i = 0; i < copy.count; i++) {
        copy.values[i] = calloc(model->floats, sizeof(float));
        cr_assert_not_null(copy.values[i]);
    }
    copy.times = calloc(model->floats, 1);
    cr_assert_not_null(copy.times);
    return copy;
}

static void copy_free(struct copy *copy)
{
    for (size_t i = 0; i < copy->count; i++) {
        free(copy->values[i]);
    }
    free(copy->times);
}

/* Take and give back as many pieces as the pool has, but no more than most. Returns how
 * many. */
static size_t take(struct engine *engine, struct snapshot *snapshot, size_t most,
                   struct copy *copy)
{
    struct snapshot_piece *pieces[128];
    size_t count = 0;
    cr_assert_leq(most, 128);
    uv_mutex_lock(&engine->turn);
    while (count < most && (pieces[count] = snapshot_take(snapshot)) != NULL) {
        count++;
    }
    uv_mutex_unlock(&engine->turn);
    for (size_t i = 0; i < count; i++) {
        const struct snapshot_piece *piece = pieces[i];
        memcpy(copy->values[0] + piece->at, piece->weights, piece->n * sizeof(float));
        for (size_t s = 1; s < copy->count; s++) {
            memcpy(copy->values[s] + piece->at, piece->slots[s - 1],
                   piece->n * sizeof(float));
        }
        for (size_t k = 0; k < piece->n; k++) {
            cr_assert_eq(copy->times[piece->at + k]++, 0);
        }
    }
    uv_mutex_lock(&engine->turn);
    for (size_t i = 0; i < count; i++) {
        snapshot_give(snapshot, pieces[i]);
    }
    uv_mutex_unlock(&engine->turn);
    return count;
}

static void take_all(struct engine *engine, struct snapshot *snapshot, size_t pool,
                     struct copy *copy)
{
    uv_mutex_lock(&engine->turn);
    bool taken = snapshot_is_taken(snapshot);
    uv_mutex_unlock(&engine->turn);
    while (!taken) {
        take(engine, snapshot, pool, copy);
        uv_mutex_lock(&engine->turn);
        taken = snapshot_is_taken(snapshot);
        uv_mutex_unlock(&engine->turn);
    }
    for (size_t i = 0; i < copy->floats; i++) {
        cr_assert_eq(copy->times[i], 1);
    }
}

static struct snapshot *open_snapshot(struct engine *engine, size_t pool)
{
    struct opt_error error;
    struct snapshot *snapshot = NULL;
    uv_mutex_lock(&engine->turn);
    enum opt_status status =
        snapshot_open(engine, engine->numbered[0], pool, &snapshot, &error);
    uv_mutex_unlock(&engine->turn);
    cr_assert_eq(status, OPT_OK, "%s", error.text);
    return snapshot;
}

static void close_snapshot(struct engine *engine, struct snapshot *snapshot)
{
    uv_mutex_lock(&engine->turn);
    snapshot_close(engine, snapshot);
    uv_mutex_unlock(&engine->turn);
}

/* What memory is in use when spares and views are given up. */
static size_t used(struct engine *engine)
{
    uv_mutex_lock(&engine->turn);
    shards_trim(engine);
    size_t bytes = budget_used(&engine->budget);
    uv_mutex_unlock(&engine->turn);
    return bytes;
}

/* Compare with what a pull of the step has shown. */
static void compare(const struct situation *situation, const struct model *model,
                    const char *what, const float *pulled, const float *taken)
{
    size_t at = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[i];
        cr_assert(same_bits(pulled + at, taken + tensor->at, tensor->n),
                  "%s, pool of %zu: %s of %s", situation->spec, situation->pool, what,
                  tensor->name);
        at += tensor->n;
    }
}

/* ---------------------------------------------------------------- the tests */

static const struct situation situations[] = {
    { "adam(lr=1e-3)", true, false, OPT_ATOMIC_ROUND, 40, 40 },
    { "adam(lr=1e-3)", true, true, OPT_ATOMIC_ROUND, 1, 1 },
    { "adam(lr=1e-3)", true, false, OPT_ATOMIC_SHARD, 3, 3 },
    { "adam(lr=1e-3) + clip(global_norm, 1)", false, true, OPT_ATOMIC_ROUND, 5, 5 },
    { "lamb(lr=0.01)", false, false, OPT_ATOMIC_ROUND, 1, 1 },
    { "lamb(lr=0.01)", false, true, OPT_ATOMIC_SHARD, 40, 40 },
    { "lars(lr=0.1)", false, false, OPT_ATOMIC_ROUND, 7, 7 },
    { "momentum(lr=0.1) + lookahead(2)", false, false, OPT_ATOMIC_ROUND, 2, 2 },
    { "lamb(lr=0.01) + lookahead(3)", false, true, OPT_ATOMIC_SHARD, 75, 0 },
};

ParameterizedTestParameters(snapshot, is_the_model_as_it_was_while_updates_go_on)
{
    enum { COUNT = sizeof situations / sizeof *situations };
    static size_t numbers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, COUNT);
}

/* A snapshot of every step: the reader takes some of it before the next update, and the
 * others when that one waits for them. */
ParameterizedTest(size_t *number, snapshot, is_the_model_as_it_was_while_updates_go_on,
                  .timeout = 120)
{
    const struct situation *situation = &situations[*number];
    const size_t n = elements(situation);
    const struct opt_consistency policy = { .mode = OPT_SYNC,
                                            .atomic = situation->atomic };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float *start = malloc(ALL * sizeof *start);
    cr_assert_not_null(start);
    toy_fill(TOY_ORDINARY, 1, start, ALL);
    uint32_t number_of = model_create(&a, "m", situation->spec, policy, tensors,
                                      situation->sparse ? 5 : 4, start);
    const struct model *model = harness.engine->numbered[0];
    harness_free(letter_ask(&a, push_of(situation, &a, number_of, 1)));
    float *pulled[1 + OPT_SLOTS_MAX];
    for (size_t i = 0; i <= model->slot_count; i++) {
        pulled[i] = malloc(n * sizeof(float));
        cr_assert_not_null(pulled[i]);
    }
    size_t before = used(harness.engine);
    for (uint64_t round = 2; round <= ROUNDS; round++) {
        struct letter *held = NULL;
        model_pull(&a, number_of, OPT_VIEW_TRAIN, "", pulled[0], n);
        for (size_t i = 0; i < model->slot_count; i++) {
            model_pull(&a, number_of, OPT_VIEW_SLOT, model->slot_names[i],
                       pulled[1 + i], n);
        }
        if (situation->held) {
            held = letter_ask(&a, pull_letter(&a, number_of, OPT_VIEW_TRAIN, ""));
        }
        struct snapshot *snapshot = open_snapshot(harness.engine, situation->pool);
        struct copy copy = copy_new(model);
        take(harness.engine, snapshot, situation->first, &copy);
        struct letter *push = push_of(situation, &a, number_of, round);
        letter_send(&a, push);
        cr_assert_not(letter_is_back(&harness, push),
                      "pieces are more than the pool has");
        take_all(harness.engine, snapshot, situation->pool, &copy);
        push = letter_await(&harness, push);
        cr_assert_eq(reply_status(push), OPT_OK, "%s", reply_text(push));
        harness_free(push);
        compare(situation, model, "weights", pulled[0], copy.values[0]);
        for (size_t i = 0; i < model->slot_count; i++) {
            compare(situation, model, model->slot_names[i], pulled[1 + i],
                    copy.values[1 + i]);
        }
        copy_free(&copy);
        close_snapshot(harness.engine, snapshot);
        if (held != NULL) {
            harness_free(held);
        }
    }
    cr_assert_eq(used(harness.engine), before);
    for (size_t i = 0; i <= model->slot_count; i++) {
        free(pulled[i]);
    }
    free(start);
    caller_gone(&a, false);
    harness_close(&harness);
}

static void expect_refused(struct engine *engine, size_t pool, enum opt_status status,
                           const char *says)
{
    struct opt_error error;
    struct snapshot *snapshot = NULL;
    uv_mutex_lock(&engine->turn);
    size_t before = budget_used(&engine->budget);
    cr_assert_eq(snapshot_open(engine, engine->numbered[0], pool, &snapshot, &error),
                 status);
    cr_assert_eq(budget_used(&engine->budget), before);
    uv_mutex_unlock(&engine->turn);
    cr_assert_not_null(strstr(error.text, says), "%s", error.text);
}

Test(snapshot, of_a_model_without_weights_is_refused)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    harness_free(
        letter_ask(&a, create_letter(&a, "m", "adam", (struct opt_consistency){ 0 },
                                     tensors, 4, true, true)));
    expect_refused(harness.engine, 1, OPT_FAILED_PRECONDITION, "is not ready");
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(snapshot, is_opened_once_and_between_updates_and_within_the_budget, .timeout = 60)
{
    const struct opt_consistency shard = { .mode = OPT_SYNC,
                                           .atomic = OPT_ATOMIC_SHARD };
    const struct opt_segment first = { .tensor = 3, .count = OPT_SHARD };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "adam", shard, tensors, 4, NULL);
    expect_refused(harness.engine, (size_t)1 << 40, OPT_RESOURCE_EXHAUSTED, "--memory");
    expect_refused(harness.engine, SIZE_MAX, OPT_RESOURCE_EXHAUSTED, "--memory");
    struct snapshot *snapshot = open_snapshot(harness.engine, 1);
    expect_refused(harness.engine, 1, OPT_FAILED_PRECONDITION, "is being read already");
    close_snapshot(harness.engine, snapshot);
    float *zeros = calloc(OPT_SHARD, sizeof *zeros);
    cr_assert_not_null(zeros);
    struct letter *push = push_letter(&a, model, 1, OPT_FP32, &first, 1, zeros,
                                      OPT_SHARD * sizeof *zeros);
    free(zeros);
    push->request.body.push.last = false;
    letter_send(&a, push);
    statistic(&a, "updates");
    expect_refused(harness.engine, 1, OPT_UNAVAILABLE, "is in progress");
    caller_gone(&a, false);
    harness_free(letter_await(&harness, push));
    harness_close(&harness);
}

Test(snapshot, of_a_model_that_is_deleted_is_lost_and_gives_its_memory_back,
     .timeout = 60)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    size_t before = used(harness.engine);
    model_create(&a, "m", "adam", (struct opt_consistency){ 0 }, tensors, 4, NULL);
    struct snapshot *snapshot = open_snapshot(harness.engine, 2);
    struct letter *delete = letter_start(&a, OPT_MESSAGE_DELETE);
    delete->request.body.delete_ = "m";
    delete = letter_ask(&a, delete);
    cr_assert_eq(reply_status(delete), OPT_OK, "%s", reply_text(delete));
    harness_free(delete);
    uv_mutex_lock(&harness.engine->turn);
    cr_assert(snapshot_is_lost(snapshot) && snapshot_take(snapshot) == NULL &&
              !snapshot_is_taken(snapshot));
    uv_mutex_unlock(&harness.engine->turn);
    close_snapshot(harness.engine, snapshot);
    cr_assert_eq(used(harness.engine), before);
    caller_gone(&a, false);
    harness_close(&harness);
}
