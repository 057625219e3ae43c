/* soak — eight worker processes train for a while, and somebody kills and freezes them
 * and cuts their connections at random.
 *
 *     soak [--seconds N] [--seed N] [--daemon PROGRAM]
 *
 * In the end every acknowledged push must have counted exactly once and no other more
 * than that, in a synchronous and in an asynchronous model; nobody may have stopped
 * making progress; and the daemon must have neither grown nor kept a descriptor. What
 * is random follows from the seed, which is printed. The last line counts the verdicts.
 */
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/process.h"
#include "tests/proxy.h"
#include "tests/soak/soak.h"

enum {
    PUSHES_PER_SECOND = 2000, /* room in the history */
    LEAST_PUSHES = 20000,
    CUT_UP = 150 << 20, /* a cut after about so many bytes of all connections */
    CUT_DOWN = 200 << 10,
    TICK_MS = 50,
    GROWTH_PER_MILLE = 10
};
static const double hang_seconds = 40; /* without progress of a worker */
static const double end_seconds = 60;  /* for all to end */
static const double strike_least = 0.5, strike_most = 4.0; /* between two */
static const double freeze_seconds = 1.5;                  /* shorter than a lease */
static const double report_seconds = 10;

struct seat {
    pid_t pid;
    unsigned acknowledged; /* in both models, when looked at last */
    double progress;       /* when that was */
    double thaw;           /* when it goes on; 0: it is not frozen */
};

static struct soak {
    char program[PATH_MAX];
    double seconds, begin;
    uint64_t seed, random;
    struct server server;
    struct proxy *proxy;
    struct history *histories[SOAK_MODELS];
    struct seat seats[SOAK_WORKERS];
    double next_strike, next_report;
    unsigned kills, freezes;
    size_t warm_bytes, last_bytes; /* most memory in the second and the last third */
    size_t descriptors;
    unsigned passed, failed;
} soak;

static double now(void)
{
    return seconds_now() - soak.begin;
}

static double between(double least, double most)
{
    return least + (most - least) * (double)lane_random(&soak.random, 1000) / 1000;
}

static void verdict(bool good, const char *what, const char *detail)
{
    printf("%-6s %s%s%s\n", good ? "passed" : "FAILED", what,
           detail[0] == '\0' ? "" : ": ", detail);
    soak.passed += good;
    soak.failed += !good;
}

/* ---------------------------------------------------------------- workers */

static void start_worker(unsigned number)
{
    char which[16], descriptors[SOAK_MODELS][16];
    snprintf(which, sizeof which, "%u", number);
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        snprintf(descriptors[m], sizeof descriptors[m], "%d",
                 history_fd(soak.histories[m]));
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        execl(soak.program, soak.program, "--worker", which, proxy_address(soak.proxy),
              descriptors[0], descriptors[1], (char *)NULL);
        _exit(127);
    }
    soak.seats[number].pid = pid;
    soak.seats[number].progress = now();
}

static int be_worker(char **arguments)
{
    struct history *histories[SOAK_MODELS];
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        histories[m] = history_open(atoi(arguments[2 + m]));
    }
    return soak_worker(arguments[1], (unsigned)atoi(arguments[0]), histories);
}

/* Kill one and start it again, or freeze one. */
static void strike(void)
{
    unsigned number = (unsigned)lane_random(&soak.random, SOAK_WORKERS);
    bool freeze = lane_random(&soak.random, 4) == 0;
    struct seat *seat = &soak.seats[number];
    soak.next_strike = now() + between(strike_least, strike_most);
    if (seat->thaw > 0) {
        return;
    }
    if (freeze) {
        kill(seat->pid, SIGSTOP);
        seat->thaw = now() + freeze_seconds;
        soak.freezes++;
        return;
    }
    kill(seat->pid, SIGKILL);
    waitpid(seat->pid, NULL, 0);
    soak.kills++;
    start_worker(number);
}

static void thaw(double when)
{
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        if (soak.seats[i].thaw > 0 && soak.seats[i].thaw <= when) {
            soak.seats[i].thaw = 0;
            kill(soak.seats[i].pid, SIGCONT);
        }
    }
}

static unsigned acknowledged(unsigned worker)
{
    unsigned sum = 0;
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        sum += history_acknowledged(soak.histories[m], worker);
    }
    return sum;
}

