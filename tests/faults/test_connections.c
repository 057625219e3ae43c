/* Connections in numbers: what idle ones cost, what happens at the limit, and that none
 * leaves a descriptor behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

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

/* ---------------------------------------------------------------- a long answer */

enum { LARGE = 20 << 20, READS = 10, TICK_MS = 250 };

static uint32_t create_large(int socket)
{
    static const uint64_t shape[] = { LARGE };
    const struct opt_tensor_entry tensor = { .name = "w", .shape = shape, .rank = 1 };
    uint8_t table[64];
    size_t size = opt_tensor_table_pack(&tensor, 1, table, sizeof(table));
    const struct opt_request create = {
        .id = 1,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "m",
                         .specification = { .expression = "sgd(lr=1)", .rule = "" },
                         .consistency = { .min_workers = 1 } },
    };
    struct raw_reply reply;
    cr_assert(raw_request(socket, &create, table, size));
    cr_assert(raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    uint32_t model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    return model;
}

static void read_bytes(int socket, size_t size)
{
    static uint8_t bytes[1 << 16];
    while (size > 0) {
        ssize_t got =
            recv(socket, bytes, size < sizeof(bytes) ? size : sizeof(bytes), 0);
        cr_assert_gt(got, 0, "the daemon has cut the connection");
        size -= (size_t)got;
    }
}

/* The worker says nothing, but it reads, and at a rate at which about as much is left
 * to be written whenever the daemon looks: a frame from one look to the next. */
Test(connections, who_takes_in_a_long_answer_is_not_silent)
{
    static const char *const brisk[] = { "--lease", "600ms", "--heartbeat", "100ms",
                                         NULL };
    struct daemon_process daemon;
    daemon_start(&daemon, brisk);
    int socket = raw_connect(daemon.port);
    raw_hello(socket, "w");
    const struct opt_request pull = { .id = 2,
                                      .message = OPT_MESSAGE_PULL,
                                      .body.pull = { .model = create_large(socket),
                                                     .slot = "" } };
    cr_assert(raw_request(socket, &pull, NULL, 0));
    uint64_t begin = test_now_ms();
    for (uint64_t i = 1; i <= 10 * READS; i++) {
        read_bytes(socket, OPT_CHUNK_BYTES / READS);
        uint64_t due = begin + i * TICK_MS / READS;
        uint64_t now = test_now_ms();
        if (now < due) { /* no wait for anything: this is the reader's pace */
            usleep((useconds_t)(due - now) * 1000);
        }
    }
    int observer = raw_connect(daemon.port);
    raw_hello(observer, "");
    cr_assert_eq(raw_counter(observer, "leases_expired"), 0);
    close(observer);
    close(socket);
    daemon_stop(&daemon);
}

static void join(int socket)
{
    const struct opt_request open = { .id = 3,
                                      .message = OPT_MESSAGE_OPEN,
                                      .body.open = { .model = "m", .join = true } };
    struct raw_reply reply;
    cr_assert(raw_request(socket, &open, NULL, 0));
    cr_assert(raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    raw_reply_fini(&reply);
}

/* One worker says something while the daemon is stopped, another one, whose connection
 * broke just before, is back: both have kept the time that they have. */
Test(connections, keep_their_workers_while_the_daemon_is_stopped, .timeout = 60)
{
    enum { ALLOWED_MS = 2000 };
    static const char *const brisk[] = { "--lease", "2s", "--heartbeat", "200ms",
                                         "--grace", "2s", NULL };
    const struct opt_request hello = { .id = 1,
                                       .message = OPT_MESSAGE_HELLO,
                                       .body.hello = { .protocol = OPT_PROTOCOL,
                                                       .worker = "back",
                                                       .session = 1,
                                                       .client = "raw" } };
    const struct opt_request heartbeat = { .id = 4, .message = OPT_MESSAGE_HEARTBEAT };
    struct daemon_process daemon;
    struct raw_reply reply;
    daemon_start(&daemon, brisk);
    int observer = raw_connect(daemon.port), stays = raw_connect(daemon.port);
    int back = raw_connect(daemon.port);
    raw_hello(observer, "");
    raw_hello(stays, "stays");
    raw_hello(back, "back");
    create_large(stays);
    join(stays);
    join(back);
    close(back);
    cr_assert(daemon_logged(&daemon, "connection_closed", RAW_WAIT_MS));
    raw_heartbeat(observer, 1); /* behind the end of the connection */

    daemon_signal(&daemon, SIGSTOP);
    uint64_t begin = test_now_ms();
    back = raw_connect(daemon.port);
    cr_assert(raw_request(back, &hello, NULL, 0));
    cr_assert(raw_request(stays, &heartbeat, NULL, 0));
    while (test_now_ms() - begin < ALLOWED_MS * 3 / 2) {
        poll(NULL, 0, TICK_MS); /* no wait for anything: so long it is stopped */
    }
    daemon_signal(&daemon, SIGCONT);

    cr_assert(raw_receive(back, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_HELLO);
    cr_expect_eq(reply.reply.body.hello.incarnation, 1, "it was taken for dead: %s",
                 reply.reply.body.hello.lost);
    raw_reply_fini(&reply);
    cr_assert(raw_receive(stays, &reply));
    cr_expect_eq(reply.reply.message, OPT_MESSAGE_HEARTBEAT);
    raw_reply_fini(&reply);
    cr_expect_eq(raw_counter(observer, "leases_expired"), 0);
    cr_expect_eq(raw_counter(observer, "workers_lost"), 0);
    close(observer);
    close(stays);
    close(back);
    daemon_stop(&daemon);
}
