/* recorder — see recorder.h. */
#include "server/durable/recorder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/durable/describing.h"
#include "server/durable/durable.h"
#include "server/durable/gate.h"
#include "server/durable/journaling.h"
#include "server/durable/saving.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/store/record.h"
#include "server/update/update.h"
#include "server/update/written.h"
#include "server/workers/worker.h"

enum {
    SPARE_RECORDS = 256,      /* kept for the next turns, */
    SPARE_MESSAGE = 16 << 10, /* unless they have grown beyond that */
    TENSOR_COST = 64          /* of a tensor of a model that is made */
};

/* A record from its first entry until it is durable. */
struct record_job {
    struct journal_record record;
    struct record_job *next; /* spare */
    struct record_writer *writer;
    struct kept *kept;       /* values that its entries have, */
    struct written *written; /* and updates that they are; linked in one list */
    bool failed;             /* an entry could not be added */
    bool of_worker;          /* it tells of a worker, which all models may have */
};

/* A copy of values that are only lent to the recorder. */
struct kept {
    struct kept *next;
    struct iovec part;
    _Alignas(64) uint8_t bytes[];
};

struct recording {
    struct durable *durable;
    bool on;
    struct record_job *open; /* of this turn, or NULL */
    struct record_job none;  /* for which there was no memory */
    bool always;             /* it has entries of a model with durability ALWAYS */
    uint64_t turn_record;    /* index of the turn that is over; 0: it had none, */
    bool turn_always;        /* and the same of it */
    struct record_job *spare;
    size_t spare_count;
    uint64_t bytes; /* handed over, and not durable yet */
    uint64_t lost;
    bool losing;  /* the last record could not be kept */
    bool held_up; /* rounds wait for room */
};

/* ---------------------------------------------------------------- jobs */

static void free_values(struct engine *engine, struct record_job *job)
{
    written_free(engine, job->written);
    job->written = NULL;
    while (job->kept != NULL) {
        struct kept *next = job->kept->next;
        free(job->kept);
        job->kept = next;
    }
}

/* It has no values. */
static void job_free(struct record_job *job)
{
    record_writer_free(job->writer);
    free(job);
}

static struct record_job *job_new(struct recording *recording)
{
    struct record_job *job = recording->spare;
    if (job != NULL) {
        recording->spare = job->next;
        recording->spare_count--;
    } else {
        job = calloc(1, sizeof *job);
        if (job == NULL || (job->writer = record_writer_new()) == NULL) {
            free(job);
            return NULL;
        }
    }
    struct record_writer *writer = job->writer;
    *job = (struct record_job){ .writer = writer };
    record_begin(writer);
    return job;
}

/* It is durable, or given up. */
static void recycle(struct recording *recording, struct record_job *job)
{
    free_values(recording->durable->engine, job);
    if (recording->spare_count < SPARE_RECORDS &&
        record_writer_bytes(job->writer) <= SPARE_MESSAGE) {
        job->next = recording->spare;
        recording->spare = job;
        recording->spare_count++;
    } else {
        job_free(job);
    }
}

static void on_done(struct durable *durable, struct durable_job *done)
{
    struct record_job *job = (struct record_job *)(void *)done;
    durable->recording->bytes -= job->record.size;
    recycle(durable->recording, job);
}

/* Memory for values that are lent, which the job has from then on. NULL: there is none.
 */
static const struct iovec *keep(struct record_job *job, const void *bytes, size_t size)
{
    struct kept *kept = aligned_alloc(64, (sizeof *kept + size + 63) / 64 * 64);
    if (kept == NULL) {
        return NULL;
    }
    memcpy(kept->bytes, bytes, size);
    kept->part = (struct iovec){ .iov_base = kept->bytes, .iov_len = size };
    kept->next = job->kept;
    job->kept = kept;
    return &kept->part;
}

/* ---------------------------------------------------------------- entries */

static void add(struct record_job *job, const struct record_entry *entry)
{
    struct opt_error error;
    if (!job->failed && record_add(job->writer, entry, &error) != OPT_OK) {
        job->failed = true;
    }
}

