/* demo_kill — the demo twice, undisturbed and with the daemon killed in the middle:
 * `make demo KILL=1`.
 *
 * The same data, first weights, shuffles and number of steps. In the second run the
 * daemon is killed as kill -9 does, twice, and started again with what it has kept; the
 * workers wait for it, and go on. Succeeds if both runs end with the same weights, bit
 * for bit. One thread; what it starts ends with it.
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

struct comparison {
    struct cluster_settings undisturbed, killed; /* the same but for the kills */
    struct training runs[2];
};

static void print_run(const char *what, const struct training *training)
{
    printf("  %-14s %9.2f %% %10zu %10.1f s   %016" PRIx64 "\n", what,
           training_accuracy(training), training->curve.complete,
           training->ended - training->began, training->workers[0].last.fingerprint);
}

static bool judge(const struct comparison *comparison)
{
    const struct training *a = &comparison->runs[0], *b = &comparison->runs[1];
    uint64_t was = a->workers[0].last.fingerprint, is = b->workers[0].last.fingerprint;
    printf("  %-14s %11s %10s %12s   %s\n", "", "accuracy", "steps", "time", "weights");
    print_run("undisturbed", a);
    print_run("killed", b);
    printf("\n  optimizer    %s\n", a->first.text);
    printf("  killed       %" PRIu64
           " times, with kill -9, in the middle of training\n",
           b->kills);
    if (b->kills != b->settings->kills) {
        return console_fail("the daemon was to be killed %" PRIu64 " times",
                            b->settings->kills);
    }
    if (was != is) {
        return console_fail("the weights of the second run are others: %016" PRIx64
                            ", not %016" PRIx64,
                            is, was);
    }
    printf("  weights      %016" PRIx64 ", equal to those of the undisturbed run\n",
           is);
    fflush(stdout);
    return true;
}

/* ---------------------------------------------------------------- the command line */

static enum options_outcome parse_settings(int argc, char **argv,
                                           struct comparison *comparison)
{
    struct cluster_settings *s = &comparison->killed;
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &s->daemon },
        { "worker", "FILE", "the demo's worker (build/client/examples/worker)",
          .text = &s->worker },
        { "out", "DIR", "where the daemon's log goes (build/demo)", .text = &s->out },
        { "kills", "N", "how often the daemon is killed (2)", .number = &s->kills,
          .least = 1, .most = 100 },
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
    };
    enum options_outcome outcome =
        options_parse("demo-kill", rows, sizeof rows / sizeof rows[0], argc, argv);
    comparison->undisturbed = *s;
    comparison->undisturbed.kills = 0;
    return outcome;
}

int main(int argc, char **argv)
{
    static struct comparison comparison = {
        .killed = { .daemon = "build/optimd",
                    .worker = "build/client/examples/worker",
                    .out = "build/demo",
                    .data = "digits",
                    .kills = 2,
                    .workers = 4,
                    .seed = 1 }
    };
    console_open("demo-kill");
    enum options_outcome outcome = parse_settings(argc, argv, &comparison);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    if (!folder_make(comparison.killed.out)) {
        return EXIT_FAILURE;
    }
    /* A reader that goes must not keep us from stopping everything. */
    signal(SIGPIPE, SIG_IGN);

    printf("optimd demo: %" PRIu64 " workers learn %s, and then the daemon is killed "
           "%" PRIu64 " times\n",
           comparison.killed.workers, comparison.killed.data, comparison.killed.kills);
    fflush(stdout);
    bool ok = training_run(&comparison.runs[0], &comparison.undisturbed, false) &&
              training_run(&comparison.runs[1], &comparison.killed, false) &&
              judge(&comparison);
    training_fini(&comparison.runs[0]);
    training_fini(&comparison.runs[1]);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
