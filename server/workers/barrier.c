/* barrier — see barrier.h. */
#include "server/workers/barrier.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "server/engine/answer.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/members.h"
#include "server/workers/worker.h"

enum { NAMES_SHOWN = 8 };

/* Who has not come, for people. */
static void print_missing(const struct model *model, char *text, size_t capacity)
{
    if (!model->gathered) {
        snprintf(text, capacity, "it waits for %" PRIu32 " workers, %zu have joined",
                 model->consistency.min_workers, model->joined);
        return;
    }
    size_t missing = model->joined - model->arrived, named = 0;
    size_t used = (size_t)snprintf(text, capacity, "%zu of %zu workers have not come",
                                   missing, model->joined);
    for (size_t i = 0; i < model->member_count && used < capacity; i++) {
        const struct member *member = model->members[i];
        if (!member->joined || member->arrival.letter != NULL) {
            continue;
        }
        if (named == NAMES_SHOWN) {
            snprintf(text + used, capacity - used, ", and %zu more", missing - named);
            return;
        }
        used += (size_t)snprintf(text + used, capacity - used, "%s\"%.40s\"%s",
                                 named == 0 ? ": " : ", ", member->worker->name,
                                 member->away ? " (not connected)" : "");
        named++;
    }
}

/* The member is not waited with any more; its letter, or NULL, is the caller's. */
static struct letter *go(struct engine *engine, struct member *member)
{
    struct arrival *arrival = &member->arrival;
    struct letter *letter = arrival->letter;
    member->model->arrived -= letter != NULL;
    alarm_cancel(&engine->alarms, &arrival->deadline);
    arrival->letter = NULL;
    return letter;
}

static void answer(struct engine *engine, const struct model *model,
                   struct member *member, struct letter *letter)
{
    answer_start(letter, OPT_MESSAGE_BARRIER)->body.barrier = (struct opt_wait_reply){
        .step = model->step,
        .epoch = model_epoch(model),
        .lost = lost_workers_tell(model, member, letter),
    };
    answer_send(engine, letter);
}

void barrier_withdraw(struct engine *engine, struct member *member,
                      enum opt_status status, enum opt_detail detail, const char *why)
{
    struct letter *letter = go(engine, member);
    if (letter != NULL) {
        answer_fail(engine, letter, status, detail, "%s", why);
    }
}

void barrier_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    enum opt_detail detail, const char *why)
{
    for (size_t i = 0; i < model->member_count; i++) {
        barrier_withdraw(engine, model->members[i], status, detail, why);
    }
}

void barrier_closed(struct engine *engine, const struct peer *peer)
{
    for (size_t i = 0; i < engine->model_count; i++) {
        struct model *model = engine->numbered[i];
        for (size_t k = 0; model->arrived > 0 && k < model->member_count; k++) {
            struct member *member = model->members[k];
            if (member->arrival.letter != NULL &&
                member->arrival.letter->peer == peer) {
                barrier_withdraw(engine, member, OPT_UNAVAILABLE, OPT_DETAIL_CONTINUED,
                                 "the connection of the worker was lost, or followed "
                                 "by another one, while it waited at the barrier");
            }
        }
    }
}

static void on_deadline(struct engine *engine, struct alarm *alarm)
{
    struct member *member =
        (struct member *)(void *)((char *)alarm -
                                  offsetof(struct member, arrival.deadline));
    struct model *model = member->model;
    char missing[OPT_ERROR_TEXT / 2], text[OPT_ERROR_TEXT];
    print_missing(model, missing, sizeof missing);
    snprintf(text, sizeof text, "the barrier of model \"%.100s\" was not passed: %s",
             model->name, missing);
    engine->counters.deadlines_exceeded++;
    barrier_withdraw(engine, member, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NO_PEER, text);
}

/* Whether the worker may wait for a barrier of this number now. */
static enum opt_status check(const struct member *member, uint64_t sequence,
                             struct opt_error *error)
{
    const struct arrival *arrival = &member->arrival;
    if (arrival->letter != NULL && arrival->sequence != sequence) {
        return opt_fail_as(
            error, OPT_FAILED_PRECONDITION, OPT_DETAIL_AT_BARRIER,
            "worker \"%s\" waits at barrier %" PRIu64 " of model \"%s\"; it "
            "cannot wait at barrier %" PRIu64 " too",
            member->worker->name, arrival->sequence, member->model->name, sequence);
    }
    return OPT_OK;
}

void barrier_arrive(struct engine *engine, struct model *model, struct letter *letter)
{
    uint64_t sequence = letter->request.body.barrier.sequence;
    struct member *member = members_of(model, letter->peer);
    struct opt_error error;
    if (member == NULL || !member->joined) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_JOINED,
                    "worker \"%s\" has not joined model \"%s\"; create or open it with "
                    "join before its barrier",
                    letter->peer->name, model->name);
        return;
    }
    struct arrival *arrival = &member->arrival;
    if (arrival->session != member->worker->session) {
        arrival->session = member->worker->session;
        arrival->passed = 0;
    }
    if (sequence <= arrival->passed) {
        answer(engine, model, member, letter);
        return;
    }
    if (check(member, sequence, &error) != OPT_OK) {
        answer_refuse(engine, letter, &error);
        return;
    }
    barrier_withdraw(engine, member, OPT_ABORTED, OPT_DETAIL_REPLACED,
                     "the same barrier was asked for again by a later request");
    if (!alarm_set(&engine->alarms, &arrival->deadline, answer_deadline(engine, letter),
                   on_deadline)) {
        answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory to let a request wait");
        return;
    }
    arrival->letter = letter;
    arrival->sequence = sequence;
    model->arrived++;
    work_settle(engine, model);
}

bool barrier_try(struct engine *engine, struct model *model)
{
    if (model->arrived == 0 || model->arrived < model->joined || !model->gathered) {
        return false;
    }
    /* All are let go before anybody is answered. */
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (member->arrival.letter != NULL) {
            member->arrival.passed = member->arrival.sequence;
            commit_member(engine, COMMIT_MEMBER, member);
        }
    }
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        struct letter *letter = go(engine, member);
        if (letter != NULL) {
            answer(engine, model, member, letter);
        }
    }
    engine->counters.barriers++;
    return true;
}
