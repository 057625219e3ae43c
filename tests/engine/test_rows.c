/* rows — sparse tensors in the engine: what moves, in which order it is summed, and
 * what is refused.
 *
 * The reference is the plain one: an aggregate in double per row, in the order of
 * workers and positions, and then the dense mathematics on that row alone.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/rows.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/workers/membership.h"
#include "tests/support/engine_harness.h"
#include "tests/support/reference_rules.h"

enum {
    ROWS = 5000,
    WIDTH = 9,
    ELEMENTS = ROWS * WIDTH,
    SMALL_ROWS = 6,
    SMALL_WIDTH = 2
};

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const uint64_t table_shape[] = { ROWS, 3, 3 };
static const struct opt_tensor_entry table = {
    .name = "emb", .shape = table_shape, .rank = 3, .elements = ELEMENTS, .sparse = true
};
static const uint64_t small_shape[] = { SMALL_ROWS, SMALL_WIDTH };
static const struct opt_tensor_entry small = { .name = "small",
                                               .shape = small_shape,
                                               .rank = 2,
                                               .elements = SMALL_ROWS * SMALL_WIDTH,
                                               .sparse = true };
static const uint64_t dense_shape[] = { 4 };
static const struct opt_tensor_entry dense = {
    .name = "bias", .shape = dense_shape, .rank = 1, .elements = 4
};

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static float random_float(uint64_t *state)
{
    return (float)(int32_t)(next_random(state) >> 32) * 0x1p-31f;
}

/* Rows of tensor 0, with their values. */
static struct letter *push_rows(const struct caller *caller, uint32_t model,
                                uint64_t sequence, const uint32_t *rows, size_t count,
                                size_t width, const float *values)
{
    struct opt_segment segment = { .rows = rows, .row_count = count };
    return push_letter(caller, model, sequence, OPT_FP32, &segment, 1, values,
                       count * width * sizeof(float));
}

