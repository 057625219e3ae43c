/* worker — a life of a worker of the soak, which ends by SIGTERM or worse.
 *
 * One client, and a thread for each model, because each waits for its own rounds. Most
 * pushes are let be; some have a deadline that is short, some pull weights, and
 * sometimes the model is closed and opened again with a push under way. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/soak/soak.h"
#include "tests/support/proxy_faults.h"

enum {
    TIMEOUT_MS = 10000,
    SHORT_MS = 150, /* one in SHORT_ONE_IN has a deadline of up to so long */
    PAUSE_MS = 70,  /* between two pushes, up to twice as much */
    SHORT_ONE_IN = 8,
    PULL_ONE_IN = 4,
    CLOSE_ONE_IN = 64,
    DESCRIPTORS = 64 /* a connection's is below */
};

static const struct way {
    enum soak_route route;
    int checksum, no_shared_memory;
} ways[SOAK_WORKERS] = {
    { SOAK_CUT, 0, 0 },     { SOAK_CUT, 1, 0 },  { SOAK_DAMAGED, 1, 0 },
    { SOAK_DAMAGED, 1, 0 }, { SOAK_UNIX, 0, 1 }, { SOAK_UNIX, 1, 1 },
    { SOAK_UNIX, 0, 0 },    { SOAK_UNIX, 0, 0 },
};

enum soak_route soak_route(unsigned worker)
{
    return ways[worker].route;
}

static volatile sig_atomic_t stopping;
static atomic_bool failed, replaced;

static void on_stop(int number)
{
    (void)number;
    stopping = 1;
}

/* All its sockets hang up: there is only one. */
static void on_cut(int number)
{
    (void)number;
    for (int fd = STDERR_FILENO + 1; fd < DESCRIPTORS; fd++) {
        shutdown(fd, SHUT_RDWR);
    }
}

static void heed_signals(void)
{
    sigset_t signals;
    const struct sigaction stop = { .sa_handler = on_stop };
    const struct sigaction cut = { .sa_handler = on_cut, .sa_flags = SA_RESTART };
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &cut, NULL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
}

/* ---------------------------------------------------------------- a model's thread */

struct post {
    struct optclient *client;
    struct history *history;
    unsigned worker, number; /* of the model */
    struct optclient_model *model;
    float *gradients[SOAK_PARTS], *weights[SOAK_PARTS];
    uint64_t random;
};

static bool complain(const struct post *post, const char *what)
{
    fprintf(stderr, "worker %u, model %s: %s: %s\n", post->worker,
            soak_name(post->number), what, optclient_error());
    return false;
}

static bool is_over(void)
{
    return stopping || failed || replaced;
}

/* Whether another process has the name, which ends this one. */
static bool is_replaced(enum optclient_status status)
{
    if (status == OPTCLIENT_FAILED_PRECONDITION &&
        optclient_detail() == OPTCLIENT_TAKEN_OVER) {
        replaced = true;
    }
    return replaced;
}

static bool shares(const struct post *post)
{
    const struct way *way = &ways[post->worker];
    return way->route == SOAK_UNIX && !way->no_shared_memory;
}

/* Open the model. Gradients that are shared lie in its memory: all zeros. */
static bool open_post(struct post *post)
{
    unsigned pushes = history_pushes(post->history);
    enum optclient_status status =
        soak_open(post->client, post->number, pushes, &post->model);
    if (status != OPTCLIENT_OK) {
        post->model = NULL;
        return is_replaced(status) ? false : complain(post, "create");
    }
    for (unsigned p = 0; p < SOAK_PARTS && shares(post); p++) {
        post->gradients[p] = optclient_gradient(post->model, soak_tensor(p));
        if (post->gradients[p] == NULL) {
            return complain(post, "memory in common");
        }
        memset(post->gradients[p], 0, soak_elements(pushes) * sizeof(float));
    }
    return true;
}

static void pause_a_while(struct post *post)
{
    uint64_t ms = lane_random(&post->random, 2 * PAUSE_MS);
    const struct timespec pause = { .tv_nsec = (long)ms * 1000000 };
    nanosleep(&pause, NULL);
}

/* What happens to a push. */
struct plan {
    bool closes, short_of_time;
    bool pulls;    /* weights in the same round trip, */
    bool in_place; /* all of them, where the daemon has them */
};

static struct plan make_plan(struct post *post)
{
    return (struct plan){
        .closes = lane_random(&post->random, CLOSE_ONE_IN) == 0,
        .pulls = lane_random(&post->random, PULL_ONE_IN) == 0,
        .in_place = lane_random(&post->random, 2) == 0,
        .short_of_time = lane_random(&post->random, SHORT_ONE_IN) == 0,
    };
}

/* Whether a push may end like that. That workers are served in time is seen to
 * elsewhere (strikes.c): here it is what they are told that matters. */
static bool is_expected(const struct plan *plan, enum optclient_status status)
{
    switch (status) {
    case OPTCLIENT_OK:
    case OPTCLIENT_ABORTED:           /* taken for dead, or applied in part */
    case OPTCLIENT_DEADLINE_EXCEEDED: /* it was short, or this process was stopped, */
    case OPTCLIENT_UNAVAILABLE:       /* while there was a connection, or none, */
    case OPTCLIENT_DATA_LOSS:         /* or the last copy had been damaged */
        return true;
    case OPTCLIENT_CANCELLED:
        return plan->closes;
    default:
        return false;
    }
}

