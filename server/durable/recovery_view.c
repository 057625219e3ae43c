/* recovery_view — see recovery_view.h. */
#include "server/durable/recovery_view.h"

#include <inttypes.h>
#include <uv.h>

#include "server/base/letter.h"
#include "server/durable/recovery_state.h"
#include "server/engine/state.h"

enum { RETRY_MIN_MS = 100, RETRY_MAX_MS = 1000 };

uint32_t recovery_percent(const struct durable *durable)
{
    const struct recovery *recovery = durable->recovery;
    if (recovery == NULL) {
        return 100;
    }
    uint64_t all = recovery->found.bytes + recovery->journal_bytes;
    uint64_t done = atomic_load(&recovery->found.read) + recovery->journal_done;
    if (recovery->stage == RECOVERY_FIND || all == 0) {
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
           durable->recovery->stage != RECOVERY_FIND &&
           durable->recovery->stage != RECOVERY_FAILED;
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
