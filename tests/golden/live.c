/* live — the backend that asks a real daemon: one model per case, each worker a client
 * of its own, all through the public library.
 *
 * The daemon is started at the first case and stopped by live_stop. One thread.
 */
#include "tests/golden/live.h"

#include <stdio.h>
#include <stdlib.h>

#include "client/optclient.h"
#include "common/optim/options.h"
#include "tests/bench/process.h"

enum { WORKERS = GOLDEN_WORKERS, TIMEOUT_MS = 20000 };

static struct {
    struct server server;
    bool running;
    struct optclient *clients[WORKERS]; /* in ascending order of their names */
    unsigned models;
} live;

struct live_model {
    char name[32];
    size_t tensors;
    struct optclient_model *of[WORKERS]; /* the model as each client sees it */
};

static enum opt_status passed_on(enum optclient_status status, const char *what,
                                 struct opt_error *error)
{
    if (status == OPTCLIENT_OK) {
        return OPT_OK;
    }
    return opt_fail(error, (enum opt_status)status, "%s: %s", what, optclient_error());
}

static enum opt_status client_of(size_t worker, struct opt_error *error)
{
    char name[16];
    struct optclient_options options = optclient_options_default();

    if (live.clients[worker] != NULL) {
        return OPT_OK;
    }
    snprintf(name, sizeof name, "worker-%02zu", worker);
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    return passed_on(
        optclient_connect(live.server.address, &options, &live.clients[worker]),
        "connect", error);
}

bool live_start(const char *daemon, struct opt_error *error)
{
    char problem[256];

    live.running = server_start(&live.server, daemon, problem);
    if (!live.running) {
        opt_fail(error, OPT_UNAVAILABLE, "%s", problem);
    }
    return live.running;
}

bool live_stop(void)
{
    for (size_t i = 0; i < WORKERS; i++) {
        optclient_close(live.clients[i]);
        live.clients[i] = NULL;
    }
    live.running = false;
    return server_stop(&live.server);
}

static void model_close(void *handle)
{
    struct live_model *model = handle;

    for (size_t i = WORKERS; i-- > 0;) {
        optclient_model_close(model->of[i]);
    }
    optclient_delete(live.clients[0], model->name);
    free(model);
}

static enum opt_status model_open(const struct opt_spec *spec,
                                  const struct golden_tensor *tensors, size_t count,
                                  void **out, struct opt_error *error)
{
    struct optclient_tensor described[GOLDEN_TENSORS];
    const float *initial[GOLDEN_TENSORS];
    char text[OPT_EXPRESSION_BYTES + 1];
    struct live_model *model;
    enum opt_status status = client_of(0, error);

    if (status != OPT_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        described[i] = (struct optclient_tensor){
            .name = tensors[i].name,
            .shape = tensors[i].shape,
            .rank = tensors[i].rank,
            .sparse = tensors[i].rows != NULL,
        };
        initial[i] = tensors[i].initial;
    }
    model = calloc(1, sizeof *model);
    if (model == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the model");
    }
    snprintf(model->name, sizeof model->name, "golden-%u", live.models++);
    model->tensors = count;
    opt_spec_print(spec, text, sizeof text);
    status = passed_on(
        optclient_create(live.clients[0], model->name, text, NULL, described, count,
                         initial[0] != NULL ? initial : NULL, &model->of[0]),
        text, error);
    if (status != OPT_OK) {
        free(model);
        return status;
    }
    *out = model;
    return OPT_OK;
}

/* All workers have joined before the first of them pushes, so they make one round. */
static enum opt_status model_update(void *handle, const struct golden_push *pushes,
                                    size_t workers, struct opt_error *error)
{
    struct live_model *model = handle;
    struct optclient_call *calls[WORKERS] = { NULL };
    struct optclient_values gradients[GOLDEN_TENSORS];
    enum opt_status status = OPT_OK;

    if (workers > WORKERS) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "more than %d workers",
                        (int)WORKERS);
    }
    for (size_t i = 0; status == OPT_OK && i < workers; i++) {
        status = client_of(i, error);
        if (status == OPT_OK && model->of[i] == NULL) {
            status = passed_on(
                optclient_open(live.clients[i], model->name, 1, &model->of[i]), "open",
                error);
        }
    }
    for (size_t i = workers; status == OPT_OK && i-- > 0;) {
        struct optclient_push_options options = {
            .samples = pushes[i].samples,
            .form = (enum optclient_form)pushes[i].form,
        };
        for (size_t t = 0; t < model->tensors; t++) {
            gradients[t] = (struct optclient_values){
                .tensor = t,
                .values = (float *)(uintptr_t)pushes[i].gradients[t],
                .rows = pushes[i].rows,
                .row_count = pushes[i].row_count,
            };
        }
        status = passed_on(optclient_push_start(model->of[i], gradients, model->tensors,
                                                &options, NULL, NULL, &calls[i]),
                           "push", error);
    }
    for (size_t i = 0; i < workers; i++) {
        struct optclient_result result;

        if (calls[i] == NULL) {
            continue;
        }
        if (status == OPT_OK) {
            status = passed_on(optclient_call_wait(calls[i], &result), "push", error);
            if (status == OPT_OK && result.fate != OPTCLIENT_APPLIED) {
                status = opt_fail(error, OPT_ABORTED, "the push was not applied");
            }
        }
        optclient_call_free(calls[i]);
    }
    return status;
}

static enum opt_status model_read(void *handle, enum opt_view view, const char *slot,
                                  size_t tensor, float *out, struct opt_error *error)
{
    struct live_model *model = handle;
    struct optclient_values values = { .tensor = tensor, .values = out };
    struct optclient_pull_options options = {
        .view = (enum optclient_view)view,
        .slot = slot,
    };

    return passed_on(optclient_pull(model->of[0], &values, 1, &options, NULL), "pull",
                     error);
}

const struct golden_backend golden_live = {
    .open = model_open,
    .update = model_update,
    .read = model_read,
    .close = model_close,
};
