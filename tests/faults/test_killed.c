/* Workers that are killed wherever it hurts, at any byte of a push, at any moment of
 * many, or frozen for longer than their lease. A push that was not complete leaves
 * nothing, one that was acknowledged counts once, and the weights are those of a single
 * process that applies what was acknowledged.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/history.h"
#include "tests/support/proxy_faults.h"
#include "tests/support/raw.h"
#include "tests/support/worker_processes.h"

static struct daemon_process server;

/* Nobody comes back after its connection is gone, so nobody is waited for. */
static const char *const no_grace[] = { "--grace", "0ms", NULL };

/* ---------------------------------------------------------------- at any byte */

enum { CUTS = 14, NUMBER = 1000 };

/* What the next child is to do. */
static struct {
    char name[16];
    size_t bytes; /* of its push, before it waits to be killed */
} plan;

static void a_part_of_a_push(int events)
{
    static float values[CREW_ELEMENTS];
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        values[i] = NUMBER;
    }
    push_in_part(events, server.port, plan.name, values, plan.bytes);
}

Test(killed, at_any_byte_of_a_push_leaves_nothing_unless_it_was_complete, .timeout = 60)
{
    struct worker a, second;
    size_t ends[CREW_FRAMES];
    push_ends(ends);
    const size_t cuts[CUTS] = {
        0,           1,           3,           4,           10,
        ends[0] / 2, ends[0] - 1, ends[0],     ends[0] + 4, ends[1] - 5,
        ends[1],     ends[1] + 1, ends[2] - 1, SIZE_MAX,
    };
    int64_t sum = 0;
    daemon_start(&server, no_grace);
    cr_assert(worker_start(&a, server.address, "a"));
    /* The first round needs two. */
    cr_assert(worker_start(&second, server.address, "b"));
    struct optclient_values values = { .values = second.gradient };
    struct optclient_call *call;
    expect_ok(optclient_push_start(second.model, &values, 1, NULL, NULL, NULL, &call));
    cr_assert(worker_push(&a, 1));
    expect_ok(optclient_call_wait(call, NULL));
    optclient_call_free(call);
    worker_stop(&second);
    for (size_t i = 0; i < CUTS; i++) {
        snprintf(plan.name, sizeof(plan.name), "killed-%zu", i);
        plan.bytes = cuts[i];
        struct process process = spawn(a_part_of_a_push);
        cr_assert_eq(await(&process), 1);
        if (cuts[i] >= ends[CREW_FRAMES - 1]) {
            expect_pushed(&a, plan.name, 1);
            sum += NUMBER;
        }
        reap(&process, SIGKILL);
        cr_assert(worker_push(&a, 1), "cut at byte %zu", cuts[i]);
        expect_sum(&a, a.acknowledged + sum);
    }
    worker_stop(&a);
    daemon_stop(&server);
}

/* ---------------------------------------------------------------- at any moment */

enum {
    SEED = 7,
    MEMBERS = 4,
    NUMBERS = 20000, /* pushes that a worker can make in all its lives */
    KILLS = 30,
    FREEZES = 6,
    LENGTH = 200000, /* elements of the tensor that all pushes add to */
};

static const uint64_t own_shape[] = { MEMBERS * NUMBERS, 1 }; /* a row for each push */
static const uint64_t common_shape[] = { LENGTH };
static const struct optclient_tensor own_and_common[] = {
    { .name = "own", .shape = own_shape, .rank = 2, .sparse = 1 },
    { .name = "common", .shape = common_shape, .rank = 1 },
};

static struct history *history;
static struct optclient_policy policy;
static unsigned member; /* which the next child is */

static volatile sig_atomic_t stopping;

static void on_stop(int number)
{
    (void)number;
    stopping = 1;
}

/* One life of a worker: push until killed, or asked to stop by SIGTERM. */
static void live(int events)
{
    const struct sigaction stop = { .sa_handler = on_stop };
    static float common[LENGTH];
    float one = 1.0f;
    uint32_t row;
    const struct optclient_values values[] = {
        { .tensor = 0, .values = &one, .rows = &row, .row_count = 1 },
        { .tensor = 1, .values = common },
    };
    struct optclient_options options = test_options();
    struct optclient *client;
    struct optclient_model *model;
    char name[16];
    sigaction(SIGTERM, &stop, NULL);
    tell(events, 0);
    snprintf(name, sizeof(name), "member-%u", member);
    options.worker = name;
    require(optclient_connect(server.address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, "m", "sgd(lr=1, aggregate=sum)", &policy,
                             own_and_common, 2, NULL, &model) == OPTCLIENT_OK);
    for (size_t i = 0; i < LENGTH; i++) {
        common[i] = 1.0f;
    }
    while (!stopping) {
        struct optclient_result result = { 0 };
        unsigned push = history_begin(history, member);
        require(push < NUMBERS);
        row = member * NUMBERS + push;
        enum optclient_status status = optclient_push(model, values, 2, NULL, &result);
        require(status == OPTCLIENT_OK ||
                status == OPTCLIENT_ABORTED); /* it was taken for dead */
        history_told(history, member, push, &result);
    }
    optclient_model_close(model);
    optclient_close(client);
    tell(events, 1);
    _exit(0);
}

static struct process bring_to_life(unsigned which)
{
    member = which;
    struct process process = spawn(live);
    cr_assert_eq(await(&process), 0);
    return process;
}