static enum optclient_status push_by_plan(struct post *post, const struct plan *plan,
                                          struct optclient_result *result)
{
    struct optclient_values pushed[SOAK_PARTS], pulled[SOAK_PARTS];
    struct optclient_call *call;
    struct optclient_push_options options = { 0 };
    if (plan->short_of_time) {
        options.timeout_ms = 1 + (uint32_t)lane_random(&post->random, SHORT_MS);
    }
    for (unsigned p = 0; p < SOAK_PARTS; p++) {
        pushed[p] = (struct optclient_values){ .tensor = soak_tensor(p),
                                               .values = post->gradients[p] };
        pulled[p] = (struct optclient_values){ .tensor = soak_tensor(p),
                                               .values = post->weights[p] };
    }
    enum optclient_status status =
        plan->pulls
            ? optclient_push_pull_start(post->model, pushed, SOAK_PARTS, &options,
                                        plan->in_place ? NULL : pulled,
                                        plan->in_place ? 0 : SOAK_PARTS, NULL, NULL,
                                        NULL, &call)
            : optclient_push_start(post->model, pushed, SOAK_PARTS, &options, NULL,
                                   NULL, &call);
    if (status != OPTCLIENT_OK) {
        result->fate = OPTCLIENT_NOT_APPLIED; /* there is no call */
        return status;
    }
    if (plan->closes) {
        pause_a_while(post);
        optclient_model_close(post->model);
        post->model = NULL;
    }
    status = optclient_call_wait(call, result);
    optclient_call_free(call);
    return status;
}

static void mark(struct post *post, size_t push, bool set)
{
    for (unsigned p = 0; p < SOAK_PARTS; p++) {
        post->gradients[p][soak_element(push)] = set ? soak_digit(push) : 0.0f;
    }
}

/* Push once. False: it is over, or with an error that ought not to be. */
static bool push_once(struct post *post)
{
    struct optclient_result result = { 0 };
    struct plan plan = make_plan(post);
    unsigned push = history_begin(post->history, post->worker);
    unsigned pushes = history_pushes(post->history);
    size_t at = (size_t)post->worker * pushes + push;
    if (push == pushes) {
        return complain(post, "the history is full");
    }
    mark(post, at, true);
    enum optclient_status status = push_by_plan(post, &plan, &result);
    history_told(post->history, post->worker, push, &result);
    if (status == OPTCLIENT_ABORTED && post->model != NULL) {
        /* Pull the weights, as the manual says: those in place may have changed. */
        status = optclient_pull(post->model, NULL, 0, NULL, NULL);
    }
    if (is_replaced(status)) {
        return false;
    }
    if (!is_expected(&plan, status)) {
        return complain(post, "push");
    }
    if (!shares(post) || post->model != NULL) {
        mark(post, at, false);
    }
    return post->model != NULL || open_post(post);
}

static bool make_memory(struct post *post)
{
    size_t elements = soak_elements(history_pushes(post->history));
    for (unsigned p = 0; p < SOAK_PARTS; p++) {
        post->weights[p] = malloc(elements * sizeof(float));
        post->gradients[p] = shares(post) ? NULL : calloc(elements, sizeof(float));
        if (post->weights[p] == NULL || (post->gradients[p] == NULL && !shares(post))) {
            fprintf(stderr, "worker %u: no memory\n", post->worker);
            return false;
        }
    }
    return true;
}

static void *serve_post(void *context)
{
    struct post *post = context;
    bool good = make_memory(post) && open_post(post);
    while (good && !is_over()) {
        good = push_once(post);
        pause_a_while(post);
    }
    if (!good && !replaced) {
        failed = true;
    }
    optclient_model_close(post->model); /* the others' rounds go on without it */
    return NULL;
}

/* ---------------------------------------------------------------- the life */

int soak_worker(const char *address, unsigned number, uint64_t seed,
                struct history *const histories[SOAK_MODELS])
{
    static struct post posts[SOAK_MODELS];
    char name[16];
    pthread_t threads[SOAK_MODELS];
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    heed_signals();
    snprintf(name, sizeof name, "worker-%u", number);
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    options.backoff_min_ms = 10;
    options.backoff_max_ms = 500;
    options.checksum = ways[number].checksum;
    options.no_shared_memory = ways[number].no_shared_memory;
    if (optclient_connect(address, &options, &client) != OPTCLIENT_OK) {
        fprintf(stderr, "worker %u: connect: %s\n", number, optclient_error());
        return EXIT_FAILURE;
    }
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        posts[m] = (struct post){ .client = client,
                                  .history = histories[m],
                                  .worker = number,
                                  .number = m,
                                  .random = seed * SOAK_MODELS + m };
        if (pthread_create(&threads[m], NULL, serve_post, &posts[m]) != 0) {
            return EXIT_FAILURE;
        }
    }
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        pthread_join(threads[m], NULL);
    }
    optclient_close(client);
    return failed ? EXIT_FAILURE : replaced ? SOAK_REPLACED : EXIT_SUCCESS;
}
