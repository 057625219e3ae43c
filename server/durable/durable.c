/* durable — see durable.h. */
#include "server/durable/durable.h"

#include <stdio.h>
#include <stdlib.h>

#include "server/base/mailbox.h"
#include "server/durable/gate.h"
#include "server/durable/journaling.h"
#include "server/durable/recorder.h"
#include "server/durable/recovery.h"
#include "server/durable/saving.h"
#include "server/engine/state.h"
#include "server/store/data_dir.h"
#include "server/store/journal_file.h"

/* All that a disk has done. */
static void collect(struct durable *durable, struct disk *disk)
{
    struct disk_job *next;
    for (struct disk_job *job = disk_collect(disk); job != NULL; job = next) {
        struct durable_job *of = (struct durable_job *)(void *)job;
        next = job->next;
        of->done(durable, of);
    }
}

void durable_begin(struct durable *durable, struct engine *engine,
                   void (*visit)(struct engine *engine))
{
    durable->engine = engine;
    durable->visit = visit;
    atomic_store(&durable->box, &engine->box);
}

uint64_t durable_bytes(const struct durable *durable)
{
    return budget_used(&durable->engine->budget);
}

bool durable_has_news(const struct durable *durable)
{
    return journaling_has_news(durable) || atomic_load(&durable->done);
}

void durable_collect(struct engine *engine)
{
    struct durable *durable = engine->durable;
    atomic_store(&durable->done, false);
    journaling_learn(durable);
    collect(durable, durable->journal_disk);
    collect(durable, durable->checkpoint_disk);
    gate_settle(durable);
    recorder_go_on(durable);
}

bool durable_finish(struct engine *engine)
{
    struct durable *durable = engine->durable;
    if (durable == NULL) {
        return true;
    }
    recovery_stop(durable);
    if (!saving_finish(durable)) {
        return false;
    }
    if (durable->safe < durable->recorded && !durable->degraded) {
        journaling_want(durable, durable->recorded);
        return false;
    }
    gate_open_all(durable);
    recorder_stop(durable);
    return true;
}

/* End the threads; what they have not done is given up. */
static void stop(struct durable *durable)
{
    if (durable->checkpoint_disk != NULL) {
        disk_stop(durable->checkpoint_disk);
        collect(durable, durable->checkpoint_disk);
        disk_free(durable->checkpoint_disk);
        durable->checkpoint_disk = NULL;
    }
    if (durable->journal_disk != NULL) {
        journaling_stop(durable);
        collect(durable, durable->journal_disk);
        disk_free(durable->journal_disk);
        durable->journal_disk = NULL;
    }
}

void durable_end(struct durable *durable)
{
    recovery_stop(durable);
    stop(durable);
    saving_end(durable);
    recovery_close(durable);
    atomic_store(&durable->box, NULL);
    durable->engine = NULL;
}

void durable_close(struct durable *durable)
{
    if (durable == NULL) {
        return;
    }
    stop(durable);
    recovery_close(durable);
    journaling_close(durable);
    saving_close(durable);
    gate_close(durable);
    recorder_close(durable);
    free(durable);
}

static void on_ready(void *context)
{
    struct durable *durable = context;
    atomic_store(&durable->done, true);
    durable_rouse(durable);
}

enum opt_status durable_open(const struct durable_settings *settings,
                             struct durable **out, struct opt_error *error)
{
    struct durable *durable = calloc(1, sizeof *durable);
    if (durable == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the journal");
    }
    durable->settings = *settings;
    enum opt_status status = recorder_open(durable, error);
    if (status == OPT_OK) {
        status = gate_open(durable, error);
    }
    if (status == OPT_OK) {
        status = saving_open(durable, error);
    }
    if (status == OPT_OK) {
        status = journaling_open(durable, on_ready, error);
    }
    if (status == OPT_OK) {
        const struct disk_settings disk = { .name = "optimd-save",
                                            .ready = on_ready,
                                            .context = durable };
        status = disk_start(&disk, &durable->checkpoint_disk, error);
    }
    if (status == OPT_OK) {
        status = recovery_open(durable, error);
    }
    if (status != OPT_OK) {
        durable_close(durable);
        return status;
    }
    *out = durable;
    return OPT_OK;
}
