/* Pushes that go half way into a round that is applied shard by shard: killed workers
 * and cut connections, at any byte.
 *
 * Gradients are whole numbers and the rule is sgd with learning rate 1, so that each
 * shard tells who was in it.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"
#include "tests/support/raw.h"

enum { PARTS = 3, ELEMENTS = 2 * OPT_SHARD + OPT_BLOCK + 1, TIMEOUT_MS = 20000 };

static const uint64_t shape[] = { ELEMENTS };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };
/* One frame and one shard each. */
static const struct opt_segment parts[PARTS] = {
    { .count = OPT_SHARD },
    { .offset = OPT_SHARD, .count = OPT_SHARD },
    { .offset = 2 * OPT_SHARD, .count = OPT_BLOCK + 1 },
};

static struct daemon_process server;

static struct optclient_model *join(struct optclient *client, const char *name,
                                    uint32_t workers)
{
    const struct optclient_policy policy = { .min_workers = workers,
                                             .atomic = OPTCLIENT_ATOMIC_SHARD };
    struct optclient_model *model;
    expect_ok(
        optclient_create(client, name, "sgd(lr=1)", &policy, &tensor, 1, NULL, &model));
    return model;
}

static struct optclient_values constant(float value)
{
    struct optclient_values values = { .values = malloc(ELEMENTS * sizeof(float)) };
    cr_assert_not_null(values.values);
    for (size_t i = 0; i < ELEMENTS; i++) {
        values.values[i] = value;
    }
    return values;
}

static void expect_weights(struct optclient_model *model, const float expected[PARTS])
{
    struct optclient_values weights = constant(0);
    expect_ok(optclient_pull(model, &weights, 1, NULL, NULL));
    for (size_t i = 0; i < PARTS; i++) {
        for (uint64_t k = 0; k < parts[i].count; k++) {
            float got = weights.values[parts[i].offset + k];
            cr_assert(got == expected[i], "part %zu, element %zu is %g, not %g", i,
                      (size_t)k, (double)got, (double)expected[i]);
        }
    }
    free(weights.values);
}

/* ---------------------------------------------------------------- killed workers */

/* The frames of a push of fours, one after another; ends[i]: where the i-th ends. */
static uint8_t *make_frames(uint32_t model, size_t ends[PARTS])
{
    struct optclient_values values = constant(4);
    uint8_t *all = NULL;
    size_t used = 0;
    for (uint32_t i = 0; i < PARTS; i++) {
        const struct opt_request push = {
            .id = 3,
            .message = OPT_MESSAGE_PUSH,
            .body.push = { .model = model,
                           .sequence = 1,
                           .samples = 1,
                           .segments = &parts[i],
                           .segment_count = 1,
                           .frame = i,
                           .last = i == PARTS - 1 },
        };
        size_t size;
        uint8_t *frame = raw_frame(&push, values.values + parts[i].offset,
                                   (size_t)parts[i].count * sizeof(float), &size);
        all = realloc(all, used + size);
        memcpy(all + used, frame, size);
        free(frame);
        used += size;
        ends[i] = used;
    }
    free(values.values);
    return all;
}

/* A worker that joins, sends so many bytes of its push, says so, and never goes on. */
static void half_a_push(const char *name, size_t bytes, int events)
{
    int fd = raw_connect(server.port);
    const struct opt_request open = {
        .id = 2,
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = name, .join = true },
    };
    struct raw_reply reply;
    raw_hello(fd, "b");
    size_t ends[PARTS];
    if (!raw_request(fd, &open, NULL, 0) || !raw_receive(fd, &reply)) {
        _exit(3);
    }
    uint8_t *frames = make_frames(reply.reply.body.model.model, ends);
    if (!raw_send(fd, frames, bytes) || write(events, "1", 1) != 1) {
        _exit(3);
    }
    pause();
}

/* Ask until the daemon says that the worker has pushed. Every question is answered by
 * the daemon, so this waits for it and not for time. */
static void expect_pushed(struct optclient *client, const char *name,
                          const char *worker)
{
    for (int i = 0; i < 100000; i++) {
        struct optclient_description *description;
        bool found = false;
        expect_ok(optclient_describe(client, name, &description));
        for (size_t k = 0; k < description->worker_count; k++) {
            const struct optclient_worker_info *other = &description->workers[k];
            found = found || (strcmp(other->name, worker) == 0 && other->pushed);
        }
        optclient_description_free(description);
        if (found) {
            return;
        }
    }
    cr_assert_fail("%s has not pushed", worker);
}

/* Start it, and kill it when the bytes are with the daemon's socket. */
static void kill_half_way(const char *name, size_t bytes)
{
    int ends[2];
    char told;
    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        if (getppid() == parent) {
            half_a_push(name, bytes, ends[1]);
        }
        _exit(1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &told, 1), 1, "the worker has ended");
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    close(ends[0]);
}

