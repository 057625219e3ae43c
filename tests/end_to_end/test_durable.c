/* The client library, a real daemon and its disk: what is durable is told, and a disk
 * that is full is waited for.
 */
#define _GNU_SOURCE /* prlimit */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/operator.h"

enum { N = 5 };

static struct daemon_process daemon_process;
static char data[DAEMON_PATH + 64];

/* In a folder beside the daemon's own, which goes with it. */
static void start(const char *durability)
{
    snprintf(data, sizeof data, "/tmp/optimd-durable-%d", (int)getpid());
    daemon_start(&daemon_process,
                 (const char *const[]){ "--data-dir", data, "--durability", durability,
                                        "--journal-interval", "1h", NULL });
}

static void stop(void)
{
    char command[sizeof data + 16];
    daemon_stop(&daemon_process);
    snprintf(command, sizeof command, "rm -rf %s", data);
    cr_assert_eq(system(command), 0);
}

static struct optclient *connect_as(const char *worker)
{
    struct optclient_options options = test_options();
    options.worker = worker;
    options.timeout_ms = 20000;
    return test_connect(daemon_process.address, &options);
}

static struct optclient_model *create(struct optclient *client, const char *name,
                                      enum optclient_durability durability)
{
    static const uint64_t shape[] = { N };
    static const struct optclient_tensor tensor = { .name = "w",
                                                    .shape = shape,
                                                    .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC,
                                             .durability = durability,
                                             .checkpoint_steps = 1000 };
    struct optclient_model *model;
    expect_ok(
        optclient_create(client, name, "sgd(lr=1)", &policy, &tensor, 1, NULL, &model));
    return model;
}

static float ones[N] = { 1, 1, 1, 1, 1 };
static const struct optclient_values gradient = { .values = ones };

static uint64_t counter(struct optclient *client, const char *name)
{
    struct optclient_counter *counters;
    size_t count;
    uint64_t value = UINT64_MAX;
    expect_ok(optclient_statistics(client, &counters, &count));
    for (size_t i = 0; i < count; i++) {
        value = strcmp(counters[i].name, name) == 0 ? counters[i].value : value;
    }
    optclient_statistics_free(counters);
    cr_assert_neq(value, UINT64_MAX, "%s", name);
    return value;
}

/* How large files may become from now on, the log too: 0 fills the disk. */
static void limit(rlim_t bytes)
{
    const struct rlimit limit = { .rlim_cur = bytes, .rlim_max = RLIM_INFINITY };
    cr_assert_eq(prlimit(daemon_process.pid, RLIMIT_FSIZE, &limit, NULL), 0);
}

