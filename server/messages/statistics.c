/* statistics — the daemon's counters by name: the engine's, what is kept on disk, then
 * the loops'. */
#include "server/base/buffer.h"
#include "server/base/counters.h"
#include "server/durable/durable.h"
#include "server/durable/journaling.h"
#include "server/durable/recorder.h"
#include "server/durable/saving.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/model/model.h"

enum { ENGINE_COUNTERS = 48, DURABLE_COUNTERS = 24 };

/* As the models are listed: once for each that a worker has joined. */
static uint64_t registered(const struct engine *engine)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < engine->model_count; i++) {
        sum += engine->numbered[i]->joined;
    }
    return sum;
}

static size_t read_engine(const struct engine *engine,
                          struct opt_counter out[ENGINE_COUNTERS])
{
    const struct engine_counters *counted = &engine->counters;
    const struct opt_counter counters[] = {
        { "requests", counted->requests },
        { "errors", counted->errors },
        { "pushes_applied", counted->pushes_applied },
        { "pushes_duplicate", counted->pushes_duplicate },
        { "pushes_resent", counted->pushes_resent },
        { "pushes_stale", counted->pushes_stale },
        { "pushes_refused", counted->pushes_refused },
        { "pushes_skipped", counted->pushes_skipped },
        { "pushes_withdrawn", counted->pushes_withdrawn },
        { "pushes_dropped", counted->pushes_dropped },
        { "barriers", counted->barriers },
        { "pulls", counted->pulls },
        { "updates", counted->updates },
        { "updates_stalled", counted->updates_stalled },
        { "mailbox_ns", counted->mailbox_ns },
        { "serve_ns", counted->serve_ns },
        { "round_ns", counted->round_ns },
        { "update_ns", counted->update_ns },
        { "parameters_updated", counted->parameters_updated },
        { "blocks_held", counted->blocks_held },
        { "rounds_skipped", counted->rounds_skipped },
        { "versions_fresh", counted->versions_fresh },
        { "workers_lost", counted->workers_lost },
        { "workers_reconnected", counted->workers_reconnected },
        { "hellos_stale", counted->hellos_stale },
        { "deadlines_exceeded", counted->deadlines_exceeded },
        { "logins_refused", counted->logins_refused },
        { "turn_ns_most", counted->turn_ns_most },
        { "turn_cost_most", counted->turn_cost_most },
        { "models", engine->model_count },
        { "workers", registered(engine) },
        { "workers_known", engine->workers.count },
        { "memory_used", budget_used(&engine->budget) },
        { "memory_kept", buffer_kept() },
        { "memory_limit", engine->budget.limit },
    };
    enum { COUNT = sizeof counters / sizeof *counters };
    _Static_assert(COUNT <= (size_t)ENGINE_COUNTERS, "room for all");
    for (size_t i = 0; i < COUNT; i++) {
        out[i] = counters[i];
    }
    return COUNT;
}

/* What is kept on disk, if anything is. */
static size_t read_durable(const struct engine *engine,
                           struct opt_counter out[DURABLE_COUNTERS])
{
    const struct durable *durable = engine->durable;
    if (durable == NULL) {
        return 0;
    }
    struct journal_counts journal = journaling_counts(durable);
    const struct opt_counter counters[] = {
        { "degraded", durable->degraded },
        { "records_made", durable->recorded },
        { "records_durable", durable->safe },
        { "records_lost", recorder_lost(durable) },
        { "checkpoints", engine->counters.checkpoints },
        { "checkpoint_bytes", engine->counters.checkpoint_bytes },
        { "checkpoint_ns", engine->counters.checkpoint_ns },
        { "checkpoint_failures", engine->counters.checkpoint_failures },
        { "checkpoints_failing", saving_failing(durable) },
        { "journal_records", journal.records },
        { "journal_bytes", journal.bytes },
        { "journal_syncs", journal.syncs },
        { "journal_sync_ns", journal.sync_ns },
        { "journal_failures", journal.failures },
        { "journal_held_bytes", journal.held_bytes },
        { "journal_segments", journal.segments },
        { "journal_queue_bytes", recorder_bytes(durable) },
    };
    enum { COUNT = sizeof counters / sizeof *counters };
    _Static_assert(COUNT <= (size_t)DURABLE_COUNTERS, "room for all");
    for (size_t i = 0; i < COUNT; i++) {
        out[i] = counters[i];
    }
    return COUNT;
}

void serve_statistics(struct engine *engine, struct letter *letter)
{
    struct opt_counter *counters = opt_arena_alloc(
        &letter->arena,
        (ENGINE_COUNTERS + DURABLE_COUNTERS + COUNTER_COUNT) * sizeof *counters);
    if (counters == NULL) {
        answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for counters");
        return;
    }
    size_t count = read_engine(engine, counters);
    count += read_durable(engine, counters + count);
    counters_read(counters + count);
    answer_start(letter, OPT_MESSAGE_STATISTICS)->body.statistics =
        (struct opt_statistics_reply){ .counters = counters,
                                       .count = count + COUNTER_COUNT };
    answer_send(engine, letter);
}
