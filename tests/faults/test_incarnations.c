/* Workers that are replaced, taken for dead, cut off or slow: each learns what it is to
 * the daemon and what became of its pushes, and only those that are dead are taken for
 * it.
 *
 * Gradients are whole numbers, applied by sgd with learning rate 1 and summed, so that
 * the weights tell which pushes took effect.
 */
#define _GNU_SOURCE /* unshare */
#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

enum { ELEMENTS = 1000, EVENT_MS = 30000, HALF_OPEN_MS = 15000 };

static const char specification[] = "sgd(lr=1, aggregate=sum)";

static struct optclient *connect_to(const char *address, const char *name)
{
    struct optclient_options options = test_options();
    options.worker = name;
    options.timeout_ms = 20000;
    return test_connect(address, &options);
}

static struct optclient *connect_directly(const struct daemon_process *daemon,
                                          const char *name)
{
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon->port);
    return connect_to(address, name);
}

static struct optclient_model *join(struct optclient *client, uint64_t elements,
                                    uint32_t min_workers)
{
    const struct optclient_tensor tensor = { .name = "w",
                                             .shape = &elements,
                                             .rank = 1 };
    const struct optclient_policy policy = { .min_workers = min_workers };
    struct optclient_model *model;
    expect_ok(optclient_create(client, "m", specification, &policy, &tensor, 1, NULL,
                               &model));
    return model;
}

static void fill(float *gradient, float number)
{
    for (size_t i = 0; i < ELEMENTS; i++) {
        gradient[i] = number;
    }
}

static void expect_sum(struct optclient_model *model, float sum)
{
    float weights[ELEMENTS];
    struct optclient_values values = { .values = weights };
    expect_ok(optclient_pull(model, &values, 1, NULL, NULL));
    cr_assert_eq(weights[0], -sum, "%g was applied, not %g", (double)-weights[0],
                 (double)sum);
}

/* Ask until the counter is there: each question waits for the daemon, not for time. */
static void await_counter(struct optclient *client, const char *name, uint64_t value)
{
    uint64_t limit = test_now_ms() + EVENT_MS;
    while (test_counter(client, name) < value) {
        cr_assert_lt(test_now_ms(), limit, "%s is not %lu", name, (unsigned long)value);
    }
}

/* ---------------------------------------------------------------- names */

/* Process 1 of a namespace of its own, as in a container that has the host's name. It
 * lets the library choose its worker's name, and pushes when all are there. */
static int first_process(const struct daemon_process *daemon, int there, int go)
{
    struct optclient_options options = test_options();
    const uint64_t elements = ELEMENTS;
    const struct optclient_tensor tensor = { .name = "w",
                                             .shape = &elements,
                                             .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    struct optclient_model *model;
    char byte = getpid() == 1;
    fill(gradient, 1);
    struct optclient *client = test_connect(daemon->address, &options);
    require(optclient_create(client, "m", specification, &policy, &tensor, 1, NULL,
                             &model) == OPTCLIENT_OK);
    require(write(there, &byte, 1) == 1 && read(go, &byte, 1) == 1);
    return optclient_push(model, &values, 1, NULL, NULL) == OPTCLIENT_OK ? 0 : 1;
}

Test(incarnations, processes_of_one_number_on_one_host_have_names_of_their_own,
     .timeout = 60)
{
    struct daemon_process daemon;
    int there[2], go[2], status;
    pid_t children[2];
    char bytes[2] = { 0 };
    daemon_start(&daemon, NULL);
    cr_assert(pipe(there) == 0 && pipe(go) == 0);
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            /* Where it is not allowed, they are told apart by their numbers. */
            (void)unshare(CLONE_NEWPID);
            pid_t first = fork();
            if (first == 0) {
                _exit(first_process(&daemon, there[1], go[0]));
            }
            waitpid(first, &status, 0);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
        }
        cr_assert_eq(read(there[0], &bytes[i], 1), 1);
    }
    cr_assert_eq(write(go[1], bytes, 2), 2);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "worker %d was replaced by the other", i);
    }
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(go[i]);
    }
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- which model it is */

