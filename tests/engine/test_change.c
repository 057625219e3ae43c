/* change — options of a model that runs: read, refused, recorded, and the same bits as
 * a reference whose specification was exchanged at that step.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/change.h"
#include "common/optim/update.h"
#include "tests/support/engine_harness.h"

enum { TENSORS = 2, N = 70, ELEMENTS = 2 * N, UPDATES = 9 };

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const uint64_t shape[] = { N };
static const struct opt_tensor_entry tensors[TENSORS] = {
    { .name = "fc.weight", .shape = shape, .rank = 1, .elements = N },
    { .name = "fc.bias", .shape = shape, .rank = 1, .elements = N },
};

/* ---------------------------------------------------------------- in words */

/* What is printed of a change is read as the same one. */
static void expect_printed(const struct opt_change *change, const struct opt_rule *rule)
{
    char text[1024], second[1024];
    struct opt_change again = { .given = 0 };
    struct opt_error error;
    size_t size = opt_change_print(change, text, sizeof text);
    cr_assert_lt(size, sizeof text);
    cr_assert_eq(opt_change_print(change, NULL, 0), size);
    const struct opt_set set = { .model = "m", .change = text };
    cr_assert_eq(opt_change_read(rule, &set, &again, &error), OPT_OK, "%s: %s", text,
                 error.text);
    opt_change_print(&again, second, sizeof second);
    cr_assert_str_eq(second, text);
    cr_assert_eq(again.given, change->given);
    opt_change_fini(&again);
}

static enum opt_status change_text(const char *spec_text, const char *change_text,
                                   char out[1024], struct opt_error *error)
{
    struct opt_spec spec, before;
    struct opt_change change = { .given = 0 };
    const struct opt_set set = { .model = "m", .change = change_text };
    cr_assert(opt_spec_parse(spec_text, &spec, error) == OPT_OK, "%s", error->text);
    opt_spec_share(&before, &spec);
    enum opt_status status = opt_change_read(spec.rule, &set, &change, error);
    if (status == OPT_OK) {
        expect_printed(&change, spec.rule);
        status = opt_change_apply(&change, &spec, error);
    }
    if (status == OPT_OK) {
        status = opt_change_fits(&before, &spec, error);
    }
    opt_spec_print(&spec, out, 1024);
    opt_change_fini(&change);
    opt_spec_fini(&before);
    opt_spec_fini(&spec);
    return status;
}

