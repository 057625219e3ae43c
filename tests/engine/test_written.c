/* written — updates that are written down while they run: the same bits as without,
 * whatever the rule, the dtype, the number of workers and the memory; and again when
 * they are made of what was written. Rounds wait for room, and nothing is lost of it.
 *
 * A member that is only there to be waited for joins before each round and leaves when
 * all pushes wait, which begins the update. Until then the test can change them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/rule.h"
#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/update/replay.h"
#include "server/workers/membership.h"
#include "tests/support/engine_harness.h"
#include "tests/support/rebuild.h"
#include "tests/support/toy.h"
#include "tests/support/written.h"

/* A tensor of both passes by one thread, one that takes the whole team, and rows. */
enum { SMALL = OPT_BLOCK + 5, LARGE = TEAM_DIRECTION + 9, DENSE = SMALL + LARGE };
enum { ROWS = 30, WIDTH = 7, NAMED = 5, ALL = DENSE + ROWS * WIDTH };
enum { WORKERS = 2, ROUNDS = 3, EVERY = 1001 };
static const uint64_t shape_small[] = { SMALL }, shape_large[] = { LARGE };
static const uint64_t shape_rows[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[] = {
    { .name = "small", .shape = shape_small, .rank = 1, .elements = SMALL },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
    { .name = "rows",
      .shape = shape_rows,
      .rank = 2,
      .elements = ROWS * WIDTH,
      .sparse = true },
};
static const uint32_t named[WORKERS][NAMED] = { { 3, 29, 0, 3, 7 }, { 7, 3, 8, 9, 7 } };

/* How gradients come. */
struct way {
    enum opt_dtype dtype;
    size_t workers;
    bool shared;        /* the first one's memory, with values that are not finite */
    enum opt_form form; /* of a sum the factor is not 1 */
};

static const struct way ways[] = {
    { OPT_FP32, 1, false, OPT_FORM_MEAN }, { OPT_BF16, 1, false, OPT_FORM_MEAN },
    { OPT_FP16, 2, false, OPT_FORM_MEAN }, { OPT_FP32, 2, false, OPT_FORM_MEAN },
    { OPT_BF16, 1, true, OPT_FORM_MEAN },  { OPT_FP32, 2, true, OPT_FORM_MEAN },
    { OPT_FP16, 1, false, OPT_FORM_SUM },  { OPT_FP32, 1, true, OPT_FORM_MEAN },
};
enum { WAYS = sizeof ways / sizeof *ways };

struct run {
    struct harness harness;
    struct caller callers[WORKERS + 1];
    uint32_t model;
    bool sparse;
};

/* ---------------------------------------------------------------- a run */

static void run_open(struct run *run, const char *spec, bool sparse,
                     struct opt_consistency consistency,
                     const struct recorder *recorder)
{
    static const char *const names[WORKERS + 1] = { "a", "b", "z" };
    static float start[ALL];
    struct engine_settings settings = harness_settings();
    settings.recorder = recorder;
    harness_open(&run->harness, settings);
    for (size_t i = 0; i <= WORKERS; i++) {
        run->callers[i] = caller_new(&run->harness, names[i], i + 1);
    }
    toy_fill(TOY_ORDINARY, 1, start, ALL);
    run->sparse = sparse;
    run->model = model_create(&run->callers[0], "m", spec, consistency, tensors,
                              sparse ? 3 : 2, start);
}

static void run_close(struct run *run)
{
    for (size_t i = 0; i <= WORKERS; i++) {
        caller_gone(&run->callers[i], false);
    }
    harness_close(&run->harness);
}

static struct letter *push_of(const struct run *run, const struct way *way,
                              size_t worker, uint64_t round)
{
    struct opt_segment segments[] = {
        { .tensor = 0 },
        { .tensor = 1 },
        { .tensor = 2, .rows = named[worker], .row_count = NAMED },
    };
    size_t n = DENSE + (run->sparse ? NAMED * WIDTH : 0);
    size_t size = opt_dtype_size(way->dtype);
    float *values = malloc(n * sizeof *values);
    void *narrow = malloc(n * size);
    cr_assert(values != NULL && narrow != NULL);
    toy_fill(TOY_ORDINARY, 10 * round + worker, values, n);
    for (size_t i = 0; way->shared && worker == 0 && i < n; i += EVERY) {
        values[i] = round % 2 == 0 ? NAN : -INFINITY;
    }
    opt_dtype_narrow(way->dtype, values, narrow, n);
    struct letter *letter =
        push_letter(&run->callers[worker], run->model, round, way->dtype, segments,
                    run->sparse ? 3 : 2, narrow, n * size);
    letter->request.body.push.samples = 3 + worker;
    letter->request.body.push.basis = round - 1;
    letter->request.body.push.form = way->form;
    if (way->shared) {
        letter->nonfinite = SIZE_MAX; /* it became so later */
    }
    free(values);
    free(narrow);
    return letter;
}

/* The rounds of a run, each of the pushes of so many workers. */
static void run_rounds(struct run *run, const struct way *way)
{
    for (size_t i = 1; i < way->workers; i++) {
        model_join(&run->callers[i], "m");
    }
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        struct letter *pushes[WORKERS];
        model_join(&run->callers[WORKERS], "m");
        for (size_t i = 0; i < way->workers; i++) {
            pushes[i] = push_of(run, way, i, round);
            letter_send(&run->callers[i], pushes[i]);
        }
        cr_assert_not(letter_is_back(&run->harness, pushes[way->workers - 1]), "%s",
                      reply_text(pushes[way->workers - 1]));
        struct model *of = run->harness.engine->numbered[0];
        if (way->shared) {
            of->members[0]->first->gradient.memory = GRADIENT_SHARED;
        }
        struct letter *leave = letter_start(&run->callers[WORKERS], OPT_MESSAGE_LEAVE);
        leave->request.body.leave = run->model;
        harness_free(letter_ask(&run->callers[WORKERS], leave));
        for (size_t i = 0; i < way->workers; i++) {
            pushes[i] = letter_await(&run->harness, pushes[i]);
            cr_assert_eq(reply_status(pushes[i]), OPT_OK, "%s", reply_text(pushes[i]));
            harness_free(pushes[i]);
        }
    }
}

