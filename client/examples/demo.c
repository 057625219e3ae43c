/* demo — one optimd, a few workers, one training run: what `make demo` runs.
 *
 * Starts the daemon and the workers (cluster.h), shows their progress, stops
 * everything, and prints what came of it. Succeeds if all went well and the network got
 * as good as it must. One thread; the programs it starts end with it, whatever ends it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "cluster.h"
#include "console.h"
#include "curve.h"
#include "options.h"
#include "report.h"

struct worker {
    char line[REPORT_LINE_MAX];
    size_t length; /* of the part of a line that is there */
    struct report last;
    uint64_t rounds;
    bool started, finished;
};

struct demo {
    struct cluster_settings settings;
    uint64_t floor; /* accuracy in per cent that is good enough */
    struct cluster cluster;
    struct worker workers[CLUSTER_WORKERS_MAX];
    struct curve curve;
    struct report first; /* of the first worker to start: the model */
    uint64_t correct;    /* held-out images, last time */
    double began, ended; /* the training: first and last round, in seconds */
    double paced_at;     /* since when the pace is measured, */
    uint64_t paced_step, paced_bytes; /* and from where */
    double steps_a_second, bytes_a_second;
};

/* ---------------------------------------------------------------- following */

static bool on_started(struct demo *demo, const struct report *report)
{
    if (demo->curve.loss != NULL) {
        return true;
    }
    demo->first = *report;
    return curve_init(&demo->curve, report->steps, demo->settings.workers,
                      report->epoch) ||
           console_fail("no memory for %" PRIu64 " steps", report->steps);
}

static bool on_report(struct demo *demo, size_t rank, const struct report *report)
{
    struct worker *worker = &demo->workers[rank];
    if (report->kind == REPORT_FAILED) {
        return console_fail("worker-%zu: %s", rank, report->text);
    }
    if (!worker->started && report->kind != REPORT_STARTED) {
        return console_fail("worker-%zu reports before it has started", rank);
    }
    worker->last = *report;
    switch (report->kind) {
    case REPORT_STARTED:
        worker->started = true;
        return on_started(demo, report);
    case REPORT_STEP:
        demo->ended = console_seconds();
        demo->began = demo->began > 0 ? demo->began : demo->ended;
        worker->rounds++;
        curve_add_loss(&demo->curve, report->step, report->loss);
        break;
    case REPORT_EVALUATED:
        demo->correct = report->correct;
        curve_add_accuracy(&demo->curve, report->step,
                           (double)report->correct / (double)report->held_out);
        break;
    case REPORT_FINISHED:
        worker->finished = true;
        break;
    case REPORT_FAILED:
    case REPORT_KINDS:
        break;
    }
    return true;
}

/* One that goes early would leave the others without it. */
static bool on_closed(struct demo *demo, size_t rank)
{
    cluster_close_report(&demo->cluster, rank);
    if (demo->workers[rank].finished) {
        return true;
    }
    char what[64];
    cluster_describe(&demo->cluster, rank, what, sizeof what);
    return console_fail("worker-%zu %s before it had finished", rank, what);
}

/* What has come from one worker, line by line. */
static bool read_reports(struct demo *demo, size_t rank)
{
    struct worker *worker = &demo->workers[rank];
    ssize_t got = read(demo->cluster.reports[rank], worker->line + worker->length,
                       sizeof worker->line - worker->length);
    if (got < 0) {
        return errno == EINTR ||
               console_fail("cannot read from worker-%zu: %s", rank, strerror(errno));
    }
    if (got == 0) {
        return on_closed(demo, rank);
    }
    worker->length += (size_t)got;
    size_t from = 0;
    for (char *end;
         (end = memchr(worker->line + from, '\n', worker->length - from)) != NULL;) {
        *end = '\0';
        struct report report;
        if (!report_parse(worker->line + from, &report)) {
            return console_fail("worker-%zu reports \"%s\"", rank, worker->line + from);
        }
        from = (size_t)(end - worker->line) + 1;
        if (!on_report(demo, rank, &report)) {
            return false;
        }
    }
    worker->length -= from;
    memmove(worker->line, worker->line + from, worker->length);
    return worker->length < sizeof worker->line ||
           console_fail("worker-%zu reports a line without an end", rank);
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100 * (double)part / (double)whole : 0;
}

/* The pace of the last second or so, as steps and bytes may come in bursts. */
static void measure_pace(struct demo *demo)
{
    double now = console_seconds();
    if (demo->paced_at <= 0) {
        demo->paced_at = demo->began;
    } else if (now < demo->paced_at + 1) {
        return;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < demo->settings.workers; i++) {
        bytes += demo->workers[i].last.sent + demo->workers[i].last.received;
    }
    double passed = now - demo->paced_at;
    demo->steps_a_second = (double)(demo->curve.complete - demo->paced_step) / passed;
    demo->bytes_a_second = (double)(bytes - demo->paced_bytes) / passed;
    demo->paced_at = now;
    demo->paced_step = demo->curve.complete;
    demo->paced_bytes = bytes;
}

static void show_progress(struct demo *demo, size_t working)
{
    /* At the very first, a pace would be noise. */
    if (demo->began <= 0 || console_seconds() < demo->began + 0.5 ||
        !console_wants_progress()) {
        return;
    }
    measure_pace(demo);
    console_progress("step %zu of %zu   loss %.4f   accuracy %.1f %%   %.0f steps/s   "
                     "%.1f MB/s   %zu workers",
                     demo->curve.complete, demo->curve.steps, curve_loss(&demo->curve),
                     percent(demo->correct, demo->first.held_out), demo->steps_a_second,
                     demo->bytes_a_second / 1e6, working);
}