Test(change, says_options_and_terms_in_words)
{
    static const char *const cases[][3] = {
        { "adam(lr=0.1)", "lr=5e-4, weight_decay=0.1", "adam(lr=0.0005) + decay(0.1)" },
        { "sgd(lr=0.1) + step(10, gamma=0.5)", "cosine(20000)",
          "sgd(lr=0.1) + cosine(20000)" },
        { "sgd(lr=0.1) + cosine(10, end=0.01)", "cosine(20)",
          "sgd(lr=0.1) + cosine(20)" },
        { "sgd(lr=0.1) + cosine(10, end=0.01)", "schedule_steps=20",
          "sgd(lr=0.1) + cosine(20, end=0.01)" },
        { "sgd(lr=0.1) + clip(value, 2)", "clip=none", "sgd(lr=0.1)" },
        { "sgd(lr=0.1) + tensors(\"*.bias\", weight_decay=0)",
          "tensors(\"*.bias\", lr_scale=2), tensors(\"a*\", weight_decay=1)",
          "sgd(lr=0.1) + tensors(\"a*\", weight_decay=1) + tensors(\"*.bias\", "
          "weight_decay=0, lr_scale=2)" },
        { "adam(lr=0.1) + lookahead(5)", "lookahead(6, alpha=0.8)",
          "adam(lr=0.1) + lookahead(6, alpha=0.8)" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[1024], got[1024];
        struct opt_spec spec;
        struct opt_error error;
        cr_assert(opt_spec_parse(cases[i][2], &spec, &error) == OPT_OK, "%s",
                  error.text);
        opt_spec_print(&spec, expected, sizeof expected);
        opt_spec_fini(&spec);
        cr_assert(change_text(cases[i][0], cases[i][1], got, &error) == OPT_OK, "%s",
                  error.text);
        cr_expect_str_eq(got, expected);
    }
}

Test(change, refuses_with_a_sentence_and_changes_nothing)
{
    static const struct {
        const char *spec, *change;
        enum opt_status status;
        const char *sentence;
    } cases[] = {
        { "adam", "beta3=1", OPT_INVALID_ARGUMENT, "did you mean 'beta1'" },
        { "adam", "beta1=1", OPT_INVALID_ARGUMENT, "out of range" },
        { "adam", "lr=1, lr=2", OPT_INVALID_ARGUMENT, "twice" },
        { "adam", "lr", OPT_INVALID_ARGUMENT, "needs a value" },
        { "adam", "lr=1 beta1=0", OPT_INVALID_ARGUMENT, "expected ','" },
        { "adam", "radam", OPT_INVALID_ARGUMENT, "rule of a model that runs" },
        { "adam", "cosin(5)", OPT_INVALID_ARGUMENT, "did you mean 'cosine'" },
        { "adam", "schedule_steps=5", OPT_INVALID_ARGUMENT, "no effect" },
        { "adam", "lookahead(5)", OPT_FAILED_PRECONDITION, "slow_param" },
        { "adam + lookahead(5)", "lookahead_k=0", OPT_FAILED_PRECONDITION,
          "exp_avg, exp_avg_sq, slow_param" },
        { "adam + lookahead(5)", "lookahead_momentum=pullback", OPT_FAILED_PRECONDITION,
          "slow_momentum" },
        { "rmsprop", "centered=true", OPT_FAILED_PRECONDITION, "grad_avg" },
        { "rmsprop", "momentum=0.9", OPT_FAILED_PRECONDITION, "momentum_buffer" },
        { "momentum", "momentum_form=ema", OPT_FAILED_PRECONDITION, "momentum_form" },
        { "adagrad", "initial_accumulator=1", OPT_FAILED_PRECONDITION,
          "initial_accumulator" },
        { "nag", "nesterov_form=reformulated", OPT_FAILED_PRECONDITION,
          "nesterov_form" },
        { "nag", "momentum=0", OPT_FAILED_PRECONDITION, "momentum become" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char got[1024];
        struct opt_error error;
        enum opt_status status =
            change_text(cases[i].spec, cases[i].change, got, &error);
        cr_expect_eq(status, cases[i].status, "%s, %s", cases[i].spec, cases[i].change);
        cr_expect(strstr(error.text, cases[i].sentence) != NULL, "%s: %s",
                  cases[i].change, error.text);
    }
}

Test(change, keeps_a_specification_that_it_would_make_invalid)
{
    struct opt_spec spec, before;
    struct opt_change change;
    struct opt_error error;
    const struct opt_set set = { .model = "m", .change = "lr=1, layerwise=update" };
    cr_assert(opt_spec_parse("momentum(lr=0.1)", &spec, &error) == OPT_OK);
    before = spec;
    cr_assert(opt_change_read(spec.rule, &set, &change, &error) == OPT_OK);
    cr_assert(opt_change_apply(&change, &spec, &error) == OPT_INVALID_ARGUMENT);
    cr_assert(memcmp(&before, &spec, sizeof spec) == 0);
}

/* ---------------------------------------------------------------- in the engine */

static struct letter *set_letter(const struct caller *caller, const char *change,
                                 uint64_t at_step)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_SET);
    letter->request.body.set =
        (struct opt_set){ .model = "m", .change = change, .at_step = at_step };
    return letter_ask(caller, letter);
}

static uint64_t set(const struct caller *caller, const char *change, uint64_t at_step)
{
    struct letter *letter = set_letter(caller, change, at_step);
    cr_assert(letter->reply.message == OPT_MESSAGE_SET, "%s", reply_text(letter));
    uint64_t step = letter->reply.body.set.step;
    harness_free(letter);
    return step;
}