static void expect_same(const struct run *a, const struct run *b, const char *what,
                        enum opt_view view, const char *slot)
{
    static float of_a[ALL], of_b[ALL];
    size_t n = a->sparse ? ALL : DENSE;
    cr_assert_eq(model_pull(&a->callers[0], a->model, view, slot, of_a, n), ROUNDS);
    cr_assert_eq(model_pull(&b->callers[0], b->model, view, slot, of_b, n), ROUNDS);
    cr_assert(same_bits(of_a, of_b, n), "%s: %s", what, slot[0] ? slot : "weights");
}

/* The same run with and without: bits, and bits made again. */
static void compare(const char *spec, const struct way *way, bool sparse)
{
    char what[256];
    struct run with, without;
    struct rebuild rebuild;
    const struct opt_consistency sync = { .mode = OPT_SYNC };
    snprintf(what, sizeof what, "%s, %s from %zu%s%s", spec, opt_dtype_name(way->dtype),
             way->workers, way->shared ? ", shared" : "", sparse ? ", rows" : "");
    rebuild_init(&rebuild);
    run_open(&without, spec, sparse, sync, NULL);
    run_open(&with, spec, sparse, sync, &rebuild.recorder);
    rebuild.engine = with.harness.engine;
    run_rounds(&without, way);
    run_rounds(&with, way);
    expect_same(&without, &with, what, OPT_VIEW_TRAIN, "");
    const struct model *model = with.harness.engine->numbered[0];
    for (size_t i = 0; i < model->slot_count; i++) {
        expect_same(&without, &with, what, OPT_VIEW_SLOT, model->slot_names[i]);
    }
    rebuild_expect(&rebuild, &with.harness);
    rebuild_let_go(&rebuild);
    run_close(&with);
    run_close(&without);
    rebuild_free(&rebuild);
}

static bool is_offered(const char *expression)
{
    struct opt_spec spec;
    struct opt_error error;
    if (opt_spec_parse(expression, &spec, &error) != OPT_OK) {
        return false;
    }
    opt_spec_fini(&spec);
    return true;
}

