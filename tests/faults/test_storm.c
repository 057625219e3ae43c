/* Many threads on one client whose connection is cut again and again, at bytes that a
 * seed chooses: every call ends by its deadline, and what was acknowledged is exactly
 * what was applied.
 *
 * Gradients are ones, applied by sgd with learning rate 1, so that the weights count
 * the pushes. STORM_SEED=N chooses another storm.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

enum {
    THREADS = 8,
    CALLS = 150, /* of each thread */
    ELEMENTS = 3 * 16384 + 7,
    TIMEOUT_MS = 20000,
    LATE_MS = 1000, /* no call may outlive its deadline by more */
    CUT_BYTES = 1 << 20
};

struct storm {
    struct daemon_process daemon;
    struct proxy *proxy;
    struct optclient *client;
    struct optclient_model *model;
    float *ones;
    uint64_t random;
    atomic_bool over;
    atomic_uint pushes; /* acknowledged */
};

struct thread {
    struct storm *storm;
    pthread_t thread;
    uint64_t random;
    float *weights;
};

/* xorshift64: Marsaglia 2003. */
static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static enum optclient_status one_call(struct thread *thread)
{
    struct storm *storm = thread->storm;
    struct optclient_values gradient = { .values = storm->ones };
    struct optclient_values weights = { .values = thread->weights };
    struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
    struct optclient_description *description;
    struct optclient_call *call;
    enum optclient_status status;
    switch (next(&thread->random) % 6) {
    case 0:
        status = optclient_push(storm->model, &gradient, 1, NULL, &result);
        break;
    case 1:
        status = optclient_push_pull(storm->model, &gradient, 1, NULL, &weights, 1,
                                     NULL, &result);
        break;
    case 2:
        status =
            optclient_push_start(storm->model, &gradient, 1, NULL, NULL, NULL, &call);
        if (status == OPTCLIENT_OK) {
            status = optclient_call_wait(call, &result);
            optclient_call_free(call);
        }
        break;
    case 3:
        return optclient_wait_step(storm->model, 0, 0, NULL);
    case 4:
        status = optclient_describe(storm->client, "m", &description);
        if (status == OPTCLIENT_OK) {
            optclient_description_free(description);
        }
        return status;
    default:
        return optclient_pull(storm->model, &weights, 1, NULL, NULL);
    }
    if (status == OPTCLIENT_OK) {
        require(result.fate == OPTCLIENT_APPLIED || result.fate == OPTCLIENT_DUPLICATE);
        atomic_fetch_add(&storm->pushes, 1);
    }
    return status;
}

static void *make_calls(void *argument)
{
    struct thread *thread = argument;
    for (int i = 0; i < CALLS; i++) {
        uint64_t begin = test_now_ms();
        require(one_call(thread) == OPTCLIENT_OK);
        require(test_now_ms() - begin < TIMEOUT_MS + LATE_MS);
    }
    return NULL;
}

/* Cut the connection, and the one after it, and so on. */
static void *make_weather(void *argument)
{
    struct storm *storm = argument;
    while (!atomic_load(&storm->over)) {
        unsigned seen = proxy_connections(storm->proxy);
        proxy_cut_after(storm->proxy, 1 + next(&storm->random) % CUT_BYTES,
                        1 + next(&storm->random) % CUT_BYTES);
        while (!atomic_load(&storm->over) && proxy_connections(storm->proxy) == seen) {
            poll(NULL, 0, 1);
        }
    }
    proxy_cut_after(storm->proxy, 0, 0);
    return NULL;
}

static void begin(struct storm *storm)
{
    static const uint64_t shape[] = { ELEMENTS };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    const char *seed = getenv("STORM_SEED");
    storm->random = seed == NULL ? 4711 : strtoull(seed, NULL, 10) | 1;
    daemon_start(&storm->daemon, NULL);
    storm->proxy = proxy_start(storm->daemon.port);
    struct optclient_options options = test_options();
    options.timeout_ms = TIMEOUT_MS;
    storm->client = test_connect(proxy_address(storm->proxy), &options);
    expect_ok(optclient_create(storm->client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL,
                               &storm->model));
    storm->ones = malloc(ELEMENTS * sizeof(float));
    for (size_t i = 0; i < ELEMENTS; i++) {
        storm->ones[i] = 1;
    }
}

static void expect_applied(struct storm *storm, float *weights)
{
    struct optclient_values values = { .values = weights };
    expect_ok(optclient_pull(storm->model, &values, 1, NULL, NULL));
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(weights[i], -(float)atomic_load(&storm->pushes),
                     "element %zu has had %g pushes, %u were acknowledged", i,
                     (double)-weights[i], atomic_load(&storm->pushes));
    }
}

Test(storm, does_not_cost_a_push_or_a_deadline, .timeout = 120)
{
    static struct storm storm;
    static struct thread threads[THREADS];
    begin(&storm);
    for (size_t i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){ .storm = &storm,
                                      .random = storm.random + 2 * i + 1,
                                      .weights = malloc(ELEMENTS * sizeof(float)) };
    }
    pthread_t weather;
    pthread_create(&weather, NULL, make_weather, &storm);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i].thread, NULL, make_calls, &threads[i]);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i].thread, NULL);
    }
    atomic_store(&storm.over, true);
    pthread_join(weather, NULL);
    expect_applied(&storm, threads[0].weights);
    struct optclient_usage usage;
    optclient_usage(storm.client, &usage);
    cr_assert_gt(usage.reconnects, 20, "the connection was hardly ever cut");
    optclient_close(storm.client);
    for (size_t i = 0; i < THREADS; i++) {
        free(threads[i].weights);
    }
    free(storm.ones);
    proxy_stop(storm.proxy);
    daemon_stop(&storm.daemon);
}
