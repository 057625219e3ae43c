/* Networks that lose, hold up and reset: a worker in a network of its own, behind a
 * pair of virtual interfaces, and a packet filter between it and the daemon.
 *
 * The test's process, with the daemon, moves to a new network namespace, its child, the
 * far worker, to another; both vanish with their processes. That takes privileges:
 * where they are missing, the tests are skipped. Whole-number gradients and the history
 * tell what was applied.
 */
#define _GNU_SOURCE /* unshare */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/history.h"
#include "tests/support/worker_processes.h"

#define NEAR_ADDRESS "10.77.0.1"
#define FAR_ADDRESS "10.77.0.2"

enum {
    NUMBERS = 200,   /* pushes of the far worker, at most */
    COMMON = 400000, /* elements that each push adds to: 1.6 MB on the way */
    HALF_OPEN_MS = 15000,
    STEP_MS = 20000, /* until anything else must have happened */
    LOOK_MS = 20     /* how often a state is looked at that nobody announces */
};

enum order { PUSH = 'p', SOCKET_GONE = 's', RECONNECTS = 'r', QUIT = 'q' };

static const uint64_t own_shape[] = { NUMBERS };
static const uint64_t common_shape[] = { COMMON };
static const struct optclient_tensor tensors[] = {
    { .name = "own", .shape = own_shape, .rank = 1 },
    { .name = "common", .shape = common_shape, .rank = 1 },
};

static struct daemon_process server;
static struct history *history;
static int orders[2]; /* a pipe to the far worker */
static struct process far_worker;
static struct optclient *near_client;

/* ---------------------------------------------------------------- commands */

static bool run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *format, ...)
{
    char command[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    fflush(NULL);
    return system(command) == 0; /* NOLINT: of our own making, as root */
}

#define must_run(...) cr_assert(run(__VA_ARGS__), "a command failed")

/* Packets that the rules of the packet filter have met. */
static bool filter_has_met(const char *target)
{
    return run("iptables -nvxL | awk '$3 == \"%s\" && $1 > 0 { found = 1 } "
               "END { exit !found }'",
               target);
}

/* The kernel tells nobody when a packet is dropped, or a connection given up; so it is
 * asked every so often, as long as the caller's deadline says. */
static void look_again(void)
{
    usleep(LOOK_MS * 1000);
}

/* ---------------------------------------------------------------- the far worker */

/* Whether a connection of this namespace is established. */
static bool has_connection(void)
{
    char line[256];
    bool found = false;
    FILE *table = fopen("/proc/self/net/tcp", "re");
    require(table != NULL);
    while (fgets(line, sizeof(line), table) != NULL) {
        char remote[16];
        unsigned state = 0;
        found |= sscanf(line, " %*d: %*s %15s %x", remote, &state) == 2 && state == 1;
    }
    fclose(table);
    return found;
}

/* Push once, again if it was refused. */
static void push_once(struct optclient_model *model)
{
    static float own[NUMBERS], common[COMMON];
    struct optclient_values values[] = { { .tensor = 0, .values = own },
                                         { .tensor = 1, .values = common } };
    enum optclient_status status = OPTCLIENT_ABORTED;
    for (size_t i = 0; i < COMMON; i++) {
        common[i] = 1.0f;
    }
    while (status == OPTCLIENT_ABORTED) {
        struct optclient_result result = { 0 };
        unsigned push = history_begin(history, 0);
        require(push < NUMBERS);
        own[push] = 1.0f;
        status = optclient_push(model, values, 2, NULL, &result);
        own[push] = 0.0f;
        require(status == OPTCLIENT_OK || status == OPTCLIENT_ABORTED);
        history_told(history, 0, push, &result);
    }
}

static void obey(struct optclient *client, struct optclient_model *model, int events)
{
    char order;
    while (read(orders[0], &order, 1) == 1) {
        struct optclient_usage usage;
        switch ((enum order)order) {
        case PUSH:
            push_once(model);
            tell(events, PUSH);
            break;
        case SOCKET_GONE:
            while (has_connection()) {
                look_again();
            }
            tell(events, SOCKET_GONE);
            break;
        case RECONNECTS:
            optclient_usage(client, &usage);
            tell(events, (int32_t)usage.reconnects);
            break;
        case QUIT:
            optclient_model_close(model);
            optclient_close(client);
            tell(events, QUIT);
            _exit(0);
        }
    }
}

static void be_far_away(int events)
{
    char address[32], configured;
    struct optclient_options options = test_options();
    const struct optclient_policy async = { .mode = OPTCLIENT_ASYNC };
    struct optclient *client;
    struct optclient_model *model;
    require(unshare(CLONE_NEWNET) == 0);
    tell(events, 1);
    require(read(orders[0], &configured, 1) == 1);
    require(run("ip addr add " FAR_ADDRESS "/24 dev far && ip link set far up"));
    snprintf(address, sizeof(address), NEAR_ADDRESS ":%u", (unsigned)server.port);
    options.worker = "far";
    options.timeout_ms = 60000;
    require(optclient_connect(address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, "m", "sgd(lr=1)", &async, tensors, 2, NULL,
                             &model) == OPTCLIENT_OK);
    tell(events, 2);
    obey(client, model, events);
    _exit(1);
}

static void say(enum order order)
{
    char byte = (char)order;
    cr_assert_eq(write(orders[1], &byte, 1), 1);
}

static int32_t ask(enum order order)
{
    say(order);
    return await(&far_worker);
}

/* ---------------------------------------------------------------- the scene */

static void open_network(const char *const *settings)
{
    const char *options[16] = { "--listen", "0.0.0.0:0", "--insecure" };
    size_t count = 3;
    for (; settings != NULL && settings[count - 3] != NULL; count++) {
        options[count] = settings[count - 3];
    }
    if (unshare(CLONE_NEWNET) != 0) {
        cr_skip_test("network namespaces are not permitted: %s", strerror(errno));
    }
    must_run("ip link set lo up");
    daemon_start(&server, options);
    history = history_new(1, NUMBERS);
    cr_assert_eq(pipe(orders), 0);
    far_worker = spawn(be_far_away);
    cr_assert_eq(await(&far_worker), 1);
    must_run("ip link add near type veth peer name far netns %ld && "
             "ip addr add " NEAR_ADDRESS "/24 dev near && ip link set near up",
             (long)far_worker.pid);
    cr_assert_eq(write(orders[1], "c", 1), 1);
    cr_assert_eq(await(&far_worker), 2);
    char address[32];
    struct optclient_options wanted = test_options();
    wanted.worker = "";
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)server.port);
    near_client = test_connect(address, &wanted);
}

