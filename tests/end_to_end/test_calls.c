/* Asynchronous calls and the real daemon: waits with a limit, cancelling, the
 * descriptor that tells of ends, a call's own sentence, and leaving a model whose
 * memory stays.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { TENSORS = 3, LARGE = 70000 };

/* A daemon, and a model of sgd(lr=1) that two workers have joined: a push waits until
 * the other one has pushed. */
struct scene {
    struct daemon_process daemon;
    struct optclient *clients[2];
    struct optclient_model *models[2];
    struct shapes shapes;
    struct optclient_values *gradients, *weights;
};

static void scene_open(struct scene *scene)
{
    daemon_start(&scene->daemon, NULL);
    scene->shapes = shapes_new(TENSORS, LARGE);
    scene->gradients = values_new(&scene->shapes);
    scene->weights = values_new(&scene->shapes);
    fill_pattern(scene->gradients, &scene->shapes);
    const struct optclient_policy policy = { .min_workers = 2 };
    for (int i = 0; i < 2; i++) {
        struct optclient_options options = test_options();
        options.worker = i == 0 ? "w0" : "w1";
        scene->clients[i] = test_connect(scene->daemon.address, &options);
        expect_ok(optclient_create(scene->clients[i], "m", "sgd(lr=1)", &policy,
                                   scene->shapes.tensors, TENSORS, NULL,
                                   &scene->models[i]));
    }
}

static void scene_close(struct scene *scene)
{
    for (int i = 0; i < 2; i++) {
        optclient_model_close(scene->models[i]);
        optclient_close(scene->clients[i]);
    }
    daemon_stop(&scene->daemon);
    values_free(scene->gradients, &scene->shapes);
    values_free(scene->weights, &scene->shapes);
    shapes_free(&scene->shapes);
}

static void expect_in(const char *text, const char *words)
{
    cr_assert(strstr(text, words) != NULL, "\"%s\" is not in: %s", words, text);
}

static struct optclient_call *push(struct scene *scene, int worker)
{
    struct optclient_call *call;
    expect_ok(optclient_push_start(scene->models[worker], scene->gradients, TENSORS,
                                   NULL, NULL, NULL, &call));
    return call;
}

/* A pull that waits for a step that does not come by itself. */
static struct optclient_call *pull(struct scene *scene, uint64_t step)
{
    struct optclient_call *call;
    expect_ok(optclient_pull_start(scene->models[0], scene->weights, TENSORS,
                                   &(struct optclient_pull_options){ .min_step = step },
                                   NULL, NULL, &call));
    return call;
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd watched = { .fd = fd, .events = POLLIN };
    return poll(&watched, 1, timeout_ms) == 1;
}

/* ----------------------------------------------------------------- waits with a limit
 */

Test(calls, are_waited_for_as_long_as_one_likes)
{
    struct scene scene;
    struct optclient_result result;
    scene_open(&scene);
    struct optclient_call *call = push(&scene, 0);
    cr_assert_eq(optclient_call_wait_for(call, 0), 0);
    uint64_t from = test_now_ms();
    cr_assert_eq(optclient_call_wait_for(call, 50), 0);
    uint64_t took = test_now_ms() - from;
    cr_assert(took >= 49 && took < 5000, "%zu ms instead of 50", (size_t)took);
    cr_assert_str_eq(optclient_call_error(call), "");
    struct optclient_call *other = push(&scene, 1);
    cr_assert_neq(optclient_call_wait_for(call, 10000), 0);
    cr_assert_neq(optclient_call_wait_for(call, 0), 0);
    expect_ok(optclient_call_wait(call, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_str_eq(optclient_call_error(call), "");
    optclient_call_free(call);
    optclient_call_free(other);
    scene_close(&scene);
}

static void *wait_for_end(void *argument)
{
    require(optclient_call_wait(argument, NULL) == OPTCLIENT_OK);
    return NULL;
}

/* Who waits with a limit goes, and who waits without goes on, whoever of them has
 * served the connection. */
Test(calls, are_waited_for_by_several_threads_with_limits_and_without)
{
    struct scene scene;
    scene_open(&scene);
    for (int round = 0; round < 20; round++) {
        struct optclient_call *call = push(&scene, 0);
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_end, call), 0);
        }
        (void)optclient_call_wait_for(call, (uint32_t)(round % 5));
        uint64_t from = test_now_ms();
        struct optclient_call *other = push(&scene, 1);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
        cr_assert_lt(test_now_ms() - from, 900, "nobody served the connection");
        optclient_call_free(call);
        optclient_call_free(other);
    }
    scene_close(&scene);
}

/* ------------------------------------------------------------------------- cancelling
 */