/* Everybody lives and gets on. False with a sentence. */
static bool look_at_workers(char problem[512])
{
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        struct seat *seat = &soak.seats[i];
        int status;
        if (waitpid(seat->pid, &status, WNOHANG) == seat->pid) {
            seat->pid = 0;
            snprintf(problem, 512, "worker %u ended by itself, status %d", i, status);
            return false;
        }
        if (acknowledged(i) > seat->acknowledged) {
            seat->acknowledged = acknowledged(i);
            seat->progress = now();
        } else if (now() - seat->progress > hang_seconds) {
            snprintf(problem, 512, "worker %u has had no push applied for %.0f s", i,
                     hang_seconds);
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- the run */

static void look_at_daemon(void)
{
    size_t bytes = soak_resident(soak.server.pid);
    double part = now() / soak.seconds;
    if (part > 1.0 / 3 && part <= 2.0 / 3 && bytes > soak.warm_bytes) {
        soak.warm_bytes = bytes;
    } else if (part > 2.0 / 3 && bytes > soak.last_bytes) {
        soak.last_bytes = bytes;
    }
}

static void report(void)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        sum += acknowledged(i);
    }
    printf("%5.0f s  %8u pushes  %4u kills  %3u freezes  %4u cuts  %5u connections  "
           "%6.1f MiB\n",
           now(), sum, soak.kills, soak.freezes, proxy_cuts(soak.proxy),
           proxy_connections(soak.proxy),
           (double)soak_resident(soak.server.pid) / (1 << 20));
    fflush(stdout);
    soak.next_report += report_seconds;
}

static void train(void)
{
    const struct timespec tick = { .tv_nsec = (long)TICK_MS * 1000000 };
    char problem[512] = "";
    bool good = true;
    while (good && now() < soak.seconds) {
        nanosleep(&tick, NULL);
        thaw(now());
        if (now() >= soak.next_strike) {
            strike();
        }
        if (now() >= soak.next_report) {
            report();
        }
        look_at_daemon();
        good = look_at_workers(problem);
    }
    verdict(good, "every worker got on all the time", problem);
}

/* Ask all to stop in order; false if one does not, or not well. */
static void stop_workers(void)
{
    const struct timespec tick = { .tv_nsec = (long)TICK_MS * 1000000 };
    double deadline = now() + end_seconds;
    bool good = true;
    proxy_cut_often(soak.proxy, 0, 0, 0);
    thaw(now() + freeze_seconds);
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        if (soak.seats[i].pid > 0) {
            kill(soak.seats[i].pid, SIGTERM);
        }
    }
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        int status = 0;
        pid_t pid = soak.seats[i].pid;
        while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
            if (now() > deadline) {
                kill(pid, SIGKILL);
                deadline = now() + 1;
            }
            nanosleep(&tick, NULL);
        }
        good &= pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
    }
    verdict(good, "every worker ended in order", "");
}

static void judge_weights(struct optclient *client)
{
    static const char *const what[SOAK_MODELS] = {
        "synchronous: every acknowledged push counted once",
        "asynchronous: every acknowledged push counted once"
    };
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        struct history_verdict v = { 0 };
        char detail[512];
        bool good = soak_judge(client, m, soak.histories[m], &v, detail);
        if (good) {
            snprintf(detail, sizeof detail,
                     "%u begun, %u acknowledged, %u refused, %u whose worker never "
                     "learnt, of which %u counted",
                     v.begun, v.acknowledged, v.refused, v.unknown, v.unknown_applied);
        }
        verdict(good, what[m], detail);
    }
}

static void judge_daemon(void)
{
    const struct timespec tick = { .tv_nsec = (long)TICK_MS * 1000000 };
    char detail[512];
    double deadline = now() + end_seconds;
    size_t growth = soak.warm_bytes / 1000 * GROWTH_PER_MILLE;
    snprintf(detail, sizeof detail,
             "%.1f MiB in the second third, %.1f MiB in the last",
             (double)soak.warm_bytes / (1 << 20), (double)soak.last_bytes / (1 << 20));
    verdict(soak.last_bytes <= soak.warm_bytes + growth && soak.warm_bytes > 0,
            "the daemon's memory did not grow by one per cent", detail);
    while (soak_descriptors(soak.server.pid) > soak.descriptors && now() < deadline) {
        nanosleep(&tick, NULL); /* connections that have just ended */
    }
    snprintf(detail, sizeof detail, "%zu at first, %zu in the end", soak.descriptors,
             soak_descriptors(soak.server.pid));
    verdict(soak_descriptors(soak.server.pid) == soak.descriptors,
            "the daemon kept no descriptor", detail);
}

