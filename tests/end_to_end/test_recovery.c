/* The daemon is killed and comes back: what it had is there to the bit, and its workers
 * go on by themselves, over TCP, a Unix socket and shared memory.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/restarts.h"

static struct restarts server;
static const char *const always[] = { "--durability", "always", "--checkpoint-interval",
                                      "0s", NULL };

/* ---------------------------------------------------------------- a run */

enum { TENSORS = 4, ROWS = 40, WIDTH = 6, STEPS = 12 };

static const uint64_t shape_matrix[] = { 150, 120 }, shape_vector[] = { 37 },
                      shape_table[] = { ROWS, WIDTH };

/* A matrix of more than a block, a vector, a scalar, and a table if it may be sparse.
 */
static size_t tensors_of(bool sparse, struct optclient_tensor tensors[TENSORS])
{
    memset(tensors, 0, TENSORS * sizeof *tensors);
    tensors[0] =
        (struct optclient_tensor){ .name = "w", .shape = shape_matrix, .rank = 2 };
    tensors[1] =
        (struct optclient_tensor){ .name = "b", .shape = shape_vector, .rank = 1 };
    tensors[2] = (struct optclient_tensor){ .name = "s" };
    tensors[3] = (struct optclient_tensor){
        .name = "table", .shape = shape_table, .rank = 2, .sparse = 1
    };
    return sparse ? TENSORS : TENSORS - 1;
}

static const size_t sizes[TENSORS] = { 150 * 120, 37, 1, ROWS *WIDTH };

struct run {
    struct optclient *client;
    struct optclient_model *model;
    size_t count;
    float *values[TENSORS];
    uint32_t rows[8];
};

static void run_begin(struct run *run, const char *address, const char *name,
                      const char *specification, bool sparse)
{
    struct optclient_tensor tensors[TENSORS];
    struct optclient_options options = test_options();
    const float *initial[TENSORS];
    options.worker = name;
    options.timeout_ms = 20000;
    run->count = tensors_of(sparse, tensors);
    for (size_t i = 0; i < run->count; i++) {
        run->values[i] = malloc(sizes[i] * sizeof(float));
        cr_assert_not_null(run->values[i]);
        for (size_t k = 0; k < sizes[i]; k++) {
            run->values[i][k] = (float)((k * 37 + i * 11) % 101) / 50 - 1;
        }
        initial[i] = run->values[i];
    }
    run->client = test_connect(address, &options);
    expect_ok(optclient_create(run->client, "m", specification, NULL, tensors,
                               run->count, initial, &run->model));
}

/* The gradient of a step, which the step alone says. */
static void run_step(struct run *run, unsigned step)
{
    struct optclient_values gradients[TENSORS];
    for (size_t i = 0; i < run->count; i++) {
        bool rows = i == 3;
        size_t n = rows ? 5 * WIDTH : sizes[i];
        for (size_t k = 0; k < n; k++) {
            run->values[i][k] = (float)((k * 13 + step * 29 + i) % 89) / 300 - 0.14f;
        }
        for (size_t r = 0; rows && r < 5; r++) {
            run->rows[r] = (uint32_t)((r * 7 + step * 3) % ROWS);
        }
        gradients[i] = (struct optclient_values){ .tensor = i,
                                                  .values = run->values[i],
                                                  .rows = rows ? run->rows : NULL,
                                                  .row_count = rows ? 5 : 0 };
    }
    struct optclient_push_options push = { .basis = step };
    struct optclient_result result;
    expect_ok(optclient_push(run->model, gradients, run->count, &push, &result));
    cr_assert_eq(result.step, step + 1);
}

/* All that the model holds: weights, then each slot. To be freed. */
static float *run_state(struct run *run, size_t *size)
{
    struct optclient_description *described;
    expect_ok(optclient_describe(run->client, "m", &described));
    size_t all = 0;
    for (size_t i = 0; i < run->count; i++) {
        all += sizes[i];
    }
    *size = all * (1 + described->slot_count);
    float *state = malloc(*size * sizeof *state), *at = state;
    cr_assert_not_null(state);
    for (size_t s = 0; s <= described->slot_count; s++) {
        struct optclient_values values[TENSORS];
        struct optclient_pull_options pull = {
            .view = s == 0 ? OPTCLIENT_TRAIN : OPTCLIENT_SLOT,
            .slot = s == 0 ? NULL : described->slots[s - 1],
        };
        for (size_t i = 0; i < run->count; i++) {
            values[i] = (struct optclient_values){ .tensor = i, .values = at };
            at += sizes[i];
        }
        expect_ok(optclient_pull(run->model, values, run->count, &pull, NULL));
    }
    optclient_description_free(described);
    return state;
}

