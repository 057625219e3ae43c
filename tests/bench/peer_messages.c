/* peer_messages — pushes and pulls against those of Redis and ps-lite.
 *
 * Goodput of messages of 1 and 4 MiB, round trips of small ones, and small ones by the
 * dozen. A push is a SET, a pull is a GET; a push also updates a model by sgd, which
 * the others do not. Of two forms of a peer's requests, over one connection or several,
 * one at a time or many, the better one of a first try is the reference. Client and
 * server have a processor each (placement.h), the peers' too; round trips to Redis are
 * timed on a shared one as well.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/exchange.h"
#include "tests/bench/memory.h"
#include "tests/bench/ping.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"
#include "tests/bench/ps_lite.h"
#include "tests/bench/redis.h"

enum { SMALL = 64, PAGE = 4096, PS_LITE_FORMS = 2 };

static const struct size {
    const char *name;
    size_t bytes, in_flight, messages;
    double push_ps_lite, pull_ps_lite; /* goals */
} sizes[] = {
    { "1 MiB", 1 << 20, 8, 192, 0, 0 },
    { "4 MiB", 4 << 20, 8, 48, 2.0, 2.5 },
};
static const double redis_goal = 1.5;

struct contest {
    struct server server;
    struct optclient *client;
    struct exchange exchange;
    struct ping ping;
    struct redis redis;
    struct ps_lite ps_lite;
    bool with_redis, with_ps_lite;
    unsigned form;            /* of ps-lite: 0: one at a time; 1: as many as optimd's */
    enum placement placement; /* of round trips */
};

/* ---------------------------------------------------------------- goodput */

static bool exchange_ours(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(PLACEMENT_TWO, getpid(), contest->server.pid);
    return exchange_run(&contest->exchange, values, problem);
}

static bool exchange_redis(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(PLACEMENT_TWO, getpid(), contest->redis.pid);
    return redis_exchange(&contest->redis, values, problem);
}

static void place_ps_lite(const struct contest *contest)
{
    placement_set(PLACEMENT_TWO, contest->ps_lite.workers[0].pid,
                  contest->ps_lite.server.pid);
}

static bool exchange_ps_lite(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    const struct exchange *exchange = &contest->exchange;
    char order[96];
    double seconds[2];
    place_ps_lite(contest);
    snprintf(order, sizeof order, "%s %zu %zu %zu",
             exchange->operation == EXCHANGE_PUSH ? "push" : "pull", exchange->bytes,
             exchange->messages, contest->form == 0 ? 1 : exchange->in_flight);
    if (!ps_lite_order(&contest->ps_lite, order, seconds, problem)) {
        return false;
    }
    values[0] = exchange_bytes(exchange) / seconds[0] / 1e9;
    return true;
}

/* One row: goodput beside that of a peer's better form. */
static void compare_goodput(const struct bench *bench, struct contest *contest,
                            const char *name, double goal, bool redis)
{
    const struct report_quantity quantity = { "", "GB/s", REPORT_MORE,
                                              bench->quick ? 0 : goal, 0 };
    char reference[64], title[128], problem[256];
    const struct compare_side theirs = { redis ? exchange_redis : exchange_ps_lite,
                                         contest };
    if (!compare_forms(&theirs, redis ? &contest->redis.form : &contest->form,
                       redis ? REDIS_FORMS : PS_LITE_FORMS, REPORT_MORE, problem)) {
        report_failure(bench->report, "%s: %s", name, problem);
        return;
    }
    if (redis) {
        redis_describe(&contest->redis, reference);
    } else {
        snprintf(reference, sizeof reference, "ps-lite, %zu in flight",
                 contest->form == 0 ? 1 : contest->exchange.in_flight);
    }
    snprintf(title, sizeof title, "%s / %s", name, redis ? "Redis" : "ps-lite");
    const struct comparison comparison = { .name = title,
                                           .reference = reference,
                                           .quantities = &quantity,
                                           .quantity_count = 1,
                                           .ours = { exchange_ours, contest },
                                           .theirs = theirs };
    compare(bench->report, &comparison, &bench->effort);
}

static void measure_size(const struct bench *bench, struct contest *contest,
                         const struct size *size)
{
    struct exchange *exchange = &contest->exchange;
    char problem[256], name[64];
    if (!exchange_open(exchange, contest->client, size->bytes, problem)) {
        report_failure(bench->report, "peers, %s: %s", size->name, problem);
        return;
    }
    exchange->in_flight = size->in_flight;
    exchange->messages = bench->quick ? size->messages / 4 : size->messages;
    for (int pull = 0; pull < 2; pull++) {
        exchange->operation = EXCHANGE_PUSH; /* there is something to get afterwards */
        if (contest->with_redis) {
            double values[COMPARE_QUANTITIES_MAX];
            (void)exchange_redis(contest, values, problem);
        }
        exchange->operation = pull ? EXCHANGE_PULL : EXCHANGE_PUSH;
        snprintf(name, sizeof name, "%s %s, %zu in flight", pull ? "pull" : "push",
                 size->name, size->in_flight);
        if (contest->with_redis) {
            compare_goodput(bench, contest, name, redis_goal, true);
        }
        if (contest->with_ps_lite) {
            compare_goodput(bench, contest, name,
                            pull ? size->pull_ps_lite : size->push_ps_lite, false);
        }
    }
    exchange_close(exchange, contest->client);
}

