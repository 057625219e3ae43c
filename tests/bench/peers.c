/* peers — updates against those of PyTorch, where it is installed.
 *
 * The same number of parameters and threads, by turns. PyTorch has two forms of every
 * optimizer, tensor by tensor and all tensors at once; the faster one of the two in a
 * first try is the reference.
 */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"
#include "tests/bench/process.h"

enum {
    PARAMETERS = 100 * 1000 * 1000,
    SAMPLE = 8 * 1000 * 1000,
    TENSORS = 160, /* PyTorch's, as a model has them */
    TRIES = 3,
    WAIT_MS = 120 * 1000
};

static const char script[] = "tests/bench/torch_step.py";

struct torch {
    pid_t pid;
    FILE *orders, *answers;
    size_t parameters;
    const char *rule, *form;
    int threads;
};

/* ---------------------------------------------------------------- its process */

struct ends {
    int orders[2], answers[2];
    size_t parameters;
};

static int torch_body(void *context)
{
    const struct ends *ends = context;
    char parameters[24], tensors[24];
    snprintf(parameters, sizeof parameters, "%zu", ends->parameters);
    snprintf(tensors, sizeof tensors, "%d", TENSORS);
    if (dup2(ends->orders[0], STDIN_FILENO) < 0 ||
        dup2(ends->answers[1], STDOUT_FILENO) < 0) {
        return 1;
    }
    close(ends->orders[1]);
    close(ends->answers[0]);
    execl("/usr/bin/python3", "python3", script, parameters, tensors, (char *)NULL);
    return 1;
}

static void torch_stop(struct torch *torch)
{
    if (torch->orders != NULL) {
        fclose(torch->orders);
    }
    if (torch->answers != NULL) {
        fclose(torch->answers);
    }
    process_kill(torch->pid);
}

/* Its next line, or false if it ends or takes too long. */
static bool hear(struct torch *torch, char line[64])
{
    struct pollfd waiting = { fileno(torch->answers), POLLIN, 0 };
    return poll(&waiting, 1, WAIT_MS) == 1 && fgets(line, 64, torch->answers) != NULL;
}

/* False: it is not installed for the system's Python, or there is none. */
static bool torch_start(struct torch *torch, char version[64])
{
    struct ends ends = { .parameters = torch->parameters };
    if (pipe(ends.orders) != 0) {
        return false;
    }
    if (pipe(ends.answers) != 0) {
        close(ends.orders[0]);
        close(ends.orders[1]);
        return false;
    }
    torch->pid = process_fork(torch_body, &ends);
    close(ends.orders[0]);
    close(ends.answers[1]);
    torch->orders = fdopen(ends.orders[1], "w");
    torch->answers = fdopen(ends.answers[0], "r");
    if (torch->pid < 0 || torch->orders == NULL || torch->answers == NULL ||
        !hear(torch, version)) {
        return false;
    }
    version[strcspn(version, "\n")] = '\0';
    return strncmp(version, "torch ", 6) == 0;
}

/* ---------------------------------------------------------------- contests */

static bool torch_time(void *context, double *values, char problem[256])
{
    struct torch *torch = context;
    char line[64];
    fprintf(torch->orders, "%s %s %d\n", torch->rule, torch->form, torch->threads);
    fflush(torch->orders);
    if (!hear(torch, line)) {
        snprintf(problem, 256, "PyTorch did not answer");
        return false;
    }
    values[0] = strtod(line, NULL) / (double)torch->parameters * 1e9;
    return true;
}

/* The faster of the two forms, by the best of some steps; the first of each only makes
 * its state. */
static bool choose_form(struct torch *torch, char problem[256])
{
    static const char *const forms[] = { "single", "foreach" };
    double best[2] = { INFINITY, INFINITY };
    for (int step = 0; step <= TRIES; step++) {
        for (int i = 0; i < 2; i++) {
            double time;
            torch->form = forms[i];
            if (!torch_time(torch, &time, problem)) {
                return false;
            }
            best[i] = step > 0 && time < best[i] ? time : best[i];
        }
    }
    torch->form = best[0] <= best[1] ? forms[0] : forms[1];
    return true;
}

static void measure(const struct bench *bench, struct torch *torch, double goal)
{
    struct kernel_run run;
    char problem[256] = "", name[96], reference[64];
    if (!kernel_run_init(&run, torch->rule, torch->parameters, 1, problem) ||
        !choose_form(torch, problem)) {
        report_failure(bench->report, "%s: %s", torch->rule, problem);
        kernel_run_fini(&run);
        return;
    }
    run.threads = torch->threads;
    snprintf(reference, sizeof reference, "torch, %s", torch->form);
    snprintf(name, sizeof name, "%s / %s, %d thread%s", torch->rule, reference,
             torch->threads, torch->threads == 1 ? "" : "s");
    struct report_quantity quantity = { .name = "",
                                        .unit = "ns/param",
                                        .better = REPORT_LESS,
                                        .goal = bench->quick ? 0 : goal };
    struct comparison comparison = { .name = name,
                                     .reference = reference,
                                     .quantities = &quantity,
                                     .quantity_count = 1,
                                     .ours = { kernel_run_time, &run },
                                     .theirs = { torch_time, torch } };
    compare(bench->report, &comparison, &bench->effort);
    kernel_run_fini(&run);
}

void bench_peers(const struct bench *bench)
{
    struct torch torch = { .pid = -1,
                           .parameters = bench->quick ? SAMPLE : PARAMETERS };
    char version[64] = "";
    int cores = bench->quick ? 1 : machine_cores();
    if (!torch_start(&torch, version)) {
        report_fact(bench->report, "PyTorch", "not installed, so not compared with");
    } else {
        report_fact(bench->report, "PyTorch", "%s", version + 6);
        for (int rule = 0; rule < 2; rule++) {
            torch.rule = rule == 0 ? "adam" : "momentum";
            for (torch.threads = 1; torch.threads <= cores;
                 torch.threads += cores > 1 ? cores - 1 : 1) {
                measure(bench, &torch, rule == 0 ? 0.60 : 0.95);
            }
        }
    }
    torch_stop(&torch);
}