static void refuse(const struct caller *caller, const char *change, uint64_t at_step,
                   enum opt_status status, const char *sentence)
{
    struct letter *letter = set_letter(caller, change, at_step);
    cr_expect_eq(reply_status(letter), status, "%s", reply_text(letter));
    cr_expect(strstr(reply_text(letter), sentence) != NULL, "%s", reply_text(letter));
    harness_free(letter);
}

static void fill(float *values, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
}

static void push(const struct caller *caller, uint32_t model, uint64_t number)
{
    static const struct opt_segment segments[TENSORS] = { { .tensor = 0 },
                                                          { .tensor = 1 } };
    struct opt_segment whole[TENSORS];
    float values[ELEMENTS];
    memcpy(whole, segments, sizeof whole);
    whole[0].count = whole[1].count = N;
    fill(values, ELEMENTS, number);
    struct letter *letter =
        letter_ask(caller, push_letter(caller, model, number, OPT_FP32, whole, TENSORS,
                                       values, sizeof values));
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    cr_assert(letter->reply.body.push.step == number);
    harness_free(letter);
}

/* The reference: whole tensors, one thread, another specification from a step on. */
struct reference {
    struct opt_spec spec;
    float w[ELEMENTS], slots[OPT_SLOTS_MAX][ELEMENTS], direction[ELEMENTS];
    struct opt_tensor_options options[TENSORS];
    struct opt_tensor_counters counters[TENSORS];
};

static void reference_resolve(struct reference *r, const char *spec)
{
    struct opt_error error;
    opt_spec_fini(&r->spec);
    cr_assert(opt_spec_parse(spec, &r->spec, &error) == OPT_OK, "%s", error.text);
    for (size_t i = 0; i < TENSORS; i++) {
        opt_tensor_options_resolve(&r->spec, tensors[i].name, tensors[i].rank,
                                   &r->options[i]);
    }
}

static void reference_start(struct reference *r, const char *spec, const float *start)
{
    memset(r, 0, sizeof *r);
    reference_resolve(r, spec);
    memcpy(r->w, start, sizeof r->w);
    const char *names[OPT_SLOTS_MAX];
    size_t slots = opt_spec_slots(&r->spec, names);
    for (size_t s = 0; s < slots; s++) {
        bool copies;
        opt_spec_slot_start(&r->spec, s, &copies);
        if (copies) {
            memcpy(r->slots[s], start, sizeof r->w);
        }
    }
    r->counters[0].mu_product = r->counters[1].mu_product = 1;
}

static void reference_update(struct reference *r, uint64_t number)
{
    float gradient[ELEMENTS];
    fill(gradient, ELEMENTS, number);
    struct opt_contribution contributions[TENSORS];
    struct opt_tensor_memory memory[TENSORS] = { 0 };
    for (size_t i = 0; i < TENSORS; i++) {
        contributions[i] =
            (struct opt_contribution){ gradient + i * N, OPT_FP32, 1.0, false };
        memory[i] = (struct opt_tensor_memory){
            .n = N,
            .options = &r->options[i],
            .counters = &r->counters[i],
            .w = r->w + i * N,
            .contributions = &contributions[i],
            .contribution_count = 1,
            .direction = r->direction + i * N,
        };
        for (size_t s = 0; s < OPT_SLOTS_MAX; s++) {
            memory[i].slots[s] = r->slots[s] + i * N;
        }
    }
    void *scratch = malloc(opt_update_scratch(TENSORS, N));
    cr_assert(opt_update_serial(&r->spec, number, memory, TENSORS, scratch));
    free(scratch);
}