/* ---------------------------------------------------------------- round trips */

static size_t bytes_of(const struct contest *contest)
{
    return contest->ping.elements * sizeof(float);
}

static bool trips_ours(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(contest->placement, getpid(), contest->server.pid);
    return ping_pushes(&contest->ping, values, problem);
}

static bool trips_redis(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    struct ping *ping = &contest->ping;
    placement_set(contest->placement, getpid(), contest->redis.pid);
    for (size_t i = 0; i < ping->pings; i++) {
        double begin = seconds_now();
        if (!redis_set(&contest->redis, ping->gradient, bytes_of(contest))) {
            snprintf(problem, 256, "Redis does not answer as expected");
            return false;
        }
        ping->seconds[i] = seconds_now() - begin;
    }
    ping_percentiles(ping->seconds, ping->pings, values);
    return true;
}

static bool trips_ps_lite(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    char order[64];
    place_ps_lite(contest);
    snprintf(order, sizeof order, "ping %zu %zu", bytes_of(contest),
             contest->ping.pings);
    bool good = ps_lite_order(&contest->ps_lite, order, values, problem);
    values[0] *= 1e6;
    values[1] *= 1e6;
    return good;
}

static bool rate_ours(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(PLACEMENT_TWO, getpid(), contest->server.pid);
    return ping_pushes_many(&contest->ping, values, problem);
}

static bool rate_redis(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    placement_set(PLACEMENT_TWO, getpid(), contest->redis.pid);
    values[0] = redis_sets(&contest->redis, bytes_of(contest), contest->ping.messages,
                           PING_IN_FLIGHT);
    snprintf(problem, 256, "Redis does not answer as expected");
    return values[0] > 0;
}

static bool rate_ps_lite(void *context, double *values, char problem[256])
{
    struct contest *contest = context;
    char order[64];
    double seconds[2];
    place_ps_lite(contest);
    snprintf(order, sizeof order, "push %zu %zu %d", bytes_of(contest),
             contest->ping.messages, PING_IN_FLIGHT);
    if (!ps_lite_order(&contest->ps_lite, order, seconds, problem)) {
        return false;
    }
    values[0] = (double)contest->ping.messages / seconds[0];
    return true;
}

/* Half a million a second, as a side. */
static bool rate_wanted(void *context, double *values, char problem[256])
{
    (void)context, (void)problem;
    values[0] = 500000;
    return true;
}

static void compare_small(const struct bench *bench, struct contest *contest,
                          const char *name, const char *reference,
                          const struct report_quantity *quantities, size_t count,
                          bool (*ours)(void *, double *, char[256]),
                          bool (*theirs)(void *, double *, char[256]))
{
    char title[128];
    snprintf(title, sizeof title, "%s / %s", name, reference);
    const struct comparison comparison = { .name = title,
                                           .reference = reference,
                                           .quantities = quantities,
                                           .quantity_count = count,
                                           .ours = { ours, contest },
                                           .theirs = { theirs, contest } };
    compare(bench->report, &comparison, &bench->effort);
}

/* Two with a goal each, or none if it is 0. */
static void compare_trips(const struct bench *bench, struct contest *contest,
                          const char *name, const char *reference, double p50_goal,
                          double p99_goal, bool (*theirs)(void *, double *, char[256]))
{
    const struct report_quantity quantities[] = {
        { "p50", "us", REPORT_LESS, p50_goal, 0 },
        { "p99", "us", REPORT_LESS, p99_goal, 0 }
    };
    compare_small(bench, contest, name, reference, quantities, 2, trips_ours, theirs);
}

static void measure_trips(const struct bench *bench, struct contest *contest)
{
    size_t bytes = bytes_of(contest);
    bool small = bytes < 1024;
    for (int i = 0; i < PLACEMENT_END; i++) {
        char name[64];
        contest->placement = (enum placement)i;
        snprintf(name, sizeof name, "push %zu %s, %s", small ? bytes : bytes / 1024,
                 small ? "B" : "KiB", placement_name(contest->placement));
        if (contest->with_redis && placement_possible(contest->placement)) {
            compare_trips(bench, contest, name, "Redis SET", 1, 1.3, trips_redis);
        }
        if (contest->with_ps_lite && contest->placement == PLACEMENT_TWO) {
            compare_trips(bench, contest, name, "ps-lite", 0.35, 0, trips_ps_lite);
        }
    }
}

