/* recovery — see recovery.h. */
#include "server/durable/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/log.h"
#include "server/durable/journaling.h"
#include "server/durable/recorder.h"
#include "server/durable/recovery_journal.h"
#include "server/durable/recovery_state.h"
#include "server/durable/recovery_view.h"
#include "server/durable/restoring.h"
#include "server/durable/saving.h"
#include "server/durable/wishes.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/store/data_dir.h"
#include "server/store/failpoint.h"
#include "server/store/manifest.h"

enum {
    PIECE_NS = 1000000,
    TELL_NS = 2000000000 /* between two lines of the log */
};

static void find_models(struct recovery *recovery)
{
    struct reading_job *job = &recovery->checkpoints;
    (void)failpoint("recovery_finds");
    job->status = found_models_find(&recovery->found, &job->error);
}

static void open_model(struct recovery *recovery)
{
    struct reading_job *job = &recovery->checkpoints;
    job->status = found_model_open(&recovery->found.list[recovery->at], &job->error);
}

static void read_model(struct recovery *recovery)
{
    struct reading_job *job = &recovery->checkpoints;
    (void)failpoint("recovery_reads_model");
    job->status = found_model_read(&recovery->found,
                                   &recovery->found.list[recovery->at], &job->error);
}

static void end_journal(struct recovery *recovery)
{
    struct reading_job *job = &recovery->journal;
    (void)failpoint("recovery_ends");
    job->status = recovery_end_write(&recovery->end, &job->error);
    (void)failpoint("recovery_ended");
}

static bool fail_of(struct recovery *recovery, const struct found_model *model,
                    const struct opt_error *why)
{
    struct opt_error error;
    opt_fail_as(&error, why->status, why->detail,
                "cannot recover model \"%.60s\" from %.120s/%s: %.300s", model->name,
                model->path, model->checkpoints[model->at].name, why->text);
    return recovery_fail(recovery, &error);
}

/* ---------------------------------------------------------------- checkpoints */

/* The next model; the last is followed by the journal. */
static bool next_model(struct recovery *recovery)
{
    const struct found_models *found = &recovery->found;
    for (; recovery->at < found->count; recovery->at++) {
        const struct found_model *model = &found->list[recovery->at];
        if (model->passed_over) {
            restoring_pass_over(recovery->restoring, model->identity);
        } else if (!model->absent) {
            return recovery_go_to(recovery, RECOVERY_OPEN);
        }
    }
    return recovery_go_to(recovery, RECOVERY_JOURNAL);
}

/* A job of the checkpoints' thread: false, it has to be waited for. */
static bool is_read(struct recovery *recovery, void (*work)(struct recovery *recovery))
{
    if (!recovery->begun) {
        recovery->begun = true;
        recovery_start(recovery, &recovery->checkpoints,
                       recovery->durable->checkpoint_disk, work);
    }
    return !recovery->checkpoints.running;
}

/* The checkpoint in hand cannot be read: the one before is taken, or that is the end.
 */
static bool fall_back(struct recovery *recovery, const struct opt_error *error)
{
    struct found_models *found = &recovery->found;
    struct found_model *model = &found->list[recovery->at];
    bool falls = found_model_fall_back(found, model, error);
    while (falls && model->at < model->count &&
           model->checkpoints[model->at].error.status != OPT_OK) {
        falls =
            found_model_fall_back(found, model, &model->checkpoints[model->at].error);
    }
    if (!falls) {
        return fail_of(recovery, model, error);
    }
    if (model->at == model->count) {
        model->absent = true;
        return next_model(recovery);
    }
    model->record = model->checkpoints[model->at].record;
    model->step = model->checkpoints[model->at].step;
    return recovery_go_to(recovery, RECOVERY_OPEN);
}

static bool find(struct recovery *recovery)
{
    if (!is_read(recovery, find_models)) {
        return false;
    }
    if (recovery->checkpoints.status != OPT_OK) {
        return recovery_fail(recovery, &recovery->checkpoints.error);
    }
    opt_log(OPT_LOG_INFO, "recovering", "data_dir=%s models=%zu bytes=%" PRIu64,
            recovery->durable->settings.dir->path, recovery->found.count,
            recovery->found.bytes);
    return next_model(recovery);
}

static bool open_next(struct recovery *recovery)
{
    if (!is_read(recovery, open_model)) {
        return false;
    }
    return recovery->checkpoints.status == OPT_OK
               ? recovery_go_to(recovery, RECOVERY_MAKE)
               : fall_back(recovery, &recovery->checkpoints.error);
}

