/* sharing — synchronous steps of workers that share memory with the daemon, against the
 * same steps over sockets.
 *
 * The step is that of training.c, in four ways: over TCP; over a Unix socket; through
 * memory in common, copied from and to the worker's own; and in place, where the worker
 * has its gradients where the daemon reads them and reads the weights where it has
 * computed them. Each way has a daemon and workers of its own.
 */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/process.h"
#include "tests/bench/trainer.h"

enum { TENSORS = 160, ELEMENTS = 156288, WORKERS_MAX = 2 };

struct way {
    const char *name;
    enum trainer_way how;
    bool by_tcp;
    unsigned workers, steps;
    struct server server;
    struct trainer trainers[WORKERS_MAX];
};

enum { TCP, UNIX, COPIED, IN_PLACE, WAYS };

struct contest {
    enum optclient_atomic atomic;
    struct way ways[WAYS];
};

static bool run(void *context, double *values, char problem[256])
{
    struct way *way = context;
    double seconds = trainers_run(way->trainers, way->workers, way->steps, problem);
    values[0] = seconds * 1e3;
    return seconds >= 0;
}

static bool prepare(const struct bench *bench, struct way *way,
                    enum optclient_atomic atomic, char problem[256])
{
    char address[96];
    if (!server_start(&way->server, bench->daemon, problem)) {
        return false;
    }
    if (way->by_tcp) {
        snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)way->server.port);
    } else {
        snprintf(address, sizeof address, "unix:%s/socket", way->server.folder);
    }
    struct trainer_model model = { .address = address,
                                   .expression = "adam(lr=1e-3)",
                                   .atomic = atomic,
                                   .tensors = TENSORS,
                                   .elements = ELEMENTS,
                                   .workers = way->workers,
                                   .way = way->how };
    for (unsigned i = 0; i < way->workers; i++) {
        if (!trainer_start(&way->trainers[i], &model, i, problem)) {
            return false;
        }
    }
    return true;
}

static void end(const struct bench *bench, struct way *way)
{
    for (unsigned i = 0; i < way->workers; i++) {
        trainer_stop(&way->trainers[i]);
    }
    if (!server_stop(&way->server)) {
        report_failure(bench->report, "sharing: the daemon did not stop cleanly");
    }
}

static void measure(const struct bench *bench, struct contest *contest, int which,
                    double goal)
{
    const struct way *tcp = &contest->ways[TCP];
    const struct report_quantity time = { "time", "ms", REPORT_LESS, goal, 0 };
    char name[64];
    snprintf(name, sizeof name, "step%s, %s, %u worker%s",
             contest->atomic == OPTCLIENT_ATOMIC_SHARD ? " by shards" : "",
             contest->ways[which].name, tcp->workers, tcp->workers == 1 ? "" : "s");
    struct comparison comparison = {
        .name = name,
        .reference = "over TCP",
        .quantities = &time,
        .quantity_count = 1,
        .ours = { run, &contest->ways[which] },
        .theirs = { run, &contest->ways[TCP] },
    };
    compare(bench->report, &comparison, &bench->effort);
}

static void hold(const struct bench *bench, enum optclient_atomic atomic,
                 unsigned workers)
{
    struct contest contest = {
        .atomic = atomic,
        .ways = { [TCP] = { .name = "TCP", .how = TRAINER_SENDS, .by_tcp = true },
                  [UNIX] = { .name = "Unix socket", .how = TRAINER_SENDS },
                  [COPIED] = { .name = "shared, copied", .how = TRAINER_COPIES },
                  [IN_PLACE] = { .name = "shared, in place",
                                 .how = TRAINER_IN_PLACE } },
    };
    char problem[256];
    bool ready = true;
    for (int i = 0; i < WAYS; i++) {
        contest.ways[i].workers = workers;
        contest.ways[i].steps = bench->quick ? 3 : 6;
        ready = ready && prepare(bench, &contest.ways[i], atomic, problem);
    }
    if (ready) {
        measure(bench, &contest, IN_PLACE, 0.55);
        measure(bench, &contest, COPIED, 0.55);
        if (!bench->quick) {
            measure(bench, &contest, UNIX, 0);
        }
    } else {
        report_failure(bench->report, "sharing: %s", problem);
    }
    for (int i = 0; i < WAYS; i++) {
        end(bench, &contest.ways[i]);
    }
}

void bench_sharing(const struct bench *bench)
{
    hold(bench, OPTCLIENT_ATOMIC_SHARD, 1);
    if (bench->quick) {
        return;
    }
    hold(bench, OPTCLIENT_ATOMIC_SHARD, 2);
    hold(bench, OPTCLIENT_ATOMIC_ROUND, 1);
    hold(bench, OPTCLIENT_ATOMIC_ROUND, 2);
}