Test(calls, are_cancelled_while_they_wait)
{
    struct scene scene;
    struct optclient_result result;
    struct optclient_usage usage;
    scene_open(&scene);
    struct optclient_call *call = pull(&scene, 1);
    optclient_call_cancel(call);
    cr_assert_neq(optclient_call_done(call), 0);
    expect_status(optclient_call_wait(call, NULL), OPTCLIENT_CANCELLED);
    expect_in(optclient_error(), "pull: the program has cancelled it");
    expect_in(optclient_call_error(call), "pull: the program has cancelled it");
    optclient_call_cancel(call); /* nothing is left of it */
    optclient_call_free(call);
    /* Its memory is the caller's: the answer that comes later does not write there. */
    scene.weights[0].values[0] = 42;
    struct optclient_call *calls[] = { push(&scene, 0), push(&scene, 1) };
    for (int i = 0; i < 2; i++) {
        expect_ok(optclient_call_wait(calls[i], NULL));
        optclient_call_free(calls[i]);
    }
    struct optclient_values *others = values_new(&scene.shapes);
    expect_ok(optclient_pull(scene.models[0], others, TENSORS, NULL, &result));
    cr_assert_eq(result.step, 1);
    cr_assert_eq(scene.weights[0].values[0], 42.0f);
    optclient_usage(scene.clients[0], &usage);
    cr_assert_eq(usage.reconnects, 0);
    values_free(others, &scene.shapes);
    scene_close(&scene);
}

Test(calls, say_of_a_cancelled_push_that_its_fate_is_not_known)
{
    struct scene scene;
    struct optclient_result result;
    scene_open(&scene);
    struct optclient_call *call = push(&scene, 0);
    cr_assert_eq(optclient_call_wait_for(call, 20), 0); /* it is out */
    optclient_call_cancel(call);
    expect_status(optclient_call_wait(call, &result), OPTCLIENT_CANCELLED);
    cr_assert_eq(result.fate, OPTCLIENT_NOT_KNOWN);
    expect_in(optclient_call_error(call), "push: the program has cancelled it; ");
    optclient_call_free(call);
    /* The daemon has it, and it counts in the round. */
    call = push(&scene, 1);
    expect_ok(optclient_call_wait(call, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    optclient_call_free(call);
    expect_ok(optclient_pull(scene.models[0], scene.weights, TENSORS, NULL, NULL));
    expect_pattern(scene.weights, &scene.shapes, -1);
    scene_close(&scene);
}

static void *cancel_it(void *argument)
{
    optclient_call_cancel(argument);
    return NULL;
}

Test(calls, are_cancelled_by_one_thread_while_another_waits)
{
    struct scene scene;
    scene_open(&scene);
    for (int round = 0; round < 20; round++) {
        struct optclient_call *call = pull(&scene, 1);
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, cancel_it, call), 0);
        expect_status(optclient_call_wait(call, NULL), OPTCLIENT_CANCELLED);
        pthread_join(thread, NULL);
        optclient_call_free(call);
    }
    scene_close(&scene);
}

/* -------------------------------------------------------------------- the descriptor
 */

static void note_end(struct optclient_call *call, void *context)
{
    (void)call;
    require(write(*(int *)context, "x", 1) == 1);
}

Test(calls, are_told_of_by_a_descriptor_once_each)
{
    struct scene scene;
    scene_open(&scene);
    struct optclient *client = scene.clients[0];
    struct optclient_call *early = pull(&scene, 0);
    expect_ok(optclient_call_wait(early, NULL)); /* before anybody asked */
    int fd = optclient_ended_fd(client);
    cr_assert_geq(fd, 0);
    cr_assert_eq(optclient_ended_fd(client), fd);
    cr_assert(!is_readable(fd, 0));
    cr_assert_null(optclient_ended(client));
    struct optclient_call *waits = pull(&scene, 1), *comes = pull(&scene, 0);
    cr_assert(is_readable(fd, 10000));
    cr_assert_eq(optclient_ended(client), comes);
    cr_assert_null(optclient_ended(client));
    cr_assert(!is_readable(fd, 0));
    optclient_call_free(comes);

    /* One that ends is given, and one that is freed is not. */
    optclient_call_cancel(waits);
    cr_assert(is_readable(fd, 0));
    struct optclient_call *freed = pull(&scene, 0);
    expect_ok(optclient_call_wait(freed, NULL));
    optclient_call_free(freed);
    cr_assert_eq(optclient_ended(client), waits);
    cr_assert_null(optclient_ended(client));
    optclient_call_free(waits);

    /* Who has a callback is told by that. */
    int ends[2];
    char byte;
    cr_assert_eq(pipe(ends), 0);
    struct optclient_call *called;
    expect_ok(optclient_pull_start(scene.models[0], scene.weights, TENSORS, NULL,
                                   note_end, &ends[1], &called));
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    cr_assert(!is_readable(fd, 0));
    optclient_call_free(called);
    optclient_call_free(early);

    /* Closing ends what is in progress; it can be freed afterwards. */
    struct optclient_call *left = pull(&scene, 1);
    optclient_model_close(scene.models[0]);
    cr_assert(is_readable(fd, 0));
    optclient_close(client);
    expect_status(optclient_call_wait(left, NULL), OPTCLIENT_CANCELLED);
    optclient_call_free(left);
    scene.clients[0] = NULL;
    scene.models[0] = NULL;
    scene_close(&scene);
}

