/* Peers on a Unix socket that misuse memory in common: they take files and do not read
 * what comes with them, or keep weights and ask for what cannot be.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum {
    ELEMENTS = 40000,
    FILES = 128,       /* that the daemon may have open, or on their way */
    FLOOD = 2 * FILES, /* requests for more */
    LOANS = 16,        /* that a connection may have at a time */
    CAP_ADMIN = 21,    /* who has these, or */
    CAP_RESOURCE = 24, /* this, is not held to the limit of files on their way */
    FIRST_PULL = 1000,
    TENSORS = 8, /* each a shard of its own */
    SHARD = 3 << 18,
    SHARD_BYTES = SHARD * (int)sizeof(float)
};

/* A daemon, a worker of the library, and its model, which has had an update since its
 * memory is shared. */
struct scene {
    struct daemon_process daemon;
    struct optclient *client;
    struct optclient_model *model;
    struct shapes shapes;
    struct optclient_values *values;
};

/* One thread: how many places an update uses differs by how many it opens at a time. */
static void scene_open(struct scene *scene, size_t tensors, uint64_t elements)
{
    setenv("OPTIMD_TRANSPORT", "shared", 1);
    daemon_start(&scene->daemon, (const char *const[]){ "--threads", "1", NULL });
    scene->client = test_connect(scene->daemon.address, NULL);
    scene->shapes = shapes_new(tensors, elements);
    for (size_t i = 0; i < tensors; i++) {
        scene->shapes.sizes[i] = elements;
    }
    scene->values = values_new(&scene->shapes);
    fill_pattern(scene->values, &scene->shapes);
    scene->model = test_create(scene->client, "m", &scene->shapes);
    expect_ok(optclient_push(scene->model, scene->values, tensors, NULL, NULL));
}

static void scene_close(struct scene *scene)
{
    optclient_close(scene->client);
    daemon_stop(&scene->daemon);
    values_free(scene->values, &scene->shapes);
    shapes_free(&scene->shapes);
}

