/* soak — eight worker processes push to a model of each policy for a while, and what
 * can happen to workers happens to them at random.
 *
 *     soak [--seconds N] [--seed N] [--kill SECONDS] [--daemon PROGRAM]
 *
 * They come over TCP through a proxy that cuts connections at any byte, through another
 * that damages values besides (checksums are on), over a Unix socket, and in shared
 * memory; they are killed, stopped, cut off and replaced (strikes.c). The daemon is
 * killed every minute and started again with what it has kept. In the end the weights
 * must say of each push, and of each of its shards, what its worker was told; nobody
 * may have stopped making progress; and the daemon must have neither grown nor kept a
 * descriptor. What is random follows from the seed, which is printed. The last line
 * counts the verdicts.
 */
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/process.h"
#include "tests/soak/soak.h"
#include "tests/support/proxy.h"

enum {
    CUT_UP = 20 << 20, /* a cut after about so many bytes of all connections */
    CUT_DOWN = 5 << 20,
    DAMAGE_ONE_IN = 50, /* frames with values */
    JITTER_MS = 40,     /* between two frames of a push at most, there */
    PROXIES = 2,        /* one that cuts, and one that damages too */
    TICK_MS = 50,
    /* What memory may be more than in the third before: numbers that are remembered for
     * all workers and models, which fill up, and a version of weights or two. */
    GROWTH_BYTES = 2 << 20,
    QUEUE_MIB = 4,       /* of records that wait for the disk, more or less at a time */
    SETTLED_SECONDS = 10 /* of a daemon's life, before its memory is looked at */
};
static const double end_seconds = 60; /* for the daemon to close what has ended */
static const double report_seconds = 10;

static struct soak {
    char program[PATH_MAX], daemon[PATH_MAX + 16];
    char data[80], header[16], frame[16], queue[16]; /* settings of the daemon */
    double seconds, begin;
    uint64_t seed;
    struct server server;
    double kill_seconds;       /* between two ends of the daemon; 0: it lives */
    double started, next_kill; /* the daemon: when */
    unsigned kills;            /* of it */
    struct proxy *proxies[PROXIES];
    char unix_address[96];
    struct history *histories[SOAK_MODELS];
    struct soak_seats *seats;
    unsigned lives; /* of workers, so far */
    double next_report;
    unsigned pushes, wrong; /* in the verdicts on the weights */
    /* Most memory in the first and the second half of the longest life of a daemon that
     * has ended, and so far in the present one. */
    struct memory {
        double seconds;
        size_t first, second;
    } memory, present;
    size_t descriptors;
    unsigned passed, failed;
} soak;

static double now(void)
{
    return seconds_now() - soak.begin;
}

static void verdict(bool good, const char *what, const char *detail)
{
    printf("%-6s %s%s%s\n", good ? "passed" : "FAILED", what,
           detail[0] == '\0' ? "" : ": ", detail);
    soak.passed += good;
    soak.failed += !good;
}

/* ---------------------------------------------------------------- workers */

/* Signals wait until the worker has said what it does with them. */
static void hold_signals(int how)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(how, &signals, NULL);
}

static pid_t start_worker(unsigned number)
{
    enum soak_route route = soak_route(number);
    char which[16], seed[24], descriptors[SOAK_MODELS][16];
    const char *address =
        route == SOAK_UNIX ? soak.unix_address : proxy_address(soak.proxies[route]);
    const char *arguments[6 + SOAK_MODELS] = { soak.program, "--worker", which, address,
                                               seed };
    snprintf(which, sizeof which, "%u", number);
    snprintf(seed, sizeof seed, "%" PRIu64, soak.seed * 100000 + soak.lives++);
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        snprintf(descriptors[m], sizeof descriptors[m], "%d",
                 history_fd(soak.histories[m]));
        arguments[5 + m] = descriptors[m];
    }
    fflush(NULL);
    hold_signals(SIG_BLOCK);
    pid_t pid = fork();
    if (pid == 0) {
        execv(soak.program, (char *const *)arguments);
        _exit(127);
    }
    hold_signals(SIG_UNBLOCK);
    return pid;
}

static int be_worker(char **arguments)
{
    struct history *histories[SOAK_MODELS];
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        histories[m] = history_open(atoi(arguments[3 + m]));
    }
    return soak_worker(arguments[1], (unsigned)atoi(arguments[0]),
                       strtoull(arguments[2], NULL, 10), histories);
}

/* ---------------------------------------------------------------- the run */

/* The daemon has ended, and its life is longer than those before. */
static void keep_memory(void)
{
    soak.present.seconds = now() - soak.started;
    if (soak.present.seconds > soak.memory.seconds) {
        soak.memory = soak.present;
    }
}