Test(durable, is_told_of_each_push_as_its_model_wants_it)
{
    start("interval");
    struct optclient *client = connect_as("a");
    struct optclient_result result;
    struct optclient_model *always =
        create(client, "always", OPTCLIENT_DURABILITY_ALWAYS);
    struct optclient_model *interval =
        create(client, "interval", OPTCLIENT_DURABILITY_DEFAULT);
    expect_ok(optclient_push(always, &gradient, 1, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert(result.durable);
    expect_ok(optclient_push(interval, &gradient, 1, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_not(result.durable);
    expect_ok(optclient_wait_durable(interval, 1, 0, &result));
    cr_assert_eq(result.step, 1u);
    cr_assert(result.durable);
    cr_assert_eq(counter(client, "records_durable"), counter(client, "records_made"));

    struct optclient_description *description;
    expect_ok(optclient_describe(client, "always", &description));
    cr_assert_eq(description->policy.durability, OPTCLIENT_DURABILITY_ALWAYS);
    cr_assert_eq(description->policy.checkpoint_steps, 1000u);
    optclient_description_free(description);
    struct optclient_model_info *models;
    size_t count;
    expect_ok(optclient_list(client, &models, &count));
    cr_assert_eq(count, 2u);
    cr_assert_eq(models[0].durability, OPTCLIENT_DURABILITY_ALWAYS);
    cr_assert_eq(models[1].durability, OPTCLIENT_DURABILITY_INTERVAL);
    optclient_list_free(models);
    optclient_close(client);
    stop();
}

Test(durable, is_refused_where_nothing_is_kept)
{
    daemon_start(&daemon_process, NULL);
    struct optclient *client = connect_as("a");
    struct optclient_model *model;
    static const uint64_t shape[] = { N };
    static const struct optclient_tensor tensor = { .name = "w",
                                                    .shape = shape,
                                                    .rank = 1 };
    const struct optclient_policy policy = { .durability =
                                                 OPTCLIENT_DURABILITY_ALWAYS };
    expect_status(
        optclient_create(client, "m", "sgd(lr=1)", &policy, &tensor, 1, NULL, &model),
        OPTCLIENT_FAILED_PRECONDITION);
    cr_assert_eq(optclient_detail(), OPTCLIENT_NO_DATA_DIR);
    cr_assert_not_null(strstr(optclient_error(), "--data-dir"), "%s",
                       optclient_error());
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model));
    expect_status(optclient_wait_durable(model, 0, 0, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    cr_assert_eq(optclient_detail(), OPTCLIENT_NO_DATA_DIR);
    optclient_close(client);
    daemon_stop(&daemon_process);
}

/* A push that the disk has no room for is applied once, and answered when it has. */
Test(durable, waits_for_a_full_disk_and_goes_on_by_itself)
{
    start("always");
    struct optclient *client = connect_as("a"), *observer = connect_as("");
    struct optclient_model *model = create(client, "m", OPTCLIENT_DURABILITY_DEFAULT);
    struct optclient_call *calls[3];
    struct optclient_result result;
    expect_ok(optclient_push(model, &gradient, 1, NULL, &result));
    limit(0);
    for (size_t i = 0; i < 3; i++) {
        expect_ok(
            optclient_push_start(model, &gradient, 1, NULL, NULL, NULL, &calls[i]));
    }
    while (counter(observer, "degraded") == 0) {
    }
    cr_assert_eq(setenv("OPTIMD_SERVER", daemon_process.address, 1), 0);
    cr_assert_eq(RUN("list"), 0, "%s", operator_out);
    cr_assert_not_null(strstr(operator_error, "degraded"), "%s", operator_error);
    cr_assert_not_null(strstr(operator_out, "always"), "%s", operator_out);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_not(optclient_call_done(calls[i]));
    }
    limit(RLIM_INFINITY);
    for (size_t i = 0; i < 3; i++) {
        expect_ok(optclient_call_wait(calls[i], &result));
        cr_assert(result.fate == OPTCLIENT_APPLIED ||
                  result.fate == OPTCLIENT_DUPLICATE);
        cr_assert(result.durable);
        optclient_call_free(calls[i]);
    }
    cr_assert_eq(counter(observer, "degraded"), 0u);
    cr_assert_eq(RUN("list"), 0, "%s", operator_out);
    cr_assert_null(strstr(operator_error, "degraded"), "%s", operator_error);
    cr_assert_eq(counter(observer, "pushes_applied"), 4u);
    cr_assert(daemon_logged(&daemon_process, "journal_recovered", DAEMON_WAIT_MS));
    float weights[N];
    const struct optclient_values into = { .values = weights };
    expect_ok(optclient_pull(model, &into, 1, NULL, &result));
    cr_assert_eq(weights[0], -4.0f);
    optclient_close(client);
    optclient_close(observer);
    stop();
}

Test(durable, says_of_a_push_whose_time_passes_that_it_was_applied)
{
    start("always");
    struct optclient *client = connect_as("a");
    struct optclient_model *model = create(client, "m", OPTCLIENT_DURABILITY_DEFAULT);
    struct optclient_result result;
    const struct optclient_push_options soon = { .timeout_ms = 1500 };
    limit(0);
    enum optclient_status status = optclient_push(model, &gradient, 1, &soon, &result);
    cr_assert(status == OPTCLIENT_RESOURCE_EXHAUSTED ||
                  status == OPTCLIENT_DEADLINE_EXCEEDED,
              "%s", optclient_error());
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED, "%s", optclient_error());
    cr_assert_not(result.durable);
    limit(RLIM_INFINITY);
    optclient_close(client);
    stop();
}