/* Until all workers have said what they had to say, or something goes wrong. */
static bool follow(struct demo *demo)
{
    size_t workers = demo->settings.workers, working = workers;
    while (working > 0) {
        struct pollfd wait[CLUSTER_WORKERS_MAX + 1];
        for (size_t i = 0; i < workers; i++) {
            wait[i] = (struct pollfd){ demo->cluster.reports[i], POLLIN, 0 };
        }
        wait[workers] = (struct pollfd){ demo->cluster.signals, POLLIN, 0 };
        if (poll(wait, (nfds_t)(workers + 1), 100) < 0 && errno != EINTR) {
            return console_fail("cannot wait: %s", strerror(errno));
        }
        if (cluster_interrupted(&demo->cluster)) {
            return false;
        }
        for (size_t i = 0; i < workers; i++) {
            if (wait[i].revents != 0 && !read_reports(demo, i)) {
                return false;
            }
            working -= wait[i].fd >= 0 && demo->cluster.reports[i] < 0;
        }
        show_progress(demo, working);
    }
    return true;
}

/* ---------------------------------------------------------------- what came of it */

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
        printf("  worker-%-5zu %8" PRIu64 " %8" PRIu64 " %9.1f MB %9.1f MB\n", i,
               worker->last.images, worker->rounds, (double)worker->last.sent / 1e6,
               (double)worker->last.received / 1e6);
    }
    printf("  %-12s %8" PRIu64 " %8zu %9.1f MB %9.1f MB\n\n", "together", images,
           demo->curve.complete, (double)sent / 1e6, (double)received / 1e6);

    double took = demo->ended - demo->began;
    printf("  model        %s, %" PRIu64 " parameters\n", demo->settings.data,
           demo->first.parameters);
    printf("  optimizer    %s\n", demo->first.text);
    printf("  loss         %.4f at first, %.4f in the last epoch\n",
           curve_first_loss(&demo->curve), curve_loss(&demo->curve));
    printf("  accuracy     %.2f %%, %" PRIu64 " of %" PRIu64 " held-out images\n",
           percent(demo->correct, demo->first.held_out), demo->correct,
           demo->first.held_out);
    printf("  time         %.1f s, %.0f steps/s\n", took,
           took > 0 ? (double)demo->curve.complete / took : 0);
    printf("  weights      %016" PRIx64 ", the same at every worker\n",
           demo->workers[0].last.fingerprint);
}

static void draw(const struct demo *demo)
{
    char title[128], subtitle[96 + 1], why[CLUSTER_PATH_MAX + 64];
    snprintf(title, sizeof title, "%s, %" PRIu64 " workers", demo->settings.data,
             demo->settings.workers);
    snprintf(subtitle, sizeof subtitle, "%.96s", demo->first.text);
    if (curve_draw(&demo->curve, demo->settings.out, title, subtitle, why,
                   sizeof why)) {
        printf("  loss curve   %s/loss.svg\n", demo->settings.out);
    } else {
        printf("  loss curve   not drawn: %s\n", why);
    }
    fflush(stdout);
}

/* Of a run in which nothing broke. */
static bool judge(const struct demo *demo)
{
    for (size_t i = 1; i < demo->settings.workers; i++) {
        if (demo->workers[i].last.fingerprint != demo->workers[0].last.fingerprint) {
            return console_fail("worker-%zu ended with other weights than worker-0", i);
        }
    }
    print_table(demo);
    draw(demo);
    return demo->correct * 100 >= demo->floor * demo->first.held_out ||
           console_fail("the accuracy is below %" PRIu64 " %%", demo->floor);
}

/* ---------------------------------------------------------------- the command line */

static enum options_outcome parse_settings(int argc, char **argv, struct demo *demo)
{
    struct cluster_settings *s = &demo->settings;
    demo->floor = UINT64_MAX;
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &s->daemon },
        { "worker", "FILE", "the demo's worker (build/client/examples/worker)",
          .text = &s->worker },
        { "out", "DIR", "where log and loss curve go (build/demo)", .text = &s->out },
        { "workers", "N", "how many (4)", .number = &s->workers, .least = 1,
          .most = CLUSTER_WORKERS_MAX },
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
          .number = &demo->floor, .most = 100 },
    };
    enum options_outcome outcome =
        options_parse("demo", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (demo->floor == UINT64_MAX) {
        demo->floor = strcmp(s->data, "fashion") == 0 ? 88 : 96;
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
    enum options_outcome outcome = parse_settings(argc, argv, &demo);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    if (mkdir(demo.settings.out, 0755) != 0 && errno != EEXIST) {
        console_fail("cannot make %s: %s", demo.settings.out, strerror(errno));
        return EXIT_FAILURE;
    }
    signal(SIGPIPE,
           SIG_IGN); /* a reader that goes must not keep us from stopping all */

    printf("optimd demo: %" PRIu64 " workers learn %s\n", demo.settings.workers,
           demo.settings.data);
    fflush(stdout);
    bool ok = cluster_start(&demo.cluster, &demo.settings) && follow(&demo);
    console_clear();
    ok = cluster_stop(&demo.cluster, ok) && judge(&demo);
    curve_fini(&demo.curve);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
