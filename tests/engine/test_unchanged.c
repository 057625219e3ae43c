/* unchanged — pulls that carry only what has changed since an earlier one.
 *
 * A memory is what a worker keeps of one view: it is refreshed by pulls that say which
 * step it shows, and after each must be, bit for bit, what a pull of everything gives.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

/* "a", "b" and "c" share a shard, "large" has two, "table" has two, "d" has one. */
enum {
    LARGE = OPT_SHARD + OPT_BLOCK + 3,
    WIDTH = 4096,
    ROWS = 300,
    TABLE = ROWS * WIDTH,
    DENSE = 5,
    TENSORS = 6,
    DENSE_TOTAL = 5 + 20 + 7 + LARGE + 3,
    TOTAL = DENSE_TOTAL + TABLE
};
static const uint64_t shape_a[] = { 5 }, shape_b[] = { 20 }, shape_c[] = { 7 };
static const uint64_t shape_large[] = { LARGE }, shape_d[] = { 3 };
static const uint64_t shape_table[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[TENSORS] = {
    { .name = "a", .shape = shape_a, .rank = 1, .elements = 5 },
    { .name = "b", .shape = shape_b, .rank = 1, .elements = 20 },
    { .name = "c", .shape = shape_c, .rank = 1, .elements = 7 },
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
    { .name = "d", .shape = shape_d, .rank = 1, .elements = 3 },
    { .name = "table",
      .shape = shape_table,
      .rank = 2,
      .elements = TABLE,
      .sparse = 1 },
};

/* Where a tensor begins in a pull of everything. */
static size_t begin_of(uint32_t tensor)
{
    size_t begin = 0;
    for (uint32_t i = 0; i < tensor; i++) {
        begin += (size_t)tensors[i].elements;
    }
    return begin;
}

struct scene {
    struct harness harness;
    struct caller worker;
    uint32_t model;
    size_t total;
    uint64_t sequence;
    uint64_t seed;
};

static uint64_t roll(struct scene *scene)
{
    scene->seed = scene->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return scene->seed >> 33;
}

static void scene_open(struct scene *scene, const char *spec,
                       struct opt_consistency consistency, size_t count)
{
    *scene = (struct scene){ .seed = 7 };
    harness_open(&scene->harness, harness_settings());
    scene->worker = caller_new(&scene->harness, "w", 1);
    scene->total = count == TENSORS ? TOTAL : DENSE_TOTAL;
    float *weights = malloc(scene->total * sizeof *weights);
    for (size_t i = 0; i < scene->total; i++) {
        weights[i] = (float)(i % 1000) / 100 + 1;
    }
    scene->model =
        model_create(&scene->worker, "m", spec, consistency, tensors, count, weights);
    free(weights);
}

static void scene_close(struct scene *scene)
{
    caller_gone(&scene->worker, false);
    harness_close(&scene->harness);
}

/* A push of some dense tensors by somebody. */
static struct letter *make_push(struct scene *scene, const struct caller *caller,
                                uint64_t sequence, uint32_t named)
{
    struct opt_segment segments[DENSE];
    size_t count = 0, elements = 0;
    float *values = malloc(DENSE_TOTAL * sizeof *values);
    for (uint32_t i = 0; i < DENSE; i++) {
        if ((named >> i & 1) != 0) {
            segments[count++] = (struct opt_segment){ .tensor = i };
            for (size_t k = 0; k < tensors[i].elements; k++) {
                values[elements++] = (float)(roll(scene) % 2048) / 1024 - 1;
            }
        }
    }
    struct letter *letter =
        push_letter(caller, scene->model, sequence, OPT_FP32, segments, count, values,
                    elements * sizeof *values);
    free(values);
    return letter;
}

static void expect_applied(struct letter *letter)
{
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    cr_assert_eq(letter->reply.body.push.fate, OPT_FATE_APPLIED);
    harness_free(letter);
}

/* Push the dense tensors whose bits are set. */
static void push_named(struct scene *scene, uint32_t named)
{
    expect_applied(letter_ask(
        &scene->worker, make_push(scene, &scene->worker, ++scene->sequence, named)));
}

/* What a worker has of a view. */
struct memory {
    enum opt_view view;
    const char *slot;
    float *values;
    uint64_t step; /* that it shows; 0: nothing */
};

static struct memory memory_of(const struct scene *scene, enum opt_view view,
                               const char *slot)
{
    return (struct memory){ .view = view,
                            .slot = slot,
                            .values = calloc(scene->total, sizeof(float)) };
}

static struct letter *pull_since(const struct scene *scene, const struct memory *memory,
                                 uint64_t since)
{
    struct letter *pull =
        pull_letter(&scene->worker, scene->model, memory->view, memory->slot);
    pull->request.body.pull.since = since;
    pull = letter_ask(&scene->worker, pull);
    cr_assert_eq(reply_status(pull), OPT_OK, "%s", reply_text(pull));
    return pull;
}

/* Put what has come into its places. Returns how many elements have not. */
static size_t take(struct memory *memory, const struct letter *pull)
{
    size_t left_out = 0;
    for (size_t i = 0; i < pull->piece_count; i++) {
        const struct piece *piece = &pull->pieces[i];
        size_t n = (size_t)piece->segment.count;
        if (piece->unchanged) {
            left_out += n;
        } else {
            size_t at = begin_of(piece->segment.tensor) + (size_t)piece->segment.offset;
            memcpy(memory->values + at, piece->values, n * sizeof(float));
        }
    }
    memory->step = pull->reply.body.pull.step;
    return left_out;
}

/* Bring the memory up to date, and compare it with all of the view. */
static size_t refresh(const struct scene *scene, struct memory *memory)
{
    struct letter *pull = pull_since(scene, memory, memory->step);
    size_t left_out = take(memory, pull);
    harness_free(pull);
    float *whole = malloc(scene->total * sizeof *whole);
    cr_assert_eq(model_pull(&scene->worker, scene->model, memory->view, memory->slot,
                            whole, scene->total),
                 memory->step);
    cr_assert(same_bits(whole, memory->values, scene->total), "view %d %s, step %zu",
              (int)memory->view, memory->slot, (size_t)memory->step);
    free(whole);
    return left_out;
}

Test(unchanged, tensors_that_no_push_names_are_left_out)
{
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)", (struct opt_consistency){ .mode = OPT_SYNC },
               DENSE);
    struct memory memory = memory_of(&scene, OPT_VIEW_TRAIN, "");
    push_named(&scene, 1);
    cr_expect_eq(refresh(&scene, &memory), 0, "the first pull has everything");
    cr_expect_eq(refresh(&scene, &memory), DENSE_TOTAL, "there was no update");
    push_named(&scene, 2);
    cr_expect_eq(refresh(&scene, &memory), DENSE_TOTAL - 20);
    push_named(&scene, 8);
    push_named(&scene, 1);
    cr_expect_eq(refresh(&scene, &memory), DENSE_TOTAL - LARGE - 5);
    push_named(&scene, 31);
    cr_expect_eq(refresh(&scene, &memory), 0);
    free(memory.values);
    scene_close(&scene);
}

