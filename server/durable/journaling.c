/* journaling — see journaling.h. */
#include "server/durable/journaling.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/log.h"
#include "server/store/journal_file.h"

enum {
    NEWS_RECORDS = 16,      /* appended before the engine is told, if more are coming */
    LATE_NS = 1000000,      /* that somebody waits while they are coming */
    BACKOFF_MS = 100,       /* between two attempts, at first, */
    BACKOFF_MOST_MS = 5000, /* and at most */
    NS_PER_MS = 1000000
};

/* Records, linked by their jobs. */
struct records {
    struct journal_record *first, *last;
};

/* What the other thread is asked for: to make a point durable. */
struct syncing {
    struct durable_job job;
    struct journal_point point;
    const char *path;
    uint64_t ns; /* that it took */
    enum opt_status status;
    struct opt_error error;
};

struct journaling {
    struct durable *durable;
    struct disk *sync_disk; /* waits for the disk, so that appending need not */
    uint64_t interval_ns, most_bytes; /* of what is not synced */
    /* The thread's. */
    struct journal *journal;        /* NULL: not started */
    struct records kept;            /* not durable yet, in order; */
    struct journal_record *pending; /* the first of them that is to be appended */
    uint64_t bytes;                 /* of those appended */
    uint64_t wanted;                /* somebody waits for that one, */
    uint64_t wanted_ns;             /* since then; 0: nobody */
    unsigned untold;                /* appended since the engine was told, */
    bool told_degraded;             /* and what it was told last */
    struct syncing syncing;         /* for the other thread, */
    bool syncs;                     /* which has it; */
    bool alone;                     /* it is not to get it any more, */
    struct durable_job part;        /* because of this job, */
    uv_sem_t parted;                /* which posts that */
    bool broken;                    /* an append has failed meanwhile */
    uint64_t failed_ns, retry_ns;   /* 0: it works */
    uint32_t backoff_ms;
    struct opt_error error; /* why it does not */
    /* For the engine. */
    _Atomic bool news;
    _Atomic uint64_t written, safe;
    _Atomic bool degraded;
    _Atomic uint32_t retry_ms;
    _Atomic uint64_t records, record_bytes, syncs_done, sync_ns, failures, held_bytes,
        segments;
    uv_mutex_t lock; /* guards what follows */
    char why[OPT_ERROR_TEXT];
    /* From the engine. */
    _Atomic uint64_t asked; /* a sync of that one */
    _Atomic bool stopping;
};

static struct journaling *of(const struct disk_job *job)
{
    const struct durable_job *durable_job =
        (const struct durable_job *)(const void *)job;
    return durable_job->durable->journaling;
}

/* ---------------------------------------------------------------- telling */

static void tell(struct journaling *journaling)
{
    journaling->untold = 0;
    atomic_store(&journaling->held_bytes, journal_bytes(journaling->journal));
    atomic_store(&journaling->segments, journal_segments(journaling->journal));
    uint64_t safe = journal_durable(journaling->journal);
    bool only_written = atomic_load(&journaling->safe) == safe &&
                        atomic_load(&journaling->degraded) == journaling->told_degraded;
    atomic_store(&journaling->written, journal_next(journaling->journal) - 1);
    atomic_store(&journaling->safe, safe);
    journaling->told_degraded = atomic_load(&journaling->degraded);
    bool told = atomic_exchange(&journaling->news, true);
    if (only_written) {
        durable_visit(journaling->durable); /* nobody but answers waits for that */
    } else if (!told) {
        durable_rouse(journaling->durable);
    }
}

static void set_why(struct journaling *journaling, const char *why)
{
    uv_mutex_lock(&journaling->lock);
    snprintf(journaling->why, sizeof journaling->why, "%s", why);
    uv_mutex_unlock(&journaling->lock);
}

/* ---------------------------------------------------------------- what is kept */

static struct journal_record *next_of(const struct journal_record *record)
{
    return (struct journal_record *)(void *)record->job.disk.next;
}

static void keep(struct journaling *journaling, struct journal_record *record)
{
    struct records *kept = &journaling->kept;
    record->job.disk.next = NULL;
    record->came_ns = uv_hrtime();
    if (kept->first == NULL) {
        kept->first = record;
    } else {
        kept->last->job.disk.next = &record->job.disk;
    }
    kept->last = record;
    if (journaling->pending == NULL) {
        journaling->pending = record;
    }
}