Test(change, gives_the_bits_of_a_reference_whose_specification_was_exchanged)
{
    static const struct {
        const char *spec, *change, *then;
    } cases[] = {
        { "adam(lr=0.1)", "lr=0.01", "adam(lr=0.01)" },
        { "adabound(lr=0.1)", "lr=0.01", "adabound(lr=0.01)" },
        { "momentum(lr=0.1) + step(2, gamma=0.5)", "cosine(20)",
          "momentum(lr=0.1) + cosine(20)" },
        { "adam(lr=0.1) + decay(0.1) + tensors(\"*.bias\", weight_decay=0)",
          "tensors(\"*.bias\", weight_decay=0.5)",
          "adam(lr=0.1) + decay(0.1) + tensors(\"*.bias\", weight_decay=0.5)" },
        { "adam(lr=0.1) + lookahead(2, alpha=0.5)", "lookahead_alpha=0.9",
          "adam(lr=0.1) + lookahead(2, alpha=0.9)" },
        { "adam(lr=0.1) + lookahead(2)", "lookahead_k=3",
          "adam(lr=0.1) + lookahead(3)" },
        { "nag(lr=0.1, momentum=0.9)", "momentum=0.5", "nag(lr=0.1, momentum=0.5)" },
        { "adam(lr=0.1)", "layerwise(), clip(global_norm, 1)",
          "adam(lr=0.1) + layerwise() + clip(global_norm, 1)" },
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (uint64_t at = 1; at <= UPDATES; at += 4) {
            struct harness harness;
            struct reference reference;
            float start[ELEMENTS], got[ELEMENTS];
            fill(start, ELEMENTS, 77);
            harness_open(&harness, harness_settings());
            struct caller a = caller_new(&harness, "a", 1),
                          b = caller_new(&harness, "", 0);
            uint32_t model = model_create(&a, "m", cases[c].spec, sync_shrink, tensors,
                                          TENSORS, start);
            reference_start(&reference, cases[c].spec, start);
            cr_assert_eq(set(&b, cases[c].change, at), at);
            for (uint64_t number = 1; number <= UPDATES; number++) {
                if (number == at) {
                    reference_resolve(&reference, cases[c].then);
                }
                push(&a, model, number);
                reference_update(&reference, number);
            }
            const char *names[OPT_SLOTS_MAX];
            size_t slots = opt_spec_slots(&reference.spec, names);
            for (size_t s = 0; s < slots; s++) {
                model_pull(&b, model, OPT_VIEW_SLOT, names[s], got, ELEMENTS);
                cr_expect(memcmp(got, reference.slots[s], sizeof got) == 0,
                          "%s of %s, %s at %d", names[s], cases[c].spec,
                          cases[c].change, (int)at);
            }
            if (!opt_view_train_differs(&reference.spec)) {
                model_pull(&b, model, OPT_VIEW_TRAIN, "", got, ELEMENTS);
                cr_expect(memcmp(got, reference.w, sizeof got) == 0,
                          "weights of %s, %s at %d", cases[c].spec, cases[c].change,
                          (int)at);
            }
            opt_spec_fini(&reference.spec);
            caller_gone(&a, false);
            caller_gone(&b, false);
            harness_close(&harness);
        }
    }
}

static void describe(const struct caller *caller, struct opt_arena *arena,
                     struct opt_description *out)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_DESCRIBE);
    letter->request.body.describe = "m";
    letter = letter_ask(caller, letter);
    struct opt_error error;
    opt_arena_init(arena, opt_table_budget(letter->table_size));
    cr_assert(opt_description_read(letter->table, letter->table_size, arena, out,
                                   &error) == OPT_OK,
              "%s", error.text);
    harness_free(letter);
}