static void expect_history(void)
{
    static float own[NUMBERS], common[COMMON];
    struct optclient_values values[] = { { .tensor = 0, .values = own },
                                         { .tensor = 1, .values = common } };
    struct optclient_model *model;
    struct history_verdict verdict;
    expect_ok(optclient_open(near_client, "m", 0, &model));
    expect_ok(optclient_pull(model, values, 2, NULL, NULL));
    for (size_t i = 0; i < NUMBERS; i++) {
        own[i] = 0.0f - own[i];
    }
    history_judge(history, own, 1, false, &verdict);
    cr_assert(verdict.problem[0] == '\0', "%s", verdict.problem);
    cr_assert_eq(verdict.unknown, 0);
    for (size_t i = 0; i < COMMON; i++) {
        cr_assert_eq(common[i], -(float)verdict.acknowledged);
    }
}

static void close_network(void)
{
    cr_assert_eq(ask(QUIT), QUIT);
    reap(&far_worker, 0);
    expect_history();
    optclient_close(near_client);
    daemon_stop(&server);
    history_free(history);
}

static bool far_is_connected(void)
{
    struct optclient_description *description;
    bool connected = false;
    expect_ok(optclient_describe(near_client, "m", &description));
    for (size_t i = 0; i < description->worker_count; i++) {
        connected |= description->workers[i].connected != 0;
    }
    optclient_description_free(description);
    return connected;
}

/* Until the daemon has given the connection up, and then the far worker too. */
static void expect_given_up(uint64_t limit_ms)
{
    uint64_t start = test_now_ms();
    say(SOCKET_GONE);
    while (far_is_connected()) {
        cr_assert_lt(test_now_ms() - start, limit_ms, "the daemon still believes");
        look_again();
    }
    cr_assert_eq(await(&far_worker), SOCKET_GONE);
    cr_assert_lt(test_now_ms() - start, limit_ms, "the worker believed too long");
}

#define DROP_BOTH_WAYS                                                                 \
    "iptables -A INPUT -i near -j DROP && iptables -A OUTPUT -o near -j DROP"

/* ---------------------------------------------------------------- half open */

Test(network, half_open_connections_are_closed_at_both_ends, .timeout = 60)
{
    open_network(NULL); /* the daemon's defaults */
    cr_assert_eq(ask(PUSH), PUSH);
    must_run(DROP_BOTH_WAYS);
    expect_given_up(HALF_OPEN_MS);
    must_run("iptables -F");
    cr_assert_eq(ask(PUSH), PUSH);
    close_network();
}

Test(network, connections_over_a_link_that_went_down_are_closed_at_both_ends,
     .timeout = 60)
{
    open_network(NULL);
    cr_assert_eq(ask(PUSH), PUSH);
    must_run("ip link set near down");
    expect_given_up(HALF_OPEN_MS);
    must_run("ip link set near up");
    cr_assert_eq(ask(PUSH), PUSH);
    close_network();
}

