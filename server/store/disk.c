/* disk — see disk.h. */
#define _GNU_SOURCE /* pthread_setname_np */
#include "server/store/disk.h"

#include <pthread.h>
#include <stdlib.h>
#include <uv.h>

struct jobs {
    struct disk_job *first, *last;
};

struct disk {
    struct disk_settings settings;
    uv_thread_t thread;
    uv_mutex_t lock; /* guards what follows */
    uv_cond_t filled;
    struct jobs waiting, done;
    bool roused, stopping;
};

static void append(struct jobs *jobs, struct disk_job *job)
{
    job->next = NULL;
    if (jobs->first == NULL) {
        jobs->first = job;
    } else {
        jobs->last->next = job;
    }
    jobs->last = job;
}

static struct disk_job *take(struct jobs *jobs)
{
    struct disk_job *job = jobs->first;
    if (job != NULL) {
        jobs->first = job->next;
        job->next = NULL;
    }
    return job;
}

/* The next job; NULL: there is none now. */
static struct disk_job *next_job(struct disk *disk)
{
    uv_mutex_lock(&disk->lock);
    struct disk_job *job = take(&disk->waiting);
    uv_mutex_unlock(&disk->lock);
    return job;
}

/* Wait for a job, so long at most. False: the thread is to end, and there is none. */
static bool await(struct disk *disk, uint64_t ns)
{
    uv_mutex_lock(&disk->lock);
    if (disk->waiting.first == NULL && !disk->roused && !disk->stopping) {
        if (ns == UINT64_MAX) {
            uv_cond_wait(&disk->filled, &disk->lock);
        } else {
            (void)uv_cond_timedwait(&disk->filled, &disk->lock, ns);
        }
    }
    disk->roused = false;
    bool more = disk->waiting.first != NULL || !disk->stopping;
    uv_mutex_unlock(&disk->lock);
    return more;
}

static uint64_t drained(struct disk *disk)
{
    const struct disk_settings *settings = &disk->settings;
    return settings->drained == NULL ? UINT64_MAX
                                     : settings->drained(disk, settings->context);
}

static void run(void *argument)
{
    struct disk *disk = argument;
    (void)pthread_setname_np(pthread_self(), disk->settings.name);
    uint64_t wait = UINT64_MAX;
    do {
        for (struct disk_job *job; (job = next_job(disk)) != NULL;) {
            if (job->run(disk, job)) {
                disk_done(disk, job);
            }
        }
        wait = drained(disk);
    } while (await(disk, wait));
}

enum opt_status disk_start(const struct disk_settings *settings, struct disk **out,
                           struct opt_error *error)
{
    struct disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a thread");
    }
    disk->settings = *settings;
    if (uv_mutex_init(&disk->lock) != 0) {
        free(disk);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for thread %s",
                        settings->name);
    }
    if (uv_cond_init(&disk->filled) != 0) {
        uv_mutex_destroy(&disk->lock);
        free(disk);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for thread %s",
                        settings->name);
    }
    int code = uv_thread_create(&disk->thread, run, disk);
    if (code != 0) {
        uv_cond_destroy(&disk->filled);
        uv_mutex_destroy(&disk->lock);
        free(disk);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot start thread %s: %s",
                        settings->name, uv_strerror(code));
    }
    *out = disk;
    return OPT_OK;
}

void disk_stop(struct disk *disk)
{
    uv_mutex_lock(&disk->lock);
    disk->stopping = true;
    uv_cond_signal(&disk->filled);
    uv_mutex_unlock(&disk->lock);
    uv_thread_join(&disk->thread);
}

void disk_free(struct disk *disk)
{
    if (disk != NULL) {
        uv_cond_destroy(&disk->filled);
        uv_mutex_destroy(&disk->lock);
        free(disk);
    }
}

void disk_do(struct disk *disk, struct disk_job *job)
{
    uv_mutex_lock(&disk->lock);
    append(&disk->waiting, job);
    uv_cond_signal(&disk->filled);
    uv_mutex_unlock(&disk->lock);
}

void disk_done(struct disk *disk, struct disk_job *job)
{
    uv_mutex_lock(&disk->lock);
    bool first = disk->done.first == NULL;
    append(&disk->done, job);
    uv_mutex_unlock(&disk->lock);
    if (first) {
        disk->settings.ready(disk->settings.context);
    }
}

struct disk_job *disk_collect(struct disk *disk)
{
    uv_mutex_lock(&disk->lock);
    struct disk_job *job = disk->done.first;
    disk->done = (struct jobs){ 0 };
    uv_mutex_unlock(&disk->lock);
    return job;
}

void disk_rouse(struct disk *disk)
{
    uv_mutex_lock(&disk->lock);
    disk->roused = true;
    uv_cond_signal(&disk->filled);
    uv_mutex_unlock(&disk->lock);
}