Test(change, is_recorded_listed_and_followed_in_order_of_steps)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    uint32_t model =
        model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    cr_assert_eq(set(&a, "lr=0.5", 4), 4);
    cr_assert_eq(set(&a, "cosine(10)", 2), 2);
    cr_assert_eq(set(&a, "lr=0.75", 0), 1);
    cr_assert_eq(set(&a, "lr=0.5", 4), 4, "again: nothing new");
    struct opt_arena arena;
    struct opt_description d;
    describe(&a, &arena, &d);
    cr_assert_eq(d.change_count, (size_t)3);
    cr_assert_str_eq(d.summary.specification, "sgd(lr=0.75)");
    static const char *const texts[] = { "sgd(lr=1)", "sgd(lr=0.75)",
                                         "sgd(lr=0.75) + cosine(10)",
                                         "sgd(lr=0.5) + cosine(10)" };
    static const uint64_t steps[] = { 1, 2, 4 };
    for (size_t i = 0; i < 3; i++) {
        cr_expect_eq(d.changes[i].step, steps[i]);
        cr_expect_str_eq(d.changes[i].before, texts[i]);
        cr_expect_str_eq(d.changes[i].after, texts[i + 1]);
    }
    opt_arena_fini(&arena);
    for (uint64_t number = 1; number <= 4; number++) {
        push(&a, model, number);
    }
    refuse(&a, "lr=3", 4, OPT_FAILED_PRECONDITION, "from update 5 on");
    cr_assert_eq(set(&a, "lr=0.5", 3), 3, "it is that already");
    describe(&a, &arena, &d);
    cr_expect_str_eq(d.summary.specification, texts[3]);
    cr_expect_eq(d.change_count, (size_t)3);
    opt_arena_fini(&arena);
    /* A later change that an earlier one would make impossible. */
    cr_assert_eq(set(&a, "schedule_steps=20", 9), 9);
    refuse(&a, "schedule=constant", 7, OPT_INVALID_ARGUMENT, "stated for update 9");
    refuse(&a, "lookahead(5)", 0, OPT_FAILED_PRECONDITION, "slow_param");
    describe(&a, &arena, &d);
    cr_expect_str_eq(d.summary.specification, texts[3]);
    cr_expect_eq(d.change_count, (size_t)4);
    opt_arena_fini(&arena);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(change, keeps_the_last_sixty_four_and_no_more_than_so_many_to_come)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    char text[32];
    for (int i = 2; i < 102; i++) {
        snprintf(text, sizeof text, "lr=%d", i);
        set(&a, text, 0);
    }
    for (uint64_t i = 0; i < 64; i++) {
        snprintf(text, sizeof text, "lr=%d", (int)(200 + i));
        set(&a, text, 1000 - i);
    }
    refuse(&a, "lr=7", 500, OPT_RESOURCE_EXHAUSTED, "64 changes");
    struct opt_arena arena;
    struct opt_description d;
    describe(&a, &arena, &d);
    cr_assert_eq(d.change_count, (size_t)128);
    cr_expect_str_eq(d.changes[0].after, "sgd(lr=38)");
    cr_expect_str_eq(d.changes[127].before, "sgd(lr=201)");
    cr_expect_str_eq(d.changes[64].before, "sgd(lr=101)");
    opt_arena_fini(&arena);
    caller_gone(&a, false);
    harness_close(&harness);
}

