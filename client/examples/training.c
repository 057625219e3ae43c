/* training — reads what the workers report, as it comes, until all have finished.
 *
 * Called by demo.c and demo_all.c.
 */
#include "training.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "console.h"

double training_accuracy(const struct training *training)
{
    uint64_t held_out = training->first.held_out;
    return held_out > 0 ? 100 * (double)training->correct / (double)held_out : 0;
}

uint64_t training_steps_to(const struct training *training, double percent)
{
    for (size_t i = 0; i < training->curve.steps; i++) {
        if (training->curve.accuracy[i] >= percent) {
            return i + 1;
        }
    }
    return 0;
}

uint64_t training_goal(const struct cluster_settings *settings)
{
    bool as_it_comes =
        settings->epochs == 0 && settings->batch == 0 && settings->optimizer == NULL;
    if (!as_it_comes) {
        return 0;
    }
    return strcmp(settings->data, "fashion") == 0 ? 88 : 96;
}

bool training_judge(const struct training *training, uint64_t goal, const char *which)
{
    return training_accuracy(training) >= (double)goal ||
           console_fail("the accuracy%s is below the %" PRIu64
                        " %% that are asked for; --floor (FLOOR=) asks for others",
                        which, goal);
}

static bool on_started(struct training *training, const struct report *report)
{
    if (training->curve.loss != NULL) {
        return true;
    }
    training->first = *report;
    return curve_init(&training->curve, report->steps, training->settings->workers,
                      report->epoch) ||
           console_fail("no memory for %" PRIu64 " steps", report->steps);
}

static bool on_report(struct training *training, size_t rank,
                      const struct report *report)
{
    struct training_worker *worker = &training->workers[rank];
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
        return on_started(training, report);
    case REPORT_STEP:
        training->ended = console_seconds();
        training->began = training->began > 0 ? training->began : training->ended;
        worker->rounds++;
        curve_add_loss(&training->curve, report->step, report->loss);
        break;
    case REPORT_EVALUATED:
        training->correct = report->correct;
        training->evaluated = true;
        curve_add_accuracy(&training->curve, report->step, training_accuracy(training));
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
static bool on_closed(struct training *training, size_t rank)
{
    cluster_close_report(&training->cluster, rank);
    if (training->workers[rank].finished) {
        return true;
    }
    char what[64];
    cluster_describe(&training->cluster, rank, what, sizeof what);
    return console_fail("worker-%zu %s before it had finished", rank, what);
}

/* What has come from one worker, line by line. */
static bool read_reports(struct training *training, size_t rank)
{
    struct training_worker *worker = &training->workers[rank];
    ssize_t got = read(training->cluster.reports[rank], worker->line + worker->length,
                       sizeof worker->line - worker->length);
    if (got < 0) {
        return errno == EINTR ||
               console_fail("cannot read from worker-%zu: %s", rank, strerror(errno));
    }
    if (got == 0) {
        return on_closed(training, rank);
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
        if (!on_report(training, rank, &report)) {
            return false;
        }
    }
    worker->length -= from;
    memmove(worker->line, worker->line + from, worker->length);
    return worker->length < sizeof worker->line ||
           console_fail("worker-%zu reports a line without an end", rank);
}

/* The pace of the last second or so, as steps and bytes may come in bursts. */
static void measure_pace(struct training *training)
{
    double now = console_seconds();
    if (training->paced_at <= 0) {
        training->paced_at = training->began;
    } else if (now < training->paced_at + 1) {
        return;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < training->settings->workers; i++) {
        bytes += training->workers[i].last.sent + training->workers[i].last.received;
    }
    double passed = now - training->paced_at;
    training->steps_a_second =
        (double)(training->curve.complete - training->paced_step) / passed;
    training->bytes_a_second = (double)(bytes - training->paced_bytes) / passed;
    training->paced_at = now;
    training->paced_step = training->curve.complete;
    training->paced_bytes = bytes;
}

static void show_progress(struct training *training)
{
    /* At the very first, a pace would be noise. */
    if (training->quiet || training->began <= 0 ||
        console_seconds() < training->began + 0.5 || !console_wants_progress()) {
        return;
    }
    measure_pace(training);
    char accuracy[32] = "";
    if (training->evaluated) {
        snprintf(accuracy, sizeof accuracy, "   accuracy %.1f %%",
                 training_accuracy(training));
    }
    console_progress("step %zu of %zu   loss %.4f%s   %.0f steps/s   %.1f MB/s",
                     training->curve.complete, training->curve.steps,
                     curve_recent_loss(&training->curve), accuracy,
                     training->steps_a_second, training->bytes_a_second / 1e6);
}

/* Kill the daemon, if it is time for that: the training is cut into parts of equal
 * length by so many kills. */
static bool kill_in_time(struct training *training)
{
    uint64_t kills = training->settings->kills;
    if (training->kills == kills || training->curve.complete * (kills + 1) <
                                        (training->kills + 1) * training->curve.steps) {
        return true;
    }
    training->kills++;
    return cluster_kill_daemon(&training->cluster);
}

/* Until all workers have said what they had to say, or something goes wrong. */
static bool follow(struct training *training)
{
    size_t workers = training->settings->workers, working = workers;
    while (working > 0) {
        struct pollfd wait[CLUSTER_WORKERS_MAX + 1];
        for (size_t i = 0; i < workers; i++) {
            wait[i] = (struct pollfd){ training->cluster.reports[i], POLLIN, 0 };
        }
        wait[workers] = (struct pollfd){ training->cluster.signals, POLLIN, 0 };
        if (poll(wait, (nfds_t)(workers + 1), 100) < 0 && errno != EINTR) {
            return console_fail("cannot wait: %s", strerror(errno));
        }
        if (cluster_interrupted(&training->cluster)) {
            return false;
        }
        for (size_t i = 0; i < workers; i++) {
            if (wait[i].revents != 0 && !read_reports(training, i)) {
                return false;
            }
            working -= wait[i].fd >= 0 && training->cluster.reports[i] < 0;
        }
        if (training->curve.loss != NULL && !kill_in_time(training)) {
            return false;
        }
        show_progress(training);
    }
    return true;
}

static bool same_weights(const struct training *training)
{
    for (size_t i = 1; i < training->settings->workers; i++) {
        if (training->workers[i].last.fingerprint !=
            training->workers[0].last.fingerprint) {
            return console_fail("worker-%zu ended with other weights than worker-0", i);
        }
    }
    return true;
}

bool training_run(struct training *training, const struct cluster_settings *settings,
                  bool quiet)
{
    *training = (struct training){ .settings = settings, .quiet = quiet };
    bool ok = cluster_start(&training->cluster, settings) && follow(training);
    console_clear();
    return cluster_stop(&training->cluster, ok) && same_weights(training);
}

void training_fini(struct training *training)
{
    curve_fini(&training->curve);
}
