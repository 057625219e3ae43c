/* commit — everything that becomes true is noted, in order and before it is told: from
 * the notes of a run another engine is brought to the same bits, under every policy.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/state.h"
#include "tests/support/engine_harness.h"
#include "tests/support/rebuild.h"
#include "tests/support/toy.h"

enum { WORKERS = 3, ROUNDS = 12, PARTS = 3, HALF = OPT_SHARD + OPT_BLOCK };
enum { SMALL = OPT_BLOCK + 3, ROWS = 20, WIDTH = 5 };
enum { ELEMENTS = SMALL + HALF };
static const uint64_t shape_small[] = { SMALL }, shape_large[] = { HALF };
static const uint64_t shape_rows[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[] = {
    { .name = "small", .shape = shape_small, .rank = 1, .elements = SMALL },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = HALF },
    { .name = "rows",
      .shape = shape_rows,
      .rank = 2,
      .elements = ROWS * WIDTH,
      .sparse = true },
};
/* A frame each. */
static const struct opt_segment parts[PARTS] = {
    { .tensor = 0, .count = SMALL },
    { .tensor = 1, .count = OPT_SHARD },
    { .tensor = 1, .offset = OPT_SHARD, .count = OPT_BLOCK },
};

struct situation {
    const char *name, *spec;
    struct opt_consistency consistency;
    bool sparse;
    enum opt_dtype dtype; /* of gradients */
};

static const struct situation situations[] = {
    { "sync",
      "adam(lr=1e-3) + clip(global_norm, 1)",
      { .mode = OPT_SYNC },
      true,
      OPT_FP32 },
    { "layerwise",
      "lamb(lr=0.01) + lookahead(3)",
      { .mode = OPT_SYNC },
      false,
      OPT_FP32 },
    { "wait",
      "momentum(lr=0.1)",
      { .mode = OPT_SYNC, .loss = OPT_LOSS_WAIT },
      true,
      OPT_FP32 },
    { "fail",
      "momentum(lr=0.1)",
      { .mode = OPT_SYNC, .loss = OPT_LOSS_FAIL },
      true,
      OPT_FP32 },
    { "backup", "rmsprop(lr=1e-3)", { .mode = OPT_SYNC, .backup = 1 }, true, OPT_FP32 },
    { "samples", "adam(lr=1e-3)", { .mode = OPT_SYNC, .samples = 6 }, true, OPT_FP32 },
    { "async",
      "adam(lr=1e-3) + lookahead(2)",
      { .mode = OPT_ASYNC, .damping = true, .delay_compensation = 0.5 },
      false,
      OPT_FP32 },
    { "bounded",
      "adagrad(lr=0.01)",
      { .mode = OPT_BOUNDED, .staleness = 1 },
      true,
      OPT_FP32 },
    { "shard",
      "adam(lr=1e-3)",
      { .mode = OPT_SYNC, .atomic = OPT_ATOMIC_SHARD },
      true,
      OPT_FP32 },
    { "halves", "adam(lr=1e-3)", { .mode = OPT_SYNC }, true, OPT_FP16 },
    { "stale halves",
      "momentum(lr=0.1)",
      { .mode = OPT_ASYNC, .damping = true, OPT_FP32 },
      true,
      OPT_BF16 },
    { "compensated halves",
      "lamb(lr=0.01)",
      { .mode = OPT_ASYNC, .delay_compensation = 0.5 },
      false,
      OPT_FP16 },
    { "halves by shard",
      "momentum(lr=0.1)",
      { .mode = OPT_SYNC, .atomic = OPT_ATOMIC_SHARD },
      true,
      OPT_BF16 },
    { "skip", "sgd(lr=0.1) + nonfinite(skip)", { .mode = OPT_SYNC }, false, OPT_FP32 },
};

struct scene {
    const struct situation *situation;
    struct rebuild rebuild;
    struct harness harness;
    struct caller callers[WORKERS];
    bool here[WORKERS];
    uint64_t sequence[WORKERS];
    uint32_t model;
    uint64_t step; /* that all who push have pulled */
    uint64_t random;
    size_t told[OPT_FATE_COUNT];
    size_t refused;
};

static const char *const names[WORKERS] = { "a", "b", "c" };

static size_t here(const struct scene *s)
{
    size_t count = 0;
    for (size_t i = 0; i < WORKERS; i++) {
        count += s->here[i];
    }
    return count;
}

/* ---------------------------------------------------------------- pushes */

/* The frames of one push, the last of which is answered. */
struct pushing {
    struct letter *frames[PARTS];
    uint64_t sequence;
};

