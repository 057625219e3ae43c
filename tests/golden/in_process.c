/* in_process — the golden backend that calls the mathematics directly. */
#include <stdlib.h>
#include <string.h>

#include "common/optim/rows.h"
#include "common/optim/update.h"
#include "tests/golden/backend.h"

struct model {
    struct opt_spec spec;
    uint64_t T;
    size_t count, slot_count;
    const char *slots[OPT_SLOTS_MAX];
    struct opt_tensor_memory memory[GOLDEN_TENSORS];
    struct opt_tensor_options options[GOLDEN_TENSORS];
    struct opt_tensor_counters counters[GOLDEN_TENSORS];
    void *scratch;
    size_t width; /* of the rows of the only tensor, if it is sparse; else 0 */
};

static void model_close(void *handle)
{
    struct model *model = handle;

    for (size_t i = 0; i < model->count; i++) {
        free(model->memory[i].w);
        free(model->memory[i].direction);
        for (size_t s = 0; s < model->slot_count; s++) {
            free(model->memory[i].slots[s]);
        }
    }
    free(model->scratch);
    free(model);
}

static bool tensor_init(struct model *model, size_t index,
                        const struct golden_tensor *tensor)
{
    struct opt_tensor_memory *memory = &model->memory[index];
    size_t n = tensor->n;
    bool ok;

    opt_tensor_options_resolve(&model->spec, tensor->name, tensor->rank,
                               &model->options[index]);
    model->counters[index] = (struct opt_tensor_counters){ 0, 1.0 };
    memory->n = n;
    memory->options = &model->options[index];
    memory->counters = &model->counters[index];
    memory->w = calloc(n, sizeof *memory->w);
    memory->direction = calloc(n, sizeof *memory->direction);
    ok = memory->w != NULL && memory->direction != NULL;
    if (ok && tensor->initial != NULL) {
        memcpy(memory->w, tensor->initial, n * sizeof *memory->w);
    }
    for (size_t s = 0; ok && s < model->slot_count; s++) {
        bool copy;
        float start = opt_spec_slot_start(&model->spec, s, &copy);
        float *slot = malloc(n * sizeof *slot);

        memory->slots[s] = slot;
        ok = slot != NULL;
        for (size_t i = 0; ok && i < n; i++) {
            slot[i] = copy ? memory->w[i] : start;
        }
    }
    return ok;
}

static enum opt_status model_open(const struct opt_spec *spec,
                                  const struct golden_tensor *tensors, size_t count,
                                  void **out, struct opt_error *error)
{
    struct model *model = calloc(1, sizeof *model);
    size_t largest = 0;
    bool ok = model != NULL;

    if (ok) {
        model->spec = *spec;
        model->count = count;
        model->slot_count = opt_spec_slots(spec, model->slots);
        for (size_t i = 0; i < count; i++) {
            largest = tensors[i].n > largest ? tensors[i].n : largest;
            ok = ok && tensor_init(model, i, &tensors[i]);
        }
        if (tensors[0].rows != NULL) {
            model->width = tensors[0].n / (size_t)tensors[0].shape[0];
        }
        model->scratch = malloc(opt_update_scratch(count, largest));
        ok = ok && model->scratch != NULL;
    }
    if (!ok) {
        if (model != NULL) {
            model_close(model);
        }
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the model");
    }
    *out = model;
    return OPT_OK;
}

/* A pass over each row once; its occurrences stand together in sorted and named. */
static void run_rows(struct model *model, struct opt_tensor_update *tensor,
                     enum opt_pass pass, const struct opt_row *sorted,
                     const struct opt_contribution *named, size_t count,
                     struct opt_block_sums *sums, struct opt_update *update)
{
    const struct opt_tensor_memory *memory = &model->memory[0];
    size_t n = 0;

    for (size_t i = 0, next; i < count; i = next) {
        size_t at = (size_t)sorted[i].key * model->width;
        next = i + 1;
        while (next < count && sorted[next].key == sorted[i].key) {
            next++;
        }
        struct opt_block_memory block = {
            .n = model->width,
            .w = memory->w + at,
            .w_out = memory->w + at,
            .contributions = named + i,
            .contribution_count = next - i,
        };
        for (size_t s = 0; s < model->slot_count; s++) {
            block.slots[s] = memory->slots[s] + at;
        }
        opt_block_run(tensor, pass, &block, &sums[n++]);
    }
    if (pass == OPT_PASS_NORM) {
        opt_update_add_norm(update, tensor, sums, n);
    }
}

/* One update of a sparse tensor by one worker: the rows in ascending order, each once.
 * spare, named and sums have room for as many. */
