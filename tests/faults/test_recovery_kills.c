/* The daemon is killed at random instants under load from several workers, while it
 * recovers too, and comes back on the same data directory. Every push has a place of
 * its own in the model, so the weights tell how often it was applied: what was
 * acknowledged counts once, whatever was killed, and nothing counts twice. The seed is
 * printed when a test fails; RECOVERY_SEED in the environment plays it again.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/history.h"
#include "tests/support/restarts.h"
#include "tests/support/sanitized.h"

enum {
    WORKERS = 3,
    PUSHES = 4000, /* of each, at most */
    KILLS = IS_SANITIZED ? 10 : 45,
    ALIVE_US = 80000,  /* between two kills, at most */
    RECOVERING_IN = 4, /* one of so many kills comes while it recovers */
    POINT_ROUNDS = 3,
    POINT_MS = 300, /* for a place to be reached */
    WORKER_WAIT_MS = 60000
};

static struct restarts server;
static struct history *history;
static atomic_bool enough;
static unsigned kills;

static uint64_t random_;

static uint64_t draw(uint64_t below)
{
    random_ ^= random_ << 13; /* xorshift64: Marsaglia 2003 */
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ % below;
}

static uint64_t seed(void)
{
    const char *given = getenv("RECOVERY_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t chosen = given != NULL
                          ? strtoull(given, NULL, 10)
                          : (uint64_t)now.tv_nsec * 2654435761U + (uint64_t)now.tv_sec;
    random_ = chosen | 1;
    fprintf(stderr, "RECOVERY_SEED=%llu\n", (unsigned long long)chosen);
    return chosen;
}

/* ---------------------------------------------------------------- workers */

/* How they push. */
static struct {
    bool sparse, push_pull, shared; /* memory, over the Unix socket */
    const struct optclient_policy *policy;
} load;

static const uint64_t shape_dense[] = { WORKERS * PUSHES },
                      shape_rows[] = { WORKERS * PUSHES, 1 };

static struct optclient_tensor tensor_of_load(void)
{
    return (struct optclient_tensor){ .name = "times",
                                      .shape = load.sparse ? shape_rows : shape_dense,
                                      .rank = load.sparse ? 2 : 1,
                                      .sparse = load.sparse };
}

static struct optclient *connect_as(const char *name)
{
    struct optclient_options options = test_options();
    struct optclient *client = NULL;
    options.worker = name;
    options.timeout_ms = WORKER_WAIT_MS;
    options.connect_timeout_ms = WORKER_WAIT_MS;
    char socket[DAEMON_PATH + 16];
    snprintf(socket, sizeof socket, "unix:%s/socket", server.daemon.directory);
    require(optclient_connect(load.shared ? socket : server.daemon.address, &options,
                              &client) == OPTCLIENT_OK);
    return client;
}

static struct optclient_model *join(struct optclient *client)
{
    const struct optclient_tensor tensor = tensor_of_load();
    struct optclient_model *model = NULL;
    require(optclient_create(client, "m", "sgd(lr=1, aggregate=sum)", load.policy,
                             &tensor, 1, NULL, &model) == OPTCLIENT_OK);
    return model;
}

static void push_one(struct optclient_model *model, unsigned worker, unsigned push,
                     float *gradient, float *weights)
{
    uint32_t row = worker * PUSHES + push;
    float one = -1;
    struct optclient_values values = { .values = gradient };
    struct optclient_values pulled = { .values = weights };
    struct optclient_push_options options = { .form = OPTCLIENT_SUM };
    struct optclient_result result;
    if (load.sparse) {
        values =
            (struct optclient_values){ .values = &one, .rows = &row, .row_count = 1 };
    } else {
        gradient[row] = -1;
    }
    if (load.push_pull) {
        (void)optclient_push_pull(model, &values, 1, &options, &pulled, 1, NULL,
                                  &result);
    } else {
        (void)optclient_push(model, &values, 1, &options, &result);
    }
    gradient[row] = 0;
    history_told(history, worker, push, &result);
}

static void *work(void *argument)
{
    unsigned worker = *(const unsigned *)argument;
    char name[16];
    snprintf(name, sizeof name, "w%u", worker);
    struct optclient *client = connect_as(name);
    struct optclient_model *model = join(client);
    float *gradient = load.shared ? optclient_gradient(model, 0)
                                  : calloc(WORKERS * PUSHES, sizeof *gradient);
    float *weights = calloc(WORKERS * PUSHES, sizeof *weights);
    require(gradient != NULL && weights != NULL);
    while (!atomic_load(&enough)) {
        unsigned push = history_begin(history, worker);
        if (push == PUSHES) {
            break;
        }
        push_one(model, worker, push, gradient, weights);
    }
    optclient_close(client);
    free(load.shared ? NULL : gradient);
    free(weights);
    return NULL;
}

/* ---------------------------------------------------------------- the killer */

/* Instants are what this is about: they are drawn, and nothing is waited for. */
static void let_it_live(uint64_t us)
{
    struct timespec time = { .tv_nsec = (long)(us * 1000) };
    nanosleep(&time, NULL);
}

static void kill_at_random(void)
{
    for (unsigned i = 0; i < KILLS; i++) {
        bool at_once = draw(RECOVERING_IN) == 0;
        let_it_live(draw(at_once ? ALIVE_US / 8 : ALIVE_US));
        restarts_kill(&server, SIGKILL);
        kills++;
        restarts_again(&server, !at_once && draw(2) == 0);
    }
}

/* At each place that has a name, some of the times that it is reached. What is not
 * reached soon is not waited for. */
static void kill_at_points(void)
{
    static const char *const points[] = {
        "file_write",
        "file_sync",
        "file_sync_data",
        "journal_appended",
        "journal_synced",
        "journal_dropped",
        "checkpoint_written",
        "checkpoint_renamed",
        "recovery_finds",
        "recovery_reads_model",
        "recovery_reads_journal",
        "recovery_ends",
        "recovery_ended",
    };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        for (unsigned round = 0; round < (IS_SANITIZED ? 1 : POINT_ROUNDS); round++) {
            char point[64];
            snprintf(point, sizeof point, "%s:kill:%u", points[i],
                     1 + (unsigned)draw(1 + round * round));
            restarts_kill(&server, SIGKILL);
            restarts_failpoint(point);
            restarts_again(&server, false);
            int code = daemon_wait(&server.daemon, POINT_MS);
            kills += code == 128 + SIGKILL;
            cr_assert(code == -1 || code == 128 + SIGKILL, "%s: %d", point, code);
            restarts_failpoint(NULL);
            if (code != -1) {
                restarts_again(&server, true);
            }
        }
    }
}

