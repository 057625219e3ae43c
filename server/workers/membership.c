/* membership — see membership.h. */
#include "server/workers/membership.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/commit.h"
#include "server/engine/events.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/closing.h"
#include "server/rounds/frames.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/push.h"
#include "server/rounds/queue.h"
#include "server/rounds/withdraw.h"
#include "server/store/record.h"
#include "server/weights/shards.h"
#include "server/workers/worker.h"

enum {
    ALLOWANCE_BASE = 8 << 20,  /* bytes in flight beside the reserved pushes, */
    RESERVED_BASE = 256 << 10, /* of which so many for each model are reserved: for the
                                  letters of a push, a pull, a heartbeat */
    FORGET_AGAIN_MS = 60 * 1000,
    STOPPED_MS = 100 /* an alarm is later than that only if the process was stopped */
};

static uint64_t ms_to_ns(uint64_t ms)
{
    return ms * 1000000;
}

/* ---------------------------------------------------------------- members */

void membership_forget(struct engine *engine, struct member *member)
{
    struct model *model = member->model;
    struct worker *worker = member->worker;
    alarm_cancel(&engine->alarms, &member->alarm);
    withdraw_unfinished(engine, member);
    last_pull_close(model, &member->last_pull);
    budget_give(&engine->budget, member->reserved + sizeof *member);
    commit_member(engine, COMMIT_FORGOTTEN, member);
    members_remove(member);
    queue_recount(model);
    worker_release(engine, worker);
}

static struct member *member_of_alarm(struct alarm *alarm)
{
    return (struct member *)(void *)((char *)alarm - offsetof(struct member, alarm));
}

static bool can_be_forgotten(const struct member *member)
{
    return !member->joined && member->first == NULL &&
           member->model->activity == MODEL_IDLE;
}

static void on_remembered_long(struct engine *engine, struct alarm *alarm)
{
    struct member *member = member_of_alarm(alarm);
    if (can_be_forgotten(member)) {
        membership_forget(engine, member);
        return;
    }
    alarm_set(&engine->alarms, alarm, engine->now_ns + ms_to_ns(FORGET_AGAIN_MS),
              on_remembered_long);
}

/* The one that left first is forgotten. */
static void forget_oldest(struct engine *engine, struct model *model)
{
    struct member *oldest = NULL;
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (can_be_forgotten(member) &&
            (oldest == NULL || member->left_ns < oldest->left_ns)) {
            oldest = member;
        }
    }
    if (oldest != NULL) {
        membership_forget(engine, oldest);
    }
}

/* A member more, from the budget; one that is only remembered gives way. */
static bool make_way(struct engine *engine, struct model *model)
{
    if (model->member_count - model->joined >= MEMBERS_KEPT ||
        budget_left(&engine->budget) < sizeof(struct member)) {
        forget_oldest(engine, model);
    }
    return budget_take(&engine->budget, sizeof(struct member));
}

/* ---------------------------------------------------------------- joining */

static enum opt_status reserve(struct engine *engine, const struct model *model,
                               struct member *member, struct opt_error *error)
{
    size_t pushes = push_reserved(model);
    size_t need = pushes * push_bytes(model) + RESERVED_BASE + last_pull_bytes(model);
    if (!budget_take(&engine->budget, need)) {
        shards_trim(engine);
        if (!budget_take(&engine->budget, need)) {
            return opt_fail_as(
                error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                "a worker of model \"%s\" needs %zu bytes for its gradient%s, "
                "but %zu of the %zu bytes that --memory allows are left",
                model->name, need,
                pushes > 1                   ? "s of one round"
                : last_pull_bytes(model) > 0 ? " and the weights it has pulled"
                                             : "",
                budget_left(&engine->budget), engine->budget.limit);
        }
    }
    member->reserved = need;
    return OPT_OK;
}

