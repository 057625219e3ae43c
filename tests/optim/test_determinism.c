/* determinism — the same bits whatever the threads, frames and order of arrival, and
 * whether rounds are applied as a whole or shard by shard.
 *
 * Rounds of one to four workers go through the engine and, as whole tensors in one
 * thread, through opt_update_serial; weights and slots must be equal bit for bit.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/spec.h"
#include "common/optim/update.h"
#include "server/rounds/consistency.h"
#include "tests/support/engine_harness.h"

enum { TENSORS = 6, WORKERS = 4, ROUNDS = 4, LARGE = 786432 };

static const uint64_t sizes[TENSORS] = { 1,         70,
                                         OPT_BLOCK, OPT_BLOCK + 1,
                                         LARGE,     OPT_SHARD + 5 * OPT_BLOCK + 3 };
static const char *const names[TENSORS] = { "scalar", "bias",  "block",
                                            "more",   "large", "two.shards" };
static const char *const workers[WORKERS] = { "alpha", "beta", "delta", "gamma" };

struct situation {
    const char *spec;
    enum opt_dtype dtype;
    size_t workers;
};

/* splitmix64, then a float in [-1, 1). */
static float random_float(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (float)(int32_t)(z >> 32) * 0x1p-31f;
}

static size_t total(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < TENSORS; i++) {
        sum += sizes[i];
    }
    return sum;
}

static float *random_values(uint64_t seed)
{
    float *values = malloc(total() * sizeof *values);
    cr_assert(values != NULL);
    for (size_t i = 0; i < total(); i++) {
        values[i] = random_float(&seed);
    }
    return values;
}

/* What a worker sends in a round: all tensors, in its dtype. */
static void *gradient_of(enum opt_dtype dtype, size_t worker, size_t round)
{
    float *values = random_values(1000 * round + worker + 1);
    void *out = malloc(total() * opt_dtype_size(dtype));
    cr_assert(out != NULL);
    opt_dtype_narrow(dtype, values, out, total());
    free(values);
    return out;
}

static uint64_t samples_of(size_t worker)
{
    return 1 + 3 * worker;
}

/* ---------------------------------------------------------------- the reference */

struct state {
    float *w;
    float *slots[OPT_SLOTS_MAX];
    size_t slot_count;
    const char *slot_names[OPT_SLOTS_MAX];
};

static struct state state_new(const struct opt_spec *spec, const float *start)
{
    struct state state = { 0 };
    state.slot_count = opt_spec_slots(spec, state.slot_names);
    state.w = malloc(total() * sizeof(float));
    memcpy(state.w, start, total() * sizeof(float));
    for (size_t i = 0; i < state.slot_count; i++) {
        bool copy = false;
        float value = opt_spec_slot_start(spec, i, &copy);
        state.slots[i] = malloc(total() * sizeof(float));
        for (size_t k = 0; k < total(); k++) {
            state.slots[i][k] = copy ? start[k] : value;
        }
    }
    return state;
}

static void state_fini(struct state *state)
{
    free(state->w);
    for (size_t i = 0; i < state->slot_count; i++) {
        free(state->slots[i]);
    }
}

static struct state reference(const struct situation *situation,
                              const struct opt_spec *spec, const float *start)
{
    struct state state = state_new(spec, start);
    struct opt_tensor_options options[TENSORS];
    struct opt_tensor_counters counters[TENSORS];
    struct opt_tensor_memory memory[TENSORS];
    struct opt_contribution contributions[TENSORS][WORKERS];
    float *directions = malloc(total() * sizeof *directions);
    void *scratch = malloc(opt_update_scratch(TENSORS, OPT_SHARD * 2));
    uint64_t samples[WORKERS];
    enum opt_form forms[WORKERS] = { OPT_FORM_MEAN };
    double factors[WORKERS];
    for (size_t i = 0; i < situation->workers; i++) {
        samples[i] = samples_of(i);
    }
    opt_aggregate_factors((enum opt_aggregate)spec->options.aggregate, samples, forms,
                          situation->workers, factors);
    for (size_t round = 0; round < ROUNDS; round++) {
        uint8_t *gradients[WORKERS];
        for (size_t i = 0; i < situation->workers; i++) {
            gradients[i] = gradient_of(situation->dtype, i, round);
        }
        size_t at = 0;
        for (size_t t = 0; t < TENSORS; t++) {
            if (round == 0) {
                opt_tensor_options_resolve(spec, names[t], 1, &options[t]);
                counters[t] = (struct opt_tensor_counters){ .mu_product = 1 };
            }
            memory[t] = (struct opt_tensor_memory){
                .n = sizes[t],
                .options = &options[t],
                .counters = &counters[t],
                .w = state.w + at,
                .contributions = contributions[t],
                .contribution_count = situation->workers,
                .direction = directions + at,
            };
            for (size_t s = 0; s < state.slot_count; s++) {
                memory[t].slots[s] = state.slots[s] + at;
            }
            for (size_t i = 0; i < situation->workers; i++) {
                contributions[t][i] = (struct opt_contribution){
                    .values = gradients[i] + at * opt_dtype_size(situation->dtype),
                    .dtype = situation->dtype,
                    .factor = factors[i],
                };
            }
            at += sizes[t];
        }
        cr_assert(opt_update_serial(spec, round + 1, memory, TENSORS, scratch));
        for (size_t i = 0; i < situation->workers; i++) {
            free(gradients[i]);
        }
    }
    free(directions);
    free(scratch);
    return state;
}

