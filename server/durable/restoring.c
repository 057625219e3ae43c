/* restoring — see restoring.h. */
#include "server/durable/restoring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/base/letter.h"
#include "server/base/mailbox.h"
#include "server/durable/known.h"
#include "server/durable/remaking.h"
#include "server/durable/replaying.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/change.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/window.h"
#include "server/store/manifest.h"
#include "server/store/record.h"
#include "server/workers/membership.h"
#include "server/workers/worker.h"

struct restoring {
    struct engine *engine;
    struct peer *peer;  /* speaks for all workers meanwhile */
    struct mailbox box; /* letters come back there */
    bool has_box;
    struct known_models models;
    struct known_workers workers;
    struct remaking remaking;
    struct remake remake;             /* what it is about */
    struct remake_table table;        /* of a model that is made by an entry */
    struct model **model_out;         /* of a model that is made by a manifest */
    const struct record_entry *entry; /* in hand, or NULL */
    uint64_t record;
    bool begun; /* with the entry */
    struct restored_counts counts;
    enum opt_status status; /* of what was begun */
    struct opt_error error;
};

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                       "the system has no memory for it");
}

void restoring_pass_over(struct restoring *restoring, uint64_t identity)
{
    struct known_model *model = known_model(&restoring->models, identity, 0);
    if (model != NULL) {
        model->passed_over = true;
    }
}

bool restoring_is_torn(const struct restoring *restoring, uint64_t identity)
{
    const struct known_model *model = known_model_find(&restoring->models, identity);
    return model != NULL && model->model != NULL && model->model->update.parted;
}

uint64_t restoring_unknown(const struct restoring *restoring, uint64_t *record)
{
    for (size_t i = 0; i < restoring->models.count; i++) {
        const struct known_model *model = &restoring->models.list[i];
        if (model->model == NULL && !model->deleted && !model->passed_over) {
            *record = model->record;
            return model->identity;
        }
    }
    return 0;
}

bool restoring_was_deleted(const struct restoring *restoring, uint64_t identity)
{
    const struct known_model *model = known_model_find(&restoring->models, identity);
    return model != NULL && model->deleted;
}

struct restored_counts restoring_counts(const struct restoring *restoring)
{
    return restoring->counts;
}

/* ---------------------------------------------------------------- workers */

static enum opt_status restore_worker(struct restoring *restoring, const char *name,
                                      const struct record_worker *was, uint64_t record,
                                      struct worker **out, struct opt_error *error)
{
    bool known;
    bool news = known_worker_news(&restoring->workers, name, record, &known);
    *out = !known ? NULL
                  : worker_restore(restoring->engine, restoring->peer, name,
                                   news ? was : NULL);
    return *out != NULL ? OPT_OK : no_memory(error);
}

static enum opt_status restore_member(struct restoring *restoring, struct model *model,
                                      const char *name, const struct record_member *was,
                                      struct member **out, struct opt_error *error)
{
    struct worker *worker =
        worker_restore(restoring->engine, restoring->peer, name, NULL);
    return worker == NULL
               ? no_memory(error)
               : membership_restore(restoring->engine, model, worker, was, out, error);
}

/* ---------------------------------------------------------------- manifests */

void restoring_model(struct restoring *restoring, const struct manifest *manifest,
                     const struct remake_table *table, struct model **model)
{
    restoring->remake = (struct remake){
        .identity = manifest->identity,
        .name = manifest->name,
        .specification = manifest->specification,
        .consistency = manifest->consistency,
        .durability = manifest->durability,
        .checkpoint_steps = manifest->checkpoint_steps,
        .table = table,
        .manifest = manifest,
    };
    restoring->entry = NULL;
    restoring->model_out = model;
    restoring->status = OPT_OK;
    remaking_begin(&restoring->remaking, &restoring->remake);
}

static enum opt_status restore_members(struct restoring *restoring, struct model *model,
                                       const struct manifest *manifest,
                                       struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    for (size_t i = 0; status == OPT_OK && i < manifest->member_count; i++) {
        const struct manifest_member *was = &manifest->members[i];
        struct worker *worker;
        struct member *member;
        status = restore_worker(restoring, was->name, &was->worker, manifest->record,
                                &worker, error);
        if (status == OPT_OK) {
            status = membership_restore(restoring->engine, model, worker, &was->member,
                                        &member, error);
        }
        if (status == OPT_OK) {
            member->window = *was->window;
            member->applied = was->applied;
            member->duplicates = was->duplicates;
            member->refused = was->refused;
            member->resends = was->resends;
            member->push_stats.dropped = was->dropped;
        }
    }
    return status;
}

