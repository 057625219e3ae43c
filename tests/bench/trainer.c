/* trainer — see trainer.h. */
#include "tests/bench/trainer.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/compare.h"
#include "tests/bench/memory.h"
#include "tests/bench/process.h"

enum { STEPS_MAX = 64, TIMEOUT_MS = 30000, NAME = 40 };

struct result {
    double seconds; /* negative: failed */
    char problem[256];
};

/* What the child works with. */
struct work {
    const struct trainer_model *model;
    unsigned rank;
    int orders, results;
    int others[2]; /* the parent's ends, to be closed */
    struct optclient *client;
    struct optclient_model *opened;
    struct optclient_values *gradients, *weights; /* one per tensor */
};

/* One flat array cut into the model's tensors; a frugal worker's are all the same. */
static struct optclient_values *values_new(const struct trainer_model *model,
                                           uint32_t seed, float scale)
{
    size_t all = (model->frugal ? 1 : model->tensors) * model->elements;
    float *flat = memory_map(all * sizeof *flat);
    struct optclient_values *values = calloc(model->tensors, sizeof *values);
    if (flat == NULL || values == NULL) {
        memory_unmap(flat, all * sizeof *flat);
        free(values);
        return NULL;
    }
    memory_fill(flat, all, seed, scale, 1);
    for (size_t i = 0; i < model->tensors; i++) {
        values[i] = (struct optclient_values){
            .tensor = i, .values = flat + (model->frugal ? 0 : i) * model->elements
        };
    }
    return values;
}

/* Create or open the model and pull the first weights. */
static enum optclient_status join(struct work *work)
{
    const struct trainer_model *model = work->model;
    struct optclient_options options = optclient_options_default();
    struct optclient_policy policy = { .mode = OPTCLIENT_SYNC,
                                       .loss = OPTCLIENT_FAIL,
                                       .min_workers = model->workers,
                                       .atomic = model->atomic };
    struct optclient_tensor *tensors = calloc(model->tensors, sizeof *tensors);
    char(*names)[NAME] = calloc(model->tensors, sizeof *names);
    const float **initial = calloc(model->tensors, sizeof *initial);
    uint64_t elements = model->elements;
    char worker[NAME];
    enum optclient_status status = OPTCLIENT_RESOURCE_EXHAUSTED;
    snprintf(worker, sizeof worker, "worker-%u", work->rank);
    options.worker = worker;
    options.timeout_ms = TIMEOUT_MS;
    options.no_shared_memory = model->way == TRAINER_SENDS;
    work->gradients = values_new(model, 11 + work->rank, 0.01f);
    work->weights = values_new(model, 1, 0.1f);
    if (tensors != NULL && names != NULL && initial != NULL &&
        work->gradients != NULL && work->weights != NULL) {
        for (size_t i = 0; i < model->tensors; i++) {
            snprintf(names[i], NAME, "layer.%zu.weight", i);
            tensors[i] = (struct optclient_tensor){ .name = names[i],
                                                    .shape = &elements,
                                                    .rank = 1 };
            initial[i] = work->weights[i].values;
        }
        status = optclient_connect(model->address, &options, &work->client);
    }
    if (status == OPTCLIENT_OK) {
        status = optclient_create(work->client, "bench", model->expression, &policy,
                                  tensors, model->tensors, initial, &work->opened);
    }
    if (status == OPTCLIENT_OK) {
        status =
            optclient_pull(work->opened, work->weights, model->tensors, NULL, NULL);
    }
    free(tensors);
    free(names);
    free(initial);
    return status;
}

/* Have the gradients where the daemon reads them. */
static bool move_in_place(struct work *work)
{
    for (size_t i = 0; i < work->model->tensors; i++) {
        float *memory = optclient_gradient(work->opened, i);
        if (memory == NULL) {
            return false;
        }
        memcpy(memory, work->gradients[i].values,
               work->model->elements * sizeof *memory);
        work->gradients[i].values = memory;
    }
    return true;
}

