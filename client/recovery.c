#include "client/recovery.h"

#include <inttypes.h>

#include "client/call.h"
#include "client/opened.h"
#include "client/session.h"
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

static void end_refused(struct optclient *client, struct optclient_call *call,
                        enum opt_status status)
{
    /* Aborted, shards of it may have been applied, by such a policy. */
    opt_fail(&call->error, status,
             "%s: it was refused%s; the reason was lost with the connection",
             call_name(call), status == OPT_ABORTED ? "" : " and not applied");
    session_end(client, call, status);
}

/* It is known what became of the push. A push_pull still has its pull to do. */
static void take_fate(struct optclient *client, struct optclient_call *call,
                      const struct opt_settled *settled)
{
    switch (settled->fate) {
    case OPT_FATE_APPLIED:
        call->result.fate = OPTCLIENT_DUPLICATE;
        break;
    case OPT_FATE_DROPPED:
    case OPT_FATE_SKIPPED:
        call->result.fate = (enum optclient_fate)settled->fate;
        break;
    default:
        end_refused(client, call,
                    settled->status == OPT_OK ? OPT_ABORTED : settled->status);
        return;
    }
    call->result.step = settled->step;
    if (call->request.message == OPT_MESSAGE_PUSH) {
        session_end(client, call, OPT_OK);
    } else {
        call->pushed = true;
    }
}

/* The push was made in a life of the worker that is over. */
static void end_stale(struct optclient *client, struct optclient_call *call,
                      const struct opt_model_reply *found)
{
    if (client->lost[0] != '\0') {
        opt_fail(&call->error, OPT_ABORTED,
                 "stale incarnation %" PRIu64
                 ": this worker was taken for dead at step %" PRIu64
                 " %s; pull the weights and push again",
                 call->incarnation, found->lost_step, client->lost);
    } else {
        opt_fail(&call->error, OPT_ABORTED,
                 "stale incarnation %" PRIu64
                 ": the daemon does not remember this worker; %s; pull the weights and "
                 "push again",
                 call->incarnation,
                 call->asked ? "whether the push was applied is not known"
                             : "the push was not applied");
    }
    session_end(client, call, OPT_ABORTED);
}

void recover_pushes(struct optclient *client, struct optclient_model *model,
                    const struct opt_model_reply *found)
{
    struct optclient_call *next;
    for (struct optclient_call *call = client->queue.first; call != NULL; call = next) {
        next = call->next;
        if (call->model != model || !call_pushes(call)) {
            continue;
        }
        const struct opt_settled *settled =
            call->asked ? find_settled(found, call->sequence) : NULL;
        bool stale = call->incarnation != client->incarnation;
        bool told = call->inquired || !call->asked;
        if (settled != NULL && !(stale && settled->fate == OPT_FATE_REFUSED)) {
            take_fate(client, call, settled);
        } else if (stale && told) {
            end_stale(client, call, found);
        } else if (!call->asked && call->sequence <= found->last_sequence) {
            /* Never sent whole, so the number was used by somebody else. */
            call->sequence = 0;
        }
    }
}
