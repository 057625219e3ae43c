/* What the daemon's log tells an operator: who made, changed and deleted what, who was
 * lost, what failed; each in one line, and never too many of them.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum { LOG_MS = 10000, FAILURES = 200, BURST = 10 };

static struct optclient *connect_as(const struct daemon_process *daemon,
                                    const char *name)
{
    struct optclient_options options = test_options();
    options.worker = name;
    return test_connect(daemon->address, &options);
}

static void expect_logged(const struct daemon_process *daemon, const char *text)
{
    if (!daemon_logged(daemon, text, LOG_MS)) {
        char *log = daemon_log(daemon);
        cr_assert_fail("\"%s\" is not in:\n%s", text, log);
    }
}

/* Lines of the log with the text in it. */
static unsigned count_logged(const struct daemon_process *daemon, const char *text)
{
    char *log = daemon_log(daemon);
    unsigned count = 0;
    for (const char *at = log; (at = strstr(at, text)) != NULL; at += strlen(text)) {
        count++;
    }
    free(log);
    return count;
}

Test(events, tell_who_made_changed_and_deleted_a_model)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *worker = connect_as(&daemon, "w1"),
                     *person = connect_as(&daemon, "");
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(worker, "m", &shapes);
    expect_logged(&daemon, " info model_created model=m identity=");
    expect_logged(&daemon, " info worker_joined model=m worker=w1 ");
    expect_ok(optclient_set(person, "m", "lr=0.5", 7, NULL));
    expect_logged(&daemon, " info options_set model=m step=7 specification=");
    optclient_model_close(model);
    expect_logged(&daemon, " info worker_left model=m worker=w1 ");
    expect_ok(optclient_delete(person, "m"));
    expect_logged(&daemon, " info model_deleted model=m identity=");
    expect_logged(&daemon, "why=\"asked for\"");
    optclient_close(worker);
    optclient_close(person);
    shapes_free(&shapes);
    daemon_stop(&daemon);
}

Test(events, tell_of_lost_workers_failed_rounds_and_deadlines)
{
    static const char *const brisk[] = { "--grace", "50ms", NULL };
    struct daemon_process daemon;
    daemon_start(&daemon, brisk);
    struct optclient *client = connect_as(&daemon, "a");
    const uint64_t shape = 4;
    const struct optclient_tensor tensor = { .name = "w", .shape = &shape, .rank = 1 };
    const struct optclient_policy policy = { .loss = OPTCLIENT_FAIL };
    float gradient[4] = { 0 };
    struct optclient_values values = { .values = gradient };
    struct optclient_model *model;
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", &policy, &tensor, 1, NULL, &model));
    int other = raw_connect(daemon.port);
    raw_hello(other, "b");
    struct opt_request open = { .id = 2,
                                .message = OPT_MESSAGE_OPEN,
                                .body.open = { .model = "m", .join = true } };
    struct raw_reply reply;
    cr_assert(raw_request(other, &open, NULL, 0) && raw_receive(other, &reply));
    raw_reply_fini(&reply);
    expect_status(optclient_wait_step(model, 1, 50, NULL), OPTCLIENT_DEADLINE_EXCEEDED);
    expect_logged(&daemon, " info request_failed request=wait ");
    close(other);
    expect_status(optclient_push(model, &values, 1, NULL, NULL), OPTCLIENT_ABORTED);
    expect_logged(&daemon, " info worker_lost model=m worker=b ");
    expect_logged(&daemon, "why=\"after its connection had been broken");
    expect_logged(&daemon, " info round_failed model=m step=1 ");
    optclient_close(client);
    daemon_stop(&daemon);
}

Test(events, of_a_kind_are_at_most_ten_a_second_and_the_others_are_counted)
{
    static const char *const small[] = { "--memory", "64MiB", NULL };
    struct daemon_process daemon;
    daemon_start(&daemon, small);
    struct optclient *client = connect_as(&daemon, "w");
    const uint64_t shape = 1 << 28;
    const struct optclient_tensor tensor = { .name = "w", .shape = &shape, .rank = 1 };
    struct optclient_model *model;
    uint64_t begin = test_now_ms();
    for (int i = 0; i < FAILURES; i++) {
        expect_status(
            optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model),
            OPTCLIENT_RESOURCE_EXHAUSTED);
    }
    uint64_t seconds = (test_now_ms() - begin) / 1000 + 2;
    expect_logged(&daemon, "code=RESOURCE_EXHAUSTED");
    cr_assert_leq(count_logged(&daemon, "request_failed"), BURST * seconds);
    /* Another kind is not kept from being told. */
    expect_status(optclient_delete(client, "nothing"), OPTCLIENT_NOT_FOUND);
    expect_logged(&daemon, "code=NOT_FOUND");
    optclient_close(client);
    daemon_stop(&daemon);
}

Test(events, do_not_tell_of_observers_and_health_checks)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    for (int i = 0; i < 3; i++) {
        optclient_close(connect_as(&daemon, ""));
        close(raw_connect(daemon.port));
    }
    optclient_close(connect_as(&daemon, "w"));
    expect_logged(&daemon, "connection_closed ");
    daemon_signal(&daemon, SIGTERM);
    cr_assert_eq(daemon_wait(&daemon, DAEMON_WAIT_MS), 0);
    cr_assert_eq(count_logged(&daemon, " hello "), 1);
    cr_assert_eq(count_logged(&daemon, "connection_"), 1);
    daemon_remove(&daemon);
}
