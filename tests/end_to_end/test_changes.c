/* Changes of options while several workers train, and what is not finite: judged by the
 * history that the workers wrote down and by what the model says of itself.
 *
 * Gradients are whole numbers and learning rates powers of two, so that every sum is
 * exact: a weight tells which learning rate each of its updates had.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { WORKERS = 4, ROUNDS = 150, CHANGES = 6, SMALL = 4, LARGE = 200000 };

static struct daemon_process server;

static struct optclient *connect_as(const char *worker)
{
    char address[32];
    struct optclient_options options = test_options();
    options.worker = worker;
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)server.port);
    return test_connect(address, &options);
}

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

/* ---------------------------------------------------------------- under workers */

struct worker {
    pthread_t thread;
    char name[16];
    const struct shapes *shapes;
    double after[ROUNDS]; /* what all weights were after each round */
};

static void *train(void *argument)
{
    struct worker *worker = argument;
    const struct shapes *shapes = worker->shapes;
    struct optclient *client = connect_as(worker->name);
    const struct optclient_policy together = { .min_workers = WORKERS + 1 };
    struct optclient_model *model;
    require(optclient_create(client, "m", "sgd(lr=1, aggregate=sum)", &together,
                             shapes->tensors, shapes->count, NULL,
                             &model) == OPTCLIENT_OK);
    struct optclient_values *gradients = values_new(shapes);
    struct optclient_values *weights = values_new(shapes);
    for (size_t i = 0; i < shapes->count; i++) {
        for (size_t k = 0; k < shapes->sizes[i]; k++) {
            gradients[i].values[k] = 1.0f;
        }
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct optclient_result result;
        require(optclient_push_pull(model, gradients, shapes->count, NULL, weights,
                                    shapes->count, NULL, &result) == OPTCLIENT_OK);
        require(result.step == round + 1);
        worker->after[round] = (double)weights[0].values[0];
        for (size_t i = 0; i < shapes->count; i++) {
            for (size_t k = 0; k < shapes->sizes[i]; k++) {
                require((double)weights[i].values[k] == worker->after[round]);
            }
        }
    }
    values_free(gradients, shapes);
    values_free(weights, shapes);
    optclient_model_close(model);
    optclient_close(client);
    return NULL;
}

/* Learning rate of an update, by the changes that the model records. */
static double rate_of(const struct optclient_description *description, uint64_t step)
{
    double rate = 1.0;
    for (size_t i = 0; i < description->change_count; i++) {
        const struct optclient_change *change = &description->changes[i];
        const char *text = strstr(change->after, "lr=");
        if (change->step <= step) {
            rate = text == NULL ? 0.01 : strtod(text + 3, NULL);
        }
    }
    return rate;
}

Test(changes, take_effect_between_two_updates_for_all_tensors_and_workers,
     .timeout = 120)
{
    static struct worker workers[WORKERS];
    static const char *const rates[CHANGES] = { "lr=0.5", "lr=2",    "lr=4",
                                                "lr=1",   "lr=0.25", "lr=0.5" };
    struct shapes shapes = shapes_new(SMALL, LARGE);
    uint64_t stated[CHANGES];
    daemon_start(&server, NULL);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].shapes = &shapes;
        snprintf(workers[i].name, sizeof(workers[i].name), "worker-%d", i);
        pthread_create(&workers[i].thread, NULL, train, &workers[i]);
    }
    struct optclient *operator_ = connect_as("operator");
    struct optclient_model *model;
    while (optclient_open(operator_, "m", 1, &model) == OPTCLIENT_NOT_FOUND) {
    }
    /* It takes part in every round, with zeros, so no update is made unnoticed. */
    struct optclient_values *zeros = values_new(&shapes);
    size_t made = 0;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        if (round % (ROUNDS / (CHANGES + 1)) == 0 && made < CHANGES) {
            /* Every other one is stated ahead, the others for this very update. */
            uint64_t at = made % 2 == 0 ? round + 5 : 0;
            expect_ok(optclient_set(operator_, "m", rates[made], at, &stated[made]));
            cr_assert_eq(stated[made], at == 0 ? round : at);
            made++;
        }
        expect_ok(optclient_push(model, zeros, shapes.count, NULL, NULL));
    }
    values_free(zeros, &shapes);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    struct optclient_description *description;
    expect_ok(optclient_describe(operator_, "m", &description));
    cr_assert_eq(description->change_count, CHANGES);
    for (size_t i = 0; i < CHANGES; i++) {
        cr_assert_eq(description->changes[i].step, stated[i]);
    }
    double weight = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        weight -= WORKERS * rate_of(description, round + 1);
        for (int i = 0; i < WORKERS; i++) {
            cr_assert_eq(workers[i].after[round], weight,
                         "%s saw %g after update %u, not %g", workers[i].name,
                         workers[i].after[round], (unsigned)round + 1, weight);
        }
    }
    optclient_description_free(description);
    optclient_close(operator_);
    daemon_stop(&server);
    shapes_free(&shapes);
}

