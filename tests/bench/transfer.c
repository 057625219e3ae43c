/* transfer — goodput of pushes and pulls against bare blocking sockets.
 *
 * A model of one tensor and one worker, updated by sgd, so that arithmetic is next to
 * nothing. Gradients are taken from, and weights put to, a region much larger than any
 * cache, as the bare peers do. "one at a time" waits for each answer before the next
 * request; "many" keeps several requests in flight, and its reference is an
 * uninterrupted stream of the same bytes. Client and bare sender run on one processor,
 * daemon and bare peer on the others (placement.h); and, where there is a goal, all of
 * them on one as well, where a bare stream finds in cache what was just written.
 */
#include <stdio.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/exchange.h"
#include "tests/bench/loopback.h"
#include "tests/bench/memory.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"

static const struct size {
    const char *name;
    size_t bytes;
    size_t in_flight;            /* when many */
    size_t one, many;            /* messages in a run */
    double push_goal, pull_goal; /* of many */
    bool quick;                  /* in a quick run too */
} sizes[] = {
    { "4 KiB", 4 << 10, 64, 1000, 16384, 0, 0, true },
    { "64 KiB", 64 << 10, 64, 500, 2048, 0, 0, false },
    { "1 MiB", 1 << 20, 8, 96, 128, 0, 0, false },
    { "4 MiB", 4 << 20, 8, 24, 48, 0.90, 0.85, true },
    { "16 MiB", 16 << 20, 4, 8, 12, 0.90, 0.85, false },
    { "100 MiB", 100 << 20, 2, 2, 4, 0.90, 0.85, false },
};

static const struct {
    const char *name, *one_reference, *many_reference;
    enum loopback_pattern one, many; /* of the bare sockets */
} operations[EXCHANGE_OPERATIONS] = {
    [EXCHANGE_PUSH] = { "push", "message, one byte back", "stream", LOOPBACK_UP_EACH,
                        LOOPBACK_UP },
    [EXCHANGE_PULL] = { "pull", "one byte, message back", "stream", LOOPBACK_DOWN_EACH,
                        LOOPBACK_DOWN },
    [EXCHANGE_PUSH_PULL] = { "push and pull", "message, message back",
                             "message, message back", LOOPBACK_THERE_BACK,
                             LOOPBACK_THERE_BACK },
};

/* One comparison, from both sides. */
struct contest {
    struct exchange exchange;
    struct loopback bare;
    struct server server;
    enum placement placement;
};

static bool run_optimd(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(contest->placement, getpid(), contest->server.pid);
    return exchange_run(&contest->exchange, values, problem);
}

static bool run_bare(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    const struct exchange *exchange = &contest->exchange;
    enum loopback_pattern pattern = exchange->in_flight > 1
                                        ? operations[exchange->operation].many
                                        : operations[exchange->operation].one;
    placement_set(contest->placement, getpid(), contest->bare.pid);
    double seconds = loopback_move(&contest->bare, pattern, exchange->bytes,
                                   exchange->messages, problem);
    values[0] = exchange_bytes(exchange) / seconds / 1e9;
    return seconds > 0;
}

static double goal_of(enum exchange_operation operation, const struct size *size,
                      bool many)
{
    return !many                        ? 0
           : operation == EXCHANGE_PUSH ? size->push_goal
           : operation == EXCHANGE_PULL ? size->pull_goal
                                        : 0;
}

static void measure(const struct bench *bench, struct contest *contest,
                    const struct size *size, bool many)
{
    struct exchange *exchange = &contest->exchange;
    size_t full = many ? size->many : size->one;
    double goal = goal_of(exchange->operation, size, many);
    struct report_quantity quantity = { "", "GB/s", REPORT_MORE,
                                        bench->quick ? 0 : goal, 0 };
    char name[96];
    exchange->in_flight = many ? size->in_flight : 1;
    exchange->messages = bench->quick ? (full + 3) / 4 : full;
    snprintf(name, sizeof name, "%s %s, %s%s", operations[exchange->operation].name,
             size->name, many ? "many" : "one at a time",
             contest->placement == PLACEMENT_ONE ? ", one processor" : "");
    struct comparison comparison = {
        .name = name,
        .reference = many ? operations[exchange->operation].many_reference
                          : operations[exchange->operation].one_reference,
        .quantities = &quantity,
        .quantity_count = 1,
        .ours = { run_optimd, contest },
        .theirs = { run_bare, contest },
    };
    compare(bench->report, &comparison, &bench->effort);
}

/* All comparisons with one model. */
static void measure_size(const struct bench *bench, struct optclient *client,
                         const struct size *size, struct contest *contest)
{
    char problem[256];
    if (!exchange_open(&contest->exchange, client, size->bytes, problem)) {
        report_failure(bench->report, "a model of %s: %s", size->name, problem);
        return;
    }
    for (int operation = 0; operation < EXCHANGE_OPERATIONS; operation++) {
        contest->exchange.operation = (enum exchange_operation)operation;
        contest->placement = PLACEMENT_TWO;
        measure(bench, contest, size, false);
        measure(bench, contest, size, true);
        if (goal_of(contest->exchange.operation, size, true) > 0 &&
            placement_possible(PLACEMENT_TWO)) {
            contest->placement = PLACEMENT_ONE;
            measure(bench, contest, size, true);
        }
    }
    exchange_close(&contest->exchange, client);
}

void bench_transfer(const struct bench *bench)
{
    struct contest contest = { .bare = { .socket = -1 } };
    struct server *server = &contest.server;
    struct loopback *bare = &contest.bare;
    struct optclient *client = NULL;
    char problem[256], congestion[16] = "";
    if (!server_start(server, bench->daemon, problem)) {
        report_failure(bench->report, "transfer: %s", problem);
    } else if (!server_congestion(server, congestion, problem) ||
               !loopback_start(bare, congestion, EXCHANGE_REGION, problem)) {
        report_failure(bench->report, "transfer: %s", problem);
    } else if (optclient_connect(server->address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "transfer: %s", optclient_error());
    } else {
        report_fact(bench->report, "congestion control", "%s, on both sides",
                    congestion);
        contest.exchange.gradients = bare->from;
        contest.exchange.weights = bare->to;
        memory_fill(bare->from, EXCHANGE_REGION / sizeof(float), 1, 1.0f, 1);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            if (sizes[i].quick || !bench->quick) {
                measure_size(bench, client, &sizes[i], &contest);
            }
        }
    }
    placement_free();
    optclient_close(client);
    loopback_stop(bare);
    if (!server_stop(server)) {
        report_failure(bench->report, "transfer: the daemon did not stop cleanly");
    }
}
