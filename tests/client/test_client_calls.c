/* What a client does when all goes well, against a server of the test's own. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/fake_server.h"

/* A server, a client and a model of it. */
struct scene {
    struct fake_server *server;
    struct optclient *client;
    struct optclient_model *model;
    struct shapes shapes;
    struct optclient_values *gradients;
    struct optclient_values *weights;
};

static struct scene scene_open(const struct fake_options *server,
                               const struct optclient_options *options, size_t count,
                               uint64_t large)
{
    static const struct fake_options plain;
    struct scene scene = { .server =
                               fake_server_start(server == NULL ? &plain : server) };
    scene.client = test_connect(fake_server_address(scene.server), options);
    scene.shapes = shapes_new(count, large);
    scene.model = test_create(scene.client, "m", &scene.shapes);
    scene.gradients = values_new(&scene.shapes);
    scene.weights = values_new(&scene.shapes);
    fill_pattern(scene.gradients, &scene.shapes);
    return scene;
}

static void scene_close(struct scene *scene)
{
    optclient_model_close(scene->model);
    optclient_close(scene->client);
    fake_server_stop(scene->server);
    values_free(scene->gradients, &scene->shapes);
    values_free(scene->weights, &scene->shapes);
    shapes_free(&scene->shapes);
}

static void push_and_pull(const struct optclient_options *options,
                          const struct fake_options *server, size_t count,
                          uint64_t large)
{
    struct scene scene = scene_open(server, options, count, large);
    struct optclient_result result;
    expect_ok(optclient_push(scene.model, scene.gradients, count, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 1);
    expect_ok(optclient_pull(scene.model, scene.weights, count, NULL, &result));
    cr_assert_eq(result.step, 1);
    expect_pattern(scene.weights, &scene.shapes, -1);
    expect_ok(optclient_push_pull(scene.model, scene.gradients, count, NULL,
                                  scene.weights, count, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 2);
    cr_assert_eq(result.staleness, 0);
    expect_pattern(scene.weights, &scene.shapes, -2);
    cr_assert_eq(fake_server_pushes(scene.server), 2);
    scene_close(&scene);
}

Test(client, pushes_and_pulls_many_small_tensors_and_a_large_one)
{
    push_and_pull(NULL, NULL, 100, 3000001);
}

Test(client, carries_bf16_both_ways)
{
    struct optclient_options options = test_options();
    options.push_dtype = OPTCLIENT_BF16;
    options.pull_dtype = OPTCLIENT_BF16;
    push_and_pull(&options, NULL, 20, 3000001);
}

Test(client, carries_fp16_one_way_and_fp32_the_other)
{
    struct optclient_options options = test_options();
    options.push_dtype = OPTCLIENT_FP16;
    push_and_pull(&options, NULL, 20, 300001);
    options.push_dtype = OPTCLIENT_FP32;
    options.pull_dtype = OPTCLIENT_FP16;
    push_and_pull(&options, NULL, 20, 300001);
}

Test(client, checks_sums_both_ways)
{
    struct optclient_options options = test_options();
    options.checksum = 1;
    push_and_pull(&options, NULL, 20, 2000001);
    options.push_dtype = OPTCLIENT_BF16;
    push_and_pull(&options, NULL, 20, 200001);
}

Test(client, obeys_the_daemons_chunk)
{
    push_and_pull(NULL, &(struct fake_options){ .chunk_bytes = 64 << 10 }, 5, 300001);
}

Test(client, pushes_and_pulls_some_tensors_in_any_order)
{
    struct scene scene = scene_open(NULL, NULL, 30, 100000);
    struct optclient_values some[] = { scene.gradients[29], scene.gradients[3],
                                       scene.gradients[17] };
    struct optclient_values back[] = { scene.weights[17], scene.weights[29],
                                       scene.weights[4] };
    struct optclient_result result;
    expect_ok(optclient_push_pull(scene.model, some, 3, NULL, back, 3, NULL, &result));
    cr_assert_eq(back[0].values[5], -pattern(17, 5));
    cr_assert_eq(back[1].values[99999], -pattern(29, 99999));
    cr_assert_eq(back[2].values[1], 0.0f, "tensor 4 was not pushed");
    cr_assert_eq(scene.weights[3].values[1], 0.0f, "tensor 3 was not pulled");
    scene_close(&scene);
}

Test(client, asks_for_all_tensors_where_a_list_would_be_too_long)
{
    struct scene scene = scene_open(NULL, NULL, 2, 1);
    struct shapes many = { 0 };
    many.count = 5000;
    many.sizes = calloc(many.count, sizeof(*many.sizes));
    many.tensors = calloc(many.count, sizeof(*many.tensors));
    char *names = calloc(many.count, 32);
    for (size_t i = 0; i < many.count; i++) {
        many.sizes[i] = 2;
        snprintf(names + 32 * i, 32, "t%zu", i);
        many.tensors[i] = (struct optclient_tensor){ .name = names + 32 * i,
                                                     .shape = &many.sizes[i],
                                                     .rank = 1 };
    }
    struct optclient_model *model = test_create(scene.client, "many", &many);
    struct optclient_values *gradients = values_new(&many);
    struct optclient_values *weights = values_new(&many);
    fill_pattern(gradients, &many);
    expect_ok(optclient_push(model, gradients, many.count, NULL, NULL));
    /* All but the first: more than one header can name. */
    expect_ok(optclient_pull(model, weights + 1, many.count - 1, NULL, NULL));
    cr_assert_eq(weights[0].values[0], 0.0f);
    weights[0].values[0] = -pattern(0, 0);
    weights[0].values[1] = -pattern(0, 1);
    expect_pattern(weights, &many, -1);
    optclient_model_close(model);
    values_free(gradients, &many);
    values_free(weights, &many);
    shapes_free(&many);
    scene_close(&scene);
}

Test(client, uploads_the_initial_weights_of_the_creator_only)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    struct optclient *first = test_connect(fake_server_address(server), NULL);
    struct optclient *second = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(10, 3000000);
    struct optclient_values *start = values_new(&shapes);
    struct optclient_values *weights = values_new(&shapes);
    fill_pattern(start, &shapes);
    const float *initial[10];
    for (size_t i = 0; i < 10; i++) {
        initial[i] = start[i].values;
    }
    struct optclient_model *model;
    struct optclient_model *same;
    expect_ok(optclient_create(first, "m", "sgd(lr=1)", NULL, shapes.tensors, 10,
                               initial, &model));
    start[9].values[0] = 1e9f;
    expect_ok(optclient_create(second, "m", "sgd(lr=1)", NULL, shapes.tensors, 10,
                               initial, &same));
    expect_ok(optclient_pull(same, weights, 10, NULL, NULL));
    expect_pattern(weights, &shapes, 1);
    cr_assert_str_eq(optclient_model_specification(same), "sgd(lr=1)");
    optclient_close(second); /* frees its models */
    optclient_model_close(model);
    optclient_close(first);
    fake_server_stop(server);
    values_free(start, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
}

Test(client, learns_the_tensors_of_a_model_that_it_opens)
{
    struct scene scene = scene_open(NULL, NULL, 12, 50);
    struct optclient *other = test_connect(fake_server_address(scene.server), NULL);
    struct optclient_model *opened;
    expect_ok(optclient_open(other, "m", 0, &opened));
    cr_assert_eq(optclient_model_tensors(opened), 12);
    const struct optclient_tensor *tensor = optclient_model_tensor(opened, 11);
    cr_assert_str_eq(tensor->name, "tensor.11");
    cr_assert_eq(tensor->rank, 1);
    cr_assert_eq(optclient_tensor_elements(tensor), 50);
    cr_assert_null(optclient_model_tensor(opened, 12));
    for (size_t i = 0; i < 12; i++) {
        cr_assert_eq(
            optclient_model_find(opened, optclient_model_tensor(opened, i)->name), i);
    }
    cr_assert_eq(optclient_model_find(opened, "tensor.12"), SIZE_MAX);
    expect_status(optclient_open(other, "none", 0, &opened), OPTCLIENT_NOT_FOUND);
    optclient_close(other);
    scene_close(&scene);
}

Test(client, asks_about_models_and_the_daemon)
{
    struct scene scene = scene_open(NULL, NULL, 4, 50);
    expect_ok(optclient_push(scene.model, scene.gradients, 4, NULL, NULL));
    struct optclient_description *description;
    expect_ok(optclient_describe(scene.client, "m", &description));
    cr_assert_str_eq(description->name, "m");
    cr_assert_str_eq(description->specification, "sgd(lr=1)");
    cr_assert_eq(description->step, 1);
    cr_assert_eq(description->tensor_count, 4);
    cr_assert_str_eq(description->tensors[3].name, "tensor.3");
    cr_assert_eq(description->tensors[3].shape[0], 50);
    optclient_description_free(description);
    expect_status(optclient_describe(scene.client, "none", &description),
                  OPTCLIENT_NOT_FOUND);
    expect_status(optclient_describe(scene.client, NULL, &description),
                  OPTCLIENT_INVALID_ARGUMENT);

    struct optclient_model_info *models;
    size_t count;
    expect_ok(optclient_list(scene.client, &models, &count));
    cr_assert_eq(count, 1);
    cr_assert_str_eq(models[0].name, "m");
    cr_assert_eq(models[0].tensors, 4);
    optclient_list_free(models);

    struct optclient_counter *counters;
    expect_ok(optclient_statistics(scene.client, &counters, &count));
    cr_assert_eq(count, 2);
    cr_assert_str_eq(counters[1].name, "pushes");
    cr_assert_eq(counters[1].value, 1);
    optclient_statistics_free(counters);

    expect_ok(optclient_delete(scene.client, "m"));
    expect_ok(optclient_list(scene.client, &models, &count));
    cr_assert_eq(count, 0);
    optclient_list_free(models);
    expect_status(optclient_push(scene.model, scene.gradients, 4, NULL, NULL),
                  OPTCLIENT_NOT_FOUND);
    scene_close(&scene);
}

Test(client, counts_what_it_does)
{
    struct scene scene = scene_open(NULL, NULL, 4, 50000);
    expect_ok(optclient_push(scene.model, scene.gradients, 4, NULL, NULL));
    expect_ok(optclient_push_pull(scene.model, scene.gradients, 4, NULL, scene.weights,
                                  4, NULL, NULL));
    struct optclient_usage usage;
    optclient_usage(scene.client, &usage);
    cr_assert_eq(usage.pushes, 2);
    cr_assert_eq(usage.pulls, 1);
    cr_assert_eq(usage.reconnects, 0);
    cr_assert_eq(usage.resends, 0);
    cr_assert(usage.bytes_sent > 400000 && usage.bytes_sent < 402000);
    cr_assert(usage.bytes_received > 200000 && usage.bytes_received < 202000);
    scene_close(&scene);
}

Test(client, keeps_its_lease_by_heartbeats_when_it_has_nothing_to_say)
{
    struct scene scene =
        scene_open(&(struct fake_options){ .heartbeat_ms = 20 }, NULL, 2, 3);
    /* Nobody ever makes step 1: the call's own deadline ends it. */
    expect_status(optclient_wait_step(scene.model, 1, 300, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_geq(fake_server_heartbeats(scene.server), 4);
    cr_assert_eq(fake_server_connections(scene.server), 1);
    scene_close(&scene);
}

/* --------------------------------------------------------------------- asynchronous */

struct note {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int calls;
    enum optclient_status status;
    struct optclient_result result;
    pthread_t thread;
    bool free_it;
};

static void on_done(struct optclient_call *call, void *context)
{
    struct note *note = context;
    pthread_mutex_lock(&note->lock);
    note->calls++;
    require(optclient_call_done(call));
    note->status = optclient_call_wait(call, &note->result);
    note->thread = pthread_self();
    if (note->free_it) {
        optclient_call_free(call);
    }
    pthread_cond_broadcast(&note->changed);
    pthread_mutex_unlock(&note->lock);
}

static void note_wait(struct note *note, int calls)
{
    pthread_mutex_lock(&note->lock);
    while (note->calls < calls) {
        pthread_cond_wait(&note->changed, &note->lock);
    }
    pthread_mutex_unlock(&note->lock);
}

Test(client, runs_many_calls_at_once_and_in_order)
{
    enum { CALLS = 200 };
    struct scene scene = scene_open(NULL, NULL, 3, 20000);
    struct optclient_call *calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        expect_ok(optclient_push_start(scene.model, scene.gradients, 3, NULL, NULL,
                                       NULL, &calls[i]));
    }
    for (int i = 0; i < CALLS; i++) {
        struct optclient_result result;
        expect_ok(optclient_call_wait(calls[i], &result));
        cr_assert(optclient_call_done(calls[i]));
        cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
        cr_assert_eq(result.step, (uint64_t)i + 1);
        optclient_call_free(calls[i]);
    }
    cr_assert_eq(fake_server_pushes(scene.server), CALLS);
    scene_close(&scene);
}

Test(client, calls_back_on_a_thread_of_its_own)
{
    struct scene scene = scene_open(NULL, NULL, 3, 200000);
    struct note note = { .lock = PTHREAD_MUTEX_INITIALIZER,
                         .changed = PTHREAD_COND_INITIALIZER };
    struct optclient_call *call;
    {
        /* The arrays are copied, so they may go. */
        struct optclient_values gradients[3], weights[3];
        memcpy(gradients, scene.gradients, sizeof(gradients));
        memcpy(weights, scene.weights, sizeof(weights));
        expect_ok(optclient_push_pull_start(scene.model, gradients, 3, NULL, weights, 3,
                                            NULL, on_done, &note, &call));
        memset(gradients, 0xFF, sizeof(gradients));
        memset(weights, 0xFF, sizeof(weights));
    }
    note_wait(&note, 1);
    cr_assert_eq(note.status, OPTCLIENT_OK);
    cr_assert_eq(note.result.step, 1);
    cr_assert_not(pthread_equal(note.thread, pthread_self()));
    expect_pattern(scene.weights, &scene.shapes, -1);
    optclient_call_free(call);
    note.free_it = true;
    expect_ok(optclient_pull_start(scene.model, scene.weights, 3, NULL, on_done, &note,
                                   &call));
    note_wait(&note, 2);
    scene_close(&scene);
}

static void on_done_start_another(struct optclient_call *call, void *context)
{
    struct scene *scene = context;
    struct optclient_result result;
    require(optclient_call_wait(call, &result) == OPTCLIENT_OK);
    /* Waiting here would be for ever: it is refused. */
    require(optclient_push(scene->model, scene->gradients, 2, NULL, NULL) ==
            OPTCLIENT_FAILED_PRECONDITION);
    optclient_call_free(call);
    if (result.step < 5) {
        struct optclient_call *next;
        require(optclient_push_start(scene->model, scene->gradients, 2, NULL,
                                     on_done_start_another, scene,
                                     &next) == OPTCLIENT_OK);
    }
}

/* Takes its time: until some heartbeats have been answered. */
static void on_done_dawdle(struct optclient_call *call, void *context)
{
    struct scene *scene = context;
    unsigned enough = fake_server_heartbeats(scene->server) + 3;
    uint64_t limit = test_now_ms() + 10000;
    (void)call;
    while (fake_server_heartbeats(scene->server) < enough) {
        require(test_now_ms() < limit);
        sched_yield();
    }
}

Test(client, keeps_its_lease_while_a_callback_takes_its_time)
{
    struct fake_options options = { .heartbeat_ms = 20, .lease_ms = 60 };
    struct scene scene = scene_open(&options, NULL, 2, 20);
    struct optclient_call *call;
    expect_ok(optclient_push_start(scene.model, scene.gradients, 2, NULL,
                                   on_done_dawdle, &scene, &call));
    optclient_call_free(call); /* waits for the callback */
    cr_assert_eq(fake_server_connections(scene.server), 1);
    scene_close(&scene);
}

Test(client, lets_callbacks_start_calls_but_not_wait)
{
    struct scene scene = scene_open(NULL, NULL, 2, 20);
    struct optclient_call *call;
    expect_ok(optclient_push_start(scene.model, scene.gradients, 2, NULL,
                                   on_done_start_another, &scene, &call));
    struct optclient_result result;
    expect_ok(optclient_pull(scene.model, scene.weights, 2,
                             &(struct optclient_pull_options){ 0 }, &result));
    while (result.step < 5) {
        expect_ok(optclient_pull(scene.model, scene.weights, 2, NULL, &result));
    }
    scene_close(&scene);
}

/* -------------------------------------------------------------------------- uploads */

enum { UPLOAD_CHUNK = 16 << 20 /* more than a connection can have under way */ };

/* Who uploads, and whether the last frame's answer is on its way. */
struct upload {
    struct optclient *client;
    atomic_uint early;
    atomic_bool answered;
};

/* Answer the first frame before it can have left the client whole, and go on when the
 * client has taken the answer in: the next frame has not been begun then. The answer
 * that it gets as soon as it has come whole is one too many, which does no harm. */
static void answer_early(struct fake_conn *conn, const struct opt_request *request,
                         void *context)
{
    struct upload *upload = context;
    if (request->message != OPT_MESSAGE_ASSIGN || request->body.assign.last) {
        return;
    }
    struct optclient_usage usage;
    optclient_usage(upload->client, &usage);
    uint64_t before = usage.bytes_received;
    uint64_t limit = test_now_ms() + 10000;
    const struct opt_reply reply = { .id = request->id, .message = OPT_MESSAGE_ASSIGN };
    fake_reply(conn, &reply, NULL, 0);
    while (usage.bytes_received == before) {
        require(test_now_ms() < limit);
        sched_yield();
        optclient_usage(upload->client, &usage);
    }
    upload->early++;
}

static enum fake_action note_the_last(struct fake_conn *conn,
                                      const struct opt_request *request,
                                      const uint8_t *data, size_t data_size,
                                      void *context)
{
    (void)conn, (void)data, (void)data_size;
    struct upload *upload = context;
    upload->answered |=
        request->message == OPT_MESSAGE_ASSIGN && request->body.assign.last;
    return FAKE_SERVE;
}

Test(client, has_uploaded_when_the_last_frame_is_answered_not_the_latest)
{
    struct upload upload = { 0 };
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .chunk_bytes = UPLOAD_CHUNK,
                                                  .begun = answer_early,
                                                  .hook = note_the_last,
                                                  .context = &upload });
    upload.client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(1, UPLOAD_CHUNK / sizeof(float) + OPT_BLOCK);
    struct optclient_values *values = values_new(&shapes);
    fill_pattern(values, &shapes);
    const float *initial[] = { values[0].values };
    struct optclient_model *model;
    expect_ok(optclient_create(upload.client, "m", "sgd(lr=1)", NULL, shapes.tensors, 1,
                               initial, &model));
    /* Its answer came after this was written, if it was waited for. */
    cr_assert(upload.answered);
    cr_assert_eq(upload.early, 1);
    struct optclient_values *pulled = values_new(&shapes);
    expect_ok(optclient_pull(model, pulled, 1, NULL, NULL));
    expect_pattern(pulled, &shapes, 1);
    optclient_close(upload.client);
    fake_server_stop(server);
    values_free(values, &shapes);
    values_free(pulled, &shapes);
    shapes_free(&shapes);
}

/* -------------------------------------------------------------------------- threads */

static void *push_many(void *argument)
{
    struct scene *scene = argument;
    struct optclient_values *weights = values_new(&scene->shapes);
    for (int i = 0; i < 50; i++) {
        require(optclient_push_pull(scene->model, scene->gradients, 3, NULL, weights, 3,
                                    NULL, NULL) == OPTCLIENT_OK);
    }
    values_free(weights, &scene->shapes);
    return NULL;
}

Test(client, serves_many_threads_at_once)
{
    enum { THREADS = 8 };
    struct scene scene = scene_open(NULL, NULL, 3, 30000);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, push_many, &scene);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(fake_server_pushes(scene.server), THREADS * 50);
    expect_ok(optclient_pull(scene.model, scene.weights, 3, NULL, NULL));
    expect_pattern(scene.weights, &scene.shapes, -THREADS * 50);
    scene_close(&scene);
}
