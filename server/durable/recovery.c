/* recovery — see recovery.h. */
#include "server/durable/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/log.h"
#include "server/durable/found_models.h"
#include "server/durable/journal_batch.h"
#include "server/durable/journaling.h"
#include "server/durable/recorder.h"
#include "server/durable/recovery_end.h"
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
    TELL_NS = 2000000000, /* between two lines of the log */
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 1000
};

enum stage {
    FIND,
    OPEN,    /* the next model's checkpoint */
    MAKE,    /* that model again */
    READ,    /* its values */
    MEMBERS, /* and who is in it */
    JOURNAL, /* open it */
    RECORDS, /* make true what it says */
    END,     /* go on writing behind it */
    FAILED
};

/* What a disk's thread does for the recovery; one thing at a time each. */
struct reading_job {
    struct durable_job job;
    void (*work)(struct recovery *recovery);
    bool running;
    enum opt_status status;
    struct opt_error error;
};

struct half {
    struct journal_batch batch;
    bool filled;
    size_t charged; /* of the budget */
};

struct recovery {
    struct durable *durable;
    struct restoring *restoring;
    enum stage stage;
    bool begun; /* with what the stage does */
    struct found_models found;
    size_t at; /* of the models */
    struct reading_job checkpoints, journal;
    struct journal_reading reading;
    struct journal_place place;
    struct opt_error damage; /* of the journal, before its end; OPT_OK: none */
    struct half halves[2];
    size_t filling, taking;
    size_t record, entry; /* of the half that is taken */
    bool entry_begun;
    uint64_t journal_bytes, journal_done;
    struct recovery_end end;
    uint64_t began_ns, told_ns;
    uint64_t records;
};

/* ---------------------------------------------------------------- the disks */

static bool run_job(struct disk *disk, struct disk_job *job)
{
    struct reading_job *reading = (struct reading_job *)(void *)job;
    (void)disk;
    reading->work(reading->job.durable->recovery);
    return true;
}

static void job_done(struct durable *durable, struct durable_job *job)
{
    (void)durable;
    ((struct reading_job *)(void *)job)->running = false;
}

static void start(struct recovery *recovery, struct reading_job *job, struct disk *disk,
                  void (*work)(struct recovery *recovery))
{
    job->job = (struct durable_job){ .disk.run = run_job,
                                     .durable = recovery->durable,
                                     .done = job_done };
    job->work = work;
    job->running = true;
    job->status = OPT_OK;
    disk_do(disk, &job->job.disk);
}

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

static void open_journal(struct recovery *recovery)
{
    struct reading_job *job = &recovery->journal;
    job->status = journal_reader_open_damaged(
        &recovery->place, &recovery->reading.reader, &recovery->damage, &job->error);
}

static void fill_batch(struct recovery *recovery)
{
    (void)failpoint("recovery_reads_journal");
    journal_batch_fill(&recovery->halves[recovery->filling].batch, &recovery->reading);
}

static void end_journal(struct recovery *recovery)
{
    struct reading_job *job = &recovery->journal;
    (void)failpoint("recovery_ends");
    job->status = recovery_end_write(&recovery->end, &job->error);
    (void)failpoint("recovery_ended");
}

/* ---------------------------------------------------------------- failing */

/* What an operator may do is said with it. */
static bool fail(struct recovery *recovery, const struct opt_error *why)
{
    const struct durable_settings *settings = &recovery->durable->settings;
    struct opt_error error = *why;
    bool memory = why->status == OPT_RESOURCE_EXHAUSTED;
    bool damaged = why->status == OPT_DATA_LOSS;
    if (memory && why->detail == OPT_DETAIL_NO_MEMORY) {
        opt_fail_as(&error, why->status, why->detail,
                    "%.380s; give it more (--memory) to recover what is in %.60s",
                    why->text, settings->dir->path);
    } else if (damaged && strstr(why->text, "--recover=previous") != NULL) {
        opt_fail_as(&error, why->status, why->detail,
                    "%.400s; optctl verify %.60s tells all that is damaged", why->text,
                    settings->dir->path);
    } else if (damaged && !settings->recover_previous) {
        opt_fail_as(&error, why->status, why->detail,
                    "%.340s; put a whole copy back, or go on from an older state "
                    "(optimd --recover=previous); optctl verify %.60s tells all that "
                    "is damaged",
                    why->text, settings->dir->path);
    }
    recovery->stage = FAILED;
    recovery->begun = true;
    settings->recovered(settings->context, &error);
    return false;
}

static bool fail_of(struct recovery *recovery, const struct found_model *model,
                    const struct opt_error *why)
{
    struct opt_error error;
    opt_fail_as(&error, why->status, why->detail,
                "cannot recover model \"%.60s\" from %.120s/%s: %.300s", model->name,
                model->path, model->checkpoints[model->at].name, why->text);
    return fail(recovery, &error);
}

