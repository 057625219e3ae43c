/* Pushes, pulls and waits, waiting and asynchronous. */
#include "client/api_transfer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/api.h"
#include "client/callbacks.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/process.h"
#include "client/shm.h"

/* What both kinds of a push and a pull are given. */
struct order {
    struct optclient_model *model;
    const struct optclient_values *gradients;
    size_t gradient_count;
    const struct optclient_push_options *push; /* NULL: the defaults */
    const struct optclient_values *weights;
    size_t weight_count;
    const struct optclient_pull_options *pull; /* NULL: the defaults */
};

static enum optclient_status check_rows(const struct optclient_model *model,
                                        const struct optclient_values *values,
                                        size_t index, bool pushed, const char *what)
{
    const struct optclient_tensor *tensor = &model->tensors[values->tensor];
    if (values->rows == NULL && values->row_count == 0) {
        return OPTCLIENT_OK;
    }
    if (tensor->sparse == 0) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "%s[%zu] names rows of tensor \"%s\", which is not sparse",
                        what, index, tensor->name);
    }
    if (values->rows == NULL || (values->row_count == 0 && !pushed)) {
        return api_fail(
            OPT_INVALID_ARGUMENT, "%s[%zu] (tensor \"%s\") has %zu rows, but %s", what,
            index, tensor->name, values->row_count,
            values->rows == NULL ? "does not say which" : "a pull needs at least one");
    }
    for (size_t i = 0; i < values->row_count; i++) {
        if (values->rows[i] >= tensor->shape[0]) {
            return api_fail(
                OPT_INVALID_ARGUMENT,
                "%s[%zu] names row %" PRIu32 " of tensor \"%s\", which has %" PRIu64,
                what, index, values->rows[i], tensor->name, tensor->shape[0]);
        }
    }
    return OPTCLIENT_OK;
}

static enum optclient_status check_values(const struct optclient_model *model,
                                          const struct optclient_values *values,
                                          size_t count, bool pushed)
{
    const char *what = pushed ? "gradients" : "weights";
    size_t rows = 0;
    if (!pushed && count == 0 && values == NULL) {
        return OPTCLIENT_OK; /* all of them, in place */
    }
    if (count == 0 || values == NULL) {
        return api_fail(OPT_INVALID_ARGUMENT, "no %s are named", what);
    }
    if (count > model->tensor_count) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "%zu %s are named; model \"%s\" has %zu tensors", count, what,
                        model->name, model->tensor_count);
    }
    for (size_t i = 0; i < count; i++) {
        if (values[i].tensor >= model->tensor_count) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "%s[%zu] is of tensor %zu; model \"%s\" has 0 to %zu", what,
                            i, values[i].tensor, model->name, model->tensor_count - 1);
        }
        enum optclient_status status = check_rows(model, &values[i], i, pushed, what);
        if (status != OPTCLIENT_OK) {
            return status;
        }
        bool nothing =
            pushed && values[i].row_count == 0 && model->widths[values[i].tensor] > 0;
        if (values[i].values == NULL && !nothing) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "%s[%zu] (tensor \"%s\") has no memory", what, i,
                            model->tensors[values[i].tensor].name);
        }
        rows += values[i].row_count;
    }
    if (!pushed && rows > OPTCLIENT_PULL_ROWS_MAX) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "%zu rows are named; one pull can name %d", rows,
                        OPTCLIENT_PULL_ROWS_MAX);
    }
    if (!pushed && rows > 0 && count > OPT_SEGMENTS_MAX) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "%zu tensors are named; a pull of rows can name %d", count,
                        OPT_SEGMENTS_MAX);
    }
    return OPTCLIENT_OK;
}

static const struct optclient_values *keep_values(struct optclient_values **rest,
                                                  const struct optclient_values *values,
                                                  size_t count)
{
    struct optclient_values *copy = *rest;
    memcpy(copy, values, count * sizeof(*copy));
    *rest += count;
    return copy;
}

/* An asynchronous call outlives the arrays that it was given. */
static bool keep_arrays(struct optclient_call *call, struct order *order)
{
    size_t count = order->gradient_count + order->weight_count;
    call->values = malloc(count * sizeof(*call->values));
    if (call->values == NULL) {
        return false;
    }
    struct optclient_values *rest = call->values;
    if (order->gradient_count > 0) {
        order->gradients = keep_values(&rest, order->gradients, order->gradient_count);
    }
    if (order->weight_count > 0) {
        order->weights = keep_values(&rest, order->weights, order->weight_count);
    }
    return true;
}

