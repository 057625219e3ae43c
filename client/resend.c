#include "client/resend.h"

#include <inttypes.h>

#include "client/call.h"
#include "client/calls.h"
#include "client/client.h"
#include "client/open_model.h"
#include "common/wire.h"

static const struct opt_settled *find_settled(const struct opt_model_reply *found,
                                              uint64_t sequence)
{
    for (size_t i = 0; i < found->settled_count; i++) {
        if (found->settled[i].sequence == sequence) {
            return &found->settled[i];
        }
    }
    return NULL;
}

static bool waits(const struct opt_model_reply *found, uint64_t sequence)
{
    for (size_t i = 0; i < found->waiting_count; i++) {
        if (found->waiting[i] == sequence) {
            return true;
        }
    }
    return false;
}

static void end_refused(struct optclient *client, struct optclient_call *call)
{
    enum opt_status status = call->fate.code == OPT_OK ? OPT_ABORTED : call->fate.code;
    if (call->fate.settled == OPT_FATE_IN_PART && call->fate.shards_applied > 0) {
        opt_fail_as(
            &call->error, status, OPT_DETAIL_REFUSED_BEFORE,
            "%s: it was refused when %" PRIu64
            " shards of it had been applied, which stay so; the reason was lost "
            "with the connection",
            call_name(call), call->fate.shards_applied);
    } else {
        opt_fail_as(&call->error, status, OPT_DETAIL_REFUSED_BEFORE,
                    "%s: it was refused, and the reason was lost with the connection%s",
                    call_name(call), fate_words(&call->fate));
    }
    calls_end(client, call, status);
}

/* It is known what became of the push. A push_pull still has its pull to do. */
static void take_fate(struct optclient *client, struct optclient_call *call,
                      const struct opt_settled *settled)
{
    fate_found(&call->fate, settled);
    if (call->fate.settled == OPT_FATE_REFUSED ||
        call->fate.settled == OPT_FATE_IN_PART) {
        end_refused(client, call);
        return;
    }
    fate_result(&call->fate, &call->result);
    call->result.step = settled->step;
    call->result.durable = settled->durable;
    if (call->request.message == OPT_MESSAGE_PUSH) {
        calls_end(client, call, OPT_OK);
    } else {
        call->pushed = true;
    }
}

/* The push was made in a life of the worker that is over, and will not be used. */
static void end_stale(struct optclient *client, struct optclient_call *call,
                      const struct opt_model_reply *found)
{
    /* What has been applied in part is not to be repeated. */
    const char *again =
        fate_tell(&call->fate) == OPT_FATE_IN_PART ? "" : " and push again";
    if (client->lost[0] != '\0') {
        opt_fail_as(&call->error, OPT_ABORTED, OPT_DETAIL_TAKEN_FOR_DEAD,
                    "stale incarnation %" PRIu64
                    ": this worker was taken for dead at step %" PRIu64
                    " %s; pull the weights%s%s",
                    call->fate.incarnation, found->lost_step, client->lost, again,
                    fate_words(&call->fate));
    } else {
        opt_fail_as(&call->error, OPT_ABORTED, OPT_DETAIL_STALE_INCARNATION,
                    "stale incarnation %" PRIu64
                    ": the daemon does not remember this worker; pull the weights%s%s",
                    call->fate.incarnation, again, fate_words(&call->fate));
    }
    calls_end(client, call, OPT_ABORTED);
}

/* Whether the daemon would know if the push had been settled. */
static bool remembers(const struct optclient *client, const struct optclient_call *call,
                      const struct opt_model_reply *found)
{
    bool stale = call->fate.incarnation != client->incarnation;
    return found->remembered_since != 0
               ? call->fate.incarnation >= found->remembered_since
               : !stale || client->lost[0] != '\0';
}

static void recover(struct optclient *client, struct optclient_call *call,
                    const struct opt_model_reply *found)
{
    const struct opt_settled *settled =
        call->fate.inquired ? find_settled(found, call->fate.number) : NULL;
    bool stale = call->fate.incarnation != client->incarnation;
    if (fate_is_done(&call->fate)) {
        return; /* it was answered, and only the weights have not come */
    }
    if (settled != NULL && stale &&
        (settled->fate == OPT_FATE_REFUSED || settled->fate == OPT_FATE_IN_PART)) {
        fate_found(&call->fate, settled);
        end_stale(client, call, found);
    } else if (settled != NULL) {
        take_fate(client, call, settled);
    } else if (call->fate.inquired && waits(found, call->fate.number)) {
        return; /* sent again, it is answered when its round is over */
    } else if (call->fate.inquired || !fate_is_open(&call->fate)) {
        fate_absent(&call->fate, remembers(client, call, found), found->last_sequence);
        if (stale) {
            end_stale(client, call, found);
        }
    }
}

void resend_pushes(struct optclient *client, struct optclient_model *model,
                   const struct opt_model_reply *found)
{
    struct optclient_call *next;
    for (struct optclient_call *call = client->queue.first; call != NULL; call = next) {
        next = call->next;
        if (call->model == model && call_pushes(call)) {
            recover(client, call, found);
        }
    }
}
