/* Connections that break while local steps are synchronised: each displacement takes
 * effect once, whatever the worker came to know of it. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/fake_server.h"
#include "tests/support/proxy.h"

enum { LARGE = 100000, SYNC_MS = 1000 };

/* A worker whose inner and outer rule are plain, so that after n synchronisations of k
 * steps the weights are -k n times the pattern. */
struct bench {
    struct shapes shapes;
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_local *local;
    struct optclient_values *gradients, *weights;
};

static struct bench set_up(const char *address, uint64_t k, uint32_t timeout_ms)
{
    struct bench bench = { .shapes = shapes_new(3, LARGE) };
    struct optclient_local_options options = { .timeout_ms = timeout_ms };
    bench.client = test_connect(address, NULL);
    bench.model = test_create(bench.client, "m", &bench.shapes);
    expect_ok(
        optclient_local_open(bench.model, "sgd(lr=1)", k, &options, &bench.local));
    bench.gradients = values_new(&bench.shapes);
    bench.weights = values_new(&bench.shapes);
    fill_pattern(bench.gradients, &bench.shapes);
    return bench;
}

static void tear_down(struct bench *bench)
{
    optclient_local_close(bench->local);
    optclient_model_close(bench->model);
    optclient_close(bench->client);
    values_free(bench->gradients, &bench->shapes);
    values_free(bench->weights, &bench->shapes);
    shapes_free(&bench->shapes);
}

static enum optclient_status step(struct bench *bench,
                                  struct optclient_local_result *result)
{
    return optclient_local_step(bench->local, bench->gradients, 3, 1, result);
}

/* That both the worker and the daemon are at this multiple of the pattern. */
static void expect_at(struct bench *bench, float factor)
{
    for (size_t i = 0; i < 3; i++) {
        memcpy(bench->weights[i].values, optclient_local_view(bench->local, i),
               (size_t)bench->shapes.sizes[i] * sizeof(float));
    }
    expect_pattern(bench->weights, &bench->shapes, factor);
    expect_ok(optclient_pull(bench->model, bench->weights, 3, NULL, NULL));
    expect_pattern(bench->weights, &bench->shapes, factor);
}

/* ------------------------------------------------------------------ cut at any byte */

static void train_through(struct proxy *proxy)
{
    struct bench bench = set_up(proxy_address(proxy), 2, 0);
    for (unsigned i = 1; i <= 4; i++) {
        struct optclient_local_result at;
        expect_ok(step(&bench, &at));
        cr_assert_eq(at.synced != 0, i % 2 == 0);
        cr_assert(!at.synced || at.sync.step == i / 2);
    }
    expect_at(&bench, -4);
    optclient_local_close(bench.local);
    bench.local = NULL;
    optclient_model_close(bench.model);
    bench.model = NULL;
    expect_ok(optclient_delete(bench.client, "m"));
    tear_down(&bench);
}

Test(local_cut, synchronises_once_wherever_the_connection_is_cut)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    train_through(proxy);
    uint64_t up = proxy_bytes_up(proxy);
    uint64_t down = proxy_bytes_down(proxy);
    unsigned connections = proxy_connections(proxy);
    enum { CUTS = 20 };
    for (uint64_t i = 1; i < CUTS; i++) {
        /* Odd steps, so that cuts fall everywhere. */
        proxy_cut_after(proxy, up * i / CUTS + i % 13, 0);
        train_through(proxy);
        proxy_cut_after(proxy, 0, down * i / CUTS + i % 13);
        train_through(proxy);
    }
    cr_assert_gt(proxy_connections(proxy), connections + 3 * CUTS,
                 "hardly any connection was cut");
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

/* -------------------------------------------------- fates that are not known at first
 */

/* Frames both ways until the first push: hello, create and pull, with their answers,
 * the last of which takes a frame for each tensor. */
enum { FRAMES_BEFORE = 8 };

/* Once the first connection is cut nobody is let in until the daemon is told to. */
static enum fake_action keep_out(struct fake_conn *conn,
                                 const struct opt_request *request, const uint8_t *data,
                                 size_t data_size, void *context)
{
    const atomic_bool *closed = context;
    (void)request, (void)data, (void)data_size;
    return *closed && fake_number(conn) > 1 ? FAKE_HANG_UP : FAKE_SERVE;
}

/* Cut at that frame, of which the first is the push and the others are its answer; the
 * fate is what the worker learns when it is let in. */
static void synchronise_late(unsigned frame, enum optclient_fate fate,
                             bool known_before)
{
    atomic_bool closed = true;
    struct fake_server *server = fake_server_start(&(struct fake_options){
        .hook = keep_out, .context = &closed, .cut_at = FRAMES_BEFORE + frame });
    struct bench bench = set_up(fake_server_address(server), 2, SYNC_MS);
    expect_ok(step(&bench, NULL));
    expect_status(step(&bench, NULL), OPTCLIENT_UNAVAILABLE);
    cr_assert(strstr(optclient_error(), "is not known") != NULL, "%s",
              optclient_error());
    cr_assert(optclient_local_owes(bench.local));
    closed = false;
    if (known_before) {
        /* The connection is there again before the push is. */
        expect_ok(optclient_pull(bench.model, bench.weights, 3, NULL, NULL));
    }
    struct optclient_local_result at;
    expect_ok(step(&bench, &at));
    cr_assert(at.synced);
    cr_assert(!at.stepped, "a step was made of gradients that belong to other weights");
    cr_assert_eq(at.steps, 2);
    cr_assert_eq(at.sync.step, 1);
    cr_assert_eq(at.sync.fate, fate);
    cr_assert(!optclient_local_owes(bench.local));
    cr_assert_eq(fake_server_pushes(server), 1);
    expect_at(&bench, -2);
    expect_ok(step(&bench, NULL));
    expect_ok(step(&bench, &at));
    cr_assert_eq(at.sync.fate, OPTCLIENT_APPLIED);
    expect_at(&bench, -4);
    tear_down(&bench);
    fake_server_stop(server);
}

