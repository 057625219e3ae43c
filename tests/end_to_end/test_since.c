/* Pulls that say which step they have, through the client library and a real daemon:
 * what comes and what stays is together, bit for bit, what a pull of everything gives,
 * and nothing comes that need not.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "common/wire.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

/* Small tensors that share a shard, one of three shards, and small ones again. */
enum { SMALL = 30, TENSORS = 2 * SMALL + 1, LARGE = 2 * OPT_SHARD + 40000 };
enum { WIDTH = 1024, ROWS = 3000 }; /* a table of three shards, last of all */

static uint64_t sizes[TENSORS];
static const uint64_t table_shape[] = { ROWS, WIDTH };
static char names[TENSORS][8];
static struct optclient_tensor tensors[TENSORS + 1];

static void define_tensors(void)
{
    for (size_t i = 0; i < TENSORS; i++) {
        sizes[i] = i == SMALL ? LARGE : 1 + i % 7;
        snprintf(names[i], sizeof(names[i]), "t%zu", i);
        tensors[i] = (struct optclient_tensor){ .name = names[i],
                                                .shape = &sizes[i],
                                                .rank = 1 };
    }
    tensors[TENSORS] = (struct optclient_tensor){
        .name = "table", .shape = table_shape, .rank = 2, .sparse = 1
    };
}

static struct optclient_values *memory_new(size_t count)
{
    struct optclient_values *memory = calloc(count, sizeof(*memory));
    for (size_t i = 0; i < count; i++) {
        memory[i].tensor = i;
        memory[i].values =
            calloc((size_t)optclient_tensor_elements(&tensors[i]), sizeof(float));
    }
    return memory;
}

static void memory_free(struct optclient_values *memory, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(memory[i].values);
    }
    free(memory);
}

static uint64_t total_of(size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += optclient_tensor_elements(&tensors[i]);
    }
    return total;
}

struct scene {
    struct daemon_process server;
    struct proxy *proxy; /* of the client's connection; NULL: none */
    struct optclient *client;
    struct optclient_model *model;
    size_t count; /* of tensors */
    struct optclient_values *memory, *whole, *gradients;
    uint64_t step; /* that memory shows */
    uint32_t state;
};

static void scene_open(struct scene *scene, const char *specification,
                       const struct optclient_policy *policy, size_t count,
                       struct optclient_options options)
{
    define_tensors();
    *scene = (struct scene){ .count = count, .state = 7 };
    daemon_start(&scene->server, NULL);
    scene->proxy = proxy_start(scene->server.port);
    scene->client = test_connect(proxy_address(scene->proxy), &options);
    scene->memory = memory_new(count);
    scene->whole = memory_new(count);
    scene->gradients = memory_new(count);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < optclient_tensor_elements(&tensors[i]); k++) {
            scene->gradients[i].values[k] = (float)((i + k) % 64) / 64 - 0.25f;
        }
    }
    expect_ok(optclient_create(scene->client, "m", specification, policy, tensors,
                               count, NULL, &scene->model));
}

static void scene_close(struct scene *scene)
{
    optclient_close(scene->client);
    proxy_stop(scene->proxy);
    daemon_stop(&scene->server);
    memory_free(scene->memory, scene->count);
    memory_free(scene->whole, scene->count);
    memory_free(scene->gradients, scene->count);
}

/* Memory is what a pull of everything gives. */
static void expect_whole(struct scene *scene, const struct optclient_pull_options *how)
{
    struct optclient_pull_options all =
        how == NULL ? (struct optclient_pull_options){ 0 } : *how;
    struct optclient_result result;
    all.since = 0;
    expect_ok(optclient_pull(scene->model, scene->whole, scene->count, &all, &result));
    cr_assert_eq(result.step, scene->step);
    cr_assert_eq(result.unchanged, 0);
    for (size_t i = 0; i < scene->count; i++) {
        size_t bytes = (size_t)optclient_tensor_elements(&tensors[i]) * sizeof(float);
        cr_assert_arr_eq(scene->memory[i].values, scene->whole[i].values, bytes,
                         "tensor %zu at step %zu", i, (size_t)scene->step);
    }
}