Test(unchanged, counts_from_the_step_that_the_asker_has)
{
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)", (struct opt_consistency){ .mode = OPT_SYNC },
               DENSE);
    struct memory memory = memory_of(&scene, OPT_VIEW_TRAIN, "");
    struct letter *pull = pull_since(&scene, &memory, 1);
    cr_expect_eq(take(&memory, pull), 0, "a step that the model has not had");
    harness_free(pull);
    push_named(&scene, 1);
    push_named(&scene, 2);
    push_named(&scene, 4);
    static const size_t left_out[] = { 0, DENSE_TOTAL - 27, DENSE_TOTAL - 7,
                                       DENSE_TOTAL, 0 };
    for (uint64_t since = 0; since < 5; since++) {
        pull = pull_since(&scene, &memory, since);
        cr_expect_eq(take(&memory, pull), left_out[since], "since %d", (int)since);
        harness_free(pull);
    }
    free(memory.values);
    scene_close(&scene);
}

Test(unchanged, shards_of_a_table_are_those_without_a_pushed_row)
{
    struct scene scene;
    scene_open(&scene, "adagrad(lr=0.5)", (struct opt_consistency){ .mode = OPT_SYNC },
               TENSORS);
    struct memory memory = memory_of(&scene, OPT_VIEW_TRAIN, "");
    struct memory sums = memory_of(&scene, OPT_VIEW_SLOT, "sum");
    push_named(&scene, 1);
    refresh(&scene, &memory);
    refresh(&scene, &sums);
    static float values[WIDTH];
    for (size_t i = 0; i < WIDTH; i++) {
        values[i] = 1;
    }
    static const uint32_t last_row[] = { ROWS - 1 };
    struct opt_segment row = { .tensor = 5, .rows = last_row, .row_count = 1 };
    expect_applied(letter_ask(&scene.worker,
                              push_letter(&scene.worker, scene.model, ++scene.sequence,
                                          OPT_FP32, &row, 1, values, sizeof values)));
    size_t second = TABLE - OPT_SHARD;
    cr_expect_eq(refresh(&scene, &memory), TOTAL - second);
    cr_expect_eq(refresh(&scene, &sums), TOTAL - second);
    /* Rows that are named always come. */
    struct letter *pull = pull_letter(&scene.worker, scene.model, OPT_VIEW_TRAIN, "");
    pull->request.body.pull.segments = &row;
    pull->request.body.pull.segment_count = 1;
    pull->request.body.pull.since = memory.step;
    pull = letter_ask(&scene.worker, pull);
    cr_assert_eq(pull->piece_count, 1);
    cr_assert_not(pull->pieces[0].unchanged);
    cr_assert(same_bits(pull->pieces[0].values, memory.values + TOTAL - WIDTH, WIDTH));
    harness_free(pull);
    free(memory.values);
    free(sums.values);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- every view */

static void change(const struct scene *scene, const char *text)
{
    struct letter *set = letter_start(&scene->worker, OPT_MESSAGE_SET);
    set->request.body.set = (struct opt_set){ .model = "m", .change = text };
    set = letter_ask(&scene->worker, set);
    cr_assert_eq(reply_status(set), OPT_OK, "%s", reply_text(set));
    harness_free(set);
}

/* Pushes of any tensors, with a look now and then, and a change of options. Returns how
 * many elements of the training view did not come. */
static size_t train(const char *spec, struct opt_consistency consistency,
                    const char *slot, const char *changed)
{
    struct scene scene;
    scene_open(&scene, spec, consistency, DENSE);
    struct memory memories[] = { memory_of(&scene, OPT_VIEW_TRAIN, ""),
                                 memory_of(&scene, OPT_VIEW_EVAL, ""),
                                 memory_of(&scene, OPT_VIEW_SLOT, slot) };
    size_t left_out = 0;
    for (int i = 0; i < 16; i++) {
        push_named(&scene, (uint32_t)(roll(&scene) % 31) + 1);
        if (i == 8) {
            change(&scene, changed);
            cr_expect_eq(refresh(&scene, &memories[0]), 0, "%s: what it shows", spec);
        }
        for (size_t k = 0; k < 3; k++) {
            if (roll(&scene) % 3 != 0) {
                size_t now = refresh(&scene, &memories[k]);
                left_out += k == 0 ? now : 0;
            }
        }
    }
    for (size_t k = 0; k < 3; k++) {
        refresh(&scene, &memories[k]);
        free(memories[k].values);
    }
    scene_close(&scene);
    return left_out;
}

Test(unchanged, is_never_what_has_changed_whatever_the_rule)
{
    const struct opt_consistency sync = { .mode = OPT_SYNC };
    const struct opt_consistency async = { .mode = OPT_ASYNC, .damping = true };
    const struct opt_consistency bounded = { .mode = OPT_BOUNDED, .staleness = 2 };
    cr_expect_gt(train("adam(lr=0.1)", sync, "exp_avg", "lr=0.2"), DENSE_TOTAL);
    cr_expect_gt(train("adam(lr=0.1)", async, "exp_avg_sq", "beta1=0.5"), DENSE_TOTAL);
    cr_expect_gt(train("momentum(lr=0.1)", bounded, "momentum_buffer", "lr=0.2"),
                 DENSE_TOTAL);
    cr_expect_gt(train("nag(lr=0.1)", sync, "momentum_buffer", "momentum=0.3"),
                 DENSE_TOTAL);
    cr_expect_gt(
        train("lamb(lr=0.1) + clip(global_norm, 1)", sync, "exp_avg", "lr=0.2"),
        DENSE_TOTAL);
    cr_expect_gt(
        train("adam(lr=0.1) + lookahead(k=5)", sync, "slow_param", "lookahead(4)"),
        DENSE_TOTAL);
    cr_expect_gt(train("momentum(lr=0.1) + lookahead(k=3, momentum=pullback)", sync,
                       "momentum_buffer",
                       "lookahead(3, alpha=0.25, momentum=pullback)"),
                 DENSE_TOTAL);
    cr_expect_gt(train("nag(lr=0.1) + lookahead(k=6, momentum=reset)", sync,
                       "slow_param", "momentum=0.3"),
                 DENSE_TOTAL);
}

Test(unchanged, slow_weights_of_all_tensors_move_together)
{
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5) + lookahead(k=2)",
               (struct opt_consistency){ .mode = OPT_SYNC }, DENSE);
    struct memory fast = memory_of(&scene, OPT_VIEW_TRAIN, "");
    push_named(&scene, 2);
    refresh(&scene, &fast);
    push_named(&scene, 1);
    cr_expect_eq(refresh(&scene, &fast), 0, "tensor b went back to its slow weights");
    push_named(&scene, 1);
    cr_expect_eq(refresh(&scene, &fast), DENSE_TOTAL - 5);
    free(fast.values);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- several workers */

