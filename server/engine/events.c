/* events — see events.h. */
#include "server/engine/events.h"

#include <inttypes.h>

#include "common/log.h"
#include "server/base/letter.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/workers/worker.h"

void event_model_created(const struct model *model, const struct peer *by)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "model_created",
                    "model=%s identity=%016" PRIx64
                    " specification=%s tensors=%zu parameters=%" PRIu64
                    " worker=%s peer=%s",
                    model->name, model->identity, model->canonical, model->tensor_count,
                    (uint64_t)model->parameters, by->name, by->address);
}

void event_model_deleted(const struct model *model, const struct peer *by,
                         const char *why)
{
    static struct opt_log_site site;
    opt_log_limited(
        &site, OPT_LOG_INFO, "model_deleted",
        "model=%s identity=%016" PRIx64 " step=%" PRIu64 " worker=%s peer=%s why=%s",
        model->name, model->identity, model->step, by->name, by->address, why);
}

void event_options_set(const char *model, const struct peer *by, uint64_t step,
                       const char *specification)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "options_set",
                    "model=%s step=%" PRIu64 " specification=%s worker=%s peer=%s",
                    model, step, specification, by->name, by->address);
}

void event_worker_joined(const struct member *member)
{
    static struct opt_log_site site;
    opt_log_limited(
        &site, OPT_LOG_INFO, "worker_joined",
        "model=%s worker=%s incarnation=%" PRIu64 " step=%" PRIu64 " workers=%zu",
        member->model->name, member->worker->name, member->worker->incarnation,
        member->model->step, member->model->joined);
}

void event_worker_left(const struct member *member)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "worker_left",
                    "model=%s worker=%s step=%" PRIu64 " workers=%zu",
                    member->model->name, member->worker->name, member->model->step,
                    member->model->joined);
}

void event_worker_lost(const struct member *member)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "worker_lost",
                    "model=%s worker=%s incarnation=%" PRIu64 " step=%" PRIu64
                    " why=%s",
                    member->model->name, member->worker->name,
                    member->worker->incarnation, member->model->step,
                    member->worker->lost ? member->worker->lost_why
                                         : "another process has taken its name");
}

void event_round_failed(const struct model *model, const char *why)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "round_failed",
                    "model=%s step=%" PRIu64 " why=%s", model->name, model->step + 1,
                    why);
}

void event_request_failed(const struct letter *letter)
{
    static struct opt_log_site sites[OPT_STATUS_COUNT];
    const struct opt_error_reply *error = &letter->reply.body.error;
    opt_log_limited(&sites[error->status], OPT_LOG_INFO, "request_failed",
                    "request=%s id=%" PRIu64 " worker=%s peer=%s code=%s why=%s",
                    opt_message_name(letter->request.message), letter->request.id,
                    letter->peer->name, letter->peer->address,
                    opt_status_name(error->status), error->text);
}
