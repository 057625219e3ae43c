/* worker — trains a small network on its share of the data; optimd holds the weights.
 *
 * The example to copy: it uses nothing of optimd but optclient.h. Start as many as you
 * like, on as many machines, each with its rank:
 *
 *     worker --server 127.0.0.1:7070 --rank 0 --of 2 &
 *     worker --server 127.0.0.1:7070 --rank 1 --of 2
 *
 * The first to arrive creates the model, the others find it; the rounds begin when all
 * are there. Each computes the gradient of its part of a mini-batch, pushes it, and
 * gets the weights that all the gradients together have made: connect, create, pull,
 * and then push_pull until done (train, below). The rest is data and reports.
 */
#include <optclient.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "data.h"
#include "generator.h"
#include "mlp.h"
#include "options.h"
#include "report.h"

enum { LAYERS = 3, TENSORS = 2 * LAYERS, EVALUATED_AT_ONCE = 256, OF_MAX = 4096 };

/* What is trained on which data, unless the command line says otherwise. */
static const struct problem {
    const char *name; /* of the data, and of the model */
    size_t hidden[LAYERS - 1];
    uint64_t epochs, batch; /* batch: images of a round, over all workers */
    double lr;
} problems[] = {
    { "digits", { 128, 64 }, 100, 128, 3e-3 },
    { "fashion", { 256, 128 }, 12, 256, 1e-3 },
};

struct settings {
    const char *server, *worker, *data_directory, *optimizer;
    const struct problem *problem;
    uint64_t rank, of, epochs, batch, seed;
    int report_fd; /* -1: tell a person */
};

/* All tensors of the model, as the network and as the client want them. */
struct parameters {
    float *tensor[TENSORS];
    struct optclient_values values[TENSORS];
};

struct worker {
    const struct settings *settings;
    struct data data;
    struct mlp *mlp;
    struct parameters weights, gradients;
    float *inputs; /* of a batch */
    uint8_t *labels;
    uint32_t *images; /* this worker's share of the training data, shuffled */
    size_t image_count, next_image;
    size_t share; /* images of a batch that are this worker's */
    struct generator generator;
    uint64_t steps, epoch; /* of all; in one epoch */
    struct optclient *client;
    struct optclient_model *model;
    struct report report;      /* the last one; the next one changes what is new */
    double told[REPORT_KINDS]; /* when last */
};

static volatile sig_atomic_t stopped_by; /* a signal, or 0 */

