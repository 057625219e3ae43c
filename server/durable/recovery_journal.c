/* recovery_journal — see recovery_journal.h. */
#include "server/durable/recovery_journal.h"

#include <inttypes.h>

#include "common/log.h"
#include "server/durable/recovery_state.h"
#include "server/durable/restoring.h"
#include "server/engine/state.h"
#include "server/store/failpoint.h"

enum { BATCH_SHARE = 32 /* of --memory, each of two batches has at most */ };

/* ---------------------------------------------------------------- the disk */

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
            return recovery_fail(recovery, &error);
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

bool recovery_journal_begin(struct recovery *recovery)
{
    struct reading_job *job = &recovery->journal;
    if (!recovery->begun) {
        recovery->begun = true;
        recovery_start(recovery, job, recovery->durable->journal_disk, open_journal);
    }
    if (job->running) {
        return false;
    }
    if (job->status != OPT_OK) {
        return recovery_fail(recovery, &job->error);
    }
    if (recovery->damage.status != OPT_OK &&
        !recovery->durable->settings.recover_previous) {
        return recovery_fail(recovery, &recovery->damage);
    }
    if (!look_back(recovery)) {
        return false;
    }
    recovery->journal_bytes = journal_reader_bytes(recovery->reading.reader);
    return recovery_go_to(recovery, RECOVERY_RECORDS);
}

/* Have the half filled; it has room for so many bytes first. */
static enum opt_status fill(struct recovery *recovery, size_t which, size_t room,
                            struct opt_error *error)
{
    struct half *half = &recovery->halves[which];
    if (room > half->batch.capacity) {
        /* Not from the budget, which may be full, as it was: what is reserved there to
         * write updates down is not used meanwhile, and that is as much. */
        if (!journal_batch_room(&half->batch, room)) {
            return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                               "the system has no memory for a record of %zu bytes",
                               room);
        }
    }
    half->filled = false;
    recovery->filling = which;
    recovery_start(recovery, &recovery->journal, recovery->durable->journal_disk,
                   fill_batch);
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
        return status == OPT_OK ? true : recovery_fail(recovery, &error);
    }
    if (half->batch.status == OPT_RESOURCE_EXHAUSTED && half->batch.needs > 0) {
        status = fill(recovery, recovery->filling, half->batch.needs, &error);
        return status == OPT_OK ? true : recovery_fail(recovery, &error);
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
        !recovery->durable->settings.recover_previous ||
        restoring_is_torn(recovery->restoring, entry->model)) {
        return recovery_fail(recovery, &error);
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
        return recovery_fail(recovery, &half->batch.error);
    }
    return recovery_go_to(recovery, RECOVERY_END);
}

/* One entry further. */
bool recovery_journal_go_on(struct recovery *recovery)
{
    struct half *half = &recovery->halves[recovery->taking];
    struct opt_error error;
    if (!recovery->begun) {
        recovery->begun = true;
        size_t room = recovery->durable->engine->budget.limit / BATCH_SHARE;
        room = room < BATCH_BYTES ? room : BATCH_BYTES;
        room = room < recovery->journal_bytes ? room : (size_t)recovery->journal_bytes;
        if (fill(recovery, 0, room + 1, &error) != OPT_OK) {
            return recovery_fail(recovery, &error);
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

void recovery_journal_end(struct recovery *recovery)
{
    for (size_t i = 0; i < 2; i++) {
        journal_batch_fini(&recovery->halves[i].batch);
    }
    journal_reader_free(recovery->reading.reader);
    recovery->reading.reader = NULL;
}
