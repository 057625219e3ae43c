/* Connections whose bytes come late, slowly, not at all, twice, in another order or
 * damaged: what is acknowledged has been applied once, and nothing else has.
 *
 * Gradients are whole numbers, summed by sgd with learning rate 1. Each push has a
 * number of its own that it adds in an element of its own, so that the weights tell of
 * each push how often it was applied. All that is random follows from SEED.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"
#include "tests/support/raw.h"

enum {
    SEED = 20261122,
    PUSHES = 60,
    AHEAD = 6,        /* pushes in flight */
    ELEMENTS = 50000, /* the first PUSHES are one push's each, the others everybody's */
    LARGE = 1300000   /* more than one frame */
};

static const char *const brisk[] = { "--lease",         "600ms",   "--heartbeat",
                                     "100ms",           "--grace", "200ms",
                                     "--frame-timeout", "600ms",   NULL };

struct scene {
    struct daemon_process server;
    struct proxy *proxy;
    struct optclient *client, *witness; /* the witness's connection is a good one */
    struct optclient_model *model, *watched;
    uint64_t elements;
    float *gradients[AHEAD], *weights;
};

static void scene_open(struct scene *scene, const char *const *options, int checksum,
                       uint64_t elements)
{
    char address[32];
    struct optclient_options wanted = test_options();
    const struct optclient_tensor tensor = { .name = "w",
                                             .shape = &scene->elements,
                                             .rank = 1 };
    *scene = (struct scene){ .elements = elements };
    daemon_start(&scene->server, options);
    scene->proxy = proxy_start(scene->server.port);
    wanted.worker = "w";
    wanted.checksum = checksum;
    scene->client = test_connect(proxy_address(scene->proxy), &wanted);
    expect_ok(optclient_create(scene->client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL,
                               &scene->model));
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)scene->server.port);
    wanted.worker = "";
    scene->witness = test_connect(address, &wanted);
    expect_ok(optclient_open(scene->witness, "m", 0, &scene->watched));
    for (size_t i = 0; i < AHEAD; i++) {
        scene->gradients[i] = calloc(elements, sizeof(float));
        cr_assert_not_null(scene->gradients[i]);
    }
    scene->weights = calloc(elements, sizeof(float));
    cr_assert_not_null(scene->weights);
}

static void scene_close(struct scene *scene)
{
    optclient_close(scene->client);
    optclient_close(scene->witness);
    proxy_stop(scene->proxy);
    daemon_stop(&scene->server);
    for (size_t i = 0; i < AHEAD; i++) {
        free(scene->gradients[i]);
    }
    free(scene->weights);
}

static struct optclient_call *push_start(struct scene *scene, unsigned number)
{
    float *gradient = scene->gradients[number % AHEAD];
    struct optclient_values values = { .values = gradient };
    struct optclient_call *call;
    for (uint64_t i = 0; i < scene->elements; i++) {
        gradient[i] = i == number || i >= PUSHES ? 1.0f : 0.0f;
    }
    expect_ok(optclient_push_start(scene->model, &values, 1, NULL, NULL, NULL, &call));
    return call;
}

/* Whether the push is acknowledged. */
static bool push_end(struct optclient_call *call)
{
    struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
    enum optclient_status status = optclient_call_wait(call, &result);
    if (status == OPTCLIENT_OK) {
        cr_assert(result.fate == OPTCLIENT_APPLIED ||
                  result.fate == OPTCLIENT_DUPLICATE);
    } else {
        cr_assert(status == OPTCLIENT_INVALID_ARGUMENT || status == OPTCLIENT_ABORTED,
                  "%s: %s", optclient_status_name(status), optclient_error());
    }
    optclient_call_free(call);
    return status == OPTCLIENT_OK;
}

/* Push PUSHES times, so many at a time. Returns how many were acknowledged; which is
 * noted. */
static unsigned train(struct scene *scene, unsigned ahead, bool acknowledged[PUSHES])
{
    struct optclient_call *calls[AHEAD];
    unsigned count = 0;
    for (unsigned i = 0; i < PUSHES + ahead; i++) {
        if (i >= ahead) {
            acknowledged[i - ahead] = push_end(calls[(i - ahead) % ahead]);
            count += acknowledged[i - ahead];
        }
        if (i < PUSHES) {
            calls[i % ahead] = push_start(scene, i);
        }
    }
    return count;
}

