/* Workers that die or freeze: nobody else waits longer than grace or lease, and what
 * counted is exactly what was acknowledged.
 *
 * Gradients are whole numbers, summed by sgd with learning rate 1, so that the weights
 * tell which pushes took effect. The workers that suffer are processes of their own.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/end_to_end/daemon.h"
#include "tests/end_to_end/raw.h"

enum { ELEMENTS = 3 * 16384 + 5, TIMEOUT_MS = 20000, EVENT_MS = 20000 };

static const uint64_t shape[] = { ELEMENTS };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };
static const char specification[] = "sgd(lr=1, aggregate=sum)";
static const char *const daemon_options[] = { "--lease", "1s", "--grace", "500ms",
                                              NULL };
static const char *const patient[] = { "--grace", "60s", NULL };

/* ---------------------------------------------------------------- a worker */

static struct daemon_process server;

struct worker {
    struct optclient *client;
    struct optclient_model *model;
    float *gradient;
    int64_t acknowledged; /* sum of what was applied */
};

static bool worker_start(struct worker *worker, const char *name)
{
    struct optclient_options options = optclient_options_default();
    const struct optclient_policy policy = { .min_workers = 2 };
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    *worker = (struct worker){ .gradient = calloc(ELEMENTS, sizeof(float)) };
    return worker->gradient != NULL &&
           optclient_connect(server.address, &options, &worker->client) ==
               OPTCLIENT_OK &&
           optclient_create(worker->client, "model", specification, &policy, &tensor, 1,
                            NULL, &worker->model) == OPTCLIENT_OK;
}

/* Push the same number for every element. */
static bool worker_push(struct worker *worker, int number)
{
    struct optclient_values values = { .values = worker->gradient };
    struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
    for (size_t i = 0; i < ELEMENTS; i++) {
        worker->gradient[i] = (float)number;
    }
    enum optclient_status status =
        optclient_push(worker->model, &values, 1, NULL, &result);
    if (status != OPTCLIENT_OK ||
        (result.fate != OPTCLIENT_APPLIED && result.fate != OPTCLIENT_DUPLICATE)) {
        fprintf(stderr, "push: %s\n", optclient_error());
        return false;
    }
    worker->acknowledged += number;
    return true;
}

static void worker_stop(struct worker *worker)
{
    optclient_model_close(worker->model);
    optclient_close(worker->client);
    free(worker->gradient);
}

/* The weights are minus the sum of all that was applied, in every element. */
static void expect_sum(struct worker *worker, int64_t sum)
{
    struct optclient_values values = { .values = worker->gradient };
    size_t wrong = 0;
    cr_assert_eq(optclient_pull(worker->model, &values, 1, NULL, NULL), OPTCLIENT_OK,
                 "%s", optclient_error());
    for (size_t i = 0; i < ELEMENTS; i++) {
        wrong += worker->gradient[i] != (float)-sum;
    }
    cr_expect_eq(wrong, 0, "%zu elements are wrong; the first is %g, not %g", wrong,
                 (double)worker->gradient[0], (double)-sum);
}

/* ---------------------------------------------------------------- processes */

struct process {
    pid_t pid;
    int events; /* bytes that it writes when something has happened */
};

static struct process spawn(void (*body)(int events))
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        if (getppid() == parent) {
            body(ends[1]);
        }
        _exit(1);
    }
    close(ends[1]);
    return (struct process){ .pid = pid, .events = ends[0] };
}

static void tell(int events, int32_t what)
{
    if (write(events, &what, sizeof(what)) != (ssize_t)sizeof(what)) {
        _exit(2);
    }
}

static int32_t await(const struct process *process)
{
    struct pollfd ready = { .fd = process->events, .events = POLLIN };
    int32_t what = -1;
    cr_assert_eq(poll(&ready, 1, EVENT_MS), 1, "nothing happened");
    cr_assert_eq(read(process->events, &what, sizeof(what)), (ssize_t)sizeof(what),
                 "the worker has ended");
    return what;
}

static void reap(struct process *process, int number)
{
    int status;
    if (number != 0) {
        cr_assert_eq(kill(process->pid, number), 0);
    }
    cr_assert_eq(waitpid(process->pid, &status, 0), process->pid);
    if (number == 0) {
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    }
    close(process->events);
}

/* Takes part in one round and then computes for ever. */
static void one_round(int events)
{
    struct worker worker;
    if (!worker_start(&worker, "b") || !worker_push(&worker, 10)) {
        _exit(3);
    }
    tell(events, 1);
    pause();
}

/* Joins, and sends the first half of a push. */
static void half_a_push(int events)
{
    int fd = raw_connect(server.port);
    const struct opt_request open = {
        .id = 2,
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = "model", .join = true },
    };
    struct raw_reply reply;
    raw_hello(fd, "b");
    if (!raw_request(fd, &open, NULL, 0) || !raw_receive(fd, &reply)) {
        _exit(3);
    }
    const struct opt_segment segment = { .count = ELEMENTS };
    const struct opt_request push = {
        .id = 3,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = reply.reply.body.model.model,
                       .sequence = 1,
                       .samples = 1,
                       .segments = &segment,
                       .segment_count = 1,
                       .last = true },
    };
    float *values = calloc(ELEMENTS, sizeof(float));
    size_t size;
    uint8_t *frame = raw_frame(&push, values, ELEMENTS * sizeof(float), &size);
    for (size_t i = 0; values != NULL && i < ELEMENTS; i++) {
        values[i] = 1000.0f;
    }
    if (!raw_send(fd, frame, size / 2)) {
        _exit(3);
    }
    tell(events, 1);
    pause();
}