/* Bring memory up to date. Returns how many values did not come. */
static uint64_t refresh(struct scene *scene, struct optclient_pull_options how)
{
    struct optclient_result result;
    how.since = scene->step;
    expect_ok(optclient_pull(scene->model, scene->memory, scene->count, &how, &result));
    scene->step = result.step;
    expect_whole(scene, &how);
    return result.unchanged;
}

static void push_one(struct scene *scene, size_t tensor)
{
    expect_ok(optclient_push(scene->model, &scene->gradients[tensor], 1, NULL, NULL));
}

static void some_tensors(struct optclient_options options)
{
    static const struct optclient_pull_options train;
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)", NULL, TENSORS, options);
    uint64_t total = total_of(TENSORS);
    push_one(&scene, 0);
    cr_expect_eq(refresh(&scene, train), 0);
    cr_expect_eq(refresh(&scene, train), total);
    push_one(&scene, 3);
    uint64_t before = proxy_bytes_down(scene.proxy);
    struct optclient_pull_options since = { .since = scene.step };
    struct optclient_result result;
    expect_ok(optclient_pull(scene.model, scene.memory, TENSORS, &since, &result));
    cr_expect_eq(result.unchanged, total - sizes[3]);
    cr_expect_lt(proxy_bytes_down(scene.proxy) - before, 2000,
                 "there is a name for each tensor, and four values");
    scene.step = result.step;
    expect_whole(&scene, NULL);
    push_one(&scene, SMALL);
    cr_expect_eq(refresh(&scene, train), total - LARGE);
    /* Some tensors, and not in order. */
    push_one(&scene, 5);
    struct optclient_values some[] = { scene.memory[7], scene.memory[SMALL],
                                       scene.memory[5] };
    since.since = scene.step;
    expect_ok(optclient_pull(scene.model, some, 3, &since, &result));
    cr_expect_eq(result.unchanged, sizes[7] + LARGE);
    scene.step = result.step;
    expect_whole(&scene, NULL);
    scene_close(&scene);
}

Test(since, leaves_out_tensors_that_were_not_pushed)
{
    some_tensors(test_options());
}

Test(since, leaves_them_out_of_sums_and_half_precision_too)
{
    struct optclient_options options = test_options();
    options.checksum = 1;
    some_tensors(options);
    options.pull_dtype = OPTCLIENT_BF16;
    some_tensors(options);
}

Test(since, leaves_out_shards_of_a_table_without_pushed_rows)
{
    static const struct optclient_pull_options train;
    static float values[WIDTH];
    struct scene scene;
    scene_open(&scene, "adam(lr=0.1)", NULL, TENSORS + 1, test_options());
    uint64_t total = total_of(TENSORS + 1);
    push_one(&scene, 0);
    cr_expect_eq(refresh(&scene, train), 0);
    for (size_t i = 0; i < WIDTH; i++) {
        values[i] = 1;
    }
    const uint32_t row = ROWS - 1;
    const struct optclient_values rows = {
        .tensor = TENSORS, .values = values, .rows = &row, .row_count = 1
    };
    expect_ok(optclient_push(scene.model, &rows, 1, NULL, NULL));
    uint64_t last_shard = (uint64_t)ROWS * WIDTH % OPT_SHARD;
    cr_expect_eq(refresh(&scene, train), total - last_shard);
    scene_close(&scene);
}

/* ---------------------------------------------------------------- policies, views */

/* Train with pushes of some tensors, by push_pulls and pushes. Returns the values that
 * did not come. */