Test(calls, of_a_parent_mean_nothing_to_its_child)
{
    struct scene scene;
    scene_open(&scene);
    struct optclient_call *call = pull(&scene, 1);
    cr_assert_geq(optclient_ended_fd(scene.clients[0]), 0);
    pid_t child = fork();
    if (child == 0) {
        optclient_call_cancel(call);
        optclient_model_leave(scene.models[0]);
        int good = optclient_ended_fd(scene.clients[0]) == -1 &&
                   strstr(optclient_error(), "forked") != NULL &&
                   optclient_ended(scene.clients[0]) == NULL &&
                   optclient_call_wait_for(call, 10000) != 0 &&
                   optclient_call_error(call)[0] == '\0';
        _exit(good ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(optclient_call_done(call), 0);
    optclient_call_cancel(call);
    optclient_call_free(call);
    scene_close(&scene);
}

/* ---------------------------------------------------------------------------- leaving
 */

Test(calls, end_when_a_model_is_left_and_its_memory_stays)
{
    struct scene scene;
    struct optclient_result result;
    scene_open(&scene);
    float *gradient = optclient_gradient(scene.models[0], 2);
    cr_assert_not_null(gradient);
    gradient[LARGE - 1] = 7;
    expect_ok(optclient_pull(scene.models[0], NULL, 0, NULL, NULL));
    const float *weights = optclient_weights(scene.models[0], 2);
    struct optclient_call *waits = pull(&scene, 1);
    optclient_model_leave(scene.models[0]);
    expect_status(optclient_call_wait(waits, NULL), OPTCLIENT_CANCELLED);
    optclient_call_free(waits);
    expect_status(optclient_push(scene.models[0], scene.gradients, TENSORS, NULL, NULL),
                  OPTCLIENT_FAILED_PRECONDITION);
    expect_in(optclient_error(), "this program has left model \"m\"");
    cr_assert_eq(optclient_detail(), OPTCLIENT_LEFT);
    optclient_model_leave(scene.models[0]);

    /* What it had stays as it was, whatever the others do: here a third worker comes,
     * so that there are two again. */
    struct optclient_model *again;
    const struct optclient_policy policy = { .min_workers = 2 };
    expect_ok(optclient_create(scene.clients[0], "m", "sgd(lr=1)", &policy,
                               scene.shapes.tensors, TENSORS, NULL, &again));
    struct optclient_call *call = push(&scene, 1);
    expect_ok(optclient_push(again, scene.gradients, TENSORS, NULL, &result));
    expect_ok(optclient_call_wait(call, NULL));
    optclient_call_free(call);
    cr_assert_eq(result.step, 1);
    cr_assert_eq(gradient[LARGE - 1], 7.0f);
    for (size_t i = 0; i < LARGE; i++) {
        cr_assert_eq(weights[i], 0.0f);
    }
    optclient_model_close(again);
    optclient_model_leave(NULL);
    scene_close(&scene);
}

static void *wait_for_step(void *argument)
{
    enum optclient_status status = optclient_wait_step(argument, 9, 0, NULL);
    require(status == OPTCLIENT_CANCELLED);
    return NULL;
}

Test(calls, all_end_when_a_client_leaves_and_no_other_begins)
{
    struct scene scene;
    struct optclient_description *description;
    struct optclient_usage usage;
    scene_open(&scene);
    struct optclient *client = scene.clients[0];
    struct optclient_call *waits = pull(&scene, 1);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_step, scene.models[0]),
                     0);
    }
    optclient_leave(client);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    expect_status(optclient_call_wait(waits, NULL), OPTCLIENT_CANCELLED);
    optclient_call_free(waits);
    expect_status(optclient_describe(client, "m", &description), OPTCLIENT_CANCELLED);
    expect_status(optclient_push(scene.models[0], scene.gradients, TENSORS, NULL, NULL),
                  OPTCLIENT_CANCELLED);
    expect_in(optclient_error(), "the client is being closed");
    optclient_usage(client, &usage);
    cr_assert_eq(usage.reconnects, 0);
    optclient_leave(client);
    optclient_leave(NULL);
    scene_close(&scene);
}