/* Those that are durable can be collected. */
static void settle(struct journaling *journaling)
{
    struct records *kept = &journaling->kept;
    uint64_t durable = journal_durable(journaling->journal);
    while (kept->first != NULL && kept->first->index <= durable) {
        struct journal_record *record = kept->first;
        kept->first = next_of(record);
        journaling->bytes -= record->size;
        disk_done(journaling->durable->journal_disk, &record->job.disk);
    }
    if (journaling->wanted <= durable) {
        journaling->wanted_ns = 0;
    }
}

/* Something could not be written or synced: what is not in the journal any more is to
 * be appended again. */
static void step_back(struct journaling *journaling)
{
    uint64_t next = journal_next(journaling->journal);
    struct journal_record *record = journaling->kept.first;
    journaling->bytes = 0;
    while (record != NULL && record->index < next) {
        journaling->bytes += record->size;
        record = next_of(record);
    }
    journaling->pending = record;
}

/* ---------------------------------------------------------------- writing */

static void count_sync(struct journaling *journaling, uint64_t ns)
{
    atomic_fetch_add(&journaling->syncs_done, 1);
    atomic_fetch_add(&journaling->sync_ns, ns);
}

static bool append(struct journaling *journaling, struct journal_record *record)
{
    uint64_t index;
    journal_skip(journaling->journal, record->index);
    if (journal_append(journaling->journal, record->parts, record->part_count, &index,
                       &journaling->error) != OPT_OK) {
        return false;
    }
    atomic_fetch_add(&journaling->records, 1);
    atomic_fetch_add(&journaling->record_bytes, record->size);
    journaling->bytes += record->size;
    journaling->pending = next_of(record);
    return true;
}

/* Somebody has waited for too long, too much is waiting, or the segment is full. */
static bool is_due(struct journaling *journaling, uint64_t now)
{
    const struct journal_record *oldest = journaling->kept.first;
    return oldest != NULL &&
           (journaling->bytes >= journaling->most_bytes ||
            journal_begins(journaling->journal) ||
            now - oldest->came_ns >= journaling->interval_ns ||
            (journaling->wanted_ns > 0 && now - journaling->wanted_ns >= LATE_NS));
}

/* Append what is pending. Another segment cannot be begun while the last one is being
 * synced; then the rest waits for that. */
static bool append_all(struct journaling *journaling)
{
    bool good = true;
    while (good && journaling->pending != NULL &&
           !(journaling->syncs && journal_begins(journaling->journal))) {
        good = append(journaling, journaling->pending);
    }
    return good;
}

/* It works, again maybe. */
static void succeed(struct journaling *journaling)
{
    if (journaling->failed_ns == 0) {
        return;
    }
    opt_log(OPT_LOG_INFO, "journal_recovered", "after_ms=%" PRIu64 " record=%" PRIu64,
            (uv_hrtime() - journaling->failed_ns) / NS_PER_MS,
            journal_durable(journaling->journal));
    journaling->failed_ns = 0;
    journaling->retry_ns = 0;
    journaling->backoff_ms = 0;
    set_why(journaling, "");
    atomic_store(&journaling->degraded, false);
}

/* It does not, twice. */
static void fail(struct journaling *journaling)
{
    uint64_t now = uv_hrtime();
    if (journaling->failed_ns == 0) {
        opt_log(OPT_LOG_ERROR, "degraded", "record=%" PRIu64 " why=%s",
                journal_durable(journaling->journal) + 1, journaling->error.text);
        journaling->failed_ns = now;
    }
    journaling->backoff_ms =
        journaling->backoff_ms == 0 ? BACKOFF_MS : 2 * journaling->backoff_ms;
    if (journaling->backoff_ms > BACKOFF_MOST_MS) {
        journaling->backoff_ms = BACKOFF_MOST_MS;
    }
    journaling->retry_ns = now + (uint64_t)journaling->backoff_ms * NS_PER_MS;
    set_why(journaling, journaling->error.text);
    atomic_store(&journaling->retry_ms, journaling->backoff_ms);
    atomic_store(&journaling->degraded, true);
}