enum opt_status membership_join(struct engine *engine, struct model *model,
                                struct peer *peer, struct opt_error *error)
{
    struct member *member = members_of(model, peer);
    bool made = member == NULL;
    if (made) {
        if (!make_way(engine, model)) {
            return opt_fail_as(
                error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                "a worker of model \"%s\" needs %zu bytes to be remembered, "
                "but %zu of the %zu bytes that --memory allows are left",
                model->name, sizeof *member, budget_left(&engine->budget),
                engine->budget.limit);
        }
        member = members_add(engine, model, peer->worker);
        if (member == NULL) {
            budget_give(&engine->budget, sizeof *member);
            return opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                               "no memory for a worker of model \"%s\"", model->name);
        }
    }
    if (!member->joined) {
        enum opt_status status = reserve(engine, model, member, error);
        if (status == OPT_OK && !last_pull_open(model, &member->last_pull)) {
            budget_give(&engine->budget, member->reserved);
            member->reserved = 0;
            status = opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                                 "no memory for a worker of model \"%s\"", model->name);
        }
        if (status != OPT_OK) {
            if (made) {
                membership_forget(engine, member);
            }
            return status;
        }
        uint64_t slowest = closing_slowest(model);
        member->clock = member->clock > slowest ? member->clock : slowest;
        member->told = model->losses.count;
        member->resting = false;
    }
    bool joins = !member->joined;
    alarm_cancel(&engine->alarms, &member->alarm);
    member->joined = true;
    member->away = false;
    queue_recount(model);
    commit_member(engine, COMMIT_MEMBER, member);
    if (joins) {
        event_worker_joined(member);
    }
    return OPT_OK;
}

static struct member *member_of(const struct worker *worker, const struct model *model)
{
    struct member *member = worker->members;
    while (member != NULL && member->model != model) {
        member = member->next_of_worker;
    }
    return member;
}

/* What it holds while it is joined: taken, or given back. */
static enum opt_status restore_joined(struct engine *engine, struct model *model,
                                      struct member *member, bool joined,
                                      struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    if (joined && !member->joined) {
        status = reserve(engine, model, member, error);
        if (status == OPT_OK && !last_pull_open(model, &member->last_pull)) {
            status = opt_fail_as(error, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                                 "no memory for a worker of model \"%s\"", model->name);
        }
    } else if (!joined && member->joined) {
        budget_give(&engine->budget, member->reserved);
        member->reserved = 0;
        last_pull_close(model, &member->last_pull);
    }
    return status;
}

enum opt_status membership_restore(struct engine *engine, struct model *model,
                                   struct worker *worker,
                                   const struct record_member *was, struct member **out,
                                   struct opt_error *error)
{
    struct member *member = member_of(worker, model);
    if (member == NULL) {
        bool paid = budget_take(&engine->budget, sizeof *member);
        member = paid ? members_add(engine, model, worker) : NULL;
        if (member == NULL) {
            budget_give(&engine->budget, paid ? sizeof *member : 0);
            return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                               "a worker of model \"%s\" needs %zu bytes to be "
                               "remembered, but %zu of the %zu bytes that --memory "
                               "allows are left",
                               model->name, sizeof *member,
                               budget_left(&engine->budget), engine->budget.limit);
        }
    }
    enum opt_status status = restore_joined(engine, model, member, was->joined, error);
    if (status != OPT_OK) {
        return status;
    }
    bool lost = was->lost_step != member->lost_step || (was->lost && !member->lost);
    if (lost && member->joined) {
        lost_workers_note(model, worker->name);
    }
    member->joined = was->joined;
    member->resting = was->resting;
    member->lost = was->lost;
    member->lost_step = was->lost_step;
    member->last_step = was->last_step;
    member->clock = was->clock;
    member->since = was->since;
    member->arrival.session = was->barrier_session;
    member->arrival.passed = was->barrier_passed;
    queue_recount(model);
    *out = member;
    return OPT_OK;
}

void membership_allow(const struct peer *peer, struct letter *letter)
{
    letter->allowance = ALLOWANCE_BASE;
    letter->granted = 0;
    for (const struct member *member = peer->worker->members; member != NULL;
         member = member->next_of_worker) {
        if (member->joined) {
            size_t pushes = push_reserved(member->model);
            letter->allowance += pushes * push_frames_bytes(member->model);
            letter->granted +=
                RESERVED_BASE + pushes * push_frames_reserved(member->model);
        }
    }
}