static enum optclient_status fill_push(struct optclient_call *call,
                                       const struct order *order, struct opt_push *push)
{
    static const struct optclient_push_options defaults = { 0 };
    const struct optclient_push_options *options =
        order->push == NULL ? &defaults : order->push;
    push->samples = options->samples == 0 ? 1 : options->samples;
    push->form = (enum opt_form)options->form;
    push->dtype = call->client->settings.push_dtype;
    push->basis = options->basis;
    call->fate.by_shards = order->model->by_shards;
    cutter_init(&call->cutter, order->gradients, order->gradient_count,
                order->model->elements, order->model->widths, push->dtype);
    struct opt_error error;
    enum opt_status status = cutter_check(&call->cutter, order->model->tensors, &error);
    return status == OPT_OK ? OPTCLIENT_OK : api_report(&error);
}

/* The list of the tensors to pull, if they are not simply all. */
static bool list_segments(struct optclient_call *call)
{
    const struct sink *sink = &call->sink;
    if (sink_wants_all(sink) || sink->count > OPT_SEGMENTS_MAX) {
        return true;
    }
    call->segments = malloc(sink->count * sizeof(*call->segments));
    if (call->segments == NULL) {
        return false;
    }
    for (size_t i = 0; i < sink->count; i++) {
        call->segments[i] =
            (struct opt_segment){ .tensor = (uint32_t)sink->values[i].tensor,
                                  .rows = sink->values[i].rows,
                                  .row_count = sink->values[i].row_count };
        call->pulls_rows |= sink->values[i].row_count > 0;
        call->segment_bytes += cutter_segment_bytes(&call->segments[i]);
    }
    return true;
}

/* Into the model's own memory. */
static enum optclient_status pull_in_place(struct optclient_call *call,
                                           struct order *order)
{
    struct optclient_model *model = order->model;
    struct opt_error error;
    client_lock(model->client);
    enum opt_status status = shm_view_begin(model, &error);
    client_unlock(model->client);
    if (status != OPT_OK) {
        return api_report(&error);
    }
    call->in_place = true;
    order->weights = model->shm.values;
    order->weight_count = model->tensor_count;
    return OPTCLIENT_OK;
}

/* Gradients may have been computed from what was pulled in place before. */
static enum optclient_status check_basis(struct optclient_model *model)
{
    struct opt_error error;
    client_lock(model->client);
    enum opt_status status = shm_check(model, &error);
    client_unlock(model->client);
    return status == OPT_OK ? OPTCLIENT_OK : api_report(&error);
}

/* A call that could not be made. */
static void abandon(struct optclient_call *call)
{
    if (call->in_place) {
        client_lock(call->client);
        shm_view_fail(call->model);
        client_unlock(call->client);
    }
}

static enum optclient_status fill_pull(struct optclient_call *call, struct order *order,
                                       struct opt_pull *pull)
{
    static const struct optclient_pull_options defaults = { 0 };
    const struct optclient_pull_options *options =
        order->pull == NULL ? &defaults : order->pull;
    if ((unsigned)options->view > OPT_VIEW_SLOT) {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "view %d: expected OPTCLIENT_TRAIN, "
                        "OPTCLIENT_EVAL or OPTCLIENT_SLOT",
                        (int)options->view);
    }
    pull->view = (enum opt_view)options->view;
    pull->slot = options->slot == NULL ? "" : options->slot;
    pull->dtype = call->client->settings.pull_dtype;
    pull->min_step = options->min_step;
    pull->since = options->since;
    if (call->on_heap) {
        call->slot = strdup(pull->slot);
        pull->slot = call->slot;
    }
    struct opt_error error;
    enum optclient_status status =
        order->weight_count == 0 ? pull_in_place(call, order) : OPTCLIENT_OK;
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (sink_init(&call->sink, order->weights, order->weight_count,
                  order->model->elements, order->model->widths,
                  order->model->tensor_count, &error) != OPT_OK) {
        return api_report(&error);
    }
    if (pull->slot == NULL || !list_segments(call)) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for the call");
    }
    return OPTCLIENT_OK;
}

/* Make a call of an order. The order's arrays may be replaced by copies. After a
 * failure call_fini is due as well. */
