/* recovery_state — see recovery_state.h. */
#include "server/durable/recovery_state.h"

#include <string.h>

#include "server/store/data_dir.h"

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

void recovery_start(struct recovery *recovery, struct reading_job *job,
                    struct disk *disk, void (*work)(struct recovery *recovery))
{
    job->job = (struct durable_job){ .disk.run = run_job,
                                     .durable = recovery->durable,
                                     .done = job_done };
    job->work = work;
    job->running = true;
    job->status = OPT_OK;
    disk_do(disk, &job->job.disk);
}

bool recovery_go_to(struct recovery *recovery, enum recovery_stage stage)
{
    recovery->stage = stage;
    recovery->begun = false;
    return true;
}

/* What an operator may do is said with it. */
bool recovery_fail(struct recovery *recovery, const struct opt_error *why)
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
    recovery->stage = RECOVERY_FAILED;
    recovery->begun = true;
    settings->recovered(settings->context, &error);
    return false;
}
