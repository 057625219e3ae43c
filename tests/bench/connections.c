/* connections — what many connections cost those that work.
 *
 * The same small pushes, one at a time, to a daemon with a thousand idle connections
 * and to one with a single one; and to one with two hundred connections that send a
 * frame byte by byte and to one with a single such. Client and daemon share a processor
 * meanwhile (placement.h). Then new connections are opened beside nine hundred idle
 * ones and beside one. Beside that, as facts: the memory of the idle ones, how soon one
 * that is beyond the limit is told so, and whether connections that come and go leave
 * descriptors behind.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/crowd.h"
#include "tests/bench/loopback.h"
#include "tests/bench/ping.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"

enum {
    IDLE = 1000,
    NEARLY_ALL = IDLE - 100, /* of them: there is room for new ones */
    OPENED = 50,             /* new ones in a run */
    SLOW = 200,              /* connections that send a byte at a time */
    LIMIT = 1024,            /* the daemon's default */
    ELEMENTS = 16,
    REFUSALS = 20,
    CHURN_RATE = 1000 /* connections a second */
};

struct side {
    struct server server;
    struct optclient *client;
    struct ping ping;
    struct crowd crowd;
    struct crowd slow; /* in the middle of a frame; or none */
    struct crowd new;  /* that come and go while it is measured */
};

static bool pushes(void *context, double *values, char problem[256])
{
    struct side *side = context;
    struct ping *ping = &side->ping;
    struct optclient_values gradient = { .values = ping->gradient };
    placement_set(PLACEMENT_ONE, getpid(), side->server.pid);
    /* Both sides ask as often, so that both come to their pushes in the same state. */
    if (!crowd_touch(&side->crowd, IDLE)) {
        snprintf(problem, 256, "an idle connection was closed");
        return false;
    }
    for (size_t i = 0; i < ping->pings; i++) {
        if (side->slow.count > 0 && !crowd_drip(&side->slow, i)) {
            snprintf(problem, 256, "a slow connection was closed");
            return false;
        }
        double begin = seconds_now();
        if (optclient_push(ping->model, &gradient, 1, NULL, NULL) != OPTCLIENT_OK) {
            snprintf(problem, 256, "%.250s", optclient_error());
            return false;
        }
        ping->seconds[i] = seconds_now() - begin;
    }
    ping_percentiles(ping->seconds, ping->pings, values);
    return true;
}

/* us of opening a connection and saying hello. */
static bool openings(void *context, double *values, char problem[256])
{
    struct side *side = context;
    placement_set(PLACEMENT_ONE, getpid(), side->server.pid);
    double begin = seconds_now();
    if (!crowd_gather(&side->new, side->server.address, OPENED, problem)) {
        return false;
    }
    values[0] = (seconds_now() - begin) / OPENED * 1e6;
    crowd_leave(&side->new);
    return true;
}

