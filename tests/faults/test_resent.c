/* A push whose connection breaks while it waits, and what may happen to its second
 * copy: what its caller is told in the end is true of the first one too.
 *
 * Workers a (through a proxy) and b share a synchronous model; a pushes ones, b
 * sixteens. The weights tell how often a's push was applied.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

enum { N = 4096 };

struct scene {
    struct daemon_process daemon;
    struct proxy *proxy;
    char direct[32];
    struct optclient *a, *b;
    struct optclient_model *at_a, *at_b;
    struct optclient_call *call; /* a's push */
};

static struct optclient_values constant(float value)
{
    static float room[2][N];
    float *values = room[value > 1];
    for (size_t i = 0; i < N; i++) {
        values[i] = value;
    }
    return (struct optclient_values){ .values = values };
}

static struct optclient *join(const char *address, const char *worker)
{
    struct optclient_options options = test_options();
    options.worker = worker;
    options.checksum = 1;
    return test_connect(address, &options);
}

static bool has_pushed(struct optclient *client, const char *worker)
{
    struct optclient_description *description;
    bool pushed = false;
    expect_ok(optclient_describe(client, "m", &description));
    for (size_t i = 0; i < description->worker_count; i++) {
        const struct optclient_worker_info *info = &description->workers[i];
        pushed = pushed || (strcmp(info->name, worker) == 0 && info->pushed);
    }
    optclient_description_free(description);
    return pushed;
}

/* a's push waits at the daemon. */
static void scene_open(struct scene *scene)
{
    static const char *const options[] = { "--grace", "20s", NULL };
    uint64_t shape = N;
    struct optclient_tensor tensor = { .name = "w", .shape = &shape, .rank = 1 };
    daemon_start(&scene->daemon, options);
    scene->proxy = proxy_start(scene->daemon.port);
    snprintf(scene->direct, sizeof scene->direct, "127.0.0.1:%u",
             (unsigned)scene->daemon.port);
    scene->a = join(proxy_address(scene->proxy), "a");
    scene->b = join(scene->direct, "b");
    expect_ok(optclient_create(scene->a, "m", "sgd(lr=1, aggregate=sum)", NULL, &tensor,
                               1, NULL, &scene->at_a));
    expect_ok(optclient_open(scene->b, "m", 1, &scene->at_b));
    struct optclient_values ones = constant(1);
    expect_ok(
        optclient_push_start(scene->at_a, &ones, 1, NULL, NULL, NULL, &scene->call));
    while (!has_pushed(scene->b, "a")) {
    }
}

/* How often a's push counts, after b's. */
static unsigned times_applied(struct scene *scene)
{
    float weights[N];
    struct optclient_values sixteens = constant(16), all = { .values = weights };
    expect_ok(optclient_push(scene->at_b, &sixteens, 1, NULL, NULL));
    expect_ok(optclient_pull(scene->at_b, &all, 1, NULL, NULL));
    cr_assert_leq(weights[0], -16);
    return (unsigned)(-weights[0] - 16);
}

static void scene_close(struct scene *scene)
{
    optclient_call_free(scene->call);
    optclient_close(scene->a);
    optclient_close(scene->b);
    proxy_stop(scene->proxy);
    daemon_stop(&scene->daemon);
}

/* The second copy comes damaged, and is sent again: under the same number. */
Test(resent, a_damaged_second_copy_does_not_make_a_push_count_twice, .timeout = 60)
{
    const struct lane_faults damaged = { .damage_one_in = 1 };
    struct scene scene;
    scene_open(&scene);
    proxy_faults(scene.proxy, PROXY_UP, &damaged, 1);
    proxy_half_close(scene.proxy, PROXY_UP);
    while (proxy_tampered(scene.proxy) == 0) {
        cr_assert(!optclient_call_done(scene.call), "%s", optclient_error());
        (void)has_pushed(scene.b, "a"); /* a round trip */
    }
    proxy_faults(scene.proxy, PROXY_UP, NULL, 1);
    cr_assert_eq(times_applied(&scene), 1);
    struct optclient_result result;
    expect_ok(optclient_call_wait(scene.call, &result));
    cr_assert(result.fate == OPTCLIENT_APPLIED || result.fate == OPTCLIENT_DUPLICATE);
    scene_close(&scene);
}

/* Another process takes the name before the second copy comes. */
Test(resent, whose_name_is_taken_over_is_not_said_not_to_be_applied, .timeout = 60)
{
    struct scene scene;
    scene_open(&scene);
    proxy_hold(scene.proxy, 1);
    proxy_half_close(scene.proxy, PROXY_UP);
    struct optclient *other = join(scene.direct, "a");
    proxy_hold(scene.proxy, 0);
    struct optclient_result result = { 0 };
    expect_status(optclient_call_wait(scene.call, &result),
                  OPTCLIENT_FAILED_PRECONDITION);
    cr_assert_eq(result.fate, OPTCLIENT_NOT_KNOWN);
    cr_assert_eq(result.detail, OPTCLIENT_TAKEN_OVER);
    cr_assert_eq(optclient_detail(), OPTCLIENT_TAKEN_OVER);
    cr_assert_not_null(strstr(optclient_error(), "is not known"), "%s",
                       optclient_error());
    cr_assert_leq(times_applied(&scene), 1);
    optclient_close(other);
    scene_close(&scene);
}

/* A push that never left this process was not applied, and that is known. */
Test(resent, a_push_that_was_never_sent_is_known_not_to_be_applied)
{
    struct scene scene;
    scene_open(&scene);
    float nothing = 0;
    struct optclient_values wrong = { .tensor = 3, .values = &nothing };
    struct optclient_result result = { 0 };
    expect_status(optclient_push(scene.at_b, &wrong, 1, NULL, &result),
                  OPTCLIENT_INVALID_ARGUMENT);
    cr_assert_eq(result.fate, OPTCLIENT_NOT_APPLIED);
    cr_assert_eq(times_applied(&scene), 1);
    scene_close(&scene);
}
