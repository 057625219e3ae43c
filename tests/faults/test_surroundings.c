/* The daemon in surroundings that are poor or do not behave: nobody reads its log, its
 * standard descriptors are missing, files have a limit, threads cannot be had. It does
 * with what there is, or refuses to start; it does not end in the middle.
 */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum { EXIT_UNAVAILABLE = 69, WAIT_MS = 15000 };

/* ---------------------------------------------------------------- the log */

static int log_end = -1;

static void log_to_pipe(void)
{
    if (dup2(log_end, STDERR_FILENO) < 0) {
        _exit(126);
    }
}

Test(surroundings, may_have_nobody_who_reads_the_log)
{
    enum { PEERS = 300, PIPE_BYTES = 4096 };
    struct daemon_process daemon;
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_geq(fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES), 0);
    log_end = ends[1];
    daemon_prepare(log_to_pipe);
    daemon_start(&daemon, (const char *[]){ "--log-level", "debug", NULL });
    for (int i = 0; i < PEERS; i++) {
        int peer = raw_connect(daemon.port);
        cr_assert(raw_send(peer, "\x02\0\0\0\xFF\xFF", 6));
        cr_assert(raw_closed(peer, WAIT_MS));
        close(peer);
    }
    daemon_stop(&daemon);
    close(ends[0]);
    close(ends[1]);
}

/* ---------------------------------------------------------------- descriptors */

static int closed;

static void close_standard(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if ((closed >> fd & 1) != 0) {
            close(fd);
        }
    }
}

/* Some worker's whole life. */
static void train(const char *address, size_t elements, unsigned pushes)
{
    const uint64_t shape[] = { elements };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    float *values = calloc(elements, sizeof(*values));
    struct optclient_values all = { .values = values };
    struct optclient *client = test_connect(address, NULL);
    struct optclient_model *model;
    cr_assert_not_null(values);
    values[elements - 1] = 1;
    expect_ok(
        optclient_create(client, address, "sgd(lr=1)", NULL, &tensor, 1, NULL, &model));
    for (unsigned i = 0; i < pushes; i++) {
        expect_ok(optclient_push(model, &all, 1, NULL, NULL));
    }
    expect_ok(optclient_pull(model, &all, 1, NULL, NULL));
    cr_expect_float_eq(values[elements - 1], -(float)pushes, 0);
    optclient_close(client);
    free(values);
}

Test(surroundings, may_lack_any_of_the_standard_descriptors)
{
    daemon_prepare(close_standard);
    for (closed = 1; closed < 8; closed++) {
        struct daemon_process daemon;
        daemon_start(&daemon, NULL);
        train(daemon.address, 100, 2);
        daemon_stop(&daemon);
    }
}

/* ---------------------------------------------------------------- sizes of files */

static void limit_files(void)
{
    const struct rlimit limit = { 1 << 20, 1 << 20 };
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        _exit(126);
    }
}

Test(surroundings, may_limit_the_size_of_files_below_that_of_a_model)
{
    struct daemon_process daemon;
    char address[DAEMON_PATH + 32];
    daemon_prepare(limit_files);
    daemon_start(&daemon, NULL);
    snprintf(address, sizeof(address), "unix:%s/socket", daemon.directory);
    train(address, 1 << 20, 2);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- threads */

static rlim_t processes;

/* As a user who has no other processes; root has no limit. */
static void limit_threads(void)
{
    const struct rlimit limit = { processes, processes };
    uid_t user = 1000000 + (uid_t)getpid();
    if (prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE) != 0 ||
        prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN) != 0 ||
        setrlimit(RLIMIT_NPROC, &limit) != 0 || setresuid(user, 0, 0) != 0) {
        _exit(126);
    }
}

Test(surroundings, may_have_fewer_threads_than_wanted)
{
    static const char *const wanted[] = { "--threads", "8",       "--shared-threads",
                                          "12",        "--loops", "1",
                                          NULL };
    struct daemon_process daemon = { .pid = 0 };
    char address[DAEMON_PATH + 32];
    if (geteuid() != 0) {
        cr_skip_test("no right to be somebody else");
    }
    /* A sanitizer would look for leaks from a process more, which cannot be had. */
    const char *options = getenv("ASAN_OPTIONS");
    char without[512];
    if (options != NULL) {
        snprintf(without, sizeof without, "%s:detect_leaks=0", options);
        setenv("ASAN_OPTIONS", without, 1);
    }
    if (UNDER_THREAD_SANITIZER) {
        cr_skip_test("ThreadSanitizer takes a thread of its own");
    }
    daemon_prepare(limit_threads);
    /* All that it may have, from those without which it cannot be. */
    for (processes = 4; processes <= 15; processes++) {
        daemon_start(&daemon, wanted);
        cr_expect(processes == 15 ||
                  daemon_logged(&daemon, " threads_lowered ", WAIT_MS));
        train(daemon.address, 2 << 20, 2);
        snprintf(address, sizeof(address), "unix:%s/socket", daemon.directory);
        train(address, 2 << 20, 2);
        daemon_stop(&daemon);
    }
    for (processes = 1; processes < 4; processes++) {
        daemon_spawn(&daemon, (const char *[]){ "--listen", "127.0.0.1:0", "--loops",
                                                "1", "--threads", "8", NULL });
        cr_expect_eq(daemon_wait(&daemon, WAIT_MS), EXIT_UNAVAILABLE, "%lu",
                     (unsigned long)processes);
        daemon_remove(&daemon);
    }
}