Test(incarnations, a_worker_keeps_its_model_over_a_change_of_options, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    fill(gradient, 1);
    struct optclient *worker = connect_to(proxy_address(proxy), "w");
    struct optclient_model *model = join(worker, ELEMENTS, 1);
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    struct optclient *person = connect_directly(&daemon, "");
    expect_ok(optclient_set(person, "m", "lr=2", 0, NULL));
    proxy_cut_after(proxy, 1, 0);
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    cr_assert_eq(proxy_cuts(proxy), 1);
    expect_sum(model, 3);
    /* And after it was taken for dead; it can be opened by its own text or the new one.
     */
    struct optclient *new = connect_directly(&daemon, "w");
    expect_sum(join(new, ELEMENTS, 1), 3);
    optclient_close(new);
    optclient_close(worker);
    optclient_close(person);
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

/* Same name, same definition, same number of updates, other weights. */
Test(incarnations, a_model_made_anew_is_not_taken_for_the_one_before, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    fill(gradient, 1);
    struct optclient *worker = connect_directly(&daemon, "w");
    struct optclient_model *model = join(worker, ELEMENTS, 1), *watched;
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    struct optclient *watcher = connect_to(proxy_address(proxy), "");
    expect_ok(optclient_open(watcher, "m", 0, &watched));
    expect_sum(watched, 1);
    expect_ok(optclient_delete(worker, "m"));
    optclient_model_close(model);
    fill(gradient, 5);
    model = join(worker, ELEMENTS, 1);
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    proxy_cut_after(proxy, 1, 0);
    expect_status(optclient_pull(watched, &values, 1, NULL, NULL), OPTCLIENT_NOT_FOUND);
    cr_assert_not_null(strstr(optclient_error(), "another one has its name"), "%s",
                       optclient_error());
    optclient_close(watcher);
    optclient_close(worker);
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- replaced */

/* The old process does not know yet that it was replaced when its connection breaks. */
Test(incarnations, a_replaced_process_does_not_take_its_name_back, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    fill(gradient, 1);
    struct optclient *old = connect_to(proxy_address(proxy), "w");
    struct optclient_model *olds = join(old, ELEMENTS, 1);
    expect_ok(optclient_push(olds, &values, 1, NULL, NULL));
    proxy_hold(proxy, 1);
    struct optclient *new = connect_directly(&daemon, "w");
    struct optclient_model *news = join(new, ELEMENTS, 1);
    proxy_cut_after(proxy, 1, 0);
    proxy_hold(proxy, 0);
    expect_status(optclient_push(olds, &values, 1, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    cr_assert_not_null(strstr(optclient_error(), "stale incarnation 1"), "%s",
                       optclient_error());
    cr_assert_eq(proxy_connections(proxy), 2, "it was told on its second connection");
    /* And it stays away. */
    expect_status(optclient_pull(olds, &values, 1, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    expect_ok(optclient_push(news, &values, 1, NULL, NULL));
    cr_assert_eq(test_counter(new, "hellos_stale"), 1);
    expect_sum(news, 2);
    optclient_close(old);
    optclient_close(new);
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- taken for dead */

struct process {
    pid_t pid;
    int events;
};

static void tell(int events, int32_t what)
{
    require(write(events, &what, sizeof(what)) == (ssize_t)sizeof(what));
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

/* Pushes 10 and 20, one behind the other, and says so. Then it is stopped. When it goes
 * on, it tells what became of them, and pushes 40. */
static void two_pushes(const struct daemon_process *daemon, int events)
{
    static float gradients[2][ELEMENTS];
    static float weights[ELEMENTS];
    struct optclient_values values[] = { { .values = gradients[0] },
                                         { .values = gradients[1] } };
    struct optclient_values pulled = { .values = weights };
    struct optclient_call *calls[2];
    struct optclient_result result;
    struct optclient *client = connect_directly(daemon, "b");
    struct optclient_model *model = join(client, ELEMENTS, 2);
    for (int i = 0; i < 2; i++) {
        fill(gradients[i], (float)(10 * (i + 1)));
        require(optclient_push_start(model, &values[i], 1, NULL, NULL, NULL,
                                     &calls[i]) == OPTCLIENT_OK);
    }
    /* Answered behind the pushes, so they are there. */
    require(optclient_pull(model, &pulled, 1, NULL, NULL) == OPTCLIENT_OK);
    tell(events, 1);
    require(optclient_call_wait(calls[0], &result) == OPTCLIENT_OK);
    require(result.fate == OPTCLIENT_DUPLICATE);
    tell(events, (int32_t)result.step);
    require(optclient_call_wait(calls[1], &result) == OPTCLIENT_ABORTED);
    require(strstr(optclient_error(), "stale incarnation 1: this worker was taken for "
                                      "dead at step ") != NULL);
    require(strstr(optclient_error(),
                   "s of silence; pull the weights and push again") != NULL);
    tell(events, 2);
    require(optclient_pull(model, &pulled, 1, NULL, NULL) == OPTCLIENT_OK);
    fill(gradients[0], 40);
    require(optclient_push(model, &values[0], 1, NULL, &result) == OPTCLIENT_OK);
    require(result.fate == OPTCLIENT_APPLIED);
    tell(events, (int32_t)result.step);
    optclient_call_free(calls[0]);
    optclient_call_free(calls[1]);
    optclient_close(client);
}

static struct process spawn_b(const struct daemon_process *daemon)
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
            two_pushes(daemon, ends[1]);
        }
        _exit(0);
    }
    close(ends[1]);
    return (struct process){ .pid = pid, .events = ends[0] };
}

Test(incarnations, a_worker_back_from_the_dead_learns_what_counted, .timeout = 120)
{
    struct daemon_process daemon;
    daemon_start(&daemon,
                 (const char *[]){ "--lease", "1s", "--heartbeat", "200ms", NULL });
    struct process b = spawn_b(&daemon);
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    fill(gradient, 1);
    struct optclient *a = connect_directly(&daemon, "a");
    struct optclient_model *model = join(a, ELEMENTS, 2);
    cr_assert_eq(await(&b), 1);
    cr_assert_eq(kill(b.pid, SIGSTOP), 0);
    await_counter(a, "workers_lost", 1);
    /* The push of b in the open round counts, the one behind it does not. */
    struct optclient_result result;
    expect_ok(optclient_push(model, &values, 1, NULL, &result));
    cr_assert_eq(result.step, 1);
    expect_sum(model, 1 + 10);
    cr_assert_eq(kill(b.pid, SIGCONT), 0);
    cr_assert_eq(await(&b), 1, "applied at step 1");
    cr_assert_eq(await(&b), 2);
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    await(&b);
    expect_sum(model, 1 + 10 + 1 + 40);
    int status;
    cr_assert_eq(waitpid(b.pid, &status, 0), b.pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    close(b.events);
    optclient_close(a);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- cut off, slow */

/* With the defaults: 5 s of silence. */
Test(incarnations, a_half_open_connection_is_found_by_the_daemon_within_15_s,
     .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    struct optclient *client = connect_to(proxy_address(proxy), "w");
    struct optclient_model *model = join(client, ELEMENTS, 1);
    float gradient[ELEMENTS];
    struct optclient_values values = { .values = gradient };
    fill(gradient, 1);
    expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    proxy_hold(proxy, 1);
    uint64_t limit = test_now_ms() + HALF_OPEN_MS;
    cr_assert(daemon_logged(&daemon, "lease expired", HALF_OPEN_MS));
    proxy_cut_after(proxy, 1, 0); /* nothing of the old connection passes any more */
    proxy_hold(proxy, 0);
    expect_ok(optclient_pull(model, &values, 1, NULL, NULL));
    cr_assert_lt(test_now_ms(), limit);
    cr_assert_eq(proxy_connections(proxy), 2);
    optclient_close(client);
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

/* Its kernel goes on acknowledging; only its answers to heartbeats are missing. */
Test(incarnations, a_daemon_that_does_not_answer_is_left_within_15_s, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_directly(&daemon, "w");
    struct optclient_model *model = join(client, ELEMENTS, 1);
    float weights[ELEMENTS];
    struct optclient_values values = { .values = weights };
    daemon_signal(&daemon, SIGSTOP);
    /* It tells why it has no connection any more. */
    const struct optclient_pull_options options = { .timeout_ms = HALF_OPEN_MS / 2 };
    enum optclient_status status = optclient_pull(model, &values, 1, &options, NULL);
    daemon_signal(&daemon, SIGCONT);
    cr_assert_eq(status, OPTCLIENT_UNAVAILABLE, "%s", optclient_error());
    cr_assert_not_null(strstr(optclient_error(), "the daemon "), "%s",
                       optclient_error());
    expect_ok(optclient_pull(model, &values, 1, NULL, NULL));
    optclient_close(client);
    daemon_stop(&daemon);
}

/* The push takes several times as long as the lease and as a frame may take below the
 * rate, and nothing else passes. */
Test(incarnations, a_large_push_over_a_slow_network_keeps_the_lease, .timeout = 120)
{
    enum { LARGE = 800000 };
    const struct lane_faults slow = { .bytes_per_second = 600 << 10 };
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--lease", "1s", "--heartbeat", "200ms",
                                            "--frame-timeout", "1s", NULL });
    struct proxy *proxy = proxy_start(daemon.port);
    struct optclient *client = connect_to(proxy_address(proxy), "w");
    struct optclient_model *model = join(client, LARGE, 1);
    float *gradient = calloc(LARGE, sizeof(*gradient));
    struct optclient_values values = { .values = gradient };
    struct optclient_result result;
    proxy_faults(proxy, PROXY_UP, &slow, 1);
    expect_ok(optclient_push(model, &values, 1, NULL, &result));
    proxy_faults(proxy, PROXY_UP, NULL, 1);
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(test_counter(client, "leases_expired"), 0);
    cr_assert_eq(proxy_connections(proxy), 1, "the client gave up its connection");
    optclient_close(client);
    free(gradient);
    proxy_stop(proxy);
    daemon_stop(&daemon);
}