static struct letter *frame_of(struct scene *s, size_t worker, size_t part, bool wrong)
{
    static const uint32_t rows[] = { 3, 19, 0, 3 };
    static float values[OPT_SHARD + OPT_BLOCK], narrow[OPT_SHARD + OPT_BLOCK];
    struct opt_segment segments[2] = { parts[part] };
    size_t n = (size_t)parts[part].count, count = 1;
    toy_fill(TOY_ORDINARY, toy_random(&s->random), values, n);
    if (part == 0 && s->situation->sparse) {
        size_t named = sizeof rows / sizeof *rows;
        segments[count++] =
            (struct opt_segment){ .tensor = 2, .rows = rows, .row_count = named };
        toy_fill(TOY_ORDINARY, toy_random(&s->random), values + n, named * WIDTH);
        n += named * WIDTH;
    }
    values[n / 2] = wrong ? NAN : values[n / 2];
    enum opt_dtype dtype = s->situation->dtype;
    opt_dtype_narrow(dtype, values, narrow, n);
    struct letter *letter =
        push_letter(&s->callers[worker], s->model, s->sequence[worker], dtype, segments,
                    count, narrow, n * opt_dtype_size(dtype));
    letter->nonfinite = wrong ? n / 2 : SIZE_MAX;
    letter->request.body.push.samples = 6 / here(s);
    letter->request.body.push.basis = s->step;
    letter->request.body.push.frame = (uint32_t)part;
    letter->request.body.push.last = part == PARTS - 1;
    return letter;
}

static struct pushing pushing_new(struct scene *s, size_t worker, bool wrong)
{
    struct pushing pushing = { .sequence = ++s->sequence[worker] };
    for (size_t i = 0; i < PARTS; i++) {
        struct letter *letter = frame_of(s, worker, i, wrong && i == PARTS - 1);
        if (i > 0) {
            letter->request.id = pushing.frames[0]->request.id;
        }
        pushing.frames[i] = letter;
        letter_send(&s->callers[worker], letter);
    }
    return pushing;
}

/* Whatever the push is told, its fate has been noted before. */
static void pushing_end(struct scene *s, size_t worker, struct pushing *pushing)
{
    for (size_t i = 0; i < PARTS; i++) {
        struct letter *letter = letter_await(&s->harness, pushing->frames[i]);
        enum opt_fate fate = OPT_FATE_UNKNOWN;
        if (letter->silent) {
            fate = OPT_FATE_UNKNOWN;
        } else if (letter->reply.message == OPT_MESSAGE_PUSH) {
            fate = letter->reply.body.push.fate;
            s->told[fate]++;
        } else {
            fate = letter->reply.body.error.fate;
            s->refused++;
        }
        if (fate != OPT_FATE_UNKNOWN && fate != OPT_FATE_NOT_TAKEN) {
            cr_assert(rebuild_knows(&s->rebuild, names[worker], pushing->sequence),
                      "%s: push %zu of \"%s\" was told first", s->situation->name,
                      (size_t)pushing->sequence, names[worker]);
        }
        harness_free(letter);
    }
}

/* ---------------------------------------------------------------- the run */

static void begin(struct scene *s, const struct situation *situation)
{
    *s = (struct scene){ .situation = situation, .random = 7 };
    rebuild_init(&s->rebuild);
    struct engine_settings settings = harness_settings();
    settings.recorder = &s->rebuild.recorder;
    harness_open(&s->harness, settings);
    s->rebuild.engine = s->harness.engine;
    static float start[ELEMENTS + ROWS * WIDTH];
    toy_fill(TOY_ORDINARY, 1, start, ELEMENTS + ROWS * WIDTH);
    for (size_t i = 0; i < WORKERS; i++) {
        s->callers[i] = caller_new(&s->harness, names[i], i + 1);
        s->here[i] = true;
        if (i == 0) {
            s->model = model_create(&s->callers[0], "m", situation->spec,
                                    situation->consistency, tensors,
                                    situation->sparse ? 3 : 2, start);
        } else {
            model_join(&s->callers[i], "m");
        }
    }
}

static void pull_all(struct scene *s)
{
    static float weights[ELEMENTS + ROWS * WIDTH];
    size_t n = ELEMENTS + (s->situation->sparse ? ROWS * WIDTH : 0);
    for (size_t i = 0; i < WORKERS; i++) {
        if (s->here[i]) {
            s->step =
                model_pull(&s->callers[i], s->model, OPT_VIEW_TRAIN, "", weights, n);
        }
    }
}