Test(half_way, counts_the_shards_that_a_killed_worker_had_sent_whole)
{
    static const char *const options[] = { "--grace", "100ms", NULL };
    size_t ends[PARTS];
    free(make_frames(1, ends));
    /* Bytes sent, and shards that are whole by then. */
    const struct {
        size_t bytes, shards;
    } cases[] = {
        { 3, 0 },
        { ends[0] - 1, 0 },
        { ends[0], 1 },
        { ends[0] + 9, 1 },
        { ends[0] + (ends[1] - ends[0]) / 2, 1 },
        { ends[1], 2 },
        { ends[2] - 1, 2 },
    };
    daemon_start(&server, options);
    struct optclient_options mine = test_options();
    mine.worker = "a";
    mine.timeout_ms = TIMEOUT_MS;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%zu", i);
        struct optclient *client = test_connect(server.address, &mine);
        struct optclient_model *model = join(client, name, 2);
        struct optclient_values twos = constant(2);
        struct optclient_call *call;
        struct optclient_result result;
        expect_ok(optclient_push_start(model, &twos, 1, NULL, NULL, NULL, &call));
        expect_pushed(client, name, "a");
        kill_half_way(name, cases[i].bytes);
        expect_ok(optclient_call_wait(call, &result));
        optclient_call_free(call);
        cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
        cr_assert_eq(result.step, 1);
        float expected[PARTS];
        for (size_t k = 0; k < PARTS; k++) {
            expected[k] = k < cases[i].shards ? -3 : -2;
        }
        expect_weights(model, expected);
        optclient_model_close(model);
        optclient_close(client);
        free(twos.values);
    }
    daemon_stop(&server);
}

/* ---------------------------------------------------------------- cut connections */

/* Three steps of a worker behind the proxy, and that each counted once. */
static void train_through(struct proxy *proxy, const char *name)
{
    struct optclient *client = test_connect(proxy_address(proxy), NULL);
    struct optclient_model *model = join(client, name, 1);
    struct optclient_values ones = constant(1), weights = constant(0);
    struct optclient_values start = constant(0);
    struct optclient_result before, result;
    expect_ok(optclient_pull(model, &start, 1, NULL, &before));
    for (unsigned i = 1; i <= 3; i++) {
        expect_ok(
            optclient_push_pull(model, &ones, 1, NULL, &weights, 1, NULL, &result));
        cr_assert(result.fate == OPTCLIENT_APPLIED ||
                  result.fate == OPTCLIENT_DUPLICATE);
        cr_assert_eq(result.step, before.step + i);
        for (size_t k = 0; k < ELEMENTS; k++) {
            cr_assert(weights.values[k] == start.values[k] - (float)i,
                      "element %zu is %g after %u steps from %g", k,
                      (double)weights.values[k], i, (double)start.values[k]);
        }
    }
    optclient_model_close(model);
    optclient_close(client);
    free(ones.values);
    free(weights.values);
    free(start.values);
}

Test(half_way, applies_each_shard_once_wherever_the_connection_is_cut)
{
    enum { CUTS = 24 };
    static const char *const options[] = { "--grace", "60s", NULL };
    daemon_start(&server, options);
    struct proxy *proxy = proxy_start(server.port);
    train_through(proxy, "m");
    uint64_t up = proxy_bytes_up(proxy), down = proxy_bytes_down(proxy);
    unsigned connections = proxy_connections(proxy);
    for (uint64_t i = 1; i < CUTS; i++) {
        proxy_cut_after(proxy, up * i / CUTS + i % 13, 0);
        train_through(proxy, "m");
        proxy_cut_after(proxy, 0, down * i / CUTS + i % 13);
        train_through(proxy, "m");
    }
    proxy_cut_after(proxy, 0, 0);
    cr_assert_gt(proxy_connections(proxy), connections + 3 * CUTS,
                 "hardly any connection was cut");
    proxy_stop(proxy);
    daemon_stop(&server);
}

Test(half_way, fails_a_push_whose_round_went_on_without_it)
{
    static const char *const options[] = { "--grace", "100ms", NULL };
    daemon_start(&server, options);
    struct proxy *proxy = proxy_start(server.port);
    struct optclient_options mine = test_options();
    mine.worker = "b";
    mine.timeout_ms = TIMEOUT_MS;
    mine.backoff_min_ms = 2000; /* it comes back when it has been given up for long */
    mine.backoff_max_ms = 2000;
    struct optclient *cut = test_connect(proxy_address(proxy), &mine);
    mine.worker = "a";
    struct optclient *client = test_connect(server.address, &mine);
    struct optclient_model *model_a = join(client, "m", 2);
    struct optclient_model *model_b = join(cut, "m", 2);
    struct optclient_values twos = constant(2), fours = constant(4);
    struct optclient_call *call_a, *call_b;
    struct optclient_result result;
    expect_ok(optclient_push_start(model_a, &twos, 1, NULL, NULL, NULL, &call_a));
    expect_pushed(client, "m", "a");
    proxy_cut_after(proxy, (OPT_SHARD + OPT_SHARD / 2) * sizeof(float), 0);
    expect_ok(optclient_push_start(model_b, &fours, 1, NULL, NULL, NULL, &call_b));
    expect_ok(optclient_call_wait(call_a, &result));
    cr_assert_eq(result.lost, 1);
    expect_status(optclient_call_wait(call_b, NULL), OPTCLIENT_ABORTED);
    cr_assert(strstr(optclient_error(), "taken for dead") != NULL, "%s",
              optclient_error());
    optclient_call_free(call_a);
    optclient_call_free(call_b);
    expect_weights(model_a, (float[PARTS]){ -3, -2, -2 });
    optclient_model_close(model_a);
    optclient_model_close(model_b);
    optclient_close(client);
    optclient_close(cut);
    free(twos.values);
    free(fours.values);
    proxy_stop(proxy);
    daemon_stop(&server);
}