/* A push is on its way when everything stops. */
Test(network, half_open_connections_with_a_push_half_sent_are_closed_at_both_ends,
     .timeout = 60)
{
    open_network(NULL);
    cr_assert_eq(ask(PUSH), PUSH);
    must_run("iptables -A INPUT -i near -m quota --quota 300000 -j ACCEPT && "
             "iptables -A INPUT -i near -j DROP && iptables -A OUTPUT -o near -j DROP");
    say(PUSH);
    uint64_t start = test_now_ms();
    while (far_is_connected()) {
        cr_assert_lt(test_now_ms() - start, HALF_OPEN_MS, "the daemon still believes");
        look_again();
    }
    must_run("iptables -F");
    cr_assert_eq(await(&far_worker), PUSH);
    cr_assert_gt(ask(RECONNECTS), 0);
    close_network();
}

/* The worker is heard, but what it is told does not arrive: leases, which are long
 * here, would not notice. */
Test(network, connections_whose_answers_do_not_arrive_are_closed, .timeout = 60)
{
    open_network((const char *[]){ "--lease", "60s", "--heartbeat", "1s", NULL });
    cr_assert_eq(ask(PUSH), PUSH);
    /* Behind the link: TCP does not count what the own machine's filter keeps back. */
    must_run("nsenter -t %ld -n iptables -A INPUT -p tcp --tcp-flags PSH PSH -j DROP",
             (long)far_worker.pid);
    say(PUSH);
    uint64_t start = test_now_ms();
    while (far_is_connected()) {
        cr_assert_lt(test_now_ms() - start, HALF_OPEN_MS, "the daemon still believes");
        look_again();
    }
    must_run("nsenter -t %ld -n iptables -F", (long)far_worker.pid);
    cr_assert_eq(await(&far_worker), PUSH);
    cr_assert_gt(ask(RECONNECTS), 0);
    close_network();
}

/* ---------------------------------------------------------------- partitions */

Test(network, a_partition_of_three_seconds_only_takes_time, .timeout = 60)
{
    open_network(NULL);
    cr_assert_eq(ask(PUSH), PUSH);
    must_run(DROP_BOTH_WAYS);
    say(PUSH);
    for (uint64_t start = test_now_ms(); test_now_ms() - start < 3000;) {
        cr_assert(far_is_connected());
        look_again();
    }
    must_run("iptables -F");
    cr_assert_eq(await(&far_worker), PUSH);
    cr_assert_eq(ask(RECONNECTS), 0);
    close_network();
}

/* Longer than lease, grace and TCP's own patience, which are six times shorter here
 * than by default. */
Test(network, a_long_partition_ends_in_a_new_connection_and_no_push_counts_twice,
     .timeout = 60)
{
    static const char *const shorter[] = { "--lease",        "900ms",   "--heartbeat",
                                           "150ms",          "--grace", "900ms",
                                           "--user-timeout", "1700ms",  NULL };
    open_network(shorter);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ask(PUSH), PUSH);
        must_run(DROP_BOTH_WAYS);
        say(PUSH);
        for (uint64_t start = test_now_ms(); test_now_ms() - start < 5000;) {
            far_is_connected();
            look_again();
        }
        cr_assert_not(far_is_connected());
        must_run("iptables -F");
        cr_assert_eq(await(&far_worker), PUSH);
        cr_assert_gt(ask(RECONNECTS), i);
    }
    close_network();
}

/* ---------------------------------------------------------------- loss and resets */

Test(network, loss_of_one_packet_in_twenty_is_only_slower, .timeout = 60)
{
    open_network(NULL);
    must_run("iptables -A INPUT -i near -m statistic --mode random --probability 0.05 "
             "-j DROP && iptables -A OUTPUT -o near -m statistic --mode random "
             "--probability 0.05 -j DROP");
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(ask(PUSH), PUSH);
    }
    cr_assert(filter_has_met("DROP"), "nothing was lost");
    close_network();
}

Test(network, resets_in_the_middle_of_a_frame_cost_a_connection_and_no_push,
     .timeout = 60)
{
    static const unsigned after[] = { 1000, 100000, 500000, 1300000 };
    open_network(NULL);
    for (size_t i = 0; i < sizeof(after) / sizeof(*after); i++) {
        must_run("iptables -A INPUT -i near -m quota --quota %u -j ACCEPT && "
                 "iptables -A INPUT -i near -p tcp -j REJECT --reject-with tcp-reset",
                 after[i]);
        say(PUSH);
        while (!filter_has_met("REJECT")) {
            look_again();
        }
        must_run("iptables -F");
        cr_assert_eq(await(&far_worker), PUSH);
        cr_assert_gt(ask(RECONNECTS), (int32_t)i);
    }
    close_network();
}