Test(changes, that_need_other_slots_or_whole_tensors_are_refused_and_leave_nothing)
{
    static const uint64_t shape[] = { 6, 2 };
    const struct optclient_tensor table = {
        .name = "table", .shape = shape, .rank = 2, .sparse = 1
    };
    struct optclient_model *model;
    uint64_t step;
    daemon_start(&server, NULL);
    struct optclient *client = connect_as("w");
    expect_ok(optclient_create(client, "m", "adam", NULL, &table, 1, NULL, &model));
    expect_status(optclient_set(client, "m", "lookahead_k=5", 0, &step),
                  OPTCLIENT_FAILED_PRECONDITION);
    expect_words("slow_param");
    expect_status(optclient_set(client, "m", "layerwise()", 0, &step),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("table");
    /* Also if it is only for one group of tensors, or for later. */
    expect_status(optclient_set(client, "m", "layerwise()", 100, &step),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_ok(optclient_set(
        client, "m", "layerwise(), tensors(\"table\", layerwise=none)", 0, &step));
    cr_assert_eq(step, 1);
    struct optclient_description *description;
    expect_ok(optclient_describe(client, "m", &description));
    cr_assert_eq(description->change_count, 1);
    optclient_description_free(description);
    optclient_close(client);
    daemon_stop(&server);
}

/* ---------------------------------------------------------------- not finite */

enum { VALUES = 40000, BAD_TENSOR = 1, BAD_ELEMENT = 34567 };

static const uint64_t vector_shape[] = { VALUES };
static const struct optclient_tensor vectors[] = {
    { .name = "first", .shape = vector_shape, .rank = 1 },
    { .name = "second", .shape = vector_shape, .rank = 1 },
};

/* A model with two workers, and what they push. */
struct pair {
    struct optclient *clients[2];
    struct optclient_model *models[2];
    float gradient[2][VALUES], spoilt[VALUES], weights[2][VALUES], slots[2][VALUES];
    struct optclient_result results[2];
    enum optclient_status statuses[2];
    char sentences[2][512];
};

static void pair_open(struct pair *pair, const char *specification)
{
    const struct optclient_policy together = { .min_workers = 2 };
    static const char *const names[] = { "a", "b" };
    daemon_start(&server, NULL);
    for (int i = 0; i < 2; i++) {
        pair->clients[i] = connect_as(names[i]);
        expect_ok(optclient_create(pair->clients[i], "m", specification, &together,
                                   vectors, 2, NULL, &pair->models[i]));
        for (size_t k = 0; k < VALUES; k++) {
            pair->gradient[i][k] = (float)(k % 7) - 2.0f;
        }
    }
}

static void pair_close(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        optclient_close(pair->clients[i]);
    }
    daemon_stop(&server);
}

/* Both push; the first worker's second tensor has this number in it. */
static void pair_push(struct pair *pair, float number)
{
    struct optclient_call *calls[2];
    memcpy(pair->spoilt, pair->gradient[1], sizeof(pair->spoilt));
    pair->spoilt[BAD_ELEMENT] = number;
    for (int i = 0; i < 2; i++) {
        const struct optclient_values values[] = {
            { .tensor = 0, .values = pair->gradient[0] },
            { .tensor = 1, .values = i == 0 ? pair->spoilt : pair->gradient[1] },
        };
        expect_ok(optclient_push_start(pair->models[i], values, 2, NULL, NULL, NULL,
                                       &calls[i]));
    }
    for (int i = 0; i < 2; i++) {
        pair->statuses[i] = optclient_call_wait(calls[i], &pair->results[i]);
        snprintf(pair->sentences[i], sizeof(pair->sentences[i]), "%s",
                 optclient_error());
        optclient_call_free(calls[i]);
    }
}

static uint64_t counter(struct pair *pair, const char *name)
{
    struct optclient_counter *counters;
    size_t count;
    uint64_t value = UINT64_MAX;
    expect_ok(optclient_statistics(pair->clients[1], &counters, &count));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(counters[i].name, name) == 0) {
            value = counters[i].value;
        }
    }
    optclient_statistics_free(counters);
    cr_assert_neq(value, UINT64_MAX, "there is no counter %s", name);
    return value;
}

