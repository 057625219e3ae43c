/* describe — one model with its tensors and workers. */
#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/engine/answer.h"
#include "server/engine/errand.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/waiting.h"
#include "server/workers/worker.h"

/* Some items or bytes are packed at a time. */
enum { ITEMS = 256, BYTES = 64 << 10, ITEM_COST = 128 };

/* A description on its way. It is measured, then written. The model is not idle
 * meanwhile, so that it stays as it is. */
struct describing {
    struct errand errand;
    struct opt_description description;
    struct opt_worker_entry *workers;
    size_t paid; /* for what is not kept */
    struct opt_change_entry changes[CHANGES_MAX];
    bool writes, failed;
    size_t item, size;
};

static struct opt_tensor_entry describe_tensor(const void *of, size_t i)
{
    const struct tensor *tensor = &((const struct model *)of)->tensors[i];
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
        .dropped = member->push_stats.dropped,
        .waits = member->push_stats.waits,
        .waited_us = member->push_stats.waited_ns / 1000,
        .resting = member->resting,
        .away = member->away,
        .resends = member->resends,
        .reconnects = member->worker->reconnects,
    };
    memcpy(entry.staleness, member->push_stats.staleness, sizeof entry.staleness);
    return entry;
}

static struct opt_description describe(const struct model *model,
                                       const struct opt_worker_entry *workers,
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
        .checkpoint_steps = model->durability.checkpoint_steps,
        .slots = model->slot_names,
        .slot_count = model->slot_count,
        .tensor_of = describe_tensor,
        .of = model,
        .tensor_count = model->tensor_count,
        .workers = workers,
        .worker_count = model->joined,
        .changes = changes,
        .change_count = model->changes.count,
    };
}

/* The next piece. A failure has given the letter its error. */
static bool go_on(struct engine *engine, struct model *model, struct errand *errand)
{
    struct describing *describing = (struct describing *)(void *)errand;
    struct letter *letter = errand->letter;
    size_t before = describing->size, first = describing->item;
    (void)model;
    bool over = opt_description_pack_some(
        &describing->description, &describing->item, ITEMS, BYTES,
        describing->writes ? letter->table : NULL, &describing->size);
    work_done(engine, ITEM_COST * (uint64_t)(describing->item - first) +
                          (describing->size - before) / 2);
    if (!over || describing->writes) {
        return over;
    }
    describing->failed = !letter_pay_or_fail(letter, describing->size + 1) ||
                         !letter_table(letter, describing->size);
    describing->writes = true;
    describing->item = 0;
    describing->size = 0;
    return describing->failed;
}

static void describing_free(struct describing *describing, struct letter *letter)
{
    letter_refund(letter, describing->paid);
    free(describing->workers);
    free(describing);
}

static void end(struct engine *engine, struct model *model, struct errand *errand)
{
    struct describing *describing = (struct describing *)(void *)errand;
    struct letter *letter = errand->letter;
    bool failed = describing->failed;
    (void)model;
    describing_free(describing, letter);
    if (failed) {
        answer_failed(engine, letter);
        return;
    }
    answer_start(letter, OPT_MESSAGE_DESCRIBE);
    answer_send(engine, letter);
}

/* Everything that is to be said but the tensors. NULL: the letter has its error. */
static struct describing *describing_new(struct letter *letter,
                                         const struct model *model)
{
    size_t paid = sizeof(struct describing) +
                  (model->joined + 1) * sizeof(struct opt_worker_entry);
    if (!letter_pay_or_fail(letter, paid)) {
        return NULL;
    }
    struct describing *describing = calloc(1, sizeof *describing);
    struct opt_worker_entry *workers = calloc(model->joined + 1, sizeof *workers);
    if (describing == NULL || workers == NULL) {
        free(describing);
        free(workers);
        letter_refund(letter, paid);
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for the description of model \"%s\"", model->name);
        return NULL;
    }
    size_t joined = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        if (model->members[i]->joined) {
            workers[joined++] = describe_worker(model->members[i]);
        }
    }
    describing->errand =
        (struct errand){ .go_on = go_on, .end = end, .letter = letter };
    describing->workers = workers;
    describing->paid = paid;
    describing->description = describe(model, workers, describing->changes);
    return describing;
}

void serve_describe(struct engine *engine, struct letter *letter)
{
    struct model *model = registry_named(engine, letter, letter->request.body.describe);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct describing *describing = describing_new(letter, model);
    if (describing == NULL) {
        answer_failed(engine, letter);
        return;
    }
    errand_begin(engine, model, &describing->errand);
}