/* Something has failed: bring what is not durable to another segment, and prove it by a
 * sync. The other thread is not at it. */
static void repair(struct journaling *journaling)
{
    uint64_t began = uv_hrtime();
    bool good = append_all(journaling);
    if (good) {
        good = journal_sync(journaling->journal, &journaling->error) == OPT_OK;
        count_sync(journaling, uv_hrtime() - began);
    }
    if (good) {
        succeed(journaling);
    } else {
        atomic_fetch_add(&journaling->failures, 1);
        step_back(journaling);
        fail(journaling);
    }
    settle(journaling);
}

/* The first failure is nobody's business if what is done about it works. */
static void note_failure(struct journaling *journaling)
{
    static struct opt_log_site site;
    atomic_fetch_add(&journaling->failures, 1);
    step_back(journaling);
    opt_log_limited(&site, OPT_LOG_WARN, "journal_failed", "why=%s",
                    journaling->error.text);
}

static bool run_sync(struct disk *disk, struct disk_job *job);

/* Have all that was appended made durable. */
static void start_sync(struct journaling *journaling)
{
    struct syncing *syncing = &journaling->syncing;
    if (!journal_point(journaling->journal, &syncing->point)) {
        return;
    }
    if (journaling->untold > 0) {
        tell(journaling); /* who waits for no sync is not to wait for this one */
    }
    journaling->syncs = true;
    syncing->path = journal_path(journaling->journal);
    syncing->job.durable = journaling->durable;
    syncing->job.disk.run = run_sync;
    disk_do(journaling->sync_disk, &syncing->job.disk);
}

/* Append what has come, and see to it that it becomes durable if that is asked for, or
 * due. It works so far. */
static void advance(struct journaling *journaling, bool syncs)
{
    if (!append_all(journaling)) {
        note_failure(journaling);
        journaling->broken = true;
    }
    if (journaling->syncs) {
        return;
    }
    if (journaling->broken) {
        journaling->broken = false;
        repair(journaling);
    } else if (journaling->alone) {
        repair(journaling);
    } else if (syncs || is_due(journaling, uv_hrtime())) {
        start_sync(journaling);
    }
}

/* On the other thread; it goes on, on this one, with run_synced. */
static bool run_synced(struct disk *disk, struct disk_job *job);

static bool run_sync(struct disk *disk, struct disk_job *job)
{
    struct syncing *syncing = (struct syncing *)(void *)job;
    uint64_t began = uv_hrtime();
    (void)disk;
    syncing->status =
        journal_point_sync(&syncing->point, syncing->path, &syncing->error);
    syncing->ns = uv_hrtime() - began;
    job->run = run_synced;
    disk_do(syncing->job.durable->journal_disk, job);
    return false;
}

static bool run_synced(struct disk *disk, struct disk_job *job)
{
    struct journaling *journaling = of(job);
    const struct syncing *syncing = &journaling->syncing;
    (void)disk;
    journaling->syncs = false;
    count_sync(journaling, syncing->ns);
    if (syncing->status == OPT_OK) {
        journal_synced(journaling->journal, &syncing->point);
        settle(journaling);
    } else {
        journaling->error = syncing->error;
        journal_not_synced(journaling->journal);
        note_failure(journaling);
        journaling->broken = true;
    }
    advance(journaling, false);
    tell(journaling);
    return false;
}

static bool run_record(struct disk *disk, struct disk_job *job)
{
    struct journaling *journaling = of(job);
    struct journal_record *record = (struct journal_record *)(void *)job;
    (void)disk;
    keep(journaling, record);
    if (record->wanted) {
        journaling->wanted = record->index;
        journaling->wanted_ns =
            journaling->wanted_ns == 0 ? record->came_ns : journaling->wanted_ns;
    }
    if (journaling->failed_ns == 0) {
        journaling->untold++;
        advance(journaling, false);
        if (journaling->untold >= NEWS_RECORDS || journaling->failed_ns > 0) {
            tell(journaling);
        }
    }
    return false;
}

