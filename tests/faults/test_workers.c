/* Workers that die or freeze: nobody else waits longer than grace or lease, and what
 * counted is exactly what was acknowledged.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/daemon.h"
#include "tests/support/worker_processes.h"

static const char *const daemon_options[] = { "--lease", "1s", "--grace", "500ms",
                                              NULL };
static const char *const patient[] = { "--grace", "60s", NULL };

static struct daemon_process server;

/* ---------------------------------------------------------------- what they do */

/* Takes part in one round and then computes for ever. */
static void one_round(int events)
{
    struct worker worker;
    if (!worker_start(&worker, server.address, "b") || !worker_push(&worker, 10)) {
        _exit(3);
    }
    tell(events, 1);
    pause();
}

/* Joins, and sends the first half of a push. */
static void half_a_push(int events)
{
    static float values[CREW_ELEMENTS];
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        values[i] = 1000.0f;
    }
    push_in_part(events, server.port, "b", values, sizeof(values) / 2);
}

/* Pushes into a round that nobody closes. */
static void waits_in_a_round(int events)
{
    struct worker worker;
    struct optclient_call *call;
    if (!worker_start(&worker, server.address, "b")) {
        _exit(3);
    }
    struct optclient_values values = { .values = worker.gradient };
    optclient_push_start(worker.model, &values, 1, NULL, NULL, NULL, &call);
    tell(events, 1);
    pause();
}

enum { ROUNDS = 40 };

/* Pushes 1 in many rounds, says when the first few are over, and in the end how many
 * were acknowledged. Where it is told that it was taken for dead, it pulls and goes on.
 */
static void many_rounds(int events)
{
    struct worker worker;
    if (!worker_start(&worker, server.address, "b")) {
        _exit(3);
    }
    for (int i = 0; i < ROUNDS; i++) {
        enum optclient_status status = worker_try_push(&worker, 1);
        if (status == OPTCLIENT_ABORTED &&
            strstr(optclient_error(), "stale incarnation 1") != NULL) {
            status = worker_pull(&worker) ? OPTCLIENT_OK : OPTCLIENT_UNKNOWN;
        }
        if (status != OPTCLIENT_OK) {
            fprintf(stderr, "push: %s\n", optclient_error());
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

/* ---------------------------------------------------------------- tests */

Test(workers, one_killed_in_the_middle_of_a_round_is_not_waited_for, .timeout = 60)
{
    struct worker a;
    daemon_start(&server, daemon_options);
    struct process b = spawn(one_round);
    cr_assert(worker_start(&a, server.address, "a"), "%s", optclient_error());
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
    cr_assert(worker_start(&a, server.address, "a"), "%s", optclient_error());
    struct process b = spawn(half_a_push);
    cr_assert_eq(await(&b), 1);
    reap(&b, SIGKILL);
    cr_assert(worker_push(&a, 2));
    expect_sum(&a, 2);
    /* Somebody else under its name starts anew. */
    cr_assert(worker_start(&again, server.address, "b"), "%s", optclient_error());
    struct optclient_call *call;
    struct optclient_values values = { .values = again.gradient };
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
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
    cr_assert(worker_start(&a, server.address, "a"), "%s", optclient_error());
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
    cr_expect_geq(acknowledged, ROUNDS - 1, "one push may have been stale");
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
    struct process b = spawn(waits_in_a_round);
    cr_assert_eq(await(&b), 1);
    cr_assert(worker_start(&a, server.address, "a"), "%s", optclient_error());
    expect_pushed(&a, "b", 1);
    reap(&b, SIGKILL);
    expect_pushed(&a, "b", 0);
    daemon_stop(&server); /* in order, which is 0 */
    worker_stop(&a);
}