static void run_end(struct run *run)
{
    optclient_close(run->client);
    for (size_t i = 0; i < run->count; i++) {
        free(run->values[i]);
    }
}

/* What the model comes to if nothing disturbs it. */
static float *undisturbed(const char *specification, bool sparse, const char *change,
                          size_t *size)
{
    struct daemon_process daemon;
    struct run run;
    daemon_start(&daemon, NULL);
    run_begin(&run, daemon.address, "w", specification, sparse);
    for (unsigned step = 0; step < STEPS; step++) {
        if (change != NULL && step == 3) {
            expect_ok(optclient_set(run.client, "m", change, 8, NULL));
        }
        run_step(&run, step);
    }
    float *state = run_state(&run, size);
    run_end(&run);
    daemon_stop(&daemon);
    return state;
}

static void expect_same(const float *expected, size_t size, struct run *run,
                        const char *what)
{
    size_t n;
    float *state = run_state(run, &n);
    cr_assert_eq(n, size);
    for (size_t i = 0; i < n; i++) {
        cr_assert(memcmp(&state[i], &expected[i], sizeof state[i]) == 0,
                  "%s: value %zu is %a, not %a", what, i, (double)state[i],
                  (double)expected[i]);
    }
    free(state);
}

/* The daemon is killed after each step that `kills` names. */
static void run_ended(const char *specification, bool sparse, const char *change,
                      const char *const *options, unsigned kills, int number)
{
    size_t size;
    float *expected = undisturbed(specification, sparse, change, &size);
    struct run run;
    restarts_begin(&server, options);
    run_begin(&run, server.daemon.address, "w", specification, sparse);
    for (unsigned step = 0; step < STEPS; step++) {
        if (change != NULL && step == 3) {
            expect_ok(optclient_set(run.client, "m", change, 8, NULL));
        }
        run_step(&run, step);
        if ((kills >> step & 1) != 0) {
            restarts_kill(&server, number);
            restarts_again(&server, false);
        }
    }
    expect_same(expected, size, &run, specification);
    run_end(&run);
    restarts_end(&server);
    free(expected);
}

static void run_killed(const char *specification, bool sparse, const char *change,
                       const char *const *options, unsigned kills)
{
    run_ended(specification, sparse, change, options, kills, SIGKILL);
}

/* ---------------------------------------------------------------- the same bits */

Test(recovery, of_adam_has_the_bits_of_the_undisturbed_run, .timeout = 60)
{
    run_killed("adam(lr=0.01)", false, NULL, always, 1U << 4);
}

Test(recovery, again_and_again_has_them_too, .timeout = 60)
{
    run_killed("nadam(lr=0.01)", false, NULL, always, 0xFFF);
}

Test(recovery, of_lamb_has_them, .timeout = 60)
{
    run_killed("lamb(lr=0.01)", false, NULL, always, 1U << 2 | 1U << 7);
}

Test(recovery, of_ranger_with_lookahead_has_them, .timeout = 60)
{
    run_killed("ranger(lr=0.01)", false, NULL, always, 1U << 4 | 1U << 6);
}

Test(recovery, of_rows_has_them, .timeout = 60)
{
    run_killed("adam(lr=0.01)", true, NULL, always, 1U << 1 | 1U << 8);
}

Test(recovery, with_the_interval_has_them_if_only_the_daemon_is_killed, .timeout = 60)
{
    static const char *const interval[] = { "--durability", "interval",
                                            "--checkpoint-interval", "0s", NULL };
    run_killed("adam(lr=0.01)", false, NULL, interval, 0x555);
}

Test(recovery, keeps_changes_that_were_stated_for_later, .timeout = 60)
{
    run_killed("adam(lr=0.01)", false, "lr=0.5", always, 1U << 4 | 1U << 9);
}

Test(recovery, of_checkpoints_and_what_came_after_them_has_the_bits, .timeout = 60)
{
    static const char *const options[] = { "--durability", "always",
                                           "--checkpoint-interval", "5ms", NULL };
    run_killed("ralamb(lr=0.01)", false, "lr=0.5", options, 0xFFF);
}

Test(recovery, of_a_last_checkpoint_alone_has_them, .timeout = 60)
{
    static const char *const options[] = { "--durability", "checkpoint",
                                           "--checkpoint-interval", "0s", NULL };
    run_ended("adam(lr=0.01)", true, "lr=0.5", options, 1U << 4 | 1U << 9, SIGTERM);
}

