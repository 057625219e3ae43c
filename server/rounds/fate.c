/* fate — see fate.h. */
#include "server/rounds/fate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "server/base/letter.h"
#include "server/engine/commit.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/rounds/window.h"
#include "server/workers/worker.h"

struct push *fate_waiting(const struct member *member, uint64_t sequence)
{
    for (struct push *push = member->first; push != NULL; push = push->next) {
        if (push->head.sequence == sequence) {
            return push;
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- meeting a copy */

static enum fate_meeting of_settled(const struct opt_settled *settled,
                                    struct opt_push_reply *reply,
                                    struct opt_error *error)
{
    switch (settled->fate) {
    case OPT_FATE_REFUSED:
    case OPT_FATE_IN_PART:
        opt_fail_as(error, settled->status, OPT_DETAIL_REFUSED_BEFORE,
                    "the push of sequence %" PRIu64 " was refused before; %s",
                    settled->sequence,
                    settled->fate == OPT_FATE_IN_PART
                        ? "shards of it that had been applied by then stay so"
                        : "nothing of it was applied");
        error->fate = settled->fate;
        error->shards_applied = settled->shards_applied;
        return FATE_REFUSED;
    case OPT_FATE_APPLIED:
        *reply = (struct opt_push_reply){ .fate = OPT_FATE_DUPLICATE,
                                          .step = settled->step,
                                          .reason = "" };
        return FATE_SETTLED;
    default:
        *reply = (struct opt_push_reply){
            .fate = settled->fate,
            .step = settled->step,
            .reason = settled->fate == OPT_FATE_DROPPED
                          ? "its round had closed when it came first"
                          : "a gradient of its round was not finite",
        };
        return FATE_SETTLED;
    }
}

/* Whether the push was made in a life of the worker that is over. */
static bool is_stale(const struct member *member, const struct opt_push *head)
{
    return head->incarnation != 0 && head->incarnation != member->worker->incarnation;
}

static enum fate_meeting stale(const struct member *member, const struct opt_push *head,
                               struct opt_error *error)
{
    const struct worker *worker = member->worker;
    bool remembered = head->incarnation >= member->since;
    const char *rest = remembered ? "" : "; whether it was applied is not known";
    if (worker->lost_why[0] == '\0') {
        opt_fail_as(error, OPT_ABORTED, OPT_DETAIL_STALE_INCARNATION,
                    "stale incarnation %" PRIu64 ": worker \"%s\" is in incarnation "
                    "%" PRIu64 "; pull the weights and push again%s",
                    head->incarnation, worker->name, worker->incarnation, rest);
    } else {
        opt_fail_as(error, OPT_ABORTED, OPT_DETAIL_TAKEN_FOR_DEAD,
                    "stale incarnation %" PRIu64
                    ": worker \"%s\" was taken for dead at step %" PRIu64
                    " %s; pull the weights and push again%s",
                    head->incarnation, worker->name, member->lost_step,
                    worker->lost_why, rest);
    }
    error->fate = remembered ? OPT_FATE_REFUSED : OPT_FATE_NOT_KNOWN;
    return FATE_STALE;
}

static enum fate_meeting too_old(const struct member *member,
                                 const struct opt_push *head, struct opt_error *error)
{
    opt_fail_as(error, OPT_OUT_OF_RANGE, OPT_DETAIL_TOO_OLD,
                "sequence %" PRIu64 " is too old: the last %d are remembered, up to "
                "%" PRIu64 "; whether it was applied is not known",
                head->sequence, (int)WINDOW_PUSHES, member->window.last);
    error->fate = OPT_FATE_NOT_KNOWN;
    return FATE_LATE;
}

/* Others have come before it: that is its end. */
static enum fate_meeting out_of_order(struct member *member,
                                      const struct opt_push *head, uint64_t before,
                                      const char *how, struct opt_error *error)
{
    opt_fail_as(error, OPT_INVALID_ARGUMENT, OPT_DETAIL_OUT_OF_ORDER,
                "sequence %" PRIu64 " comes after %" PRIu64
                ", which %s; sequences must ascend, so it is not applied",
                head->sequence, before, how);
    error->fate = OPT_FATE_REFUSED;
    window_settle(&member->window, &(struct opt_settled){ .sequence = head->sequence,
                                                          .fate = OPT_FATE_REFUSED,
                                                          .step = member->model->step,
                                                          .status = error->status });
    return FATE_LATE;
}

enum fate_meeting fate_meet(struct member *member, const struct opt_push *head,
                            struct opt_push_reply *reply, struct opt_error *error)
{
    const struct push *waiting = fate_waiting(member, head->sequence);
    if (waiting != NULL && waiting->session == member->worker->session) {
        return FATE_WAITING;
    }
    struct opt_settled settled;
    enum window_place place = window_find(&member->window, head->sequence, &settled);
    if (place == WINDOW_SETTLED) {
        return of_settled(&settled, reply, error);
    }
    if (is_stale(member, head)) {
        return stale(member, head, error);
    }
    if (place == WINDOW_TOO_OLD) {
        return too_old(member, head, error);
    }
    if (place == WINDOW_PASSED_OVER) {
        return out_of_order(member, head, member->window.last, "is settled", error);
    }
    if (member->last != NULL && head->sequence <= member->last->head.sequence) {
        return out_of_order(member, head, member->last->head.sequence,
                            "is still waiting", error);
    }
    return FATE_NEW;
}

/* ---------------------------------------------------------------- settling */

static bool names(const struct push *push, const struct shard *shard)
{
    for (size_t i = 0; i < shard->tensor_count; i++) {
        if (push->gradient.covered[shard->first_tensor + i] > 0) {
            return true;
        }
    }
    return false;
}

/* What a push leaves behind that goes before its open round is over. Of one whose
 * frames have not all come, any shard of the model might have followed. */
static void judge(const struct push *push, struct opt_settled *settled,
                  uint64_t *shards)
{
    const struct model *model = push->model;
    bool complete = push->member->gathering != push;
    for (size_t i = 0; i < model->shard_count; i++) {
        const struct shard *shard = &model->shards[i];
        bool counts = complete ? names(push, shard) : shard->blocks > 0;
        *shards += counts;
        settled->shards_applied += counts && shard->published && push->here[i] > 0;
    }
    if (complete && settled->shards_applied == *shards) {
        settled->fate = OPT_FATE_APPLIED;
        settled->step = model->step + 1;
        settled->shards_applied = 0;
    } else if (settled->shards_applied > 0) {
        settled->fate = OPT_FATE_IN_PART;
    }
}

/* Say in the error what the push has come to. What has been applied in part is not to
 * be pushed again, as other codes might suggest. */
static void tell(struct opt_error *error, const struct opt_settled *settled,
                 uint64_t shards)
{
    char text[OPT_ERROR_TEXT];
    enum opt_detail detail = error->detail;
    memcpy(text, error->text, sizeof text);
    if (settled->fate == OPT_FATE_IN_PART) {
        opt_fail_as(error,
                    error->status == OPT_INVALID_ARGUMENT ? error->status : OPT_ABORTED,
                    detail,
                    "%.*s; %" PRIu64 " of %" PRIu64
                    " shards of it had been applied and stay so",
                    OPT_ERROR_TEXT - 100, text, settled->shards_applied, shards);
        error->shards_applied = settled->shards_applied;
        error->shards = shards;
    } else if (settled->fate == OPT_FATE_APPLIED) {
        opt_fail_as(error, error->status, detail, "%.*s; all of it had been applied",
                    OPT_ERROR_TEXT - 100, text);
        error->step = settled->step;
    }
    error->fate = settled->fate;
}

/* What is known of the push of which this is an echo. */
static enum opt_fate fate_of_first(const struct push *echo)
{
    struct opt_settled settled;
    bool known = window_find(&echo->member->window, echo->head.sequence, &settled) ==
                 WINDOW_SETTLED;
    return known ? settled.fate : OPT_FATE_NOT_TAKEN;
}

void fate_settle(struct engine *engine, struct push *push, enum opt_fate fate,
                 struct opt_error *error)
{
    if (push->echo) {
        if (error != NULL) {
            error->fate = fate_of_first(push);
        }
        return;
    }
    struct opt_settled settled = { .sequence = push->head.sequence,
                                   .fate = fate,
                                   .step = push->model->step };
    uint64_t shards = 0;
    if (fate == OPT_FATE_REFUSED && shard_schedule_has(push)) {
        judge(push, &settled, &shards);
    }
    shard_schedule_withdraw(push);
    if (error != NULL) {
        tell(error, &settled, shards);
        settled.status = error->status;
    }
    window_settle(&push->member->window, &settled);
    commit_push(engine, push->member, &settled);
}

/* ---------------------------------------------------------------- telling */

/* The highest number that is settled or waits: new pushes go on above it. */
static uint64_t last_number(const struct member *member)
{
    uint64_t waiting = member->last == NULL ? 0 : member->last->head.sequence;
    return waiting > member->window.last ? waiting : member->window.last;
}

/* Whether a copy of the number stands that this session can still be answered for. */
static bool stands(const struct member *member, uint64_t sequence)
{
    const struct push *push = fate_waiting(member, sequence);
    if (push == NULL && shard_schedule_has(member->gathering)) {
        push = member->gathering;
    }
    return push != NULL && push->head.sequence == sequence &&
           push->session == member->worker->session;
}

bool fate_report(const struct member *member, struct letter *letter,
                 struct opt_model_reply *reply)
{
    const struct opt_open *open = &letter->request.body.open;
    reply->last_sequence = last_number(member);
    reply->remembered_since = member->since;
    if (letter->request.message != OPT_MESSAGE_OPEN || open->unanswered_count == 0) {
        return true;
    }
    struct opt_settled *settled =
        opt_arena_alloc(&letter->arena, open->unanswered_count * sizeof *settled);
    uint64_t *waiting =
        opt_arena_alloc(&letter->arena, open->unanswered_count * sizeof *waiting);
    if (settled == NULL || waiting == NULL) {
        return false;
    }
    reply->settled = settled;
    reply->waiting = waiting;
    for (size_t i = 0; i < open->unanswered_count; i++) {
        uint64_t sequence = open->unanswered[i];
        if (window_find(&member->window, sequence, &settled[reply->settled_count]) ==
            WINDOW_SETTLED) {
            reply->settled_count++;
        } else if (stands(member, sequence)) {
            waiting[reply->waiting_count++] = sequence;
        }
    }
    return true;
}