static void judge(uint64_t chosen)
{
    struct history_verdict verdict;
    struct optclient *client = connect_as("");
    struct optclient_model *model = NULL;
    float *times = malloc(WORKERS * PUSHES * sizeof *times);
    cr_assert_not_null(times);
    struct optclient_values values = { .values = times };
    expect_ok(optclient_open(client, "m", 0, &model));
    expect_ok(optclient_pull(model, &values, 1, NULL, NULL));
    history_judge(history, times, 1, false, &verdict);
    cr_assert_eq(verdict.wrong, 0, "RECOVERY_SEED=%llu: %s", (unsigned long long)chosen,
                 verdict.problem);
    cr_assert_eq(verdict.refused + verdict.not_known + verdict.untold, 0,
                 "RECOVERY_SEED=%llu: %u refused, %u not known, %u untold",
                 (unsigned long long)chosen, verdict.refused, verdict.not_known,
                 verdict.untold);
    cr_assert_gt(verdict.acknowledged, 0);
    fprintf(stderr, "%u kills, %u pushes\n", kills, verdict.acknowledged);
    optclient_close(client);
    free(times);
}

static void play(const char *const *options, void (*kill_it)(void))
{
    static unsigned numbers[WORKERS];
    pthread_t threads[WORKERS];
    uint64_t chosen = seed();
    history = history_new(WORKERS, PUSHES);
    restarts_begin(&server, options);
    for (unsigned i = 0; i < WORKERS; i++) {
        numbers[i] = i;
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &numbers[i]), 0);
    }
    kill_it();
    atomic_store(&enough, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    judge(chosen);
    restarts_end(&server);
    history_free(history);
}

static const struct optclient_policy async = { .mode = OPTCLIENT_ASYNC },
                                     bounded = { .mode = OPTCLIENT_BOUNDED,
                                                 .staleness = 3 };

Test(recovery_kills, lose_no_push_that_is_always_durable, .timeout = 120)
{
    static const char *const options[] = {
        "--durability",          "always", "--grace", "60s",
        "--checkpoint-interval", "50ms",   NULL
    };
    load.policy = &async;
    play(options, kill_at_random);
}

Test(recovery_kills, lose_no_push_of_the_interval_either, .timeout = 120)
{
    static const char *const options[] = { "--durability", "interval", "--grace", "60s",
                                           NULL };
    load.policy = &async;
    load.push_pull = true;
    load.shared = true;
    play(options, kill_at_random);
}

Test(recovery_kills, lose_no_rows, .timeout = 120)
{
    static const char *const options[] = { "--durability", "interval", "--grace", "60s",
                                           NULL };
    load.policy = &async;
    load.sparse = true;
    play(options, kill_at_random);
}

Test(recovery_kills, lose_nothing_of_a_bounded_run, .timeout = 120)
{
    static const char *const options[] = { "--durability", "always", "--grace", "60s",
                                           NULL };
    load.policy = &bounded;
    load.sparse = true;
    play(options, kill_at_random);
}

Test(recovery_kills, lose_no_round_of_a_synchronous_run, .timeout = 120)
{
    static const char *const options[] = {
        "--durability",          "interval", "--grace", "60s",
        "--checkpoint-interval", "20ms",     NULL
    };
    load.policy = NULL;
    play(options, kill_at_random);
}

Test(recovery_kills, at_every_place_that_has_a_name_lose_nothing, .timeout = 120)
{
    static const char *const options[] = {
        "--durability",          "always", "--grace", "60s",
        "--checkpoint-interval", "30ms",   NULL
    };
    load.policy = &async;
    load.sparse = true;
    play(options, kill_at_points);
}