/* Each acknowledged push was applied once and each other one not at all, whole. */
static void expect_applied(struct scene *scene, const bool acknowledged[PUSHES])
{
    struct optclient_values values = { .values = scene->weights };
    struct optclient_result result;
    unsigned count = 0;
    expect_ok(optclient_pull(scene->watched, &values, 1, NULL, &result));
    for (unsigned i = 0; i < PUSHES; i++) {
        count += acknowledged[i];
        cr_expect_eq(scene->weights[i], acknowledged[i] ? -1.0f : 0.0f,
                     "push %u, which was %sacknowledged, was applied %g times", i,
                     acknowledged[i] ? "" : "not ", -(double)scene->weights[i]);
    }
    for (uint64_t i = PUSHES; i < scene->elements; i++) {
        cr_assert_eq(scene->weights[i], -(float)count, "element %u is %g, not -%u",
                     (unsigned)i, (double)scene->weights[i], count);
    }
    cr_expect_eq(result.step, count);
}

static void expect_all(struct scene *scene, unsigned ahead)
{
    bool acknowledged[PUSHES];
    cr_assert_eq(train(scene, ahead, acknowledged), PUSHES, "%s", optclient_error());
    expect_applied(scene, acknowledged);
}

/* The faults that were asked for have happened. */
static void expect_tampered(struct scene *scene)
{
    cr_expect_gt(proxy_tampered(scene->proxy), PUSHES / 8);
}

/* ---------------------------------------------------------------- late and slow */

Test(proxied, bytes_that_come_late_and_unevenly_only_take_longer, .timeout = 60)
{
    struct scene scene;
    const struct lane_faults late = { .delay_ms = 5, .jitter_ms = 20 };
    scene_open(&scene, brisk, 0, ELEMENTS);
    proxy_faults(scene.proxy, PROXY_UP, &late, SEED);
    proxy_faults(scene.proxy, PROXY_DOWN, &late, SEED);
    expect_all(&scene, AHEAD);
    cr_expect_eq(proxy_connections(scene.proxy), 1, "a connection was given up");
    scene_close(&scene);
}

Test(proxied, a_frame_of_one_byte_a_second_is_cut_off_and_sent_again, .timeout = 60)
{
    struct scene scene;
    const struct lane_faults slow = { .bytes_per_second = 1 };
    scene_open(&scene, brisk, 0, ELEMENTS);
    proxy_faults(scene.proxy, PROXY_UP, &slow, SEED);
    struct optclient_call *call = push_start(&scene, 0);
    /* The first connection was the proxy's own; the daemon or the client ends it. */
    while (proxy_connections(scene.proxy) < 2) {
        expect_ok(optclient_pull(scene.watched,
                                 &(struct optclient_values){ .values = scene.weights },
                                 1, NULL, NULL));
        cr_assert_eq(scene.weights[0], 0.0f, "a part of a push was applied");
    }
    proxy_faults(scene.proxy, PROXY_UP, NULL, SEED);
    bool acknowledged[PUSHES] = { push_end(call) };
    cr_expect(acknowledged[0], "%s", optclient_error());
    expect_applied(&scene, acknowledged);
    scene_close(&scene);
}

Test(proxied, a_slow_reader_gets_its_weights_and_disturbs_nobody, .timeout = 60)
{
    struct scene scene;
    const struct lane_faults slow = { .bytes_per_second = 4 << 20 };
    scene_open(&scene, brisk, 0, LARGE);
    proxy_faults(scene.proxy, PROXY_DOWN, &slow, SEED);
    float *weights = calloc(LARGE, sizeof(float));
    struct optclient_values slowly = { .values = weights };
    struct optclient_values quickly = { .values = scene.weights };
    struct optclient_call *call;
    expect_ok(optclient_push(scene.model, &slowly, 1, NULL, NULL));
    expect_ok(optclient_pull_start(scene.model, &slowly, 1, NULL, NULL, NULL, &call));
    unsigned others = 0;
    while (!optclient_call_done(call)) {
        expect_ok(optclient_pull(scene.watched, &quickly, 1, NULL, NULL));
        others++;
    }
    expect_status(optclient_call_wait(call, NULL), OPTCLIENT_OK);
    optclient_call_free(call);
    cr_expect_gt(others, 10, "others waited for the slow one: %u pulls", others);
    cr_expect_eq(proxy_connections(scene.proxy), 1);
    free(weights);
    scene_close(&scene);
}

