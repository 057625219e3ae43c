/* Rounds that are applied shard by shard, through a real daemon: what leaves before a
 * push is complete, and that workers end with the same weights as by whole rounds.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

/* ---------------------------------------------------------------- on the wire */

enum { PARTS = 3, ELEMENTS = 2 * OPT_SHARD + 5 };

static const struct opt_segment parts[PARTS] = {
    { .count = OPT_SHARD },
    { .offset = OPT_SHARD, .count = OPT_SHARD },
    { .offset = 2 * OPT_SHARD, .count = 5 },
};

static uint32_t create_raw(int fd)
{
    const uint64_t shape[] = { ELEMENTS };
    const struct opt_tensor_entry entry = {
        .name = "w", .shape = shape, .rank = 1, .elements = ELEMENTS
    };
    static uint8_t table[256];
    size_t size = opt_tensor_table_pack(&entry, 1, table, sizeof(table));
    const struct opt_request request = {
        .id = 1,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "m",
                         .specification = { .expression = "sgd(lr=1)", .rule = "" },
                         .consistency = { .atomic = OPT_ATOMIC_SHARD },
                         .join = true },
    };
    struct raw_reply reply;
    cr_assert(raw_request(fd, &request, table, size) && raw_receive(fd, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL, "%s",
                 reply.reply.body.error.text);
    uint32_t model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    return model;
}

/* A frame of the push_pull, all ones; what it pulls is said where asked. */
static void send_part(int fd, uint32_t model, uint32_t frame, bool says)
{
    static float ones[OPT_SHARD];
    for (size_t i = 0; i < OPT_SHARD; i++) {
        ones[i] = 1;
    }
    const struct opt_request request = {
        .id = 7,
        .message = OPT_MESSAGE_PUSH_PULL,
        .body.push_pull = { .push = { .model = model,
                                      .sequence = 1,
                                      .samples = 1,
                                      .segments = &parts[frame],
                                      .segment_count = 1,
                                      .frame = frame,
                                      .last = frame == PARTS - 1 },
                            .pull = { .model = model, .slot = "" },
                            .has_pull = says },
    };
    cr_assert(
        raw_request(fd, &request, ones, (size_t)parts[frame].count * sizeof(float)));
}

/* The next frame of the answer has that part, and the last one the push's fate. */
static void expect_part(int fd, uint32_t part)
{
    struct raw_reply reply;
    cr_assert(raw_receive(fd, &reply));
    const struct opt_push_pull_reply *both = &reply.reply.body.push_pull;
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH_PULL);
    cr_assert_eq(reply.reply.id, 7);
    cr_assert_eq(both->pull.step, 1, "the step that the round makes");
    cr_assert_eq(both->pull.segment_count, 1);
    cr_assert_eq(both->pull.segments[0].offset, parts[part].offset);
    cr_assert_eq(reply.data_size, parts[part].count * sizeof(float));
    float first;
    memcpy(&first, reply.data, sizeof(first));
    cr_assert(first == -1);
    cr_assert_eq(both->pull.last, part == PARTS - 1);
    cr_assert_eq(both->has_push, part == PARTS - 1);
    raw_reply_fini(&reply);
}

Test(streaming, sends_a_shard_before_the_push_is_complete)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "w");
    uint32_t model = create_raw(fd);
    for (uint32_t i = 0; i < PARTS; i++) {
        send_part(fd, model, i, i == 0 || i == PARTS - 1);
        expect_part(fd, i);
    }
    close(fd);
    daemon_stop(&daemon);
}

Test(streaming, sends_everything_at_the_end_if_the_first_frame_does_not_ask)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "w");
    uint32_t model = create_raw(fd);
    for (uint32_t i = 0; i < PARTS; i++) {
        send_part(fd, model, i, i == PARTS - 1);
    }
    for (uint32_t i = 0; i < PARTS; i++) {
        struct raw_reply reply;
        cr_assert(raw_receive(fd, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH_PULL);
        bool last = reply.reply.body.push_pull.pull.last;
        raw_reply_fini(&reply);
        if (last) {
            break;
        }
        cr_assert_lt(i, PARTS - 1);
    }
    close(fd);
    daemon_stop(&daemon);
}

