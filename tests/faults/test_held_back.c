/* Connections that the daemon does not read from for a while, because what they have
 * sent already waits for others: who is dead is noticed all the same, who lives is told
 * that the daemon does, and nobody is taken for dead who is not.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum {
    ELEMENTS = 1 << 20, /* 4 MiB a push, in one frame */
    AHEAD = 8,          /* pushes: more than a worker may have in flight */
    EVENT_MS = 30000,
    LEASE_MS = 600
};

static const char *const brisk[] = { "--lease",
                                     "600ms",
                                     "--heartbeat",
                                     "100ms",
                                     "--grace",
                                     "200ms",
                                     "--connection-inflight",
                                     "8MiB",
                                     "--max-frame",
                                     "8MiB",
                                     NULL };
/* The same, but silence alone would be noticed too late. */
static const char *const patient[] = { "--lease", "600s",  "--heartbeat", "100ms",
                                       "--grace", "200ms", NULL };

static struct optclient *join(const struct daemon_process *daemon, const char *name,
                              struct optclient_model **model)
{
    struct optclient_options options = test_options();
    const uint64_t shape = ELEMENTS;
    const struct optclient_tensor tensor = { .name = "w", .shape = &shape, .rank = 1 };
    const struct optclient_policy policy = { .min_workers = 2 };
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon->port);
    options.worker = name;
    options.timeout_ms = EVENT_MS;
    options.no_shared_memory = 1;
    struct optclient *client;
    require(optclient_connect(address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, "m", "sgd(lr=1, aggregate=sum)", &policy, &tensor,
                             1, NULL, model) == OPTCLIENT_OK);
    return client;
}

static void await_counter(struct optclient *client, const char *name, uint64_t value)
{
    uint64_t limit = test_now_ms() + EVENT_MS;
    while (test_counter(client, name) < value) {
        cr_assert_lt(test_now_ms(), limit, "%s is not %lu", name, (unsigned long)value);
    }
}

/* ---------------------------------------------------------------- other clients */

/* A client that keeps to no bounds: it joins "m" as worker "a" and pushes until nothing
 * more leaves and the daemon has stopped reading. Returns its socket. */