static void add_model(struct engine *engine, struct record_job *job,
                      const struct model *model)
{
    struct opt_tensor_entry *tensors = calloc(model->tensor_count, sizeof *tensors);
    if (tensors == NULL) {
        job->failed = true;
        return;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[i];
        tensors[i] = (struct opt_tensor_entry){ .name = tensor->name,
                                                .shape = tensor->shape,
                                                .rank = tensor->rank,
                                                .elements = tensor->n,
                                                .sparse = tensor->width > 0 };
    }
    add(job,
        &(struct record_entry){
            .kind = RECORD_MODEL,
            .model = model->identity,
            .of.made = { .name = model->name,
                         .specification = model->canonical,
                         .consistency = model->consistency,
                         .tensors = tensors,
                         .tensor_count = model->tensor_count,
                         .durability = model->durability.mode,
                         .checkpoint_steps = model->durability.checkpoint_steps } });
    free(tensors);
    work_done(engine, TENSOR_COST * (uint64_t)model->tensor_count);
}

static void add_worker(struct record_job *job, const struct worker *worker)
{
    job->of_worker = true;
    add(job, &(struct record_entry){ .kind = RECORD_WORKER,
                                     .worker = worker->name,
                                     .of.worker = { .session = worker->session,
                                                    .incarnation = worker->incarnation,
                                                    .lost = worker->lost,
                                                    .lost_why = worker->lost_why } });
}

static void add_weights(struct engine *engine, struct record_job *job,
                        const struct commit *commit)
{
    const struct opt_segment *segment = commit->segment;
    size_t size = (size_t)segment->count * opt_dtype_size(commit->dtype);
    const struct iovec *part = keep(job, commit->values, size);
    if (part == NULL) {
        job->failed = true;
        return;
    }
    work_done(engine, size / sizeof(float));
    add(job, &(struct record_entry){ .kind = RECORD_WEIGHTS,
                                     .model = commit->model->identity,
                                     .of.weights = { .tensor = segment->tensor,
                                                     .offset = segment->offset,
                                                     .count = segment->count,
                                                     .dtype = commit->dtype,
                                                     .values = { part, 1, size } } });
}

/* The tables of a batch, which are only needed until it has been added. */
struct tables {
    struct record_span *spans;
    struct record_rows *rows;
    struct iovec *values; /* of each of these */
};

/* False: no memory. */
static bool tables_init(struct tables *tables, const struct model *model,
                        const struct written *written)
{
    *tables = (struct tables){
        .spans = calloc(written->span_count + 1, sizeof *tables->spans),
        .rows = calloc(written->rows_count + 1, sizeof *tables->rows),
        .values = calloc(written->rows_count + 1, sizeof *tables->values),
    };
    if (tables->spans == NULL || tables->rows == NULL || tables->values == NULL) {
        return false;
    }
    for (size_t i = 0; i < written->span_count; i++) {
        const struct span *span = &written->spans[i];
        tables->spans[i] = (struct record_span){ .tensor = span->tensor,
                                                 .first = span->first,
                                                 .end = span->end,
                                                 .prepares = span->prepares };
    }
    for (size_t i = 0; i < written->rows_count; i++) {
        const struct written_rows *rows = &written->rows[i];
        size_t size = rows->count * model->tensors[rows->tensor].width * sizeof(float);
        tables->values[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)rows->values,
                                            .iov_len = size };
        tables->rows[i] =
            (struct record_rows){ .tensor = rows->tensor,
                                  .rows = rows->rows,
                                  .row_count = rows->count,
                                  .values = { &tables->values[i], 1, size } };
    }
    return true;
}

static void tables_fini(struct tables *tables)
{
    free(tables->spans);
    free(tables->rows);
    free(tables->values);
}

static void add_batch(struct record_job *job, const struct model *model,
                      const struct written *written)
{
    struct tables tables = { 0 };
    const struct iovec values = { .iov_base = (void *)(uintptr_t)written->values,
                                  .iov_len = written->value_bytes };
    bool plain = written->span_count == 0 && written->rows_count == 0;
    if (!plain && !tables_init(&tables, model, written)) {
        tables_fini(&tables);
        job->failed = true;
        return;
    }
    add(job, &(struct record_entry){
                 .kind = RECORD_BATCH,
                 .model = model->identity,
                 .step = model->step,
                 .of.batch = { .last = written->last,
                               .spans = tables.spans,
                               .span_count = written->span_count,
                               .dtype = written->dtype,
                               .tensors = (const struct record_run *)written->tensors,
                               .tensor_runs = written->tensor_runs,
                               .blocks = (const struct record_run *)written->blocks,
                               .block_runs = written->block_runs,
                               .values = { &values, written->value_bytes > 0,
                                           written->value_bytes },
                               .rows = tables.rows,
                               .rows_count = written->rows_count } });
    tables_fini(&tables);
}