uint64_t membership_inflight(const struct engine *engine, const struct letter *letter)
{
    size_t ordinary = engine->settings.connection_bytes;
    return letter->allowance > ordinary ? letter->allowance : ordinary;
}

bool membership_in_use(const struct peer *peer)
{
    for (const struct member *member = peer->worker == NULL ? NULL
                                                            : peer->worker->members;
         member != NULL; member = member->next_of_worker) {
        if (shard_schedule_is_using(member->gathering) ||
            shard_schedule_is_using(member->first)) {
            return true;
        }
    }
    return false;
}

/* ---------------------------------------------------------------- leaving */

/* It has left, and is forgotten some time from now on. */
static void remember(struct engine *engine, struct member *member)
{
    member->left_ns = engine->now_ns;
    if (!alarm_set(&engine->alarms, &member->alarm,
                   engine->now_ns + ms_to_ns(MEMBER_KEPT_MS), on_remembered_long)) {
        /* It stays until there are too many. */
        member->left_ns = 0;
    }
}

/* Out of the rounds; what it is remembered for stays for a while. */
static void leave_rounds(struct engine *engine, struct member *member)
{
    struct model *model = member->model;
    member->joined = false;
    member->away = false;
    member->resting = false;
    member->lost = false;
    member->loss_pending = false;
    commit_member(engine, COMMIT_MEMBER, member);
    budget_give(&engine->budget, member->reserved);
    member->reserved = 0;
    queue_recount(model);
    push_trim(engine, model);
    remember(engine, member);
}

/* Withdraw complete pushes from the end of the queue until keep are left. */
static void withdraw(struct engine *engine, struct member *member, size_t keep,
                     enum opt_detail detail, const char *why)
{
    while (member->waiting > keep) {
        withdraw_push(engine, member->last, OPT_ABORTED, detail, why);
    }
}

void membership_leave(struct engine *engine, struct member *member)
{
    struct model *model = member->model;
    if (!member->joined) {
        return;
    }
    const char *why = "the worker has left the model before the push was applied";
    if (member->gathering != NULL) {
        withdraw_push(engine, member->gathering, OPT_ABORTED, OPT_DETAIL_LEFT, why);
    }
    withdraw(engine, member, 0, OPT_DETAIL_LEFT, why);
    barrier_withdraw(engine, member, OPT_ABORTED, OPT_DETAIL_LEFT,
                     "the worker has left the model while it waited at the barrier");
    leave_rounds(engine, member);
    event_worker_left(member);
    work_settle(engine, model);
}

void membership_rest(struct engine *engine, struct member *member)
{
    member->resting = true;
    commit_member(engine, COMMIT_MEMBER, member);
    queue_recount(member->model);
    work_settle(engine, member->model);
}

static void fail_round(struct engine *engine, struct model *model, const char *name)
{
    char why[OPT_ERROR_TEXT];
    snprintf(why, sizeof why,
             "the round of step %" PRIu64 " failed: worker \"%s\" was lost",
             model->step + 1, name);
    event_round_failed(model, why);
    withdraw_round(engine, model, OPT_DETAIL_WORKER_LOST, why);
    for (size_t i = 0; i < model->member_count; i++) {
        withdraw(engine, model->members[i], 0, OPT_DETAIL_WORKER_LOST, why);
    }
    snprintf(why, sizeof why,
             "the barrier of model \"%.100s\" failed: worker \"%s\" was lost",
             model->name, name);
    barrier_refuse(engine, model, OPT_ABORTED, OPT_DETAIL_WORKER_LOST, why);
}