static void must_apply(struct letter *letter)
{
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    cr_assert(letter->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(letter);
}

static struct letter *pull_rows(const struct caller *caller, uint32_t model,
                                enum opt_view view, const char *slot,
                                struct opt_segment *segment)
{
    struct letter *letter = pull_letter(caller, model, view, slot);
    letter->request.body.pull.segments = segment;
    letter->request.body.pull.segment_count = 1;
    return letter_ask(caller, letter);
}

static uint64_t step_of_tensor(const struct caller *caller, const char *model)
{
    struct opt_arena arena;
    struct opt_description description;
    struct opt_error error;
    struct letter *letter = letter_start(caller, OPT_MESSAGE_DESCRIBE);
    letter->request.body.describe = model;
    letter = letter_ask(caller, letter);
    opt_arena_init(&arena, 1 << 20);
    cr_assert(opt_description_read(letter->table, letter->table_size, &arena,
                                   &description, &error) == OPT_OK);
    cr_assert(description.tensors[0].sparse);
    uint64_t step = description.tensors[0].step;
    opt_arena_fini(&arena);
    harness_free(letter);
    return step;
}

Test(rows, sort_is_stable_and_by_tensor_then_row)
{
    enum { N = 3000 };
    static struct opt_row rows[N], spare[N];
    uint64_t seed = 7;
    for (uint32_t i = 0; i < N; i++) {
        uint64_t r = next_random(&seed);
        rows[i].key = opt_row_key((uint32_t)(r % 3), (uint32_t)(r >> 40) % 700 * 70001);
        rows[i].index = i;
    }
    const struct opt_row *sorted = opt_rows_sort(rows, spare, N);
    for (size_t i = 1; i < N; i++) {
        cr_assert(sorted[i - 1].key < sorted[i].key ||
                  (sorted[i - 1].key == sorted[i].key &&
                   sorted[i - 1].index < sorted[i].index));
    }
    cr_assert(opt_rows_sort(rows, spare, 0) == rows);
}

Test(rows, only_those_that_are_pushed_move)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float start[SMALL_ROWS * SMALL_WIDTH], weights[SMALL_ROWS * SMALL_WIDTH];
    for (size_t i = 0; i < SMALL_ROWS * SMALL_WIDTH; i++) {
        start[i] = (float)i;
    }
    uint32_t model = model_create(&a, "m", "momentum(lr=0.5, momentum=0.5)",
                                  sync_shrink, &small, 1, start);
    const uint32_t rows[] = { 4, 1, 4 };
    const float values[] = { 1, 2, 3, 4, 10, 20 };
    must_apply(letter_ask(&a, push_rows(&a, model, 1, rows, 3, 2, values)));
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 12) == 1);
    const float after[] = {
        0, 1, 2 - 1.5f, 3 - 2, 4, 5, 6, 7, 8 - 5.5f, 9 - 11, 10, 11
    };
    cr_assert_arr_eq(weights, after, sizeof after, "row 4 is named twice and summed");

    /* Row 1 keeps its weights and its momentum while it is not pushed. */
    must_apply(letter_ask(&a, push_rows(&a, model, 2, rows, 1, 2, values)));
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 12) == 2);
    cr_assert(weights[2] == after[2] && weights[3] == after[3]);
    float slot[12];
    cr_assert(model_pull(&a, model, OPT_VIEW_SLOT, "momentum_buffer", slot, 12) == 2);
    cr_assert(slot[2] == 1.5f && slot[3] == 2.0f && slot[0] == 0);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, an_update_without_any_counts)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float weights[12];
    uint32_t model = model_create(&a, "m", "adam(lr=1)", sync_shrink, &small, 1, NULL);
    must_apply(letter_ask(&a, push_rows(&a, model, 1, NULL, 0, 2, NULL)));
    cr_assert(step_of_tensor(&a, "m") == 1);
    const uint32_t row = 5;
    const float ones[] = { 1, 1 };
    must_apply(letter_ask(&a, push_rows(&a, model, 2, &row, 1, 2, ones)));
    cr_assert(step_of_tensor(&a, "m") == 2);
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 12) == 2);
    cr_assert(weights[9] == 0);
    /* The bias correction is that of the table's second update. */
    double m = 0.1 / (1 - 0.9 * 0.9), v = 0.001 / (1 - 0.999 * 0.999);
    cr_assert_float_eq(weights[10], -m / (sqrt(v) + 1e-8), 1e-5);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, are_pulled_in_the_order_in_which_they_are_named)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    const struct opt_tensor_entry tensors[] = { table, dense };
    float *start = malloc((ELEMENTS + 4) * sizeof *start), got[5 * WIDTH];
    for (size_t i = 0; i < ELEMENTS + 4; i++) {
        start[i] = (float)i;
    }
    uint32_t model = model_create(&a, "m", "adagrad(initial_accumulator=0.25)",
                                  sync_shrink, tensors, 2, start);
    const uint32_t rows[] = { 4999, 0, 17, 0, 1860 }; /* 1860: across two blocks */
    struct opt_segment segment = { .rows = rows, .row_count = 5 };
    for (int view = OPT_VIEW_TRAIN; view <= OPT_VIEW_SLOT; view++) {
        struct letter *pull = pull_rows(&a, model, (enum opt_view)view,
                                        view == OPT_VIEW_SLOT ? "sum" : "", &segment);
        cr_assert(pull->reply.message == OPT_MESSAGE_PULL, "%s", reply_text(pull));
        cr_assert(pull->piece_count == 1 && pull->pieces[0].segment.row_count == 5);
        cr_assert(pieces_copy(pull, got, 5 * WIDTH) == 5 * WIDTH);
        for (size_t i = 0; i < 5 * WIDTH; i++) {
            float expected = start[rows[i / WIDTH] * WIDTH + i % WIDTH];
            cr_assert(got[i] == (view == OPT_VIEW_SLOT ? 0.25f : expected));
        }
        harness_free(pull);
    }
    /* Readers of rows do not hold the table: the next update is in place. */
    struct letter *held = pull_rows(&a, model, OPT_VIEW_TRAIN, "", &segment);
    float *values = calloc(WIDTH, sizeof *values);
    must_apply(letter_ask(&a, push_rows(&a, model, 1, rows, 1, WIDTH, values)));
    cr_assert(statistic(&a, "versions_fresh") == 0);
    harness_free(held);
    free(values);
    free(start);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, that_a_reader_of_the_whole_table_holds_stay_as_they_were)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float *start = malloc(ELEMENTS * sizeof *start),
          *got = malloc(ELEMENTS * sizeof *got);
    for (size_t i = 0; i < ELEMENTS; i++) {
        start[i] = (float)i;
    }
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &table, 1, start);
    struct letter *held = letter_ask(&a, pull_letter(&a, model, OPT_VIEW_TRAIN, ""));
    const uint32_t row = 2500;
    float ones[WIDTH];
    for (size_t i = 0; i < WIDTH; i++) {
        ones[i] = 1;
    }
    must_apply(letter_ask(&a, push_rows(&a, model, 1, &row, 1, WIDTH, ones)));
    cr_assert(pieces_copy(held, got, ELEMENTS) == ELEMENTS);
    cr_assert_arr_eq(got, start, ELEMENTS * sizeof *got);
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", got, ELEMENTS) == 1);
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert(got[i] == start[i] - (i / WIDTH == row ? 1.0f : 0.0f));
    }
    harness_free(held);
    free(start);
    free(got);
    caller_gone(&a, false);
    harness_close(&harness);
}