static void pair_pull(struct pair *pair)
{
    struct optclient_values values[] = { { .tensor = 0, .values = pair->weights[0] },
                                         { .tensor = 1, .values = pair->weights[1] } };
    expect_ok(optclient_pull(pair->models[1], values, 2, NULL, NULL));
    values[0].values = pair->slots[0];
    values[1].values = pair->slots[1];
    expect_ok(optclient_pull(pair->models[1], values, 2,
                             &(struct optclient_pull_options){ .view = OPTCLIENT_SLOT,
                                                               .slot = "exp_avg_sq" },
                             NULL));
}

static void expect_unchanged(struct pair *pair)
{
    static struct pair before;
    memcpy(&before, pair, sizeof(before));
    pair_pull(pair);
    cr_assert_arr_eq(pair->weights, before.weights, sizeof(before.weights));
    cr_assert_arr_eq(pair->slots, before.slots, sizeof(before.slots));
}

static const float not_finite[] = { NAN, INFINITY, -INFINITY };

Test(nonfinite, is_rejected_by_name_and_the_round_waits_for_a_better_push)
{
    static struct pair pair;
    pair_open(&pair, "adam(lr=0.5)");
    pair_push(&pair, 1.0f);
    expect_status(pair.statuses[0], OPTCLIENT_OK);
    pair_pull(&pair);
    for (size_t i = 0; i < sizeof(not_finite) / sizeof(*not_finite); i++) {
        struct optclient_values values[] = {
            { .tensor = 1, .values = pair.spoilt },
            { .tensor = 0, .values = pair.gradient[0] },
        };
        pair.spoilt[BAD_ELEMENT] = not_finite[i];
        expect_status(optclient_push(pair.models[0], values, 2, NULL, NULL),
                      OPTCLIENT_INVALID_ARGUMENT);
        expect_words("\"second\" is not finite at element 34567");
        cr_assert_eq(counter(&pair, "pushes_refused"), i + 1);
        expect_unchanged(&pair);
    }
    pair_push(&pair, 1.0f);
    cr_assert_eq(pair.results[0].step, 2);
    cr_assert_eq(pair.results[1].step, 2);
    cr_assert_eq(counter(&pair, "pushes_applied"), 4);
    cr_assert_eq(counter(&pair, "rounds_skipped"), 0);
    struct optclient_description *description;
    expect_ok(optclient_describe(pair.clients[1], "m", &description));
    cr_assert_eq(description->workers[0].refused, 3);
    cr_assert_eq(description->workers[1].refused, 0);
    optclient_description_free(description);
    pair_close(&pair);
}

Test(nonfinite, skips_the_round_of_all_and_changes_no_bit)
{
    static struct pair pair;
    pair_open(&pair, "adam(lr=0.5) + nonfinite(skip)");
    pair_push(&pair, 1.0f);
    pair_pull(&pair);
    for (size_t i = 0; i < sizeof(not_finite) / sizeof(*not_finite); i++) {
        pair_push(&pair, not_finite[i]);
        for (int w = 0; w < 2; w++) {
            cr_assert_eq(pair.statuses[w], OPTCLIENT_OK, "%s", pair.sentences[w]);
            cr_assert_eq(pair.results[w].fate, OPTCLIENT_SKIPPED);
            cr_assert_eq(pair.results[w].step, 1);
        }
        cr_assert_eq(counter(&pair, "rounds_skipped"), i + 1);
        cr_assert_eq(counter(&pair, "pushes_skipped"), 2 * (i + 1));
        expect_unchanged(&pair);
    }
    pair_push(&pair, 1.0f);
    cr_assert_eq(pair.results[0].fate, OPTCLIENT_APPLIED);
    cr_assert_eq(pair.results[0].step, 2);
    struct optclient_description *description;
    expect_ok(optclient_describe(pair.clients[1], "m", &description));
    cr_assert_eq(description->rounds_skipped, 3);
    cr_assert_eq(description->workers[0].applied, 2);
    optclient_description_free(description);
    pair_close(&pair);
}

Test(nonfinite, goes_where_it_belongs_and_nowhere_else_if_it_may)
{
    static struct pair pair;
    pair_open(&pair, "adam(lr=0.5) + nonfinite(propagate)");
    pair_push(&pair, NAN);
    cr_assert_eq(pair.statuses[0], OPTCLIENT_OK, "%s", pair.sentences[0]);
    cr_assert_eq(pair.results[0].fate, OPTCLIENT_APPLIED);
    pair_pull(&pair);
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < VALUES; k++) {
            bool bad = i == BAD_TENSOR && k == BAD_ELEMENT;
            cr_assert_eq(isfinite(pair.weights[i][k]) != 0, !bad);
            cr_assert_eq(isfinite(pair.slots[i][k]) != 0, !bad);
        }
    }
    cr_assert_eq(counter(&pair, "pushes_refused"), 0);
    pair_close(&pair);
}
