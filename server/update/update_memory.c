/* update_memory — see update_memory.h. */
#include "server/update/update_memory.h"

#include <stdlib.h>

#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/update/written.h"

size_t update_memory_scratch(const struct opt_spec *spec, size_t largest)
{
    bool two_passes = spec->options.layerwise == OPT_LAYERWISE_UPDATE;
    return two_passes && largest > TEAM_DIRECTION ? largest : 0;
}

size_t update_memory_bytes(size_t tensors, size_t shards, size_t blocks,
                           size_t scratch_floats)
{
    size_t per_tensor =
        sizeof(struct opt_tensor_update) + sizeof(struct span) + 2 * sizeof(uint8_t);
    size_t total, more;
    if (size_multiply(tensors, per_tensor, &total) &&
        size_multiply(shards, sizeof(struct span), &more) &&
        size_add(total, more, &total) &&
        size_multiply(blocks, sizeof(struct opt_block_sums), &more) &&
        size_add(total, more, &total) &&
        size_multiply(scratch_floats, sizeof(float), &more) &&
        size_add(total, more, &total)) {
        return total;
    }
    return SIZE_MAX;
}

bool update_memory_init(struct model *model)
{
    struct update *update = &model->update;
    size_t scratch = update_memory_scratch(&model->spec, model->largest);
    update->tensors = calloc(model->tensor_count + 1, sizeof *update->tensors);
    update->sums = calloc(model->blocks + 1, sizeof *update->sums);
    update->spans =
        calloc(model->tensor_count + model->shard_count + 1, sizeof *update->spans);
    update->is_touched = calloc(model->tensor_count + 1, sizeof *update->is_touched);
    update->is_bound = calloc(model->tensor_count + 1, sizeof *update->is_bound);
    if (update->tensors == NULL || update->sums == NULL || update->spans == NULL ||
        update->is_touched == NULL || update->is_bound == NULL) {
        return false;
    }
    update->scratch_bytes = scratch * sizeof(float);
    update->scratch = memory_new(update->scratch_bytes);
    return scratch == 0 || update->scratch != NULL;
}

bool update_memory_reserve(struct engine *engine, struct model *model,
                           const struct opt_spec *spec)
{
    struct update *update = &model->update;
    size_t bytes = update_memory_scratch(spec, model->largest) * sizeof(float);
    if (bytes <= update->scratch_bytes) {
        return true;
    }
    size_t more = bytes - update->scratch_bytes;
    if (!budget_take(&engine->budget, more)) {
        return false;
    }
    float *scratch = memory_new(bytes);
    if (scratch == NULL) {
        budget_give(&engine->budget, more);
        return false;
    }
    memory_free(update->scratch, update->scratch_bytes);
    update->scratch = scratch;
    update->scratch_bytes = bytes;
    model->reserved += more;
    return true;
}

void update_memory_fini(struct model *model)
{
    struct update *update = &model->update;
    memory_free(update->scratch, update->scratch_bytes);
    rows_fini(model);
    written_close(model);
    free(update->is_bound);
    free(update->is_touched);
    free(update->spans);
    free(update->sums);
    free(update->tensors);
}
