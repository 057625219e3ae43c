/* gradient — updates made again from what was written down of them: the gradients of a
 * run are copied before each of its updates, and applied to a model of another engine
 * by the functions that the engine itself uses. Weights and slots must be the same bit
 * for bit.
 *
 * Two workers train; a third one joins before each round and leaves when the pushes of
 * the two wait for it, which begins the update. Until then the test reads them.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/update/gradient.h"
#include "server/workers/membership.h"
#include "tests/support/copied.h"
#include "tests/support/engine_harness.h"
#include "tests/support/toy.h"

/* A tensor of both passes by one thread, one that takes the whole team, and one of
 * which workers name rows, the same ones and others. */
enum { SMALL = 3 * OPT_BLOCK + 5, LARGE = TEAM_DIRECTION + OPT_BLOCK + 9 };
enum { ROWS = 50, WIDTH = 7, NAMED = 5, DENSE = SMALL + LARGE };
enum { ALL = DENSE + ROWS * WIDTH, WORKERS = 2, ROUNDS = 4 };
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
static const uint32_t named[WORKERS][NAMED] = { { 3, 49, 0, 3, 7 }, { 7, 3, 8, 9, 7 } };

struct situation {
    const char *spec;
    enum opt_dtype dtype;
    bool sparse;
};

static size_t tensor_count(const struct situation *situation)
{
    return situation->sparse ? 3 : 2;
}

static size_t elements(const struct situation *situation)
{
    return situation->sparse ? ALL : DENSE;
}

static void *copy_of(const void *from, size_t size)
{
    void *copy = malloc(size);
    cr_assert_not_null(copy);
    return memcpy(copy, from, size);
}

/* ---------------------------------------------------------------- the run */

static void fill(const struct situation *situation, uint64_t seed, void *out, size_t n)
{
    float *values = malloc(n * sizeof *values);
    cr_assert_not_null(values);
    toy_fill(TOY_ORDINARY, seed, values, n);
    opt_dtype_narrow(situation->dtype, values, out, n);
    free(values);
}

/* A push of everything dense, and of some rows. The second worker leaves the small
 * tensor out every other time. */
static struct letter *push_of(const struct situation *situation,
                              const struct caller *caller, uint32_t model,
                              size_t worker, uint64_t round)
{
    bool all = worker == 0 || round % 2 == 0;
    struct opt_segment segments[3];
    size_t count = 0, n = LARGE;
    if (all) {
        segments[count++] = (struct opt_segment){ .tensor = 0 };
        n += SMALL;
    }
    segments[count++] = (struct opt_segment){ .tensor = 1 };
    if (situation->sparse) {
        segments[count++] = (struct opt_segment){ .tensor = 2,
                                                  .rows = named[worker],
                                                  .row_count = NAMED };
        n += NAMED * WIDTH;
    }
    size_t size = n * opt_dtype_size(situation->dtype);
    void *values = malloc(size);
    cr_assert_not_null(values);
    fill(situation, 10 * round + worker, values, n);
    struct letter *letter = push_letter(caller, model, round, situation->dtype,
                                        segments, count, values, size);
    letter->request.body.push.samples = 1 + 2 * worker;
    letter->request.body.push.basis = round - 1;
    free(values);
    return letter;
}

/* The model when everything that was sent has been looked at. */
static struct model *model_at_rest(struct harness *harness, const struct letter *letter)
{
    cr_assert_not(letter_is_back(harness, letter));
    return harness->engine->numbered[0];
}

static void run_round(const struct situation *situation, struct harness *harness,
                      const struct caller callers[WORKERS + 1], uint32_t model,
                      uint64_t round, struct copied written[WORKERS])
{
    struct letter *pushes[WORKERS];
    model_join(&callers[WORKERS], "m");
    for (size_t i = 0; i < WORKERS; i++) {
        pushes[i] = push_of(situation, &callers[i], model, i, round);
        letter_send(&callers[i], pushes[i]);
    }
    const struct model *of = model_at_rest(harness, pushes[WORKERS - 1]);
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_not_null(of->members[i]->first);
        written[i] = copied_new(of, &of->members[i]->first->gradient);
    }
    struct letter *leave = letter_start(&callers[WORKERS], OPT_MESSAGE_LEAVE);
    leave->request.body.leave = model;
    harness_free(letter_ask(&callers[WORKERS], leave));
    for (size_t i = 0; i < WORKERS; i++) {
        pushes[i] = letter_await(harness, pushes[i]);
        cr_assert_eq(reply_status(pushes[i]), OPT_OK, "%s", reply_text(pushes[i]));
        cr_assert_eq(pushes[i]->reply.body.push.step, round);
        harness_free(pushes[i]);
    }
}