void restoring_ready(struct restoring *restoring)
{
    const struct manifest *manifest = restoring->remake.manifest;
    struct model *model = restoring->remaking.model;
    bool gathered = manifest->gathered;
    struct known_model *known =
        known_model(&restoring->models, manifest->identity, manifest->record);
    restoring->status =
        known == NULL ? no_memory(&restoring->error)
                      : restore_members(restoring, model, manifest, &restoring->error);
    model->gathered = gathered && model->joined > 0;
    model->durability.recorded = manifest->record;
    model->durability.saved = manifest->record;
    model->durability.saved_step = manifest->step;
    if (known != NULL) {
        known->model = model;
        known->record = manifest->record;
        known->passed_over = false;
    }
    model_ready(restoring->engine, model);
    work_settle(restoring->engine, model);
    restoring->counts.models++;
}

void restoring_undo(struct restoring *restoring)
{
    remaking_undo(restoring->engine, restoring->remaking.model);
}

void restoring_freeze(struct restoring *restoring, uint64_t identity)
{
    restoring_pass_over(restoring, identity);
}

static enum restored go_on_model(struct restoring *restoring, struct opt_error *error)
{
    switch (remaking_go_on(&restoring->remaking, error)) {
    case REMAKING_MORE:
        return RESTORING_MORE;
    case REMAKING_BUSY:
        return RESTORING_BUSY;
    case REMAKING_OVER:
        return RESTORING_OVER;
    default:
        return RESTORING_FAILED;
    }
}

/* ---------------------------------------------------------------- entries */

static enum restored failed(struct opt_error *error, enum opt_status status)
{
    (void)error;
    return status == OPT_OK ? RESTORING_OVER : RESTORING_FAILED;
}

/* An entry that makes a model: as of a manifest, but there is nothing to it yet. */
static enum restored make_model(struct restoring *restoring, struct opt_error *error)
{
    const struct record_entry *entry = restoring->entry;
    const struct record_made *made = &entry->of.made;
    if (!restoring->begun) {
        restoring->begun = true;
        if (!remaking_table(made->tensors, made->tensor_count, &restoring->table)) {
            return failed(error, no_memory(error));
        }
        restoring->remake = (struct remake){
            .identity = entry->model,
            .name = made->name,
            .specification = made->specification,
            .consistency = made->consistency,
            .durability = made->durability,
            .checkpoint_steps = made->checkpoint_steps,
            .table = &restoring->table,
        };
        remaking_begin(&restoring->remaking, &restoring->remake);
    }
    enum restored restored = go_on_model(restoring, error);
    if (restored == RESTORING_OVER) {
        struct known_model *known =
            known_model(&restoring->models, entry->model, restoring->record);
        if (known == NULL) {
            return failed(error, no_memory(error));
        }
        known->model = restoring->remaking.model;
        known->record = restoring->record - 1;
        restoring->counts.models++;
    }
    if (restored == RESTORING_OVER || restored == RESTORING_FAILED) {
        free(restoring->table.data);
        restoring->table.data = NULL;
    }
    return restored;
}

static enum opt_status assign(struct restoring *restoring, struct model *model,
                              struct opt_error *error)
{
    const struct record_weights *weights = &restoring->entry->of.weights;
    bool fits = weights->tensor < model->tensor_count && !model->ready &&
                weights->offset <= model->tensors[weights->tensor].n &&
                weights->count <= model->tensors[weights->tensor].n - weights->offset;
    if (!fits) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "it has %" PRIu64 " weights of tensor %" PRIu32
                        " from element %" PRIu64 " on, which the model does not take",
                        weights->count, weights->tensor, weights->offset);
    }
    const struct opt_segment segment = { .tensor = weights->tensor,
                                         .offset = weights->offset,
                                         .count = weights->count };
    model_assign(model, &segment, weights->dtype,
                 weights->values.part_count > 0 ? weights->values.parts->iov_base
                                                : NULL);
    work_done(restoring->engine, weights->count);
    return OPT_OK;
}

/* What takes effect has been stated before, so it has done that by now. */
static enum opt_status check_options(const struct restoring *restoring,
                                     const struct model *model, struct opt_error *error)
{
    const char *text = restoring->entry->of.text;
    if (strcmp(model->canonical, text) == 0) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_DATA_LOSS,
                    "its specification from update %" PRIu64
                    " on should be %.150s, and is %.150s",
                    restoring->entry->step, text, model->canonical);
}