static void look_at_daemon(void)
{
    double end = soak.next_kill < soak.seconds ? soak.next_kill : soak.seconds;
    double life = now() - soak.started;
    size_t bytes = soak_resident(soak.server.pid);
    struct memory *memory = &soak.present;
    if (life < SETTLED_SECONDS) {
        return;
    }
    size_t *most = life < (end - soak.started) / 2 ? &memory->first : &memory->second;
    *most = bytes > *most ? bytes : *most;
}

static bool start_daemon(bool first, char problem[256])
{
    const char *const settings[] = {
        "--max-header", soak.header, "--max-frame", soak.frame,
        "--data-dir",   soak.data,   NULL
    };
    bool started = first ? server_start_in(&soak.server, soak.daemon, settings, problem)
                         : server_kill(&soak.server, soak.daemon, settings, problem);
    soak.started = now();
    soak.present = (struct memory){ 0 };
    soak.next_kill =
        soak.kill_seconds > 0 ? soak.started + soak.kill_seconds : INFINITY;
    return started;
}

/* The daemon is killed and started again, if it is time for that; not at the very end.
 */
static bool strike_daemon(char problem[512])
{
    if (now() < soak.next_kill || now() + SETTLED_SECONDS > soak.seconds) {
        return true;
    }
    keep_memory();
    soak.kills++;
    return start_daemon(false, problem);
}

/* What has happened so far; whether everything that can has. */
static bool what_happened(char text[512])
{
    char counts[256];
    unsigned cuts = 0, damaged = proxy_tampered(soak.proxies[SOAK_DAMAGED]);
    bool all = soak_seats_counts(soak.seats, counts);
    for (unsigned i = 0; i < PROXIES; i++) {
        cuts += proxy_cuts(soak.proxies[i]);
    }
    snprintf(text, 512, "%s, %u cuts, %u damaged frames, %u ends of the daemon", counts,
             cuts, damaged, soak.kills);
    return all && cuts > 0 && damaged > 0 &&
           (soak.kills > 0 || soak.next_kill > soak.seconds - SETTLED_SECONDS);
}

static void report(void)
{
    char text[512];
    unsigned begun = 0;
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        for (unsigned i = 0; i < SOAK_WORKERS; i++) {
            begun += history_begun(soak.histories[m], i);
        }
    }
    what_happened(text);
    printf("%5.0f s  %8u pushes, %s, %.1f MiB\n", now(), begun, text,
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
        if (now() >= soak.next_report) {
            report();
        }
        look_at_daemon();
        good = strike_daemon(problem) && soak_seats_tick(soak.seats, now(), problem);
    }
    verdict(good, "every worker got on all the time", problem);
}

/* Ask all to stop in order. */
static void stop_workers(void)
{
    char problem[512] = "";
    for (unsigned i = 0; i < PROXIES; i++) {
        proxy_cut_often(soak.proxies[i], 0, 0, 0);
        proxy_faults(soak.proxies[i], PROXY_UP, NULL, 0);
        proxy_faults(soak.proxies[i], PROXY_DOWN, NULL, 0);
    }
    bool good = soak_seats_end(soak.seats, problem);
    verdict(good, "every worker ended in order", problem);
}

static void judge_weights(struct optclient *client)
{
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        struct history_verdict v = { 0 };
        char what[64], detail[1024], problem[512];
        bool good = soak_judge(client, m, soak.histories[m], &v, problem);
        snprintf(what, sizeof what, "%s: every push counts as was told", soak_name(m));
        snprintf(detail, sizeof detail,
                 "%u begun; told applied %u, dropped %u, not applied %u, in part %u, "
                 "not known %u; untold %u; of what nobody knows %u count; %u wrong%s%s",
                 v.begun, v.acknowledged, v.dropped, v.refused, v.in_part, v.not_known,
                 v.untold, v.unknown_applied, v.wrong, good ? "" : ": ", problem);
        soak.pushes += v.begun;
        soak.wrong += v.wrong;
        verdict(good && v.acknowledged > 0, what, detail);
    }
}