static int push_until_held_back(const struct daemon_process *daemon,
                                struct optclient *other)
{
    static float gradient[ELEMENTS];
    int socket = raw_connect(daemon->port);
    raw_hello(socket, "a");
    struct opt_request open = { .id = 2,
                                .message = OPT_MESSAGE_OPEN,
                                .body.open = { .model = "m", .join = true } };
    struct raw_reply reply;
    cr_assert(raw_request(socket, &open, NULL, 0) && raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    struct opt_segment all = { .tensor = 0, .offset = 0, .count = ELEMENTS };
    struct opt_request push = { .id = 3,
                                .message = OPT_MESSAGE_PUSH,
                                .body.push = { .model = reply.reply.body.model.model,
                                               .segments = &all,
                                               .segment_count = 1,
                                               .last = true } };
    raw_reply_fini(&reply);
    size_t size = 0, sent = 0;
    uint8_t *frame = NULL;
    uint64_t limit = test_now_ms() + EVENT_MS;
    for (bool stuck = false; !stuck || test_counter(other, "read_pauses") == 0;) {
        cr_assert_lt(test_now_ms(), limit, "the daemon goes on reading");
        if (sent == size) {
            free(frame);
            push.id++;
            push.body.push.sequence++;
            frame = raw_frame(&push, gradient, sizeof(gradient), &size);
            sent = 0;
        }
        ssize_t some =
            send(socket, frame + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        cr_assert(some > 0 || errno == EAGAIN, "%s", strerror(errno));
        sent += some > 0 ? (size_t)some : 0;
        stuck = some < 0;
    }
    free(frame);
    return socket;
}

/* What its kernel has not delivered keeps the end of its connection from arriving, too.
 */
Test(held_back, a_worker_that_dies_is_noticed_while_nobody_reads_from_it, .timeout = 90)
{
    struct daemon_process daemon;
    struct optclient_model *model;
    struct optclient_result result = { 0 };
    daemon_start(&daemon, patient);
    struct optclient *other = join(&daemon, "b", &model);
    int socket = push_until_held_back(&daemon, other);
    close(socket);
    expect_ok(optclient_barrier(model, EVENT_MS, &result));
    char name[8];
    cr_assert_eq(result.lost, 1);
    cr_assert(optclient_lost(model, name, sizeof(name)));
    cr_assert_str_eq(name, "a");
    optclient_close(other);
    daemon_stop(&daemon);
}

Test(held_back, a_worker_is_told_that_the_daemon_lives_and_is_not_lost, .timeout = 90)
{
    struct daemon_process daemon;
    struct optclient_model *model;
    daemon_start(&daemon, brisk);
    struct optclient *other = join(&daemon, "b", &model);
    int socket = push_until_held_back(&daemon, other);
    /* It cannot say anything for much longer than its lease. */
    uint64_t begin = test_now_ms();
    unsigned beats = 0;
    while (test_now_ms() - begin < 3 * LEASE_MS) {
        struct raw_reply reply;
        cr_assert(raw_receive(socket, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_HEARTBEAT);
        cr_assert_eq(reply.reply.id, 0);
        raw_reply_fini(&reply);
        beats++;
    }
    cr_assert_gt(beats, 2);
    cr_assert_eq(test_counter(other, "leases_expired"), 0);
    /* And what it has pushed counts. */
    float *zeros = calloc(ELEMENTS, sizeof(float));
    struct optclient_values values = { .values = zeros };
    struct optclient_result result;
    expect_ok(optclient_push(model, &values, 1, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    free(zeros);
    close(socket);
    optclient_close(other);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- the library */

static void start_ahead(struct optclient_model *model, const float *gradient,
                        struct optclient_call *calls[AHEAD])
{
    struct optclient_values values = { .values = (float *)gradient };
    for (int i = 0; i < AHEAD; i++) {
        require(optclient_push_start(model, &values, 1, NULL, NULL, NULL, &calls[i]) ==
                OPTCLIENT_OK);
    }
}

Test(held_back, a_worker_that_pushes_ahead_keeps_its_connection, .timeout = 90)
{
    struct daemon_process daemon;
    struct optclient_model *ahead, *behind;
    struct optclient_call *calls[AHEAD];
    struct optclient_result result;
    struct optclient_usage usage;
    float *ones = malloc(ELEMENTS * sizeof(float)), *zeros = calloc(ELEMENTS, 4);
    for (size_t i = 0; i < ELEMENTS; i++) {
        ones[i] = 1;
    }
    daemon_start(&daemon, brisk);
    struct optclient *a = join(&daemon, "a", &ahead), *b = join(&daemon, "b", &behind);
    start_ahead(ahead, ones, calls);
    /* b takes its time, much longer than a lease. */
    expect_status(optclient_wait_step(behind, 1, 4 * LEASE_MS, &result),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_eq(test_counter(b, "read_pauses"), 0, "it keeps to what it was granted");
    struct optclient_values values = { .values = zeros };
    for (int i = 0; i < AHEAD; i++) {
        expect_ok(optclient_push(behind, &values, 1, NULL, NULL));
        expect_ok(optclient_call_wait(calls[i], &result));
        cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
        optclient_call_free(calls[i]);
    }
    optclient_usage(a, &usage);
    cr_assert_eq(usage.reconnects, 0);
    cr_assert_lt(usage.bytes_sent, (uint64_t)(AHEAD + 1) * ELEMENTS * sizeof(float));
    values.values = ones;
    expect_ok(optclient_pull(behind, &values, 1, NULL, NULL));
    cr_assert_eq(ones[0], -AHEAD);
    optclient_close(a);
    optclient_close(b);
    free(ones);
    free(zeros);
    daemon_stop(&daemon);
}

/* A process that does not run is silent, however much it has pushed before. */
Test(held_back, a_worker_that_is_stopped_is_lost_after_its_lease, .timeout = 90)
{
    struct daemon_process daemon;
    struct optclient_model *model;
    int told[2];
    char byte = 0;
    daemon_start(&daemon, brisk);
    cr_assert_eq(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        static float gradient[ELEMENTS];
        struct optclient_call *calls[AHEAD];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)join(&daemon, "a", &model);
        start_ahead(model, gradient, calls);
        require(write(told[1], &byte, 1) == 1);
        for (;;) {
            pause();
        }
    }
    struct optclient *other = join(&daemon, "b", &model);
    struct optclient_result result = { 0 };
    cr_assert_eq(read(told[0], &byte, 1), 1);
    await_counter(other, "bytes_received", (uint64_t)ELEMENTS * sizeof(float));
    cr_assert_eq(kill(child, SIGSTOP), 0);
    expect_ok(optclient_barrier(model, EVENT_MS, &result));
    cr_assert_eq(result.lost, 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(told[0]);
    close(told[1]);
    optclient_close(other);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- the end */

/* Announces more data than there is room for with another such beside it. */
static int announce(const struct daemon_process *daemon, const char *name,
                    uint32_t model, size_t size)
{
    struct opt_segment all = { .tensor = 0 };
    struct opt_request push = { .id = 3,
                                .message = OPT_MESSAGE_PUSH,
                                .body.push = { .model = model,
                                               .sequence = 1,
                                               .segments = &all,
                                               .segment_count = 1,
                                               .last = true } };
    uint8_t *data = calloc(size, 1);
    size_t length;
    uint8_t *frame = raw_frame(&push, data, size, &length);
    int socket = raw_connect(daemon->port);
    raw_hello(socket, name);
    cr_assert(raw_send(socket, frame, length - size));
    free(frame);
    free(data);
    return socket;
}

Test(held_back, the_daemon_stops_while_somebody_waits_for_room, .timeout = 60)
{
    static const char *const small[] = {
        "--max-frame",           "1MiB", "--inflight", "1MiB",
        "--connection-inflight", "1MiB", NULL
    };
    struct daemon_process daemon;
    struct optclient_options options = test_options();
    struct optclient_model *model;
    daemon_start(&daemon, small);
    options.no_shared_memory = 1;
    struct optclient *witness = test_connect(daemon.address, &options);
    struct shapes shapes = shapes_new(1, 1 << 18);
    model = test_create(witness, "m", &shapes);
    (void)model;
    int waits = raw_connect(daemon.port);
    raw_hello(waits, "");
    struct opt_request open = { .id = 2,
                                .message = OPT_MESSAGE_OPEN,
                                .body.open = { .model = "m" } };
    struct raw_reply reply;
    cr_assert(raw_request(waits, &open, NULL, 0) && raw_receive(waits, &reply));
    uint32_t number = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    struct opt_request wait = { .id = 5,
                                .message = OPT_MESSAGE_WAIT,
                                .body.wait = { .model = number, .step = 10 } };
    cr_assert(raw_request(waits, &wait, NULL, 0));
    int first = announce(&daemon, "first", number, 900000);
    int second = announce(&daemon, "second", number, 900000);
    await_counter(witness, "read_pauses", 1);
    kill(daemon.pid, SIGTERM);
    raw_expect_error(waits, 5, OPT_UNAVAILABLE, "stopping");
    cr_assert_eq(daemon_wait(&daemon, DAEMON_WAIT_MS), 0);
    close(waits);
    close(first);
    close(second);
    optclient_close(witness);
    shapes_free(&shapes);
    daemon_remove(&daemon);
}