/* ---------------------------------------------------------------- the engine */

enum { FRAMES = TENSORS + 2 };

/* One worker's push, cut into frames in an order of its own. Returns how many. */
static size_t make_push(const struct caller *caller, uint32_t model, size_t worker,
                        size_t round, enum opt_dtype dtype,
                        struct letter *frames[FRAMES])
{
    struct opt_segment segments[FRAMES];
    size_t offsets[FRAMES], count = 0, at = 0;
    for (size_t t = 0; t < TENSORS; t++) {
        size_t cut =
            sizes[t] > 4 * OPT_BLOCK ? (1 + (worker + round) % 3) * OPT_BLOCK : 0;
        if (cut > 0) {
            segments[count] =
                (struct opt_segment){ .tensor = (uint32_t)t, .count = cut };
            offsets[count++] = at;
        }
        segments[count] = (struct opt_segment){ .tensor = (uint32_t)t, .offset = cut };
        offsets[count++] = at + cut;
        at += sizes[t];
    }
    size_t size = opt_dtype_size(dtype);
    uint8_t *values = gradient_of(dtype, worker, round);
    for (size_t i = 0; i < count; i++) {
        /* A rotation that differs by worker and round. */
        size_t k = (i * 5 + worker * 3 + round) % count;
        size_t n = segments[k].count;
        if (n == 0) {
            n = sizes[segments[k].tensor] - segments[k].offset;
        }
        frames[i] = push_letter(caller, model, round + 1, dtype, &segments[k], 1,
                                values + offsets[k] * size, n * size);
        frames[i]->request.id = frames[0]->request.id;
        frames[i]->request.body.push.frame = (uint32_t)i;
        frames[i]->request.body.push.last = i + 1 == count;
        frames[i]->request.body.push.samples = samples_of(worker);
        frames[i]->request.body.push.basis = round;
    }
    free(values);
    return count;
}

/* All workers push, frame by frame in turn; answers: the letters to be answered. */
static void send_pushes(const struct situation *situation, const struct caller *callers,
                        uint32_t model, size_t round, struct letter *answers[WORKERS])
{
    struct letter *frames[WORKERS][FRAMES];
    size_t count = 0;
    for (size_t i = 0; i < situation->workers; i++) {
        count = make_push(&callers[i], model, i, round, situation->dtype, frames[i]);
        answers[i] = frames[i][count - 1];
    }
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < situation->workers; i++) {
            size_t worker = (i + round * 3) % situation->workers;
            letter_send(&callers[worker], frames[worker][k]);
        }
    }
}

static void compare(const char *what, const struct situation *situation, int threads,
                    const float *expected, const float *got)
{
    for (size_t i = 0; i < total(); i++) {
        cr_assert(same_bits(&expected[i], &got[i], 1),
                  "%s, %s, %zu workers, %d threads: %s[%zu] is %a, not %a",
                  situation->spec, opt_dtype_name(situation->dtype), situation->workers,
                  threads, what, i, (double)got[i], (double)expected[i]);
    }
}