Test(recovery, of_a_last_checkpoint_and_a_journal_has_them, .timeout = 60)
{
    run_ended("adam(lr=0.01) + lookahead(k=3, alpha=0.5)", false, NULL, always,
              1U << 4 | 1U << 5, SIGTERM);
}

/* ---------------------------------------------------------------- workers */

enum { MEMBERS = 3, KILLS = 5 };

struct hand {
    pthread_t thread;
    unsigned number;
    float last; /* weights of one element at the end */
};

static struct {
    const struct optclient_policy *policy;
    const char *specification;
    uint64_t elements;
    unsigned rounds;
    float each; /* what a round adds */
} plan;
static sem_t killed; /* so often, that the first worker has not learnt */

static struct optclient_model *join(struct optclient *client)
{
    const struct optclient_tensor tensor = { .name = "w",
                                             .shape = &plan.elements,
                                             .rank = 1 };
    struct optclient_model *model = NULL;
    require(optclient_create(client, "m", plan.specification, plan.policy, &tensor, 1,
                             NULL, &model) == OPTCLIENT_OK);
    return model;
}

/* Push and meet the others, round by round. */
static void *march(void *argument)
{
    struct hand *hand = argument;
    struct optclient_options options = test_options();
    struct optclient *client = NULL;
    float *gradient = malloc(plan.elements * sizeof *gradient);
    char name[16];
    snprintf(name, sizeof name, "w%u", hand->number);
    options.worker = name;
    options.timeout_ms = 30000;
    require(gradient != NULL);
    require(optclient_connect(server.daemon.address, &options, &client) ==
            OPTCLIENT_OK);
    struct optclient_model *model = join(client);
    struct optclient_values values = { .values = gradient };
    for (unsigned i = 0, kills = 0; i < plan.rounds; i++) {
        /* However fast they are, they have not finished when the last kill comes. */
        if (hand->number == 0 && kills < KILLS && i > kills * (plan.rounds / KILLS)) {
            require(sem_wait(&killed) == 0);
            kills++;
        }
        for (size_t k = 0; k < plan.elements; k++) {
            gradient[k] = -(float)(hand->number + 1);
        }
        require(optclient_push(model, &values, 1, NULL, NULL) == OPTCLIENT_OK);
        require(optclient_barrier(model, 0, NULL) == OPTCLIENT_OK);
    }
    require(optclient_pull(model, &values, 1, NULL, NULL) == OPTCLIENT_OK);
    hand->last = gradient[plan.elements - 1];
    require(optclient_barrier(model, 0, NULL) == OPTCLIENT_OK);
    optclient_close(client);
    free(gradient);
    return NULL;
}

static void march_and_kill(const char *const *options)
{
    struct hand hands[MEMBERS];
    restarts_begin(&server, options);
    cr_assert_eq(sem_init(&killed, 0, 0), 0);
    for (unsigned i = 0; i < MEMBERS; i++) {
        hands[i].number = i;
        cr_assert_eq(pthread_create(&hands[i].thread, NULL, march, &hands[i]), 0);
    }
    for (unsigned i = 0; i < KILLS; i++) {
        cr_assert(daemon_logged(&server.daemon, "hello", DAEMON_WAIT_MS));
        restarts_kill(&server, SIGKILL);
        restarts_again(&server, true);
        cr_assert_eq(sem_post(&killed), 0);
    }
    for (unsigned i = 0; i < MEMBERS; i++) {
        pthread_join(hands[i].thread, NULL);
        cr_assert_eq(hands[i].last, (float)plan.rounds * plan.each, "%u: %g", i,
                     (double)hands[i].last);
    }
    restarts_end(&server);
}

Test(recovery, renews_rounds_and_barriers, .timeout = 90)
{
    static const struct optclient_policy together = { .min_workers = MEMBERS };
    static const char *const options[] = { "--durability", "always", "--grace", "60s",
                                           NULL };
    plan.policy = &together;
    plan.specification = "sgd(lr=1, aggregate=sum)";
    plan.elements = 2000;
    plan.rounds = 30;
    plan.each = 6;
    march_and_kill(options);
}

Test(recovery, renews_rounds_that_are_applied_shard_by_shard, .timeout = 90)
{
    static const struct optclient_policy shards = { .min_workers = MEMBERS,
                                                    .atomic = OPTCLIENT_ATOMIC_SHARD };
    static const char *const options[] = {
        "--durability",          "interval", "--grace", "60s",
        "--checkpoint-interval", "20ms",     NULL
    };
    plan.policy = &shards;
    plan.specification = "sgd(lr=1)";
    plan.elements = (2 << 20) + 5;
    plan.rounds = 6;
    plan.each = 2;
    march_and_kill(options);
}

