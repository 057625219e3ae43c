/* Local steps through the real daemon. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "common/optim/spec.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/toy.h"

enum { TEXT = 256 };

static struct optclient *connect_as(const struct daemon_process *daemon,
                                    const char *worker,
                                    const struct optclient_options *more)
{
    struct optclient_options options = more != NULL ? *more : test_options();
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon->port);
    options.worker = worker;
    return test_connect(address, &options);
}

static struct optclient_model *create(struct optclient *client, const char *name,
                                      const char *specification, uint32_t workers,
                                      const struct shapes *shapes,
                                      const struct optclient_values *start)
{
    struct optclient_policy policy = { .min_workers = workers };
    const float *initial[8];
    cr_assert_leq(shapes->count, 8);
    for (size_t i = 0; i < shapes->count; i++) {
        initial[i] = start[i].values;
    }
    struct optclient_model *model;
    expect_ok(optclient_create(client, name, specification, &policy, shapes->tensors,
                               shapes->count, initial, &model));
    return model;
}

/* Reproducible weights. */
static struct optclient_values *random_values(const struct shapes *shapes,
                                              uint64_t seed)
{
    struct optclient_values *values = values_new(shapes);
    for (size_t i = 0; i < shapes->count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            values[i].values[e] = toy_uniform(&seed);
        }
    }
    return values;
}

/* A gradient at these weights, not the same in every step. */
static void gradient_of(const float *at, uint64_t size, uint64_t seed, float *out)
{
    for (size_t e = 0; e < size; e++) {
        out[e] = 0.4f * (at[e] - 0.125f) + 0.1f * toy_uniform(&seed);
    }
}

static void expect_same(const float *a, const float *b, const struct shapes *shapes,
                        size_t tensor, const char *what)
{
    cr_assert(toy_same(a, b, (size_t)shapes->sizes[tensor]), "%s: tensor %zu", what,
              tensor);
}

/* --------------------------------------------------- worker-held equals server-held */

struct twins {
    const char *rule;
    uint64_t k, steps;
    double alpha;
    enum optclient_momentum momentum;
    uint64_t large;
};

static void train_twins(struct optclient *client, const struct twins *twins)
{
    static const char *const words[] = { "keep", "reset", "pullback" };
    char whole[TEXT], outer[TEXT];
    snprintf(whole, sizeof(whole), "%s + lookahead(%lu, alpha=%.17g, momentum=%s)",
             twins->rule, (unsigned long)twins->k, twins->alpha,
             words[twins->momentum]);
    snprintf(outer, sizeof(outer), "sgd(lr=%.17g)", twins->alpha);
    struct shapes shapes = shapes_new(4, twins->large);
    struct optclient_values *start = random_values(&shapes, 5);
    struct optclient_values *weights = values_new(&shapes);
    struct optclient_values *answer = values_new(&shapes);
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_model *held = create(client, "held", whole, 1, &shapes, start);
    struct optclient_model *model = create(client, "outer", outer, 1, &shapes, start);
    struct optclient_local_options options = { .momentum = twins->momentum,
                                               .alpha = twins->alpha };
    struct optclient_local *local;
    expect_ok(optclient_local_open(model, twins->rule, twins->k, &options, &local));
    expect_ok(optclient_pull(held, weights, 4, NULL, NULL));

    struct optclient_pull_options eval = { .view = OPTCLIENT_EVAL };
    for (uint64_t step = 1; step <= twins->steps; step++) {
        for (size_t i = 0; i < 4; i++) {
            expect_same(weights[i].values, optclient_local_view(local, i), &shapes, i,
                        whole);
            gradient_of(weights[i].values, shapes.sizes[i], step, gradients[i].values);
        }
        struct optclient_local_result at;
        expect_ok(optclient_local_step(local, gradients, 4, 32, &at));
        expect_ok(
            optclient_push_pull(held, gradients, 4, NULL, weights, 4, NULL, NULL));
        cr_assert_eq(at.steps, step);
        cr_assert_eq(at.epochs, step / twins->k);
        cr_assert(at.stepped);
        cr_assert_eq(at.synced != 0, step % twins->k == 0);
        if (at.synced) {
            cr_assert_eq(at.sync.fate, OPTCLIENT_APPLIED);
            cr_assert_eq(at.sync.step, at.epochs);
            cr_assert_eq(at.sync.staleness, 0);
        }
    }
    expect_ok(optclient_pull(held, answer, 4, &eval, NULL));
    expect_ok(optclient_pull(model, weights, 4, &eval, NULL));
    for (size_t i = 0; i < 4; i++) {
        expect_same(answer[i].values, weights[i].values, &shapes, i, whole);
    }
    optclient_local_close(local);
    optclient_model_close(model);
    optclient_model_close(held);
    expect_ok(optclient_delete(client, "outer"));
    expect_ok(optclient_delete(client, "held"));
    values_free(start, &shapes);
    values_free(weights, &shapes);
    values_free(answer, &shapes);
    values_free(gradients, &shapes);
    shapes_free(&shapes);
}