Test(written, an_update_has_the_same_bits_and_can_be_made_again, .timeout = 240)
{
    static const char *const wrappers[] = { "", " + clip(global_norm, 1)",
                                            " + layerwise(update)",
                                            " + layerwise(gradient)",
                                            " + lookahead(2)" };
    enum { WRAPPERS = sizeof wrappers / sizeof *wrappers };
    size_t count, next = 0;
    const struct opt_rule *const *rules = opt_rules(&count);
    cr_assert_gt(count, 5);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < WRAPPERS; k++) {
            char spec[128];
            snprintf(spec, sizeof spec, "%s%s", rules[i]->name, wrappers[k]);
            bool sparse = rules[i]->lazy && k < 2;
            if (!is_offered(spec)) {
                continue;
            }
            compare(spec, &ways[next++ % WAYS], sparse);
            compare(spec, &ways[next++ % WAYS], sparse);
        }
    }
    for (size_t i = 0; i < WAYS; i++) {
        compare("sgd(lr=0.1)", &ways[i], true);
        compare("lamb(lr=0.01)", &ways[i], false);
        if (!ways[i].shared) {
            compare("momentum + nonfinite(propagate)", &ways[i], true);
        }
    }
    cr_assert_gt(next, 2 * 4 * count);
    compare("lars(lr=0.1) + clip(value, 0.5)", &ways[4], false);
    compare("sgd(lr=0.1) + aggregate(sum)", &ways[3], true);
    compare("sgd(lr=0.1) + aggregate(sum)", &ways[5], true);
}

/* ---------------------------------------------------------------- room */

/* A recorder that keeps what it takes, until it lets go. */
struct keeper {
    struct recorder recorder;
    struct written *kept[2 * ROUNDS];
    _Atomic size_t count;
    atomic_bool full;
    _Atomic size_t asked, awaited;
};

static void on_note(void *context, const struct commit *commit)
{
    struct keeper *keeper = context;
    if (commit->kind == COMMIT_STEP) {
        struct written *written = written_take(commit->model);
        cr_assert_not_null(written);
        cr_assert_null(written_take(commit->model));
        keeper->kept[atomic_fetch_add(&keeper->count, 1)] = written;
    }
}

static void on_turn(void *context)
{
    (void)context;
}

static bool on_writes(void *context, const struct model *model)
{
    (void)context;
    (void)model;
    return true;
}

static bool on_room(void *context, struct model *model, size_t bytes)
{
    struct keeper *keeper = context;
    cr_assert_geq(bytes, DENSE * sizeof(float));
    cr_assert_not(model->deleted);
    atomic_fetch_add(&keeper->asked, 1);
    return !atomic_load(&keeper->full);
}

static void on_awaited(void *context, struct model *model)
{
    struct keeper *keeper = context;
    cr_assert_not(model->deleted);
    atomic_fetch_add(&keeper->awaited, 1);
}

static void keeper_init(struct keeper *keeper)
{
    *keeper = (struct keeper){ .recorder = { .note = on_note,
                                             .turn = on_turn,
                                             .writes = on_writes,
                                             .room = on_room,
                                             .awaited = on_awaited,
                                             .context = keeper } };
}

/* Give one back, in the engine's turn. */
static void let_go(struct keeper *keeper, struct engine *engine, size_t which)
{
    uv_mutex_lock(&engine->turn);
    written_free(engine, keeper->kept[which]);
    keeper->kept[which] = NULL;
    uv_mutex_unlock(&engine->turn);
}