/* Steps of a worker's own, and synchronisations; the daemon is killed after those steps
 * that `kills` names. The weights are put into `into`. */
static void local_run(unsigned kills, float *into)
{
    static float gradient[500];
    static const uint64_t shape[] = { 500 };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    struct optclient_options options = test_options();
    struct optclient_model *model;
    struct optclient_local *local;
    struct optclient_local_result at;
    options.worker = "w";
    restarts_begin(&server, always);
    struct optclient *client = test_connect(server.daemon.address, &options);
    expect_ok(
        optclient_create(client, "m", "sgd(lr=0.5)", NULL, &tensor, 1, NULL, &model));
    expect_ok(optclient_local_open(model, "adam(lr=0.01)", 4, NULL, &local));
    for (unsigned step = 0; step < 16; step++) {
        struct optclient_values values = { .values = gradient };
        for (size_t i = 0; i < 500; i++) {
            gradient[i] = (float)((i * 7 + step * 5) % 23) / 10 - 1;
        }
        expect_ok(optclient_local_step(local, &values, 1, 1, &at));
        if ((kills >> step & 1) != 0) {
            restarts_kill(&server, SIGKILL);
            restarts_again(&server, false);
        }
    }
    expect_ok(optclient_local_sync(local, &at));
    optclient_local_close(local);
    struct optclient_values values = { .values = into };
    expect_ok(optclient_pull(model, &values, 1, NULL, NULL));
    optclient_close(client);
    restarts_end(&server);
}

Test(recovery, lets_local_steps_go_on, .timeout = 60)
{
    static float undisturbed_ones[500], ones[500];
    local_run(0, undisturbed_ones);
    local_run(1U << 3 | 1U << 6 | 1U << 11, ones);
    cr_assert_eq(memcmp(undisturbed_ones, ones, sizeof ones), 0);
}

/* ---------------------------------------------------------------- meanwhile */

/* The daemon takes long to read what it had. */
static void begin_slowly(struct run *run)
{
    static const char *const options[] = { "--durability", "always", NULL };
    restarts_failpoint(NULL);
    restarts_begin(&server, options);
    run_begin(run, server.daemon.address, "w", "adam(lr=0.01)", false);
    run_step(run, 0);
    restarts_kill(&server, SIGTERM); /* with a checkpoint */
    restarts_failpoint("recovery_reads_model:sleep:1500");
    restarts_again(&server, false);
    cr_assert(daemon_logged(&server.daemon, "info recovering", DAEMON_WAIT_MS));
}

Test(recovery, shows_how_far_it_is_and_lets_workers_wait, .timeout = 60)
{
    struct run run;
    struct optclient_model_info *models;
    struct optclient_options options = test_options();
    size_t count;
    begin_slowly(&run);
    options.worker = "";
    struct optclient *observer = test_connect(server.daemon.address, &options);
    expect_ok(optclient_list(observer, &models, &count));
    cr_assert_eq(count, 1);
    cr_assert_str_eq(models[0].name, "m");
    cr_assert_gt(models[0].recovering, 0);
    optclient_list_free(models);
    struct optclient_description *described; /* which waits */
    expect_ok(optclient_describe(observer, "m", &described));
    cr_assert_eq(described->step, 1);
    optclient_description_free(described);
    run_step(&run, 1);
    expect_ok(optclient_list(observer, &models, &count));
    cr_assert_eq(models[0].recovering, 0);
    cr_assert_eq(models[0].step, 2);
    optclient_list_free(models);
    optclient_close(observer);
    run_end(&run);
    restarts_end(&server);
}

Test(recovery, refuses_a_worker_with_a_reason_until_it_is_over, .timeout = 60)
{
    struct run run;
    struct optclient_options options = test_options();
    struct optclient *client = NULL;
    begin_slowly(&run);
    options.worker = "another";
    options.connect_timeout_ms = 300;
    expect_status(optclient_connect(server.daemon.address, &options, &client),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_not_null(strstr(optclient_error(), "recovering"), "%s",
                       optclient_error());
    run_step(&run, 1);
    run_end(&run);
    restarts_end(&server);
}

Test(recovery, can_be_stopped_and_has_changed_nothing, .timeout = 60)
{
    struct run run;
    begin_slowly(&run);
    cr_assert_eq(restarts_kill(&server, SIGTERM), 0);
    restarts_failpoint(NULL);
    restarts_again(&server, true);
    run_step(&run, 1);
    run_end(&run);
    restarts_end(&server);
}