Test(local, steps_equal_lookahead_at_the_daemon_bit_for_bit)
{
    static const struct twins all[] = {
        { "sgd(lr=0.2)", 5, 10, 0.5, OPTCLIENT_MOMENTUM_KEEP, 1 },
        { "momentum(lr=0.05)", 3, 10, 0.8, OPTCLIENT_MOMENTUM_PULLBACK, 20001 },
        { "nag(lr=0.05)", 4, 10, 0.5, OPTCLIENT_MOMENTUM_KEEP, 20001 },
        { "nag(lr=0.05) + decay(0.1)", 4, 10, 0.5, OPTCLIENT_MOMENTUM_RESET, 20001 },
        { "adam(lr=0.01) + warmup(4) + cosine(20)", 5, 10, 0.5,
          OPTCLIENT_MOMENTUM_RESET, 20001 },
        { "radam(lr=0.01)", 6, 12, 0.5, OPTCLIENT_MOMENTUM_PULLBACK,
          20001 }, /* ranger */
        { "nadam(nadam_form=scheduled)", 2, 7, 0.3, OPTCLIENT_MOMENTUM_KEEP, 20001 },
        { "rmsprop(momentum=0.9) + clip(global_norm, 1)", 1, 6, 0.5,
          OPTCLIENT_MOMENTUM_KEEP, 20001 },
        { "adagrad + tensors(\"tensor.1\", lr_scale=0.1)", 3, 7, 1,
          OPTCLIENT_MOMENTUM_KEEP, 20001 },
        { "lars", 4, 9, 0.5, OPTCLIENT_MOMENTUM_PULLBACK, 20001 },
        { "lamb + tensors(\"tensor.?\", layerwise=none)", 2, 5, 0.5,
          OPTCLIENT_MOMENTUM_KEEP, 20001 },
        /* Several shards, and a piece of a block. */
        { "lamb(lr=0.01)", 2, 4, 0.5, OPTCLIENT_MOMENTUM_KEEP, 2 * OPT_SHARD + 77 },
        { "adam(lr=0.01)", 3, 3, 0.5, OPTCLIENT_MOMENTUM_PULLBACK, 2 * OPT_SHARD + 77 },
    };
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = connect_as(&daemon, "w", NULL);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        train_twins(client, &all[i]);
    }
    optclient_close(client);
    daemon_stop(&daemon);
}

/* ----------------------------------------------------------------------- three workers
 */

enum { WORKERS = 3, LOCAL_STEPS = 4, EPOCHS = 6, SIZE = 1000 };

/* Where a worker's data pull the weights, and how many samples a step of it covers. */
static float target_of(int worker, size_t element)
{
    return 0.25f * (float)worker - 0.01f * (float)(element % 50);
}
static const uint64_t samples_of[WORKERS] = { 8, 1, 3 };

struct team_member {
    pthread_t thread;
    const struct daemon_process *daemon;
    const char *outer;
    int rank;
    float weights[SIZE];
};

