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
    LATE_NS = 5 * 1000000,  /* that somebody waits while they are coming */
    BACKOFF_MS = 100,       /* between two attempts, at first, */
    BACKOFF_MOST_MS = 5000, /* and at most */
    NS_PER_MS = 1000000
};

/* Records, linked by their jobs. */
struct records {
    struct journal_record *first, *last;
};

struct journaling {
    struct durable *durable;
    uint64_t interval_ns, most_bytes; /* of what is not synced */
    /* The thread's. */
    struct journal *journal;        /* NULL: not started */
    struct records kept;            /* not durable yet, in order; */
    struct journal_record *pending; /* the first of them that is to be appended */
    uint64_t bytes;                 /* of those appended */
    uint64_t wanted;                /* somebody waits for that one, */
    uint64_t wanted_ns;             /* since then; 0: nobody */
    unsigned untold;                /* appended since the engine was told */
    uint64_t failed_ns, retry_ns;   /* 0: it works */
    uint32_t backoff_ms;
    struct opt_error error; /* why it does not */
    /* For the engine. */
    _Atomic bool news;
    _Atomic uint64_t written, safe;
    _Atomic bool degraded;
    _Atomic uint32_t retry_ms;
    _Atomic uint64_t records, record_bytes, syncs, sync_ns, failures, held_bytes,
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
    atomic_store(&journaling->written, journal_next(journaling->journal) - 1);
    atomic_store(&journaling->safe, journal_durable(journaling->journal));
    if (!atomic_exchange(&journaling->news, true)) {
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

static bool sync(struct journaling *journaling)
{
    uint64_t began = uv_hrtime();
    if (journaling->untold > 0 && journaling->failed_ns == 0) {
        tell(journaling); /* who waits for no sync is not to wait for this one */
    }
    bool good = journal_sync(journaling->journal, &journaling->error) == OPT_OK;
    atomic_fetch_add(&journaling->syncs, 1);
    atomic_fetch_add(&journaling->sync_ns, uv_hrtime() - began);
    return good;
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

/* Somebody has waited for too long, or too much is waiting. */
static bool is_due(struct journaling *journaling, uint64_t now)
{
    const struct journal_record *oldest = journaling->kept.first;
    return oldest != NULL &&
           (journaling->bytes >= journaling->most_bytes ||
            now - oldest->came_ns >= journaling->interval_ns ||
            (journaling->wanted_ns > 0 && now - journaling->wanted_ns >= LATE_NS));
}

/* Append what is pending, and sync if that is asked for, or due. */
static bool write_once(struct journaling *journaling, bool syncs)
{
    while (journaling->pending != NULL) {
        if (!append(journaling, journaling->pending)) {
            return false;
        }
    }
    return !(syncs || is_due(journaling, uv_hrtime())) || sync(journaling);
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

/* Bring what there is to the journal, and make it durable if that is asked for. What
 * fails is done once more at once, in another segment, and then it is proved by a sync.
 */
static void advance(struct journaling *journaling, bool syncs)
{
    static struct opt_log_site site;
    bool good = write_once(journaling, syncs);
    if (!good) {
        atomic_fetch_add(&journaling->failures, 1);
        step_back(journaling);
        if (journaling->failed_ns == 0) {
            opt_log_limited(&site, OPT_LOG_WARN, "journal_failed", "why=%s",
                            journaling->error.text);
            good = write_once(journaling, true);
            if (!good) {
                atomic_fetch_add(&journaling->failures, 1);
                step_back(journaling);
            }
        }
    }
    settle(journaling);
    if (good) {
        succeed(journaling);
    } else {
        fail(journaling);
    }
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
        uint64_t durable = journal_durable(journaling->journal);
        journaling->untold++;
        advance(journaling, false);
        if (journaling->untold >= NEWS_RECORDS || journaling->failed_ns > 0 ||
            journal_durable(journaling->journal) > durable) {
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
    if (journaling->kept.first != NULL &&
        (wanted || stopping || journaling->failed_ns > 0 || is_due(journaling, now))) {
        advance(journaling, true);
        tell(journaling);
    } else if (journaling->untold > 0) {
        tell(journaling);
    }
    if (journaling->failed_ns > 0) {
        return (uint64_t)journaling->backoff_ms * NS_PER_MS;
    }
    if (journaling->kept.first == NULL) {
        return UINT64_MAX;
    }
    uint64_t waited = uv_hrtime() - journaling->kept.first->came_ns;
    return waited < journaling->interval_ns ? journaling->interval_ns - waited : 0;
}

/* ---------------------------------------------------------------- other jobs */

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

enum opt_status journaling_open(struct durable *durable, void (*ready)(void *context),
                                struct opt_error *error)
{
    struct journaling *journaling = calloc(1, sizeof *journaling);
    if (journaling == NULL || uv_mutex_init(&journaling->lock) != 0) {
        free(journaling);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the journal");
    }
    journaling->durable = durable;
    journaling->interval_ns = (uint64_t)durable->settings.interval_ms * NS_PER_MS;
    journaling->most_bytes = durable->settings.queue_bytes / 2;
    durable->journaling = journaling;
    return disk_start(&(struct disk_settings){ .name = "optimd-journal",
                                               .drained = drained,
                                               .ready = ready,
                                               .context = durable },
                      &durable->journal_disk, error);
}

void journaling_stop(struct durable *durable)
{
    struct journaling *journaling = durable->journaling;
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
        journal_free(journaling->journal);
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
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the journal");
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
        .syncs = atomic_load(&journaling->syncs),
        .sync_ns = atomic_load(&journaling->sync_ns),
        .failures = atomic_load(&journaling->failures),
        .held_bytes = atomic_load(&journaling->held_bytes),
        .segments = atomic_load(&journaling->segments),
    };
}