static bool client_start(struct side *side, char problem[256])
{
    if (optclient_connect(side->server.address, NULL, &side->client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    return ping_open(&side->ping, side->client, "small", ELEMENTS, problem);
}

/* At a point of the curve, or with the goal for all of them if point is NULL. */
static void compare_pushes(const struct bench *bench, const char *name,
                           const struct report_point *point, struct side *crowded,
                           struct side *alone)
{
    bool full = point == NULL || point->x >= IDLE;
    const struct report_quantity trip[] = {
        { "p50", "us", REPORT_LESS, full ? 1.2 : 0, 0 },
        { "p99", "us", REPORT_LESS, full ? 1.10 : 0, 0 },
    };
    const struct comparison comparison = {
        .name = name,
        .reference = "the same beside one",
        .quantities = trip,
        .quantity_count = 2,
        .ours = { pushes, crowded },
        .theirs = { pushes, alone },
        .point = point,
    };
    compare(bench->report, &comparison, &bench->effort);
}

/* Before the idle ones come; a byte comes from one of the slow ones before each push.
 */
static void measure_slow(const struct bench *bench, struct side *crowded,
                         struct side *alone)
{
    char problem[256] = "a slow connection was not taken";
    if (!crowd_gather(&crowded->crowd, crowded->server.address, 1, problem) ||
        !crowd_gather(&crowded->slow, crowded->server.address, SLOW, problem) ||
        !crowd_gather(&alone->slow, alone->server.address, 1, problem) ||
        !crowd_begin_frames(&crowded->slow) || !crowd_begin_frames(&alone->slow)) {
        report_failure(bench->report, "connections: %s", problem);
        return;
    }
    compare_pushes(bench, "push 64 B beside 200 slow", NULL, crowded, alone);
    crowd_leave(&crowded->slow);
    crowd_leave(&alone->slow);
}

static void compare_openings(const struct bench *bench, struct side *crowded,
                             struct side *alone)
{
    static const struct report_quantity time = { "", "us", REPORT_LESS, 1.2, 0 };
    const struct comparison comparison = {
        .name = "opening a connection beside 900 idle",
        .reference = "the same beside one",
        .quantities = &time,
        .quantity_count = 1,
        .ours = { openings, crowded },
        .theirs = { openings, alone },
    };
    compare(bench->report, &comparison, &bench->effort);
}

/* More and more idle connections join the daemon of one side; what their memory comes
 * to is a fact. */
static bool measure_pushes(const struct bench *bench, struct side *crowded,
                           struct side *alone, char problem[256])
{
    static const size_t counts[] = { 10, 100, NEARLY_ALL, IDLE };
    double values[2];
    if (!crowd_gather(&crowded->crowd, crowded->server.address, 1, problem) ||
        !pushes(crowded, values, problem)) {
        return false;
    }
    double before = (double)server_peak_bytes(&crowded->server);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (!crowd_gather(&crowded->crowd, crowded->server.address, counts[i],
                          problem)) {
            return false;
        }
        if (counts[i] == NEARLY_ALL) {
            compare_openings(bench, crowded, alone);
            continue;
        }
        const struct report_point point = { "idle", "connections", (double)counts[i],
                                            1 };
        char name[64];
        snprintf(name, sizeof name, "push 64 B beside %zu idle", counts[i]);
        compare_pushes(bench, name, &point, crowded, alone);
    }
    double after = (double)server_peak_bytes(&crowded->server);
    report_fact(bench->report, "memory of idle ones", "%.1f MiB for %d, %.1f KiB each",
                (after - before) / (1 << 20), IDLE, (after - before) / 1024 / IDLE);
    return true;
}

/* ---------------------------------------------------------------- the limit */

static void measure_refusals(const struct bench *bench, struct side *crowded)
{
    char problem[256], byte;
    double longest = 0;
    /* The client's own connection is one of them. */
    if (!crowd_gather(&crowded->crowd, crowded->server.address, LIMIT - 1, problem)) {
        report_failure(bench->report, "connections: %s", problem);
        return;
    }
    for (int i = 0; i < REFUSALS; i++) {
        double begin = seconds_now();
        int fd = crowd_connect(crowded->server.address);
        bool told = fd >= 0 && loopback_receive(fd, &byte, 1);
        double took = seconds_now() - begin;
        longest = took > longest ? took : longest;
        if (fd >= 0) {
            close(fd);
        }
        if (!told) {
            report_failure(bench->report,
                           "connections: connection %d was not told why it is not "
                           "served",
                           LIMIT + 1 + i);
            return;
        }
    }
    /* The daemon says so too, though not of each. */
    if (server_logged(&crowded->server, "connection_limit_reached") == 0) {
        report_failure(bench->report,
                       "connections: the daemon has not logged its limit");
    }
    report_fact(bench->report, "beyond the limit", "answered within %.1f ms (%d of %d)",
                longest * 1000, REFUSALS, REFUSALS);
}

/* ---------------------------------------------------------------- coming and going */

static size_t descriptors_of(const struct server *server)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *directory = opendir(path);
    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

static void sleep_until(double when)
{
    double left = when - seconds_now();
    if (left > 0) {
        struct timespec moment = { .tv_sec = (time_t)left,
                                   .tv_nsec =
                                       (long)((left - (double)(time_t)left) * 1e9) };
        nanosleep(&moment, NULL);
    }
}

static void measure_churn(const struct bench *bench, struct side *alone)
{
    size_t count = (bench->quick ? 1 : 10) * CHURN_RATE;
    size_t before = descriptors_of(&alone->server);
    struct crowd one = { .count = 0 };
    char problem[256] = "";
    double begin = seconds_now();
    for (size_t i = 0; i < count; i++) {
        sleep_until(begin + (double)i / CHURN_RATE);
        if (!crowd_gather(&one, alone->server.address, 1, problem)) {
            report_failure(bench->report, "connections: %s", problem);
            return;
        }
        crowd_leave(&one);
    }
    double seconds = seconds_now() - begin;
    /* The last ones are closed when the daemon has seen to it. */
    size_t after = descriptors_of(&alone->server);
    for (double limit = seconds_now() + 5; after > before && seconds_now() < limit;) {
        sleep_until(seconds_now() + 0.01);
        after = descriptors_of(&alone->server);
    }
    report_fact(bench->report, "coming and going",
                "%zu in %.1f s, %.0f a second; descriptors %zu before, %zu after",
                count, seconds, (double)count / seconds, before, after);
    if (after > before) {
        report_failure(bench->report, "connections: %zu descriptors were left behind",
                       after - before);
    }
}

/* ---------------------------------------------------------------- all of it */

static bool prepare(const struct bench *bench, struct side *crowded, struct side *alone,
                    char problem[256])
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return server_start(&crowded->server, bench->daemon, problem) &&
           server_start(&alone->server, bench->daemon, problem) &&
           client_start(crowded, problem) && client_start(alone, problem) &&
           crowd_gather(&alone->crowd, alone->server.address, 1, problem);
}

void bench_connections(const struct bench *bench)
{
    static struct side crowded, alone;
    char problem[256];
    crowded.ping.pings = bench->quick ? PING_MAX / 4 : PING_MAX;
    alone.ping.pings = crowded.ping.pings;
    bool ready = prepare(bench, &crowded, &alone, problem);
    if (ready) {
        measure_slow(bench, &crowded, &alone);
    }
    if (ready && measure_pushes(bench, &crowded, &alone, problem)) {
        placement_free();
        measure_refusals(bench, &crowded);
        measure_churn(bench, &alone);
    } else {
        report_failure(bench->report, "connections: %s", problem);
    }
    placement_free();
    crowd_leave(&crowded.crowd);
    crowd_leave(&crowded.slow);
    crowd_leave(&crowded.new);
    crowd_leave(&alone.crowd);
    crowd_leave(&alone.slow);
    crowd_leave(&alone.new);
    ping_close(&crowded.ping);
    ping_close(&alone.ping);
    optclient_close(crowded.client);
    optclient_close(alone.client);
    bool stopped = server_stop(&crowded.server);
    if (!server_stop(&alone.server) || !stopped) {
        report_failure(bench->report, "connections: a daemon did not stop cleanly");
    }
}