static struct result make_steps(struct work *work, unsigned steps)
{
    double seconds[STEPS_MAX];
    struct result result = { .seconds = -1 };
    bool in_place = work->model->way == TRAINER_IN_PLACE;
    size_t n = work->model->tensors;
    for (unsigned i = 0; i < steps; i++) {
        double begin = seconds_now();
        if (optclient_push_pull(work->opened, work->gradients, n, NULL,
                                in_place ? NULL : work->weights, in_place ? 0 : n, NULL,
                                NULL) != OPTCLIENT_OK) {
            snprintf(result.problem, sizeof result.problem, "%.250s",
                     optclient_error());
            return result;
        }
        seconds[i] = seconds_now() - begin;
    }
    result.seconds = summary_of(seconds, steps).median;
    return result;
}

static int trainer_body(void *context)
{
    struct work *work = context;
    struct result result = { .seconds = -1 };
    unsigned steps;
    close(work->others[0]);
    close(work->others[1]);
    bool joined = join(work) == OPTCLIENT_OK &&
                  (work->model->way != TRAINER_IN_PLACE || move_in_place(work));
    if (!joined) {
        snprintf(result.problem, sizeof result.problem, "%.250s", optclient_error());
    }
    while (read(work->orders, &steps, sizeof steps) == sizeof steps) {
        if (joined) {
            result = make_steps(work, steps < STEPS_MAX ? steps : STEPS_MAX);
        }
        if (write(work->results, &result, sizeof result) != sizeof result) {
            break;
        }
    }
    optclient_close(work->client);
    return 0;
}

bool trainer_start(struct trainer *trainer, const struct trainer_model *model,
                   unsigned rank, char problem[256])
{
    int orders[2], results[2];
    *trainer = (struct trainer){ .pid = -1, .orders = -1, .results = -1 };
    if (pipe(orders) != 0) {
        snprintf(problem, 256, "no pipe: %s", strerror(errno));
        return false;
    }
    if (pipe(results) != 0) {
        snprintf(problem, 256, "no pipe: %s", strerror(errno));
        close(orders[0]);
        close(orders[1]);
        return false;
    }
    struct work work = { .model = model,
                         .rank = rank,
                         .orders = orders[0],
                         .results = results[1],
                         .others = { orders[1], results[0] } };
    trainer->pid = process_fork(trainer_body, &work);
    trainer->orders = orders[1];
    trainer->results = results[0];
    close(orders[0]);
    close(results[1]);
    if (trainer->pid < 0) {
        snprintf(problem, 256, "no process: %s", strerror(errno));
    }
    return trainer->pid > 0;
}

void trainer_stop(struct trainer *trainer)
{
    if (trainer->pid > 0) {
        process_kill(trainer->pid);
        close(trainer->orders);
        close(trainer->results);
    }
    *trainer = (struct trainer){ .pid = -1 };
}

bool trainer_order(struct trainer *trainer, unsigned steps)
{
    return write(trainer->orders, &steps, sizeof steps) == sizeof steps;
}

double trainer_result(struct trainer *trainer, char problem[256])
{
    struct pollfd ready = { .fd = trainer->results, .events = POLLIN };
    struct result result = { .seconds = -1, .problem = "a worker does not answer" };
    if (poll(&ready, 1, 2 * TIMEOUT_MS) > 0 &&
        read(trainer->results, &result, sizeof result) != sizeof result) {
        snprintf(result.problem, sizeof result.problem, "a worker has died");
        result.seconds = -1;
    }
    if (result.seconds < 0) {
        snprintf(problem, 256, "%.255s", result.problem);
    }
    return result.seconds;
}

double trainers_run(struct trainer *trainers, unsigned count, unsigned steps,
                    char problem[256])
{
    double slowest = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!trainer_order(&trainers[i], steps)) {
            snprintf(problem, 256, "a worker has died");
            return -1;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        double seconds = trainer_result(&trainers[i], problem);
        if (seconds < 0) {
            return -1;
        }
        slowest = seconds > slowest ? seconds : slowest;
    }
    return slowest;
}
