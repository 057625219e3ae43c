/* Memory in common with a daemon whose answers come late, on another connection, or not
 * at all. What the daemon reads is what was pushed, what the caller reads is what was
 * lent, and what is not read any more is given back.
 */
#define _GNU_SOURCE /* memfd_create */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/fake_server.h"

enum {
    ELEMENTS = 40000,
    BYTES = ELEMENTS * (int)sizeof(float),
    FILES = 4, /* of each kind, one for each time that memory is asked for */
    SEEN = 64,
    WAIT_MS = 10000,
    CALL_MS = 4000 /* of calls that are never answered */
};

/* A file in memory, also mapped here. */
struct file {
    int descriptor;
    float *values;
};

/* What the daemon of a test does, and has seen. */
struct scene {
    struct fake_server *server;
    char directory[32], path[64];
    struct optclient *client;
    struct optclient_model *model;
    struct shapes shapes;
    struct optclient_values *values;
    struct file gradients[FILES], weights;
    atomic_uint shares;
    uint64_t late;           /* request for memory that has not been answered */
    uint64_t pull;           /* the same of a pull */
    uint64_t released[SEEN]; /* by requests so far */
    atomic_uint released_count;
    atomic_uint pushes;  /* that have come */
    _Atomic float first; /* value of the last one, */
    atomic_bool placed;  /* which was given by place */
};

/* ------------------------------------------------------------------------ the daemon
 */

