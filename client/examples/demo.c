/* demo — one optimd, a few workers, one training run: what `make demo` runs.
 *
 * Has the run done (training.h), and prints and draws what came of it. Succeeds if all
 * went well and the network got as good as it must. One thread; the programs it starts
 * end with it, whatever ends it.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "console.h"
#include "curve.h"
#include "folder.h"
#include "options.h"
#include "training.h"

struct demo {
    struct cluster_settings settings;
    uint64_t floor; /* accuracy in per cent that is good enough */
    struct training training;
};

static void print_table(const struct training *training, uint64_t floor)
{
    uint64_t images = 0, sent = 0, received = 0;
    printf("  %-12s %8s %8s %12s %12s\n", "worker", "images", "rounds", "pushed",
           "pulled");
    for (size_t i = 0; i < training->settings->workers; i++) {
        const struct training_worker *worker = &training->workers[i];
        images += worker->last.images;
        sent += worker->last.sent;
        received += worker->last.received;
        printf("  worker-%-5zu %8" PRIu64 " %8" PRIu64 " %9.1f MB %9.1f MB\n", i,
               worker->last.images, worker->rounds, (double)worker->last.sent / 1e6,
               (double)worker->last.received / 1e6);
    }
    printf("  %-12s %8" PRIu64 " %8zu %9.1f MB %9.1f MB\n\n", "together", images,
           training->curve.complete, (double)sent / 1e6, (double)received / 1e6);

    double took = training->ended - training->began;
    printf("  model        %s, %" PRIu64 " parameters\n", training->settings->data,
           training->first.parameters);
    printf("  optimizer    %s\n", training->first.text);
    printf("  loss         %.4f at first, %.4f in the last epoch\n",
           curve_first_loss(&training->curve), curve_loss(&training->curve));
    printf("  accuracy     %.2f %%, %" PRIu64 " of %" PRIu64 " held-out images\n",
           training_accuracy(training), training->correct, training->first.held_out);
    if (floor > 0) {
        printf("  asked for    %" PRIu64 " %%\n", floor);
    } else {
        printf(
            "  asked for    nothing in a run of your own; FLOOR=90 asks for 90 %%\n");
    }
    printf("  time         %.1f s, %.0f steps/s\n", took,
           took > 0 ? (double)training->curve.complete / took : 0);
    printf("  weights      %016" PRIx64 ", the same at every worker\n",
           training->workers[0].last.fingerprint);
}

static void draw(const struct training *training)
{
    char title[128], subtitle[96 + 1], why[FOLDER_PATH_MAX + 64];
    snprintf(title, sizeof title, "%s, %" PRIu64 " workers", training->settings->data,
             training->settings->workers);
    snprintf(subtitle, sizeof subtitle, "%.96s", training->first.text);
    if (curve_draw(&training->curve, training->settings->out, title, subtitle, why,
                   sizeof why)) {
        printf("  loss curve   %s/loss.svg\n", training->settings->out);
    } else {
        printf("  loss curve   not drawn: %s\n", why);
    }
    fflush(stdout);
}

/* Of a run in which nothing broke. */
static bool judge(const struct demo *demo)
{
    print_table(&demo->training, demo->floor);
    draw(&demo->training);
    return training_judge(&demo->training, demo->floor, "");
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
          "per cent of held-out images to get right (96, fashion 88; with epochs, "
          "batch "
          "or optimizer given 0)",
          .number = &demo->floor, .most = 100 },
    };
    enum options_outcome outcome =
        options_parse("demo", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (demo->floor == UINT64_MAX) {
        demo->floor = training_goal(s);
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
    console_open("demo");
    enum options_outcome outcome = parse_settings(argc, argv, &demo);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    if (!folder_make(demo.settings.out)) {
        return EXIT_FAILURE;
    }
    /* A reader that goes must not keep us from stopping everything. */
    signal(SIGPIPE, SIG_IGN);

    printf("optimd demo: %" PRIu64 " workers learn %s\n", demo.settings.workers,
           demo.settings.data);
    fflush(stdout);
    bool ok = training_run(&demo.training, &demo.settings, false) && judge(&demo);
    training_fini(&demo.training);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