static void run_round(struct scene *s, bool wrong)
{
    struct pushing pushing[WORKERS];
    pull_all(s);
    /* The last one first: it may have rested, and is waited for once it has pushed. */
    for (size_t i = WORKERS; i-- > 0;) {
        if (s->here[i]) {
            pushing[i] = pushing_new(s, i, wrong && i == 1);
        }
    }
    if (wrong && s->situation->consistency.mode == OPT_SYNC &&
        s->situation->spec[0] != 's') {
        /* One is missing from the round: it pushes again. */
        pushing_end(s, 1, &pushing[1]);
        pushing[1] = pushing_new(s, 1, false);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        if (s->here[i]) {
            pushing_end(s, i, &pushing[i]);
        }
    }
}

static void set(struct scene *s, const char *change, uint64_t at_step)
{
    struct letter *letter = letter_start(&s->callers[0], OPT_MESSAGE_SET);
    letter->request.body.set =
        (struct opt_set){ .model = "m", .change = change, .at_step = at_step };
    letter = letter_ask(&s->callers[0], letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

static void pass_barrier(struct scene *s, uint64_t sequence)
{
    struct letter *letters[WORKERS];
    for (size_t i = 0; i < WORKERS; i++) {
        letters[i] = letter_start(&s->callers[i], OPT_MESSAGE_BARRIER);
        letters[i]->request.body.barrier =
            (struct opt_barrier){ .model = s->model, .sequence = sequence };
        letter_send(&s->callers[i], letters[i]);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        letters[i] = letter_await(&s->harness, letters[i]);
        cr_assert_eq(reply_status(letters[i]), OPT_OK, "%s", reply_text(letters[i]));
        harness_free(letters[i]);
    }
}

/* The third worker is lost with half a push, and another process takes its name. */
static void lose_one(struct scene *s)
{
    struct letter *half = frame_of(s, 2, 0, false);
    half->request.body.push.sequence = ++s->sequence[2];
    letter_send(&s->callers[2], half);
    caller_gone(&s->callers[2], true);
    s->here[2] = false;
    harness_free(letter_await(&s->harness, half));
    if (s->situation->consistency.loss != OPT_LOSS_WAIT) {
        run_round(s, false);
    }
    s->callers[2] = caller_new(&s->harness, names[2], 77);
    model_join(&s->callers[2], "m");
    s->here[2] = true;
}

static void rest(struct scene *s)
{
    struct letter *letter = letter_start(&s->callers[2], OPT_MESSAGE_REST);
    letter->request.body.rest = s->model;
    harness_free(letter_ask(&s->callers[2], letter));
    s->here[2] = false;
    run_round(s, false);
    s->here[2] = true;
}

static void delete_another(struct scene *s)
{
    model_create(&s->callers[0], "other", "sgd(lr=1)",
                 (struct opt_consistency){ .mode = OPT_SYNC }, tensors, 1, NULL);
    struct letter *letter = letter_start(&s->callers[0], OPT_MESSAGE_DELETE);
    letter->request.body.delete_ = "other";
    letter = letter_ask(&s->callers[0], letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

ParameterizedTestParameters(commit, notes_all_that_a_recovery_needs)
{
    enum { COUNT = sizeof situations / sizeof *situations };
    static size_t numbers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, COUNT);
}

ParameterizedTest(size_t *number, commit, notes_all_that_a_recovery_needs,
                  .timeout = 120)
{
    struct scene s;
    begin(&s, &situations[*number]);
    for (size_t round = 0; round < ROUNDS; round++) {
        run_round(&s, round == 4);
        switch (round) {
        case 1:
            set(&s, "lr=0.02", 0);
            break;
        case 2:
            pass_barrier(&s, 1);
            break;
        case 5:
            lose_one(&s);
            break;
        case 7:
            delete_another(&s);
            break;
        case 8:
            rest(&s);
            break;
        default:
            break;
        }
    }
    rebuild_expect(&s.rebuild, &s.harness);
    cr_assert_gt(s.told[OPT_FATE_APPLIED], ROUNDS);
    cr_assert_gt(s.refused + s.told[OPT_FATE_SKIPPED], 0);
    cr_assert_geq(rebuild_count(&s.rebuild, COMMIT_STEP), ROUNDS);
    cr_assert_eq(rebuild_count(&s.rebuild, COMMIT_OPTIONS), 1);
    cr_assert_eq(rebuild_count(&s.rebuild, COMMIT_GONE), 1);
    for (size_t i = 0; i < WORKERS; i++) {
        caller_gone(&s.callers[i], false);
    }
    rebuild_let_go(&s.rebuild);
    harness_close(&s.harness);
    rebuild_free(&s.rebuild);
}
