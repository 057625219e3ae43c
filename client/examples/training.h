/* training — one run of the demo: a cluster of workers, followed until they have
 * finished.
 *
 * Called by demo.c and demo_all.c, on the main thread. Failures are told to the console
 * where they are met.
 */
#ifndef OPTIMD_EXAMPLES_TRAINING_H
#define OPTIMD_EXAMPLES_TRAINING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster.h"
#include "curve.h"
#include "report.h"

struct training_worker {
    char line[REPORT_LINE_MAX];
    size_t length; /* of the part of a line that is there */
    struct report last;
    uint64_t rounds;
    bool started, finished;
};

struct training {
    const struct cluster_settings *settings;
    bool quiet; /* show no progress */
    struct cluster cluster;
    struct training_worker workers[CLUSTER_WORKERS_MAX];
    struct curve curve;
    struct report first; /* of the first worker to start: the model */
    uint64_t correct;    /* held-out images, last time */
    bool evaluated;      /* there was a time */
    uint64_t kills;      /* of the daemon, so far */
    double began, ended; /* the training: first and last round, in seconds */
    double paced_at;     /* since when the pace is measured, */
    uint64_t paced_step, paced_bytes; /* and from where */
    double steps_a_second, bytes_a_second;
};

/* Start everything, show progress unless it is to be quiet, wait for the end, stop
 * everything. True if nothing broke and all workers ended with the same weights.
 *
 * training  written whole; too large for a stack; training_fini it in any case
 * settings  borrowed until then */
bool training_run(struct training *training, const struct cluster_settings *settings,
                  bool quiet);
void training_fini(struct training *training);

/* Of the held-out images, in per cent: those that were right last time. */
double training_accuracy(const struct training *training);

/* The accuracy to ask for if nobody says: what the run reaches as it comes, whatever
 * the seed. 0, nothing, where the epochs, the batch or the optimizer were chosen: then
 * nobody can know. */
uint64_t training_goal(const struct cluster_settings *settings);

/* Whether it got there; if not, the console has been told of which run: "" or " of the
 * second". */
bool training_judge(const struct training *training, uint64_t goal, const char *which);

/* The first step after which at least so many per cent were right; 0: none. */
uint64_t training_steps_to(const struct training *training, double percent);

#endif