Test(local_cut, learns_late_that_a_displacement_was_not_applied)
{
    synchronise_late(1, OPTCLIENT_APPLIED, false);
    synchronise_late(1, OPTCLIENT_APPLIED, true);
}

Test(local_cut, learns_late_that_a_displacement_was_applied)
{
    synchronise_late(2, OPTCLIENT_DUPLICATE, false);
    synchronise_late(2, OPTCLIENT_DUPLICATE, true);
    /* In the middle of its weights. */
    synchronise_late(3, OPTCLIENT_DUPLICATE, false);
}

/* The next connection is let in, but gets no weights until the daemon is told to. */
static enum fake_action withhold_weights(struct fake_conn *conn,
                                         const struct opt_request *request,
                                         const uint8_t *data, size_t data_size,
                                         void *context)
{
    const atomic_bool *withheld = context;
    (void)data, (void)data_size;
    return *withheld && fake_number(conn) > 1 && request->message == OPT_MESSAGE_PULL
               ? FAKE_DONE
               : FAKE_SERVE;
}

Test(local_cut, pulls_late_what_an_applied_displacement_has_made)
{
    atomic_bool withheld = true;
    struct fake_server *server = fake_server_start(&(struct fake_options){
        .hook = withhold_weights, .context = &withheld, .cut_at = FRAMES_BEFORE + 2 });
    struct bench bench = set_up(fake_server_address(server), 1, SYNC_MS);
    for (int i = 0; i < 2; i++) {
        expect_status(step(&bench, NULL), OPTCLIENT_DEADLINE_EXCEEDED);
        cr_assert(strstr(optclient_error(), "the push was applied") != NULL, "%s",
                  optclient_error());
        cr_assert(optclient_local_owes(bench.local));
    }
    withheld = false;
    struct optclient_local_result at;
    expect_ok(step(&bench, &at));
    cr_assert(at.synced);
    cr_assert_eq(at.sync.fate, OPTCLIENT_DUPLICATE);
    cr_assert_eq(fake_server_pushes(server), 1);
    expect_at(&bench, -1);
    tear_down(&bench);
    fake_server_stop(server);
}

/* The daemon stands still, so that nobody knows; what it does first when it goes on is
 * to apply the push that had reached it. */
Test(local_cut, does_not_apply_twice_what_a_standing_daemon_had_taken)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon.port);
    struct bench bench = set_up(address, 1, SYNC_MS);
    daemon_signal(&daemon, SIGSTOP);
    int stopped;
    cr_assert_eq(waitpid(daemon.pid, &stopped, WUNTRACED), daemon.pid);
    cr_assert(WIFSTOPPED(stopped));
    enum optclient_status status = step(&bench, NULL);
    daemon_signal(&daemon, SIGCONT);
    cr_assert(status == OPTCLIENT_DEADLINE_EXCEEDED || status == OPTCLIENT_UNAVAILABLE,
              "%s", optclient_status_name(status));
    struct optclient_local_result at;
    expect_ok(optclient_local_sync(bench.local, &at));
    cr_assert(at.synced);
    cr_assert_eq(at.sync.step, 1);
    expect_at(&bench, -1);
    tear_down(&bench);
    daemon_stop(&daemon);
}

/* A round that does not close is refused by the daemon, and the same displacement goes
 * into the next one. */
Test(local_cut, pushes_again_what_was_refused)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon.port);
    struct bench bench = set_up(address, 1, SYNC_MS);
    struct optclient *other = test_connect(address, NULL);
    struct optclient_model *joined = test_create(other, "m", &bench.shapes);
    for (int i = 0; i < 2; i++) {
        expect_status(step(&bench, NULL), OPTCLIENT_DEADLINE_EXCEEDED);
        cr_assert(optclient_local_owes(bench.local));
    }
    optclient_model_close(joined);
    struct optclient_local_result at;
    expect_ok(optclient_local_sync(bench.local, &at));
    cr_assert_eq(at.sync.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(at.steps, 1);
    struct optclient_usage usage;
    optclient_usage(bench.client, &usage);
    cr_assert_eq(usage.resends, 0, "what was refused is pushed under another number");
    expect_at(&bench, -1);
    optclient_close(other);
    tear_down(&bench);
    daemon_stop(&daemon);
}

/* A daemon that is started anew has lost the model; the worker's weights are still its
 * own. */
Test(local_cut, keeps_the_weights_when_the_daemon_has_lost_the_model)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    struct bench bench = set_up(fake_server_address(server), 3, SYNC_MS);
    expect_ok(step(&bench, NULL));
    expect_ok(step(&bench, NULL));
    fake_server_forget(server);
    fake_server_cut(server);
    cr_assert(fake_server_wait_connections(server, 2));
    expect_status(step(&bench, NULL), OPTCLIENT_NOT_FOUND);
    expect_status(optclient_local_restart(bench.local, NULL), OPTCLIENT_NOT_FOUND);
    cr_assert_eq(optclient_local_view(bench.local, 1)[1], -3 * pattern(1, 1));
    tear_down(&bench);
    fake_server_stop(server);
}
