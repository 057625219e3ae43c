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
 * and then push_pull until done (train, below). Data and reports are in worker_task.c;
 * with --local, worker_local.c trains instead.
 */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "options.h"

enum { OF_MAX = 4096 };

static const struct problem problems[] = {
    { "digits", { 128, 64 }, 100, 128, 3e-3 },
    { "fashion", { 256, 128 }, 12, 256, 1e-3 },
};

volatile sig_atomic_t worker_stopped_by;

static void on_signal(int signal)
{
    worker_stopped_by = signal;
}

/* ---------------------------------------------------------------- the server's part */

void worker_optimizer(const struct worker *worker, char *text, size_t size)
{
    const struct settings *s = worker->settings;
    if (s->optimizer != NULL) {
        snprintf(text, size, "%s", s->optimizer);
    } else {
        snprintf(text, size, "adam(lr=%g) + cosine(%ju)", s->problem->lr,
                 (uintmax_t)worker->steps);
    }
}

bool worker_join(struct worker *worker, const char *specification)
{
    const struct settings *s = worker->settings;
    struct optclient_options options = optclient_options_default();
    options.worker = s->worker;
    if (!worker_check(worker, "connect",
                      optclient_connect(s->server, &options, &worker->client))) {
        return false;
    }

    struct optclient_tensor tensors[TENSORS];
    const float *initial[TENSORS];
    for (size_t i = 0; i < mlp_tensors(worker->mlp); i++) {
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
    return worker_check(worker, "create the model",
                        optclient_create(worker->client, s->problem->name,
                                         specification, &policy, tensors, TENSORS,
                                         initial, &worker->model));
}

bool worker_evaluate(struct worker *worker)
{
    /* The answer is not always the weights that gradients are taken at (Lookahead's
     * slow ones, for instance): pulled by its view. */
    struct optclient_pull_options answer = { .view = OPTCLIENT_EVAL };
    if (!worker_check(worker, "pull the answer",
                      optclient_pull(worker->model, worker->gradients.values, TENSORS,
                                     &answer, NULL))) {
        return false;
    }
    worker->report.correct = worker_correct(worker, worker->gradients.tensor);
    worker_say(worker, REPORT_EVALUATED);
    return true;
}

void worker_begin(struct worker *worker, uint64_t step, const char *optimizer)
{
    worker->report = (struct report){ .step = step,
                                      .steps = worker->steps,
                                      .epoch = worker->epoch,
                                      .images = worker->image_count,
                                      .held_out = worker->data.held_out.count,
                                      .parameters = mlp_parameters(worker->mlp) };
    snprintf(worker->report.text, sizeof worker->report.text, "%s", optimizer);
    worker_say(worker, REPORT_STARTED);
    worker->report.text[0] = '\0';
}

double worker_gradient(struct worker *worker, float *const *weights)
{
    worker_next_batch(worker);
    return mlp_gradient(worker->mlp, weights, worker->inputs, worker->labels,
                        worker->share, worker->gradients.tensor);
}

void worker_step(struct worker *worker, uint64_t step, double loss)
{
    struct optclient_usage usage;
    optclient_usage(worker->client, &usage);
    worker->report.loss = loss;
    worker->report.step = step;
    worker->report.sent = usage.bytes_sent;
    worker->report.received = usage.bytes_received;
    worker_say(worker, REPORT_STEP);
}

bool worker_end(struct worker *worker, bool evaluated)
{
    if (worker_stopped_by != 0) {
        return worker_fail(worker, "stopped by signal %d at step %ju of %ju",
                           (int)worker_stopped_by, (uintmax_t)worker->report.step,
                           (uintmax_t)worker->steps);
    }
    if (worker->settings->rank == 0 && !evaluated && !worker_evaluate(worker)) {
        return false;
    }
    worker->report.fingerprint = worker_fingerprint(worker);
    worker_say(worker, REPORT_FINISHED);
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
        return worker_check(
            worker, "pull the weights again",
            optclient_pull(worker->model, worker->weights.values, TENSORS, NULL, at));
    }
    return worker_check(worker, "push", status);
}

static bool train(struct worker *worker)
{
    char optimizer[512];
    struct optclient_result at;
    worker_optimizer(worker, optimizer, sizeof optimizer);
    if (!worker_join(worker, optimizer) ||
        !worker_check(worker, "pull the weights",
                      optclient_pull(worker->model, worker->weights.values, TENSORS,
                                     NULL, &at))) {
        return false;
    }
    worker_begin(worker, at.step, optclient_model_specification(worker->model));

    /* Counting the model's steps, not one's own, a worker that comes late or comes back
     * ends with the others. */
    bool evaluated = false;
    while (at.step < worker->steps && worker_stopped_by == 0) {
        double loss = worker_gradient(worker, worker->weights.tensor);
        if (!push_and_pull(worker, &at)) {
            return false;
        }
        worker_step(worker, at.step, loss);
        evaluated = worker->settings->rank == 0 && at.step % worker->epoch == 0;
        if (evaluated && !worker_evaluate(worker)) {
            return false;
        }
    }
    return worker_end(worker, evaluated);
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
        { "local", "K", "make K local steps, then synchronise, instead of each step",
          .number = &s->local, .least = 1, .most = 1000000 },
        { "outer", "EXPR", "what is made of K local steps (sgd(lr=1), their average)",
          .text = &s->outer },
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
    struct settings settings = {
        .server = "127.0.0.1:7070", .outer = "sgd(lr=1)", .of = 1, .seed = 1
    };
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
    bool ok = worker_prepare(&worker) &&
              (settings.local > 0 ? worker_train_local(&worker) : train(&worker));

    optclient_model_close(worker.model);
    optclient_close(worker.client);
    worker_free(&worker);
    return ok                       ? EXIT_SUCCESS
           : worker_stopped_by != 0 ? 128 + worker_stopped_by
                                    : EXIT_FAILURE;
}