Test(unchanged, holds_what_any_worker_of_the_round_has_named)
{
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)", (struct opt_consistency){ .mode = OPT_SYNC },
               DENSE);
    struct caller other = caller_new(&scene.harness, "x", 2);
    model_join(&other, "m");
    struct memory memory = memory_of(&scene, OPT_VIEW_TRAIN, "");
    for (uint64_t i = 1; i <= 2; i++) {
        struct letter *mine = make_push(&scene, &scene.worker, i, 1);
        struct letter *theirs = make_push(&scene, &other, i, 4);
        letter_send(&scene.worker, mine);
        letter_send(&other, theirs);
        expect_applied(letter_await(&scene.harness, mine));
        expect_applied(letter_await(&scene.harness, theirs));
        cr_expect_eq(refresh(&scene, &memory), i == 1 ? 0 : DENSE_TOTAL - 12);
    }
    free(memory.values);
    caller_gone(&other, false);
    scene_close(&scene);
}

/* Train with delay compensation, pulling all weights or what has changed. */
static void compensate(bool since, float weights[DENSE_TOTAL])
{
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)",
               (struct opt_consistency){ .mode = OPT_ASYNC, .delay_compensation = 0.5 },
               DENSE);
    struct caller other = caller_new(&scene.harness, "x", 2);
    model_join(&other, "m");
    struct memory memory = memory_of(&scene, OPT_VIEW_TRAIN, "");
    for (uint64_t i = 1; i <= 6; i++) {
        struct letter *pull = pull_since(&scene, &memory, since ? memory.step : 0);
        size_t left_out = take(&memory, pull);
        cr_expect_eq(left_out > 0, since && i > 2);
        harness_free(pull);
        expect_applied(letter_ask(&other, make_push(&scene, &other, i, 1u << i % 2)));
        struct letter *push = make_push(&scene, &scene.worker, i, i % 3 == 0 ? 9 : 3);
        push->request.body.push.basis = memory.step;
        expect_applied(letter_ask(&scene.worker, push));
    }
    model_pull(&scene.worker, scene.model, OPT_VIEW_TRAIN, "", weights, DENSE_TOTAL);
    free(memory.values);
    caller_gone(&other, false);
    scene_close(&scene);
}

Test(unchanged, weights_are_remembered_for_delay_compensation)
{
    static float whole[DENSE_TOTAL], parts[DENSE_TOTAL];
    compensate(false, whole);
    compensate(true, parts);
    cr_assert(same_bits(whole, parts, DENSE_TOTAL));
}