/* ---------------------------------------------------------------- checkpoints */

static bool go_to(struct recovery *recovery, enum stage stage)
{
    recovery->stage = stage;
    recovery->begun = false;
    return true;
}

/* The next model; the last is followed by the journal. */
static bool next_model(struct recovery *recovery)
{
    const struct found_models *found = &recovery->found;
    for (; recovery->at < found->count; recovery->at++) {
        const struct found_model *model = &found->list[recovery->at];
        if (model->passed_over) {
            restoring_pass_over(recovery->restoring, model->identity);
        } else if (!model->absent) {
            return go_to(recovery, OPEN);
        }
    }
    return go_to(recovery, JOURNAL);
}

/* A job of the checkpoints' thread: false, it has to be waited for. */
static bool is_read(struct recovery *recovery, void (*work)(struct recovery *recovery))
{
    if (!recovery->begun) {
        recovery->begun = true;
        start(recovery, &recovery->checkpoints, recovery->durable->checkpoint_disk,
              work);
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
    return go_to(recovery, OPEN);
}

static bool find(struct recovery *recovery)
{
    if (!is_read(recovery, find_models)) {
        return false;
    }
    if (recovery->checkpoints.status != OPT_OK) {
        return fail(recovery, &recovery->checkpoints.error);
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
               ? go_to(recovery, MAKE)
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
    return over ? go_to(recovery, READ) : more;
}

static bool read(struct recovery *recovery)
{
    if (!is_read(recovery, read_model)) {
        return false;
    }
    if (recovery->checkpoints.status == OPT_OK) {
        restoring_ready(recovery->restoring);
        return go_to(recovery, MEMBERS);
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

/* ---------------------------------------------------------------- the journal */

/* Of models whose checkpoint is older than what the journal still has, no more is to be
 * had than that checkpoint. False: it has failed. */
static bool look_back(struct recovery *recovery)
{
    struct journal_reader *reader = recovery->reading.reader;
    uint64_t first = journal_reader_first(reader);
    struct opt_error error;
    for (size_t i = 0; i < recovery->found.count; i++) {
        const struct found_model *model = &recovery->found.list[i];
        bool reaches = model->record + 1 >= first &&
                       (model->record == 0 || !journal_reader_is_empty(reader));
        if (reaches || model->checkpoints_only || model->model == NULL) {
            continue;
        }
        (void)journal_reader_seek(reader, model->record + 1, &error);
        if (!recovery->durable->settings.recover_previous) {
            return fail(recovery, &error);
        }
        opt_log(OPT_LOG_WARN, "updates_lost",
                "model=%s step=%" PRIu64 " record=%" PRIu64 " why=%s", model->name,
                model->step, model->record,
                "the journal does not go back to its checkpoint: all that came after "
                "that step is lost");
        restoring_freeze(recovery->restoring, model->identity);
        recovery->end.save_all = true;
    }
    return true;
}

static bool begin_journal(struct recovery *recovery)
{
    struct reading_job *job = &recovery->journal;
    if (!recovery->begun) {
        recovery->begun = true;
        start(recovery, job, recovery->durable->journal_disk, open_journal);
    }
    if (job->running) {
        return false;
    }
    if (job->status != OPT_OK) {
        return fail(recovery, &job->error);
    }
    if (recovery->damage.status != OPT_OK &&
        !recovery->durable->settings.recover_previous) {
        return fail(recovery, &recovery->damage);
    }
    if (!look_back(recovery)) {
        return false;
    }
    recovery->journal_bytes = journal_reader_bytes(recovery->reading.reader);
    return go_to(recovery, RECORDS);
}

/* Have the half filled; it has room for so many bytes first. */
static enum opt_status fill(struct recovery *recovery, size_t which, size_t room,
                            struct opt_error *error)
{
    struct engine *engine = recovery->durable->engine;
    struct half *half = &recovery->halves[which];
    if (room > half->batch.capacity) {
        budget_give(&engine->budget, half->charged);
        half->charged = 0;
        if (!budget_take(&engine->budget, room)) {
            return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                               "a record of the journal has %zu bytes, and %zu of the "
                               "%zu that --memory allows are left",
                               room, budget_left(&engine->budget),
                               engine->budget.limit);
        }
        half->charged = room;
        if (!journal_batch_room(&half->batch, room)) {
            return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                               "the system has no memory for a record of %zu bytes",
                               room);
        }
    }
    half->filled = false;
    recovery->filling = which;
    start(recovery, &recovery->journal, recovery->durable->journal_disk, fill_batch);
    return OPT_OK;
}

/* The thread has filled a half: it goes on with the other one. */
static bool follow(struct recovery *recovery)
{
    struct half *half = &recovery->halves[recovery->filling];
    struct half *other = &recovery->halves[1 - recovery->filling];
    struct opt_error error;
    enum opt_status status = OPT_OK;
    if (recovery->journal.running || half->filled) {
        if (recovery->journal.running || other->filled ||
            half->batch.status != OPT_OK) {
            return true;
        }
        status = fill(recovery, 1 - recovery->filling,
                      other->batch.capacity > 0 ? 0 : half->batch.capacity, &error);
        return status == OPT_OK ? true : fail(recovery, &error);
    }
    if (half->batch.status == OPT_RESOURCE_EXHAUSTED && half->batch.needs > 0) {
        status = fill(recovery, recovery->filling, half->batch.needs, &error);
        return status == OPT_OK ? true : fail(recovery, &error);
    }
    half->filled = true;
    return true;
}

/* An entry cannot be what a daemon has written, or there is no memory. */
static bool refuse_entry(struct recovery *recovery, const struct journal_batch *batch,
                         const struct opt_error *why)
{
    const struct batch_record *record = &batch->records[recovery->record];
    const struct record_entry *entry = &record->record.entries[recovery->entry];
    struct opt_error error;
    opt_fail_as(&error, why->status, why->detail,
                "%.150s: record %" PRIu64 " at byte %" PRIu64 ", entry %zu of model "
                "%016" PRIx64 ": %.260s",
                batch->paths[record->segment], record->index, record->offset,
                recovery->entry, entry->model, why->text);
    if (why->status != OPT_DATA_LOSS || entry->model == 0 ||
        !recovery->durable->settings.recover_previous) {
        return fail(recovery, &error);
    }
    opt_log(OPT_LOG_WARN, "updates_lost",
            "model=%016" PRIx64 " record=%" PRIu64 " why=%s", entry->model,
            record->index, error.text);
    restoring_freeze(recovery->restoring, entry->model);
    recovery->end.save_all = true;
    return true;
}

/* The half is over: what it ended with. */
static bool end_half(struct recovery *recovery, struct half *half)
{
    enum opt_status status = half->batch.status;
    recovery->journal_done = recovery->journal_bytes - half->batch.bytes_behind;
    half->filled = false;
    recovery->record = 0;
    recovery->taking = 1 - recovery->taking;
    if (status == OPT_OK) {
        return true;
    }
    if (status == OPT_DATA_LOSS && recovery->durable->settings.recover_previous) {
        recovery->damage = half->batch.error;
    } else if (status != OPT_OUT_OF_RANGE) {
        return fail(recovery, &half->batch.error);
    }
    return go_to(recovery, END);
}

/* One entry further. */
static bool take_entries(struct recovery *recovery)
{
    struct half *half = &recovery->halves[recovery->taking];
    struct opt_error error;
    if (!recovery->begun) {
        recovery->begun = true;
        size_t room = recovery->journal_bytes < BATCH_BYTES
                          ? (size_t)recovery->journal_bytes + 64
                          : BATCH_BYTES;
        if (fill(recovery, 0, room, &error) != OPT_OK) {
            return fail(recovery, &error);
        }
    }
    if (!follow(recovery)) {
        return false;
    }
    if (!half->filled) {
        return false;
    }
    if (recovery->record == half->batch.count) {
        return end_half(recovery, half);
    }
    const struct batch_record *record = &half->batch.records[recovery->record];
    if (recovery->entry == record->record.count) {
        recovery->entry = 0;
        recovery->record++;
        recovery->records++;
        return true;
    }
    if (!recovery->entry_begun) {
        recovery->entry_begun = true;
        restoring_entry(recovery->restoring, &record->record.entries[recovery->entry],
                        record->index);
    }
    enum restored restored = restoring_go_on(recovery->restoring, &error);
    if (restored == RESTORING_FAILED && !refuse_entry(recovery, &half->batch, &error)) {
        return false;
    }
    if (restored == RESTORING_OVER || restored == RESTORING_FAILED) {
        recovery->entry++;
        recovery->entry_begun = false;
    }
    return true;
}

/* ---------------------------------------------------------------- the end */

static void free_reading(struct recovery *recovery)
{
    struct engine *engine = recovery->durable->engine;
    for (size_t i = 0; i < 2; i++) {
        struct half *half = &recovery->halves[i];
        if (engine != NULL) {
            budget_give(&engine->budget, half->charged);
        }
        half->charged = 0;
        journal_batch_fini(&half->batch);
    }
    journal_reader_free(recovery->reading.reader);
    recovery->reading.reader = NULL;
}

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
            return fail(recovery, &error);
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
    start(recovery, &recovery->journal, recovery->durable->journal_disk, end_journal);
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
        return fail(recovery, &job->error);
    }
    struct journal *journal = recovery->end.journal;
    recovery->end.journal = NULL;
    if (journaling_start(durable, journal, &error) != OPT_OK) {
        return fail(recovery, &error);
    }
    recorder_start(durable);
    take_up(recovery);
    restoring_end(recovery->restoring);
    tell_end(recovery);
    durable->settings.recovered(durable->settings.context, NULL);
    free_reading(recovery);
    recovery_close(durable);
    return true;
}