/* There is no other record now. */
static uint64_t drained(struct disk *disk, void *context)
{
    struct journaling *journaling = ((const struct durable *)context)->journaling;
    uint64_t now = uv_hrtime();
    bool stopping = atomic_load(&journaling->stopping);
    (void)disk;
    if (journaling->journal == NULL) {
        return UINT64_MAX;
    }
    if (journaling->failed_ns > 0 && now < journaling->retry_ns && !stopping) {
        return journaling->retry_ns - now;
    }
    uint64_t asked = atomic_load(&journaling->asked);
    bool wanted = asked > journal_durable(journaling->journal) ||
                  journaling->wanted > journal_durable(journaling->journal);
    if (journaling->kept.first != NULL && journaling->failed_ns > 0) {
        repair(journaling);
        tell(journaling);
    } else if (journaling->kept.first != NULL) {
        advance(journaling, wanted || stopping);
    }
    if (journaling->untold > 0) {
        tell(journaling);
    }
    if (journaling->failed_ns > 0) {
        return (uint64_t)journaling->backoff_ms * NS_PER_MS;
    }
    if (journaling->kept.first == NULL || journaling->syncs) {
        return UINT64_MAX; /* the end of the sync is a job */
    }
    uint64_t waited = uv_hrtime() - journaling->kept.first->came_ns;
    return waited < journaling->interval_ns ? journaling->interval_ns - waited : 0;
}

/* ---------------------------------------------------------------- other jobs */

/* From now on this thread does it alone. */
static bool run_part(struct disk *disk, struct disk_job *job)
{
    struct journaling *journaling = of(job);
    (void)disk;
    journaling->alone = true;
    uv_sem_post(&journaling->parted);
    return false;
}

struct adopt {
    struct durable_job job;
    struct journal *journal;
};

static void free_job(struct durable *durable, struct durable_job *job)
{
    (void)durable;
    free(job);
}

static bool run_adopt(struct disk *disk, struct disk_job *job)
{
    struct journaling *journaling = of(job);
    (void)disk;
    journaling->journal = ((struct adopt *)(void *)job)->journal;
    tell(journaling);
    return true;
}

struct drop {
    struct durable_job job;
    uint64_t before;
};

static bool run_drop(struct disk *disk, struct disk_job *job)
{
    static struct opt_log_site site;
    struct journaling *journaling = of(job);
    struct opt_error error;
    (void)disk;
    if (journaling->journal != NULL &&
        journal_drop(journaling->journal, ((struct drop *)(void *)job)->before,
                     &error) != OPT_OK) {
        opt_log_limited(&site, OPT_LOG_WARN, "journal_not_dropped", "why=%s",
                        error.text);
    }
    if (journaling->journal != NULL) {
        tell(journaling);
    }
    return true;
}

/* ---------------------------------------------------------------- the engine's side */

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                       "no memory for the journal");
}

static enum opt_status start_threads(struct durable *durable,
                                     void (*ready)(void *context),
                                     struct opt_error *error)
{
    struct journaling *journaling = durable->journaling;
    const struct disk_settings syncs = { .name = "optimd-sync" };
    const struct disk_settings appends = {
        .name = "optimd-journal", .drained = drained, .ready = ready, .context = durable
    };
    enum opt_status status = disk_start(&syncs, &journaling->sync_disk, error);
    if (status != OPT_OK) {
        return status;
    }
    status = disk_start(&appends, &durable->journal_disk, error);
    if (status != OPT_OK) {
        disk_stop(journaling->sync_disk);
    }
    return status;
}

enum opt_status journaling_open(struct durable *durable, void (*ready)(void *context),
                                struct opt_error *error)
{
    struct journaling *journaling = calloc(1, sizeof *journaling);
    if (journaling == NULL || uv_mutex_init(&journaling->lock) != 0) {
        free(journaling);
        return no_memory(error);
    }
    if (uv_sem_init(&journaling->parted, 0) != 0) {
        uv_mutex_destroy(&journaling->lock);
        free(journaling);
        return no_memory(error);
    }
    journaling->durable = durable;
    journaling->interval_ns = (uint64_t)durable->settings.interval_ms * NS_PER_MS;
    journaling->most_bytes = durable->settings.queue_bytes / 2;
    durable->journaling = journaling;
    return start_threads(durable, ready, error);
}

