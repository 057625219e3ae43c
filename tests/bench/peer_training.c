/* peer_training — synchronous steps against those of ps-lite and PyTorch.
 *
 * The model of the group training: 25 million parameters in 160 tensors, Adam, rounds
 * that are applied shard by shard. Peers do the same work: ps-lite's server applies
 * optimd's own Adam as soon as a tensor has come from all workers, so that only the
 * transport differs; PyTorch's RPC server does the same with its own; and where there
 * are two workers, an all-reduce over gloo with an Adam in every worker, which needs no
 * server and moves less, is the rival that has no shared weights. As many threads apply
 * updates as in the daemon; every worker has one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/machine.h"
#include "tests/bench/process.h"
#include "tests/bench/ps_lite.h"
#include "tests/bench/talk.h"
#include "tests/bench/trainer.h"

enum {
    TENSORS = 160,
    ELEMENTS = 156288,
    WORKERS_MAX = 2,
    STEPS = 5, /* in a run */
    PS_LITE_FORMS = 2
};

/* Processes of one of PyTorch's scripts; the first may be a server, which takes no
 * orders. */
struct torch {
    struct talk processes[WORKERS_MAX + 1];
    unsigned count, servers;
    char version[TALK_LINE];
};

struct contest {
    unsigned workers;
    struct server server;
    struct trainer trainers[WORKERS_MAX];
    struct ps_lite ps_lite;
    unsigned form; /* of ps-lite's requests: see peers/ps_lite.cpp */
    struct torch torch;
};

/* ---------------------------------------------------------------- PyTorch */

static void torch_stop(struct torch *torch)
{
    for (unsigned i = 0; i < torch->count; i++) {
        talk_stop(&torch->processes[i]);
    }
    *torch = (struct torch){ 0 };
}

