/* worker — see worker.h. */
#include "server/workers/worker.h"
#include "server/engine/commit.h"
#include "server/engine/work.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/frames.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/rounds/shard_schedule.h"
#include "server/rounds/withdraw.h"
#include "server/store/record.h"
#include "server/workers/barrier.h"

void worker_free(struct worker *worker)
{
    if (worker != NULL) {
        free(worker->name);
        free(worker);
    }
}

static struct worker *worker_new(struct engine *engine, const char *name)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return NULL;
    }
    worker->name = strdup(name);
    if (worker->name == NULL || !names_add(&engine->workers, worker->name, worker)) {
        worker_free(worker);
        return NULL;
    }
    return worker;
}

void worker_release(struct engine *engine, struct worker *worker)
{
    if (worker->peer == NULL && worker->members == NULL) {
        names_remove(&engine->workers, worker->name);
        worker_free(worker);
    }
}

void worker_detach(struct engine *engine, struct worker *worker, bool continued)
{
    struct peer *peer = worker->peer;
    if (peer == NULL) {
        return;
    }
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        if (member->gathering != NULL && member->gathering->peer == peer) {
            frames_cut_off(engine, member);
        }
    }
    peer->worker = NULL;
    peer->continued = continued;
    worker->peer = NULL;
}

void worker_mark_lost(struct engine *engine, struct worker *worker, const char *format,
                      ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(worker->lost_why, sizeof worker->lost_why, format, arguments);
    va_end(arguments);
    worker->lost = true;
    commit_worker(engine, worker);
}

void worker_lose_all(struct engine *engine, struct worker *worker)
{
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        member->loss_pending = member->joined;
        work_settle(engine, member->model);
    }
}

struct worker *worker_restore(struct engine *engine, struct peer *keeper,
                              const char *name, const struct record_worker *was)
{
    struct worker *worker = names_find(&engine->workers, name);
    if (worker == NULL) {
        worker = worker_new(engine, name);
        if (worker == NULL) {
            return NULL;
        }
        worker->peer = keeper;
    }
    if (was != NULL) {
        worker->session = was->session;
        worker->incarnation = was->incarnation;
        worker->lost = was->lost;
        snprintf(worker->lost_why, sizeof worker->lost_why, "%s", was->lost_why);
    }
    return worker;
}

/* ---------------------------------------------------------------- hello */

static enum opt_status check_incarnation(const struct worker *worker,
                                         const struct opt_hello *hello,
                                         struct opt_error *error)
{
    if (worker->session == hello->session || hello->incarnation == 0 ||
        hello->incarnation > worker->incarnation) {
        return OPT_OK;
    }
    return opt_fail_as(
        error, OPT_FAILED_PRECONDITION, OPT_DETAIL_TAKEN_OVER,
        "stale incarnation %" PRIu64 ": worker \"%.100s\" is in incarnation "
        "%" PRIu64 ", that of another process; end one of the two, or give "
        "it a name of its own",
        hello->incarnation, worker->name, worker->incarnation);
}

/* What the life before has left in queues will not be part of any round, but of one
 * that is open already. */
static void withdraw_all(struct engine *engine, struct worker *worker)
{
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        while (member->last != NULL && !shard_schedule_has(member->last)) {
            withdraw_push(engine, member->last, OPT_ABORTED, OPT_DETAIL_TAKEN_FOR_DEAD,
                          "the worker was taken for dead before the push was applied");
        }
    }
}

static void begin_incarnation(struct engine *engine, struct worker *worker,
                              const struct opt_hello *hello)
{
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        frames_end(engine, member);
    }
    uint64_t before = worker->incarnation;
    if (before < hello->incarnation) {
        before = hello->incarnation;
    }
    worker->incarnation = before + 1;
    if (worker->session != hello->session) {
        worker->lost_why[0] = '\0';
    }
    worker->session = hello->session;
    worker->reconnects = 0;
    worker->lost = false;
    commit_worker(engine, worker);
}

enum opt_status worker_hello(struct engine *engine, struct peer *peer,
                             const struct opt_hello *hello, struct opt_error *error)
{
    struct worker *worker = names_find(&engine->workers, hello->worker);
    if (worker == NULL) {
        worker = worker_new(engine, hello->worker);
        if (worker == NULL) {
            return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                               "no memory for worker \"%s\"", hello->worker);
        }
    } else if (check_incarnation(worker, hello, error) != OPT_OK) {
        engine->counters.hellos_stale++;
        return error->status;
    }
    bool same = worker->session == hello->session;
    if (same && worker->peer != NULL) {
        barrier_closed(engine, worker->peer);
    }
    worker_detach(engine, worker, same);
    if (same && !worker->lost) {
        worker->reconnects++;
        engine->counters.workers_reconnected++;
    } else if (same) {
        withdraw_all(engine, worker);
        begin_incarnation(engine, worker, hello);
    } else {
        worker_lose_all(engine, worker);
        begin_incarnation(engine, worker, hello);
    }
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        if (member->away && !member->loss_pending) {
            member->away = false;
            if (member->lost) {
                member->lost = false;
                commit_member(engine, COMMIT_MEMBER, member);
            }
            alarm_cancel(&engine->alarms, &member->alarm);
        }
    }
    worker->peer = peer;
    peer->worker = worker;
    peer->incarnation = worker->incarnation;
    snprintf(peer->name, sizeof peer->name, "%s", hello->worker);
    return OPT_OK;
}