/* All batches of the update that has ended. */
static void add_update(struct engine *engine, struct record_job *job,
                       const struct model *model)
{
    struct model *known = registry_numbered(engine, model->number);
    struct written *written = written_take(known);
    if (written == NULL) { /* it was not written down: there is a gap */
        job->failed = true;
        return;
    }
    struct written *last = written;
    for (; last->next != NULL; last = last->next) {
        add_batch(job, model, last);
    }
    add_batch(job, model, last);
    last->next = job->written;
    job->written = written;
}

/* What says no more than its kind and its step. */
static void add_plain(struct record_job *job, enum record_kind kind,
                      const struct model *model, uint64_t step)
{
    add(job,
        &(struct record_entry){ .kind = kind, .model = model->identity, .step = step });
}

static void add_of_member(struct record_job *job, const struct commit *commit)
{
    struct record_entry entry = { .kind = RECORD_MEMBER,
                                  .model = commit->model->identity,
                                  .worker = commit->worker->name,
                                  .step = commit->model->step };
    if (commit->kind == COMMIT_PUSH) {
        entry.kind = RECORD_PUSH;
        entry.of.push.settled = *commit->settled;
        entry.of.push.member = describing_member(commit->member);
    } else if (commit->kind == COMMIT_MEMBER) {
        entry.of.member = describing_member(commit->member);
    } else {
        entry.kind = RECORD_FORGOTTEN;
    }
    add(job, &entry);
}

static void add_entry(struct engine *engine, struct record_job *job,
                      const struct commit *commit)
{
    const struct model *model = commit->model;
    switch (commit->kind) {
    case COMMIT_MODEL:
        add_model(engine, job, model);
        break;
    case COMMIT_READY:
        add_plain(job, RECORD_READY, model, model->step);
        break;
    case COMMIT_OPTIONS:
        add(job, &(struct record_entry){ .kind = RECORD_OPTIONS,
                                         .model = model->identity,
                                         .step = model->step + 1,
                                         .of.text = model->canonical });
        break;
    case COMMIT_WEIGHTS:
        add_weights(engine, job, commit);
        break;
    case COMMIT_STATED:
        add(job,
            &(struct record_entry){ .kind = RECORD_STATED,
                                    .model = model->identity,
                                    .step = commit->stated->step,
                                    .of.stated = { .before = commit->stated->before,
                                                   .after = commit->stated->after,
                                                   .change = commit->stated->asked } });
        break;
    case COMMIT_BATCH: /* with its step */
        break;
    case COMMIT_STEP:
        add_update(engine, job, model);
        add_plain(job, RECORD_STEP, model, model->step);
        break;
    case COMMIT_UNDONE:
        add_plain(job, RECORD_UNDONE, model, model->step + 1);
        break;
    case COMMIT_GONE:
        add_plain(job, RECORD_GONE, model, model->step);
        break;
    case COMMIT_WORKER:
        add_worker(job, commit->worker);
        break;
    case COMMIT_MEMBER:
    case COMMIT_PUSH:
    case COMMIT_FORGOTTEN:
        add_of_member(job, commit);
        break;
    }
}

/* ---------------------------------------------------------------- turns */

static void on_note(void *context, const struct commit *commit)
{
    struct durable *durable = context;
    struct recording *recording = durable->recording;
    const struct model *model = commit->model;
    if (!recording->on) {
        return;
    }
    saving_note(durable, commit);
    if (model != NULL && model->durability.mode == OPT_DURABILITY_CHECKPOINT) {
        return;
    }
    if (recording->open == NULL) {
        struct record_job *job = job_new(recording);
        recording->open = job != NULL ? job : &recording->none;
    }
    if (model != NULL) {
        struct model *known = registry_numbered(durable->engine, model->number);
        if (known != NULL) {
            known->durability.recorded = durable->recorded + 1;
        }
        recording->always =
            recording->always || model->durability.mode == OPT_DURABILITY_ALWAYS;
    }
    add_entry(durable->engine, recording->open, commit);
}

/* The record is not kept: of all that it tells there is a gap in the journal, until a
 * checkpoint has it. */
static void lose(struct durable *durable, struct record_job *job)
{
    struct recording *recording = durable->recording;
    struct engine *engine = durable->engine;
    for (size_t i = 0; i < engine->model_count; i++) {
        struct model_durability *of = &engine->numbered[i]->durability;
        if (of->mode != OPT_DURABILITY_CHECKPOINT &&
            (job->of_worker || job == &recording->none ||
             of->recorded == durable->recorded)) {
            of->recorded = durable->recorded;
            of->lost = durable->recorded;
        }
    }
    if (!recording->losing) {
        opt_log(OPT_LOG_ERROR, "records_lost", "record=%" PRIu64 " why=%s",
                durable->recorded,
                job->failed ? "no memory" : "the journal's queue is full");
        saving_demand(durable);
    }
    recording->losing = true;
    recording->lost++;
    if (job != &recording->none) {
        recycle(recording, job);
    }
}