static void *train_member(void *argument)
{
    struct team_member *member = argument;
    char name[32], address[32];
    snprintf(name, sizeof(name), "worker-%d", member->rank);
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)member->daemon->port);
    struct optclient_options options = test_options();
    options.worker = name;
    struct optclient *client;
    require(optclient_connect(address, &options, &client) == OPTCLIENT_OK);
    const uint64_t shape[] = { SIZE };
    struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    struct optclient_policy policy = { .min_workers = WORKERS };
    struct optclient_model *model;
    require(optclient_create(client, "m", member->outer, &policy, &tensor, 1, NULL,
                             &model) == OPTCLIENT_OK);
    struct optclient_local *local;
    require(optclient_local_open(model, "sgd(lr=0.125)", LOCAL_STEPS, NULL, &local) ==
            OPTCLIENT_OK);
    float gradient[SIZE];
    struct optclient_values values = { .values = gradient };
    for (int step = 1; step <= EPOCHS * LOCAL_STEPS; step++) {
        const float *at = optclient_local_view(local, 0);
        for (size_t e = 0; e < SIZE; e++) {
            gradient[e] = at[e] - target_of(member->rank, e);
        }
        struct optclient_local_result result;
        require(optclient_local_step(local, &values, 1, samples_of[member->rank],
                                     &result) == OPTCLIENT_OK);
        require((result.synced != 0) == (step % LOCAL_STEPS == 0));
        require(!result.synced || result.sync.step == result.epochs);
    }
    memcpy(member->weights, optclient_local_view(local, 0), sizeof(member->weights));
    optclient_local_close(local);
    optclient_model_close(model);
    optclient_close(client);
    return NULL;
}

/* The same, written out for one element: what the outer rule makes of a displacement
 * and its buffer is all that differs. */
static float reference(size_t element,
                       float (*outer)(float displacement, float *buffer))
{
    float slow = 0, buffer = 0;
    double total = 0;
    for (int worker = 0; worker < WORKERS; worker++) {
        total += (double)(samples_of[worker] * LOCAL_STEPS);
    }
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        double mean = 0;
        for (int worker = 0; worker < WORKERS; worker++) {
            float fast = slow;
            for (int step = 0; step < LOCAL_STEPS; step++) {
                fast -= 0.125f * (fast - target_of(worker, element));
            }
            mean += (double)(samples_of[worker] * LOCAL_STEPS) / total *
                    (double)(slow - fast);
        }
        slow -= outer((float)mean, &buffer);
    }
    return slow;
}

static float average(float displacement, float *buffer)
{
    (void)buffer;
    return displacement;
}

static float nesterov(float displacement, float *buffer)
{
    *buffer = 0.875f * *buffer + displacement;
    return 0.75f * (0.875f * *buffer + displacement);
}

