/* forgetting — see forgetting.h. */
#include "server/durable/forgetting.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uv.h>

#include "common/log.h"
#include "server/durable/durable.h"
#include "server/engine/state.h"
#include "server/store/data_dir.h"

struct folder {
    struct durable_job job; /* that removes it */
    struct folder *next;
    struct folders *of;
    uint64_t identity, record, needs;
    enum { WAITS, GOES, FAILED } state;
    uint64_t again_ns;      /* it failed: when it is tried again */
    struct opt_error error; /* the thread's, while it goes */
};

enum { AGAIN_NS = 1000 * 1000 * 1000 };

bool forgetting_add(struct durable *durable, struct folders *folders, uint64_t identity,
                    uint64_t record, uint64_t needs)
{
    struct folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL) {
        return false;
    }
    folder->job.durable = durable;
    folder->of = folders;
    folder->identity = identity;
    folder->record = record;
    folder->needs = needs;
    folder->next = folders->first;
    folders->first = folder;
    durable_rouse(durable);
    return true;
}

static void folder_free(struct folder *folder)
{
    struct folder **link = &folder->of->first;
    while (*link != folder) {
        link = &(*link)->next;
    }
    *link = folder->next;
    free(folder);
}

static bool run(struct disk *disk, struct disk_job *job)
{
    struct folder *folder = (struct folder *)(void *)job;
    (void)disk;
    folder->error.status = OPT_OK;
    (void)data_dir_forget(folder->job.durable->settings.dir, folder->identity,
                          &folder->error);
    return true;
}

static void on_done(struct durable *durable, struct durable_job *job)
{
    struct folder *folder = (struct folder *)(void *)job;
    (void)durable;
    if (folder->error.status == OPT_OK) {
        folder_free(folder);
        return;
    }
    if (folder->again_ns == 0) {
        opt_log(OPT_LOG_WARN, "checkpoints_stay",
                "identity=%016" PRIx64 " why=%s again_ms=%d", folder->identity,
                folder->error.text, AGAIN_NS / 1000000);
    }
    folder->again_ns = uv_hrtime() + AGAIN_NS;
    folder->state = FAILED;
}

static bool can_go(const struct durable *durable, const struct folder *folder)
{
    return folder->state == WAITS && folder->record <= durable->safe;
}

void forgetting_go_on(struct durable *durable, struct folders *folders)
{
    for (struct folder *folder = folders->first; folder != NULL;
         folder = folder->next) {
        if (can_go(durable, folder) ||
            (folder->state == FAILED && uv_hrtime() >= folder->again_ns)) {
            folder->state = GOES;
            folder->job.disk.run = run;
            folder->job.done = on_done;
            disk_do(durable->checkpoint_disk, &folder->job.disk);
        }
    }
}

uint64_t forgetting_needs(const struct folders *folders)
{
    uint64_t needs = UINT64_MAX;
    for (const struct folder *folder = folders->first; folder != NULL;
         folder = folder->next) {
        if (folder->needs > 0 && folder->needs < needs) {
            needs = folder->needs;
        }
    }
    return needs;
}

bool forgetting_is_busy(const struct durable *durable, const struct folders *folders)
{
    for (const struct folder *folder = folders->first; folder != NULL;
         folder = folder->next) {
        if (folder->state == GOES || can_go(durable, folder)) {
            return true;
        }
    }
    return false;
}

void forgetting_close(struct folders *folders)
{
    while (folders->first != NULL) {
        folder_free(folders->first);
    }
}