/* Once somebody has been there: the daemon opens a spare one for its first peer. */
static bool count_descriptors(void)
{
    struct optclient *client;
    if (optclient_connect(soak.server.address, NULL, &client) != OPTCLIENT_OK) {
        fprintf(stderr, "soak: %s\n", optclient_error());
        return false;
    }
    soak.descriptors = soak_descriptors(soak.server.pid) - 1; /* but this one */
    optclient_close(client);
    return true;
}

static bool open_soak(const char *daemon)
{
    char problem[256];
    unsigned pushes = (unsigned)(soak.seconds * PUSHES_PER_SECOND);
    if (!server_start(&soak.server, daemon, problem)) {
        fprintf(stderr, "soak: %s\n", problem);
        return false;
    }
    soak.descriptors = soak_descriptors(soak.server.pid);
    if (!count_descriptors()) {
        return false;
    }
    soak.proxy =
        proxy_start((uint16_t)strtoul(strchr(soak.server.address, ':') + 1, NULL, 10));
    proxy_cut_often(soak.proxy, CUT_UP, CUT_DOWN, soak.seed);
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        soak.histories[m] =
            history_new(SOAK_WORKERS, pushes < LEAST_PUSHES ? LEAST_PUSHES : pushes);
    }
    soak.random = soak.seed;
    soak.next_strike = strike_most;
    soak.next_report = report_seconds;
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        start_worker(i);
    }
    return true;
}

static int run(const char *daemon)
{
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    char detail[512];
    printf("soak: %.0f s, seed %" PRIu64 "\n", soak.seconds, soak.seed);
    if (!open_soak(daemon)) {
        return EXIT_FAILURE;
    }
    train();
    stop_workers();
    report();
    options.worker = "judge";
    if (optclient_connect(soak.server.address, &options, &client) == OPTCLIENT_OK) {
        judge_weights(client);
        optclient_close(client);
    } else {
        verdict(false, "the daemon answers", optclient_error());
    }
    judge_daemon();
    snprintf(detail, sizeof detail, "%u kills, %u cuts", soak.kills,
             proxy_cuts(soak.proxy));
    verdict(soak.kills > 0 && proxy_cuts(soak.proxy) > 0, "there was trouble", detail);
    proxy_stop(soak.proxy);
    verdict(server_stop(&soak.server), "the daemon ended in order", "");
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        history_free(soak.histories[m]);
    }
    if (soak.failed > 0) {
        printf("again: %s --seconds %.0f --seed %" PRIu64 "\n", soak.program,
               soak.seconds, soak.seed);
    }
    printf("%u passed, %u failed\n", soak.passed, soak.failed);
    return soak.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(void)
{
    fprintf(stderr, "usage: soak [--seconds N] [--seed N] [--daemon PROGRAM]\n");
    return 64;
}

int main(int count, char **arguments)
{
    char daemon[PATH_MAX + 16];
    ssize_t size = readlink("/proc/self/exe", soak.program, sizeof soak.program - 1);
    if (size < 0) {
        perror("soak");
        return EXIT_FAILURE;
    }
    if (count == 6 && strcmp(arguments[1], "--worker") == 0) {
        return be_worker(arguments + 2);
    }
    char *copy = strdup(soak.program);
    snprintf(daemon, sizeof daemon, "%s/optimd", dirname(copy));
    free(copy);
    soak.seconds = 120;
    soak.seed = (uint64_t)time(NULL);
    for (int i = 1; i < count; i += 2) {
        if (i + 1 == count) {
            return usage();
        }
        if (strcmp(arguments[i], "--seconds") == 0) {
            soak.seconds = strtod(arguments[i + 1], NULL);
        } else if (strcmp(arguments[i], "--seed") == 0) {
            soak.seed = strtoull(arguments[i + 1], NULL, 10);
        } else if (strcmp(arguments[i], "--daemon") == 0) {
            snprintf(daemon, sizeof daemon, "%s", arguments[i + 1]);
        } else {
            return usage();
        }
    }
    if (!(soak.seconds >= 10)) {
        fprintf(stderr, "soak: %g seconds; it takes at least 10\n", soak.seconds);
        return 64;
    }
    soak.begin = seconds_now();
    return run(daemon);
}
