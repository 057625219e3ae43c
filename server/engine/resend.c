/* resend — see resend.h. */
#include "server/engine/resend.h"

#include <inttypes.h>

#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/push.h"
#include "server/engine/window.h"
#include "server/engine/worker.h"

struct push *resend_waiting(const struct member *member, uint64_t sequence)
{
    for (struct push *push = member->first; push != NULL; push = push->next) {
        if (push->head.sequence == sequence) {
            return push;
        }
    }
    return NULL;
}

static enum resend of_settled(const struct member *member,
                              const struct opt_settled *settled,
                              struct opt_push_reply *reply, struct opt_error *error)
{
    bool in_part = stream_is_policy(member->model) && settled->status == OPT_ABORTED;
    switch (settled->fate) {
    case OPT_FATE_REFUSED:
        opt_fail(error, settled->status,
                 "the push of sequence %" PRIu64 " was refused before; %s",
                 settled->sequence,
                 in_part ? "shards of it that had been applied by then stay so"
                         : "nothing of it was applied");
        return RESEND_REFUSED;
    case OPT_FATE_APPLIED:
        *reply = (struct opt_push_reply){ .fate = OPT_FATE_DUPLICATE,
                                          .step = settled->step,
                                          .reason = "" };
        return RESEND_SETTLED;
    default:
        *reply = (struct opt_push_reply){
            .fate = settled->fate,
            .step = settled->step,
            .reason = settled->fate == OPT_FATE_DROPPED
                          ? "its round had closed when it came first"
                          : "a gradient of its round was not finite",
        };
        return RESEND_SETTLED;
    }
}

/* Whether the push was made in a life of the worker that is over. */
static bool is_stale(const struct member *member, const struct opt_push *head)
{
    return head->incarnation != 0 && head->incarnation != member->worker->incarnation;
}

static enum resend stale(const struct member *member, const struct opt_push *head,
                         struct opt_error *error)
{
    const struct worker *worker = member->worker;
    if (worker->lost_why[0] == '\0') {
        opt_fail_as(error, OPT_ABORTED, OPT_DETAIL_STALE_INCARNATION,
                    "stale incarnation %" PRIu64 ": worker \"%s\" is in incarnation "
                    "%" PRIu64 "; pull the weights and push again",
                    head->incarnation, worker->name, worker->incarnation);
    } else {
        opt_fail_as(error, OPT_ABORTED, OPT_DETAIL_TAKEN_FOR_DEAD,
                    "stale incarnation %" PRIu64
                    ": worker \"%s\" was taken for dead at step %" PRIu64
                    " %s; pull the weights and push again",
                    head->incarnation, worker->name, member->lost_step,
                    worker->lost_why);
    }
    return RESEND_STALE;
}

enum resend resend_find(const struct member *member, const struct opt_push *head,
                        struct opt_push_reply *reply, struct opt_error *error)
{
    const struct push *waiting = resend_waiting(member, head->sequence);
    if (waiting != NULL && waiting->session == member->worker->session) {
        return RESEND_WAITING;
    }
    struct opt_settled settled;
    enum window_place place = window_find(&member->window, head->sequence, &settled);
    if (place == WINDOW_SETTLED) {
        return of_settled(member, &settled, reply, error);
    }
    if (is_stale(member, head)) {
        return stale(member, head, error);
    }
    if (place == WINDOW_NEW) {
        return RESEND_NEW;
    }
    if (place == WINDOW_TOO_OLD) {
        opt_fail(error, OPT_OUT_OF_RANGE,
                 "sequence %" PRIu64 " is too old: the last %d are remembered, up to "
                 "%" PRIu64 "; whether it was applied is not known",
                 head->sequence, (int)WINDOW_PUSHES, member->window.last);
    } else {
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "sequence %" PRIu64 " comes after %" PRIu64
                 ", which is settled; sequences must ascend, so it is not applied",
                 head->sequence, member->window.last);
    }
    return RESEND_UNKNOWN;
}

size_t resend_report(const struct member *member, const uint64_t *sequences,
                     size_t count, struct opt_settled *out)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (window_find(&member->window, sequences[i], &out[found]) == WINDOW_SETTLED) {
            found++;
        }
    }
    return found;
}