static void run_engine(const struct situation *situation, enum opt_atomic atomic,
                       int threads, const float *start, const struct state *expected)
{
    const struct opt_consistency sync = { .mode = OPT_SYNC, .atomic = atomic };
    struct engine_settings settings = harness_settings();
    struct harness harness;
    struct caller callers[WORKERS];
    struct opt_tensor_entry tensors[TENSORS];
    uint32_t model = 0;
    settings.threads = threads;
    harness_open(&harness, settings);
    for (size_t t = 0; t < TENSORS; t++) {
        tensors[t] = (struct opt_tensor_entry){
            .name = names[t], .shape = &sizes[t], .rank = 1, .elements = sizes[t]
        };
    }
    for (size_t i = 0; i < situation->workers; i++) {
        callers[i] = caller_new(&harness, workers[i], i + 1);
        model = i > 0 ? model_join(&callers[i], "m")
                      : model_create(&callers[0], "m", situation->spec, sync, tensors,
                                     TENSORS, start);
    }
    struct letter *held = NULL;
    for (size_t round = 0; round < ROUNDS; round++) {
        struct letter *answers[WORKERS];
        send_pushes(situation, callers, model, round, answers);
        for (size_t i = 0; i < situation->workers; i++) {
            struct letter *answer = letter_await(&harness, answers[i]);
            cr_assert(answer->reply.message == OPT_MESSAGE_PUSH, "%s",
                      reply_text(answer));
            cr_assert(answer->reply.body.push.fate == OPT_FATE_APPLIED);
            cr_assert(answer->reply.body.push.step == round + 1);
            cr_assert(answer->reply.body.push.staleness == 0);
            harness_free(answer);
        }
        /* Hold a version from some rounds to others, so that both ways to write a
         * shard are taken. */
        if (round % 2 == 0) {
            held = letter_ask(&callers[0],
                              pull_letter(&callers[0], model, OPT_VIEW_TRAIN, ""));
        } else {
            harness_free(held);
            held = NULL;
        }
    }
    float *got = malloc(total() * sizeof *got);
    for (size_t s = 0; s < expected->slot_count; s++) {
        model_pull(&callers[0], model, OPT_VIEW_SLOT, expected->slot_names[s], got,
                   total());
        compare(expected->slot_names[s], situation, threads, expected->slots[s], got);
    }
    struct letter *pull =
        letter_ask(&callers[0], pull_letter(&callers[0], model, OPT_VIEW_TRAIN, ""));
    cr_assert(pieces_copy(pull, got, total()) == total());
    compare("weights", situation, threads, expected->w, got);
    harness_free(pull);
    free(got);
    for (size_t i = 0; i < situation->workers; i++) {
        caller_gone(&callers[i], false);
    }
    harness_close(&harness);
}

static const struct situation situations[] = {
    { "sgd(lr=0.1)", OPT_FP32, 2 },
    { "momentum(lr=0.1)", OPT_BF16, 3 },
    { "adam(lr=1e-3)", OPT_FP32, 1 },
    { "adam(lr=1e-3)", OPT_BF16, 1 },
    { "adam(lr=1e-3)", OPT_FP32, 4 },
    { "adam(lr=1e-3) + clip(global_norm, 1)", OPT_FP32, 2 },
    { "adam(lr=1e-3) + clip(tensor_norm, 1)", OPT_BF16, 2 },
    { "adam(lr=1e-3) + lookahead(k=2, alpha=0.5)", OPT_FP32, 3 },
    { "momentum(lr=0.1) + lookahead(k=3, momentum=pullback)", OPT_FP16, 2 },
    { "lamb(lr=0.01)", OPT_FP32, 4 },
    { "lamb(lr=0.01) + tensors(\"b*\", layerwise=none)", OPT_BF16, 2 },
    { "lars(lr=0.1)", OPT_FP32, 2 },
    { "lars(lr=0.1)", OPT_BF16, 1 },
    { "rmsprop(momentum=0.9, momentum_form=ema) + layerwise(update)", OPT_FP32, 1 },
    { "lars2017(lr=0.1)", OPT_FP32, 2 },
    { "lars2017(lr=0.1) + clip(global_norm, 1)", OPT_BF16, 1 },
    { "sgd(lr=0.1) + aggregate(sum)", OPT_FP32, 3 },
    { "sgd(lr=0.1) + aggregate(sum) + nonfinite(propagate)", OPT_FP32, 3 },
    { "nadam(lr=1e-3) + warmup(2)", OPT_FP16, 3 },
};

/* Parameters are numbers: a test runs in a process of its own, where pointers of this
 * one mean nothing. */
ParameterizedTestParameters(determinism, same_bits_as_one_thread_over_whole_tensors)
{
    enum { COUNT = sizeof situations / sizeof *situations };
    static size_t numbers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, COUNT);
}

ParameterizedTest(size_t *number, determinism,
                  same_bits_as_one_thread_over_whole_tensors)
{
    const struct situation *situation = &situations[*number];
    static const int threads[] = { 1, 2, 3, 8 };
    struct opt_spec spec;
    struct opt_error error;
    cr_assert(opt_spec_parse(situation->spec, &spec, &error) == OPT_OK, "%s",
              error.text);
    float *start = random_values(7);
    struct state expected = reference(situation, &spec, start);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        run_engine(situation, OPT_ATOMIC_ROUND, threads[i], start, &expected);
        if (consistency_check_atomic(&spec, &error) == OPT_OK) {
            run_engine(situation, OPT_ATOMIC_SHARD, threads[i], start, &expected);
        }
    }
    state_fini(&expected);
    opt_spec_fini(&spec);
    free(start);
}