/* Go on with a model; OVER: *over. */
static bool restore(struct recovery *recovery, bool *over)
{
    struct opt_error error;
    struct found_model *model = &recovery->found.list[recovery->at];
    switch (restoring_go_on(recovery->restoring, &error)) {
    case RESTORING_OVER:
        *over = true;
        return true;
    case RESTORING_FAILED:
        return fail_of(recovery, model, &error);
    default:
        return true;
    }
}

static bool make(struct recovery *recovery)
{
    struct found_model *model = &recovery->found.list[recovery->at];
    bool over = false;
    if (!recovery->begun) {
        recovery->begun = true;
        restoring_model(recovery->restoring, checkpoint_manifest(model->reader),
                        &model->table, &model->model);
    }
    bool more = restore(recovery, &over);
    return over ? recovery_go_to(recovery, RECOVERY_READ) : more;
}

static bool read(struct recovery *recovery)
{
    if (!is_read(recovery, read_model)) {
        return false;
    }
    if (recovery->checkpoints.status == OPT_OK) {
        restoring_ready(recovery->restoring);
        return recovery_go_to(recovery, RECOVERY_MEMBERS);
    }
    recovery->found.list[recovery->at].model = NULL;
    restoring_undo(recovery->restoring);
    return fall_back(recovery, &recovery->checkpoints.error);
}

static bool add_members(struct recovery *recovery)
{
    bool over = false;
    bool more = restore(recovery, &over);
    if (!over) {
        return more;
    }
    found_model_close(&recovery->found.list[recovery->at]);
    recovery->at++;
    return next_model(recovery);
}

/* ---------------------------------------------------------------- the end */

/* Entries of a model that nobody knows: its checkpoints are missing. */
static bool check_unknown(struct recovery *recovery)
{
    struct opt_error error;
    uint64_t record, identity;
    while ((identity = restoring_unknown(recovery->restoring, &record)) != 0) {
        opt_fail(&error, OPT_DATA_LOSS,
                 "the journal in %.200s has updates of model %016" PRIx64
                 ", first in record %" PRIu64
                 ", but there is no checkpoint of it in models/%016" PRIx64,
                 recovery->durable->settings.dir->path, identity, record, identity);
        if (!recovery->durable->settings.recover_previous) {
            return recovery_fail(recovery, &error);
        }
        opt_log(OPT_LOG_WARN, "model_lost", "model=%016" PRIx64 " why=%s", identity,
                error.text);
        restoring_pass_over(recovery->restoring, identity);
    }
    return true;
}

static bool begin_end(struct recovery *recovery)
{
    struct recovery_end *end = &recovery->end;
    if (!check_unknown(recovery)) {
        return false;
    }
    end->dir = recovery->durable->settings.dir;
    end->place = recovery->place;
    end->found = &recovery->found;
    end->reader = &recovery->reading.reader;
    end->damage = recovery->damage.status != OPT_OK ? &recovery->damage : NULL;
    for (size_t i = 0; i < recovery->found.count; i++) {
        struct found_model *model = &recovery->found.list[i];
        uint64_t next = model->record + 1;
        end->next = model->checkpoints_only || next <= end->next ? end->next : next;
        if (restoring_was_deleted(recovery->restoring, model->identity)) {
            model->model = NULL;
            model->passed_over = true;
        }
        model->deleted = restoring_was_deleted(recovery->restoring, model->identity);
    }
    recovery_start(recovery, &recovery->journal, recovery->durable->journal_disk,
                   end_journal);
    return true;
}

static void tell_end(const struct recovery *recovery)
{
    struct restored_counts counts = restoring_counts(recovery->restoring);
    opt_log(OPT_LOG_INFO, "recovered",
            "models=%" PRIu64 " steps=%" PRIu64 " pushes=%" PRIu64 " records=%" PRIu64
            " bytes=%" PRIu64 " ms=%" PRIu64,
            counts.models, counts.steps, counts.pushes, recovery->records,
            recovery->found.bytes + recovery->journal_bytes,
            (uv_hrtime() - recovery->began_ns) / 1000000);
}

/* From now on models are saved when they are due. */
static void take_up(const struct recovery *recovery)
{
    struct durable *durable = recovery->durable;
    for (size_t i = 0; i < recovery->found.count; i++) {
        const struct found_model *model = &recovery->found.list[i];
        if (model->model != NULL) {
            const struct granted newest = { .step = model->step,
                                            .record = model->record,
                                            .name =
                                                model->checkpoints[model->at].name };
            saving_take_up(durable, model->model, &newest);
        }
    }
    for (size_t i = 0; i < durable->engine->model_count; i++) {
        if (durable->engine->numbered[i]->keep == NULL) {
            saving_take_up(durable, durable->engine->numbered[i], NULL);
        }
    }
    if (recovery->end.save_all) {
        saving_all(durable);
    }
}