static void must_refuse(struct letter *letter, const char *part)
{
    cr_assert(reply_status(letter) == OPT_INVALID_ARGUMENT, "not refused: %s", part);
    cr_assert(strstr(reply_text(letter), part) != NULL, "\"%s\" lacks \"%s\"",
              reply_text(letter), part);
    harness_free(letter);
}

Test(rows, that_cannot_be_are_refused_by_name)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    const struct opt_tensor_entry tensors[] = { small, dense };
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, 2, NULL);
    const uint32_t rows[] = { 5, 6 };
    const float values[] = { 1, 2, NAN, 4 };
    const float ones[12] = { 1 };
    struct opt_segment segment = { .rows = rows, .row_count = 2 };
    must_refuse(letter_ask(&a, push_rows(&a, model, 1, rows, 2, 2, ones)),
                "row 6 of tensor \"small\", which has the rows 0 to 5");
    must_refuse(pull_rows(&a, model, OPT_VIEW_TRAIN, "", &segment),
                "row 6 of tensor \"small\", which has the rows 0 to 5");
    const uint32_t twice[] = { 5, 3 };
    must_refuse(letter_ask(&a, push_rows(&a, model, 2, twice, 2, 2, values)),
                "\"small\" is not finite at element 6");
    segment = (struct opt_segment){ .tensor = 1, .rows = rows, .row_count = 1 };
    must_refuse(pull_rows(&a, model, OPT_VIEW_TRAIN, "", &segment),
                "rows of tensor \"bias\", which is not sparse");
    must_refuse(letter_ask(&a, push_letter(&a, model, 3, OPT_FP32, &segment, 1, ones,
                                           4 * sizeof(float))),
                "rows of tensor \"bias\", which is not sparse");
    segment = (struct opt_segment){ .count = 12 };
    must_refuse(letter_ask(&a, push_letter(&a, model, 4, OPT_FP32, &segment, 1, ones,
                                           12 * sizeof(float))),
                "names elements; a push names rows");
    must_refuse(letter_ask(&a, push_rows(&a, model, 5, rows, 1, 3, ones)),
                "2 fp32 elements, which are 8 bytes, but data has 12");
    cr_assert(statistic(&a, "pushes_applied") == 0);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, need_a_rule_that_can_leave_some_alone)
{
    static const struct {
        const char *spec, *part;
    } cases[] = {
        { "nag", "rule nag must move all rows" },
        { "adamax", "rule adamax must move all rows" },
        { "amsgrad", "rule amsgrad must move all rows" },
        { "adam + lookahead(6)", "lookahead_k=6 moves all rows" },
        { "lamb", "layerwise needs the norm" },
    };
    static const char *const good[] = {
        "sgd",     "momentum",
        "adagrad", "rmsprop(centered=true)",
        "adamw",   "lamb + tensors(\"small\", layerwise=none)"
    };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        must_refuse(letter_ask(&a, create_letter(&a, "m", cases[i].spec, sync_shrink,
                                                 &small, 1, false, true)),
                    cases[i].part);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char name[16];
        snprintf(name, sizeof name, "good-%zu", i);
        model_create(&a, name, good[i], sync_shrink, &small, 1, NULL);
    }
    struct opt_tensor_entry other = small;
    other.sparse = false;
    struct letter *again = letter_ask(
        &a, create_letter(&a, "good-0", "sgd", sync_shrink, &other, 1, false, true));
    cr_assert(reply_status(again) == OPT_ALREADY_EXISTS);
    cr_assert(
        strstr(reply_text(again), "\"small\" sparse [6, 2], not \"small\" [6, 2]"),
        "%s", reply_text(again));
    harness_free(again);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, whose_sum_overflows_are_named)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float weights[12];
    uint32_t model =
        model_create(&a, "m", "sgd(lr=1, aggregate=sum)", sync_shrink, &small, 1, NULL);
    const uint32_t rows[] = { 2, 3, 3 };
    const float values[] = { 1, 1, 1, 3e38f, 1, 3e38f };
    must_refuse(letter_ask(&a, push_rows(&a, model, 1, rows, 3, 2, values)),
                "not finite at element 7 of tensor \"small\"");
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 12) == 0);
    cr_assert(weights[4] == 0);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* ---------------------------------------------------------------- equal bits */

