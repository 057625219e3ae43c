/* demo — one optimd, a few workers, one training run: what `make demo` runs.
 *
 * Starts the daemon on a free port of the loopback with a data directory of its own,
 * starts the workers, shows their progress, stops everything again, and prints what
 * came of it. Succeeds if all went well and the network got as good as it must. One
 * thread; the programs it starts end with it, whatever ends it (children.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "children.h"
#include "curve.h"
#include "options.h"
#include "report.h"

enum {
    WORKERS_MAX = 64,
    PATH_LENGTH = 4096,
    PORT_DEADLINE_MS = 15000,
    WORKER_GRACE_MS = 3000,
    DAEMON_GRACE_MS = 12000 /* it may take 10 s to drain */
};

struct settings {
    const char *daemon, *worker, *out; /* two programs, a folder for what is left */
    const char *data, *data_directory, *optimizer;
    uint64_t workers, epochs, batch, seed;
    uint64_t floor; /* accuracy in per cent that is good enough */
};

struct worker {
    char name[24];
    int fd; /* its reports; -1: it has closed them */
    char line[REPORT_LINE_MAX];
    size_t length; /* of the part of a line that is there */
    struct report last;
    uint64_t rounds;
    bool started, finished, failed;
};

struct demo {
    struct settings settings;
    struct child children[1 + WORKERS_MAX]; /* the daemon, then the workers */
    struct worker workers[WORKERS_MAX];
    char data_directory[PATH_LENGTH]; /* the daemon's */
    char address[32];
    int signals;   /* signalfd */
    bool terminal; /* progress rewrites its line */
    struct curve curve;
    char optimizer[512];
    uint64_t parameters, held_out, correct;
    double began, ended; /* the training: first and last round, in seconds */
    struct {
        double at, steps_a_second, bytes_a_second;
        uint64_t step, bytes;
        double shown;
    } pace;
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A line on its own, not into the middle of the progress. */
__attribute__((format(printf, 2, 3))) static bool complain(const struct demo *demo,
                                                           const char *format, ...)
{
    fflush(stdout);
    fputs(demo->terminal ? "\r\033[K" : "", stderr);
    fputs("demo: ", stderr);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return false;
}

/* ---------------------------------------------------------------- starting */

static bool start_daemon(struct demo *demo)
{
    const char *out = demo->settings.out;
    char port_file[PATH_LENGTH + 8], log_path[PATH_LENGTH];
    snprintf(demo->data_directory, sizeof demo->data_directory, "%s/data-XXXXXX", out);
    if (mkdtemp(demo->data_directory) == NULL) {
        demo->data_directory[0] = '\0';
        return complain(demo, "cannot make a folder in %s: %s", out, strerror(errno));
    }
    snprintf(port_file, sizeof port_file, "%s/port", demo->data_directory);
    snprintf(log_path, sizeof log_path, "%s/optimd.log", out);
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (log < 0) {
        return complain(demo, "cannot write %s: %s", log_path, strerror(errno));
    }
    const char *const argv[] = {
        demo->settings.daemon, "--listen",    "127.0.0.1:0", "--data-dir",
        demo->data_directory,  "--port-file", port_file,     NULL
    };
    bool started = child_start(&demo->children[0], argv, log, -1);
    close(log);
    return started || complain(demo, "cannot start %s: %s", demo->settings.daemon,
                               strerror(errno));
}

/* Whether the demo was told to stop. Takes the signals that have come; collects
 * children that have ended. */
static bool interrupted(struct demo *demo)
{
    struct signalfd_siginfo info;
    bool stop = false;
    while (read(demo->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        stop = stop || info.ssi_signo != SIGCHLD;
    }
    children_collect(demo->children, 1 + demo->settings.workers);
    return stop && !complain(demo, "interrupted");
}

static bool daemon_lives(const struct demo *demo)
{
    if (demo->children[0].pid != 0) {
        return true;
    }
    char what[64];
    child_describe(&demo->children[0], what, sizeof what);
    return complain(demo, "optimd %s; see %s/optimd.log", what, demo->settings.out);
}

/* The daemon writes its port into a file once it listens; the file appears whole. */
static bool wait_for_port(struct demo *demo)
{
    char path[PATH_LENGTH + 8];
    snprintf(path, sizeof path, "%s/port", demo->data_directory);
    double deadline = seconds() + PORT_DEADLINE_MS / 1e3;
    while (seconds() < deadline) {
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            unsigned port = 0;
            int read = fscanf(file, "%5u", &port);
            fclose(file);
            snprintf(demo->address, sizeof demo->address, "127.0.0.1:%u", port);
            return (read == 1 && port > 0 && port <= UINT16_MAX) ||
                   complain(demo, "%s holds no port", path);
        }
        struct pollfd wait = { .fd = demo->signals, .events = POLLIN };
        poll(&wait, 1, 10);
        if (interrupted(demo) || !daemon_lives(demo)) {
            return false;
        }
    }
    return complain(demo, "optimd did not listen within %d s; see %s/optimd.log",
                    PORT_DEADLINE_MS / 1000, demo->settings.out);
}

static bool start_worker(struct demo *demo, size_t rank)
{
    const struct settings *s = &demo->settings;
    struct worker *worker = &demo->workers[rank];
    int ends[2];
    if (pipe(ends) != 0) {
        return complain(demo, "cannot make a pipe: %s", strerror(errno));
    }
    /* Nobody but this worker may hold its end, or its going would not be seen. */
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);

