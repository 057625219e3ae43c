/* Gradients and weights in memory that worker and daemon have in common, through the
 * client library and a real daemon on a Unix socket.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum {
    TENSORS = 12,
    LARGE = 2 * (1 << 20) + 40000, /* three shards */
    TIMEOUT_S = 60
};

static struct daemon_process server;
static char address[DAEMON_PATH + 32];
static struct shapes shapes;
static struct optclient_values *gradients, *weights;

static void begin(const char *const *options)
{
    daemon_start(&server, options);
    snprintf(address, sizeof(address), "unix:%s/socket", server.directory);
    shapes = shapes_new(TENSORS, LARGE);
    gradients = values_new(&shapes);
    weights = values_new(&shapes);
    fill_pattern(gradients, &shapes);
}

static void end(void)
{
    values_free(gradients, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
    if (server.pid != 0) {
        daemon_stop(&server);
    }
}

static struct optclient *join_as(const char *worker, struct optclient_options options)
{
    options.worker = worker;
    return test_connect(address, &options);
}

static struct optclient_usage usage_of(const struct optclient *client)
{
    struct optclient_usage usage;
    optclient_usage(client, &usage);
    return usage;
}

/* Of a pull of all tensors, */
static uint64_t all_bytes(void)
{
    uint64_t elements = 0;
    for (size_t i = 0; i < shapes.count; i++) {
        elements += shapes.sizes[i];
    }
    return elements * sizeof(float);
}

/* and of a push: the first frame has only small tensors, and is sent. */
static uint64_t push_bytes(void)
{
    return LARGE * sizeof(float);
}

static void expect_views(const struct optclient_model *model, float factor)
{
    for (size_t i = 0; i < shapes.count; i++) {
        const float *view = optclient_weights(model, i);
        cr_assert_not_null(view);
        for (size_t e = 0; e < shapes.sizes[i]; e++) {
            if (view[e] != factor * pattern(i, e)) {
                cr_assert_fail("tensor %zu, element %zu: %g instead of %g", i, e,
                               (double)view[e], (double)(factor * pattern(i, e)));
            }
        }
    }
}

/* Name the model's own memory as that of all gradients, filled with the pattern. */
static void give_in_place(struct optclient_model *model,
                          struct optclient_values in_place[TENSORS], float factor)
{
    for (size_t i = 0; i < shapes.count; i++) {
        float *memory = optclient_gradient(model, i);
        cr_assert_not_null(memory, "%s", optclient_error());
        cr_assert_eq((uintptr_t)memory % 64, 0);
        in_place[i] = (struct optclient_values){ .tensor = i, .values = memory };
        for (size_t e = 0; e < shapes.sizes[i]; e++) {
            memory[e] = factor * pattern(i, e);
        }
    }
}

/* -------------------------------------------------------------- both ways */

/* The weights of the first step were never updated, and are sent. */
Test(shared, values_of_the_caller_are_copied_and_not_sent, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    uint64_t sent = usage_of(client).bytes_sent;
    for (int step = 1; step <= 4; step++) {
        struct optclient_result result;
        expect_ok(optclient_push_pull(model, gradients, TENSORS, NULL, weights, TENSORS,
                                      NULL, &result));
        cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
        cr_assert_eq(result.step, (uint64_t)step);
        expect_pattern(weights, &shapes, (float)-step);
    }
    struct optclient_usage usage = usage_of(client);
    uint64_t expected = 4 * (push_bytes() + all_bytes());
    cr_assert_eq(usage.bytes_shared, expected);
    cr_assert_lt(usage.bytes_sent - sent, 10000u);
    cr_assert_eq(test_counter(client, "data_bytes_shared"), expected);
    optclient_model_close(model);
    optclient_close(client);
    end();
}

Test(shared, memory_in_place_is_not_even_copied, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values in_place[TENSORS];
    for (int step = 1; step <= 5; step++) {
        give_in_place(model, in_place, 1);
        struct optclient_result result;
        expect_ok(optclient_push_pull(model, in_place, TENSORS, NULL, NULL, 0, NULL,
                                      &result));
        cr_assert_eq(result.step, (uint64_t)step);
        expect_views(model, (float)-step);
    }
    cr_assert_eq(usage_of(client).bytes_shared, 5 * (push_bytes() + all_bytes()));
    /* One worker that gives its weights back in time: the first update brings them into
     * the file, all others are made where they are. */
    cr_assert_eq(test_counter(client, "versions_fresh"), 4u);
    cr_assert_null(optclient_weights(model, TENSORS));
    cr_assert_null(optclient_gradient(model, TENSORS));
    optclient_model_close(model);
    optclient_close(client);
    end();
}

Test(shared, gradients_of_16_bits_are_given_by_place_too, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient_options options = test_options();
    options.push_dtype = OPTCLIENT_BF16;
    options.pull_dtype = OPTCLIENT_FP16;
    struct optclient *client = join_as("w", options);
    struct optclient_model *model = test_create(client, "m", &shapes);
    expect_ok(optclient_push_pull(model, gradients, TENSORS, NULL, weights, TENSORS,
                                  NULL, NULL));
    expect_pattern(weights, &shapes, -1);
    cr_assert_eq(usage_of(client).bytes_shared, push_bytes() / 2, "the pull was sent");
    optclient_model_close(model);
    optclient_close(client);
    end();
}

Test(shared, a_part_of_the_tensors_is_pulled_by_place, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    expect_ok(optclient_push(model, gradients, TENSORS, NULL, NULL));
    struct optclient_values two[] = { weights[TENSORS - 1], weights[3] };
    expect_ok(optclient_pull(model, two, 2, NULL, NULL));
    for (size_t e = 0; e < LARGE; e++) {
        cr_assert(two[0].values[e] == -pattern(TENSORS - 1, e));
    }
    cr_assert(two[1].values[3] == -pattern(3, 3));
    cr_assert_eq(usage_of(client).bytes_shared, push_bytes() + (LARGE + 4) * 4u);
    optclient_model_close(model);
    optclient_close(client);
    end();
}

/* -------------------------------------------------------------- who reads, who waits
 */

struct helper {
    struct optclient_model *model;
    struct optclient_values *values;
};

static void *push_once(void *argument)
{
    struct helper *helper = argument;
    require(optclient_push(helper->model, helper->values, TENSORS, NULL, NULL) ==
            OPTCLIENT_OK);
    return NULL;
}

/* Two workers of a round: one copies, the other works in place. */
Test(shared, workers_of_a_round_may_do_it_either_way, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *a = join_as("a", test_options());
    struct optclient *b = join_as("b", test_options());
    struct optclient_model *at_a = test_create(a, "m", &shapes);
    struct optclient_model *at_b = test_create(b, "m", &shapes);
    struct optclient_values in_place[TENSORS];
    for (int step = 1; step <= 3; step++) {
        struct helper helper = { .model = at_a, .values = gradients };
        pthread_t thread;
        pthread_create(&thread, NULL, push_once, &helper);
        give_in_place(at_b, in_place, 3);
        expect_ok(
            optclient_push_pull(at_b, in_place, TENSORS, NULL, NULL, 0, NULL, NULL));
        pthread_join(thread, NULL);
        expect_views(at_b, (float)(-2 * step)); /* the mean of 1 and 3 */
        expect_ok(optclient_pull(at_a, weights, TENSORS, NULL, NULL));
        expect_pattern(weights, &shapes, (float)(-2 * step));
    }
    optclient_model_close(at_a);
    optclient_model_close(at_b);
    optclient_close(a);
    optclient_close(b);
    end();
}

static struct optclient_model *create_async(struct optclient *client)
{
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    struct optclient_model *model = NULL;
    expect_ok(optclient_create(client, "m", "sgd(lr=1)", &policy, shapes.tensors,
                               TENSORS, NULL, &model));
    return model;
}

Test(shared, what_is_read_in_place_stays_whole_while_others_push, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *reader = join_as("", test_options());
    struct optclient *writer = join_as("w", test_options());
    struct optclient_model *at_writer = create_async(writer);
    expect_ok(optclient_push(at_writer, gradients, TENSORS, NULL, NULL));
    struct optclient_model *at_reader;
    expect_ok(optclient_open(reader, "m", 0, &at_reader));
    expect_ok(optclient_pull(at_reader, NULL, 0, NULL, NULL));
    const float *first = optclient_weights(at_reader, TENSORS - 1);
    for (int step = 2; step <= 6; step++) {
        expect_ok(optclient_push(at_writer, gradients, TENSORS, NULL, NULL));
        expect_views(at_reader, -1);
    }
    cr_assert_eq(optclient_weights(at_reader, TENSORS - 1), first);
    struct optclient_result result;
    expect_ok(optclient_pull(at_reader, NULL, 0, NULL, &result));
    cr_assert_eq(result.step, 6u);
    expect_views(at_reader, -6);
    cr_assert_gt(usage_of(reader).bytes_shared, 0u);
    optclient_model_close(at_reader);
    optclient_model_close(at_writer);
    optclient_close(reader);
    optclient_close(writer);
    end();
}

struct newcomer {
    pthread_t thread;
    unsigned number;
    uint64_t shared; /* bytes, after two steps */
};

static void *start_and_step(void *argument)
{
    struct newcomer *newcomer = argument;
    struct optclient_options options = test_options();
    char name[16];
    snprintf(name, sizeof(name), "w%u", newcomer->number);
    options.worker = name;
    struct optclient *client;
    struct optclient_model *model;
    const uint64_t shape = 4096;
    const struct optclient_tensor tensor = { .name = "t", .shape = &shape, .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    float *values = calloc(shape, sizeof(*values));
    const struct optclient_values all = { .values = values };
    require(optclient_connect(address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, "crowd", "sgd(lr=1)", &policy, &tensor, 1, NULL,
                             &model) == OPTCLIENT_OK);
    require(optclient_push(model, &all, 1, NULL, NULL) == OPTCLIENT_OK);
    newcomer->shared = usage_of(client).bytes_shared;
    optclient_model_close(model);
    optclient_close(client);
    free(values);
    return NULL;
}

/* More than there may be files on their way at a time. */
Test(shared, many_workers_may_start_at_once, .timeout = TIMEOUT_S)
{
    enum { CROWD = 60 };
    static struct newcomer crowd[CROWD];
    begin(NULL);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd[i].number = i;
        cr_assert_eq(pthread_create(&crowd[i].thread, NULL, start_and_step, &crowd[i]),
                     0);
    }
    for (unsigned i = 0; i < CROWD; i++) {
        pthread_join(crowd[i].thread, NULL);
        cr_expect_eq(crowd[i].shared, 4096 * sizeof(float), "worker %u sent", i);
    }
    end();
}

/* Those beyond the two versions that the file has room for get what is sent. */
Test(shared, many_readers_of_old_versions_are_all_served, .timeout = TIMEOUT_S)
{
    enum { READERS = 6 };
    begin(NULL);
    struct optclient *writer = join_as("w", test_options());
    struct optclient_model *at_writer = create_async(writer);
    struct optclient *readers[READERS];
    struct optclient_model *models[READERS];
    for (int i = 0; i < READERS; i++) {
        expect_ok(optclient_push(at_writer, gradients, TENSORS, NULL, NULL));
        readers[i] = join_as("", test_options());
        expect_ok(optclient_open(readers[i], "m", 0, &models[i]));
        expect_ok(optclient_pull(models[i], NULL, 0, NULL, NULL));
    }
    for (int i = 0; i < READERS; i++) {
        expect_views(models[i], (float)(-1 - i));
    }
    for (int i = 0; i < READERS; i++) {
        optclient_model_close(models[i]);
        optclient_close(readers[i]);
    }
    /* With nobody reading the weights go back into the file. */
    for (int i = 0; i < 3; i++) {
        expect_ok(optclient_push_pull(at_writer, gradients, TENSORS, NULL, weights,
                                      TENSORS, NULL, NULL));
    }
    uint64_t shared = usage_of(writer).bytes_shared;
    expect_ok(optclient_pull(at_writer, weights, TENSORS, NULL, NULL));
    expect_pattern(weights, &shapes, -READERS - 3);
    cr_assert_eq(usage_of(writer).bytes_shared - shared, all_bytes());
    optclient_model_close(at_writer);
    optclient_close(writer);
    end();
}

Test(shared, pushes_that_overlap_do_not_share_memory, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = create_async(client);
    struct optclient_values *doubled = values_new(&shapes);
    for (size_t i = 0; i < TENSORS; i++) {
        for (size_t e = 0; e < shapes.sizes[i]; e++) {
            doubled[i].values[e] = 2 * pattern(i, e);
        }
    }
    struct optclient_call *calls[4];
    for (int i = 0; i < 4; i++) {
        expect_ok(optclient_push_start(model, i % 2 == 0 ? gradients : doubled, TENSORS,
                                       NULL, NULL, NULL, &calls[i]));
    }
    for (int i = 0; i < 4; i++) {
        expect_ok(optclient_call_wait(calls[i], NULL));
        optclient_call_free(calls[i]);
    }
    expect_ok(optclient_pull(model, weights, TENSORS, NULL, NULL));
    expect_pattern(weights, &shapes, -6);
    values_free(doubled, &shapes);
    optclient_model_close(model);
    optclient_close(client);
    end();
}

Test(shared, one_pull_in_place_at_a_time, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_pull_options later = { .min_step = 1 };
    struct optclient_call *call;
    expect_ok(optclient_pull_start(model, NULL, 0, &later, NULL, NULL, &call));
    cr_assert_null(optclient_weights(model, 0));
    expect_status(optclient_pull(model, NULL, 0, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    expect_ok(optclient_push(model, gradients, TENSORS, NULL, NULL));
    expect_ok(optclient_call_wait(call, NULL));
    optclient_call_free(call);
    expect_views(model, -1);
    /* One that fails shows nothing. */
    struct optclient_pull_options never = { .min_step = 9, .timeout_ms = 50 };
    expect_status(optclient_pull(model, NULL, 0, &never, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_null(optclient_weights(model, 0));
    optclient_model_close(model);
    optclient_close(client);
    end();
}

/* -------------------------------------------------------------- where it is not had */

static void expect_all_sent(struct optclient *client, const char *name)
{
    struct optclient_model *model = test_create(client, name, &shapes);
    struct optclient_values in_place[TENSORS];
    for (int step = 1; step <= 2; step++) {
        give_in_place(model, in_place, 1);
        expect_ok(
            optclient_push_pull(model, in_place, TENSORS, NULL, NULL, 0, NULL, NULL));
        expect_views(model, (float)-step);
    }
    cr_assert_eq(usage_of(client).bytes_shared, 0u);
    cr_assert_eq(test_counter(client, "data_bytes_shared"), 0u);
    optclient_model_close(model);
    optclient_close(client);
}

Test(shared, the_daemon_may_forbid_it, .timeout = TIMEOUT_S)
{
    begin((const char *[]){ "--no-shared-memory", NULL });
    expect_all_sent(join_as("w", test_options()), "m");
    end();
}

Test(shared, the_client_may_forgo_it, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient_options options = test_options();
    options.no_shared_memory = 1;
    expect_all_sent(join_as("w", options), "m");
    options = test_options();
    options.checksum = 1;
    expect_all_sent(join_as("w", options), "n");
    end();
}

Test(shared, over_tcp_the_same_program_works, .timeout = TIMEOUT_S)
{
    begin(NULL);
    snprintf(address, sizeof(address), "127.0.0.1:%u", server.port);
    expect_all_sent(join_as("w", test_options()), "m");
    end();
}

Test(shared, a_daemon_with_too_little_memory_sends, .timeout = TIMEOUT_S)
{
    /* 8.6 MiB of weights, as much for a gradient and a version more: no room for files.
     */
    begin((const char *[]){ "--memory", "36MiB", NULL });
    expect_all_sent(join_as("w", test_options()), "m");
    end();
}

/* -------------------------------------------------------------- what goes wrong */

/* A push that ends without an answer may still be read: what the caller writes from
 * then on must not get into it. */
Test(shared, a_gradient_that_was_given_up_is_applied_as_it_was, .timeout = TIMEOUT_S)
{
    begin((const char *[]){ "--lease", "30s", NULL });
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values in_place[TENSORS];
    give_in_place(model, in_place, 1);
    daemon_signal(&server, SIGSTOP);
    struct optclient_push_options hurried = { .timeout_ms = 100 };
    expect_status(optclient_push(model, in_place, TENSORS, &hurried, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    give_in_place(model, in_place, 5); /* the same addresses */
    daemon_signal(&server, SIGCONT);
    expect_ok(optclient_pull(model, weights, TENSORS, NULL, NULL));
    expect_pattern(weights, &shapes, -1);
    expect_ok(optclient_push_pull(model, in_place, TENSORS, NULL, weights, TENSORS,
                                  NULL, NULL));
    expect_pattern(weights, &shapes, -6);
    optclient_model_close(model);
    optclient_close(client);
    end();
}

Test(shared, the_same_for_memory_of_the_library, .timeout = TIMEOUT_S)
{
    begin((const char *[]){ "--lease", "30s", NULL });
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = test_create(client, "m", &shapes);
    daemon_signal(&server, SIGSTOP);
    struct optclient_push_options hurried = { .timeout_ms = 100 };
    expect_status(optclient_push(model, gradients, TENSORS, &hurried, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    struct optclient_call *call;
    for (size_t i = 0; i < TENSORS; i++) {
        for (size_t e = 0; e < shapes.sizes[i]; e++) {
            gradients[i].values[e] = 5 * pattern(i, e);
        }
    }
    expect_ok(optclient_push_start(model, gradients, TENSORS, NULL, NULL, NULL, &call));
    daemon_signal(&server, SIGCONT);
    expect_ok(optclient_call_wait(call, NULL));
    optclient_call_free(call);
    expect_ok(optclient_pull(model, weights, TENSORS, NULL, NULL));
    expect_pattern(weights, &shapes, -6);
    /* Memory is shared anew. */
    uint64_t shared = usage_of(client).bytes_shared;
    expect_ok(optclient_push(model, gradients, TENSORS, NULL, NULL));
    cr_assert_eq(usage_of(client).bytes_shared - shared, push_bytes());
    optclient_model_close(model);
    optclient_close(client);
    end();
}

/* Without its connection nobody keeps for a worker what it reads. */
Test(shared, a_gradient_of_weights_that_may_have_changed_is_refused,
     .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct optclient *client = join_as("w", test_options());
    struct optclient_model *model = create_async(client);
    expect_ok(optclient_push(model, gradients, TENSORS, NULL, NULL));
    expect_ok(optclient_pull(model, NULL, 0, NULL, NULL));
    daemon_signal(&server, SIGKILL);
    cr_assert_eq(daemon_wait(&server, DAEMON_WAIT_MS), 128 + SIGKILL);
    expect_views(model, -1);
    for (int i = 0; i < 2; i++) {
        struct optclient_push_options hurried = { .timeout_ms = 100 };
        expect_status(optclient_push(model, gradients, TENSORS, &hurried, NULL),
                      OPTCLIENT_ABORTED);
        cr_assert_not_null(strstr(optclient_error(), "read in place"), "%s",
                           optclient_error());
    }
    optclient_model_close(model);
    optclient_close(client);
    daemon_remove(&server);
    end();
}
