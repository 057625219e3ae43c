/* worker_local — the training in local steps: most of them without a word to optimd.
 *
 * Each worker runs ahead with weights and an optimizer of its own, in the library;
 * every K steps all of them meet, and optimd makes the next start of the ways they have
 * come. The whole of it is to open a local optimizer, to step until done, and a last
 * sync. Called by worker.c.
 */
#include "worker.h"

#include <stdio.h>

/* Steps until all are made. *evaluated: after the last one. */
static bool make_steps(struct worker *worker, struct optclient_local *local,
                       struct optclient_local_result *at, bool *evaluated)
{
    float *view[TENSORS]; /* the network only reads it */
    for (size_t i = 0; i < TENSORS; i++) {
        view[i] = (float *)(uintptr_t)optclient_local_view(local, i);
    }
    uint64_t next_evaluation = worker->epoch;
    while (at->steps < worker->steps && worker_stopped_by == 0) {
        double loss = worker_gradient(worker, view);
        if (!worker_check(worker, "make a local step",
                          optclient_local_step(local, worker->gradients.values, TENSORS,
                                               worker->share, at))) {
            return false;
        }
        worker_step(worker, at->steps, loss);
        /* The daemon's weights are new after a synchronisation only. */
        *evaluated = false;
        if (worker->settings->rank == 0 && at->synced && at->steps >= next_evaluation) {
            next_evaluation += worker->epoch;
            *evaluated = worker_evaluate(worker);
            if (!*evaluated) {
                return false;
            }
        }
    }
    return true;
}

/* What is left of K steps, and the weights that everybody ends with. */
static bool finish(struct worker *worker, struct optclient_local *local, bool evaluated)
{
    struct optclient_local_result at;
    if (!worker_check(worker, "synchronise", optclient_local_sync(local, &at)) ||
        !worker_check(worker, "pull the weights",
                      optclient_pull(worker->model, worker->weights.values, TENSORS,
                                     NULL, NULL))) {
        return false;
    }
    return worker_end(worker, evaluated && !at.synced);
}

bool worker_train_local(struct worker *worker)
{
    const struct settings *s = worker->settings;
    char optimizer[400], both[512];
    struct optclient_result start;
    worker_optimizer(worker, optimizer, sizeof optimizer);
    if (!worker_join(worker, s->outer) ||
        !worker_check(worker, "pull the weights",
                      optclient_pull(worker->model, worker->weights.values, TENSORS,
                                     NULL, &start))) {
        return false;
    }
    /* One that comes late has its share of the schedule behind it. */
    struct optclient_local_options options = { .steps = start.step * s->local };
    struct optclient_local *local;
    if (!worker_check(worker, "begin local steps",
                      optclient_local_open(worker->model, optimizer, s->local, &options,
                                           &local))) {
        return false;
    }
    snprintf(both, sizeof both, "%s, every %ju steps %s", optimizer,
             (uintmax_t)s->local, optclient_model_specification(worker->model));
    worker_begin(worker, options.steps, both);
    struct optclient_local_result at = { .steps = options.steps };
    bool evaluated = false;
    bool ok =
        make_steps(worker, local, &at, &evaluated) && finish(worker, local, evaluated);
    optclient_local_close(local);
    return ok;
}
