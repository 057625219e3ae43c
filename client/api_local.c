/* Local steps: when to step, when to synchronise, and what is owed after a failure.
 *
 *                    k-th step, sync               succeeded
 *   STEPPING ----------------------------> OWING ------------> STEPPING
 *                                          |   ^
 *                                          +---+ failed
 *
 * From the moment a synchronisation begins until it has succeeded the displacement
 * stays as it was pushed first, so that it can be pushed again under the same sequence
 * number; therefore no step is made in between. local_weights.h has them.
 */
#include <stdlib.h>

#include "client/api.h"
#include "client/api_transfer.h"
#include "client/local_weights.h"
#include "client/open_model.h"

struct optclient_local {
    struct optclient_model *model;
    struct local_weights *fast;
    uint64_t k;
    uint32_t timeout_ms;
    uint64_t since;   /* local steps since the last synchronisation, */
    uint64_t samples; /* and what they covered */
    uint64_t basis;   /* step of the slow weights */
    uint64_t epochs;
    bool owes;
    struct api_transfer_progress progress; /* of the synchronisation that is owed */
    struct optclient_values *slow;         /* all tensors, for transfers */
    struct optclient_values *displacement;
};

/* ------------------------------------------------------------------------- making */

static bool list_values(struct optclient_values **out, const struct local_weights *fast,
                        enum local_plane plane)
{
    struct optclient_values *values = calloc(fast->count, sizeof(*values));
    for (size_t i = 0; values != NULL && i < fast->count; i++) {
        values[i].tensor = i;
        values[i].values = local_weights_values(fast, plane, i);
    }
    *out = values;
    return values != NULL;
}

static enum optclient_status pull_into(struct optclient_local *local,
                                       const struct optclient_values *values,
                                       struct optclient_result *result)
{
    struct optclient_pull_options pull = { .timeout_ms = local->timeout_ms };
    return optclient_pull(local->model, values, local->fast->count, &pull, result);
}

static enum optclient_status make(struct optclient_local *local,
                                  const char *specification,
                                  const struct optclient_local_options *options)
{
    const struct optclient_model *model = local->model;
    struct opt_error error;
    enum opt_status made =
        local_weights_new(specification, options, model->tensors, model->elements,
                          model->tensor_count, &local->fast, &error);
    if (made != OPT_OK) {
        return api_report(&error);
    }
    if (!list_values(&local->slow, local->fast, PLANE_SLOW) ||
        !list_values(&local->displacement, local->fast, PLANE_DISPLACEMENT)) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for local steps");
    }
    struct optclient_result at;
    enum optclient_status status = pull_into(local, local->slow, &at);
    if (status == OPTCLIENT_OK) {
        local->basis = at.step;
        local_weights_start(local->fast);
    }
    return status;
}

enum optclient_status
optclient_local_open(struct optclient_model *model, const char *specification,
                     uint64_t k, const struct optclient_local_options *options,
                     struct optclient_local **out)
{
    static const struct optclient_local_options defaults = { 0 };
    options = options == NULL ? &defaults : options;
    enum optclient_status status =
        api_reserved(options->reserved, RESERVED(options), "local options");
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (k == 0) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "k is 0; at least 1 local step is needed before a "
                        "synchronisation");
    }
    if (!model->joined) {
        return api_fail(OPT_FAILED_PRECONDITION,
                        "model \"%s\" was opened without joining its rounds; local "
                        "steps end in a push: open it with join",
                        model->name);
    }
    struct optclient_local *local = calloc(1, sizeof(*local));
    if (local == NULL) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for local steps");
    }
    local->model = model;
    local->k = k;
    local->timeout_ms = options->timeout_ms;
    status = make(local, specification, options);
    if (status != OPTCLIENT_OK) {
        optclient_local_close(local);
        return status;
    }
    *out = local;
    return OPTCLIENT_OK;
}

void optclient_local_close(struct optclient_local *local)
{
    if (local == NULL) {
        return;
    }
    local_weights_free(local->fast);
    free(local->slow);
    free(local->displacement);
    free(local);
}

const float *optclient_local_view(const struct optclient_local *local, size_t tensor)
{
    return tensor < local->fast->count ? local_weights_view(local->fast, tensor) : NULL;
}

int optclient_local_owes(const struct optclient_local *local)
{
    return local->owes;
}

/* ------------------------------------------------------------------ synchronising */

static void tell(const struct optclient_local *local, bool stepped,
                 const struct optclient_result *sync,
                 struct optclient_local_result *result)
{
    if (result == NULL) {
        return;
    }
    *result = (struct optclient_local_result){ .steps = local->fast->steps,
                                               .epochs = local->epochs,
                                               .stepped = stepped,
                                               .synced = sync != NULL };
    if (sync != NULL) {
        result->sync = *sync;
    }
}

/* The slow weights are those of this step: go on from there. */
static void go_on_from(struct optclient_local *local, uint64_t step)
{
    local_weights_arrive(local->fast);
    local->basis = step;
    local->since = 0;
    local->samples = 0;
    local->owes = false;
}

static enum optclient_status synchronise(struct optclient_local *local, bool stepped,
                                         struct optclient_local_result *result)
{
    if (!local->owes) {
        local_weights_depart(local->fast);
        local->progress = (struct api_transfer_progress){ 0 };
        local->owes = true;
    }
    struct optclient_push_options push = { .samples = local->samples,
                                           .basis = local->basis,
                                           .timeout_ms = local->timeout_ms };
    struct optclient_result sync;
    enum optclient_status status = api_transfer_push_pull(
        local->model, local->displacement, &push, local->slow, &local->progress, &sync);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    go_on_from(local, sync.step);
    local->epochs++;
    tell(local, stepped, &sync, result);
    return OPTCLIENT_OK;
}

enum optclient_status optclient_local_sync(struct optclient_local *local,
                                           struct optclient_local_result *result)
{
    if (local->since > 0) {
        return synchronise(local, false, result);
    }
    tell(local, false, NULL, result);
    return OPTCLIENT_OK;
}

enum optclient_status optclient_local_restart(struct optclient_local *local,
                                              struct optclient_local_result *result)
{
    /* Into the memory that is not needed if this fails: while something is owed the
     * displacement is, else the slow weights are. */
    bool owes = local->owes;
    struct optclient_result at;
    enum optclient_status status =
        pull_into(local, owes ? local->slow : local->displacement, &at);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (!owes) {
        local_weights_take_slow(local->fast, PLANE_DISPLACEMENT);
    }
    go_on_from(local, at.step);
    tell(local, false, NULL, result);
    return OPTCLIENT_OK;
}

enum optclient_status optclient_local_step(struct optclient_local *local,
                                           const struct optclient_values *gradients,
                                           size_t count, uint64_t samples,
                                           struct optclient_local_result *result)
{
    if (local->owes) {
        return synchronise(local, false, result);
    }
    bool stepped;
    struct opt_error error;
    if (local_weights_step(local->fast, gradients, count, &stepped, &error) != OPT_OK) {
        return api_report(&error);
    }
    if (stepped) {
        local->since++;
        local->samples += samples == 0 ? 1 : samples;
        if (local->since == local->k) {
            return synchronise(local, true, result);
        }
    }
    tell(local, stepped, NULL, result);
    return OPTCLIENT_OK;
}