enum {
    TENSORS = 10000,
    TENSOR_NAME = 230,
    QUESTIONS = 12 /* more than are served at once */
};

/* A daemon that stops reading from a worker because it owes it so many answers, which
 * go out slowly, does not hold the silence against it. */
Test(proxied, a_worker_is_not_silent_while_nobody_listens, .timeout = 60)
{
    struct scene scene;
    const struct lane_faults slow = { .bytes_per_second = 4 << 20 };
    static struct optclient_tensor tensors[TENSORS];
    static char names[TENSORS][TENSOR_NAME];
    struct optclient_model *wide;
    scene_open(&scene, NULL, 0, ELEMENTS);
    for (unsigned i = 0; i < TENSORS; i++) {
        memset(names[i], 'x', TENSOR_NAME - 1);
        names[i][snprintf(names[i], TENSOR_NAME, "%u", i)] = '-';
        tensors[i].name = names[i];
    }
    expect_ok(optclient_create(scene.client, "wide", "sgd(lr=1)", NULL, tensors,
                               TENSORS, NULL, &wide));
    const char *port = strrchr(proxy_address(scene.proxy), ':') + 1;
    int asker = raw_connect((uint16_t)strtoul(port, NULL, 10));
    raw_hello(asker, "asker");
    proxy_faults(scene.proxy, PROXY_DOWN, &slow, SEED);
    for (uint64_t id = 1; id <= QUESTIONS; id++) {
        const struct opt_request describe = { .id = id,
                                              .message = OPT_MESSAGE_DESCRIBE,
                                              .body.describe = "wide" };
        cr_assert(raw_request(asker, &describe, NULL, 0));
    }
    for (unsigned i = 0; i < QUESTIONS; i++) {
        struct raw_reply reply;
        cr_assert(raw_receive(asker, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_DESCRIBE, "%s",
                     reply.reply.message == OPT_MESSAGE_ERROR
                         ? reply.reply.body.error.text
                         : "another answer");
        raw_reply_fini(&reply);
    }
    cr_expect_eq(test_counter(scene.witness, "leases_expired"), 0);
    close(asker);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- ends */

Test(proxied, a_connection_whose_one_way_is_closed_is_replaced, .timeout = 60)
{
    for (int way = PROXY_UP; way <= PROXY_DOWN; way++) {
        struct scene scene;
        bool acknowledged[PUSHES] = { false };
        scene_open(&scene, brisk, 0, ELEMENTS);
        for (unsigned i = 0; i < 5; i++) {
            acknowledged[2 * i] = push_end(push_start(&scene, 2 * i));
            struct optclient_call *call = push_start(&scene, 2 * i + 1);
            proxy_half_close(scene.proxy, (enum proxy_way)way);
            acknowledged[2 * i + 1] = push_end(call);
            cr_expect(acknowledged[2 * i] && acknowledged[2 * i + 1]);
        }
        expect_applied(&scene, acknowledged);
        cr_expect_geq(proxy_connections(scene.proxy), 5);
        scene_close(&scene);
    }
}

/* Whether the daemon says that w is connected. */
static bool connected(struct scene *scene)
{
    struct optclient_description *description;
    bool found = false;
    expect_ok(optclient_describe(scene->witness, "m", &description));
    for (size_t i = 0; i < description->worker_count; i++) {
        found |= strcmp(description->workers[i].name, "w") == 0 &&
                 description->workers[i].connected != 0;
    }
    optclient_description_free(description);
    return found;
}

Test(proxied, a_connection_on_which_nothing_passes_is_given_up_at_both_ends,
     .timeout = 60)
{
    struct scene scene;
    bool acknowledged[PUSHES] = { false };
    scene_open(&scene, brisk, 0, ELEMENTS);
    acknowledged[0] = push_end(push_start(&scene, 0));
    proxy_hold(scene.proxy, 1);
    struct optclient_call *call = push_start(&scene, 1);
    uint64_t start = test_now_ms();
    /* The daemon: its worker is not connected any more. The client: it has tried
     * again, which the proxy counts. */
    while (connected(&scene) || proxy_connections(scene.proxy) < 2) {
        cr_assert_lt(test_now_ms() - start, 15000);
    }
    proxy_hold(scene.proxy, 0);
    /* Applied, or refused because the worker was taken for dead. */
    acknowledged[1] = push_end(call);
    acknowledged[2] = push_end(push_start(&scene, 2));
    cr_expect(acknowledged[2]);
    expect_applied(&scene, acknowledged);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- frames */

Test(proxied, frames_that_come_twice_count_once, .timeout = 60)
{
    const struct lane_faults twice = { .duplicate_one_in = 3 };
    for (unsigned ahead = 1; ahead <= AHEAD; ahead += AHEAD - 1) {
        struct scene scene;
        scene_open(&scene, brisk, 0, ELEMENTS);
        proxy_faults(scene.proxy, PROXY_UP, &twice, SEED);
        expect_all(&scene, ahead);
        expect_tampered(&scene);
        scene_close(&scene);
    }
}

Test(proxied, answers_that_come_twice_are_taken_once, .timeout = 60)
{
    const struct lane_faults twice = { .duplicate_one_in = 3 };
    struct scene scene;
    scene_open(&scene, brisk, 0, ELEMENTS);
    proxy_faults(scene.proxy, PROXY_DOWN, &twice, SEED);
    expect_all(&scene, AHEAD);
    expect_tampered(&scene);
    scene_close(&scene);
}

/* A push of several frames, of which two have changed places, is refused whole. */
Test(proxied, frames_of_a_push_in_another_order_do_not_take_effect, .timeout = 60)
{
    const struct lane_faults swapped = { .swap_one_in = 3 };
    struct scene scene;
    bool acknowledged[PUSHES];
    scene_open(&scene, brisk, 0, LARGE);
    proxy_faults(scene.proxy, PROXY_UP, &swapped, SEED);
    unsigned count = train(&scene, 1, acknowledged);
    proxy_faults(scene.proxy, PROXY_UP, NULL, SEED);
    cr_expect(count > 0 && count < PUSHES, "%u were acknowledged", count);
    expect_applied(&scene, acknowledged);
    scene_close(&scene);
}

Test(proxied, answers_in_another_order_find_their_calls, .timeout = 60)
{
    const struct lane_faults swapped = { .swap_one_in = 3 };
    struct scene scene;
    scene_open(&scene, brisk, 0, ELEMENTS);
    proxy_faults(scene.proxy, PROXY_DOWN, &swapped, SEED);
    expect_all(&scene, AHEAD);
    expect_tampered(&scene);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- damage */

Test(proxied, damaged_gradients_are_found_and_sent_again, .timeout = 60)
{
    const struct lane_faults damaged = { .damage_one_in = 4 };
    for (unsigned ahead = 1; ahead <= AHEAD; ahead += AHEAD - 1) {
        struct scene scene;
        bool acknowledged[PUSHES];
        scene_open(&scene, brisk, 1, ELEMENTS);
        proxy_faults(scene.proxy, PROXY_UP, &damaged, SEED);
        unsigned count = train(&scene, ahead, acknowledged);
        proxy_faults(scene.proxy, PROXY_UP, NULL, SEED);
        cr_expect_eq(count, PUSHES, "%u of them", count);
        expect_applied(&scene, acknowledged);
        expect_tampered(&scene);
        scene_close(&scene);
    }
}

Test(proxied, damaged_weights_are_found_and_asked_for_again, .timeout = 60)
{
    const struct lane_faults damaged = { .damage_one_in = 3 };
    struct scene scene;
    scene_open(&scene, brisk, 1, ELEMENTS);
    expect_all(&scene, 1);
    proxy_faults(scene.proxy, PROXY_DOWN, &damaged, SEED);
    struct optclient_values values = { .values = scene.weights };
    for (unsigned i = 0; i < PUSHES; i++) {
        memset(scene.weights, 0, ELEMENTS * sizeof(float));
        expect_ok(optclient_pull(scene.model, &values, 1, NULL, NULL));
        for (size_t k = 0; k < ELEMENTS; k++) {
            cr_assert_eq(scene.weights[k], k < PUSHES ? -1.0f : -(float)PUSHES);
        }
    }
    cr_expect_gt(proxy_connections(scene.proxy), 1, "nothing was damaged");
    scene_close(&scene);
}