static void delete (const struct caller *caller)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_DELETE);
    letter->request.body.delete_ = "m";
    letter = letter_ask(caller, letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

/* A change in front of others makes their texts shorter, or their groups more. */
Test(change, gives_back_all_that_it_took)
{
    static const char *const in_front[] = { "lr=1", "tensors(\"*\", weight_decay=1)" };
    for (size_t i = 0; i < 2; i++) {
        struct harness harness;
        harness_open(&harness, harness_settings());
        struct caller a = caller_new(&harness, "a", 1);
        uint32_t model = model_create(&a, "m", "sgd(lr=0.12345678901234567)",
                                      sync_shrink, tensors, TENSORS, NULL);
        char text[64];
        for (int k = 0; k < 20; k++) {
            snprintf(text, sizeof text, "cosine(%d)", 100 + k);
            set(&a, text, (uint64_t)(k + 3));
        }
        set(&a, in_front[i], 2);
        for (uint64_t number = 1; number <= 6; number++) {
            push(&a, model, number);
        }
        delete (&a);
        cr_expect_eq(statistic(&a, "memory_used"), 0);
        caller_gone(&a, false);
        harness_close(&harness);
    }
}

/* All that a change keeps is part of what --memory allows. */
Test(change, is_refused_where_its_texts_do_not_fit)
{
    struct harness harness;
    struct engine_settings settings = harness_settings();
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    uint64_t used = statistic(&a, "memory_used");
    static char text[200 << 10];
    size_t size = 0;
    for (int i = 0; i < 500; i++) {
        size += (size_t)snprintf(text + size, sizeof text - size,
                                 "%stensors(\"%0200d*\", lr_scale=2, missing=ok)",
                                 i > 0 ? ", " : "", i);
    }
    set(&a, text, 0);
    uint64_t took = statistic(&a, "memory_used") - used;
    cr_expect_gt(took, 5 * size / 2, "the text, the change's groups, the model's");
    delete (&a);
    caller_gone(&a, false);
    harness_close(&harness);

    settings.memory_bytes = used + took / 2;
    harness_open(&harness, settings);
    a = caller_new(&harness, "a", 1);
    model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    refuse(&a, text, 0, OPT_RESOURCE_EXHAUSTED, "that --memory allows are left");
    cr_expect_eq(statistic(&a, "memory_used"), used);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(change, leaves_the_model_the_same_for_those_who_create_it)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    model_create(&a, "m", "sgd(lr=1)", sync_shrink, tensors, TENSORS, NULL);
    set(&a, "lr=2", 0);
    set(&a, "lr=3", 0);
    static const struct {
        const char *spec;
        enum opt_status status;
    } cases[] = { { "sgd(lr=1)", OPT_OK },
                  { "sgd(lr=3)", OPT_OK },
                  { "sgd(lr=2)", OPT_ALREADY_EXISTS } };
    for (size_t i = 0; i < 3; i++) {
        struct letter *letter =
            letter_ask(&a, create_letter(&a, "m", cases[i].spec, sync_shrink, tensors,
                                         TENSORS, false, true));
        cr_expect_eq(reply_status(letter), cases[i].status, "%s", reply_text(letter));
        if (cases[i].status == OPT_OK) {
            cr_expect_str_eq(letter->reply.body.model.specification, "sgd(lr=3)");
        }
        harness_free(letter);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(change, moves_the_point_where_the_next_gradient_is_taken)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    float theta[ELEMENTS], v[ELEMENTS], point[ELEMENTS];
    uint32_t model = model_create(&a, "m", "nag(lr=1, momentum=0.5)", sync_shrink,
                                  tensors, TENSORS, NULL);
    push(&a, model, 1);
    model_pull(&a, model, OPT_VIEW_EVAL, "", theta, ELEMENTS);
    model_pull(&a, model, OPT_VIEW_SLOT, "momentum_buffer", v, ELEMENTS);
    model_pull(&a, model, OPT_VIEW_TRAIN, "", point, ELEMENTS);
    cr_assert_eq(point[5], theta[5] - 0.5f * v[5]);
    set(&a, "momentum=0.25", 0);
    model_pull(&a, model, OPT_VIEW_TRAIN, "", point, ELEMENTS);
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(point[i], theta[i] - 0.25f * v[i]);
    }
    caller_gone(&a, false);
    harness_close(&harness);
}

static struct letter *wait_epoch(const struct caller *caller, uint32_t model,
                                 uint64_t epoch)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_WAIT);
    letter->request.body.wait = (struct opt_wait){ .model = model, .epoch = epoch };
    letter_send(caller, letter);
    return letter;
}

Test(change, of_lookahead_never_turns_epochs_back)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "", 0);
    uint32_t model = model_create(&a, "m", "sgd(lr=1) + lookahead(2)", sync_shrink,
                                  tensors, TENSORS, NULL);
    struct letter *third = wait_epoch(&b, model, 3);
    for (uint64_t number = 1; number <= 4; number++) {
        push(&a, model, number);
    }
    cr_assert(!letter_is_back(&harness, third), "two epochs");
    set(&a, "lookahead_k=5", 0);
    push(&a, model, 5);
    third = letter_await(&harness, third);
    cr_assert(third->reply.message == OPT_MESSAGE_WAIT, "%s", reply_text(third));
    cr_expect_eq(third->reply.body.wait.step, UINT64_C(5));
    cr_expect_eq(third->reply.body.wait.epoch, UINT64_C(3));
    harness_free(third);
    uint32_t plain;
    {
        struct letter *create = create_letter(&a, "plain", "sgd(lr=1)", sync_shrink,
                                              tensors, TENSORS, false, true);
        create = letter_ask(&a, create);
        plain = create->reply.body.model.model;
        harness_free(create);
    }
    struct letter *never = letter_await(&harness, wait_epoch(&b, plain, 1));
    cr_expect_eq(reply_status(never), OPT_FAILED_PRECONDITION);
    harness_free(never);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}