static void update_rows(struct model *model, const struct golden_push *push,
                        struct opt_row *rows, struct opt_row *spare,
                        struct opt_contribution *named, struct opt_block_sums *sums)
{
    struct opt_tensor_memory *memory = &model->memory[0];
    struct opt_tensor_update tensor;
    struct opt_update update;
    size_t count = push->row_count;

    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct opt_row){ opt_row_key(0, push->rows[i]), (uint32_t)i };
    }
    const struct opt_row *sorted = opt_rows_sort(rows, spare, count);
    for (size_t i = 0; i < count; i++) {
        named[i] = (struct opt_contribution){
            .values = push->gradients[0] + sorted[i].index * model->width,
            .dtype = OPT_FP32,
            .factor = 1.0,
        };
    }
    opt_update_begin(&update, &model->spec, model->T + 1);
    opt_update_bind(&tensor, &update, memory->options, memory->counters);
    if (opt_update_needs_norms(&update)) {
        run_rows(model, &tensor, OPT_PASS_NORM, sorted, named, count, sums, &update);
        opt_update_end_norms(&update);
    }
    opt_update_tensor(&tensor);
    run_rows(model, &tensor, OPT_PASS_STEP, sorted, named, count, sums, &update);
    model->T++;
}

static enum opt_status update_sparse(struct model *model,
                                     const struct golden_push *push,
                                     struct opt_error *error)
{
    size_t room = push->row_count + 1;
    struct opt_row *rows = calloc(2 * room, sizeof *rows);
    struct opt_contribution *named = calloc(room, sizeof *named);
    struct opt_block_sums *sums = calloc(room, sizeof *sums);
    bool ok = rows != NULL && named != NULL && sums != NULL;

    if (ok) {
        update_rows(model, push, rows, rows + room, named, sums);
    }
    free(rows);
    free(named);
    free(sums);
    return ok ? OPT_OK : opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for rows");
}

static enum opt_status model_update(void *handle, const struct golden_push *pushes,
                                    size_t workers, struct opt_error *error)
{
    static struct opt_contribution contributions[GOLDEN_TENSORS][GOLDEN_WORKERS];
    struct model *model = handle;
    uint64_t samples[GOLDEN_WORKERS];
    enum opt_form forms[GOLDEN_WORKERS];
    double factors[GOLDEN_WORKERS];

    if (workers > GOLDEN_WORKERS) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "more than %d workers",
                        (int)GOLDEN_WORKERS);
    }
    if (model->width > 0) {
        return update_sparse(model, &pushes[0], error);
    }
    for (size_t i = 0; i < workers; i++) {
        samples[i] = pushes[i].samples;
        forms[i] = pushes[i].form;
    }
    opt_aggregate_factors((enum opt_aggregate)model->spec.options.aggregate, samples,
                          forms, workers, factors);
    for (size_t t = 0; t < model->count; t++) {
        for (size_t i = 0; i < workers; i++) {
            contributions[t][i] = (struct opt_contribution){
                .values = pushes[i].gradients[t],
                .dtype = OPT_FP32,
                .factor = factors[i],
            };
        }
        model->memory[t].contributions = contributions[t];
        model->memory[t].contribution_count = workers;
    }
    if (!opt_update_serial(&model->spec, model->T + 1, model->memory, model->count,
                           model->scratch)) {
        return opt_fail(error, OPT_OUT_OF_RANGE, "the sum of the gradients overflowed");
    }
    model->T++;
    return OPT_OK;
}

static enum opt_status model_read(void *handle, enum opt_view view, const char *slot,
                                  size_t tensor, float *out, struct opt_error *error)
{
    struct model *model = handle;
    const struct opt_tensor_memory *memory = &model->memory[tensor];
    const float *values = memory->w;
    int answer = opt_view_eval_slot(&model->spec);

    if (view == OPT_VIEW_TRAIN &&
        opt_view_train(&model->spec, memory->w, memory->slots, out, memory->n)) {
        return OPT_OK;
    }
    if (view == OPT_VIEW_EVAL && answer >= 0) {
        values = memory->slots[answer];
    }
    if (view == OPT_VIEW_SLOT) {
        size_t s = 0;

        while (s < model->slot_count && strcmp(model->slots[s], slot) != 0) {
            s++;
        }
        if (s == model->slot_count) {
            return opt_fail(error, OPT_NOT_FOUND, "no slot %s", slot);
        }
        values = memory->slots[s];
    }
    memcpy(out, values, memory->n * sizeof *out);
    return OPT_OK;
}

const struct golden_backend golden_in_process = {
    .open = model_open,
    .update = model_update,
    .read = model_read,
    .close = model_close,
};