/* Any request: the turn that serves it does what there is to do. */
static void nudge(const struct run *run)
{
    struct letter *letter = letter_start(&run->callers[0], OPT_MESSAGE_LIST);
    letter = letter_ask(&run->callers[0], letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

static const struct way plain = { OPT_FP32, 1, false, OPT_FORM_MEAN };

static void expect_applied(struct run *run, struct letter *push)
{
    push = letter_await(&run->harness, push);
    cr_assert_eq(reply_status(push), OPT_OK, "%s", reply_text(push));
    cr_assert_eq(push->reply.body.push.fate, OPT_FATE_APPLIED);
    harness_free(push);
}

Test(written, a_round_waits_while_the_recorder_has_no_room, .timeout = 60)
{
    struct keeper keeper;
    struct run run;
    keeper_init(&keeper);
    run_open(&run, "sgd(lr=0.1)", true, (struct opt_consistency){ .mode = OPT_SYNC },
             &keeper.recorder);
    struct engine *engine = run.harness.engine;
    struct model *model = engine->numbered[0];
    atomic_store(&keeper.full, true);

    struct letter *late = push_of(&run, &plain, 0, 1);
    late->request.timeout_ms = 100;
    letter_send(&run.callers[0], late);
    late = letter_await(&run.harness, late);
    cr_assert_eq(reply_status(late), OPT_DEADLINE_EXCEEDED, "%s", reply_text(late));
    cr_assert(strstr(reply_text(late), "no room to write it down") != NULL, "%s",
              reply_text(late));
    harness_free(late);

    struct letter *push = push_of(&run, &plain, 0, 2);
    push->request.body.push.basis = 0;
    letter_send(&run.callers[0], push);
    cr_assert_not(letter_is_back(&run.harness, push));
    size_t asked = atomic_load(&keeper.asked);
    nudge(&run);
    cr_assert_leq(atomic_load(&keeper.asked), asked + 1, "it asks again and again");
    cr_assert_not(letter_is_back(&run.harness, push));
    cr_assert_eq(model->step, 0);
    atomic_store(&keeper.full, false);
    uv_mutex_lock(&engine->turn);
    work_settle(engine, model);
    uv_mutex_unlock(&engine->turn);
    nudge(&run);
    expect_applied(&run, push);
    let_go(&keeper, engine, 0);
    run_close(&run);
}

/* All that is left of the budget is somebody else's: there is what was reserved. */
static size_t take_the_rest(struct engine *engine)
{
    uv_mutex_lock(&engine->turn);
    size_t left = budget_left(&engine->budget);
    cr_assert(budget_take(&engine->budget, left));
    uv_mutex_unlock(&engine->turn);
    return left;
}

static void wait_for_memory(struct opt_consistency consistency, bool sparse)
{
    struct keeper keeper;
    struct run run;
    keeper_init(&keeper);
    run_open(&run, "adam(lr=0.1)", sparse, consistency, &keeper.recorder);
    struct engine *engine = run.harness.engine;
    /* The first push reserves what its rows take. */
    struct letter *push = push_of(&run, &plain, 0, 1);
    letter_send(&run.callers[0], push);
    expect_applied(&run, push);
    let_go(&keeper, engine, 0);
    size_t rest = take_the_rest(engine);
    for (uint64_t round = 2; round <= ROUNDS; round++) {
        push = push_of(&run, &plain, 0, round);
        letter_send(&run.callers[0], push);
        if (round == 2) {
            cr_assert_eq(atomic_load(&keeper.awaited), 0);
        } else { /* what the round before has written is still held */
            cr_assert_not(letter_is_back(&run.harness, push));
            cr_assert_gt(atomic_load(&keeper.awaited), 0);
            let_go(&keeper, engine, round - 2);
            nudge(&run);
        }
        expect_applied(&run, push);
    }
    let_go(&keeper, engine, ROUNDS - 1);
    budget_give(&engine->budget, rest);
    run_close(&run);
}

Test(written, a_round_waits_for_memory_that_is_held, .timeout = 60)
{
    wait_for_memory((struct opt_consistency){ .mode = OPT_SYNC }, true);
    wait_for_memory((struct opt_consistency){ .mode = OPT_ASYNC }, false);
    wait_for_memory((struct opt_consistency){ .mode = OPT_BOUNDED, .staleness = 1 },
                    true);
    wait_for_memory(
        (struct opt_consistency){ .mode = OPT_SYNC, .atomic = OPT_ATOMIC_SHARD }, true);
}

/* A recorder may give back what it holds of several models at once. */
Test(written, a_round_waits_for_memory_among_that_of_others, .timeout = 60)
{
    struct keeper keeper;
    struct run run;
    keeper_init(&keeper);
    const struct opt_consistency sync = { .mode = OPT_SYNC };
    run_open(&run, "sgd(lr=0.1)", false, sync, &keeper.recorder);
    struct engine *engine = run.harness.engine;
    struct run other = run; /* by the same callers */
    other.model =
        model_create(&run.callers[0], "n", "sgd(lr=0.1)", sync, tensors, 2, NULL);
    struct letter *push = push_of(&run, &plain, 0, 1);
    letter_send(&run.callers[0], push);
    expect_applied(&run, push);
    push = push_of(&other, &plain, 0, 1);
    letter_send(&run.callers[0], push);
    expect_applied(&run, push);
    size_t rest = take_the_rest(engine);
    push = push_of(&other, &plain, 0, 2);
    letter_send(&run.callers[0], push);
    cr_assert_not(letter_is_back(&run.harness, push));
    keeper.kept[0]->next = keeper.kept[1];
    let_go(&keeper, engine, 0);
    nudge(&run);
    expect_applied(&run, push);
    let_go(&keeper, engine, 2);
    budget_give(&engine->budget, rest);
    run_close(&run);
}

Test(written, what_is_held_of_a_model_outlives_it, .timeout = 60)
{
    struct keeper keeper;
    struct run run;
    keeper_init(&keeper);
    run_open(&run, "sgd(lr=0.1)", true, (struct opt_consistency){ .mode = OPT_SYNC },
             &keeper.recorder);
    struct engine *engine = run.harness.engine;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        struct letter *push = push_of(&run, &plain, 0, round);
        letter_send(&run.callers[0], push);
        expect_applied(&run, push);
    }
    struct letter *letter = letter_start(&run.callers[0], OPT_MESSAGE_DELETE);
    letter->request.body.delete_ = "m";
    letter = letter_ask(&run.callers[0], letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    /* Nothing of it is left but this. */
    size_t held = 0;
    for (size_t i = 0; i < ROUNDS; i++) {
        cr_assert_not_null(keeper.kept[i]->values);
        cr_assert_eq(keeper.kept[i]->value_bytes, DENSE * sizeof(float));
        cr_assert_eq(keeper.kept[i]->rows_count, 1);
        cr_assert_eq(keeper.kept[i]->rows[0].count, NAMED - 1);
        held += keeper.kept[i]->bytes;
    }
    size_t used = budget_used(&engine->budget);
    cr_assert_geq(used, held);
    for (size_t i = 0; i < ROUNDS; i++) {
        let_go(&keeper, engine, i);
    }
    cr_assert_leq(budget_used(&engine->budget), used - held);
    run_close(&run);
}

/* A sum that is not finite undoes the update: its memory is there for the next one. */
Test(written, nothing_is_kept_of_an_update_that_did_not_happen, .timeout = 60)
{
    struct keeper keeper;
    struct run run;
    keeper_init(&keeper);
    run_open(&run, "sgd(lr=0.1) + aggregate(sum)", false,
             (struct opt_consistency){ .mode = OPT_SYNC }, &keeper.recorder);
    struct engine *engine = run.harness.engine;
    model_join(&run.callers[1], "m");
    size_t rest = take_the_rest(engine);
    static float values[DENSE];
    const struct opt_segment segments[] = { { .tensor = 0 }, { .tensor = 1 } };
    for (uint64_t round = 1; round <= 4; round++) {
        struct letter *pushes[2];
        bool wrong = round < 4;
        for (size_t i = 0; i < DENSE; i++) {
            values[i] = wrong && i == SMALL + 77 ? 3e38f : 1;
        }
        for (size_t i = 0; i < 2; i++) {
            pushes[i] = push_letter(&run.callers[i], run.model, round, OPT_FP32,
                                    segments, 2, values, sizeof values);
            letter_send(&run.callers[i], pushes[i]);
        }
        for (size_t i = 0; i < 2; i++) {
            pushes[i] = letter_await(&run.harness, pushes[i]);
            cr_assert_eq(reply_status(pushes[i]),
                         wrong ? OPT_INVALID_ARGUMENT : OPT_OK);
            cr_assert(!wrong || strstr(reply_text(pushes[i]),
                                       "element 77 of tensor \"large\"") != NULL,
                      "%s", reply_text(pushes[i]));
            harness_free(pushes[i]);
        }
    }
    cr_assert_eq(atomic_load(&keeper.count), 1);
    let_go(&keeper, engine, 0);
    budget_give(&engine->budget, rest);
    run_close(&run);
}

/* ---------------------------------------------------------------- refused */

/* What is not of the model is refused, and nothing has changed. */
static void expect_refused(struct run *run, const struct written *written,
                           const char *why)
{
    struct engine *engine = run->harness.engine;
    struct model *model = engine->numbered[0];
    struct opt_error error = { .text = "" };
    uv_mutex_lock(&engine->turn);
    struct replay *replay = replay_new(engine, model);
    cr_assert_not_null(replay);
    if (replay_begin(replay, written, &error) == OPT_OK) {
        enum update_progress progress = UPDATE_MORE;
        while (progress == UPDATE_MORE) {
            progress = replay_run(replay, &error);
        }
        cr_assert_eq(progress, UPDATE_OVERFLOW, "%s", why);
    } else {
        cr_assert_eq(error.status, OPT_DATA_LOSS);
    }
    replay_free(replay);
    uv_mutex_unlock(&engine->turn);
    cr_assert(strstr(error.text, why) != NULL, "\"%s\" does not say %s", error.text,
              why);
    cr_assert(strstr(error.text, "update 1 of model \"m\"") != NULL, "%s", error.text);
    cr_assert_eq(model->step, 0);
}

Test(written, what_is_not_of_the_model_is_refused, .timeout = 60)
{
    struct keeper keeper;
    struct run run, other;
    keeper_init(&keeper);
    const struct opt_consistency sync = { .mode = OPT_SYNC };
    run_open(&run, "sgd(lr=0.1)", true, sync, &keeper.recorder);
    run_open(&other, "sgd(lr=0.1)", true, sync, NULL);
    struct letter *push = push_of(&run, &plain, 0, 1);
    letter_send(&run.callers[0], push);
    expect_applied(&run, push);
    const struct written right = *keeper.kept[0];
    struct written wrong = right;
    struct written_run blocks = right.blocks[0], named_runs = right.tensors[0];
    struct written_rows rows = right.rows[0];
    cr_assert_eq(right.block_runs, 1);
    cr_assert_eq(right.tensor_runs, 1);

    wrong.value_bytes--;
    expect_refused(&other, &wrong, "values end too early");
    wrong.value_bytes += 2;
    expect_refused(&other, &wrong, "values are too long");
    wrong = right;
    wrong.dtype = OPT_BF16;
    expect_refused(&other, &wrong, "values are too long");
    wrong = right;
    wrong.blocks = &blocks;
    blocks.count++;
    expect_refused(&other, &wrong, "tensors and blocks");
    blocks.count -= 2; /* the last one has 9 elements */
    wrong.value_bytes -= 9 * sizeof(float);
    expect_refused(&other, &wrong, "other blocks");
    wrong = right;
    wrong.tensors = &named_runs;
    named_runs.count = 5;
    expect_refused(&other, &wrong, "tensors and blocks");
    named_runs.count = 2;
    expect_refused(&other, &wrong, "its rows");
    wrong = right;
    wrong.rows = &rows;
    rows.tensor = 0;
    expect_refused(&other, &wrong, "its rows");
    rows.tensor = 2;
    rows.value_bytes += WIDTH;
    expect_refused(&other, &wrong, "its rows");
    rows.value_bytes = right.rows[0].value_bytes;
    const uint32_t twice[] = { 3, 3, 7, 29 }, beyond[] = { 0, 3, 7, ROWS };
    rows.rows = twice;
    expect_refused(&other, &wrong, "its rows");
    rows.rows = beyond;
    expect_refused(&other, &wrong, "its rows");
    wrong = right;
    wrong.last = false;
    expect_refused(&other, &wrong, "last batch");

    uv_mutex_lock(&other.harness.engine->turn);
    written_replay(other.harness.engine, other.harness.engine->numbered[0], &right);
    uv_mutex_unlock(&other.harness.engine->turn);
    static float of_a[ALL], of_b[ALL];
    model_pull(&run.callers[0], run.model, OPT_VIEW_TRAIN, "", of_a, ALL);
    cr_assert_eq(
        model_pull(&other.callers[0], other.model, OPT_VIEW_TRAIN, "", of_b, ALL), 1);
    cr_assert(same_bits(of_a, of_b, ALL));
    let_go(&keeper, run.harness.engine, 0);
    run_close(&run);
    run_close(&other);
}
