/* demo — the program behind `make demo`: that it trains, and that it never leaves a
 * process or a file behind, however it ends. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "client/examples/demo_presets.h"
#include "client/examples/optimizers.h"
#include "common/optim/rule.h"
#include "tests/support/example.h"

TestSuite(demo, .init = example_make_folder, .fini = example_remove_folder,
          .timeout = 120);

/* Start the demo with these arguments besides those that every run has. */
static void start(const char *const *more)
{
    const char *arguments[16] = { "--worker", example_built("client/examples/worker") };
    for (size_t n = 2; *more != NULL && n < 15; n++) {
        arguments[n] = *more++;
    }
    example_start("demo", arguments);
}

/* The text after these words up to the end of the line; the test's to free. */
static char *line_after(const char *words)
{
    const char *at = strstr(example.text, words);
    cr_assert_not_null(at, "no \"%s\" in:\n%s", words, example.text);
    at += strlen(words);
    return strndup(at, strcspn(at, "\n"));
}

/* Longer than any test waits: it has to be ended. */
static const char *const endless[] = { "--epochs", "100000", NULL };

/* A child of the demo by the name of its program. */
static pid_t child_of_demo(const char *name)
{
    DIR *processes = opendir("/proc");
    cr_assert_not_null(processes);
    pid_t found = 0;
    for (struct dirent *entry; found == 0 && (entry = readdir(processes)) != NULL;) {
        char path[300], line[512] = "";
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) {
            continue;
        }
        /* pid (name) state parent ... */
        char *open = fgets(line, sizeof line, file) ? strchr(line, '(') : NULL;
        char *close = open ? strrchr(open, ')') : NULL;
        if (close != NULL && strlen(close) > 4) {
            *close = '\0';
            if (strtol(close + 4, NULL, 10) == example.pid &&
                strcmp(open + 1, name) == 0) {
                found = (pid_t)strtol(line, NULL, 10);
            }
        }
        fclose(file);
    }
    closedir(processes);
    cr_assert_neq(found, 0, "the demo has no child named %s", name);
    return found;
}

/* ---------------------------------------------------------------- the run itself */

Test(demo, trains_and_leaves_only_what_it_says)
{
    start((const char *const[]){ "--workers", "3", "--epochs", "20", "--floor", "90",
                                 NULL });
    example_expect(0, "17226 parameters");
    example_expect_no_process();
    cr_assert_not_null(strstr(example.text, "together"), "%s", example.text);
    cr_assert_eq(example_count_files("data-"), 0);
    cr_assert_eq(example_count_files("optimd.log"), 1);
    if (strstr(example.text, "gnuplot is not installed") == NULL) {
        cr_assert_eq(example_count_files("loss.svg"), 1, "%s", example.text);
    }
}

Test(demo, gives_the_same_weights_for_the_same_seed)
{
    static const char *const seeds[] = { "7", "7", "8" };
    char *weights[3];
    for (size_t i = 0; i < 3; i++) {
        start((const char *const[]){ "--workers", "2", "--epochs", "2", "--floor", "0",
                                     "--seed", seeds[i], NULL });
        example_expect(0, "weights");
        weights[i] = line_after("weights");
    }
    cr_assert_str_eq(weights[0], weights[1]);
    cr_assert_str_neq(weights[0], weights[2]);
    for (size_t i = 0; i < 3; i++) {
        free(weights[i]);
    }
}

Test(demo, ends_with_the_same_weights_though_the_daemon_is_killed)
{
    const char *const worker = example_built("client/examples/worker");
    example_start("demo-kill",
                  (const char *const[]){ "--worker", worker, "--workers", "3",
                                         "--epochs", "30", "--kills", "3",
                                         "--optimizer", "ranger(lr=0.01)", NULL });
    example_expect(0, "equal to those of the undisturbed run");
    cr_assert_not_null(strstr(example.text, "killed       3 times"), "%s",
                       example.text);
    example_expect_no_process();
    cr_assert_eq(example_count_files("data-"), 0);
}

Test(demo, takes_any_optimizer)
{
    start((const char *const[]){ "--workers", "2", "--epochs", "3", "--floor", "30",
                                 "--optimizer",
                                 "lamb(lr=0.02) + lookahead(k=5, alpha=0.5)", NULL });
    example_expect(0, "lookahead");
    example_expect_no_process();
}

Test(demo, fails_below_the_floor)
{
    start((const char *const[]){ "--workers", "1", "--epochs", "1", "--floor", "100",
                                 NULL });
    example_expect(1, "the accuracy is below the 100 % that are asked for");
    example_expect_no_process();
}

/* Nobody knows what two epochs, or another optimizer, should come to. */
Test(demo, asks_for_nothing_in_a_run_that_was_chosen)
{
    static const char *const chosen[][2] = { { "--epochs", "2" },
                                             { "--optimizer", "sgd(lr=1e-6)" } };
    for (size_t i = 0; i < sizeof chosen / sizeof chosen[0]; i++) {
        start((const char *const[]){ "--workers", "1", chosen[i][0], chosen[i][1],
                                     NULL });
        example_expect(0, "asked for    nothing");
        example_expect_no_process();
    }
}

Test(demo, asks_for_its_usual_accuracy_in_the_run_as_it_comes)
{
    start((const char *const[]){ "--workers", "1", NULL });
    example_expect(0, "asked for    96 %");
}

