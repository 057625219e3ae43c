#include "client/answers.h"

#include <uv.h>

#include "client/calls.h"
#include "client/client.h"
#include "client/in_flight.h"
#include "client/open_model.h"
#include "client/shm.h"

enum {
    NS_PER_MS = 1000000,
    RETRY_WORTH_MS = 1000 /* least time left that makes asking again worth it */
};

/* Ask again, later. What became of a push so far goes with it: it has the same number
 * unless the daemon has settled that. */
static void ask_later(struct optclient *client, struct optclient_call *call,
                      uint32_t wait_ms)
{
    in_flight_forget(client, call);
    call_unlink(call);
    call->state = CALL_LATER;
    call->begun = false;
    fate_resend(&call->fate);
    call->not_before_ns = uv_hrtime() + (uint64_t)wait_ms * NS_PER_MS;
    call_append(&client->later, call);
    client_alarm(client, call->not_before_ns);
}

/* Whether a request that was refused so may be granted later. *wait_ms: when. */
static bool may_heal(const struct optclient *client, const struct optclient_call *call,
                     const struct opt_error_reply *reply, uint32_t *wait_ms)
{
    enum opt_status status = reply->status;
    uint32_t left_ms = call_ms_left(call);
    if (call->request.message == OPT_MESSAGE_ASSIGN || !fate_may_resend(&call->fate)) {
        return false;
    }
    if (status == OPT_DEADLINE_EXCEEDED || reply->detail == OPT_DETAIL_OUT_OF_ORDER) {
        /* The daemon's limit is shorter than this call's; or, while a copy of the push
         * was lost, a later one has passed it. */
        *wait_ms = 0;
        return left_ms >= RETRY_WORTH_MS;
    }
    *wait_ms = reply->retry_after_ms > client->backoff.min_ms ? reply->retry_after_ms
                                                              : client->backoff.min_ms;
    bool busy = status == OPT_UNAVAILABLE ||
                (status == OPT_RESOURCE_EXHAUSTED && reply->retry_after_ms > 0);
    /* Or what was sent came damaged. */
    return (busy || status == OPT_DATA_LOSS) && *wait_ms < left_ms;
}

static void end_refused(struct optclient *client, struct optclient_call *call,
                        const struct opt_error_reply *reply)
{
    if (call->model != NULL && call->model->closing && call_has_push(call)) {
        opt_fail(&call->error, OPT_CANCELLED, "the model is being closed%s",
                 fate_words(&call->fate));
        calls_end(client, call, OPT_CANCELLED);
        return;
    }
    bool untold =
        call_has_push(call) && fate_is_open(&call->fate) && !call->fate.applied;
    opt_fail_as(&call->error, reply->status, reply->detail, "%s%s", reply->text,
                untold ? fate_words(&call->fate) : "");
    calls_end(client, call, reply->status);
}

static void on_error(struct optclient *client, struct optclient_call *call,
                     const struct opt_error_reply *reply)
{
    enum opt_message message = call->request.message;
    enum opt_status status = reply->status;
    if (call_pushes(call) && fate_is_untold(&call->fate, reply)) {
        client_disconnect(client, "part of a push was refused: %s", reply->text);
        return;
    }
    if (status == OPT_FAILED_PRECONDITION) {
        /* Is it this call, or has another process taken this worker's name? Only in the
         * second case a heartbeat is refused as well. */
        client->heartbeat_due = true;
    }
    if (message == OPT_MESSAGE_LEAVE ||
        (message == OPT_MESSAGE_DELETE && call->resent && status == OPT_NOT_FOUND)) {
        calls_end(client, call, OPT_OK);
        return;
    }
    if (call_pushes(call)) {
        fate_refuse(&call->fate, reply);
        call->pushed = call->fate.settled == OPT_FATE_APPLIED;
        if (reply->fate == OPT_FATE_APPLIED) {
            call->result.step = reply->step;
        }
    }
    if (!call_pushes(call) || fate_tell(&call->fate) != OPT_FATE_NOT_KNOWN) {
        call->placed = false; /* else a copy that stands may still be read from there */
    }
    uint32_t wait_ms;
    if (may_heal(client, call, reply, &wait_ms)) {
        opt_fail_as(&call->error, status, reply->detail, "%s", reply->text);
        ask_later(client, call, wait_ms);
    } else {
        end_refused(client, call, reply);
    }
}

static void take_lost(struct optclient_call *call, const struct opt_lost *lost)
{
    for (size_t i = 0; i < lost->count; i++) {
        open_model_note_lost(call->model, lost->names[i]);
    }
    call->result.lost += lost->count;
}

static void take_push(struct optclient_call *call, const struct opt_push_reply *reply)
{
    call->placed = false; /* the daemon has no more use for it */
    take_lost(call, &reply->lost);
    fate_answer(&call->fate, reply->fate);
    call->result.fate = (enum optclient_fate)reply->fate;
    call->result.durable = reply->durable;
    call->result.step = reply->step;
    call->result.staleness = reply->staleness;
    call->result.epoch = reply->epoch;
    if (reply->fate == OPT_FATE_DROPPED) {
        opt_fail(&call->error, OPT_OK, "%s", reply->reason);
    }
}

