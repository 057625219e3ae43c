/* demo_local — the demo twice, in step and in local steps: `make demo MODE=local K=8`.
 *
 * The same data, first weights, shuffles and number of steps; first every step is a
 * round of all workers, then only every K-th. Prints side by side what that saves and
 * what it costs. Succeeds if both got as good as they must. One thread; what it starts
 * ends with it.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "console.h"
#include "folder.h"
#include "options.h"
#include "training.h"

enum { LOCAL = 8 /* local steps, if nobody says */ };

struct comparison {
    struct cluster_settings in_step, local; /* the same but for the local steps */
    uint64_t floor; /* accuracy in per cent that is good enough */
    struct training runs[2];
};

static double moved(const struct training *training)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < training->settings->workers; i++) {
        bytes += training->workers[i].last.sent + training->workers[i].last.received;
    }
    return (double)bytes;
}

static double seconds_of(const struct training *training)
{
    return training->ended - training->began;
}

static double pace(const struct training *training)
{
    double took = seconds_of(training);
    return took > 0 ? (double)training->curve.complete / took : 0;
}

static void print_row(const char *what, int digits, const char *unit, double in_step,
                      double local)
{
    printf("  %-18s %10.*f %-2s %12.*f%s%s\n", what, digits, in_step, unit, digits,
           local, unit[0] != '\0' ? " " : "", unit);
}

static void print_comparison(const struct comparison *comparison)
{
    const struct training *a = &comparison->runs[0], *b = &comparison->runs[1];
    double kB = 1e3 * (double)a->curve.complete;
    printf("  %-18s %10s %15s\n", "", "in step", "local");
    print_row("accuracy", 2, "%", training_accuracy(a), training_accuracy(b));
    print_row("loss, last epoch", 4, "", curve_loss(&a->curve), curve_loss(&b->curve));
    print_row("moved", 1, "MB", moved(a) / 1e6, moved(b) / 1e6);
    print_row("moved, each step", 1, "kB", moved(a) / kB, moved(b) / kB);
    print_row("steps/s", 0, "", pace(a), pace(b));
    print_row("time", 1, "s", seconds_of(a), seconds_of(b));
    printf("\n  model        %s, %" PRIu64 " parameters, %zu steps\n",
           comparison->in_step.data, a->first.parameters, a->curve.complete);
    printf("  in step      %s\n", a->first.text);
    printf("  local        %s\n", b->first.text);
    printf("  traffic      %.1f times less, worker-0's evaluations included\n",
           moved(a) / moved(b));
    fflush(stdout);
}

static bool judge(const struct comparison *comparison)
{
    print_comparison(comparison);
    bool in_step = training_judge(&comparison->runs[0], comparison->floor, " in step");
    return training_judge(&comparison->runs[1], comparison->floor,
                          " with local steps") &&
           in_step;
}

/* ---------------------------------------------------------------- the command line */

static enum options_outcome parse_settings(int argc, char **argv,
                                           struct comparison *comparison)
{
    struct cluster_settings *s = &comparison->local;
    comparison->floor = UINT64_MAX;
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &s->daemon },
        { "worker", "FILE", "the demo's worker (build/client/examples/worker)",
          .text = &s->worker },
        { "out", "DIR", "where the daemon's log goes (build/demo)", .text = &s->out },
        { "local", "K", "local steps from one synchronisation to the next (8)",
          .number = &s->local, .least = 1, .most = 1000000 },
        { "outer", "EXPR", "what is made of K local steps (sgd(lr=1), their average)",
          .text = &s->outer },
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
          "batch, optimizer, local or outer given 0)",
          .number = &comparison->floor, .most = 100 },
    };
    enum options_outcome outcome =
        options_parse("demo-local", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (comparison->floor == UINT64_MAX) {
        bool as_it_comes = s->local == LOCAL && s->outer == NULL;
        comparison->floor = as_it_comes ? training_goal(s) : 0;
    }
    comparison->in_step = *s;
    comparison->in_step.local = 0;
    return outcome;
}

int main(int argc, char **argv)
{
    static struct comparison comparison = {
        .local = { .daemon = "build/optimd",
                   .worker = "build/client/examples/worker",
                   .out = "build/demo",
                   .data = "digits",
                   .local = LOCAL,
                   .workers = 4,
                   .seed = 1 }
    };
    console_open("demo-local");
    enum options_outcome outcome = parse_settings(argc, argv, &comparison);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    if (!folder_make(comparison.local.out)) {
        return EXIT_FAILURE;
    }
    /* A reader that goes must not keep us from stopping everything. */
    signal(SIGPIPE, SIG_IGN);

    printf("optimd demo: %" PRIu64 " workers learn %s, in step and then with %" PRIu64
           " local steps\n",
           comparison.local.workers, comparison.local.data, comparison.local.local);
    fflush(stdout);
    bool ok = training_run(&comparison.runs[0], &comparison.in_step, false) &&
              training_run(&comparison.runs[1], &comparison.local, false) &&
              judge(&comparison);
    training_fini(&comparison.runs[0]);
    training_fini(&comparison.runs[1]);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