void journaling_stop(struct durable *durable)
{
    struct journaling *journaling = durable->journaling;
    struct durable_job *part = &journaling->part;
    part->durable = durable;
    part->disk.run = run_part;
    disk_do(durable->journal_disk, &part->disk);
    uv_sem_wait(&journaling->parted);
    disk_stop(journaling->sync_disk); /* the sync that is being done is its last one */
    atomic_store(&journaling->stopping, true);
    disk_stop(durable->journal_disk);
    size_t left = 0;
    while (journaling->kept.first != NULL) {
        struct journal_record *record = journaling->kept.first;
        journaling->kept.first = next_of(record);
        disk_done(durable->journal_disk, &record->job.disk);
        left++;
    }
    if (left > 0) {
        opt_log(OPT_LOG_ERROR, "records_lost", "records=%zu why=%s", left,
                journaling->error.text);
    }
}

void journaling_close(struct durable *durable)
{
    struct journaling *journaling = durable->journaling;
    if (journaling != NULL) {
        disk_free(journaling->sync_disk);
        journal_free(journaling->journal);
        uv_sem_destroy(&journaling->parted);
        uv_mutex_destroy(&journaling->lock);
        free(journaling);
    }
}

/* A job that is small, and freed when it was done. False: there is no memory. */
static bool ask(struct durable *durable, struct durable_job *job,
                bool (*run)(struct disk *disk, struct disk_job *job))
{
    if (job == NULL) {
        return false;
    }
    job->disk.run = run;
    job->durable = durable;
    job->done = free_job;
    disk_do(durable->journal_disk, &job->disk);
    return true;
}

enum opt_status journaling_start(struct durable *durable, struct journal *journal,
                                 struct opt_error *error)
{
    struct adopt *adopt = calloc(1, sizeof *adopt);
    uint64_t last = journal_next(journal) - 1;
    if (adopt == NULL) {
        journal_free(journal);
        return no_memory(error);
    }
    adopt->journal = journal;
    (void)ask(durable, &adopt->job, run_adopt);
    durable->recorded = last;
    durable->written = last;
    durable->safe = last;
    return OPT_OK;
}

void journaling_append(struct durable *durable, struct journal_record *record)
{
    record->job.disk.run = run_record;
    record->job.durable = durable;
    disk_do(durable->journal_disk, &record->job.disk);
}

void journaling_want(struct durable *durable, uint64_t index)
{
    struct journaling *journaling = durable->journaling;
    if (atomic_load(&journaling->asked) < index) {
        atomic_store(&journaling->asked, index);
        disk_rouse(durable->journal_disk);
    }
}

void journaling_drop(struct durable *durable, uint64_t before)
{
    struct drop *drop = calloc(1, sizeof *drop);
    if (drop != NULL) {
        drop->before = before;
        (void)ask(durable, &drop->job, run_drop);
    } /* else the next checkpoint drops it */
}

bool journaling_has_news(const struct durable *durable)
{
    return atomic_load_explicit(&durable->journaling->news, memory_order_relaxed);
}

void journaling_learn(struct durable *durable)
{
    struct journaling *journaling = durable->journaling;
    if (!atomic_exchange(&journaling->news, false)) {
        return;
    }
    uint64_t written = atomic_load(&journaling->written);
    uint64_t safe = atomic_load(&journaling->safe);
    durable->written = written > durable->written ? written : durable->written;
    durable->safe = safe > durable->safe ? safe : durable->safe;
    durable->degraded = atomic_load(&journaling->degraded);
}

uint32_t journaling_why(const struct durable *durable, char *out, size_t size)
{
    struct journaling *journaling = durable->journaling;
    uv_mutex_lock(&journaling->lock);
    snprintf(out, size, "%s", journaling->why);
    uv_mutex_unlock(&journaling->lock);
    return atomic_load(&journaling->retry_ms);
}

struct journal_counts journaling_counts(const struct durable *durable)
{
    struct journaling *journaling = durable->journaling;
    return (struct journal_counts){
        .records = atomic_load(&journaling->records),
        .bytes = atomic_load(&journaling->record_bytes),
        .syncs = atomic_load(&journaling->syncs_done),
        .sync_ns = atomic_load(&journaling->sync_ns),
        .failures = atomic_load(&journaling->failures),
        .held_bytes = atomic_load(&journaling->held_bytes),
        .segments = atomic_load(&journaling->segments),
    };
}