/* An observer that has opened the model; its number in *model. */
static int observe(const struct scene *scene, uint32_t *model)
{
    int socket = raw_connect(scene->daemon.port);
    raw_hello(socket, "");
    const struct opt_request open = { .id = 2,
                                      .message = OPT_MESSAGE_OPEN,
                                      .body.open = { .model = "m" } };
    struct raw_reply reply;
    cr_assert(raw_request(socket, &open, NULL, 0));
    cr_assert(raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    *model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    return socket;
}

static void ask_for_memory(int socket, uint64_t id, uint32_t model)
{
    const struct opt_request share = { .id = id,
                                       .message = OPT_MESSAGE_SHARE,
                                       .body.share = model };
    cr_assert(raw_request(socket, &share, NULL, 0));
}

Test(hostile_files, that_nobody_takes_do_not_cost_others_their_connection)
{
    struct scene scene;
    struct rlimit few = { .rlim_cur = FILES, .rlim_max = FILES };
    (void)prctl(PR_CAPBSET_DROP, CAP_ADMIN, 0, 0, 0);
    (void)prctl(PR_CAPBSET_DROP, CAP_RESOURCE, 0, 0, 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    scene_open(&scene, 1, ELEMENTS);
    uint32_t model = 0;
    int socket = observe(&scene, &model);
    for (uint64_t i = 0; i < FLOOD; i++) {
        ask_for_memory(socket, FIRST_PULL + i, model);
    }
    struct optclient *other = test_connect(scene.daemon.address, NULL);
    struct optclient_model *same = test_create(other, "m", &scene.shapes);
    expect_ok(optclient_pull(same, scene.values, 1, NULL, NULL));
    expect_pattern(scene.values, &scene.shapes, -1);
    struct optclient_usage usage;
    optclient_usage(other, &usage);
    cr_expect_eq(usage.reconnects, 0);
    optclient_close(other);
    /* The peer itself is told. */
    size_t given = 0, refused = 0;
    for (size_t i = 0; i < FLOOD; i++) {
        struct raw_reply reply;
        cr_assert(raw_receive(socket, &reply));
        given += reply.reply.message == OPT_MESSAGE_SHARE;
        refused += reply.reply.message == OPT_MESSAGE_ERROR &&
                   reply.reply.body.error.status == OPT_RESOURCE_EXHAUSTED;
        raw_reply_fini(&reply);
    }
    cr_expect_gt(given, 0);
    cr_expect_gt(refused, 0);
    cr_expect_eq(given + refused, FLOOD);
    close(socket);
    scene_close(&scene);
}

/* A pull of some tensors, or of all; whether any weights were given by place. */
static bool pull_is_lent(int socket, uint64_t id, uint32_t model,
                         const struct opt_segment *segments, size_t count)
{
    const struct opt_request pull = { .id = id,
                                      .message = OPT_MESSAGE_PULL,
                                      .body.pull = { .model = model,
                                                     .slot = "",
                                                     .segments = segments,
                                                     .segment_count = count,
                                                     .shared = true } };
    bool lent = false, last = false;
    cr_assert(raw_request(socket, &pull, NULL, 0));
    while (!last) {
        struct raw_reply reply;
        cr_assert(raw_receive(socket, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_PULL);
        lent = lent || reply.reply.body.pull.places != NULL;
        last = reply.reply.body.pull.last;
        raw_reply_fini(&reply);
    }
    return lent;
}

static void share(int socket, uint32_t model)
{
    struct raw_reply reply;
    ask_for_memory(socket, 3, model);
    cr_assert(raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_SHARE);
    cr_assert_eq(reply.reply.body.share.gradient_bytes, 0);
    raw_reply_fini(&reply);
}

Test(hostile_files, of_weights_are_given_back_by_a_request_that_is_refused_too)
{
    struct scene scene;
    scene_open(&scene, 1, ELEMENTS);
    uint32_t model = 0;
    int socket = observe(&scene, &model);
    share(socket, model);
    uint64_t ids[LOANS];
    for (size_t i = 0; i < LOANS; i++) {
        ids[i] = FIRST_PULL + i;
        cr_assert(pull_is_lent(socket, ids[i], model, NULL, 0), "%zu", i);
    }
    cr_assert_not(pull_is_lent(socket, 4, model, NULL, 0));
    const struct opt_request wrong = {
        .id = 5, .message = OPT_MESSAGE_LEAVE, .released = ids, .released_count = LOANS
    };
    cr_assert(raw_request(socket, &wrong, ids, sizeof(ids[0])));
    raw_expect_error(socket, 5, OPT_INVALID_ARGUMENT, "has no data");
    for (size_t i = 0; i < LOANS; i++) {
        cr_expect(pull_is_lent(socket, FIRST_PULL + LOANS + i, model, NULL, 0), "%zu",
                  i);
    }
    close(socket);
    scene_close(&scene);
}

#if !IS_SANITIZED /* else freed memory stays in quarantine */

/* How much memory the daemon takes while a peer keeps weights in as many answers as it
 * may, each of which has one more tensor than was given by place, or not. */
static size_t memory_kept(bool with_sent)
{
    struct scene scene;
    scene_open(&scene, TENSORS, SHARD);
    uint32_t model = 0;
    int socket = observe(&scene, &model);
    share(socket, model);
    uint64_t id = FIRST_PULL;
    struct opt_segment pulled[] = { { .tensor = 0 }, { .tensor = TENSORS - 1 } };
    for (int i = 0; i < 2; i++) { /* all the room that there is for the last tensor */
        cr_assert(pull_is_lent(socket, id++, model, &pulled[1], 1));
        expect_ok(optclient_push(scene.model, scene.values, TENSORS, NULL, NULL));
    }
    cr_assert_not(pull_is_lent(socket, 4, model, &pulled[1], 1));
    size_t before = daemon_memory(&scene.daemon);
    for (size_t i = 0; i < LOANS - 2; i++) {
        pulled[0].tensor = (uint32_t)(i / 2);
        cr_assert(pull_is_lent(socket, id++, model, pulled, with_sent ? 2 : 1));
        expect_ok(optclient_push(scene.model, scene.values, TENSORS, NULL, NULL));
    }
    size_t after = daemon_memory(&scene.daemon);
    close(socket);
    scene_close(&scene);
    return after > before ? after - before : 0;
}

/* Else one peer could keep 16 versions of large tensors. */
Test(hostile_files, keep_no_weights_that_were_sent, .timeout = 60)
{
    size_t placed = memory_kept(false), both = memory_kept(true);
    cr_expect_lt(both, placed + (size_t)3 * SHARD_BYTES, "%zu KiB, not %zu", both >> 10,
                 placed >> 10);
}

#endif
