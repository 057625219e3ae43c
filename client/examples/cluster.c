/* cluster — starting and stopping what the demos and the gallery run.
 *
 * Called by training.c and gallery.c.
 */
#include "cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "console.h"
#include "folder.h"

enum {
    PORT_DEADLINE_MS = 15000,
    GOODBYE_MS = 3000,      /* of a worker that has nothing left to do */
    WORKER_GRACE_MS = 1000, /* of one that may wait for others who do not come */
    DAEMON_GRACE_MS = 12000 /* it may take 10 s to drain */
};

/* ---------------------------------------------------------------- starting */

/* At an address; its log goes on, or begins anew. */
static bool start_daemon(struct cluster *cluster, const char *address, int log_mode)
{
    const struct cluster_settings *s = cluster->settings;
    char data[FOLDER_PATH_MAX + 8], port_file[FOLDER_PATH_MAX + 8],
        log_path[FOLDER_PATH_MAX];
    snprintf(data, sizeof data, "%s/kept", cluster->daemon_directory);
    snprintf(port_file, sizeof port_file, "%s/port", cluster->daemon_directory);
    snprintf(log_path, sizeof log_path, "%s/optimd.log", s->out);
    int log = open(log_path, O_WRONLY | O_CREAT | O_CLOEXEC | log_mode, 0644);
    if (log < 0) {
        return console_fail("cannot write %s: %s", log_path, strerror(errno));
    }
    const char *const argv[] = { s->daemon, "--listen",    address,   "--data-dir",
                                 data,      "--port-file", port_file, NULL };
    bool started = child_start(&cluster->children[0], argv, log, -1);
    close(log);
    return started || console_fail("cannot start %s: %s", s->daemon, strerror(errno));
}

/* The daemon writes its port into a file once it listens; the file appears whole. */
static bool wait_for_port(struct cluster *cluster)
{
    char path[FOLDER_PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/port", cluster->daemon_directory);
    double deadline = console_seconds() + PORT_DEADLINE_MS / 1e3;
    while (console_seconds() < deadline) {
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            char text[16] = "";
            size_t length = fread(text, 1, sizeof text - 1, file);
            fclose(file);
            unsigned long port = strtoul(text, NULL, 10);
            snprintf(cluster->address, sizeof cluster->address, "127.0.0.1:%lu", port);
            return (length > 0 && port > 0 && port <= UINT16_MAX) ||
                   console_fail("%s holds no port", path);
        }
        struct pollfd wait = { .fd = cluster->signals, .events = POLLIN };
        poll(&wait, 1, 10);
        if (cluster_interrupted(cluster)) {
            return false;
        }
    }
    return console_fail("optimd did not listen within %d s; see %s/optimd.log",
                        PORT_DEADLINE_MS / 1000, cluster->settings->out);
}

static bool start_worker(struct cluster *cluster, size_t rank)
{
    const struct cluster_settings *s = cluster->settings;
    int ends[2];
    if (pipe(ends) != 0) {
        return console_fail("cannot make a pipe: %s", strerror(errno));
    }
    /* Nobody but this worker may hold its end, or its going would not be seen. */
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);

    enum { NUMBER = 24 };
    char ranks[NUMBER], of[NUMBER], seed[NUMBER], epochs[NUMBER], batch[NUMBER],
        local[NUMBER], fd[NUMBER];
    snprintf(ranks, sizeof ranks, "%zu", rank);
    snprintf(of, sizeof of, "%" PRIu64, s->workers);
    snprintf(seed, sizeof seed, "%" PRIu64, s->seed);
    snprintf(epochs, sizeof epochs, "%" PRIu64, s->epochs);
    snprintf(batch, sizeof batch, "%" PRIu64, s->batch);
    snprintf(local, sizeof local, "%" PRIu64, s->local);
    snprintf(fd, sizeof fd, "%d", ends[1]);
    const struct {
        const char *option, *value; /* NULL: the worker's default */
    } options[] = {
        { "--server", cluster->address },
        { "--rank", ranks },
        { "--of", of },
        { "--seed", seed },
        { "--report-fd", fd },
        { "--data", s->data },
        { "--data-dir", s->data_directory },
        { "--optimizer", s->optimizer },
        { "--epochs", s->epochs != 0 ? epochs : NULL },
        { "--batch", s->batch != 0 ? batch : NULL },
        { "--local", s->local != 0 ? local : NULL },
        { "--outer", s->outer },
    };
    enum { OPTIONS = sizeof options / sizeof options[0] };
    const char *argv[1 + 2 * OPTIONS + 1] = { s->worker };
    size_t n = 1;
    for (size_t i = 0; i < OPTIONS; i++) {
        if (options[i].value != NULL) {
            argv[n++] = options[i].option;
            argv[n++] = options[i].value;
        }
    }
    bool started = child_start(&cluster->children[1 + rank], argv, -1, ends[1]);
    close(ends[1]);
    cluster->reports[rank] = ends[0];
    return started || console_fail("cannot start %s: %s", s->worker, strerror(errno));
}