static void judge_daemon(void)
{
    const struct timespec tick = { .tv_nsec = (long)TICK_MS * 1000000 };
    char detail[512];
    double deadline = now() + end_seconds;
    keep_memory();
    snprintf(detail, sizeof detail,
             "of %.0f s %.1f MiB in the first half, %.1f MiB in the second",
             soak.memory.seconds, (double)soak.memory.first / (1 << 20),
             (double)soak.memory.second / (1 << 20));
    size_t most = soak.memory.first + GROWTH_BYTES + ((size_t)QUEUE_MIB << 20);
    bool short_lived =
        soak.memory.first == 0 && soak.memory.seconds < 3 * SETTLED_SECONDS;
    verdict(short_lived || (soak.memory.first > 0 && soak.memory.second <= most),
            "the daemon's memory did not grow", detail);
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

static bool begin_daemon(void)
{
    char problem[256] = "";
    snprintf(soak.header, sizeof soak.header, "%dKiB", SOAK_HEADER_KIB);
    snprintf(soak.frame, sizeof soak.frame, "%dKiB", SOAK_FRAME_KIB);
    snprintf(soak.queue, sizeof soak.queue, "%dMiB", QUEUE_MIB);
    if (server_folder(&soak.server, problem)) {
        snprintf(soak.data, sizeof soak.data, "%s/data", soak.server.folder);
        snprintf(soak.unix_address, sizeof soak.unix_address, "unix:%s/socket",
                 soak.server.folder);
    }
    if (problem[0] != '\0' || !start_daemon(true, problem)) {
        fprintf(stderr, "soak: %s\n", problem);
        return false;
    }
    return count_descriptors();
}

static bool open_soak(void)
{
    static const struct lane_faults damage = { .damage_one_in = DAMAGE_ONE_IN,
                                               .jitter_ms = JITTER_MS };
    unsigned pushes = (unsigned)(soak.seconds * SOAK_PER_SECOND);
    if (!begin_daemon()) {
        return false;
    }
    for (unsigned i = 0; i < PROXIES; i++) {
        soak.proxies[i] = proxy_start(soak.server.port);
        proxy_cut_often(soak.proxies[i], CUT_UP, CUT_DOWN, soak.seed + i);
    }
    proxy_faults(soak.proxies[SOAK_DAMAGED], PROXY_UP, &damage, soak.seed);
    proxy_faults(soak.proxies[SOAK_DAMAGED], PROXY_DOWN, &damage, soak.seed);
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        soak.histories[m] =
            history_new(SOAK_WORKERS, pushes < SOAK_PUSHES ? SOAK_PUSHES : pushes);
    }
    soak.next_report = report_seconds;
    soak.seats = soak_seats_new(start_worker, soak.histories, soak.seed);
    return true;
}

static void judge(void)
{
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    char detail[512];
    options.worker = "judge"; /* an observer could not delete what it has judged */
    if (optclient_connect(soak.server.address, &options, &client) == OPTCLIENT_OK) {
        judge_weights(client);
        optclient_close(client);
    } else {
        verdict(false, "the daemon answers", optclient_error());
    }
    judge_daemon();
    bool trouble = what_happened(detail);
    verdict(trouble, "there was trouble of every kind", detail);
    printf("seed %" PRIu64 ", %.0f s: %u pushes, %s, wrong %u\n", soak.seed,
           soak.seconds, soak.pushes, detail, soak.wrong);
}

static int run(void)
{
    printf("soak: %.0f s, seed %" PRIu64 "\n", soak.seconds, soak.seed);
    if (!open_soak()) {
        return EXIT_FAILURE;
    }
    train();
    stop_workers();
    report();
    judge();
    for (unsigned i = 0; i < PROXIES; i++) {
        proxy_stop(soak.proxies[i]);
    }
    verdict(server_stop(&soak.server), "the daemon ended in order", "");
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        history_free(soak.histories[m]);
    }
    soak_seats_free(soak.seats);
    if (soak.failed > 0) {
        printf("again: %s --seconds %.0f --seed %" PRIu64 "\n", soak.program,
               soak.seconds, soak.seed);
    }
    printf("%u passed, %u failed\n", soak.passed, soak.failed);
    return soak.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: soak [--seconds N] [--seed N] [--kill SECONDS] [--daemon PROGRAM]\n");
    return 64;
}

int main(int count, char **arguments)
{
    ssize_t size = readlink("/proc/self/exe", soak.program, sizeof soak.program - 1);
    if (size < 0) {
        perror("soak");
        return EXIT_FAILURE;
    }
    if (count == 5 + SOAK_MODELS && strcmp(arguments[1], "--worker") == 0) {
        return be_worker(arguments + 2);
    }
    char *copy = strdup(soak.program);
    snprintf(soak.daemon, sizeof soak.daemon, "%s/optimd", dirname(copy));
    free(copy);
    soak.seconds = 120;
    soak.kill_seconds = 60;
    soak.seed = (uint64_t)time(NULL);
    for (int i = 1; i < count; i += 2) {
        if (i + 1 == count) {
            return usage();
        }
        if (strcmp(arguments[i], "--seconds") == 0) {
            soak.seconds = strtod(arguments[i + 1], NULL);
        } else if (strcmp(arguments[i], "--seed") == 0) {
            soak.seed = strtoull(arguments[i + 1], NULL, 10);
        } else if (strcmp(arguments[i], "--kill") == 0) {
            soak.kill_seconds = strtod(arguments[i + 1], NULL);
        } else if (strcmp(arguments[i], "--daemon") == 0) {
            snprintf(soak.daemon, sizeof soak.daemon, "%s", arguments[i + 1]);
        } else {
            return usage();
        }
    }
    if (!(soak.seconds >= 10)) {
        fprintf(stderr, "soak: %g seconds; it takes at least 10\n", soak.seconds);
        return 64;
    }
    soak.begin = seconds_now();
    return run();
}
