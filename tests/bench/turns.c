/* turns — small pushes that a loop serves itself, and those that are awaited awake.
 *
 * A loop serves a push of up to 64 KiB in a turn of its own; four bytes more, and the
 * loop wakes the engine's thread, which wakes the loop for the answer. So the one push
 * against the other shows what two wake-ups cost. And a daemon and a client that look
 * for bytes for a while before they sleep (`spin`, `spin_us`) are compared with those
 * that sleep at once; both ends have processors of their own then, as the manual asks.
 */
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/ping.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"

enum { SMALL = 16, LIGHT = 16384 /* floats that a loop serves */, SPIN_US = 50 };

/* A client of a daemon. */
struct side {
    struct server *server;
    struct optclient *client;
    struct ping ping;
    enum placement placement;
};

static bool pushes(void *context, double *values, char problem[256])
{
    struct side *side = context;
    placement_set(side->placement, getpid(), side->server->pid);
    return ping_pushes(&side->ping, values, problem);
}

static bool side_open(const struct bench *bench, struct side *side,
                      struct server *server, const char *name, size_t elements,
                      uint32_t spin_us, char problem[256])
{
    struct optclient_options options = optclient_options_default();
    options.spin_us = spin_us;
    side->server = server;
    side->ping.pings = bench->quick ? PING_MAX / 4 : PING_MAX;
    if (optclient_connect(server->address, &options, &side->client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    return ping_open(&side->ping, side->client, name, elements, problem);
}

static void side_close(struct side *side)
{
    ping_close(&side->ping);
    optclient_close(side->client);
    side->client = NULL;
}

static void measure(const struct bench *bench, struct side *special, struct side *plain,
                    enum placement placement, const char *what, const char *reference,
                    double goal)
{
    const struct report_quantity trip[] = { { "p50", "us", REPORT_LESS, goal, 0 },
                                            { "p99", "us", REPORT_LESS, 0, 0 } };
    char name[96];
    snprintf(name, sizeof name, "%s, %s", what, placement_name(placement));
    special->placement = plain->placement = placement;
    const struct comparison comparison = {
        .name = name,
        .reference = reference,
        .quantities = trip,
        .quantity_count = 2,
        .ours = { pushes, special },
        .theirs = { pushes, plain },
    };
    if (placement_possible(placement)) {
        compare(bench->report, &comparison, &bench->effort);
    }
    placement_free();
}

void bench_turns(const struct bench *bench)
{
    static struct side by_loop, by_engine, awake, asleep;
    struct server server = { .pid = 0 }, spinning = { .pid = 0 };
    static const char *const spin[] = { "--spin", "50", NULL };
    char problem[256];
    if (server_start(&server, bench->daemon, problem) &&
        server_start_with(&spinning, bench->daemon, spin, problem) &&
        side_open(bench, &by_loop, &server, "loop", LIGHT, 0, problem) &&
        side_open(bench, &by_engine, &server, "engine", LIGHT + 1, 0, problem) &&
        side_open(bench, &asleep, &server, "asleep", SMALL, 0, problem) &&
        side_open(bench, &awake, &spinning, "awake", SMALL, SPIN_US, problem)) {
        for (int i = 0; i < PLACEMENT_END; i++) {
            measure(bench, &by_loop, &by_engine, (enum placement)i,
                    "push 64 KiB, by a loop", "64 KiB and 4 bytes, by the engine",
                    0.95);
        }
        measure(bench, &awake, &asleep, PLACEMENT_TWO, "push 64 B, spin 50 us",
                "asleep at once", 0.75);
    } else {
        report_failure(bench->report, "turns: %s", problem);
    }
    side_close(&by_loop);
    side_close(&by_engine);
    side_close(&asleep);
    side_close(&awake);
    bool stopped = server_stop(&server);
    if (!server_stop(&spinning) || !stopped) {
        report_failure(bench->report, "turns: a daemon did not stop cleanly");
    }
}
