/* adam — see adam.h. */
#include "tests/bench/peers/adam.h"

#include <stdlib.h>

#include "common/optim/update.h"
#include "tests/bench/memory.h"

enum { SLOTS = 2 };

struct adam {
    struct opt_spec spec;
    struct opt_tensor_options options;
    struct opt_tensor_counters *counters; /* per tensor */
    float *w, *slots[SLOTS];              /* tensor after tensor */
    size_t elements;                      /* of a tensor */
    int threads;
};

struct adam *adam_new(size_t tensors, size_t elements, int threads)
{
    struct opt_error error;
    struct adam *adam = calloc(1, sizeof *adam);
    size_t bytes = tensors * elements * sizeof(float);
    if (adam == NULL ||
        opt_spec_parse("adam(lr=1e-3)", &adam->spec, &error) != OPT_OK) {
        free(adam);
        return NULL;
    }
    adam->elements = elements;
    adam->threads = threads;
    opt_tensor_options_resolve(&adam->spec, "weights", 1, &adam->options);
    adam->counters = calloc(tensors, sizeof *adam->counters);
    adam->w = memory_map(bytes);
    adam->slots[0] = memory_map(bytes);
    adam->slots[1] = memory_map(bytes);
    if (adam->counters == NULL || adam->w == NULL || adam->slots[0] == NULL ||
        adam->slots[1] == NULL) {
        free(adam->counters);
        memory_unmap(adam->w, bytes);
        memory_unmap(adam->slots[0], bytes);
        memory_unmap(adam->slots[1], bytes);
        free(adam);
        return NULL;
    }
    memory_fill(adam->w, tensors * elements, 1, 0.1f, 1);
    memory_set(adam->slots[0], tensors * elements, 0, 1);
    memory_set(adam->slots[1], tensors * elements, 0, 1);
    return adam;
}

float *adam_weights(struct adam *adam, size_t tensor)
{
    return adam->w + tensor * adam->elements;
}

static void step_block(const struct adam *adam, const struct opt_tensor_update *update,
                       size_t tensor, size_t first,
                       const struct opt_contribution *contributions, size_t workers)
{
    size_t at = tensor * adam->elements + first, left = adam->elements - first;
    const struct opt_block_memory memory = {
        .n = left < OPT_BLOCK ? left : OPT_BLOCK,
        .w = adam->w + at,
        .w_out = adam->w + at,
        .slots = { adam->slots[0] + at, adam->slots[1] + at },
        .contributions = contributions,
        .contribution_count = workers,
        .contribution_offset = first,
    };
    opt_block_run(update, OPT_PASS_STEP, &memory, NULL);
}

void adam_step(struct adam *adam, size_t tensor, const float *const *gradients,
               size_t workers)
{
    struct opt_update update;
    struct opt_tensor_update bound;
    struct opt_contribution contributions[ADAM_WORKERS_MAX];
    for (size_t i = 0; i < workers; i++) {
        contributions[i] =
            (struct opt_contribution){ gradients[i], OPT_FP32, 1.0 / (double)workers };
    }
    opt_update_begin(&update, &adam->spec, adam->counters[tensor].t + 1);
    opt_update_bind(&bound, &update, &adam->options, &adam->counters[tensor]);
    opt_update_tensor(&bound);
#pragma omp parallel for schedule(dynamic)                                             \
    num_threads(adam->threads) if (adam->threads > 1)
    for (size_t first = 0; first < adam->elements; first += OPT_BLOCK) {
        step_block(adam, &bound, tensor, first, contributions, workers);
    }
}