/* Hand the record over. False: it is not to be kept. */
static bool hand_over(struct durable *durable, struct record_job *job, bool always)
{
    struct recording *recording = durable->recording;
    struct journal_record *record = &job->record;
    struct opt_error error;
    if (job->failed || record_parts(job->writer, &record->parts, &record->part_count,
                                    &error) != OPT_OK) {
        job->failed = true;
        return false;
    }
    for (size_t i = 0; i < record->part_count; i++) {
        record->size += record->parts[i].iov_len;
    }
    if (durable->degraded &&
        recording->bytes + record->size > durable->settings.queue_bytes) {
        return false;
    }
    record->index = durable->recorded;
    record->wanted = always;
    record->job.done = on_done;
    recording->bytes += record->size;
    recording->losing = false;
    journaling_append(durable, record);
    return true;
}

static void on_turn(void *context)
{
    struct durable *durable = context;
    struct recording *recording = durable->recording;
    struct record_job *job = recording->open;
    recording->turn_record = 0;
    recording->turn_always = recording->always;
    recording->open = NULL;
    recording->always = false;
    if (job == NULL) {
        return;
    }
    durable->recorded++;
    if (hand_over(durable, job, recording->turn_always)) {
        recording->turn_record = durable->recorded;
    } else {
        lose(durable, job);
    }
}

static bool on_writes(void *context, const struct model *model)
{
    (void)context;
    return model->durability.mode != OPT_DURABILITY_CHECKPOINT;
}

static bool on_room(void *context, struct model *model, size_t bytes)
{
    const struct durable *durable = context;
    struct recording *recording = durable->recording;
    (void)bytes; /* a large update waits until the queue has some room, not all of it */
    if (durable->degraded || recording->bytes < durable->settings.queue_bytes) {
        return true;
    }
    model->durability.held_up = true;
    recording->held_up = true;
    return false;
}

/* The memory of an update is held until its record is durable: have that synced. */
static void on_awaited(void *context, struct model *model)
{
    journaling_want(context, model->durability.recorded);
}

static bool on_holds(void *context, struct letter *letter)
{
    struct durable *durable = context;
    const struct recording *recording = durable->recording;
    return gate_takes(durable, letter, recording->turn_record, recording->turn_always);
}

static enum opt_status on_admits(void *context, const struct model *model,
                                 uint32_t *retry_ms, struct opt_error *error)
{
    return gate_admits(context, model, retry_ms, error);
}

/* ---------------------------------------------------------------- the whole */

enum opt_status recorder_open(struct durable *durable, struct opt_error *error)
{
    struct recording *recording = calloc(1, sizeof *recording);
    if (recording == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the journal");
    }
    recording->durable = durable;
    recording->none.failed = true;
    durable->recording = recording;
    durable->recorder = (struct recorder){ .note = on_note,
                                           .turn = on_turn,
                                           .writes = on_writes,
                                           .room = on_room,
                                           .awaited = on_awaited,
                                           .holds = on_holds,
                                           .admits = on_admits,
                                           .context = durable };
    return OPT_OK;
}

void recorder_close(struct durable *durable)
{
    struct recording *recording = durable->recording;
    if (recording == NULL) {
        return;
    }
    while (recording->spare != NULL) {
        struct record_job *next = recording->spare->next;
        job_free(recording->spare);
        recording->spare = next;
    }
    free(recording);
}

void recorder_start(struct durable *durable)
{
    durable->recording->on = true;
}

void recorder_stop(struct durable *durable)
{
    durable->recording->on = false;
}

uint64_t recorder_bytes(const struct durable *durable)
{
    return durable->recording->bytes;
}

uint64_t recorder_lost(const struct durable *durable)
{
    return durable->recording->lost;
}

void recorder_go_on(struct durable *durable)
{
    struct recording *recording = durable->recording;
    struct engine *engine = durable->engine;
    if (!recording->held_up ||
        (recording->bytes >= durable->settings.queue_bytes && !durable->degraded)) {
        return;
    }
    recording->held_up = false;
    for (size_t i = 0; i < engine->model_count; i++) {
        struct model *model = engine->numbered[i];
        if (model->durability.held_up) {
            model->durability.held_up = false;
            work_settle(engine, model);
        }
    }
}
