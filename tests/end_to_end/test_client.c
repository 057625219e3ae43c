/* The client library and the real daemon. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

static const char *address_of(const struct daemon_process *daemon)
{
    return daemon->address;
}

static struct optclient *connect_as(const struct daemon_process *daemon,
                                    const char *worker)
{
    struct optclient_options options = test_options();
    options.worker = worker;
    return test_connect(address_of(daemon), &options);
}

static struct optclient_model *create_with(struct optclient *client, const char *name,
                                           const struct optclient_policy *policy,
                                           const struct shapes *shapes)
{
    struct optclient_model *model;
    expect_ok(optclient_create(client, name, "sgd(lr=1)", policy, shapes->tensors,
                               shapes->count, NULL, &model));
    return model;
}

/* ----------------------------------------------------------------------- one worker */

static void push_and_pull(const char *const daemon_options[],
                          const struct optclient_options *options, size_t count,
                          uint64_t large)
{
    struct daemon_process daemon;
    daemon_start(&daemon, daemon_options);
    struct optclient *client = test_connect(address_of(&daemon), options);
    struct shapes shapes = shapes_new(count, large);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_values *weights = values_new(&shapes);
    fill_pattern(gradients, &shapes);
    struct optclient_result result;
    expect_ok(optclient_push(model, gradients, count, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 1);
    expect_ok(optclient_pull(model, weights, count, NULL, &result));
    cr_assert_eq(result.step, 1);
    expect_pattern(weights, &shapes, -1);
    expect_ok(optclient_push_pull(model, gradients, count, NULL, weights, count, NULL,
                                  &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 2);
    cr_assert_eq(result.staleness, 0);
    expect_pattern(weights, &shapes, -2);
    optclient_model_close(model);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(gradients, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, exchange_100_small_tensors_and_a_large_one)
{
    push_and_pull(NULL, NULL, 100, 5000001);
}

Test(client_and_daemon, exchange_every_dtype_with_and_without_sums)
{
    for (int dtype = OPTCLIENT_FP32; dtype <= OPTCLIENT_FP16; dtype++) {
        struct optclient_options options = test_options();
        options.push_dtype = (enum optclient_dtype)dtype;
        options.pull_dtype = (enum optclient_dtype)dtype;
        options.checksum = dtype != OPTCLIENT_BF16;
        push_and_pull(NULL, &options, 20, 1500001);
    }
}

/* The one sleeps before the other, both, and neither. */
Test(client_and_daemon, exchange_the_same_while_they_look_instead_of_sleeping)
{
    static const char *const spins[] = { "0", "30", "10000" };
    for (size_t i = 0; i < sizeof spins / sizeof spins[0]; i++) {
        struct optclient_options options = test_options();
        options.spin_us = i == 1 ? 10000 : 50;
        push_and_pull((const char *[]){ "--spin", spins[i], NULL }, &options, 20,
                      1500001);
    }
}

Test(client_and_daemon, agree_on_views_and_slots)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(2, 20000);
    struct optclient_model *model;
    expect_ok(optclient_create(client, "m", "momentum(lr=0.5, momentum=0.5)", NULL,
                               shapes.tensors, 2, NULL, &model));
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_values *values = values_new(&shapes);
    fill_pattern(gradients, &shapes);
    expect_ok(optclient_push(model, gradients, 2, NULL, NULL));
    struct optclient_description *description;
    expect_ok(optclient_describe(client, "m", &description));
    cr_assert_eq(description->slot_count, 1);
    cr_assert_eq(description->step, 1);
    cr_assert_eq(description->tensor_count, 2);
    cr_assert_eq(description->worker_count, 1);
    cr_assert_str_eq(description->workers[0].name, "w");
    cr_assert_eq(description->workers[0].applied, 1);
    cr_assert_eq(description->workers[0].connected, 1);
    cr_assert_eq(description->policy.mode, OPTCLIENT_SYNC);
    expect_ok(
        optclient_pull(model, values, 2,
                       &(struct optclient_pull_options){
                           .view = OPTCLIENT_SLOT, .slot = description->slots[0] },
                       NULL));
    expect_pattern(values, &shapes, 0.5f);
    optclient_description_free(description);
    expect_ok(optclient_pull(model, values, 2,
                             &(struct optclient_pull_options){ .view = OPTCLIENT_EVAL },
                             NULL));
    expect_pattern(values, &shapes, -0.5f);
    expect_status(optclient_pull(model, values, 2,
                                 &(struct optclient_pull_options){
                                     .view = OPTCLIENT_SLOT, .slot = "exp_avg_sq" },
                                 NULL),
                  OPTCLIENT_NOT_FOUND);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(gradients, &shapes);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, say_what_is_wrong)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(3, 20000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    struct optclient_model *other;

    struct optclient_options options = test_options();
    options.spin_us = 10001;
    struct optclient *none;
    expect_status(optclient_connect(address_of(&daemon), &options, &none),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("10001");

    values[2].values[17000] = NAN;
    expect_status(optclient_push(model, values, 3, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("tensor.2");
    expect_words("17000");
    values[2].values[17000] = 0;
    struct optclient_values twice[] = { values[1], values[1] };
    expect_status(optclient_push(model, twice, 2, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_status(optclient_create(client, "m", "sgd(lr=2)", NULL, shapes.tensors, 3,
                                   NULL, &other),
                  OPTCLIENT_ALREADY_EXISTS);
    expect_words("lr");
    expect_status(optclient_create(client, "m2", "sdg(lr=2)", NULL, shapes.tensors, 3,
                                   NULL, &other),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("sgd");
    expect_status(optclient_open(client, "none", 1, &other), OPTCLIENT_NOT_FOUND);

    struct optclient *observer = connect_as(&daemon, "");
    expect_status(optclient_open(observer, "m", 1, &other),
                  OPTCLIENT_PERMISSION_DENIED);
    expect_ok(optclient_open(observer, "m", 0, &other));
    expect_ok(optclient_pull(other, values, 3, NULL, NULL));
    expect_status(optclient_push(other, values, 3, NULL, NULL),
                  OPTCLIENT_PERMISSION_DENIED);

    struct optclient *onlooker = connect_as(&daemon, "onlooker");
    expect_ok(optclient_open(onlooker, "m", 0, &other));
    expect_status(optclient_push(other, values, 3, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    /* The refusal was about the push, not about the client. */
    expect_ok(optclient_pull(other, values, 3, NULL, NULL));

    /* Through all of that the model has had no update. */
    struct optclient_result result;
    expect_ok(optclient_push(model, values, 3, NULL, &result));
    cr_assert_eq(result.step, 1);
    optclient_close(onlooker);
    optclient_close(observer);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, list_count_and_delete)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w");
    struct optclient *other = connect_as(&daemon, "v");
    struct shapes shapes = shapes_new(3, 20);
    struct optclient_model *first = test_create(client, "first", &shapes);
    test_create(client, "second", &shapes);
    struct optclient_model_info *models;
    size_t count;
    expect_ok(optclient_list(client, &models, &count));
    cr_assert_eq(count, 2);
    cr_assert_eq(models[0].parameters, 1 + 2 + 20);
    optclient_list_free(models);
    struct optclient_counter *counters;
    expect_ok(optclient_statistics(client, &counters, &count));
    cr_assert_gt(count, 0);
    optclient_statistics_free(counters);
    expect_status(optclient_delete(other, "first"), OPTCLIENT_FAILED_PRECONDITION);
    optclient_model_close(first);
    expect_ok(optclient_delete(other, "first"));
    expect_status(optclient_delete(other, "first"), OPTCLIENT_NOT_FOUND);
    optclient_close(other);
    optclient_close(client);
    daemon_stop(&daemon);
    shapes_free(&shapes);
}

/* ------------------------------------------------------------------ several workers */

struct member {
    pthread_t thread;
    const char *address;
    char name[16];
    const struct shapes *shapes;
    float factor; /* of the pattern that it pushes */
    unsigned rounds;
    struct optclient_values *weights; /* at the end */
};

static void *take_part(void *argument)
{
    struct member *member = argument;
    struct optclient_options options = test_options();
    options.worker = member->name;
    struct optclient *client;
    struct optclient_model *model;
    require(optclient_connect(member->address, &options, &client) == OPTCLIENT_OK);
    struct optclient_policy policy = { .min_workers = 2 };
    require(optclient_create(client, "m", "sgd(lr=1)", &policy, member->shapes->tensors,
                             member->shapes->count, NULL, &model) == OPTCLIENT_OK);
    struct optclient_values *gradients = values_new(member->shapes);
    size_t count = member->shapes->count;
    for (size_t i = 0; i < count; i++) {
        for (size_t e = 0; e < member->shapes->sizes[i]; e++) {
            gradients[i].values[e] = member->factor * pattern(i, e);
        }
    }
    for (unsigned round = 0; round < member->rounds; round++) {
        struct optclient_result result;
        require(optclient_push_pull(model, gradients, count, NULL, member->weights,
                                    count, NULL, &result) == OPTCLIENT_OK);
        require(result.step == round + 1);
        require(result.staleness == 0);
    }
    values_free(gradients, member->shapes);
    optclient_model_close(model);
    optclient_close(client);
    return NULL;
}

Test(client_and_daemon, make_rounds_of_two_workers)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct shapes shapes = shapes_new(10, 1500000);
    struct member members[2];
    for (int i = 0; i < 2; i++) {
        members[i] = (struct member){ .address = address_of(&daemon),
                                      .shapes = &shapes,
                                      .factor = i == 0 ? 1.0f : 3.0f,
                                      .rounds = 5,
                                      .weights = values_new(&shapes) };
        snprintf(members[i].name, sizeof(members[i].name), "worker-%d", i);
        pthread_create(&members[i].thread, NULL, take_part, &members[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(members[i].thread, NULL);
        /* Five times the mean of once and three times the pattern. */
        expect_pattern(members[i].weights, &shapes, -10);
        values_free(members[i].weights, &shapes);
    }
    daemon_stop(&daemon);
    shapes_free(&shapes);
}

Test(client_and_daemon, name_the_workers_who_are_missing_at_the_deadline)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *here = connect_as(&daemon, "here");
    struct optclient *lazy = connect_as(&daemon, "lazy-one");
    struct shapes shapes = shapes_new(2, 100);
    struct optclient_model *model = test_create(here, "m", &shapes);
    struct optclient_model *same = test_create(lazy, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    uint64_t start = test_now_ms();
    expect_status(optclient_push(model, values, 2,
                                 &(struct optclient_push_options){ .timeout_ms = 200 },
                                 NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_lt(test_now_ms() - start, 1000);
    expect_words("lazy-one");
    expect_status(optclient_wait_step(model, 1, 200, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    /* It was withdrawn: once the other has left, the next push is step 1. */
    optclient_model_close(same);
    struct optclient_result result;
    expect_ok(optclient_push(model, values, 2, NULL, &result));
    cr_assert_eq(result.step, 1);
    optclient_close(here);
    optclient_close(lazy);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

struct racer {
    pthread_t thread;
    const char *address;
    const struct shapes *shapes;
    const float *const *initial;
    struct optclient_values *weights;
};

static void *race(void *argument)
{
    struct racer *racer = argument;
    struct optclient_options options = test_options();
    struct optclient *client;
    struct optclient_model *model;
    require(optclient_connect(racer->address, &options, &client) == OPTCLIENT_OK);
    require(optclient_create(client, "m", "adam(lr=1e-3)", NULL, racer->shapes->tensors,
                             racer->shapes->count, racer->initial,
                             &model) == OPTCLIENT_OK);
    require(optclient_pull(model, racer->weights, racer->shapes->count, NULL, NULL) ==
            OPTCLIENT_OK);
    optclient_close(client);
    return NULL;
}

Test(client_and_daemon, let_one_of_many_creators_win_and_the_others_join)
{
    enum { RACERS = 8 };
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct shapes shapes = shapes_new(5, 1200000);
    struct optclient_values *start = values_new(&shapes);
    fill_pattern(start, &shapes);
    const float *initial[5];
    for (size_t i = 0; i < 5; i++) {
        initial[i] = start[i].values;
    }
    struct racer racers[RACERS];
    for (int i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){ .address = address_of(&daemon),
                                    .shapes = &shapes,
                                    .initial = initial,
                                    .weights = values_new(&shapes) };
        pthread_create(&racers[i].thread, NULL, race, &racers[i]);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        expect_pattern(racers[i].weights, &shapes, 1);
        values_free(racers[i].weights, &shapes);
    }
    daemon_stop(&daemon);
    values_free(start, &shapes);
    shapes_free(&shapes);
}

/* --------------------------------------------------------- one client, many threads */

struct shared {
    struct optclient_model *model;
    const struct shapes *shapes;
    struct optclient_values *gradients;
};

static void *push_often(void *argument)
{
    struct shared *shared = argument;
    struct optclient_values *weights = values_new(shared->shapes);
    for (int i = 0; i < 25; i++) {
        require(optclient_push_pull(shared->model, shared->gradients,
                                    shared->shapes->count, NULL, weights,
                                    shared->shapes->count, NULL, NULL) == OPTCLIENT_OK);
    }
    values_free(weights, shared->shapes);
    return NULL;
}

Test(client_and_daemon, serve_many_threads_of_one_client)
{
    enum { THREADS = 6 };
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(3, 40000);
    struct optclient_policy async = { .mode = OPTCLIENT_ASYNC };
    struct shared shared = { create_with(client, "m", &async, &shapes), &shapes,
                             values_new(&shapes) };
    fill_pattern(shared.gradients, &shapes);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, push_often, &shared);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    struct optclient_values *weights = values_new(&shapes);
    struct optclient_result result;
    expect_ok(optclient_pull(shared.model, weights, 3, NULL, &result));
    cr_assert_eq(result.step, THREADS * 25);
    expect_pattern(weights, &shapes, -THREADS * 25);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(weights, &shapes);
    values_free(shared.gradients, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, keep_asynchronous_pushes_in_order)
{
    enum { CALLS = 100 };
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(3, 40000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_call *calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        expect_ok(
            optclient_push_start(model, gradients, 3, NULL, NULL, NULL, &calls[i]));
    }
    for (int i = 0; i < CALLS; i++) {
        struct optclient_result result;
        expect_ok(optclient_call_wait(calls[i], &result));
        cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
        cr_assert_eq(result.step, (uint64_t)i + 1);
        optclient_call_free(calls[i]);
    }
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(gradients, &shapes);
    shapes_free(&shapes);
}

/* ------------------------------------------------- another process of the same name */

Test(client_and_daemon, give_a_workers_name_to_its_newest_process)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *old = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(2, 100);
    struct optclient_model *model = test_create(old, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    struct optclient *new = connect_as(&daemon, "w");
    struct optclient_model *same = test_create(new, "m", &shapes);
    expect_status(optclient_push(model, values, 2, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    /* The newest goes on where the old one was: numbers of pushes are not used twice.
     */
    struct optclient_result result;
    expect_ok(optclient_push(same, values, 2, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 2);
    expect_status(optclient_pull(model, values, 2, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    optclient_close(old);
    expect_ok(optclient_push(same, values, 2, NULL, NULL));
    optclient_close(new);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

/* ----------------------------------------------------------- connections that break */

enum { CUT_PUSHES = 4 };

static void train_through(struct proxy *proxy, const char *name)
{
    struct optclient *client = test_connect(proxy_address(proxy), NULL);
    struct shapes shapes = shapes_new(3, 100000);
    struct optclient_values *values = values_new(&shapes);
    struct optclient_values *weights = values_new(&shapes);
    fill_pattern(values, &shapes);
    const float *initial[] = { values[0].values, values[1].values, values[2].values };
    struct optclient_model *model;
    expect_ok(optclient_create(client, name, "sgd(lr=1)", NULL, shapes.tensors, 3,
                               initial, &model));
    for (unsigned i = 0; i < CUT_PUSHES; i++) {
        struct optclient_result result;
        if (i % 2 == 0) {
            expect_ok(optclient_push(model, values, 3, NULL, &result));
        } else {
            expect_ok(
                optclient_push_pull(model, values, 3, NULL, weights, 3, NULL, &result));
            expect_pattern(weights, &shapes, -(float)i);
        }
        cr_assert(result.fate == OPTCLIENT_APPLIED ||
                  result.fate == OPTCLIENT_DUPLICATE);
        cr_assert_eq(result.step, (uint64_t)i + 1);
    }
    expect_ok(optclient_pull(model, weights, 3, NULL, NULL));
    expect_pattern(weights, &shapes, 1 - CUT_PUSHES);
    optclient_model_close(model);
    expect_ok(optclient_delete(client, name));
    optclient_close(client);
    values_free(values, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, apply_each_push_once_wherever_the_connection_is_cut)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    train_through(proxy, "m");
    uint64_t up = proxy_bytes_up(proxy);
    uint64_t down = proxy_bytes_down(proxy);
    unsigned connections = proxy_connections(proxy);
    enum { CUTS = 60 };
    for (uint64_t i = 1; i < CUTS; i++) {
        /* Odd steps, so that cuts fall everywhere; the first bytes are all headers. */
        uint64_t at = i < 10 ? i * 7 : up * i / CUTS + i % 13;
        proxy_cut_after(proxy, at, 0);
        train_through(proxy, "m");
        at = i < 10 ? i * 7 : down * i / CUTS + i % 13;
        proxy_cut_after(proxy, 0, at);
        train_through(proxy, "m");
    }
    proxy_cut_after(proxy, 0, 0);
    cr_assert_gt(proxy_connections(proxy), connections + 3 * CUTS,
                 "hardly any connection was cut");
    proxy_stop(proxy);
    daemon_stop(&daemon);
}

Test(client_and_daemon, survive_a_network_that_holds_still)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct proxy *proxy = proxy_start(daemon.port);
    struct optclient *client = test_connect(proxy_address(proxy), NULL);
    struct shapes shapes = shapes_new(2, 3000000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    proxy_hold(proxy, 1);
    expect_status(optclient_push(model, values, 2,
                                 &(struct optclient_push_options){ .timeout_ms = 300 },
                                 NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    proxy_hold(proxy, 0);
    struct optclient_result result;
    expect_ok(optclient_push(model, values, 2, NULL, &result));
    cr_assert_eq(result.step, 1, "the withdrawn push was applied");
    cr_assert_eq(proxy_connections(proxy), 2, "the rest of it would have been missing");
    optclient_close(client);
    proxy_stop(proxy);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(client_and_daemon, part_when_the_daemon_is_killed_and_meet_when_it_is_back)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    char listen[32]; /* the next one can be at the same port, in another directory */
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", (unsigned)daemon.port);
    memcpy(daemon.address, listen, sizeof(listen));
    struct optclient *client = connect_as(&daemon, "w");
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    daemon_signal(&daemon, SIGKILL);
    cr_assert_eq(daemon_wait(&daemon, 5000), 128 + SIGKILL);
    daemon_remove(&daemon);
    uint64_t start = test_now_ms();
    expect_status(optclient_push(model, values, 2,
                                 &(struct optclient_push_options){ .timeout_ms = 300 },
                                 NULL),
                  OPTCLIENT_UNAVAILABLE);
    cr_assert_lt(test_now_ms() - start, 1000);
    expect_words(listen);
    /* This call waits for the daemon that is started now. */
    struct optclient_call *call;
    expect_ok(optclient_push_start(model, values, 2, NULL, NULL, NULL, &call));
    const char *const options[] = { "--listen", listen, NULL };
    daemon_start(&daemon, options);
    expect_status(optclient_call_wait(call, NULL), OPTCLIENT_NOT_FOUND);
    expect_words("is gone");
    optclient_call_free(call);
    optclient_model_close(model);
    model = test_create(client, "m", &shapes);
    struct optclient_result result;
    expect_ok(optclient_push(model, values, 2, NULL, &result));
    cr_assert_eq(result.step, 1);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}
