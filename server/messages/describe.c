/* describe — one model with its tensors and workers. */
#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/engine/members.h"
#include "server/engine/model.h"
#include "server/engine/registry.h"
#include "server/engine/waiting.h"
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

/* What is put together for the table and not kept. */
struct entries {
    struct opt_tensor_entry *tensors;
    struct opt_worker_entry *workers;
};

static bool entries_make(struct entries *entries, const struct model *model)
{
    struct opt_tensor_entry *tensors = calloc(model->tensor_count, sizeof *tensors);
    struct opt_worker_entry *workers = calloc(model->joined + 1, sizeof *workers);
    *entries = (struct entries){ tensors, workers };
    if (tensors == NULL || workers == NULL) {
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
    return true;
}

static struct opt_description describe(const struct model *model,
                                       const struct entries *entries,
                                       struct opt_change_entry *changes)
{
    for (size_t i = 0; i < model->changes.count; i++) {
        const struct change *change = model->changes.list[i];
        changes[i] =
            (struct opt_change_entry){ change->step, change->before, change->after };
    }
    return (struct opt_description){
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
        .tensors = entries->tensors,
        .tensor_count = model->tensor_count,
        .workers = entries->workers,
        .worker_count = model->joined,
        .changes = changes,
        .change_count = model->changes.count,
    };
}

/* False: the letter has been given its error. */
static bool make_table(struct letter *letter, const struct model *model)
{
    struct opt_change_entry changes[CHANGES_MAX];
    struct entries entries;
    size_t passing = model->tensor_count * sizeof *entries.tensors +
                     (model->joined + 1) * sizeof *entries.workers;
    if (!letter_pay_or_fail(letter, passing)) {
        return false;
    }
    bool made = entries_make(&entries, model);
    if (made) {
        struct opt_description description = describe(model, &entries, changes);
        size_t size = opt_description_pack(&description, NULL, 0);
        made = letter_pay_or_fail(letter, size + 1) && letter_table(letter, size);
        if (made) {
            opt_description_pack(&description, letter->table, size);
        }
    } else {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for the description of model \"%s\"", model->name);
    }
    free(entries.tensors);
    free(entries.workers);
    letter_refund(letter, passing);
    return made;
}

void serve_describe(struct engine *engine, struct letter *letter)
{
    struct model *model =
        engine_model_named(engine, letter, letter->request.body.describe);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    if (make_table(letter, model)) {
        engine_reply(letter, OPT_MESSAGE_DESCRIBE);
        engine_return(engine, letter);
    } else {
        engine_failed(engine, letter);
    }
}