/* Pushes into a round that nobody closes. */
static void waits_in_a_round(int events)
{
    struct worker worker;
    struct optclient_call *call;
    if (!worker_start(&worker, "b")) {
        _exit(3);
    }
    struct optclient_values values = { .values = worker.gradient };
    optclient_push_start(worker.model, &values, 1, NULL, NULL, NULL, &call);
    tell(events, 1);
    pause();
}

enum { ROUNDS = 40 };

/* Pushes 1 in many rounds, says when the first few are over, and in the end how many
 * were acknowledged. */
static void many_rounds(int events)
{
    struct worker worker;
    if (!worker_start(&worker, "b")) {
        _exit(3);
    }
    for (int i = 0; i < ROUNDS; i++) {
        if (!worker_push(&worker, 1)) {
            _exit(4);
        }
        if (i == 2) {
            tell(events, 1);
        }
    }
    worker_stop(&worker);
    tell(events, (int32_t)worker.acknowledged);
    _exit(0);
}

/* Ask until the daemon says that the worker has pushed into the open round, and whether
 * it is connected. Every question is answered by the daemon, so this waits for it and
 * not for time. */
static void expect_pushed(const struct worker *worker, const char *name, int connected)
{
    for (int i = 0; i < 100000; i++) {
        struct optclient_description *description;
        bool found = false;
        cr_assert_eq(optclient_describe(worker->client, "model", &description),
                     OPTCLIENT_OK, "%s", optclient_error());
        for (size_t k = 0; k < description->worker_count; k++) {
            const struct optclient_worker_info *other = &description->workers[k];
            found = found || (strcmp(other->name, name) == 0 && other->pushed &&
                              other->connected == connected);
        }
        optclient_description_free(description);
        if (found) {
            return;
        }
    }
    cr_assert_fail("%s has not pushed, or is %sconnected", name,
                   connected ? "not " : "");
}

/* ---------------------------------------------------------------- tests */

Test(workers, one_killed_in_the_middle_of_a_round_is_not_waited_for, .timeout = 60)
{
    struct worker a;
    daemon_start(&server, daemon_options);
    struct process b = spawn(one_round);
    cr_assert(worker_start(&a, "a"), "%s", optclient_error());
    cr_assert(worker_push(&a, 1));
    cr_assert_eq(await(&b), 1);
    reap(&b, SIGKILL);
    cr_assert(worker_push(&a, 2));
    cr_assert(worker_push(&a, 3));
    expect_sum(&a, 1 + 10 + 2 + 3);
    worker_stop(&a);
    daemon_stop(&server);
}

Test(workers, one_killed_in_the_middle_of_a_push_leaves_nothing, .timeout = 60)
{
    struct worker a, again;
    daemon_start(&server, daemon_options);
    cr_assert(worker_start(&a, "a"), "%s", optclient_error());
    struct process b = spawn(half_a_push);
    cr_assert_eq(await(&b), 1);
    reap(&b, SIGKILL);
    cr_assert(worker_push(&a, 2));
    expect_sum(&a, 2);
    /* Somebody else under its name starts anew. */
    cr_assert(worker_start(&again, "b"), "%s", optclient_error());
    struct optclient_call *call;
    struct optclient_values values = { .values = again.gradient };
    for (size_t i = 0; i < ELEMENTS; i++) {
        again.gradient[i] = 5.0f;
    }
    cr_assert_eq(optclient_push_start(again.model, &values, 1, NULL, NULL, NULL, &call),
                 OPTCLIENT_OK);
    cr_assert(worker_push(&a, 3));
    cr_expect_eq(optclient_call_wait(call, NULL), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_call_free(call);
    expect_sum(&a, 2 + 3 + 5);
    worker_stop(&again);
    worker_stop(&a);
    daemon_stop(&server);
}

Test(workers, a_frozen_one_loses_its_lease_and_may_come_back, .timeout = 120)
{
    struct worker a;
    daemon_start(&server, daemon_options);
    struct process b = spawn(many_rounds);
    cr_assert(worker_start(&a, "a"), "%s", optclient_error());
    for (int i = 0; i < 4; i++) {
        cr_assert(worker_push(&a, 100));
    }
    cr_assert_eq(await(&b), 1);
    cr_assert_eq(kill(b.pid, SIGSTOP), 0);
    /* More rounds than it can have pushed for. */
    for (int i = 0; i < 4; i++) {
        cr_assert(worker_push(&a, 100));
    }
    cr_assert_eq(kill(b.pid, SIGCONT), 0);
    struct pollfd over = { .fd = b.events, .events = POLLIN };
    while (poll(&over, 1, 0) == 0) {
        cr_assert(worker_push(&a, 100));
    }
    int32_t acknowledged = await(&b);
    cr_expect_eq(acknowledged, ROUNDS);
    reap(&b, 0);
    cr_assert(worker_push(&a, 100));
    expect_sum(&a, a.acknowledged + acknowledged);
    worker_stop(&a);
    daemon_stop(&server);
}

Test(workers, those_that_die_in_a_round_do_not_keep_the_daemon_from_stopping,
     .timeout = 60)
{
    struct worker a;
    daemon_start(&server, patient);
    cr_assert(worker_start(&a, "a"), "%s", optclient_error());
    struct process b = spawn(waits_in_a_round);
    cr_assert_eq(await(&b), 1);
    expect_pushed(&a, "b", 1);
    reap(&b, SIGKILL);
    expect_pushed(&a, "b", 0);
    daemon_stop(&server); /* in order, which is 0 */
    worker_stop(&a);
}