enum { WORKERS = 3, NAMED = 4000, ROUNDS = 3, FRAMES = 3 };

static const char *const workers[WORKERS] = { "alpha", "beta", "gamma" };

/* What a worker names in a round: many rows, some of them often. */
static void make_rows(size_t worker, size_t round, uint32_t *rows, float *values)
{
    uint64_t seed = 100 * round + worker + 1;
    for (size_t i = 0; i < NAMED; i++) {
        uint64_t r = next_random(&seed);
        rows[i] = (uint32_t)(r % (r & 1 << 20 ? 37 : ROWS));
    }
    for (size_t i = 0; i < NAMED * WIDTH; i++) {
        values[i] = random_float(&seed);
    }
}

static struct letter *frame_of(const struct caller *caller, uint32_t model,
                               size_t worker, size_t round, uint32_t frame,
                               const uint32_t *rows, const float *values)
{
    size_t begin = NAMED * frame / FRAMES, end = NAMED * (frame + 1) / FRAMES;
    struct letter *letter = push_rows(caller, model, round + 1, rows + begin,
                                      end - begin, WIDTH, values + begin * WIDTH);
    letter->request.body.push.samples = 1 + 2 * worker;
    letter->request.body.push.frame = frame;
    letter->request.body.push.last = frame + 1 == FRAMES;
    return letter;
}

/* Weights and slots after some rounds, with so many threads; workers push in ascending
 * or descending order. */
static void train(const char *spec, int threads, bool descending, float *weights,
                  float *slot, const char *slot_name)
{
    static uint32_t rows[WORKERS][NAMED];
    static float values[WORKERS][NAMED * WIDTH];
    struct harness harness;
    struct engine_settings settings = harness_settings();
    struct caller callers[WORKERS];
    uint32_t model = 0;
    float *start = malloc(ELEMENTS * sizeof *start);
    uint64_t seed = 3;
    for (size_t i = 0; i < ELEMENTS; i++) {
        start[i] = random_float(&seed);
    }
    settings.threads = threads;
    harness_open(&harness, settings);
    for (size_t w = 0; w < WORKERS; w++) {
        callers[w] = caller_new(&harness, workers[w], w + 1);
        model =
            w == 0 ? model_create(&callers[0], "m", spec, sync_shrink, &table, 1, start)
                   : model_join(&callers[w], "m");
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        struct letter *frames[WORKERS][FRAMES];
        for (size_t i = 0; i < WORKERS; i++) {
            size_t w = descending ? WORKERS - 1 - i : i;
            make_rows(w, round, rows[w], values[w]);
            for (uint32_t f = 0; f < FRAMES; f++) {
                frames[w][f] =
                    frame_of(&callers[w], model, w, round, f, rows[w], values[w]);
                frames[w][f]->request.id = frames[w][0]->request.id;
                letter_send(&callers[w], frames[w][f]);
            }
        }
        for (size_t w = 0; w < WORKERS; w++) {
            for (size_t f = 0; f < FRAMES; f++) {
                struct letter *back = letter_await(&harness, frames[w][f]);
                cr_assert(reply_status(back) == OPT_OK, "%s", reply_text(back));
                harness_free(back);
            }
        }
    }
    cr_assert(model_pull(&callers[0], model, OPT_VIEW_TRAIN, "", weights, ELEMENTS) ==
              ROUNDS);
    model_pull(&callers[0], model, OPT_VIEW_SLOT, slot_name, slot, ELEMENTS);
    for (size_t w = 0; w < WORKERS; w++) {
        caller_gone(&callers[w], false);
    }
    harness_close(&harness);
    free(start);
}