static void open_all(struct harness *harness, struct caller callers[WORKERS + 1])
{
    static const char *const names[WORKERS + 1] = { "a", "b", "c" };
    harness_open(harness, harness_settings());
    for (size_t i = 0; i <= WORKERS; i++) {
        callers[i] = caller_new(harness, names[i], i + 1);
    }
}

static void close_all(struct harness *harness, struct caller callers[WORKERS + 1])
{
    for (size_t i = 0; i <= WORKERS; i++) {
        caller_gone(&callers[i], false);
    }
    harness_close(harness);
}

static uint32_t make(const struct situation *situation, const struct caller *caller,
                     struct opt_consistency consistency)
{
    float *start = malloc(ALL * sizeof *start);
    cr_assert_not_null(start);
    toy_fill(TOY_ORDINARY, 1, start, ALL);
    uint32_t model = model_create(caller, "m", situation->spec, consistency, tensors,
                                  tensor_count(situation), start);
    free(start);
    return model;
}

/* ---------------------------------------------------------------- made again */

static void update_again(struct engine *engine, const struct gradient *const *gradients,
                         size_t count)
{
    struct model *model = engine->numbered[0];
    enum update_progress progress = UPDATE_MORE;
    uint64_t step = model->step, element;
    uint32_t tensor;
    uv_mutex_lock(&engine->turn);
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        rows += gradients[i]->row_count;
    }
    cr_assert(team_reserve(engine->team, count) && rows_reserve(engine, model, rows));
    update_begin(engine, model);
    update_rest(engine, model, gradients, count);
    while (progress != UPDATE_DONE) {
        progress = update_run(engine, model, &tensor, &element);
        cr_assert_neq(progress, UPDATE_OVERFLOW);
    }
    uv_mutex_unlock(&engine->turn);
    cr_assert_eq(model->step, step + 1);
}

static void expect_equal(const struct situation *situation, const char *what,
                         const struct caller *a, uint32_t model_a,
                         const struct caller *b, uint32_t model_b, enum opt_view view,
                         const char *slot)
{
    size_t n = elements(situation);
    float *of_a = malloc(n * sizeof *of_a), *of_b = malloc(n * sizeof *of_b);
    cr_assert(of_a != NULL && of_b != NULL);
    uint64_t step = model_pull(a, model_a, view, slot, of_a, n);
    cr_assert_eq(model_pull(b, model_b, view, slot, of_b, n), step);
    cr_assert(same_bits(of_a, of_b, n), "%s, %s: %s%s", situation->spec,
              opt_dtype_name(situation->dtype), slot, what);
    free(of_a);
    free(of_b);
}

static void expect_same_model(const struct situation *situation, const char *what,
                              const struct caller *a, uint32_t model_a,
                              const struct caller *b, uint32_t model_b)
{
    const char *names[OPT_SLOTS_MAX];
    struct opt_spec spec;
    cr_assert_eq(opt_spec_parse(situation->spec, &spec, NULL), OPT_OK);
    size_t slots = opt_spec_slots(&spec, names);
    expect_equal(situation, what, a, model_a, b, model_b, OPT_VIEW_TRAIN, "");
    for (size_t i = 0; i < slots; i++) {
        expect_equal(situation, what, a, model_a, b, model_b, OPT_VIEW_SLOT, names[i]);
    }
    opt_spec_fini(&spec);
}

static const struct situation situations[] = {
    { "sgd(lr=0.1)", OPT_FP32, true },
    { "adam(lr=1e-3)", OPT_BF16, true },
    { "momentum(lr=0.1) + aggregate(sum)", OPT_FP16, true },
    { "adam(lr=1e-3) + clip(global_norm, 1)", OPT_FP32, true },
    { "lamb(lr=0.01)", OPT_FP32, false },
    { "lamb(lr=0.01) + lookahead(2)", OPT_FP16, false },
    { "lars(lr=0.1)", OPT_FP32, false },
    { "lars2017(lr=0.1) + clip(global_norm, 1)", OPT_BF16, false },
    { "ranger(lr=0.01) + lookahead(3)", OPT_FP32, false },
    { "nadam(lr=1e-3) + warmup(2)", OPT_FP32, false },
};

ParameterizedTestParameters(gradient, that_is_written_down_makes_the_same_update)
{
    enum { COUNT = sizeof situations / sizeof *situations };
    static size_t numbers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, COUNT);
}