/* ---------------------------------------------------------------- the course */

static bool piece(struct recovery *recovery)
{
    switch (recovery->stage) {
    case FIND:
        return find(recovery);
    case OPEN:
        return open_next(recovery);
    case MAKE:
        return make(recovery);
    case READ:
        return read(recovery);
    case MEMBERS:
        return add_members(recovery);
    case JOURNAL:
        return begin_journal(recovery);
    case RECORDS:
        return take_entries(recovery);
    case END:
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
    if (recovery->restoring == NULL && recovery->stage != FAILED) {
        recovery->began_ns = now;
        recovery->told_ns = now;
        if (restoring_open(durable->engine, &recovery->restoring, &error) != OPT_OK) {
            return fail(recovery, &error);
        }
    }
    if (recovery->stage == FAILED || atomic_load(&recovery->found.stopping)) {
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
    free_reading(recovery);
    found_models_fini(&recovery->found);
    restoring_close(recovery->restoring);
    journal_free(recovery->end.journal);
    free(recovery);
    durable->recovery = NULL;
}

/* ---------------------------------------------------------------- meanwhile */

uint32_t recovery_percent(const struct durable *durable)
{
    const struct recovery *recovery = durable->recovery;
    if (recovery == NULL) {
        return 100;
    }
    uint64_t all = recovery->found.bytes + recovery->journal_bytes;
    uint64_t done = atomic_load(&recovery->found.read) + recovery->journal_done;
    if (recovery->stage == FIND || all == 0) {
        return 0;
    }
    return done >= all ? 99 : (uint32_t)((double)done * 99 / (double)all);
}

bool recovery_is_on(const struct engine *engine)
{
    return engine->durable != NULL && engine->durable->recovery != NULL;
}

/* As much time again as is left, by what has been done so far. */
static uint32_t retry_after(const struct durable *durable)
{
    const struct recovery *recovery = durable->recovery;
    uint64_t taken_ms = (uv_hrtime() - recovery->began_ns) / 1000000;
    uint32_t percent = recovery_percent(durable);
    uint64_t left_ms = percent == 0 ? taken_ms : taken_ms * (100 - percent) / percent;
    if (left_ms < RETRY_MIN_MS || recovery->began_ns == 0) {
        return RETRY_MIN_MS;
    }
    return left_ms < RETRY_MAX_MS ? (uint32_t)left_ms : RETRY_MAX_MS;
}

bool recovery_refuses(const struct engine *engine, const struct letter *letter,
                      uint32_t *retry_ms, struct opt_error *error)
{
    const struct durable *durable = engine->durable;
    const struct opt_request *request = &letter->request;
    if (durable == NULL || durable->recovery == NULL) {
        return false;
    }
    switch (request->message) {
    case OPT_MESSAGE_HELLO:
        if (request->body.hello.worker[0] == '\0') {
            return false;
        }
        break;
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_GOODBYE:
        return false;
    default:
        break;
    }
    *retry_ms = retry_after(durable);
    opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_RECOVERING,
                "the daemon is recovering what it had before it ended: %" PRIu32
                " %% is done; try again soon",
                recovery_percent(durable));
    return true;
}

/* The next of the models found that is not there, from i on. */
static size_t next_missing(const struct recovery *recovery, size_t i)
{
    while (i < recovery->found.count &&
           (recovery->found.list[i].model != NULL || recovery->found.list[i].absent ||
            recovery->found.list[i].passed_over)) {
        i++;
    }
    return i;
}

/* Models that were found, but not while the thread finds them. */
static bool has_found(const struct engine *engine)
{
    const struct durable *durable = engine->durable;
    return durable != NULL && durable->recovery != NULL &&
           durable->recovery->stage != FIND && durable->recovery->stage != FAILED;
}

size_t recovery_missing(const struct engine *engine)
{
    size_t count = 0;
    if (has_found(engine)) {
        const struct recovery *recovery = engine->durable->recovery;
        for (size_t i = 0; (i = next_missing(recovery, i)) < recovery->found.count;
             i++) {
            count++;
        }
    }
    return count;
}

struct opt_model_entry recovery_missing_model(const struct engine *engine, size_t i)
{
    const struct recovery *recovery = engine->durable->recovery;
    size_t at = next_missing(recovery, 0);
    for (; i > 0; i--) {
        at = next_missing(recovery, at + 1);
    }
    const struct found_model *model = &recovery->found.list[at];
    return (struct opt_model_entry){ .name = model->name,
                                     .step = model->step,
                                     .specification = "",
                                     .identity = model->identity };
}