static enum restored state_change(struct restoring *restoring, struct model *model,
                                  struct opt_error *error)
{
    if (!restoring->begun) {
        restoring->begun = true;
        remaking_state(&restoring->remaking, model, restoring->entry->of.stated.change,
                       restoring->entry->step);
    }
    switch (remaking_stated(&restoring->remaking, error)) {
    case REMAKING_OVER:
        return RESTORING_OVER;
    case REMAKING_FAILED:
        return RESTORING_FAILED;
    default:
        return RESTORING_BUSY;
    }
}

static enum restored replay(struct restoring *restoring, struct known_model *known,
                            struct opt_error *error)
{
    struct engine *engine = restoring->engine;
    if (known->replaying == NULL) {
        known->replaying = replaying_new(engine, known->model);
        if (known->replaying == NULL) {
            opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                        "there is no memory to make its updates again: %zu of the %zu "
                        "bytes that --memory allows are left",
                        budget_left(&engine->budget), engine->budget.limit);
            return RESTORING_FAILED;
        }
    }
    if (!restoring->begun) {
        restoring->begun = true;
        enum opt_status status =
            replaying_begin(known->replaying, restoring->entry, error);
        if (status != OPT_OK) {
            return RESTORING_FAILED;
        }
    }
    return replaying_run(known->replaying, error);
}

/* The update is over: what was stated for the next one takes effect. */
static enum opt_status end_step(struct restoring *restoring, struct model *model,
                                struct opt_error *error)
{
    if (model->step != restoring->entry->step) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "it ends update %" PRIu64 ", and the model has had %" PRIu64,
                        restoring->entry->step, model->step);
    }
    model->advanced = true;
    change_due(restoring->engine, model);
    restoring->counts.steps++;
    return OPT_OK;
}

/* What a settled push leaves behind, but for what it has done to the weights. */
static void count_push(struct known_model *known, struct member *member,
                       const struct opt_settled *settled, uint64_t record)
{
    struct model *model = known->model;
    switch (settled->fate) {
    case OPT_FATE_APPLIED:
        model->pushes_applied++;
        member->applied++;
        break;
    case OPT_FATE_DROPPED:
        model->dropped++;
        member->push_stats.dropped++;
        break;
    case OPT_FATE_SKIPPED: /* all of a round are in one record */
        model->rounds_skipped += known->skipped != record;
        known->skipped = record;
        break;
    default:
        break;
    }
}

static enum opt_status restore_of_member(struct restoring *restoring,
                                         struct known_model *known,
                                         struct opt_error *error)
{
    const struct record_entry *entry = restoring->entry;
    bool push = entry->kind == RECORD_PUSH;
    struct member *member;
    enum opt_status status = restore_member(
        restoring, known->model, entry->worker,
        push ? &entry->of.push.member : &entry->of.member, &member, error);
    if (status == OPT_OK && push) {
        window_settle(&member->window, &entry->of.push.settled);
        count_push(known, member, &entry->of.push.settled, restoring->record);
        restoring->counts.pushes++;
    }
    return status;
}

static void forget(struct restoring *restoring, struct model *model)
{
    struct worker *worker =
        names_find(&restoring->engine->workers, restoring->entry->worker);
    struct member *member = worker == NULL ? NULL : worker->members;
    while (member != NULL && member->model != model) {
        member = member->next_of_worker;
    }
    if (member != NULL) {
        membership_forget(restoring->engine, member);
    }
}

static void end_model(struct restoring *restoring, struct known_model *known)
{
    replaying_free(known->replaying);
    known->replaying = NULL;
    remaking_undo(restoring->engine, known->model);
    known->model = NULL;
    known->deleted = true;
    restoring->counts.models--;
}

static enum restored restore_of_model(struct restoring *restoring,
                                      struct known_model *known,
                                      struct opt_error *error)
{
    struct model *model = known->model;
    switch (restoring->entry->kind) {
    case RECORD_WEIGHTS:
        return failed(error, assign(restoring, model, error));
    case RECORD_READY:
        model_ready(restoring->engine, model);
        return RESTORING_OVER;
    case RECORD_STATED:
        return state_change(restoring, model, error);
    case RECORD_OPTIONS:
        return failed(error, check_options(restoring, model, error));
    case RECORD_BATCH:
        return replay(restoring, known, error);
    case RECORD_STEP:
        return failed(error, end_step(restoring, model, error));
    case RECORD_MEMBER:
    case RECORD_PUSH:
        return failed(error, restore_of_member(restoring, known, error));
    case RECORD_FORGOTTEN:
        forget(restoring, model);
        return RESTORING_OVER;
    case RECORD_GONE:
        end_model(restoring, known);
        return RESTORING_OVER;
    default:
        return RESTORING_OVER;
    }
}

