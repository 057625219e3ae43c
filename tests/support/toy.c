/* toy — see toy.h. */
#include "tests/support/toy.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/float_bits.h"

static float *floats(size_t n)
{
    float *values = calloc(n + 1, sizeof *values);

    cr_assert_not_null(values);
    return values;
}

void toy_init_spec(struct toy *toy, const struct opt_spec *spec, const float *initial,
                   size_t n)
{
    const char *names[OPT_SLOTS_MAX];

    *toy = (struct toy){ .counters = { 0, 1.0 }, .n = n };
    opt_spec_share(&toy->spec, spec);
    opt_tensor_options_resolve(&toy->spec, "w", 1, &toy->options);
    toy->slot_count = opt_spec_slots(&toy->spec, names);
    toy->w = floats(n);
    toy->direction = floats(n);
    memcpy(toy->w, initial, n * sizeof *initial);
    for (size_t s = 0; s < toy->slot_count; s++) {
        bool copy;
        float start = opt_spec_slot_start(&toy->spec, s, &copy);

        toy->slots[s] = floats(n);
        for (size_t i = 0; i < n; i++) {
            toy->slots[s][i] = copy ? initial[i] : start;
        }
    }
}

void toy_init(struct toy *toy, const char *expression, const float *initial, size_t n)
{
    struct opt_spec spec;
    struct opt_error error = { .text = "" };

    cr_assert_eq(opt_spec_parse(expression, &spec, &error), OPT_OK, "%s: %s",
                 expression, error.text);
    toy_init_spec(toy, &spec, initial, n);
    opt_spec_fini(&spec);
}

void toy_fini(struct toy *toy)
{
    opt_spec_fini(&toy->spec);
    free(toy->w);
    free(toy->direction);
    for (size_t s = 0; s < toy->slot_count; s++) {
        free(toy->slots[s]);
    }
}

void toy_update_from(struct toy *toy, const struct opt_contribution *contributions,
                     size_t count)
{
    struct opt_tensor_memory memory = {
        .n = toy->n,
        .options = &toy->options,
        .counters = &toy->counters,
        .w = toy->w,
        .contributions = contributions,
        .contribution_count = count,
        .direction = toy->direction,
    };
    void *scratch = malloc(opt_update_scratch(1, toy->n));

    cr_assert_not_null(scratch);
    memcpy(memory.slots, toy->slots, sizeof memory.slots);
    cr_assert(opt_update_serial(&toy->spec, ++toy->T, &memory, 1, scratch));
    free(scratch);
}

void toy_update(struct toy *toy, const float *gradient)
{
    struct opt_contribution one = { gradient, OPT_FP32, 1.0, false };

    toy_update_from(toy, &one, 1);
}

enum { BLOCKS = 16 };

static void shuffled_pass(struct toy *toy, const struct opt_tensor_update *update,
                          enum opt_pass pass, const struct opt_contribution *one,
                          uint64_t *order, struct opt_block_sums *sums)
{
    size_t blocks = (toy->n + OPT_BLOCK - 1) / OPT_BLOCK, permutation[BLOCKS];

    cr_assert_leq(blocks, BLOCKS);
    for (size_t i = 0; i < blocks; i++) {
        size_t j = (size_t)(toy_random(order) % (i + 1));
        permutation[i] = permutation[j];
        permutation[j] = i;
    }
    for (size_t i = 0; i < blocks; i++) {
        size_t start = permutation[i] * OPT_BLOCK;
        struct opt_block_memory memory = {
            .n = toy->n - start < OPT_BLOCK ? toy->n - start : OPT_BLOCK,
            .w = toy->w + start,
            .w_out = toy->w + start,
            .contributions = one,
            .contribution_count = 1,
            .contribution_offset = start,
            .direction = toy->direction + start,
        };
        for (size_t s = 0; s < toy->slot_count; s++) {
            memory.slots[s] = toy->slots[s] + start;
        }
        opt_block_run(update, pass, &memory, &sums[permutation[i]]);
    }
}

void toy_update_shuffled(struct toy *toy, const float *gradient, uint64_t order)
{
    struct opt_contribution one = { gradient, OPT_FP32, 1.0, false };
    struct opt_block_sums sums[BLOCKS];
    struct opt_tensor_update tensor;
    struct opt_update update;
    size_t blocks = (toy->n + OPT_BLOCK - 1) / OPT_BLOCK;

    opt_update_begin(&update, &toy->spec, ++toy->T);
    opt_update_bind(&tensor, &update, &toy->options, &toy->counters);
    if (opt_update_needs_norms(&update)) {
        shuffled_pass(toy, &tensor, OPT_PASS_NORM, &one, &order, sums);
        opt_update_add_norm(&update, &tensor, sums, blocks);
        opt_update_end_norms(&update);
    }
    opt_update_tensor(&tensor);
    if (tensor.two_passes) {
        shuffled_pass(toy, &tensor, tensor.first_pass, &one, &order, sums);
        opt_update_end_first(&tensor, sums, blocks);
    }
    shuffled_pass(toy, &tensor, OPT_PASS_STEP, &one, &order, sums);
    if (opt_update_synchronises(&update)) {
        shuffled_pass(toy, &tensor, OPT_PASS_LOOKAHEAD, &one, &order, sums);
    }
}

void toy_copy(struct toy *to, const struct toy *from)
{
    to->T = from->T;
    to->counters = from->counters;
    memcpy(to->w, from->w, from->n * sizeof *to->w);
    for (size_t s = 0; s < from->slot_count; s++) {
        memcpy(to->slots[s], from->slots[s], from->n * sizeof *to->w);
    }
}

bool toy_same(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (float_to_bits(a[i]) != float_to_bits(b[i]) &&
            !(isnan(a[i]) && isnan(b[i]))) {
            return false;
        }
    }
    return true;
}

bool toy_equal(const struct toy *a, const struct toy *b)
{
    bool equal = a->n == b->n && toy_same(a->w, b->w, a->n);

    for (size_t s = 0; equal && s < a->slot_count; s++) {
        equal = toy_same(a->slots[s], b->slots[s], a->n);
    }
    return equal;
}

uint64_t toy_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

float toy_uniform(uint64_t *state)
{
    return (float)(toy_random(state) >> 40) * 0x1p-23f - 1.0f;
}

void toy_fill(enum toy_input kind, uint64_t seed, float *out, size_t n)
{
    static const float scales[TOY_INPUTS] = {
        [TOY_ORDINARY] = 1.0f,   [TOY_SPARSE] = 1.0f, [TOY_TINY] = 1e-25f,
        [TOY_DENORMAL] = 1e-39f, [TOY_HUGE] = 3e38f,
    };

    for (size_t i = 0; i < n; i++) {
        bool zero = kind == TOY_SPARSE && toy_random(&seed) % 4 != 0;
        out[i] = zero ? 0.0f : toy_uniform(&seed) * scales[kind];
    }
}