static void see_step(struct optclient_model *model, uint64_t step)
{
    if (model->step < step) {
        model->step = step;
    }
}

void answers_fail(struct optclient *client, struct optclient_call *call,
                  enum opt_status status, const char *what)
{
    struct opt_error error;
    opt_fail(&error, status, "%s: %s%s", call_name(call), what,
             call_has_push(call) ? fate_words(&call->fate) : "");
    call->error = error;
    calls_end(client, call, status);
}

/* The whole answer to a pull is here. */
static void finish_pull(struct optclient *client, struct optclient_call *call,
                        const struct opt_pull_reply *reply)
{
    if (!sink_full(&call->sink)) {
        answers_fail(client, call, OPT_DATA_LOSS,
                     "the daemon ended its answer before all weights had come");
        return;
    }
    if (call->lent && !socket_alive(client->socket)) {
        client_disconnect(client, "the connection ended while weights were read");
        return; /* and they are asked for again */
    }
    if (call->in_place) {
        shm_view_end(call->model, call->lent ? call->id : 0);
        call->lent = false; /* it is the view's */
    }
    call->result.step = reply->step;
    call->result.epoch = reply->epoch;
    call->result.unchanged = call->sink.unchanged;
    call->result.held = call->sink.held;
    see_step(call->model, reply->step);
    if (call_pull_of(&call->request)->view != OPT_VIEW_SLOT) {
        call->model->pulled_step = reply->step;
    }
    calls_end(client, call, OPT_OK);
}

static void finish_wait(struct optclient *client, struct optclient_call *call,
                        const struct opt_wait_reply *reply)
{
    take_lost(call, &reply->lost);
    call->result.step = reply->step;
    call->result.epoch = reply->epoch;
    call->result.durable = reply->durable;
    see_step(call->model, reply->step);
    calls_end(client, call, OPT_OK);
}

/* Keep a reply's strings with the call. */
static void keep_reply(struct optclient *client, struct optclient_call *call)
{
    struct opt_arena arena = call->arena;
    call->arena = client->arena;
    client->arena = arena;
    call->reply = client->in_reply;
    if (call->reply.message == OPT_MESSAGE_MODEL && call->model != NULL) {
        const struct opt_model_reply *reply = &call->reply.body.model;
        call->model->stage = OPEN_MAKING;
        call->model->number = reply->model;
        call->model->identity = reply->identity;
        call->model->step = reply->step;
        call->model->last_sequence = reply->last_sequence;
        client->daemon.inflight_bytes = reply->inflight_bytes;
    }
    calls_end(client, call, OPT_OK);
}

void answers_take(struct optclient *client, struct optclient_call *call,
                  const struct opt_reply *reply)
{
    switch (reply->message) {
    case OPT_MESSAGE_ERROR:
        on_error(client, call, &reply->body.error);
        break;
    case OPT_MESSAGE_PUSH:
        take_push(call, &reply->body.push);
        if (call->result.fate == OPTCLIENT_UNKNOWN_FATE) {
            answers_fail(client, call, OPT_INTERNAL, "the daemon did not say its fate");
            break;
        }
        see_step(call->model, reply->body.push.step);
        calls_end(client, call, OPT_OK);
        break;
    case OPT_MESSAGE_PULL:
        if (reply->body.pull.last) {
            finish_pull(client, call, &reply->body.pull);
        }
        break;
    case OPT_MESSAGE_PUSH_PULL:
        if (reply->body.push_pull.has_push) {
            take_push(call, &reply->body.push_pull.push);
        }
        if (reply->body.push_pull.pull.last) {
            if (call->result.fate == OPTCLIENT_UNKNOWN_FATE) {
                answers_fail(client, call, OPT_INTERNAL,
                             "the daemon did not say the push's fate");
            } else {
                finish_pull(client, call, &reply->body.push_pull.pull);
            }
        }
        break;
    case OPT_MESSAGE_WAIT:
        finish_wait(client, call, &reply->body.wait);
        break;
    case OPT_MESSAGE_BARRIER:
        finish_wait(client, call, &reply->body.barrier);
        break;
    case OPT_MESSAGE_SHARE:
        shm_take(call->model, &reply->body.share, client->socket);
        calls_end(client, call, OPT_OK);
        break;
    case OPT_MESSAGE_MODEL:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_SET:
    case OPT_MESSAGE_CHECKPOINT:
    case OPT_MESSAGE_RELOAD:
        keep_reply(client, call);
        break;
    default: /* list, describe: their data is with the call; others say no more */
        /* A frame of an upload may be answered before the next has been begun. */
        if (reply->message != OPT_MESSAGE_ASSIGN ||
            (reply->id == call->id && cutter_done(&call->cutter))) {
            calls_end(client, call, OPT_OK);
        }
        break;
    }
}