static enum optclient_status fill(struct optclient_call *call, struct order *order,
                                  enum opt_message message)
{
    struct optclient_model *model = order->model;
    bool pushes = message != OPT_MESSAGE_PULL;
    bool pulls = message != OPT_MESSAGE_PUSH;
    uint32_t timeout_ms = pushes ? (order->push == NULL ? 0 : order->push->timeout_ms)
                                 : (order->pull == NULL ? 0 : order->pull->timeout_ms);
    bool on_heap = call->on_heap;
    call_init(call, model->client, model, message, timeout_ms);
    call->on_heap = on_heap;
    enum optclient_status status = OPTCLIENT_OK;
    if (order->push != NULL) {
        status =
            api_reserved(order->push->reserved, RESERVED(order->push), "push options");
    }
    if (order->pull != NULL && status == OPTCLIENT_OK) {
        status =
            api_reserved(order->pull->reserved, RESERVED(order->pull), "pull options");
    }
    if (pushes && status == OPTCLIENT_OK) {
        status = check_values(model, order->gradients, order->gradient_count, true);
    }
    if (pushes && status == OPTCLIENT_OK) {
        status = check_basis(model);
    }
    if (status == OPTCLIENT_OK && pulls) {
        status = check_values(model, order->weights, order->weight_count, false);
    }
    if (status == OPTCLIENT_OK && on_heap && !keep_arrays(call, order)) {
        status = api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for the call");
    }
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (pushes) {
        status = fill_push(call, order, call_push_of(&call->request));
    }
    if (pulls && status == OPTCLIENT_OK) {
        status = fill_pull(call, order, call_pull_of(&call->request));
    }
    if (status != OPTCLIENT_OK) {
        abandon(call);
    }
    return status;
}

/* A basis that was not given is the step of the last completed pull. Lock held. */
static void fill_basis(struct optclient_call *call)
{
    if (!call_pushes(call)) {
        return;
    }
    struct opt_push *push = call_push_of(&call->request);
    if (push->basis == 0) {
        push->basis = call->model->pulled_step;
    }
}

/* -------------------------------------------------------------------------- waiting */

static enum optclient_status run(struct optclient_call *call,
                                 struct optclient_result *result)
{
    client_lock(call->client);
    fill_basis(call);
    client_unlock(call->client);
    enum optclient_status status = api_run(call);
    if (result != NULL && (status == OPTCLIENT_OK || call_has_push(call))) {
        *result = call->result;
    }
    return status;
}