static bool end(struct recovery *recovery)
{
    struct durable *durable = recovery->durable;
    struct reading_job *job = &recovery->journal;
    struct opt_error error;
    if (!recovery->begun) {
        recovery->begun = true;
        if (!begin_end(recovery)) {
            return false;
        }
    }
    if (job->running) {
        return false;
    }
    if (job->status != OPT_OK) {
        return recovery_fail(recovery, &job->error);
    }
    struct journal *journal = recovery->end.journal;
    recovery->end.journal = NULL;
    if (journaling_start(durable, journal, &error) != OPT_OK) {
        return recovery_fail(recovery, &error);
    }
    recorder_start(durable);
    take_up(recovery);
    restoring_end(recovery->restoring);
    tell_end(recovery);
    durable->settings.recovered(durable->settings.context, NULL);
    recovery_journal_end(recovery);
    recovery_close(durable);
    return true;
}

/* ---------------------------------------------------------------- the course */

static bool piece(struct recovery *recovery)
{
    switch (recovery->stage) {
    case RECOVERY_FIND:
        return find(recovery);
    case RECOVERY_OPEN:
        return open_next(recovery);
    case RECOVERY_MAKE:
        return make(recovery);
    case RECOVERY_READ:
        return read(recovery);
    case RECOVERY_MEMBERS:
        return add_members(recovery);
    case RECOVERY_JOURNAL:
        return recovery_journal_begin(recovery);
    case RECOVERY_RECORDS:
        return recovery_journal_go_on(recovery);
    case RECOVERY_END:
        return end(recovery);
    default:
        return false;
    }
}

static void tell_progress(struct recovery *recovery, uint64_t now)
{
    if (now - recovery->told_ns < TELL_NS) {
        return;
    }
    recovery->told_ns = now;
    struct restored_counts counts = restoring_counts(recovery->restoring);
    opt_log(OPT_LOG_INFO, "recovery_progress",
            "percent=%" PRIu32 " models=%" PRIu64 " steps=%" PRIu64 " records=%" PRIu64,
            recovery_percent(recovery->durable), counts.models, counts.steps,
            recovery->records);
}

bool recovery_go_on(struct durable *durable)
{
    struct recovery *recovery = durable->recovery;
    struct opt_error error;
    uint64_t now = uv_hrtime();
    if (recovery->restoring == NULL && recovery->stage != RECOVERY_FAILED) {
        recovery->began_ns = now;
        recovery->told_ns = now;
        if (restoring_open(durable->engine, &recovery->restoring, &error) != OPT_OK) {
            return recovery_fail(recovery, &error);
        }
    }
    if (recovery->stage == RECOVERY_FAILED || atomic_load(&recovery->found.stopping)) {
        return false;
    }
    tell_progress(recovery, now);
    atomic_store(&durable->percent, recovery_percent(durable));
    uint64_t cost = durable->engine->turn_cost;
    bool more;
    do {
        more = piece(recovery);
    } while (more && durable->recovery != NULL && durable->engine->busy_first == NULL &&
             durable->engine->dead == NULL && durable->engine->outbox.first == NULL &&
             durable->engine->refused.first == NULL &&
             durable->engine->turn_cost - cost < PIECE_NS &&
             uv_hrtime() - now < PIECE_NS);
    return more;
}

void recovery_stop(struct durable *durable)
{
    if (durable->recovery != NULL) {
        atomic_store(&durable->recovery->found.stopping, true);
    }
}

enum opt_status recovery_open(struct durable *durable, struct opt_error *error)
{
    struct recovery *recovery = calloc(1, sizeof *recovery);
    if (recovery == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for a recovery");
    }
    recovery->durable = durable;
    recovery->found.dir = durable->settings.dir;
    snprintf(durable->journal_path, sizeof durable->journal_path, "%s/journal",
             durable->settings.dir->path);
    recovery->place =
        (struct journal_place){ .folder = durable->settings.dir->journal,
                                .path = durable->journal_path,
                                .identity = durable->settings.dir->identity };
    recovery->found.previous = durable->settings.recover_previous;
    durable->recovery = recovery;
    return OPT_OK;
}

void recovery_close(struct durable *durable)
{
    struct recovery *recovery = durable->recovery;
    if (recovery == NULL) {
        return;
    }
    recovery_journal_end(recovery);
    found_models_fini(&recovery->found);
    restoring_close(recovery->restoring);
    journal_free(recovery->end.journal);
    free(recovery);
    durable->recovery = NULL;
}
