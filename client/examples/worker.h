/* worker — what the parts of the example worker share: worker.c has the command line
 * and the training itself, worker_local.c the training in local steps, worker_task.c
 * data, network and reports.
 */
#ifndef OPTIMD_EXAMPLES_WORKER_H
#define OPTIMD_EXAMPLES_WORKER_H

#include <optclient.h>

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data.h"
#include "generator.h"
#include "mlp.h"
#include "report.h"

enum { LAYERS = 3, TENSORS = 2 * LAYERS };

/* What is trained on which data, unless the command line says otherwise. */
struct problem {
    const char *name; /* of the data, and of the model */
    size_t hidden[LAYERS - 1];
    uint64_t epochs, batch; /* batch: images of a round, over all workers */
    double lr;
};

struct settings {
    const char *server, *worker, *data_directory, *optimizer, *outer;
    const struct problem *problem;
    uint64_t rank, of, epochs, batch, seed;
    uint64_t local; /* local steps from one synchronisation to the next; 0: none */
    int report_fd;  /* -1: tell a person */
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

extern volatile sig_atomic_t worker_stopped_by; /* a signal, or 0 */

/* ---------------------------------------------------------------- worker_task.c */

/* Report the progress that is in worker->report. */
void worker_say(struct worker *worker, enum report_kind kind);

/* Report that it cannot go on; returns false. */
bool worker_fail(struct worker *worker, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A call of the client: whether it worked, and if not, its sentence is passed on. */
bool worker_check(struct worker *worker, const char *what,
                  enum optclient_status status);

/* Data, this worker's share of it, the network and the memory of a step. */
bool worker_prepare(struct worker *worker);
void worker_free(struct worker *worker);

/* This worker's part of the next mini-batch; all its images once, then shuffled anew.
 */
void worker_next_batch(struct worker *worker);

/* How many held-out images these weights get right. */
uint64_t worker_correct(struct worker *worker, float *const *weights);

/* FNV-1a over the bits of worker->weights. */
uint64_t worker_fingerprint(const struct worker *worker);

/* ---------------------------------------------------------------- worker.c */

/* The optimizer that the command line or the problem says, into size bytes of text. */
void worker_optimizer(const struct worker *worker, char *text, size_t size);

/* Connect, and create the model or find it. */
bool worker_join(struct worker *worker, const char *specification);

/* The training begins at this step, with this optimizer: report it. */
void worker_begin(struct worker *worker, uint64_t step, const char *optimizer);

/* The gradient of the next mini-batch at these weights, into worker->gradients, and its
 * loss. */
double worker_gradient(struct worker *worker, float *const *weights);

/* A step has been made, and which: report it. */
void worker_step(struct worker *worker, uint64_t step, double loss);

/* Report how good the answer is so far. Writes over worker->gradients. */
bool worker_evaluate(struct worker *worker);

/* The training has ended, or a signal has ended it: report that. evaluated: after the
 * last step. */
bool worker_end(struct worker *worker, bool evaluated);

/* ---------------------------------------------------------------- worker_local.c */

/* The training, in local steps. */
bool worker_train_local(struct worker *worker);

#endif
