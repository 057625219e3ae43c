/* slow_link — steps by shards against whole rounds where the link is the bottleneck.
 *
 * A worker and the daemon are in network namespaces of their own, with a link between
 * them that carries 2 Gbit/s each way. In a whole round the weights leave when the last
 * gradient has come, so each direction rests while the other works; by shards both work
 * at once. Over loopback, where both directions cost the same processors' time, there
 * is nothing to gain of that (training.c).
 */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/link.h"
#include "tests/bench/process.h"
#include "tests/bench/trainer.h"

enum { TENSORS = 40, ELEMENTS = 625000, ELEMENTS_QUICK = 125000 };

struct form {
    struct server server;
    struct trainer trainer;
    char address[64];
    unsigned steps;
};

static bool run(void *context, double *values, char problem[256])
{
    struct form *form = context;
    double seconds = trainers_run(&form->trainer, 1, form->steps, problem);
    values[0] = seconds * 1e3;
    return seconds >= 0;
}

/* A daemon at the far end and its worker at the near one. */
static bool prepare(const struct bench *bench, const struct link *link,
                    struct form *form, enum optclient_atomic atomic, char problem[256])
{
    static const char *const settings[] = { "--listen", LINK_FAR_ADDRESS ":0",
                                            "--insecure", NULL };
    form->steps = bench->quick ? 1 : 3;
    if (!link_enter(link, LINK_FAR) ||
        !server_start_with(&form->server, bench->daemon, settings, problem)) {
        return false;
    }
    snprintf(form->address, sizeof form->address, LINK_FAR_ADDRESS ":%u",
             (unsigned)form->server.port);
    struct trainer_model model = { .address = form->address,
                                   .expression = "adam(lr=1e-3)",
                                   .atomic = atomic,
                                   .tensors = TENSORS,
                                   .elements = bench->quick ? ELEMENTS_QUICK : ELEMENTS,
                                   .workers = 1 };
    return link_enter(link, LINK_NEAR) &&
           trainer_start(&form->trainer, &model, 0, problem);
}

static void measure(const struct bench *bench, struct form *shards, struct form *whole)
{
    const struct report_quantity time = { "time", "ms", REPORT_LESS,
                                          bench->quick ? 0 : 0.65, 0 };
    const struct comparison comparison = {
        .name = "step by shards / whole rounds, 2 Gbit/s",
        .reference = "whole rounds",
        .quantities = &time,
        .quantity_count = 1,
        .ours = { run, shards },
        .theirs = { run, whole },
    };
    compare(bench->report, &comparison, &bench->effort);
}

void bench_slow_link(const struct bench *bench)
{
    struct form shards = { .trainer = { .pid = -1 } },
                whole = { .trainer = { .pid = -1 } };
    struct link link;
    char problem[256] = "a namespace cannot be entered";
    if (!link_open(&link, "2gbit", problem)) {
        report_fact(bench->report, "slow link", "left out: %s", problem);
    } else if (prepare(bench, &link, &shards, OPTCLIENT_ATOMIC_SHARD, problem) &&
               prepare(bench, &link, &whole, OPTCLIENT_ATOMIC_ROUND, problem)) {
        measure(bench, &shards, &whole);
    } else {
        report_failure(bench->report, "slow-link: %s", problem);
    }
    link_close(&link);
    trainer_stop(&shards.trainer);
    trainer_stop(&whole.trainer);
    bool stopped = server_stop(&shards.server);
    if (!server_stop(&whole.server) || !stopped) {
        report_failure(bench->report, "slow-link: the daemon did not stop cleanly");
    }
}