/* The weights of one process that applies the pushes one after another, bit for bit:
 * of whole numbers, whose sums do not depend on their order. */
static struct history_verdict expect_reference(struct optclient *client)
{
    static float own[MEMBERS * NUMBERS], common[LENGTH];
    struct optclient_values values[] = { { .tensor = 0, .values = own },
                                         { .tensor = 1, .values = common } };
    struct optclient_model *model;
    struct history_verdict verdict;
    expect_ok(optclient_open(client, "m", 0, &model));
    expect_ok(optclient_pull(model, values, 2, NULL, NULL));
    for (size_t i = 0; i < MEMBERS * NUMBERS; i++) {
        own[i] = 0.0f - own[i];
    }
    history_judge(history, own, 1, false, &verdict);
    cr_assert(verdict.problem[0] == '\0', "%s", verdict.problem);
    cr_assert_gt(verdict.acknowledged, 0);
    /* A push takes effect in both tensors or in none. */
    float applied = (float)(verdict.acknowledged + verdict.unknown_applied);
    for (size_t i = 0; i < LENGTH; i++) {
        cr_assert_eq(common[i], -applied, "element %zu: %g, not %g", i,
                     (double)common[i], -(double)applied);
    }
    return verdict;
}

/* Wait until the worker has had a few more pushes applied. */
static void let_push(int observer, unsigned which, uint64_t *random)
{
    unsigned until =
        history_acknowledged(history, which) + 1 + (unsigned)lane_random(random, 4);
    while (history_acknowledged(history, which) < until) {
        raw_counter(observer, "requests"); /* as long as the daemon takes to answer */
    }
}

static struct process processes[MEMBERS];

/* Returns the connection of an observer, which is only a socket: a process that has
 * threads should not be one that forks. */
static int start_members(enum optclient_mode mode, const char *const *settings)
{
    policy = (struct optclient_policy){ .mode = mode };
    history = history_new(MEMBERS, NUMBERS);
    daemon_start(&server, settings);
    for (unsigned i = 0; i < MEMBERS; i++) {
        processes[i] = bring_to_life(i);
    }
    int observer = raw_connect(server.port);
    raw_hello(observer, "");
    return observer;
}

static struct history_verdict end_members(int observer)
{
    struct optclient_options options = test_options();
    options.worker = "";
    close(observer);
    for (unsigned i = 0; i < MEMBERS; i++) {
        cr_assert_eq(kill(processes[i].pid, SIGTERM), 0);
    }
    for (unsigned i = 0; i < MEMBERS; i++) {
        cr_assert_eq(await(&processes[i]), 1);
        reap(&processes[i], 0);
    }
    struct optclient *client = test_connect(server.address, &options);
    struct history_verdict verdict = expect_reference(client);
    optclient_close(client);
    daemon_stop(&server);
    history_free(history);
    return verdict;
}

static void kill_many(enum optclient_mode mode)
{
    uint64_t random = SEED;
    int observer = start_members(mode, no_grace);
    for (unsigned i = 0; i < KILLS; i++) {
        unsigned victim = (unsigned)lane_random(&random, MEMBERS);
        let_push(observer, victim, &random);
        kill(processes[victim].pid, SIGKILL);
        cr_assert_eq(waitpid(processes[victim].pid, NULL, 0), processes[victim].pid);
        close(processes[victim].events);
        processes[victim] = bring_to_life(victim);
    }
    struct history_verdict verdict = end_members(observer);
    cr_expect_gt(verdict.unknown, 0, "nobody was killed in the middle of a push");
    cr_expect_eq(verdict.refused, 0);
}

Test(killed, many_times_in_sync_mode_counts_what_was_acknowledged, .timeout = 120)
{
    kill_many(OPTCLIENT_SYNC);
}

Test(killed, many_times_in_async_mode_counts_what_was_acknowledged, .timeout = 120)
{
    kill_many(OPTCLIENT_ASYNC);
}

/* A frozen worker is lost as soon as its lease is over, and goes on afterwards; what it
 * had begun was applied and acknowledged, or refused. */
static void freeze_many(enum optclient_mode mode)
{
    static const char *const short_lease[] = { "--lease", "300ms",   "--heartbeat",
                                               "50ms",    "--grace", "0ms",
                                               NULL };
    uint64_t random = SEED;
    int observer = start_members(mode, short_lease);
    for (unsigned i = 0; i < FREEZES; i++) {
        unsigned victim = i % MEMBERS;
        let_push(observer, victim, &random);
        uint64_t lost = raw_counter(observer, "workers_lost");
        cr_assert_eq(kill(processes[victim].pid, SIGSTOP), 0);
        while (raw_counter(observer, "workers_lost") == lost) {
        }
        cr_assert_eq(kill(processes[victim].pid, SIGCONT), 0);
    }
    struct history_verdict verdict = end_members(observer);
    cr_expect_eq(verdict.unknown, 0, "every worker was told what became of each push");
}

Test(killed, frozen_in_sync_mode_means_lost_and_counts_what_was_acknowledged,
     .timeout = 120)
{
    freeze_many(OPTCLIENT_SYNC);
}

Test(killed, frozen_in_async_mode_means_lost_and_counts_what_was_acknowledged,
     .timeout = 120)
{
    freeze_many(OPTCLIENT_ASYNC);
}
