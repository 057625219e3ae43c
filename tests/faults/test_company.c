/* Workers that wait for each other, in processes of their own: at a barrier when one of
 * them is killed, in rounds that rest or do without the slowest, within a bound of
 * staleness. What each of them was told is judged with the weights: gradients are whole
 * numbers, summed by sgd with learning rate 1.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/daemon.h"
#include "tests/support/worker_processes.h"

enum { N = 5, WORKERS = 4, PUSHES = 150, TIMEOUT_MS = 20000 };

static const uint64_t shape[] = { N };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };
static const char *const daemon_options[] = { "--lease", "1s", "--grace", "300ms",
                                              NULL };

/* What the processes share. */
static struct shared {
    struct optclient_policy policy;
    char address[sizeof(((struct daemon_process *)NULL)->address)];
    _Atomic uint64_t begun[WORKERS], ended[WORKERS]; /* pushes of each */
    _Atomic unsigned too_far;                        /* pushes past the bound */
    _Atomic int64_t applied;                         /* sum of what was acknowledged */
    _Atomic unsigned number;                         /* of the next worker to start */
} * shared;

static struct daemon_process server;

static void start(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(shared != MAP_FAILED);
    daemon_start(&server, daemon_options);
    memcpy(shared->address, server.address, sizeof(shared->address));
}

static void stop(void)
{
    daemon_stop(&server);
    munmap(shared, sizeof(*shared));
}

struct one {
    struct optclient *client;
    struct optclient_model *model;
};

static bool one_start(struct one *one, const char *name)
{
    struct optclient_options options = optclient_options_default();
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    if (optclient_connect(shared->address, &options, &one->client) != OPTCLIENT_OK ||
        optclient_create(one->client, "model", "sgd(lr=1, aggregate=sum)",
                         &shared->policy, &tensor, 1, NULL,
                         &one->model) != OPTCLIENT_OK) {
        fprintf(stderr, "%s: %s\n", name, optclient_error());
        return false;
    }
    return true;
}

static void one_stop(struct one *one)
{
    optclient_model_close(one->model);
    optclient_close(one->client);
}

static bool one_push(struct one *one, float value, struct optclient_result *result)
{
    float gradient[N];
    struct optclient_values values = { .values = gradient };
    for (size_t i = 0; i < N; i++) {
        gradient[i] = value;
    }
    if (optclient_push(one->model, &values, 1, NULL, result) == OPTCLIENT_OK) {
        return true;
    }
    fprintf(stderr, "push: %s\n", optclient_error());
    return false;
}

static void expect_weights(struct one *one, float sum)
{
    float weights[N];
    struct optclient_values values = { .values = weights };
    cr_assert_eq(optclient_pull(one->model, &values, 1, NULL, NULL), OPTCLIENT_OK, "%s",
                 optclient_error());
    for (size_t i = 0; i < N; i++) {
        cr_expect(weights[i] == -sum, "%g, not %g", (double)weights[i], (double)-sum);
    }
}

/* ---------------------------------------------------------------- barriers */

/* Comes to one barrier with the others, and then to another one, where it stays. */
static void meets_and_waits(int events)
{
    struct one one;
    if (!one_start(&one, "b") ||
        optclient_barrier(one.model, 0, NULL) != OPTCLIENT_OK) {
        _exit(3);
    }
    tell(events, 1);
    optclient_barrier(one.model, 0, NULL);
    _exit(4);
}

/* Meets the others once and never comes again. */
static void meets_once(int events)
{
    struct one one;
    if (!one_start(&one, "c") ||
        optclient_barrier(one.model, 0, NULL) != OPTCLIENT_OK) {
        _exit(3);
    }
    tell(events, 1);
    pause();
    _exit(4);
}

/* a and two processes have met at a barrier; whatever the policy. */
static void meet(struct one *a, struct process *b, struct process *c)
{
    shared->policy.min_workers = 3;
    *b = spawn(meets_and_waits);
    *c = spawn(meets_once);
    cr_assert(one_start(a, "a"));
    cr_assert_eq(optclient_barrier(a->model, 0, NULL), OPTCLIENT_OK, "%s",
                 optclient_error());
    cr_assert_eq(await(b), 1);
    cr_assert_eq(await(c), 1);
}

