/* worker_task — what a worker has to do besides talking to optimd: its share of the
 * data, the network, and reports of how it gets on.
 *
 * Called by worker.c and worker_local.c, on their only thread.
 */
#include "worker.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { EVALUATED_AT_ONCE = 256 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---------------------------------------------------------------- reports */

void worker_say(struct worker *worker, enum report_kind kind)
{
    int fd = worker->settings->report_fd;
    double now = seconds();
    if (fd < 0 && (kind == REPORT_STEP || kind == REPORT_EVALUATED) &&
        now < worker->told[kind] + 1 && worker->report.step < worker->steps) {
        return; /* a person reads a line a second, and the last */
    }
    worker->told[kind] = now;
    worker->report.kind = kind;
    char line[REPORT_LINE_MAX];
    size_t length = fd >= 0
                        ? report_print(&worker->report, line)
                        : report_tell(&worker->report, worker->settings->worker, line);
    if (fd < 0) {
        fd = kind == REPORT_FAILED ? STDERR_FILENO : STDOUT_FILENO;
    }
    for (size_t at = 0; at < length;) {
        ssize_t written = write(fd, line + at, length - at);
        if (written < 0 && errno != EINTR) {
            return; /* nobody listens; the training is not worse for it */
        }
        at += written > 0 ? (size_t)written : 0;
    }
}

bool worker_fail(struct worker *worker, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(worker->report.text, sizeof worker->report.text, format, arguments);
    va_end(arguments);
    worker_say(worker, REPORT_FAILED);
    return false;
}

bool worker_check(struct worker *worker, const char *what, enum optclient_status status)
{
    return status == OPTCLIENT_OK ||
           worker_fail(worker, "cannot %s: %s: %s", what, optclient_status_name(status),
                       optclient_error());
}

/* ---------------------------------------------------------------- data and network */

static bool parameters_new(struct parameters *out, const struct mlp *mlp)
{
    for (size_t i = 0; i < mlp_tensors(mlp); i++) {
        out->tensor[i] = calloc(mlp_tensor(mlp, i)->elements, sizeof(float));
        out->values[i] =
            (struct optclient_values){ .tensor = i, .values = out->tensor[i] };
        if (out->tensor[i] == NULL) {
            return false;
        }
    }
    return true;
}

static void parameters_free(struct parameters *parameters)
{
    for (size_t i = 0; i < TENSORS; i++) {
        free(parameters->tensor[i]);
    }
}

bool worker_prepare(struct worker *worker)
{
    const struct settings *s = worker->settings;
    struct data_error error;
    if (!data_load(s->problem->name, s->data_directory, &worker->data, &error)) {
        return worker_fail(worker, "%s", error.text);
    }
    const struct data_set *train = &worker->data.train;
    if (s->batch > train->count) {
        return worker_fail(
            worker, "a batch of %ju images, but there are only %zu to learn from",
            (uintmax_t)s->batch, train->count);
    }
    worker->epoch = train->count / s->batch;
    worker->steps = s->epochs * worker->epoch;
    worker->share = (size_t)(s->batch / s->of + (s->rank < s->batch % s->of));

    size_t widths[LAYERS + 1] = { train->features, s->problem->hidden[0],
                                  s->problem->hidden[1], train->classes };
    size_t at_once =
        worker->share > EVALUATED_AT_ONCE ? worker->share : EVALUATED_AT_ONCE;
    worker->mlp = mlp_new(widths, LAYERS, at_once);
    worker->inputs = malloc(at_once * train->features * sizeof *worker->inputs);
    worker->labels = malloc(at_once);
    worker->images = malloc((train->count / s->of + 1) * sizeof *worker->images);
    if (worker->mlp == NULL || worker->inputs == NULL || worker->labels == NULL ||
        worker->images == NULL || !parameters_new(&worker->weights, worker->mlp) ||
        !parameters_new(&worker->gradients, worker->mlp)) {
        return worker_fail(worker, "no memory");
    }
    /* Workers share the seed; each draws from a sequence of its own. */
    worker->generator.state = s->seed;
    for (uint64_t r = 0; r <= s->rank; r++) {
        worker->generator.state = generator_next(&worker->generator);
    }
    for (size_t i = (size_t)s->rank; i < train->count; i += (size_t)s->of) {
        worker->images[worker->image_count++] = (uint32_t)i;
    }
    worker->next_image = worker->image_count;
    return true;
}

void worker_next_batch(struct worker *worker)
{
    for (size_t i = 0; i < worker->share; i++) {
        if (worker->next_image == worker->image_count) {
            generator_shuffle(&worker->generator, worker->images, worker->image_count);
            worker->next_image = 0;
        }
        data_gather(&worker->data.train, &worker->images[worker->next_image++], 1,
                    worker->inputs + i * worker->data.train.features,
                    worker->labels + i);
    }
}

uint64_t worker_fingerprint(const struct worker *worker)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t t = 0; t < mlp_tensors(worker->mlp); t++) {
        const uint8_t *bytes = (const uint8_t *)worker->weights.tensor[t];
        size_t size = mlp_tensor(worker->mlp, t)->elements * sizeof(float);
        for (size_t i = 0; i < size; i++) {
            hash = (hash ^ bytes[i]) * 0x100000001b3U;
        }
    }
    return hash;
}

uint64_t worker_correct(struct worker *worker, float *const *weights)
{
    const struct data_set *held_out = &worker->data.held_out;
    uint64_t correct = 0;
    for (size_t at = 0; at < held_out->count;) {
        uint32_t images[EVALUATED_AT_ONCE];
        size_t n = 0;
        while (n < EVALUATED_AT_ONCE && at < held_out->count) {
            images[n++] = (uint32_t)at++;
        }
        data_gather(held_out, images, n, worker->inputs, worker->labels);
        correct += mlp_correct(worker->mlp, weights, worker->inputs, worker->labels, n);
    }
    return correct;
}

void worker_free(struct worker *worker)
{
    parameters_free(&worker->weights);
    parameters_free(&worker->gradients);
    free(worker->inputs);
    free(worker->labels);
    free(worker->images);
    mlp_free(worker->mlp);
    data_free(&worker->data);
}