static void train_team(const char *outer, float (*rule)(float, float *))
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    static struct team_member members[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        members[i] =
            (struct team_member){ .daemon = &daemon, .outer = outer, .rank = i };
        cr_assert_eq(
            pthread_create(&members[i].thread, NULL, train_member, &members[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(members[i].thread, NULL);
    }
    for (size_t e = 0; e < SIZE; e++) {
        float expected = reference(e, rule);
        for (int i = 0; i < WORKERS; i++) {
            cr_assert(toy_same(&members[i].weights[e], &expected, 1),
                      "worker %d, element %zu: %.9g instead of %.9g", i, e,
                      (double)members[i].weights[e], (double)expected);
        }
    }
    daemon_stop(&daemon);
}

Test(local, steps_of_several_workers_are_averaged_with_their_samples)
{
    train_team("sgd(lr=1)", average);
}

Test(local, steps_can_end_in_an_outer_nesterov_step)
{
    train_team("nag(momentum_form=heavy_ball, nesterov_form=reformulated, lr=0.75, "
               "momentum=0.875)",
               nesterov);
}

/* -------------------------------------------------------------------- one small model
 */

/* A daemon, a client, a model of two tensors that starts at zero, and local steps. */
struct bench {
    struct daemon_process daemon;
    struct shapes shapes;
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_local *local;
    struct optclient_values *gradients, *weights;
};

static struct bench set_up(const char *outer, const char *inner, uint64_t k,
                           const struct optclient_options *options)
{
    struct bench bench;
    daemon_start(&bench.daemon, NULL);
    bench.shapes = shapes_new(2, 30);
    bench.client = connect_as(&bench.daemon, "w", options);
    bench.gradients = values_new(&bench.shapes);
    bench.weights = values_new(&bench.shapes);
    bench.model = create(bench.client, "m", outer, 1, &bench.shapes, bench.weights);
    expect_ok(optclient_local_open(bench.model, inner, k, NULL, &bench.local));
    fill_pattern(bench.gradients, &bench.shapes);
    return bench;
}

static void tear_down(struct bench *bench)
{
    optclient_local_close(bench->local);
    optclient_model_close(bench->model);
    optclient_close(bench->client);
    daemon_stop(&bench->daemon);
    values_free(bench->gradients, &bench->shapes);
    values_free(bench->weights, &bench->shapes);
    shapes_free(&bench->shapes);
}

static struct optclient_local_result step(struct bench *bench)
{
    struct optclient_local_result result;
    expect_ok(optclient_local_step(bench->local, bench->gradients, 2, 1, &result));
    return result;
}

static void scale_gradients(struct bench *bench, float factor)
{
    for (size_t i = 0; i < 2; i++) {
        for (size_t e = 0; e < bench->shapes.sizes[i]; e++) {
            bench->gradients[i].values[e] *= factor;
        }
    }
}

/* That the worker's weights and the daemon's are these multiples of the pattern. */
static void expect_weights(struct bench *bench, float fast, float slow)
{
    for (size_t i = 0; i < 2; i++) {
        memcpy(bench->weights[i].values, optclient_local_view(bench->local, i),
               (size_t)bench->shapes.sizes[i] * sizeof(float));
    }
    expect_pattern(bench->weights, &bench->shapes, fast);
    expect_ok(optclient_pull(bench->model, bench->weights, 2, NULL, NULL));
    expect_pattern(bench->weights, &bench->shapes, slow);
}

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

Test(local, steps_can_be_synchronised_before_their_number_is_full)
{
    struct bench bench = set_up("sgd(lr=0.5)", "sgd(lr=1)", 10, NULL);
    struct optclient_local_result at;
    expect_ok(optclient_local_sync(bench.local, &at));
    cr_assert(!at.synced);
    cr_assert_eq(at.epochs, 0);
    step(&bench);
    step(&bench);
    expect_weights(&bench, -2, 0);
    expect_ok(optclient_local_sync(bench.local, &at));
    cr_assert(at.synced);
    cr_assert(!at.stepped);
    cr_assert_eq(at.steps, 2);
    cr_assert_eq(at.epochs, 1);
    cr_assert_eq(at.sync.step, 1);
    expect_weights(&bench, -1, -1);
    /* The next one is ten steps away from here. */
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(step(&bench).synced != 0, i == 9);
    }
    expect_weights(&bench, -6, -6);
    tear_down(&bench);
}

/* Without rounds each displacement is an update of its own, and knows how old it is. */
Test(local, steps_are_synchronised_without_rounds_too)
{
    struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 2, NULL);
    struct optclient *other = connect_as(&bench.daemon, "v", NULL);
    struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    struct optclient_model *mine, *theirs;
    struct optclient_local *local;
    expect_ok(optclient_create(bench.client, "async", "sgd(lr=1)", &policy,
                               bench.shapes.tensors, 2, NULL, &mine));
    expect_ok(optclient_local_open(mine, "sgd(lr=1)", 2, NULL, &local));
    expect_ok(optclient_open(other, "async", 1, &theirs));
    expect_ok(optclient_local_step(local, bench.gradients, 2, 1, NULL));
    expect_ok(optclient_push(theirs, bench.gradients, 2, NULL, NULL));
    struct optclient_local_result at;
    expect_ok(optclient_local_step(local, bench.gradients, 2, 1, &at));
    cr_assert_eq(at.sync.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(at.sync.step, 2);
    cr_assert_eq(at.sync.staleness, 1);
    cr_assert_eq(optclient_local_view(local, 1)[3], -3 * pattern(1, 3));
    optclient_local_close(local);
    optclient_close(other);
    tear_down(&bench);
}

Test(local, steps_leave_alone_what_has_no_gradient)
{
    struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 2, NULL);
    for (int i = 0; i < 2; i++) {
        expect_ok(optclient_local_step(bench.local, &bench.gradients[1], 1, 1, NULL));
    }
    cr_assert_eq(optclient_local_view(bench.local, 0)[0], 0);
    cr_assert_eq(optclient_local_view(bench.local, 1)[3], -2 * pattern(1, 3));
    cr_assert_null(optclient_local_view(bench.local, 2));
    tear_down(&bench);
}