static uint64_t train(const char *specification, struct optclient_policy policy,
                      struct optclient_pull_options how)
{
    struct scene scene;
    uint64_t unchanged = 0;
    scene_open(&scene, specification, &policy, TENSORS, test_options());
    for (int i = 0; i < 12; i++) {
        struct optclient_values named[TENSORS];
        size_t count = 0;
        struct optclient_result result;
        for (size_t t = 0; t < TENSORS; t++) {
            scene.state = scene.state * 1664525u + 1013904223u;
            if ((scene.state >> 16) % (t == SMALL ? 3 : 5) == 0 || t == (size_t)i) {
                named[count++] = scene.gradients[t];
            }
        }
        if (i % 3 == 2) {
            expect_ok(optclient_push(scene.model, named, count, NULL, NULL));
            unchanged += refresh(&scene, how);
            continue;
        }
        how.since = scene.step;
        expect_ok(optclient_push_pull(scene.model, named, count, NULL, scene.memory,
                                      TENSORS, &how, &result));
        scene.step = result.step;
        unchanged += result.unchanged;
        expect_whole(&scene, &how);
    }
    scene_close(&scene);
    return unchanged;
}

Test(since, holds_for_every_policy)
{
    static const struct optclient_pull_options view;
    cr_expect_gt(train("adam(lr=0.1)",
                       (struct optclient_policy){ .mode = OPTCLIENT_SYNC }, view),
                 LARGE);
    cr_expect_gt(train("adam(lr=0.1)",
                       (struct optclient_policy){ .mode = OPTCLIENT_ASYNC,
                                                  .delay_compensation = 0.5 },
                       view),
                 LARGE);
    cr_expect_gt(
        train("momentum(lr=0.1)",
              (struct optclient_policy){ .mode = OPTCLIENT_BOUNDED, .staleness = 2 },
              view),
        LARGE);
}

Test(since, holds_for_rounds_that_are_applied_shard_by_shard)
{
    const struct optclient_policy policy = { .atomic = OPTCLIENT_ATOMIC_SHARD };
    static const struct optclient_pull_options view;
    cr_expect_gt(train("adam(lr=0.1)", policy, view), LARGE);
    cr_expect_gt(train("lamb(lr=0.1)", policy, view), LARGE);
}

Test(since, holds_for_every_view)
{
    const struct optclient_policy policy = { .mode = OPTCLIENT_SYNC };
    const struct optclient_pull_options eval = { .view = OPTCLIENT_EVAL };
    const struct optclient_pull_options slot = { .view = OPTCLIENT_SLOT,
                                                 .slot = "momentum_buffer" };
    static const struct optclient_pull_options view;
    cr_expect_gt(train("nag(lr=0.1)", policy, view), LARGE);
    cr_expect_gt(train("nag(lr=0.1)", policy, slot), LARGE);
    cr_expect_gt(train("adam(lr=0.1) + lookahead(4)", policy, view), LARGE);
    cr_expect_gt(train("adam(lr=0.1) + lookahead(4)", policy, eval), LARGE);
}

/* ---------------------------------------------------------------- lost connections */

Test(since, has_everything_again_after_a_lost_connection)
{
    static const struct optclient_pull_options view;
    struct scene scene;
    scene_open(&scene, "sgd(lr=0.5)", NULL, TENSORS, test_options());
    push_one(&scene, SMALL);
    refresh(&scene, view);
    for (uint64_t part = 1; part < 4; part++) {
        struct optclient_usage usage;
        struct optclient_pull_options since = { .since = scene.step };
        struct optclient_result result;
        /* Cut in the middle of the large tensor's values. */
        proxy_cut_after(scene.proxy, 0, part * LARGE);
        expect_ok(optclient_push_pull(scene.model, &scene.gradients[SMALL], 1, NULL,
                                      scene.memory, TENSORS, &since, &result));
        optclient_usage(scene.client, &usage);
        cr_assert_eq(usage.reconnects, part);
        cr_assert_eq(result.step, scene.step + 1);
        cr_expect_eq(result.unchanged, 0, "it may be another model of that name");
        scene.step = result.step;
        expect_whole(&scene, NULL);
        /* What was pulled after that is known to be of this one. */
        push_one(&scene, 1);
        refresh(&scene, view);
        push_one(&scene, 2);
        cr_expect_eq(refresh(&scene, view), total_of(TENSORS) - sizes[2]);
    }
    scene_close(&scene);
}
