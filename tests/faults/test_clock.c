/* The wall clock jumps by an hour, forwards and backwards, for the daemon and for a
 * worker that trains: nothing happens but that log lines have other stamps.
 *
 * libfaketime (Debian package faketime) tells both processes the time; the monotonic
 * clock is left alone, as it is when somebody sets a machine's clock.
 */
#include <criterion/criterion.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/sanitized.h"

enum { HOUR_S = 3600, STEPS = 1000, EVENT_MS = 30000 };

struct clock_test {
    char file[64]; /* tells libfaketime how far the clock is off */
    struct daemon_process daemon;
    pid_t worker;
    struct optclient *client;
    struct optclient_model *model;
};

static void set_clock(const struct clock_test *test, int offset_s)
{
    char fresh[80];
    snprintf(fresh, sizeof(fresh), "%s.new", test->file);
    FILE *file = fopen(fresh, "we");
    cr_assert_not_null(file);
    fprintf(file, "%+d\n", offset_s);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(rename(fresh, test->file), 0);
}

/* Whatever is started now has the clock of the file. */
static void preload(const struct clock_test *test)
{
    glob_t found;
    if (IS_SANITIZED ||
        glob("/usr/lib/*/faketime/libfaketimeMT.so.1", 0, NULL, &found) != 0) {
        cr_skip("needs libfaketime, and a build without sanitizers");
    }
    setenv("LD_PRELOAD", found.gl_pathv[0], 1);
    setenv("FAKETIME_TIMESTAMP_FILE", test->file, 1);
    setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1", 1);
    setenv("FAKETIME_NO_CACHE", "1", 1);
    globfree(&found);
}

/* build/tests/faults/test_clock -> build/examples/minimal */
static void start_worker(struct clock_test *test, const char *address)
{
    char program[PATH_MAX] = "";
    cr_assert_gt(readlink("/proc/self/exe", program, sizeof(program) - 64), 0);
    for (int i = 0; i < 3; i++) {
        *strrchr(program, '/') = '\0';
    }
    strcat(program, "/examples/minimal");
    pid_t parent = getpid();
    test->worker = fork();
    cr_assert_geq(test->worker, 0);
    if (test->worker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            execl(program, program, address, "2000000000", NULL);
        }
        _exit(127);
    }
}

static void begin(struct clock_test *test)
{
    static const char *const options[] = { "--lease", "1s",          "--heartbeat",
                                           "200ms",   "--log-level", "debug",
                                           NULL };
    char address[32];
    strcpy(test->file, "/tmp/optimd-clock-XXXXXX");
    int fd = mkstemp(test->file);
    cr_assert_geq(fd, 0);
    close(fd);
    set_clock(test, 0);
    preload(test);
    daemon_start(&test->daemon, options);
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)test->daemon.port);
    start_worker(test, address);
    unsetenv("LD_PRELOAD");
    struct optclient_options watching = test_options();
    watching.worker = "";
    test->client = test_connect(address, &watching);
    uint64_t limit = test_now_ms() + EVENT_MS;
    while (optclient_open(test->client, "line", 0, &test->model) != OPTCLIENT_OK) {
        cr_assert_lt(test_now_ms(), limit, "%s", optclient_error());
    }
}

/* Many more steps, so that all that looks at a clock has looked. */
static void train(const struct clock_test *test)
{
    struct optclient_result result;
    expect_ok(optclient_wait_step(test->model, 0, EVENT_MS, &result));
    expect_ok(optclient_wait_step(test->model, result.step + STEPS, EVENT_MS, NULL));
}

/* The daemon stamps a line with the clock that it was given. */
static void expect_stamp(const struct clock_test *test, int offset_s)
{
    char stamp[32];
    struct optclient_options options = test_options();
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)test->daemon.port);
    options.worker = "passing";
    time_t then = time(NULL) + offset_s;
    struct tm utc;
    gmtime_r(&then, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:", &utc);
    optclient_close(test_connect(address, &options));
    cr_assert(daemon_logged(&test->daemon, stamp, DAEMON_WAIT_MS),
              "no line of the hour %s", stamp);
}

Test(clock, that_jumps_an_hour_changes_nothing_but_stamps, .timeout = 120)
{
    static const int offsets[] = { HOUR_S, -HOUR_S, 0 };
    struct clock_test test;
    begin(&test);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        set_clock(&test, offsets[i]);
        expect_stamp(&test, offsets[i]);
        train(&test);
    }
    cr_assert_eq(test_counter(test.client, "leases_expired"), 0);
    cr_assert_eq(test_counter(test.client, "workers_lost"), 0);
    cr_assert_eq(test_counter(test.client, "workers_reconnected"), 0);
    cr_assert_eq(test_counter(test.client, "deadlines_exceeded"), 0);
    cr_assert_eq(waitpid(test.worker, NULL, WNOHANG), 0, "the worker gave up");
    kill(test.worker, SIGKILL);
    waitpid(test.worker, NULL, 0);
    optclient_close(test.client);
    daemon_stop(&test.daemon);
    unlink(test.file);
}
