/* describe — one model with its tensors and workers. */
#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/engine/flow.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/worker.h"
#include "server/messages/serve.h"

static struct opt_tensor_entry describe_tensor(const struct tensor *tensor)
{
    return (struct opt_tensor_entry){
        .name = tensor->name,
        .shape = tensor->shape,
        .rank = tensor->rank,
        .elements = tensor->n,
        .step = tensor->counters.t,
        .sparse = tensor->width > 0,
    };
}

static struct opt_worker_entry describe_worker(const struct member *member)
{
    struct opt_worker_entry entry = {
        .name = member->worker->name,
        .incarnation = member->worker->incarnation,
        .connected = member->worker->peer != NULL,
        .pushed = member->first != NULL,
        .last_sequence = member->window.last,
        .last_step = member->last_step,
        .applied = member->applied,
        .duplicates = member->duplicates,
        .refused = member->refused,
        .dropped = member->conduct.dropped,
        .waits = member->conduct.waits,
        .waited_us = member->conduct.waited_ns / 1000,
        .resting = member->resting,
        .away = member->away,
        .resends = member->resends,
        .reconnects = member->worker->reconnects,
    };
    memcpy(entry.staleness, member->conduct.staleness, sizeof entry.staleness);
    return entry;
}

static bool make_table(struct letter *letter, const struct model *model)
{
    struct opt_tensor_entry *tensors = calloc(model->tensor_count, sizeof *tensors);
    struct opt_worker_entry *workers = calloc(model->joined + 1, sizeof *workers);
    struct opt_change_entry changes[CHANGES_MAX];
    if (tensors == NULL || workers == NULL) {
        free(tensors);
        free(workers);
        return false;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        tensors[i] = describe_tensor(&model->tensors[i]);
    }
    size_t joined = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        if (model->members[i]->joined) {
            workers[joined++] = describe_worker(model->members[i]);
        }
    }
    for (size_t i = 0; i < model->changes.count; i++) {
        const struct change *change = model->changes.list[i];
        changes[i] =
            (struct opt_change_entry){ change->step, change->before, change->after };
    }
    struct opt_description description = {
        .summary = serve_summary(model),
        .consistency = model->consistency,
        .ready = model->ready,
        .epoch = model_epoch(model),
        .lr = opt_schedule_lr(&model->spec.options, model->step + 1),
        .bytes = (1 + model->slot_count) * model->floats * sizeof(float),
        .rounds_skipped = model->rounds_skipped,
        .rounds = model->step + model->rounds_skipped,
        .dropped = model->dropped,
        .mean_staleness = model->pushes_applied == 0
                              ? 0
                              : model->staleness_sum / (double)model->pushes_applied,
        .slots = model->slot_names,
        .slot_count = model->slot_count,
        .tensors = tensors,
        .tensor_count = model->tensor_count,
        .workers = workers,
        .worker_count = joined,
        .changes = changes,
        .change_count = model->changes.count,
    };
    size_t size = opt_description_pack(&description, NULL, 0);
    letter->table = malloc(size + 1);
    if (letter->table != NULL) {
        letter->table_size = opt_description_pack(&description, letter->table, size);
    }
    free(tensors);
    free(workers);
    return letter->table != NULL;
}

void serve_describe(struct engine *engine, struct letter *letter)
{
    struct model *model =
        engine_model_named(engine, letter, letter->request.body.describe);
    if (model == NULL || flow_postponed(engine, model, letter, false)) {
        return;
    }
    if (!make_table(letter, model)) {
        engine_fail(engine, letter, OPT_RESOURCE_EXHAUSTED,
                    "no memory for the description of model \"%s\"", model->name);
        return;
    }
    engine_reply(letter, OPT_MESSAGE_DESCRIBE);
    engine_return(engine, letter);
}