/* The same with plain arithmetic in double. */
static void reference(const char *text, double *w, double *m, double *v)
{
    static uint32_t rows[NAMED];
    static float values[NAMED * WIDTH];
    struct opt_spec spec;
    struct opt_error error;
    struct opt_tensor_options options;
    double *sums = malloc(ELEMENTS * sizeof *sums);
    bool *named = malloc(ROWS * sizeof *named);
    uint64_t seed = 3;
    double clipped = 1.0;
    cr_assert(opt_spec_parse(text, &spec, &error) == OPT_OK, "%s", error.text);
    opt_tensor_options_resolve(&spec, "emb", 3, &options);
    for (size_t i = 0; i < ELEMENTS; i++) {
        w[i] = (double)random_float(&seed);
        m[i] = v[i] = 0;
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        double norm = 0;
        memset(named, 0, ROWS * sizeof *named);
        memset(sums, 0, ELEMENTS * sizeof *sums);
        for (size_t worker = 0; worker < WORKERS; worker++) {
            make_rows(worker, round, rows, values);
            for (size_t i = 0; i < NAMED; i++) {
                named[rows[i]] = true;
                for (size_t k = 0; k < WIDTH; k++) {
                    sums[rows[i] * WIDTH + k] +=
                        (double)(1 + 2 * worker) / 9 * (double)values[i * WIDTH + k];
                }
            }
        }
        for (size_t i = 0; i < ELEMENTS; i++) {
            norm += sums[i] * sums[i];
        }
        norm = sqrt(norm);
        clipped = norm > spec.options.clip_max ? spec.options.clip_max / norm : 1.0;
        for (size_t r = 0; r < ROWS; r++) {
            double mu = 1, *slots[OPT_SLOTS_MAX] = { m + r * WIDTH, v + r * WIDTH };
            for (size_t k = 0; k < WIDTH; k++) {
                sums[r * WIDTH + k] *= clipped;
            }
            struct opt_spec plain = spec;
            plain.options.clip = OPT_CLIP_NONE;
            if (named[r]) {
                twin_update(&plain, &options, round + 1, round + 1, &mu,
                            sums + r * WIDTH, WIDTH, w + r * WIDTH, slots);
            }
        }
    }
    cr_assert(clipped < 1.0, "the bound is one that clips");
    free(sums);
    free(named);
}

Test(rows, have_the_same_bits_for_any_team_and_arrival_and_those_of_the_formula)
{
    static const struct {
        const char *spec, *slot;
        bool second;
    } cases[] = {
        { "adam(lr=0.01) + decay(0.1, decoupled) + clip(global_norm, 5)", "exp_avg_sq",
          true },
        { "momentum(lr=0.1) + decay(0.1, coupled) + clip(tensor_norm, 5)",
          "momentum_buffer", false },
    };
    static const int teams[] = { 1, 2, 3, 8 };
    size_t size = ELEMENTS * sizeof(float);
    float *first = malloc(size), *first_slot = malloc(size);
    float *other = malloc(size), *other_slot = malloc(size);
    double *w = malloc(2 * size), *m = malloc(2 * size), *v = malloc(2 * size);
    for (size_t s = 0; s < 2; s++) {
        train(cases[s].spec, teams[0], false, first, first_slot, cases[s].slot);
        for (size_t i = 1; i < sizeof teams / sizeof *teams; i++) {
            train(cases[s].spec, teams[i], i % 2 == 1, other, other_slot,
                  cases[s].slot);
            cr_assert_arr_eq(first, other, size, "%d threads", teams[i]);
            cr_assert_arr_eq(first_slot, other_slot, size, "%d threads", teams[i]);
        }
        reference(cases[s].spec, w, m, v);
        for (size_t i = 0; i < ELEMENTS; i++) {
            cr_assert(fabs((double)first[i] - w[i]) <= 1e-5, "element %zu: %g, not %g",
                      i, (double)first[i], w[i]);
            double slot = cases[s].second ? v[i] : m[i];
            cr_assert(fabs((double)first_slot[i] - slot) <= 1e-8 + 1e-5 * fabs(slot));
        }
    }
    free(first);
    free(first_slot);
    free(other);
    free(other_slot);
    free(w);
    free(m);
    free(v);
}

