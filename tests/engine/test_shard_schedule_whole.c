/* shard_schedule_whole — what a round gives away before its update is over
 * (shard_schedule): every shard once, as it will be, and frames when they have served.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/optim/update.h"
#include "tests/support/engine_harness.h"

/* A tensor of several shards, and a short one in a shard of its own. */
enum { SHARDS = 6, LARGE = SHARDS * OPT_SHARD, SMALL = 5, ELEMENTS = LARGE + SMALL };
static const uint64_t shape_large[] = { LARGE }, shape_small[] = { SMALL };
static const struct opt_tensor_entry tensors[] = {
    { .name = "large", .shape = shape_large, .rank = 1, .elements = LARGE },
    { .name = "small", .shape = shape_small, .rank = 1, .elements = SMALL },
};
static const struct opt_segment all[] = { { .tensor = 0, .count = LARGE },
                                          { .tensor = 1, .count = SMALL } };
static const struct opt_consistency policy = { .mode = OPT_SYNC };

static float gradient_at(size_t i, float scale)
{
    return scale * ((float)(i % 97) - 40.0f);
}

static struct letter *push_pull(const struct caller *caller, uint32_t model,
                                uint64_t sequence, float scale)
{
    float *values = malloc(ELEMENTS * sizeof *values);
    for (size_t i = 0; i < ELEMENTS; i++) {
        values[i] = gradient_at(i, scale);
    }
    struct letter *letter = push_letter(caller, model, sequence, OPT_FP32, all, 2,
                                        values, ELEMENTS * sizeof *values);
    free(values);
    struct opt_push push = letter->request.body.push;
    letter->request.message = OPT_MESSAGE_PUSH_PULL;
    letter->request.body.push_pull = (struct opt_push_pull){
        .push = push,
        .pull = { .model = model, .slot = "", .view = OPT_VIEW_TRAIN },
        .has_pull = true,
    };
    return letter;
}

/* Put the pieces of a letter where they belong; nothing may come twice. */
static void place(const struct letter *letter, float *weights, bool *here)
{
    for (size_t i = 0; i < letter->piece_count; i++) {
        const struct piece *piece = &letter->pieces[i];
        if (piece->gone) {
            continue; /* a part has had it */
        }
        size_t at = (piece->segment.tensor == 0 ? 0 : LARGE) + piece->segment.offset;
        for (size_t k = 0; k < piece->segment.count; k++) {
            cr_assert(!here[at + k], "element %zu came twice", at + k);
            here[at + k] = true;
            weights[at + k] = piece->values[k];
        }
    }
}

/* Wait for the answer; gather it and the parts that came before it, which are freed.
 * Returns how many parts there were. */
static size_t gather(struct harness *harness, struct letter *answer, uint64_t step,
                     float *weights)
{
    bool *here = calloc(ELEMENTS, sizeof *here);
    uint64_t id = answer->request.id;
    size_t parts = 0;
    answer = letter_await(harness, answer);
    cr_assert(answer->reply.message == OPT_MESSAGE_PUSH_PULL, "%s", reply_text(answer));
    cr_assert_eq(answer->reply.body.push_pull.push.fate, OPT_FATE_APPLIED);
    cr_assert_eq(answer->reply.body.push_pull.pull.step, step);
    for (struct letter **link = &harness->back; *link != NULL;) {
        struct letter *part = *link;
        if (part->kind != LETTER_PART || part->reply.id != id) {
            link = &part->next;
            continue;
        }
        *link = part->next;
        cr_assert_lt(part->arrived_ns, answer->arrived_ns);
        cr_assert_eq(part->reply.body.push_pull.pull.step, step);
        place(part, weights, here);
        harness_free(part);
        parts++;
    }
    place(answer, weights, here);
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert(here[i], "element %zu did not come", i);
    }
    harness_free(answer);
    free(here);
    return parts;
}

/* Steps of two workers who push and pull; what came must be what a pull then shows.
 * Parts of each step are put into parts. */
static void expect_the_same(const char *spec, size_t steps, size_t parts[])
{
    struct harness harness;
    float *came = malloc(ELEMENTS * sizeof *came);
    float *shown = malloc(ELEMENTS * sizeof *shown);
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", spec, policy, tensors, 2, NULL);
    model_join(&b, "m");
    for (size_t i = 1; i <= steps; i++) {
        struct letter *of_a = push_pull(&a, model, i, 0.5f);
        struct letter *of_b = push_pull(&b, model, i, 0.25f * (float)i);
        letter_send(&a, of_a);
        letter_send(&b, of_b);
        parts[i - 1] = gather(&harness, of_b, i, came);
        cr_assert_eq(model_pull(&b, model, OPT_VIEW_TRAIN, "", shown, ELEMENTS), i);
        cr_assert(same_bits(came, shown, ELEMENTS), "%s, step %zu", spec, i);
        cr_assert_eq(gather(&harness, of_a, i, came), parts[i - 1]);
        cr_assert(same_bits(came, shown, ELEMENTS), "%s, step %zu", spec, i);
    }
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
    free(came);
    free(shown);
}

Test(ahead, gives_every_shard_once_and_as_it_stays, .timeout = 120)
{
    static const char *const specs[] = {
        "sgd(lr=0.1)",
        "adam(lr=0.01) + clip(global_norm, 1)",
        "lamb(lr=0.01)",
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        size_t parts[2];
        expect_the_same(specs[i], 2, parts);
        cr_expect_geq(parts[0], 1, "%s", specs[i]);
        cr_expect_geq(parts[1], 1, "%s", specs[i]);
    }
}

