/* demo_all — the demo with every optimizer, one after the other: `make demo-all`.
 *
 * Each learns the same digits from the same first weights, in the same shuffles, for
 * the same number of epochs; demo_presets.c says at which learning rate. Succeeds if
 * every one of them got as good as it must. One thread; what it starts ends with it.
 */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "console.h"
#include "demo_presets.h"
#include "folder.h"
#include "optimizers.h"
#include "options.h"
#include "training.h"

enum { EARLY = 95 /* per cent, to which the steps are counted */ };

struct all {
    struct cluster_settings settings;
    uint64_t floor; /* accuracy in per cent that is good enough */
    size_t below;   /* presets that did not reach it */
    struct training training;
};

static void print_row(const struct all *all, const char *preset,
                      const char *specification)
{
    const struct training *training = &all->training;
    char early[24] = "never";
    uint64_t step = training_steps_to(training, EARLY);
    if (step > 0) {
        snprintf(early, sizeof early, "%" PRIu64, step);
    }
    bool enough = training_accuracy(training) >= (double)all->floor;
    printf("  %-11s %-33s %7s %7.2f %% %5.1f s%s\n", preset, specification, early,
           training_accuracy(training), training->ended - training->began,
           enough ? "" : "  low");
    fflush(stdout);
}

static bool run_all(struct all *all)
{
    size_t count = optimizers_count();
    for (size_t i = 0; i < count; i++) {
        const struct demo_preset preset = demo_preset(optimizers_name(i));
        char specification[DEMO_SPECIFICATION_MAX];
        demo_preset_print(&preset, specification);
        all->settings.optimizer = specification;
        bool ran = training_run(&all->training, &all->settings, true);
        if (ran) {
            assert(all->training.curve.steps == DEMO_STEPS);
            print_row(all, preset.name, specification);
            all->below += training_accuracy(&all->training) < (double)all->floor;
        }
        training_fini(&all->training);
        if (!ran) {
            return console_fail("that was with %s", specification);
        }
    }
    return all->below == 0 || console_fail("%zu of %zu are below %" PRIu64 " %%",
                                           all->below, count, all->floor);
}

static enum options_outcome parse_settings(int argc, char **argv, struct all *all)
{
    struct cluster_settings *s = &all->settings;
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &s->daemon },
        { "worker", "FILE", "the demo's worker (build/client/examples/worker)",
          .text = &s->worker },
        { "out", "DIR", "where the daemon's log goes (build/demo)", .text = &s->out },
        { "workers", "N", "how many (2)", .number = &s->workers, .least = 1,
          .most = CLUSTER_WORKERS_MAX },
        { "seed", "N", "of the first weights and the shuffles (1)", .number = &s->seed,
          .most = UINT64_MAX },
        { "floor", "N", "per cent of held-out images to get right (96)",
          .number = &all->floor, .most = 100 },
    };
    return options_parse("demo-all", rows, sizeof rows / sizeof rows[0], argc, argv);
}

int main(int argc, char **argv)
{
    static struct all all = { .settings = { .daemon = "build/optimd",
                                            .worker = "build/client/examples/worker",
                                            .out = "build/demo",
                                            .data = "digits",
                                            .workers = 2,
                                            .seed = 1,
                                            .epochs = DEMO_EPOCHS },
                              .floor = 96 };
    console_open("demo-all");
    enum options_outcome outcome = parse_settings(argc, argv, &all);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    if (!folder_make(all.settings.out)) {
        return EXIT_FAILURE;
    }
    /* A reader that goes must not keep us from stopping everything. */
    signal(SIGPIPE, SIG_IGN);

    printf("optimd demo: %" PRIu64
           " workers learn %s, %d epochs with every optimizer\n",
           all.settings.workers, all.settings.data, DEMO_EPOCHS);
    printf("  %-11s %-33s %7s %9s %7s\n", "preset", "specification", "95 % at",
           "held out", "time");
    fflush(stdout);
    return run_all(&all) ? EXIT_SUCCESS : EXIT_FAILURE;
}