static void expect_lines_below(size_t columns)
{
    const char *line = example.text;
    for (size_t length; (length = strcspn(line, "\n")) > 0 || *line != '\0';
         line += length + (line[length] == '\n')) {
        cr_assert_lt(length, columns, "%.*s", (int)length, line);
    }
}

Test(demo, tells_of_no_accuracy_before_it_has_evaluated)
{
    /* An epoch of as many steps as there are images. */
    start((const char *const[]){ "--workers", "1", "--epochs", "1", "--batch", "1",
                                 NULL });
    example_expect(0, "held-out images");
    cr_assert_null(strstr(example.text, "accuracy 0.0 %"), "%s", example.text);
    expect_lines_below(80);
}

/* ---------------------------------------------------------------- ends of all kinds */

static void expect_end_by(int signal)
{
    start(endless);
    example_read_until("step ");
    cr_assert_eq(kill(example.pid, signal), 0);
    example_expect(1, "interrupted");
    example_expect_no_process();
    cr_assert_eq(example_count_files("data-"), 0);
}

Test(demo, stops_everything_on_control_c)
{
    expect_end_by(SIGINT);
}

Test(demo, stops_everything_when_it_is_terminated)
{
    expect_end_by(SIGTERM);
}

Test(demo, takes_everything_along_when_it_is_killed)
{
    start(endless);
    example_read_until("step ");
    cr_assert_eq(kill(example.pid, SIGKILL), 0);
    /* What it had started is now this test's to wait for: it must end by itself. */
    size_t ended = 0;
    while (waitpid(-1, NULL, 0) > 0) {
        ended++;
    }
    cr_assert_eq(errno, ECHILD);
    cr_assert_eq(ended, 1 + 1 + 4, "%zu processes instead of demo, optimd, 4 workers",
                 ended);
}

Test(demo, stops_everything_when_a_worker_dies)
{
    start(endless);
    example_read_until("step ");
    cr_assert_eq(kill(child_of_demo("worker"), SIGKILL), 0);
    example_expect(1, "was killed by signal 9");
    example_expect_no_process();
}

Test(demo, stops_everything_when_the_daemon_dies)
{
    start(endless);
    example_read_until("step ");
    cr_assert_eq(kill(child_of_demo("optimd"), SIGKILL), 0);
    example_expect(1, "optimd was killed by signal 9");
    example_expect_no_process();
}

Test(demo, passes_on_what_a_worker_has_to_complain_about)
{
    start((const char *const[]){ "--optimizer", "adamm(lr=1)", NULL });
    example_expect(1, "INVALID_ARGUMENT");
    cr_assert_not_null(strstr(example.text, "adamm"), "%s", example.text);
    example_expect_no_process();

    start(
        (const char *const[]){ "--data", "fashion", "--data-dir", example.out, NULL });
    example_expect(1, "train-images-idx3-ubyte.gz");
    example_expect_no_process();
}

Test(demo, says_what_it_cannot_start)
{
    start((const char *const[]){ "--daemon", "/nowhere/optimd", NULL });
    example_expect(1, "optimd ended with status 127");
    example_expect_no_process();

    start((const char *const[]){ "--worker", "/nowhere/worker", NULL });
    example_expect(1, "ended with status 127");
    example_expect_no_process();
}

Test(demo, refuses_options_that_mean_nothing)
{
    static const char *const wrong[][3] = {
        { "--workers", "0", "no whole number from 1 to 64" },
        { "--workers", "2x", "no whole number" },
        { "--workers", "-1", "no whole number" },
        { "--floor", "101", "no whole number from 0 to 100" },
        { "--color", "red", "unrecognized option" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        start((const char *const[]){ wrong[i][0], wrong[i][1], NULL });
        example_expect(64, wrong[i][2]);
    }
}

/* ---------------------------------------------------------------- all optimizers */

TestSuite(demo_all, .init = example_make_folder, .fini = example_remove_folder,
          .timeout = 120);

Test(demo_all, has_a_rate_for_every_rule_and_preset)
{
    for (size_t i = 0; i < optimizers_count(); i++) {
        const struct demo_preset preset = demo_preset(optimizers_name(i));
        cr_assert_str_eq(preset.name, optimizers_name(i));
        cr_assert_gt(preset.lr, 0, "%s", preset.name);
    }
    cr_assert_gt(demo_preset("new").lr, 0, "a new rule needs no row");
}

Test(demo_all, has_rates_for_nothing_that_there_is_not)
{
    size_t rates;
    const struct demo_preset *preset = demo_presets_table(&rates);
    for (size_t i = 0; i < rates; i++) {
        cr_assert(opt_rule_find(preset[i].name) != NULL ||
                      opt_preset_find(preset[i].name) != NULL,
                  "%s", preset[i].name);
        cr_assert_neq(preset[i].why[0], '\0', "%s", preset[i].name);
    }
}

Test(demo_all, stops_everything_on_control_c)
{
    const char *const worker[] = { "--worker", example_built("client/examples/worker"),
                                   NULL };
    example_start("demo-all", worker);
    example_read_until("sgd(");
    cr_assert_eq(kill(example.pid, SIGINT), 0);
    example_expect(1, "interrupted");
    example_expect_no_process();
    cr_assert_eq(example_count_files("data-"), 0);
}