Test(company, at_a_barrier_is_let_go_when_one_is_killed_and_learns_its_name,
     .init = start, .fini = stop, .timeout = 60)
{
    struct one a;
    struct process b, c;
    struct optclient_result result;
    char name[256];
    meet(&a, &b, &c);
    cr_expect_eq(optclient_lost(a.model, name, sizeof(name)), 0);
    /* b waits there when it is killed, c is on its way. */
    reap(&b, SIGKILL);
    reap(&c, SIGKILL);
    cr_assert_eq(optclient_barrier(a.model, 0, &result), OPTCLIENT_OK, "%s",
                 optclient_error());
    cr_expect_eq(result.lost, 2);
    bool found[2] = { false, false };
    while (optclient_lost(a.model, name, sizeof(name)) != 0) {
        found[0] = found[0] || strcmp(name, "b") == 0;
        found[1] = found[1] || strcmp(name, "c") == 0;
    }
    cr_expect(found[0] && found[1]);
    one_stop(&a);
}

Test(company, at_a_barrier_fails_with_one_that_is_killed_if_asked_to, .init = start,
     .fini = stop, .timeout = 60)
{
    struct one a;
    struct process b, c;
    shared->policy.loss = OPTCLIENT_FAIL;
    meet(&a, &b, &c);
    reap(&c, SIGKILL);
    cr_expect_eq(optclient_barrier(a.model, 0, NULL), OPTCLIENT_ABORTED);
    cr_expect(strstr(optclient_error(), "worker \"c\" was lost") != NULL, "%s",
              optclient_error());
    reap(&b, SIGKILL);
    one_stop(&a);
}

Test(company, at_a_barrier_ends_at_the_deadline_with_the_names_of_the_others,
     .init = start, .fini = stop, .timeout = 60)
{
    struct one a;
    struct process b, c;
    meet(&a, &b, &c);
    cr_expect_eq(optclient_barrier(a.model, 200, NULL), OPTCLIENT_DEADLINE_EXCEEDED);
    cr_expect(strstr(optclient_error(), "\"c\"") != NULL, "%s", optclient_error());
    reap(&b, SIGKILL);
    reap(&c, SIGKILL);
    one_stop(&a);
}

/* ---------------------------------------------------------------- staleness */

/* Pushes in its own rhythm and looks at the others' counts: by what they have begun,
 * nobody acknowledged may be further ahead than the bound. */
static void pushes_within_bound(int events)
{
    struct one one;
    unsigned number = atomic_fetch_add(&shared->number, 1);
    char name[16];
    snprintf(name, sizeof(name), "w%u", number);
    if (!one_start(&one, name)) {
        _exit(3);
    }
    unsigned seed = number + 1;
    for (uint64_t i = 1; i <= PUSHES; i++) {
        struct optclient_result result = { 0 };
        atomic_fetch_add(&shared->begun[number], 1);
        if (!one_push(&one, (float)(number + 1), &result) ||
            result.fate != OPTCLIENT_APPLIED) {
            _exit(4);
        }
        atomic_fetch_add(&shared->applied, (int64_t)number + 1);
        /* Our i-th is applied, so nobody had begun fewer than i - staleness. */
        for (unsigned k = 0; k < WORKERS; k++) {
            uint64_t begun = atomic_load(&shared->begun[k]);
            atomic_fetch_add(&shared->too_far, begun + shared->policy.staleness < i);
        }
        if (rand_r(&seed) % 4 == 0) { /* an uneven rhythm, of questions */
            struct optclient_description *description;
            if (optclient_describe(one.client, "model", &description) == OPTCLIENT_OK) {
                optclient_description_free(description);
            }
        }
    }
    /* The others need not wait for who has finished. */
    if (optclient_rest(one.model) != OPTCLIENT_OK ||
        optclient_barrier(one.model, 0, NULL) != OPTCLIENT_OK) {
        fprintf(stderr, "%s: %s\n", name, optclient_error());
        _exit(5);
    }
    one_stop(&one);
    tell(events, 1);
    _exit(0);
}

static void run_bounded(uint32_t staleness)
{
    struct process workers[WORKERS];
    struct one observer;
    shared->policy = (struct optclient_policy){ .mode = OPTCLIENT_BOUNDED,
                                                .staleness = staleness,
                                                .min_workers = WORKERS };
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = spawn(pushes_within_bound);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_eq(await(&workers[i]), 1);
        reap(&workers[i], 0);
    }
    cr_expect_eq(shared->too_far, 0, "%u pushes were past the bound",
                 (unsigned)shared->too_far);
    cr_expect_eq(shared->applied, PUSHES * WORKERS * (WORKERS + 1) / 2);
    cr_assert(one_start(&observer, "observer"));
    expect_weights(&observer, (float)shared->applied);
    one_stop(&observer);
}