/* A table whose rows are longer than a block and lie across shards. */
enum { TALL = 3, WIDE = 700001 };

static uint32_t create_wide(struct caller *caller, const char *spec)
{
    const uint64_t shape[] = { TALL, WIDE };
    const struct opt_tensor_entry wide = { .name = "wide",
                                           .shape = shape,
                                           .rank = 2,
                                           .elements = TALL * WIDE,
                                           .sparse = true };
    return model_create(caller, "m", spec, sync_shrink, &wide, 1, NULL);
}

Test(rows, lie_across_shards_and_are_longer_than_a_block)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = create_wide(&a, "sgd(lr=1) + clip(tensor_norm, 1e9)");
    float *values = malloc(2 * WIDE * sizeof *values);
    for (size_t i = 0; i < 2 * WIDE; i++) {
        values[i] = (float)(i % WIDE);
    }
    const uint32_t rows[] = { 1, 1 };
    must_apply(letter_ask(&a, push_rows(&a, model, 1, rows, 2, WIDE, values)));
    struct opt_segment segment = { .rows = rows, .row_count = 2 };
    struct letter *pull = pull_rows(&a, model, OPT_VIEW_TRAIN, "", &segment);
    cr_assert(pull->reply.message == OPT_MESSAGE_PULL, "%s", reply_text(pull));
    cr_assert(pull->piece_count == 2, "one row fits a frame, two do not");
    cr_assert(pieces_copy(pull, values, 2 * WIDE) == 2 * WIDE);
    for (size_t i = 0; i < 2 * WIDE; i++) {
        cr_assert(values[i] == -2 * (float)(i % WIDE));
    }
    harness_free(pull);
    free(values);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(rows, are_clipped_by_the_norm_of_their_whole_length)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = create_wide(&a, "sgd(lr=1) + clip(tensor_norm, 1)");
    float *values = malloc(WIDE * sizeof *values);
    for (size_t i = 0; i < WIDE; i++) {
        values[i] = 1;
    }
    const uint32_t rows[] = { 1 };
    must_apply(letter_ask(&a, push_rows(&a, model, 1, rows, 1, WIDE, values)));
    struct opt_segment segment = { .rows = rows, .row_count = 1 };
    struct letter *pull = pull_rows(&a, model, OPT_VIEW_TRAIN, "", &segment);
    cr_assert(pieces_copy(pull, values, WIDE) == WIDE);
    for (size_t i = 0; i < WIDE; i++) {
        cr_assert_float_eq(values[i], -1 / sqrt(WIDE), 1e-9);
    }
    harness_free(pull);
    free(values);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* A worker that can still write its rows makes one of their values infinite after they
 * have been looked at. */
Test(rows, shared_ones_count_as_0_where_they_are_not_finite)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    float weights[SMALL_ROWS * SMALL_WIDTH];
    uint32_t model = model_create(&a, "m", "sgd(lr=1) + aggregate(sum)", sync_shrink,
                                  &small, 1, NULL);
    cr_assert(model_join(&b, "m") == model);
    const uint32_t rows[] = { 4, 1 };
    const float values[] = { 1, 2, 3, 4 };
    struct letter *waits = push_rows(&a, model, 1, rows, 2, 2, values);
    letter_send(&a, waits);
    cr_assert_not(letter_is_back(&harness, waits));
    harness.engine->numbered[0]->members[0]->first->gradient.memory = GRADIENT_SHARED;
    ((float *)(void *)waits->data)[1] = INFINITY;
    must_apply(letter_ask(&b, push_rows(&b, model, 1, rows, 1, 2, values)));
    must_apply(letter_await(&harness, waits));
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 12) == 1);
    const float after[] = { 0, 0, -3, -4, 0, 0, 0, 0, -2, -2, 0, 0 };
    cr_assert_arr_eq(weights, after, sizeof after);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}