/* An entry of a model that nothing is known of: it must be one that is deleted later,
 * whose checkpoints have gone already. */
static enum restored meet_unknown(struct restoring *restoring, struct opt_error *error)
{
    const struct record_entry *entry = restoring->entry;
    struct known_model *known =
        known_model(&restoring->models, entry->model, restoring->record);
    if (known == NULL) {
        return failed(error, no_memory(error));
    }
    known->deleted = known->deleted || entry->kind == RECORD_GONE;
    return RESTORING_OVER;
}

void restoring_entry(struct restoring *restoring, const struct record_entry *entry,
                     uint64_t record)
{
    restoring->entry = entry;
    restoring->record = record;
    restoring->begun = false;
    restoring->status = OPT_OK;
    restoring->counts.entries++;
}

static enum restored go_on_entry(struct restoring *restoring, struct opt_error *error)
{
    const struct record_entry *entry = restoring->entry;
    struct worker *worker;
    if (entry->kind == RECORD_WORKER) {
        return failed(error, restore_worker(restoring, entry->worker, &entry->of.worker,
                                            restoring->record, &worker, error));
    }
    struct known_model *known = known_model_find(&restoring->models, entry->model);
    if (known == NULL && entry->kind == RECORD_MODEL) {
        return make_model(restoring, error);
    }
    if (known != NULL && known->model != NULL && restoring->record <= known->record) {
        return RESTORING_OVER; /* the checkpoint has it */
    }
    if (known == NULL || known->model == NULL || known->passed_over) {
        return meet_unknown(restoring, error);
    }
    if (entry->kind == RECORD_MODEL) {
        opt_fail(error, OPT_DATA_LOSS, "it makes a model that there is already");
        return RESTORING_FAILED;
    }
    known->model->durability.recorded = restoring->record;
    return restore_of_model(restoring, known, error);
}

enum restored restoring_go_on(struct restoring *restoring, struct opt_error *error)
{
    if (restoring->status != OPT_OK) {
        *error = restoring->error;
        return RESTORING_FAILED;
    }
    if (restoring->entry != NULL) {
        return go_on_entry(restoring, error);
    }
    enum restored restored = go_on_model(restoring, error);
    if (restored == RESTORING_OVER) {
        *restoring->model_out = restoring->remaking.model;
    }
    return restored;
}

/* ---------------------------------------------------------------- begin and end */

enum opt_status restoring_open(struct engine *engine, struct restoring **out,
                               struct opt_error *error)
{
    struct restoring *restoring = calloc(1, sizeof *restoring);
    if (restoring == NULL) {
        return no_memory(error);
    }
    restoring->engine = engine;
    restoring->peer = calloc(1, sizeof *restoring->peer);
    restoring->has_box = mailbox_init(&restoring->box) == 0;
    restoring->remaking = (struct remaking){ .engine = engine,
                                             .peer = restoring->peer,
                                             .home = &restoring->box };
    if (restoring->peer == NULL || !restoring->has_box) {
        restoring_close(restoring);
        return no_memory(error);
    }
    restoring->peer->greeted = true;
    *out = restoring;
    return OPT_OK;
}

void restoring_close(struct restoring *restoring)
{
    if (restoring == NULL) {
        return;
    }
    known_models_fini(&restoring->models);
    known_workers_fini(&restoring->workers);
    if (restoring->has_box) {
        mailbox_fini(&restoring->box);
    }
    free(restoring->table.data);
    free(restoring->peer);
    free(restoring);
}

void restoring_end(struct restoring *restoring)
{
    struct engine *engine = restoring->engine;
    for (size_t i = engine->model_count; i-- > 0;) {
        struct model *model = engine->numbered[i];
        if (!model->ready) {
            opt_log(OPT_LOG_WARN, "model_deleted",
                    "model=%s identity=%016" PRIx64 " step=%" PRIu64 " why=%s",
                    model->name, model->identity, model->step,
                    "the daemon ended before all of its weights were assigned; create "
                    "it again");
            struct known_model *known =
                known_model_find(&restoring->models, model->identity);
            if (known != NULL) {
                replaying_free(known->replaying);
                known->replaying = NULL;
                known->model = NULL;
            }
            commit_model(engine, COMMIT_GONE, model);
            remaking_undo(engine, model);
            restoring->counts.models--;
        }
    }
    for (size_t i = 0; i < engine->workers.capacity;) {
        struct worker *worker = engine->workers.slots[i].thing;
        if (worker != NULL && worker->peer == restoring->peer) {
            /* One that is forgotten may give its place to another. */
            membership_restored(engine, worker);
            continue;
        }
        i++;
    }
}