Test(company, keeps_within_one_push_of_the_slowest, .init = start, .fini = stop,
     .timeout = 120)
{
    run_bounded(1);
}

Test(company, keeps_within_a_wider_bound_too, .init = start, .fini = stop,
     .timeout = 120)
{
    run_bounded(5);
}

/* ---------------------------------------------------------------- rounds */

/* Has its own number of batches, then rests until the epoch's end. */
static void epochs_of_uneven_length(int events)
{
    struct one one;
    unsigned number = atomic_fetch_add(&shared->number, 1);
    char name[16];
    snprintf(name, sizeof(name), "w%u", number);
    if (!one_start(&one, name)) {
        _exit(3);
    }
    for (int epoch = 0; epoch < 3; epoch++) {
        for (unsigned i = 0; i < 5 + 3 * number; i++) {
            struct optclient_result result = { 0 };
            if (!one_push(&one, 1, &result) || result.fate != OPTCLIENT_APPLIED) {
                _exit(4);
            }
            atomic_fetch_add(&shared->applied, 1);
        }
        if (optclient_rest(one.model) != OPTCLIENT_OK ||
            optclient_barrier(one.model, 0, NULL) != OPTCLIENT_OK) {
            fprintf(stderr, "%s: %s\n", name, optclient_error());
            _exit(5);
        }
    }
    one_stop(&one);
    tell(events, 1);
    _exit(0);
}

Test(company, with_fewer_batches_rests_until_the_epoch_ends, .init = start,
     .fini = stop, .timeout = 120)
{
    struct process workers[WORKERS];
    struct one observer;
    shared->policy.min_workers = WORKERS;
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = spawn(epochs_of_uneven_length);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_eq(await(&workers[i]), 1);
        reap(&workers[i], 0);
    }
    cr_expect_eq(shared->applied, 3 * (5 + 8 + 11 + 14));
    cr_assert(one_start(&observer, "observer"));
    expect_weights(&observer, (float)shared->applied);
    one_stop(&observer);
}

/* Pushes at the newest weights until the model has had enough rounds. */
static void races(int events)
{
    struct one one;
    unsigned number = atomic_fetch_add(&shared->number, 1);
    char name[16];
    snprintf(name, sizeof(name), "w%u", number);
    if (!one_start(&one, name)) {
        _exit(3);
    }
    float gradient[N] = { 1, 1, 1, 1, 1 }, weights[N];
    struct optclient_values push = { .values = gradient }, pull = { .values = weights };
    struct optclient_result result = { 0 };
    if (optclient_pull(one.model, &pull, 1, NULL, NULL) != OPTCLIENT_OK) {
        _exit(4);
    }
    for (bool finish = false; !finish;) {
        if (optclient_push_pull(one.model, &push, 1, NULL, &pull, 1, NULL, &result) !=
            OPTCLIENT_OK) {
            fprintf(stderr, "%s: %s\n", name, optclient_error());
            _exit(5);
        }
        shared->applied += result.fate == OPTCLIENT_APPLIED;
        atomic_fetch_add(&shared->ended[number], result.fate == OPTCLIENT_DROPPED);
        finish = result.step >= PUSHES;
    }
    one_stop(&one);
    tell(events, 1);
    _exit(0);
}

Test(company, does_without_the_slowest_and_counts_nothing_of_it, .init = start,
     .fini = stop, .timeout = 120)
{
    struct process workers[WORKERS];
    struct one observer;
    struct optclient_description *description;
    shared->policy = (struct optclient_policy){ .backup = 1, .min_workers = WORKERS };
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = spawn(races);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_eq(await(&workers[i]), 1);
        reap(&workers[i], 0);
    }
    uint64_t dropped = 0;
    for (size_t i = 0; i < WORKERS; i++) {
        dropped += shared->ended[i];
    }
    cr_assert(one_start(&observer, "observer"));
    expect_weights(&observer, (float)shared->applied);
    cr_assert_eq(optclient_describe(observer.client, "model", &description),
                 OPTCLIENT_OK);
    cr_expect_eq(description->dropped, dropped);
    cr_expect_gt(dropped, 0);
    optclient_description_free(description);
    one_stop(&observer);
}
