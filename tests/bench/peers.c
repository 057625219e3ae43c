/* peers — updates against those of PyTorch and DeepSpeed, where they are installed.
 *
 * The same number of parameters and threads, by turns. PyTorch has two forms of every
 * optimizer, tensor by tensor and all tensors at once; the faster one of the two in a
 * first try is the reference. DeepSpeed's Adam is its kernel for processors, on the
 * widest vectors that this one has, over one array with huge pages, as ours is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/kernel_run.h"
#include "tests/bench/machine.h"
#include "tests/bench/talk.h"

enum {
    PARAMETERS = 100 * 1000 * 1000,
    SAMPLE = 8 * 1000 * 1000,
    TENSORS = 160, /* PyTorch's, as a model has them */
    FORMS = 2
};

static const char *const forms[FORMS] = { "single", "foreach" };

/* A program that makes steps, and what is to be made. */
struct peer {
    const char *name;
    struct talk talk;
    size_t parameters;
    const char *rule;
    unsigned form; /* of PyTorch's optimizers; DeepSpeed has none */
    int threads;
};

static bool is_torch(const struct peer *peer)
{
    return strcmp(peer->name, "torch") == 0;
}

/* ns per parameter of a step. A compare_side. */
static bool step(void *context, double *values, char problem[256])
{
    struct peer *peer = context;
    char line[TALK_LINE];
    if (is_torch(peer)) {
        talk_say(&peer->talk, "%s %s %d", peer->rule, forms[peer->form], peer->threads);
    } else {
        talk_say(&peer->talk, "%d", peer->threads);
    }
    if (!talk_hear(&peer->talk, line, problem)) {
        return false;
    }
    values[0] = strtod(line, NULL) / (double)peer->parameters * 1e9;
    return true;
}

static void measure(const struct bench *bench, struct peer *peer, double goal)
{
    struct kernel_run run;
    char problem[256] = "", name[96], reference[64];
    const struct compare_side theirs = { step, peer };
    if (!kernel_run_init(&run, peer->rule, peer->parameters, 1, problem) ||
        !compare_forms(&theirs, &peer->form, is_torch(peer) ? FORMS : 1, REPORT_LESS,
                       problem)) {
        report_failure(bench->report, "%s: %s", peer->rule, problem);
        kernel_run_fini(&run);
        return;
    }
    run.threads = peer->threads;
    snprintf(reference, sizeof reference, "%s%s%s", peer->name,
             is_torch(peer) ? ", " : "", is_torch(peer) ? forms[peer->form] : "");
    snprintf(name, sizeof name, "%s / %s, %d thread%s", peer->rule, reference,
             peer->threads, peer->threads == 1 ? "" : "s");
    struct report_quantity quantity = { .name = "",
                                        .unit = "ns/param",
                                        .better = REPORT_LESS,
                                        .goal = bench->quick ? 0 : goal };
    struct comparison comparison = { .name = name,
                                     .reference = reference,
                                     .quantities = &quantity,
                                     .quantity_count = 1,
                                     .ours = { kernel_run_time, &run },
                                     .theirs = theirs };
    compare(bench->report, &comparison, &bench->effort);
    kernel_run_fini(&run);
}

static void measure_rule(const struct bench *bench, struct peer *peer, const char *rule,
                         double goal)
{
    int cores = bench->quick ? 1 : machine_cores();
    peer->rule = rule;
    for (peer->threads = 1; peer->threads <= cores;
         peer->threads += cores > 1 ? cores - 1 : 1) {
        measure(bench, peer, goal);
    }
}

/* Start it; its version is a fact. */
static bool start(const struct bench *bench, struct peer *peer,
                  const char *const *words)
{
    char version[TALK_LINE] = "", problem[256];
    if (talk_start(&peer->talk, words) && talk_hear(&peer->talk, version, problem) &&
        strcmp(version, "none") != 0) {
        report_fact(bench->report, peer->name, "%s", strchr(version, ' ') + 1);
        return true;
    }
    report_fact(bench->report, peer->name, "not installed, so not compared with");
    return false;
}

static void against_torch(const struct bench *bench, size_t parameters)
{
    char size[24], tensors[24];
    struct peer torch = { .name = "torch", .parameters = parameters };
    const char *const words[] = { "/usr/bin/python3", "tests/bench/torch_step.py", size,
                                  tensors, NULL };
    snprintf(size, sizeof size, "%zu", parameters);
    snprintf(tensors, sizeof tensors, "%d", TENSORS);
    if (start(bench, &torch, words)) {
        measure_rule(bench, &torch, "adam", 0.60);
        measure_rule(bench, &torch, "adamw", 0.60);
        measure_rule(bench, &torch, "momentum", 0.95);
    }
    talk_stop(&torch.talk);
}

static void against_deepspeed(const struct bench *bench, size_t parameters)
{
    char size[24];
    struct peer deepspeed = { .name = "DeepSpeed", .parameters = parameters };
    const char *const words[] = { bench->deepspeed, size, NULL };
    snprintf(size, sizeof size, "%zu", parameters);
    if (bench->deepspeed == NULL) {
        report_fact(bench->report, "DeepSpeed", "not named, so not compared with");
        return;
    }
    if (start(bench, &deepspeed, words)) {
        measure_rule(bench, &deepspeed, "adam", 0.75);
    }
    talk_stop(&deepspeed.talk);
}

void bench_peers(const struct bench *bench)
{
    size_t parameters = bench->quick ? SAMPLE : PARAMETERS;
    against_torch(bench, parameters);
    against_deepspeed(bench, parameters);
}