Test(local, steps_travel_in_halves_too)
{
    for (int dtype = OPTCLIENT_BF16; dtype <= OPTCLIENT_FP16; dtype++) {
        struct optclient_options options = test_options();
        options.push_dtype = (enum optclient_dtype)dtype;
        options.pull_dtype = (enum optclient_dtype)dtype;
        struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 2, &options);
        step(&bench);
        cr_assert(step(&bench).synced);
        expect_weights(&bench, -2, -2);
        tear_down(&bench);
    }
}

Test(local, steps_since_the_last_synchronisation_can_be_given_up)
{
    struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 3, NULL);
    step(&bench);
    expect_ok(optclient_local_sync(bench.local, NULL));
    step(&bench);
    step(&bench);
    struct optclient_local_result at;
    expect_ok(optclient_local_restart(bench.local, &at));
    cr_assert_eq(at.steps, 3);
    cr_assert(!at.synced);
    expect_weights(&bench, -1, -1);
    cr_assert(!step(&bench).synced);
    cr_assert(!step(&bench).synced);
    cr_assert(step(&bench).synced);
    expect_weights(&bench, -4, -4);
    tear_down(&bench);
}

/* Weights that have run away are not pushed, and there is a way back from them. */
Test(local, steps_to_infinity_are_refused_until_they_are_given_up)
{
    struct bench bench =
        set_up("sgd(lr=1)", "sgd(lr=1e30) + nonfinite(propagate)", 2, NULL);
    scale_gradients(&bench, 1e9f);
    step(&bench);
    for (int i = 0; i < 3; i++) {
        expect_status(optclient_local_step(bench.local, bench.gradients, 2, 1, NULL),
                      OPTCLIENT_INVALID_ARGUMENT);
        cr_assert(optclient_local_owes(bench.local));
    }
    expect_status(optclient_local_sync(bench.local, NULL), OPTCLIENT_INVALID_ARGUMENT);
    expect_words("tensor.0");
    struct optclient_local_result at;
    expect_ok(optclient_local_restart(bench.local, &at));
    cr_assert_eq(at.steps, 2, "an owed synchronisation has made steps");
    cr_assert(!optclient_local_owes(bench.local));
    expect_weights(&bench, 0, 0);
    tear_down(&bench);
}

Test(local, steps_to_infinity_are_skipped_where_the_model_says_so)
{
    struct bench bench = set_up("sgd(lr=1) + nonfinite(skip)",
                                "sgd(lr=1e30) + nonfinite(propagate)", 2, NULL);
    scale_gradients(&bench, 1e9f);
    step(&bench);
    struct optclient_local_result at = step(&bench);
    cr_assert(at.synced);
    cr_assert_eq(at.sync.fate, OPTCLIENT_SKIPPED);
    cr_assert_eq(at.sync.step, 0);
    expect_weights(&bench, 0, 0);
    tear_down(&bench);
}

Test(local, steps_are_refused_with_a_gradient_that_is_not_finite)
{
    struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 1, NULL);
    float kept = bench.gradients[1].values[7];
    bench.gradients[1].values[7] = NAN;
    expect_status(optclient_local_step(bench.local, bench.gradients, 2, 1, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("\"tensor.1\" is nan at element 7");
    cr_assert(!optclient_local_owes(bench.local));
    bench.gradients[1].values[7] = kept;
    cr_assert_eq(step(&bench).steps, 1);
    expect_weights(&bench, -1, -1);
    tear_down(&bench);
}

Test(local, steps_need_a_model_that_was_joined_and_a_number)
{
    struct bench bench = set_up("sgd(lr=1)", "sgd(lr=1)", 1, NULL);
    struct optclient *other = connect_as(&bench.daemon, "v", NULL);
    struct optclient_model *model;
    struct optclient_local *local = NULL;
    expect_ok(optclient_open(other, "m", 0, &model));
    expect_status(optclient_local_open(model, "sgd", 1, NULL, &local),
                  OPTCLIENT_FAILED_PRECONDITION);
    expect_words("without joining");
    expect_status(optclient_local_open(bench.model, "sgd", 0, NULL, &local),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("k is 0");
    expect_status(
        optclient_local_open(bench.model, "sgd + lookahead(5)", 5, NULL, &local),
        OPTCLIENT_INVALID_ARGUMENT);
    expect_words("lookahead");
    cr_assert_null(local);
    optclient_local_close(NULL);
    optclient_close(other);
    tear_down(&bench);
}