    char rank_text[24], of[24], seed[24], epochs[24], batch[24], fd[24];
    snprintf(rank_text, sizeof rank_text, "%zu", rank);
    snprintf(of, sizeof of, "%" PRIu64, s->workers);
    snprintf(seed, sizeof seed, "%" PRIu64, s->seed);
    snprintf(epochs, sizeof epochs, "%" PRIu64, s->epochs);
    snprintf(batch, sizeof batch, "%" PRIu64, s->batch);
    snprintf(fd, sizeof fd, "%d", ends[1]);
    const struct {
        const char *option, *value; /* NULL: the worker's default */
    } options[] = {
        { "--server", demo->address },
        { "--worker", worker->name },
        { "--rank", rank_text },
        { "--of", of },
        { "--seed", seed },
        { "--report-fd", fd },
        { "--data", s->data },
        { "--data-dir", s->data_directory },
        { "--optimizer", s->optimizer },
        { "--epochs", s->epochs != 0 ? epochs : NULL },
        { "--batch", s->batch != 0 ? batch : NULL },
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
    bool started = child_start(&demo->children[1 + rank], argv, -1, ends[1]);
    close(ends[1]);
    worker->fd = ends[0];
    return started || complain(demo, "cannot start %s: %s", s->worker, strerror(errno));
}

/* ---------------------------------------------------------------- following */

static bool on_started(struct demo *demo, const struct report *report)
{
    if (demo->curve.loss != NULL) {
        return true;
    }
    snprintf(demo->optimizer, sizeof demo->optimizer, "%s", report->text);
    demo->parameters = report->parameters;
    demo->held_out = report->held_out;
    return curve_init(&demo->curve, report->steps, demo->settings.workers,
                      report->epoch) ||
           complain(demo, "no memory for %" PRIu64 " steps", report->steps);
}

static bool on_report(struct demo *demo, struct worker *worker,
                      const struct report *report)
{
    if (report->kind != REPORT_STARTED && report->kind != REPORT_FAILED &&
        !worker->started) {
        return complain(demo, "%s reports before it has started", worker->name);
    }
    worker->last = *report;
    switch (report->kind) {
    case REPORT_STARTED:
        worker->started = true;
        return on_started(demo, report);
    case REPORT_STEP:
        demo->ended = seconds();
        demo->began = demo->began > 0 ? demo->began : demo->ended;
        worker->rounds++;
        curve_add_loss(&demo->curve, report->step, report->loss);
        return true;
    case REPORT_EVALUATED:
        demo->correct = report->correct;
        curve_add_accuracy(&demo->curve, report->step,
                           (double)report->correct / (double)report->held_out);
        return true;
    case REPORT_FINISHED:
        worker->finished = true;
        return true;
    case REPORT_FAILED:
    case REPORT_KINDS:
        break;
    }
    worker->failed = true;
    return complain(demo, "%s: %s", worker->name, report->text);
}

/* What has come from one worker, line by line. */
static bool read_reports(struct demo *demo, struct worker *worker)
{
    ssize_t got = read(worker->fd, worker->line + worker->length,
                       sizeof worker->line - worker->length);
    if (got < 0) {
        return errno == EINTR ||
               complain(demo, "cannot read from %s: %s", worker->name, strerror(errno));
    }
    if (got == 0) {
        close(worker->fd);
        worker->fd = -1;
        return true;
    }
    worker->length += (size_t)got;
    size_t from = 0;
    for (char *end; (end = memchr(worker->line + from, '\n', worker->length - from));) {
        *end = '\0';
        struct report report;
        if (!report_parse(worker->line + from, &report)) {
            return complain(demo, "%s reports \"%s\"", worker->name,
                            worker->line + from);
        }
        from = (size_t)(end - worker->line) + 1;
        if (!on_report(demo, worker, &report)) {
            return false;
        }
    }
    worker->length -= from;
    memmove(worker->line, worker->line + from, worker->length);
    return worker->length < sizeof worker->line ||
           complain(demo, "%s reports a line without an end", worker->name);
}

static size_t reporting(const struct demo *demo)
{
    size_t n = 0;
    for (size_t i = 0; i < demo->settings.workers; i++) {
        n += demo->workers[i].fd >= 0;
    }
    return n;
}

static void show_progress(struct demo *demo)
{
    double now = seconds();
    if (demo->began <= 0 || now < demo->pace.shown + (demo->terminal ? 0.1 : 2)) {
        return;
    }
    demo->pace.shown = now;
    uint64_t bytes = 0;
    for (size_t i = 0; i < demo->settings.workers; i++) {
        bytes += demo->workers[i].last.sent + demo->workers[i].last.received;
    }
    const struct curve *curve = &demo->curve;
    if (demo->pace.at <= 0) {
        demo->pace.at = demo->began;
    }
    double passed = now - demo->pace.at;
    if (passed >= 1 || demo->pace.steps_a_second <= 0) {
        demo->pace.steps_a_second =
            (double)(curve->complete - demo->pace.step) / passed;
        demo->pace.bytes_a_second = (double)(bytes - demo->pace.bytes) / passed;
        if (passed >= 1) {
            demo->pace.at = now;
            demo->pace.step = curve->complete;
            demo->pace.bytes = bytes;
        }
    }
    printf(
        "%sstep %zu of %zu   loss %.4f   accuracy %.1f %%   %.0f steps/s   %.1f MB/s   "
        "%zu workers%s",
        demo->terminal ? "\r" : "", curve->complete, curve->steps, curve_loss(curve),
        100 * (double)demo->correct / (double)demo->held_out, demo->pace.steps_a_second,
        demo->pace.bytes_a_second / 1e6, reporting(demo),
        demo->terminal ? "\033[K" : "\n");
    fflush(stdout);
}

/* Until all workers have said what they had to say, or something goes wrong. */
static bool follow(struct demo *demo)
{
    size_t workers = demo->settings.workers;
    while (reporting(demo) > 0) {
        struct pollfd wait[1 + WORKERS_MAX] = { { demo->signals, POLLIN, 0 } };
        for (size_t i = 0; i < workers; i++) {
            wait[1 + i] = (struct pollfd){ demo->workers[i].fd, POLLIN, 0 };
        }
        if (poll(wait, 1 + workers, 100) < 0 && errno != EINTR) {
            return complain(demo, "cannot wait: %s", strerror(errno));
        }
        if (interrupted(demo) || !daemon_lives(demo)) {
            return false;
        }
        for (size_t i = 0; i < workers; i++) {
            struct worker *worker = &demo->workers[i];
            if (wait[1 + i].revents != 0 && !read_reports(demo, worker)) {
                return false;
            }
            /* One that goes early would have the others wait for the rest. */
            if (worker->fd < 0 && !worker->finished) {
                char what[64];
                children_wait(&demo->children[1 + i], 1, WORKER_GRACE_MS);
                child_describe(&demo->children[1 + i], what, sizeof what);
                return complain(demo, "%s %s before it had finished", worker->name,
                                what);
            }
        }
        show_progress(demo);
    }
    if (demo->terminal) {
        fputs("\r\033[K", stdout);
    }
    return true;
}

/* ---------------------------------------------------------------- ending */

static void remove_folder(const char *path)
{
    char *const paths[] = { (char *)(uintptr_t)path, NULL }; /* not changed, fts(3) */
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    if (tree != NULL) {
        fts_close(tree);
    }
}

/* Workers first, then the daemon: nobody is left who could miss it. Whether all ended
 * as they should. */
static bool stop(struct demo *demo, bool went_well)
{
    struct child *workers = &demo->children[1];
    size_t count = demo->settings.workers;
    if (went_well) {
        /* They have closed their reports and say goodbye. */
        children_wait(workers, count, WORKER_GRACE_MS);
    }
    children_stop(workers, count, WORKER_GRACE_MS);
    children_stop(&demo->children[0], 1, DAEMON_GRACE_MS);

    bool ok = went_well;
    for (size_t i = 0; ok && i < 1 + count; i++) {
        if (!child_succeeded(&demo->children[i])) {
            char what[64];
            child_describe(&demo->children[i], what, sizeof what);
            ok = complain(demo, "%s %s", i == 0 ? "optimd" : demo->workers[i - 1].name,
                          what);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (demo->workers[i].fd >= 0) {
            close(demo->workers[i].fd);
        }
    }
    if (demo->data_directory[0] != '\0') {
        remove_folder(demo->data_directory);
    }
    return ok;
}

static void print_table(const struct demo *demo)
{
    uint64_t images = 0, sent = 0, received = 0;
    printf("  %-12s %8s %8s %12s %12s\n", "worker", "images", "rounds", "pushed",
           "pulled");
    for (size_t i = 0; i < demo->settings.workers; i++) {
        const struct worker *worker = &demo->workers[i];
        images += worker->last.images;
        sent += worker->last.sent;
        received += worker->last.received;
        printf("  %-12s %8" PRIu64 " %8" PRIu64 " %9.1f MB %9.1f MB\n", worker->name,
               worker->last.images, worker->rounds, (double)worker->last.sent / 1e6,
               (double)worker->last.received / 1e6);
    }
    printf("  %-12s %8" PRIu64 " %8zu %9.1f MB %9.1f MB\n\n", "together", images,
           demo->curve.complete, (double)sent / 1e6, (double)received / 1e6);

    double took = demo->ended - demo->began;
    printf("  model        %" PRIu64 " parameters, learning %s\n", demo->parameters,
           demo->settings.data);
    printf("  optimizer    %s\n", demo->optimizer);
    printf("  loss         %.4f at first, %.4f in the last epoch\n",
           curve_first_loss(&demo->curve), curve_loss(&demo->curve));
    printf("  accuracy     %.2f %%: %" PRIu64 " of %" PRIu64
           " held-out images are right\n",
           100 * (double)demo->correct / (double)demo->held_out, demo->correct,
           demo->held_out);
    printf("  time         %.1f s, %.0f steps/s\n", took,
           took > 0 ? (double)demo->curve.complete / took : 0);
    printf("  weights      %016" PRIx64 ", the same at every worker\n",
           demo->workers[0].last.fingerprint);
}

static void draw(const struct demo *demo)
{
    char title[128], why[PATH_LENGTH + 64];
    snprintf(title, sizeof title, "%s: %" PRIu64 " workers, one optimd",
             demo->settings.data, demo->settings.workers);
    if (curve_draw(&demo->curve, demo->settings.out, title, why, sizeof why)) {
        printf("  loss curve   %s/loss.svg\n", demo->settings.out);
    } else {
        printf("  loss curve   not drawn: %s\n", why);
    }
}

/* What came of a run in which nothing broke. */
static bool judge(struct demo *demo)
{
    print_table(demo);
    draw(demo);
    for (size_t i = 1; i < demo->settings.workers; i++) {
        if (demo->workers[i].last.fingerprint != demo->workers[0].last.fingerprint) {
            return complain(demo, "%s ended with other weights than %s",
                            demo->workers[i].name, demo->workers[0].name);
        }
    }
    return demo->correct * 100 >= demo->settings.floor * demo->held_out ||
           complain(demo, "the accuracy is below %" PRIu64 " %%", demo->settings.floor);
}

/* ---------------------------------------------------------------- the command line */

static enum options_outcome parse_settings(int argc, char **argv, struct settings *s)
{
    s->floor = UINT64_MAX;
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &s->daemon },
        { "worker", "FILE", "the demo's worker (build/client/examples/worker)",
          .text = &s->worker },
        { "out", "DIR", "where log and loss curve go (build/demo)", .text = &s->out },
        { "workers", "N", "how many (4)", .number = &s->workers, .least = 1,
          .most = WORKERS_MAX },
        { "data", "NAME", "digits or fashion (digits)", .text = &s->data },
        { "data-dir", "DIR", "where the data are, if not where they usually are",
          .text = &s->data_directory },
        { "optimizer", "EXPR", "such as 'lamb(lr=0.01)', instead of adam with cosine",
          .text = &s->optimizer },
        { "seed", "N", "of the first weights and the shuffles (1)", .number = &s->seed,
          .most = UINT64_MAX },
        { "epochs", "N", "how often each image is seen", .number = &s->epochs,
          .least = 1, .most = 1000000 },
        { "batch", "N", "images of a step, over all workers", .number = &s->batch,
          .least = 1, .most = UINT16_MAX },
        { "floor", "N",
          "per cent of held-out images to get right (digits 96, fashion 88)",
          .number = &s->floor, .most = 100 },
    };
    enum options_outcome outcome =
        options_parse("demo", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (s->floor == UINT64_MAX) {
        s->floor = strcmp(s->data, "fashion") == 0 ? 88 : 96;
    }
    return outcome;
}

int main(int argc, char **argv)
{
    static struct demo demo = { .settings = { .daemon = "build/optimd",
                                              .worker = "build/client/examples/worker",
                                              .out = "build/demo",
                                              .data = "digits",
                                              .workers = 4,
                                              .seed = 1 } };
    enum options_outcome outcome = parse_settings(argc, argv, &demo.settings);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    demo.terminal = isatty(STDOUT_FILENO) == 1;
    for (size_t i = 0; i < demo.settings.workers; i++) {
        snprintf(demo.workers[i].name, sizeof demo.workers[i].name, "worker-%zu", i);
        demo.workers[i].fd = -1;
    }

    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGCHLD);
    sigaddset(&mine, SIGINT);
    sigaddset(&mine, SIGTERM);
    sigaddset(&mine, SIGHUP);
    sigprocmask(SIG_BLOCK, &mine, NULL);
    signal(SIGPIPE,
           SIG_IGN); /* a reader that goes must not keep us from stopping all */
    demo.signals = signalfd(-1, &mine, SFD_NONBLOCK | SFD_CLOEXEC);
    if (demo.signals < 0) {
        complain(&demo, "cannot wait for signals: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (mkdir(demo.settings.out, 0755) != 0 && errno != EEXIST) {
        complain(&demo, "cannot make %s: %s", demo.settings.out, strerror(errno));
        return EXIT_FAILURE;
    }

    printf("optimd demo: %" PRIu64 " workers learn %s\n", demo.settings.workers,
           demo.settings.data);
    fflush(stdout);
    bool ok = start_daemon(&demo) && wait_for_port(&demo);
    for (size_t i = 0; ok && i < demo.settings.workers; i++) {
        ok = start_worker(&demo, i);
    }
    ok = ok && follow(&demo);
    ok = stop(&demo, ok);
    ok = ok && judge(&demo);
    curve_fini(&demo.curve);
    close(demo.signals);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