/* Once as the update's own, over which it may write, once as kept, which stays. */
ParameterizedTest(size_t *number, gradient, that_is_written_down_makes_the_same_update,
                  .timeout = 120)
{
    const struct situation *situation = &situations[*number];
    static const enum gradient_memory memories[] = { GRADIENT_KEPT, GRADIENT_OWN };
    struct copied written[ROUNDS][WORKERS];
    struct caller callers[WORKERS + 1];
    struct harness harness;
    open_all(&harness, callers);
    const struct opt_consistency sync = { .mode = OPT_SYNC };
    uint32_t model = make(situation, &callers[0], sync);
    model_join(&callers[1], "m");
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        run_round(situation, &harness, callers, model, round, written[round - 1]);
    }
    for (size_t m = 0; m < sizeof memories / sizeof *memories; m++) {
        struct caller others[WORKERS + 1];
        struct harness other;
        open_all(&other, others);
        uint32_t again = make(situation, &others[0], sync);
        for (size_t round = 0; round < ROUNDS; round++) {
            const struct gradient *gradients[WORKERS];
            uint8_t *before[WORKERS];
            for (size_t i = 0; i < WORKERS; i++) {
                struct copied *one = &written[round][i];
                one->gradient.memory = memories[m];
                before[i] = copy_of(one->values, one->blocks * BLOCK_BYTES);
                gradients[i] = &one->gradient;
            }
            update_again(other.engine, gradients, WORKERS);
            for (size_t i = 0; i < WORKERS; i++) {
                bool same = memcmp(before[i], written[round][i].values,
                                   written[round][i].blocks * BLOCK_BYTES) == 0;
                cr_assert(same || memories[m] == GRADIENT_OWN, "%s", situation->spec);
                free(before[i]);
            }
        }
        expect_same_model(situation, memories[m] == GRADIENT_OWN ? " (own)" : " (kept)",
                          &callers[0], model, &others[0], again);
        close_all(&other, others);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < WORKERS; i++) {
            copied_free(&written[round][i]);
        }
    }
    close_all(&harness, callers);
}

/* An asynchronous update waits for nobody, so its gradient is made of what was sent,
 * and of the weights that its worker had. */
Test(gradient, of_an_asynchronous_push_brings_the_weights_it_was_computed_from,
     .timeout = 120)
{
    const struct situation situation = { "momentum(lr=0.1)", OPT_FP32, false };
    const struct opt_consistency async = { .mode = OPT_ASYNC,
                                           .damping = true,
                                           .delay_compensation = 0.5 };
    struct caller callers[WORKERS + 1], others[WORKERS + 1];
    struct harness harness, other;
    float *pulled = malloc(DENSE * sizeof *pulled);
    cr_assert_not_null(pulled);
    open_all(&harness, callers);
    open_all(&other, others);
    uint32_t model = make(&situation, &callers[0], async);
    model_join(&callers[1], "m");
    uint32_t again = make(&situation, &others[0], async);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        /* Both pull; the second one pushes what is older by the first one's update. */
        for (size_t i = 0; i < WORKERS; i++) {
            model_pull(&callers[i], model, OPT_VIEW_TRAIN, "", pulled, DENSE);
        }
        for (size_t i = 0; i < WORKERS; i++) {
            struct letter *push = push_of(&situation, &callers[i], model, 0, round);
            push->request.body.push.basis = WORKERS * (round - 1);
            const struct model *of = harness.engine->numbered[0];
            const struct tensor *small = &of->tensors[0], *large = &of->tensors[1];
            struct last_pull recall = of->members[i]->last_pull;
            recall.values = copy_of(recall.values, of->floats * sizeof(float));
            recall.steps = copy_of(recall.steps, of->blocks * sizeof(uint64_t));
            uint32_t names[] = { 0, 1 },
                     covered[] = { (uint32_t)small->blocks, (uint32_t)large->blocks };
            struct gradient gradient = {
                .dtype = OPT_FP32,
                .memory = GRADIENT_KEPT,
                .samples = 1,
                .basis = push->request.body.push.basis,
                .last_pull = &recall,
                .tensors = names,
                .tensor_count = 2,
                .covered = covered,
                .blocks = calloc(of->blocks, sizeof *gradient.blocks),
            };
            uint8_t *values = copy_of(push->data, push->data_size);
            cr_assert_not_null(gradient.blocks);
            for (size_t k = 0; k < small->blocks; k++) {
                gradient.blocks[small->first_block + k] = values + k * BLOCK_BYTES;
            }
            for (size_t k = 0; k < large->blocks; k++) {
                gradient.blocks[large->first_block + k] =
                    values + SMALL * sizeof(float) + k * BLOCK_BYTES;
            }
            push = letter_ask(&callers[i], push);
            cr_assert_eq(reply_status(push), OPT_OK, "%s", reply_text(push));
            cr_assert_eq(push->reply.body.push.staleness, i);
            harness_free(push);
            const struct gradient *one = &gradient;
            update_again(other.engine, &one, 1);
            free(values);
            free(gradient.blocks);
            free(recall.values);
            free(recall.steps);
        }
    }
    expect_same_model(&situation, "", &callers[0], model, &others[0], again);
    free(pulled);
    close_all(&harness, callers);
    close_all(&other, others);
}