static void on_signal(int signal)
{
    stopped_by = signal;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---------------------------------------------------------------- reports */

static void say(struct worker *worker, enum report_kind kind)
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

__attribute__((format(printf, 2, 3))) static bool fail(struct worker *worker,
                                                       const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(worker->report.text, sizeof worker->report.text, format, arguments);
    va_end(arguments);
    say(worker, REPORT_FAILED);
    return false;
}

/* A call of the client: whether it worked, and if not, its sentence is passed on. */
static bool check(struct worker *worker, const char *what, enum optclient_status status)
{
    return status == OPTCLIENT_OK ||
           fail(worker, "cannot %s: %s: %s", what, optclient_status_name(status),
                optclient_error());
}

/* ---------------------------------------------------------------- data and network */

static bool parameters_new(struct parameters *out, const struct mlp *mlp)
{
    for (size_t i = 0; i < TENSORS; i++) {
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

/* Data, this worker's share of it, the network and the memory of a step. */
static bool prepare(struct worker *worker)
{
    const struct settings *s = worker->settings;
    struct data_error error;
    if (!data_load(s->problem->name, s->data_directory, &worker->data, &error)) {
        return fail(worker, "%s", error.text);
    }
    const struct data_set *train = &worker->data.train;
    if (s->batch > train->count) {
        return fail(worker,
                    "a batch of %ju images, but there are only %zu to learn from",
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
        return fail(worker, "no memory");
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

/* This worker's part of the next mini-batch; all its images once, then shuffled anew.
 */
static void next_batch(struct worker *worker)
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

/* FNV-1a over the bits of all weights. */
static uint64_t fingerprint(const struct worker *worker)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t t = 0; t < TENSORS; t++) {
        const uint8_t *bytes = (const uint8_t *)worker->weights.tensor[t];
        size_t size = mlp_tensor(worker->mlp, t)->elements * sizeof(float);
        for (size_t i = 0; i < size; i++) {
            hash = (hash ^ bytes[i]) * 0x100000001b3U;
        }
    }
    return hash;
}

/* ---------------------------------------------------------------- the server's part */

static bool connect_and_join(struct worker *worker)
{
    const struct settings *s = worker->settings;
    struct optclient_options options = optclient_options_default();
    options.worker = s->worker;
    if (!check(worker, "connect",
               optclient_connect(s->server, &options, &worker->client))) {
        return false;
    }

    struct optclient_tensor tensors[TENSORS];
    const float *initial[TENSORS];
    for (size_t i = 0; i < TENSORS; i++) {
        const struct mlp_tensor *tensor = mlp_tensor(worker->mlp, i);
        tensors[i] = (struct optclient_tensor){ .name = tensor->name,
                                                .shape = tensor->shape,
                                                .rank = tensor->rank };
        initial[i] = worker->weights.tensor[i];
    }
    mlp_start(worker->mlp, s->seed, worker->weights.tensor);

    /* Rounds of everybody: with the same seed, the same weights every time. */
    struct optclient_policy policy = { .mode = OPTCLIENT_SYNC,
                                       .loss = OPTCLIENT_SHRINK,
                                       .min_workers = (uint32_t)s->of };
    char optimizer[128];
    snprintf(optimizer, sizeof optimizer, "adam(lr=%g) + cosine(%ju)", s->problem->lr,
             (uintmax_t)worker->steps);
    return check(worker, "create the model",
                 optclient_create(worker->client, s->problem->name,
                                  s->optimizer != NULL ? s->optimizer : optimizer,
                                  &policy, tensors, TENSORS, initial, &worker->model));
}

/* The answer so far on images that nobody learns from. It is not always the weights
 * that gradients are taken at (Lookahead's slow ones, for instance): pulled by their
 * view. Leaves them in the memory of the gradients, whose push is over. */
static bool evaluate(struct worker *worker)
{
    struct optclient_pull_options answer = { .view = OPTCLIENT_EVAL };
    if (!check(worker, "pull the answer",
               optclient_pull(worker->model, worker->gradients.values, TENSORS, &answer,
                              NULL))) {
        return false;
    }
    const struct data_set *held_out = &worker->data.held_out;
    uint64_t correct = 0;
    for (size_t at = 0; at < held_out->count;) {
        uint32_t images[EVALUATED_AT_ONCE];
        size_t n = 0;
        while (n < EVALUATED_AT_ONCE && at < held_out->count) {
            images[n++] = (uint32_t)at++;
        }
        data_gather(held_out, images, n, worker->inputs, worker->labels);
        correct += mlp_correct(worker->mlp, worker->gradients.tensor, worker->inputs,
                               worker->labels, n);
    }
    worker->report.correct = correct;
    say(worker, REPORT_EVALUATED);
    return true;
}

static bool push_and_pull(struct worker *worker, struct optclient_result *at)
{
    struct optclient_push_options push = { .samples = worker->share };
    enum optclient_status status =
        optclient_push_pull(worker->model, worker->gradients.values, TENSORS, &push,
                            worker->weights.values, TENSORS, NULL, at);
    if (status == OPTCLIENT_ABORTED) {
        /* The round was given up, or this worker was stopped for so long that the
         * others went on without it: the gradient is of no use any more. */
        return check(
            worker, "pull the weights again",
            optclient_pull(worker->model, worker->weights.values, TENSORS, NULL, at));
    }
    return check(worker, "push", status);
}

static bool train(struct worker *worker)
{
    struct optclient_result at;
    if (!connect_and_join(worker) ||
        !check(worker, "pull the weights",
               optclient_pull(worker->model, worker->weights.values, TENSORS, NULL,
                              &at))) {
        return false;
    }
    worker->report = (struct report){ .step = at.step,
                                      .steps = worker->steps,
                                      .epoch = worker->epoch,
                                      .images = worker->image_count,
                                      .held_out = worker->data.held_out.count,
                                      .parameters = mlp_parameters(worker->mlp) };
    snprintf(worker->report.text, sizeof worker->report.text, "%s",
             optclient_model_specification(worker->model));
    say(worker, REPORT_STARTED);
    worker->report.text[0] = '\0';

    /* Counting the model's steps, not one's own, a worker that comes late or comes back
     * ends with the others. */
    bool evaluated = false;
    while (at.step < worker->steps && stopped_by == 0) {
        next_batch(worker);
        worker->report.loss =
            mlp_gradient(worker->mlp, worker->weights.tensor, worker->inputs,
                         worker->labels, worker->share, worker->gradients.tensor);
        if (!push_and_pull(worker, &at)) {
            return false;
        }
        struct optclient_usage usage;
        optclient_usage(worker->client, &usage);
        worker->report.step = at.step;
        worker->report.sent = usage.bytes_sent;
        worker->report.received = usage.bytes_received;
        say(worker, REPORT_STEP);
        evaluated = worker->settings->rank == 0 && at.step % worker->epoch == 0;
        if (evaluated && !evaluate(worker)) {
            return false;
        }
    }
    if (stopped_by != 0) {
        return fail(worker, "stopped by signal %d at step %ju of %ju", (int)stopped_by,
                    (uintmax_t)at.step, (uintmax_t)worker->steps);
    }
    if (worker->settings->rank == 0 && !evaluated && !evaluate(worker)) {
        return false;
    }
    worker->report.fingerprint = fingerprint(worker);
    say(worker, REPORT_FINISHED);
    return true;
}

/* ---------------------------------------------------------------- the command line */

/* From the command line; what it leaves open is the problem's. */
static enum options_outcome parse_settings(int argc, char **argv, struct settings *s)
{
    const char *data = problems[0].name;
    uint64_t report_fd = UINT64_MAX;
    const struct option_row rows[] = {
        { "server", "HOST:PORT", "where optimd listens (127.0.0.1:7070); waited for",
          .text = &s->server },
        { "rank", "I", "this is worker I, counted from 0 (0)", .number = &s->rank,
          .most = OF_MAX - 1 },
        { "of", "N", "of so many (1)", .number = &s->of, .least = 1, .most = OF_MAX },
        { "worker", "NAME", "its name there (worker-I)", .text = &s->worker },
        { "data", "NAME", "digits or fashion (digits)", .text = &data },
        { "data-dir", "DIR", "where the data are, if not where they usually are",
          .text = &s->data_directory },
        { "epochs", "N", "how often each image is seen", .number = &s->epochs,
          .least = 1, .most = 1000000 },
        { "batch", "N", "images of a step, over all workers", .number = &s->batch,
          .least = 1, .most = UINT16_MAX },
        { "optimizer", "EXPR", "such as 'lamb(lr=0.01)', instead of adam with cosine",
          .text = &s->optimizer },
        { "seed", "N", "of the first weights and the shuffles (1)", .number = &s->seed,
          .most = UINT64_MAX },
        { "report-fd", "N", "write reports there, for a program", .number = &report_fd,
          .most = INT16_MAX },
    };
    enum options_outcome outcome =
        options_parse("worker", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (outcome != OPTIONS_OK) {
        return outcome;
    }
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        s->problem = strcmp(data, problems[i].name) == 0 ? &problems[i] : s->problem;
    }
    if (s->problem == NULL) {
        fprintf(stderr, "worker: --data: there is no \"%s\"; digits and fashion are\n",
                data);
        return OPTIONS_WRONG;
    }
    s->report_fd = report_fd <= INT16_MAX ? (int)report_fd : -1;
    s->epochs = s->epochs != 0 ? s->epochs : s->problem->epochs;
    s->batch = s->batch != 0 ? s->batch : s->problem->batch;
    if (s->rank >= s->of || s->of > s->batch) {
        fprintf(
            stderr,
            "worker: rank %ju of %ju workers and a batch of %ju images: the rank must "
            "be less than the number of workers, and the batch not less\n",
            (uintmax_t)s->rank, (uintmax_t)s->of, (uintmax_t)s->batch);
        return OPTIONS_WRONG;
    }
    return OPTIONS_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = { .server = "127.0.0.1:7070", .of = 1, .seed = 1 };
    enum options_outcome outcome = parse_settings(argc, argv, &settings);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    char name[32];
    snprintf(name, sizeof name, "worker-%ju", (uintmax_t)settings.rank);
    if (settings.worker == NULL) {
        settings.worker = name;
    }

    /* The first signal ends the training after the step in progress, the next one the
     * program. */
    struct sigaction stop = { .sa_handler = on_signal,
                              .sa_flags = (int)SA_RESETHAND | SA_RESTART };
    sigemptyset(&stop.sa_mask);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);

    struct worker worker = { .settings = &settings };
    bool ok = prepare(&worker) && train(&worker);

    optclient_model_close(worker.model);
    optclient_close(worker.client);
    parameters_free(&worker.weights);
    parameters_free(&worker.gradients);
    free(worker.inputs);
    free(worker.labels);
    free(worker.images);
    mlp_free(worker.mlp);
    data_free(&worker.data);
    return ok ? EXIT_SUCCESS : stopped_by != 0 ? 128 + stopped_by : EXIT_FAILURE;
}