static void measure_rates(const struct bench *bench, struct contest *contest)
{
    static const char name[] = "push 64 B, 64 in flight";
    static const struct report_quantity any = { "", "1/s", REPORT_MORE, 0, 0 },
                                        wanted = { "", "1/s", REPORT_MORE, 1, 0 },
                                        ps_lite = { "", "1/s", REPORT_MORE, 4, 0 };
    compare_small(bench, contest, name, "half a million a second", &wanted, 1,
                  rate_ours, rate_wanted);
    if (contest->with_redis) {
        compare_small(bench, contest, name, "Redis SET, 64 in a pipeline", &any, 1,
                      rate_ours, rate_redis);
    }
    if (contest->with_ps_lite) {
        compare_small(bench, contest, name, "ps-lite", &ps_lite, 1, rate_ours,
                      rate_ps_lite);
    }
}

static void measure_small(const struct bench *bench, struct contest *contest)
{
    static const size_t bytes[] = { SMALL, PAGE };
    char problem[256], model[32];
    contest->ping.pings = bench->quick ? PING_MAX / 4 : PING_MAX;
    contest->ping.messages = bench->quick ? 10000 : 40000;
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        snprintf(model, sizeof model, "small-%zu", bytes[i]);
        if (!ping_open(&contest->ping, contest->client, model, bytes[i] / sizeof(float),
                       problem)) {
            report_failure(bench->report, "peers, small messages: %s", problem);
            return;
        }
        measure_trips(bench, contest);
        if (bytes[i] == SMALL) {
            measure_rates(bench, contest);
        }
        ping_close(&contest->ping);
    }
}

/* ---------------------------------------------------------------- all of it */

static void start_peers(const struct bench *bench, struct contest *contest,
                        const char *congestion)
{
    char problem[256];
    contest->with_redis = redis_start(&contest->redis, congestion, problem);
    if (contest->with_redis) {
        report_fact(bench->report, "Redis",
                    "%s, --save \"\" --appendonly no, over TCP, one I/O thread",
                    contest->redis.version);
    } else if (problem[0] != '\0') {
        report_failure(bench->report, "Redis: %s", problem);
    } else {
        report_fact(bench->report, "Redis", "not installed, so not compared with");
    }
    if (bench->ps_lite == NULL || bench->quick) {
        if (!bench->quick) {
            report_fact(bench->report, "ps-lite", "not named, so not compared with");
        }
        return;
    }
    contest->with_ps_lite =
        ps_lite_start(&contest->ps_lite, bench->ps_lite, 1, 1, SMALL, 1, problem);
    if (contest->with_ps_lite) {
        report_fact(bench->report, "ps-lite",
                    "%s, one server, zmq over TCP, the system's congestion control, "
                    "values pushed and pulled without a copy of ours",
                    contest->ps_lite.version + strlen("ps-lite "));
    } else {
        report_failure(bench->report, "ps-lite: %s", problem);
    }
}

static bool regions_init(struct exchange *exchange)
{
    exchange->gradients = memory_map(EXCHANGE_REGION);
    exchange->weights = memory_map(EXCHANGE_REGION);
    if (exchange->gradients == NULL || exchange->weights == NULL) {
        return false;
    }
    memory_fill(exchange->gradients, EXCHANGE_REGION / sizeof(float), 1, 1.0f, 1);
    memory_set(exchange->weights, EXCHANGE_REGION / sizeof(float), 0, 1);
    return true;
}

static void measure_all(const struct bench *bench, struct contest *contest)
{
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (contest->with_redis || contest->with_ps_lite) {
            measure_size(bench, contest, &sizes[i]);
        }
    }
    measure_small(bench, contest);
}

void bench_peer_messages(const struct bench *bench)
{
    static struct contest contest = { .redis = { .sockets = { -1, -1, -1, -1 } } };
    char problem[256], congestion[16] = "";
    if (!server_start(&contest.server, bench->daemon, problem) ||
        !server_congestion(&contest.server, congestion, problem)) {
        report_failure(bench->report, "peers: %s", problem);
    } else if (!regions_init(&contest.exchange)) {
        report_failure(bench->report, "peers: no memory");
    } else {
        start_peers(bench, &contest, congestion);
        contest.redis.exchange = &contest.exchange;
        if (optclient_connect(contest.server.address, NULL, &contest.client) !=
            OPTCLIENT_OK) {
            report_failure(bench->report, "peers: %s", optclient_error());
        } else {
            measure_all(bench, &contest);
        }
    }
    placement_free();
    optclient_close(contest.client);
    redis_stop(&contest.redis);
    ps_lite_stop(&contest.ps_lite);
    memory_unmap(contest.exchange.gradients, EXCHANGE_REGION);
    memory_unmap(contest.exchange.weights, EXCHANGE_REGION);
    if (!server_stop(&contest.server)) {
        report_failure(bench->report, "peers: the daemon did not stop cleanly");
    }
}
