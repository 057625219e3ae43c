/* Connections in numbers: what idle ones cost, what happens at the limit, and that none
 * leaves a descriptor behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/client_models.h"
#include "tests/end_to_end/daemon.h"
#include "tests/end_to_end/raw.h"

enum {
    IDLE = 1000,
    IDLE_BYTES_MAX = 32 << 20,
    CHURN = 3000,
    CONNECTIONS = 8,
    CROWD = 200, /* beyond the limit at one moment */
    FEW_FILES = 100,
    FILES_KEPT = 64 /* by the daemon, for everything but connections */
};

/* Descriptors for this test's ends of the connections, and the daemon's own limit. */
static void allow_files(rlim_t files)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < files) {
        cr_skip("a process may have only %lu files here",
                (unsigned long)limit.rlim_max);
    }
    limit.rlim_cur = files;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static size_t files_of(const struct daemon_process *daemon)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)daemon->pid);
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

/* Until as many have come, and only the observer is left: each question waits for the
 * daemon. */
static void await_alone(int observer, uint64_t opened)
{
    uint64_t limit = test_now_ms() + 20000;
    while (raw_counter(observer, "connections_opened") < opened ||
           raw_counter(observer, "connections") > 1) {
        cr_assert_lt(test_now_ms(), limit, "connections are not closed");
    }
}

Test(connections, a_thousand_idle_ones_cost_little_memory, .timeout = 60)
{
    struct daemon_process daemon;
    static int sockets[IDLE];
    allow_files(IDLE + FILES_KEPT);
    daemon_start(&daemon, NULL);
    int observer = raw_connect(daemon.port);
    raw_hello(observer, "");
    size_t before = daemon_memory(&daemon);
    for (int i = 0; i < IDLE; i++) {
        sockets[i] = raw_connect(daemon.port);
        raw_hello(sockets[i], "");
    }
    cr_assert_eq(raw_counter(observer, "connections"), IDLE + 1);
    size_t after = daemon_memory(&daemon);
    cr_assert_lt(after, before + IDLE_BYTES_MAX, "%zu bytes", after - before);
    for (int i = 0; i < IDLE; i++) {
        close(sockets[i]);
    }
    await_alone(observer, 1 + IDLE);
    close(observer);
    daemon_stop(&daemon);
}

Test(connections, that_come_and_go_leave_no_descriptor, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int observer = raw_connect(daemon.port);
    raw_hello(observer, "");
    size_t before = files_of(&daemon);
    for (int i = 0; i < CHURN; i++) {
        int fd = raw_connect(daemon.port);
        if (i % 3 == 1) {
            raw_hello(fd, "");
        } else if (i % 3 == 2) {
            cr_assert(raw_send(fd, "\x20\x00", 2)); /* half a frame's length */
        }
        close(fd);
    }
    await_alone(observer, 1 + CHURN);
    cr_assert_eq(files_of(&daemon), before);
    close(observer);
    daemon_stop(&daemon);
}

/* The answer to one connection too many. */
static void expect_told(int fd)
{
    struct raw_reply reply;
    cr_assert(raw_receive(fd, &reply), "closed without a word");
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_ERROR);
    cr_assert_eq(reply.reply.id, 0);
    cr_assert_eq(reply.reply.body.error.status, OPT_RESOURCE_EXHAUSTED);
    cr_assert_gt(reply.reply.body.error.retry_after_ms, 0);
    cr_assert_not_null(strstr(reply.reply.body.error.text, "max-connections"));
    raw_reply_fini(&reply);
}

/* Fill a daemon's connections, and expect each one more to be told so. */
static void expect_limit(const struct daemon_process *daemon, int connections)
{
    int sockets[CONNECTIONS + FEW_FILES];
    for (int i = 0; i < connections; i++) {
        sockets[i] = raw_connect(daemon->port);
        raw_hello(sockets[i], "");
    }
    for (int i = 0; i < 3; i++) {
        int fd = raw_connect(daemon->port);
        expect_told(fd);
        close(fd);
    }
    for (int i = 0; i < connections; i++) {
        raw_heartbeat(sockets[i], 7); /* those that are in do not suffer */
        close(sockets[i]);
    }
}

Test(connections, beyond_the_limit_are_told_to_try_again)
{
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--max-connections", "8", NULL });
    expect_limit(&daemon, CONNECTIONS);
    daemon_stop(&daemon);
}

/* More at one moment than the daemon keeps sockets for, and they stay until all are in:
 * every one of them is told. */
Test(connections, beyond_the_limit_are_told_however_many_come_at_once)
{
    struct daemon_process daemon;
    static int sockets[CONNECTIONS], more[CROWD];
    daemon_start(&daemon, (const char *[]){ "--max-connections", "8", NULL });
    for (int i = 0; i < CONNECTIONS; i++) {
        sockets[i] = raw_connect(daemon.port);
        raw_hello(sockets[i], "");
    }
    size_t before = files_of(&daemon);
    for (int i = 0; i < CROWD; i++) {
        more[i] = raw_connect(daemon.port);
    }
    for (int i = 0; i < CROWD; i++) {
        expect_told(more[i]);
    }
    cr_expect_leq(files_of(&daemon), before + FILES_KEPT);
    for (int i = 0; i < CROWD; i++) {
        close(more[i]);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        raw_heartbeat(sockets[i], 7);
        close(sockets[i]);
    }
    daemon_stop(&daemon);
}

Test(connections, are_fewer_where_few_files_are_allowed)
{
    struct daemon_process daemon;
    struct rlimit few = { .rlim_cur = FEW_FILES, .rlim_max = FEW_FILES };
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    daemon_start(&daemon, NULL);
    cr_assert(daemon_logged(&daemon, "connections_lowered", DAEMON_WAIT_MS));
    expect_limit(&daemon, FEW_FILES - FILES_KEPT);
    daemon_stop(&daemon);
}

/* The library does what it is told: it comes back until there is room. */
Test(connections, of_the_library_wait_for_room)
{
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--max-connections", "1", NULL });
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon.port);
    int first = raw_connect(daemon.port);
    raw_hello(first, "");
    struct optclient_options options = test_options();
    options.connect_timeout_ms = 300;
    struct optclient *client;
    expect_status(optclient_connect(address, &options, &client),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_not_null(strstr(optclient_error(), "max-connections"), "%s",
                       optclient_error());
    close(first);
    client = test_connect(address, NULL);
    optclient_close(client);
    daemon_stop(&daemon);
}