Test(ahead, gives_nothing_that_a_synchronisation_will_change, .timeout = 120)
{
    size_t parts[2];
    expect_the_same("sgd(lr=0.1) + lookahead(2)", 2, parts);
    cr_expect_geq(parts[0], 1);
    cr_expect_eq(parts[1], 0);
}

/* What counts is in the last frame, whatever the first has said. */
Test(ahead, gives_what_the_last_frame_asks_for, .timeout = 60)
{
    struct harness harness;
    float *values = calloc(ELEMENTS, sizeof *values);
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "adam(lr=1)", policy, tensors, 2, NULL);
    const struct opt_pull weights = { .model = model, .slot = "" };
    const struct opt_pull slot = { .model = model,
                                   .view = OPT_VIEW_SLOT,
                                   .slot = "exp_avg" };
    for (uint64_t step = 1; step <= 2; step++) {
        struct letter *frames[2];
        for (uint32_t i = 0; i < 2; i++) {
            frames[i] = push_letter(&a, model, step, OPT_FP32, &all[i], 1, values,
                                    (size_t)all[i].count * sizeof *values);
            struct opt_push push = frames[i]->request.body.push;
            push.frame = i;
            push.last = i == 1;
            frames[i]->request.id = frames[0]->request.id;
            frames[i]->request.message = OPT_MESSAGE_PUSH_PULL;
            frames[i]->request.body.push_pull = (struct opt_push_pull){
                .push = push,
                .pull = i + 1 == step ? weights : slot,
                .has_pull = true,
            };
            letter_send(&a, frames[i]);
        }
        size_t parts = gather(&harness, frames[1], step, values);
        cr_expect(step == 1 ? parts == 0 : parts >= 1, "%zu parts", parts);
        harness_free(letter_await(&harness, frames[0]));
    }
    free(values);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* The frames that are left when the update is over come back newest first. */
Test(ahead, gives_frames_back_when_they_have_served, .timeout = 60)
{
    struct harness harness;
    struct letter *frames[SHARDS + 1];
    float *values = calloc(OPT_SHARD, sizeof *values);
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", policy, tensors, 2, NULL);
    for (size_t i = 0; i <= SHARDS; i++) {
        struct opt_segment segment = { .tensor = 0,
                                       .offset = i * OPT_SHARD,
                                       .count = OPT_SHARD };
        if (i == SHARDS) {
            segment = all[1];
        }
        frames[i] = push_letter(&a, model, 1, OPT_FP32, &segment, 1, values,
                                (size_t)segment.count * sizeof *values);
        frames[i]->request.id = frames[0]->request.id;
        frames[i]->request.body.push.frame = (uint32_t)i;
        frames[i]->request.body.push.last = i == SHARDS;
        letter_send(&a, frames[i]);
    }
    for (size_t i = 0; i <= SHARDS; i++) {
        frames[i] = letter_await(&harness, frames[i]);
    }
    cr_expect_eq(frames[SHARDS]->reply.body.push.fate, OPT_FATE_APPLIED);
    cr_expect_lt(frames[1]->arrived_ns, frames[SHARDS - 1]->arrived_ns);
    cr_expect_lt(frames[SHARDS - 1]->arrived_ns, frames[SHARDS]->arrived_ns);
    for (size_t i = 0; i <= SHARDS; i++) {
        harness_free(frames[i]);
    }
    free(values);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* Of shards that everybody has sent before the pushes are complete, too. */
Test(ahead, gives_shards_of_a_batch_one_after_the_other, .timeout = 60)
{
    enum { FRAMES = 2, WORKERS = 2 };
    const struct opt_consistency shard = { .mode = OPT_SYNC,
                                           .atomic = OPT_ATOMIC_SHARD };
    static const char *const names[WORKERS] = { "a", "b" };
    struct caller callers[WORKERS];
    struct letter *frames[WORKERS][FRAMES];
    float *values = calloc(ELEMENTS, sizeof *values);
    struct harness harness;
    uint32_t model = 0;
    harness_open(&harness, harness_settings());
    for (size_t i = 0; i < WORKERS; i++) {
        callers[i] = caller_new(&harness, names[i], i + 1);
        model = i == 0 ? model_create(&callers[0], "m", "sgd(lr=1)", shard, tensors, 2,
                                      NULL)
                       : model_join(&callers[i], "m");
    }
    for (uint32_t k = 0; k < FRAMES; k++) {
        for (size_t i = 0; i < WORKERS; i++) {
            frames[i][k] = push_letter(&callers[i], model, 1, OPT_FP32, &all[k], 1,
                                       values, (size_t)all[k].count * sizeof *values);
            struct opt_push push = frames[i][k]->request.body.push;
            push.frame = k;
            push.last = k + 1 == FRAMES;
            frames[i][k]->request.id = frames[i][0]->request.id;
            frames[i][k]->request.message = OPT_MESSAGE_PUSH_PULL;
            frames[i][k]->request.body.push_pull = (struct opt_push_pull){
                .push = push,
                .pull = { .model = model, .slot = "", .view = OPT_VIEW_TRAIN },
                .has_pull = true,
            };
            letter_send(&callers[i], frames[i][k]);
        }
    }
    for (size_t i = 0; i < WORKERS; i++) {
        cr_expect_geq(gather(&harness, frames[i][1], 1, values), 2);
        harness_free(letter_await(&harness, frames[i][0]));
        caller_gone(&callers[i], false);
    }
    free(values);
    harness_close(&harness);
}