/* ---------------------------------------------------------------- workers */

/* More than sockets hold, in both directions at once. */
enum { WORKERS = 2, STEPS = 3, LARGE = 9 * OPT_SHARD + 77, TENSORS = 40 };

struct worker {
    const char *address, *name, *model, *specification;
    enum optclient_atomic atomic;
    unsigned number;
    struct optclient_values *weights; /* in the end */
    struct shapes shapes;
};

static void *train(void *argument)
{
    struct worker *worker = argument;
    struct optclient_options options = test_options();
    const struct optclient_policy policy = { .min_workers = WORKERS,
                                             .atomic = worker->atomic };
    options.worker = worker->name;
    options.timeout_ms = 60000;
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_values *gradient = values_new(&worker->shapes);
    require(optclient_connect(worker->address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, worker->model, worker->specification, &policy,
                             worker->shapes.tensors, TENSORS, NULL,
                             &model) == OPTCLIENT_OK);
    for (unsigned step = 0; step < STEPS; step++) {
        struct optclient_result result;
        for (size_t t = 0; t < TENSORS; t++) {
            for (size_t i = 0; i < worker->shapes.sizes[t]; i++) {
                gradient[t].values[i] =
                    pattern(t, i + step) * (float)(worker->number + 1) / 64;
            }
        }
        require(optclient_push_pull(model, gradient, TENSORS, NULL, worker->weights,
                                    TENSORS, NULL, &result) == OPTCLIENT_OK);
        require(result.fate == OPTCLIENT_APPLIED && result.step == step + 1);
    }
    optclient_model_close(model);
    optclient_close(client);
    values_free(gradient, &worker->shapes);
    return NULL;
}

/* All workers of a model; returns the weights that the first has in the end. */
static struct optclient_values *train_all(const struct daemon_process *daemon,
                                          const char *model, const char *specification,
                                          enum optclient_atomic atomic,
                                          const struct shapes *shapes)
{
    static const char *const names[WORKERS] = { "a", "b" };
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ .address = daemon->address,
                                      .name = names[i],
                                      .model = model,
                                      .specification = specification,
                                      .atomic = atomic,
                                      .number = i,
                                      .weights = values_new(shapes),
                                      .shapes = *shapes };
        cr_assert_eq(pthread_create(&threads[i], NULL, train, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    for (size_t t = 0; t < TENSORS; t++) {
        cr_assert_eq(memcmp(workers[0].weights[t].values, workers[1].weights[t].values,
                            (size_t)shapes->sizes[t] * sizeof(float)),
                     0, "workers differ in tensor %zu", t);
    }
    values_free(workers[1].weights, shapes);
    return workers[0].weights;
}

Test(streaming, gives_workers_the_same_weights_as_whole_rounds)
{
    static const char *const specifications[] = {
        "adam(lr=0.01)",
        "momentum(lr=0.1) + lookahead(k=2)",
        "nag(lr=0.1, nesterov_form=classical)",
        "lamb(lr=0.01)",
    };
    struct daemon_process daemon;
    struct shapes shapes = shapes_new(TENSORS, LARGE);
    daemon_start(&daemon, NULL);
    for (size_t i = 0; i < sizeof specifications / sizeof *specifications; i++) {
        char name[2][16];
        snprintf(name[0], sizeof name[0], "whole%zu", i);
        snprintf(name[1], sizeof name[1], "shards%zu", i);
        struct optclient_values *whole = train_all(&daemon, name[0], specifications[i],
                                                   OPTCLIENT_ATOMIC_ROUND, &shapes);
        struct optclient_values *shards = train_all(&daemon, name[1], specifications[i],
                                                    OPTCLIENT_ATOMIC_SHARD, &shapes);
        for (size_t t = 0; t < TENSORS; t++) {
            cr_assert_eq(memcmp(whole[t].values, shards[t].values,
                                (size_t)shapes.sizes[t] * sizeof(float)),
                         0, "%s: tensor %zu differs", specifications[i], t);
        }
        values_free(whole, &shapes);
        values_free(shards, &shapes);
    }
    daemon_stop(&daemon);
    shapes_free(&shapes);
}