static enum optclient_status run_order(struct order *order, enum opt_message message,
                                       struct optclient_result *result)
{
    enum optclient_status status = api_check(order->model->client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    struct optclient_call call;
    call.on_heap = false;
    status = fill(&call, order, message);
    if (status == OPTCLIENT_OK) {
        status = run(&call, result);
    } else if (result != NULL && message != OPT_MESSAGE_PULL) {
        *result = (struct optclient_result){ .fate = OPTCLIENT_NOT_APPLIED };
    }
    call_fini(&call);
    return status;
}

enum optclient_status optclient_push(struct optclient_model *model,
                                     const struct optclient_values *gradients,
                                     size_t count,
                                     const struct optclient_push_options *options,
                                     struct optclient_result *result)
{
    struct order order = {
        .model = model, .gradients = gradients, .gradient_count = count, .push = options
    };
    return run_order(&order, OPT_MESSAGE_PUSH, result);
}

enum optclient_status optclient_pull(struct optclient_model *model,
                                     const struct optclient_values *weights,
                                     size_t count,
                                     const struct optclient_pull_options *options,
                                     struct optclient_result *result)
{
    struct order order = {
        .model = model, .weights = weights, .weight_count = count, .pull = options
    };
    return run_order(&order, OPT_MESSAGE_PULL, result);
}

enum optclient_status optclient_push_pull(
    struct optclient_model *model, const struct optclient_values *gradients,
    size_t gradient_count, const struct optclient_push_options *push,
    const struct optclient_values *weights, size_t weight_count,
    const struct optclient_pull_options *pull, struct optclient_result *result)
{
    struct order order = { model,        gradients, gradient_count, push, weights,
                           weight_count, pull };
    return run_order(&order, OPT_MESSAGE_PUSH_PULL, result);
}

enum optclient_status api_transfer_push_pull(struct optclient_model *model,
                                             const struct optclient_values *gradients,
                                             const struct optclient_push_options *push,
                                             const struct optclient_values *weights,
                                             struct api_transfer_progress *progress,
                                             struct optclient_result *result)
{
    size_t count = model->tensor_count;
    struct order order = { model, gradients, count, push, weights, count, NULL };
    enum optclient_status status = api_check(model->client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    struct optclient_call call;
    call.on_heap = false;
    status = fill(&call, &order, OPT_MESSAGE_PUSH_PULL);
    if (status == OPTCLIENT_OK) {
        call.fate = progress->fate;
        fate_cut(&call.fate); /* its answer is awaited no more */
        fate_resend(&call.fate);
        call.fate.by_shards = model->by_shards;
        call.resent = call.fate.number != 0;
        call.pushed = progress->settled;
        call.result = progress->result;
        status = run(&call, result);
        progress->fate = call.fate;
        progress->settled = call.pushed || fate_is_done(&call.fate);
        progress->result = call.result;
    }
    call_fini(&call);
    return status;
}

static enum optclient_status wait_for(struct optclient_model *model, uint64_t step,
                                      uint64_t epoch, bool durable, uint32_t timeout_ms,
                                      struct optclient_result *result)
{
    enum optclient_status status = api_check(model->client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    struct optclient_call call;
    call_init(&call, model->client, model, OPT_MESSAGE_WAIT, timeout_ms);
    call.request.body.wait.step = step;
    call.request.body.wait.epoch = epoch;
    call.request.body.wait.durable = durable;
    status = run(&call, result);
    call_fini(&call);
    return status;
}

enum optclient_status optclient_wait_step(struct optclient_model *model, uint64_t step,
                                          uint32_t timeout_ms,
                                          struct optclient_result *result)
{
    return wait_for(model, step, 0, false, timeout_ms, result);
}

enum optclient_status optclient_wait_durable(struct optclient_model *model,
                                             uint64_t step, uint32_t timeout_ms,
                                             struct optclient_result *result)
{
    return wait_for(model, step, 0, true, timeout_ms, result);
}

enum optclient_status optclient_wait_epoch(struct optclient_model *model,
                                           uint64_t epoch, uint32_t timeout_ms,
                                           struct optclient_result *result)
{
    return wait_for(model, 0, epoch, false, timeout_ms, result);
}

/* --------------------------------------------------------------------- asynchronous */

static enum optclient_status start_order(struct order *order, enum opt_message message,
                                         optclient_on_done on_done, void *context,
                                         struct optclient_call **out)
{
    struct optclient *client = order->model->client;
    if (client->process != process_id()) {
        return api_check(client);
    }
    struct optclient_call *call = malloc(sizeof(*call));
    if (call == NULL) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for the call");
    }
    call->on_heap = true;
    enum optclient_status status = fill(call, order, message);
    if (status != OPTCLIENT_OK) {
        call_fini(call);
        free(call);
        return status;
    }
    call->on_done = on_done;
    call->context = context;
    client_lock(client);
    if (on_done != NULL && !callbacks_start(client)) {
        client_unlock(client);
        abandon(call);
        call_fini(call);
        free(call);
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no thread for callbacks");
    }
    client->references++;
    *out = call; /* before it can end: its callback may look for it there */
    fill_basis(call);
    api_post(client, call);
    client_unlock(client);
    return OPTCLIENT_OK;
}

enum optclient_status optclient_push_start(struct optclient_model *model,
                                           const struct optclient_values *gradients,
                                           size_t count,
                                           const struct optclient_push_options *options,
                                           optclient_on_done on_done, void *context,
                                           struct optclient_call **out)
{
    struct order order = {
        .model = model, .gradients = gradients, .gradient_count = count, .push = options
    };
    return start_order(&order, OPT_MESSAGE_PUSH, on_done, context, out);
}

enum optclient_status optclient_pull_start(struct optclient_model *model,
                                           const struct optclient_values *weights,
                                           size_t count,
                                           const struct optclient_pull_options *options,
                                           optclient_on_done on_done, void *context,
                                           struct optclient_call **out)
{
    struct order order = {
        .model = model, .weights = weights, .weight_count = count, .pull = options
    };
    return start_order(&order, OPT_MESSAGE_PULL, on_done, context, out);
}

enum optclient_status optclient_push_pull_start(
    struct optclient_model *model, const struct optclient_values *gradients,
    size_t gradient_count, const struct optclient_push_options *push,
    const struct optclient_values *weights, size_t weight_count,
    const struct optclient_pull_options *pull, optclient_on_done on_done, void *context,
    struct optclient_call **out)
{
    struct order order = { model,        gradients, gradient_count, push, weights,
                           weight_count, pull };
    return start_order(&order, OPT_MESSAGE_PUSH_PULL, on_done, context, out);
}