/* The worker is gone for good: what that means to the round is the model's policy. */
static void lose(struct engine *engine, struct member *member)
{
    struct model *model = member->model;
    if (!member->joined) {
        return;
    }
    if (model->activity != MODEL_IDLE) {
        member->loss_pending = true;
        return;
    }
    member->loss_pending = false;
    member->lost_step = model->step;
    alarm_cancel(&engine->alarms, &member->alarm);
    bool waits = model->consistency.loss == OPT_LOSS_WAIT;
    if (waits) {
        frames_cut_off(engine, member);
    } else {
        withdraw_unfinished(engine, member);
    }
    if (!member->lost) {
        engine->counters.workers_lost++;
        event_worker_lost(member);
        lost_workers_note(model, member->worker->name);
    }
    barrier_withdraw(engine, member, OPT_ABORTED, OPT_DETAIL_TAKEN_FOR_DEAD,
                     "the worker was lost while it waited at the barrier");
    if (waits) {
        /* Another process may have taken its place already. */
        member->lost = member->worker->peer == NULL;
        member->away = member->lost;
        commit_member(engine, COMMIT_MEMBER, member);
        return;
    }
    /* Complete pushes of the open round stay and count; later ones do not. */
    withdraw(engine, member, push_reserved(model), OPT_DETAIL_TAKEN_FOR_DEAD,
             "the worker was lost before the push was applied");
    if (model->consistency.loss == OPT_LOSS_FAIL) {
        fail_round(engine, model, member->worker->name);
    }
    leave_rounds(engine, member);
    work_settle(engine, model);
}

bool membership_settle(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (member->loss_pending) {
            lose(engine, member);
            return true;
        }
        if (!member->joined) { /* an update in progress may have needed it */
            last_pull_close(model, &member->last_pull);
        }
    }
    return false;
}

static void mark_broken(struct engine *engine, struct worker *worker)
{
    worker_mark_lost(engine, worker, "after its connection had been broken for %.1f s",
                     engine->settings.grace_ms / 1000.0);
}

/* If the daemon was stopped, or starved, meanwhile, the worker may be back already,
 * with its hello still to be read: it gets as much time as passed without anybody
 * looking. */
static void on_grace_over(struct engine *engine, struct alarm *alarm)
{
    struct member *member = member_of_alarm(alarm);
    uint64_t late = engine->now_ns - alarm->at_ns;
    uint64_t grace = ms_to_ns(engine->settings.grace_ms);
    if (late > ms_to_ns(STOPPED_MS) &&
        alarm_set(&engine->alarms, alarm,
                  engine->now_ns + (late < grace ? late : grace), on_grace_over)) {
        return;
    }
    mark_broken(engine, member->worker);
    lose(engine, member);
}

/* The connection is gone without a word: the worker may come back for a while. */
static void start_grace(struct engine *engine, struct member *member)
{
    uint64_t over = engine->now_ns + ms_to_ns(engine->settings.grace_ms);
    if (!member->joined) {
        return;
    }
    member->away = true;
    if (!alarm_set(&engine->alarms, &member->alarm, over, on_grace_over)) {
        /* Without memory for the alarm it is over at once. */
        mark_broken(engine, member->worker);
        member->loss_pending = true;
    }
}

void membership_restored(struct engine *engine, struct worker *worker)
{
    worker->peer = NULL;
    for (struct member *member = worker->members; member != NULL;
         member = member->next_of_worker) {
        member->told = member->model->losses.count;
        if (member->lost) {
            member->away = true;
        } else if (member->joined) {
            start_grace(engine, member);
            work_settle(engine, member->model);
        } else {
            remember(engine, member);
        }
    }
    worker_release(engine, worker);
}

void membership_closed(struct engine *engine, struct peer *peer, bool expired,
                       uint64_t silent_ms)
{
    struct worker *worker = peer->worker;
    if (worker == NULL) {
        return;
    }
    worker_detach(engine, worker, false);
    if (expired) {
        worker_mark_lost(engine, worker, "after %.1f s of silence",
                         (double)silent_ms / 1000);
        worker_lose_all(engine, worker);
    } else {
        for (struct member *member = worker->members; member != NULL;
             member = member->next_of_worker) {
            start_grace(engine, member);
        }
    }
    worker_release(engine, worker);
}
