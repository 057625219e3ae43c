/* cluster — one optimd and its workers, as processes of this machine.
 *
 * Started in order, stopped in the reverse one, their files removed. Failures are told
 * to the console where they are met. The main thread only. From the start on, SIGCHLD,
 * SIGINT, SIGTERM and SIGHUP are blocked and come to cluster_interrupted instead.
 */
#ifndef OPTIMD_EXAMPLES_CLUSTER_H
#define OPTIMD_EXAMPLES_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "children.h"
#include "folder.h"

enum { CLUSTER_WORKERS_MAX = 64 };

/* What is started; the texts are borrowed for the cluster's life. */
struct cluster_settings {
    const char *daemon, *worker; /* programs */
    const char *out; /* folder for the daemon's log and, while it runs, data */
    const char *data, *data_directory,
        *optimizer;         /* the workers'; NULL: their default */
    const char *outer;      /* of local steps; NULL: the workers' default */
    uint64_t local;         /* steps from one synchronisation to the next; 0: none */
    uint64_t workers, seed; /* no workers: the daemon alone */
    uint64_t epochs, batch; /* 0: the workers' default */
    uint64_t kills; /* of the daemon, spread over the training; it is started again */
};

struct cluster {
    const struct cluster_settings *settings;
    struct child children[1 + CLUSTER_WORKERS_MAX]; /* the daemon, then the workers */
    int reports[CLUSTER_WORKERS_MAX]; /* pipes from the workers; -1: closed */
    int signals;                      /* signalfd */
    char daemon_directory[FOLDER_PATH_MAX];
    char address[32]; /* of the daemon, once it listens */
};

/* The daemon on a free port of the loopback, then the workers. Whatever comes of it,
 * the cluster must be stopped. */
bool cluster_start(struct cluster *cluster, const struct cluster_settings *settings);

/* Whether it is time to stop: a signal has come or the daemon has ended. Never waits.
 */
bool cluster_interrupted(struct cluster *cluster);

/* Kill the daemon, as kill -9 does, and start it again at the same address, with what
 * it has kept. */
bool cluster_kill_daemon(struct cluster *cluster);

void cluster_close_report(struct cluster *cluster, size_t rank);

/* "ended with status 1" and so on, of a worker that has closed its reports. */
void cluster_describe(struct cluster *cluster, size_t rank, char *out, size_t capacity);

/* Stop everything and remove the daemon's data.
 *
 * finished  the workers have done what they were started for: they are given the time
 * to end by themselves, and are expected to have succeeded False if any of them, or the
 * daemon, did not. */
bool cluster_stop(struct cluster *cluster, bool finished);

#endif