/* False with a sentence, or without one if it is not installed. */
static bool torch_start(struct torch *torch, const char *script, unsigned workers,
                        unsigned servers, const char *meeting, char problem[256])
{
    char world[16], rank[16], elements[24], tensors[24];
    *torch = (struct torch){ .servers = servers };
    problem[0] = '\0';
    snprintf(world, sizeof world, "%u", workers + servers);
    snprintf(tensors, sizeof tensors, "%d", TENSORS);
    snprintf(elements, sizeof elements, "%d",
             servers > 0 ? ELEMENTS : TENSORS * ELEMENTS);
    for (unsigned i = 0; i < workers + servers; i++) {
        const char *const words[] = { "/usr/bin/python3",
                                      script,
                                      rank,
                                      world,
                                      meeting,
                                      servers > 0 ? tensors : elements,
                                      servers > 0 ? elements : NULL,
                                      NULL };
        snprintf(rank, sizeof rank, "%u", i);
        if (!talk_start(&torch->processes[torch->count++], words)) {
            return false;
        }
    }
    for (unsigned i = 0; i < torch->count; i++) {
        if (!talk_hear(&torch->processes[i], torch->version, problem) ||
            strncmp(torch->version, "torch ", 6) != 0) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- sides */

static bool run_ours(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    double seconds = trainers_run(contest->trainers, contest->workers, STEPS, problem);
    values[0] = seconds * 1e3;
    return seconds >= 0;
}

static bool run_ps_lite(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    char order[32];
    double seconds[2];
    snprintf(order, sizeof order, "step %u %d", contest->form, STEPS);
    bool good = ps_lite_order(&contest->ps_lite, order, seconds, problem);
    values[0] = seconds[0] * 1e3;
    return good;
}

static bool run_torch(void *context, double *values, char problem[256])
{
    struct torch *torch = &((struct contest *)context)->torch;
    for (unsigned i = torch->servers; i < torch->count; i++) {
        talk_say(&torch->processes[i], "%d", STEPS);
    }
    values[0] = 0;
    for (unsigned i = torch->servers; i < torch->count; i++) {
        char line[TALK_LINE];
        if (!talk_hear(&torch->processes[i], line, problem)) {
            return false;
        }
        double took = strtod(line, NULL) * 1e3;
        values[0] = took > values[0] ? took : values[0];
    }
    return true;
}

/* ---------------------------------------------------------------- rows */

static void measure(const struct bench *bench, struct contest *contest,
                    const char *peer, const char *reference,
                    bool (*theirs)(void *, double *, char[256]), double goal)
{
    const struct report_quantity quantity = { "", "ms", REPORT_LESS, goal, 0 };
    char name[96];
    snprintf(name, sizeof name, "step by shards, %u worker%s / %s", contest->workers,
             contest->workers == 1 ? "" : "s", peer);
    const struct comparison comparison = { .name = name,
                                           .reference = reference,
                                           .quantities = &quantity,
                                           .quantity_count = 1,
                                           .ours = { run_ours, contest },
                                           .theirs = { theirs, contest } };
    compare(bench->report, &comparison, &bench->effort);
}

static void against_ps_lite(const struct bench *bench, struct contest *contest)
{
    static const char *const forms[PS_LITE_FORMS] = { "push all, then pull all",
                                                      "push and pull of each tensor" };
    int threads = machine_cores() > 1 ? machine_cores() - 1 : 1;
    char problem[256] = "";
    const struct compare_side theirs = { run_ps_lite, contest };
    if (bench->ps_lite == NULL) {
        report_fact(bench->report, "ps-lite", "not named, so not compared with");
        return;
    }
    if (ps_lite_start(&contest->ps_lite, bench->ps_lite, contest->workers, TENSORS,
                      ELEMENTS, threads, problem) &&
        compare_forms(&theirs, &contest->form, PS_LITE_FORMS, REPORT_LESS, problem)) {
        measure(bench, contest, "ps-lite", forms[contest->form], run_ps_lite, 0.50);
    } else {
        report_failure(bench->report, "ps-lite: %s", problem);
    }
    ps_lite_stop(&contest->ps_lite);
}

static void against_torch(const struct bench *bench, struct contest *contest,
                          const char *peer, const char *script, unsigned servers,
                          const char *reference, double goal)
{
    char problem[256], meeting[128];
    snprintf(meeting, sizeof meeting, "%s/%s", contest->server.folder, peer);
    if (torch_start(&contest->torch, script, contest->workers, servers, meeting,
                    problem)) {
        measure(bench, contest, peer, reference, run_torch, goal);
    } else if (problem[0] != '\0') {
        report_failure(bench->report, "%s: %s", peer, problem);
    } else {
        report_fact(bench->report, peer, "not installed, so not compared with");
    }
    torch_stop(&contest->torch);
}

static bool prepare(const struct bench *bench, struct contest *contest,
                    char problem[256])
{
    if (!server_start(&contest->server, bench->daemon, problem)) {
        return false;
    }
    const struct trainer_model model = { .address = contest->server.address,
                                         .expression = "adam(lr=1e-3)",
                                         .atomic = OPTCLIENT_ATOMIC_SHARD,
                                         .tensors = TENSORS,
                                         .elements = ELEMENTS,
                                         .workers = contest->workers };
    for (unsigned i = 0; i < contest->workers; i++) {
        if (!trainer_start(&contest->trainers[i], &model, i, problem)) {
            return false;
        }
    }
    return true;
}

static void hold(const struct bench *bench, unsigned workers)
{
    struct contest contest = { .workers = workers };
    char problem[256];
    if (prepare(bench, &contest, problem)) {
        against_ps_lite(bench, &contest);
        if (workers > 1) {
            against_torch(bench, &contest, "gloo", "tests/bench/torch_gloo.py", 0,
                          "torch: all-reduce of one array, Adam in each worker", 0.85);
        }
        against_torch(bench, &contest, "torch RPC", "tests/bench/torch_rpc.py", 1,
                      "torch: a server over TensorPipe, a call for each tensor", 0.25);
    } else {
        report_failure(bench->report, "peers, training: %s", problem);
    }
    for (unsigned i = 0; i < workers; i++) {
        trainer_stop(&contest.trainers[i]);
    }
    if (!server_stop(&contest.server)) {
        report_failure(bench->report,
                       "peers, training: the daemon did not stop cleanly");
    }
}

void bench_peer_training(const struct bench *bench)
{
    for (unsigned workers = 1; workers <= WORKERS_MAX; workers++) {
        hold(bench, workers);
    }
}