bool cluster_start(struct cluster *cluster, const struct cluster_settings *settings)
{
    *cluster = (struct cluster){ .settings = settings };
    for (size_t i = 0; i < CLUSTER_WORKERS_MAX; i++) {
        cluster->reports[i] = -1;
    }
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    cluster->signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
    if (cluster->signals < 0) {
        return console_fail("cannot wait for signals: %s", strerror(errno));
    }
    if (!folder_make_temporary(settings->out, "data", cluster->daemon_directory) ||
        !start_daemon(cluster, "127.0.0.1:0", O_TRUNC) || !wait_for_port(cluster)) {
        return false;
    }
    for (size_t i = 0; i < settings->workers; i++) {
        if (!start_worker(cluster, i)) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- while it runs */

bool cluster_interrupted(struct cluster *cluster)
{
    struct signalfd_siginfo info;
    bool told = false;
    while (read(cluster->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        told = told || info.ssi_signo != SIGCHLD;
    }
    children_collect(cluster->children, 1 + cluster->settings->workers);
    if (told) {
        console_fail("interrupted");
    } else if (cluster->children[0].pid == 0) {
        char what[64];
        child_describe(&cluster->children[0], what, sizeof what);
        console_fail("optimd %s; see %s/optimd.log", what, cluster->settings->out);
    }
    return told || cluster->children[0].pid == 0;
}

bool cluster_kill_daemon(struct cluster *cluster)
{
    struct child *daemon = &cluster->children[0];
    if (daemon->pid != 0) {
        kill(daemon->pid, SIGKILL);
        children_wait(daemon, 1, DAEMON_GRACE_MS);
    }
    return start_daemon(cluster, cluster->address, O_APPEND);
}

void cluster_close_report(struct cluster *cluster, size_t rank)
{
    if (cluster->reports[rank] >= 0) {
        close(cluster->reports[rank]);
        cluster->reports[rank] = -1;
    }
}

void cluster_describe(struct cluster *cluster, size_t rank, char *out, size_t capacity)
{
    struct child *child = &cluster->children[1 + rank];
    children_wait(child, 1, GOODBYE_MS);
    child_describe(child, out, capacity);
}

/* ---------------------------------------------------------------- stopping */

bool cluster_stop(struct cluster *cluster, bool finished)
{
    struct child *daemon = &cluster->children[0], *workers = &cluster->children[1];
    size_t count = cluster->settings->workers;
    if (finished) {
        children_wait(workers, count, GOODBYE_MS);
    }
    /* Workers first: then nobody is left who would miss the daemon. */
    children_stop(workers, count, WORKER_GRACE_MS);
    children_stop(daemon, 1, DAEMON_GRACE_MS);

    bool ok = finished;
    for (size_t i = 0; finished && i < 1 + count; i++) {
        if (!child_succeeded(&cluster->children[i])) {
            char what[64];
            child_describe(&cluster->children[i], what, sizeof what);
            ok = i == 0 ? console_fail("optimd %s", what)
                        : console_fail("worker-%zu %s", i - 1, what);
        }
    }
    for (size_t i = 0; i < count; i++) {
        cluster_close_report(cluster, i);
    }
    if (cluster->signals >= 0) {
        close(cluster->signals);
    }
    folder_remove(cluster->daemon_directory);
    return ok;
}