static struct file file_new(size_t size)
{
    struct file file = { .descriptor = memfd_create("test", MFD_ALLOW_SEALING) };
    cr_assert_geq(file.descriptor, 0);
    cr_assert_eq(ftruncate(file.descriptor, (off_t)size), 0);
    file.values =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0);
    cr_assert_neq(file.values, MAP_FAILED);
    cr_assert_eq(fcntl(file.descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return file;
}

static void file_free(struct file *file, size_t size)
{
    munmap(file->values, size);
    close(file->descriptor);
}

/* The answer to a request for memory: the n-th file for gradients, and the one for
 * weights. */
static void give_files(struct fake_conn *conn, const struct scene *scene, uint64_t id,
                       unsigned n)
{
    const struct opt_reply reply = {
        .id = id,
        .message = OPT_MESSAGE_SHARE,
        .body.share = { .gradient_bytes = BYTES, .weight_bytes = 2 * (uint64_t)BYTES }
    };
    fake_reply_files(
        conn, &reply,
        (const int[]){ scene->gradients[n].descriptor, scene->weights.descriptor }, 2);
}

/* A frame of weights by place. */
static void lend(struct fake_conn *conn, uint64_t id, uint64_t offset, uint64_t count,
                 uint64_t place, bool last)
{
    const struct opt_segment segment = { .offset = offset, .count = count };
    fake_reply(conn,
               &(struct opt_reply){ .id = id,
                                    .message = OPT_MESSAGE_PULL,
                                    .body.pull = { .segments = &segment,
                                                   .segment_count = 1,
                                                   .places = &place,
                                                   .last = last } },
               NULL, 0);
}

/* What every daemon here does: note what is told. */
static void note(struct scene *scene, const struct opt_request *request,
                 const uint8_t *data)
{
    for (size_t i = 0; i < request->released_count && scene->released_count < SEEN;
         i++) {
        scene->released[scene->released_count++] = request->released[i];
    }
    if (request->message == OPT_MESSAGE_PUSH && request->body.push.frame == 0) {
        const uint64_t *places = request->body.push.places;
        const float *file = scene->gradients[scene->shares - 1].values;
        scene->pushes++;
        scene->placed = places != NULL;
        scene->first = places != NULL ? file[places[0] / sizeof(float)]
                                      : *(const float *)(const void *)data;
    }
}

static void scene_open(struct scene *scene, fake_hook hook, uint32_t timeout_ms)
{
    *scene = (struct scene){ .directory = "/tmp/optimd-files-XXXXXX" };
    cr_assert_not_null(mkdtemp(scene->directory));
    snprintf(scene->path, sizeof(scene->path), "%s/socket", scene->directory);
    for (size_t i = 0; i < FILES; i++) {
        scene->gradients[i] = file_new(BYTES);
    }
    scene->weights = file_new(2 * (size_t)BYTES);
    scene->server = fake_server_start(&(struct fake_options){
        .path = scene->path, .hook = hook, .context = scene, .heartbeat_ms = 50 });
    struct optclient_options options = test_options();
    options.timeout_ms = timeout_ms;
    scene->client = test_connect(fake_server_address(scene->server), &options);
    scene->shapes = shapes_new(1, ELEMENTS);
    scene->values = values_new(&scene->shapes);
    fill_pattern(scene->values, &scene->shapes);
    scene->model = test_create(scene->client, "m", &scene->shapes);
}

static void scene_close(struct scene *scene)
{
    optclient_close(scene->client);
    fake_server_stop(scene->server);
    values_free(scene->values, &scene->shapes);
    shapes_free(&scene->shapes);
    for (size_t i = 0; i < FILES; i++) {
        file_free(&scene->gradients[i], BYTES);
    }
    file_free(&scene->weights, 2 * (size_t)BYTES);
    unlink(scene->path);
    rmdir(scene->directory);
}

/* ------------------------------------------------------------------------- gradients
 */

static enum fake_action answer_at_once(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    struct scene *scene = context;
    (void)data_size;
    note(scene, request, data);
    if (request->message == OPT_MESSAGE_SHARE) {
        give_files(conn, scene, request->id, scene->shares++);
        return FAKE_DONE;
    }
    if (request->message == OPT_MESSAGE_PUSH) {
        fake_reply(
            conn,
            &(struct opt_reply){
                .id = request->id,
                .message = OPT_MESSAGE_PUSH,
                .body.push = { .fate = OPT_FATE_APPLIED, .step = 1, .reason = "" } },
            NULL, 0);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

static enum fake_action answer_late(struct fake_conn *conn,
                                    const struct opt_request *request,
                                    const uint8_t *data, size_t data_size,
                                    void *context)
{
    struct scene *scene = context;
    if (request->message == OPT_MESSAGE_SHARE && scene->shares == 0) {
        scene->late = request->id;
        scene->shares++;
        return FAKE_DONE;
    }
    if (request->message == OPT_MESSAGE_CREATE && scene->late != 0) {
        give_files(conn, scene, scene->late, 0); /* nobody waits for it any more */
        scene->late = 0;
    }
    return answer_at_once(conn, request, data, data_size, context);
}

Test(wrong_files, that_come_late_are_not_taken_for_those_of_another_model)
{
    struct scene scene;
    scene_open(&scene, answer_late, 300);
    struct optclient_model *other = test_create(scene.client, "other", &scene.shapes);
    cr_assert_eq(scene.shares, 2);
    expect_ok(optclient_push(other, scene.values, 1, NULL, NULL));
    cr_expect(scene.placed);
    cr_expect_eq(scene.first, scene.values[0].values[0]);
    scene_close(&scene);
}

Test(wrong_files, of_one_model_are_not_mixed_up_though_it_is_opened_twice)
{
    struct scene scene;
    scene_open(&scene, answer_at_once, WAIT_MS);
    struct optclient_model *again = test_create(scene.client, "m", &scene.shapes);
    expect_ok(optclient_push(scene.model, scene.values, 1, NULL, NULL));
    cr_expect(scene.placed);
    cr_expect_eq(scene.first, scene.values[0].values[0]);
    scene.values[0].values[0] = 1000;
    expect_ok(optclient_push(again, scene.values, 1, NULL, NULL));
    cr_expect_eq(scene.first, 1000);
    scene_close(&scene);
}

static enum fake_action share_once(struct fake_conn *conn,
                                   const struct opt_request *request,
                                   const uint8_t *data, size_t data_size, void *context)
{
    struct scene *scene = context;
    (void)data_size;
    note(scene, request, data);
    if (request->message == OPT_MESSAGE_SHARE) {
        if (fake_number(conn) == 1) {
            give_files(conn, scene, request->id, scene->shares++);
        } else {
            fake_reply_error(conn, request->id, OPT_RESOURCE_EXHAUSTED, "no", 0);
        }
        return FAKE_DONE;
    }
    if (request->message == OPT_MESSAGE_PUSH) {
        return fake_number(conn) == 1 ? FAKE_HANG_UP : FAKE_DONE;
    }
    return FAKE_SERVE;
}

static bool two_pushes_came(const void *context)
{
    const struct scene *scene = context;
    return scene->pushes == 2;
}

Test(wrong_files, of_a_lost_connection_are_not_given_to_the_caller)
{
    struct scene scene;
    scene_open(&scene, share_once, CALL_MS);
    const float *pushed = scene.gradients[0].values;
    struct optclient_call *call;
    expect_ok(
        optclient_push_start(scene.model, scene.values, 1, NULL, NULL, NULL, &call));
    cr_assert(fake_server_wait(scene.server, two_pushes_came, &scene));
    cr_expect_not(scene.placed);
    /* The first daemon may still have that push, and apply it. */
    cr_assert_eq(pushed[1], scene.values[0].values[1]);
    float *gradient = optclient_gradient(scene.model, 0);
    cr_assert_not_null(gradient, "%s", optclient_error());
    for (size_t i = 0; i < ELEMENTS; i++) {
        gradient[i] = 1000;
    }
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(pushed[i], scene.values[0].values[i], "%zu", i);
    }
    optclient_call_free(call);
    scene_close(&scene);
}

Test(wrong_files, of_a_lost_connection_are_not_what_the_caller_writes_to)
{
    struct scene scene;
    scene_open(&scene, share_once, CALL_MS);
    const float *pushed = scene.gradients[0].values;
    float *gradient = optclient_gradient(scene.model, 0);
    struct optclient_values values = { .values = gradient };
    struct optclient_call *call;
    memcpy(gradient, scene.values[0].values, BYTES);
    expect_ok(optclient_push_start(scene.model, &values, 1, NULL, NULL, NULL, &call));
    cr_assert(fake_server_wait(scene.server, two_pushes_came, &scene));
    cr_expect_eq(scene.first, scene.values[0].values[0]);
    cr_assert_eq(gradient[1], scene.values[0].values[1]);
    cr_assert_eq(optclient_gradient(scene.model, 0), gradient);
    gradient[0] = 1000;
    cr_expect_eq(pushed[0], scene.values[0].values[0]);
    optclient_call_free(call);
    scene_close(&scene);
}

/* --------------------------------------------------------------------------- weights
 */

static enum fake_action interrupt_pull(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    struct scene *scene = context;
    (void)data_size;
    note(scene, request, data);
    switch (request->message) {
    case OPT_MESSAGE_SHARE:
        give_files(conn, scene, request->id, scene->shares++);
        if (scene->pull != 0) {
            lend(conn, scene->pull, OPT_BLOCK, ELEMENTS - OPT_BLOCK, BYTES, true);
        }
        return FAKE_DONE;
    case OPT_MESSAGE_PULL:
        scene->pull = request->id;
        lend(conn, scene->pull, 0, OPT_BLOCK, 0, false);
        return FAKE_DONE;
    case OPT_MESSAGE_PUSH:
        return FAKE_DONE; /* its time runs out, and memory is asked for anew */
    default:
        return FAKE_SERVE;
    }
}

Test(wrong_files, that_are_given_anew_leave_a_pull_in_progress_its_weights)
{
    struct scene scene;
    scene_open(&scene, interrupt_pull, WAIT_MS);
    for (size_t i = 0; i < ELEMENTS; i++) {
        size_t place = i < OPT_BLOCK ? i : ELEMENTS + i - OPT_BLOCK;
        scene.weights.values[place] = scene.values[0].values[i];
    }
    struct optclient_call *call;
    expect_ok(optclient_pull_start(scene.model, NULL, 0, NULL, NULL, NULL, &call));
    struct optclient_push_options options = { .timeout_ms = 200 };
    expect_status(optclient_push(scene.model, scene.values, 1, &options, NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    expect_ok(optclient_call_wait(call, NULL));
    cr_expect_eq(scene.shares, 2);
    const float *weights = optclient_weights(scene.model, 0);
    cr_assert_not_null(weights);
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(weights[i], scene.values[0].values[i], "%zu", i);
    }
    optclient_call_free(call);
    scene_close(&scene);
}

static enum fake_action lend_all(struct fake_conn *conn,
                                 const struct opt_request *request, const uint8_t *data,
                                 size_t data_size, void *context)
{
    struct scene *scene = context;
    (void)data_size;
    note(scene, request, data);
    if (request->message == OPT_MESSAGE_SHARE) {
        give_files(conn, scene, request->id, scene->shares++);
        return FAKE_DONE;
    }
    if (request->message == OPT_MESSAGE_PULL) {
        if (fake_number(conn) == 1) {
            scene->pull = request->id;
            lend(conn, scene->pull, 0, ELEMENTS, 0, true);
        }
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

static bool pull_was_released(const void *context)
{
    const struct scene *scene = context;
    for (unsigned i = 0; i < scene->released_count; i++) {
        if (scene->released[i] == scene->pull) {
            return true;
        }
    }
    return false;
}

Test(wrong_files, are_given_back_when_the_model_is_closed)
{
    struct scene scene;
    scene_open(&scene, lend_all, WAIT_MS);
    expect_ok(optclient_pull(scene.model, NULL, 0, NULL, NULL));
    cr_assert_eq(optclient_weights(scene.model, 0)[0], 0);
    cr_assert_not(pull_was_released(&scene));
    optclient_model_close(scene.model);
    cr_expect(fake_server_wait(scene.server, pull_was_released, &scene));
    scene_close(&scene);
}

Test(wrong_files, of_a_lost_connection_fail_a_push_while_weights_are_pulled_again)
{
    struct scene scene;
    scene_open(&scene, lend_all, CALL_MS);
    expect_ok(optclient_pull(scene.model, NULL, 0, NULL, NULL));
    fake_server_cut(scene.server);
    cr_assert(fake_server_wait_connections(scene.server, 2));
    struct optclient_call *call;
    expect_ok(optclient_pull_start(scene.model, NULL, 0, NULL, NULL, NULL, &call));
    expect_status(optclient_push(scene.model, scene.values, 1, NULL, NULL),
                  OPTCLIENT_ABORTED);
    cr_expect_eq(scene.pushes, 0);
    optclient_call_free(call);
    scene_close(&scene);
}

static enum fake_action lend_half(struct fake_conn *conn,
                                  const struct opt_request *request,
                                  const uint8_t *data, size_t data_size, void *context)
{
    struct scene *scene = context;
    if (request->message != OPT_MESSAGE_PULL) {
        return lend_all(conn, request, data, data_size, context);
    }
    note(scene, request, data);
    scene->pull = request->id;
    lend(conn, scene->pull, 0, OPT_BLOCK, 0, false);
    fake_reply_error(conn, request->id, OPT_ABORTED, "no more", 0);
    return FAKE_DONE;
}

Test(wrong_files, are_given_back_after_an_answer_that_ends_in_an_error)
{
    struct scene scene;
    scene_open(&scene, lend_half, WAIT_MS);
    expect_status(optclient_pull(scene.model, scene.values, 1, NULL, NULL),
                  OPTCLIENT_ABORTED);
    cr_expect(fake_server_wait(scene.server, pull_was_released, &scene));
    expect_status(optclient_pull(scene.model, NULL, 0, NULL, NULL), OPTCLIENT_ABORTED);
    cr_expect_null(optclient_weights(scene.model, 0));
    cr_expect(fake_server_wait(scene.server, pull_was_released, &scene));
    scene_close(&scene);
}
