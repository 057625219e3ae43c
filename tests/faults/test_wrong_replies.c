/* A daemon that answers wrongly, refuses, or asks for patience. The client trusts
 * nothing: each wrong answer is an error with a sentence, never a wrong weight.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/fake_server.h"

enum { ELEMENTS = 40000, BYTES = ELEMENTS * (int)sizeof(float) };

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

/* A client with one model of one tensor, on a server with that hook. */
struct scene {
    struct fake_server *server;
    struct optclient *client;
    struct optclient_model *model;
    struct shapes shapes;
    struct optclient_values *values;
};

static struct scene scene_open(fake_hook hook, void *context,
                               const struct optclient_options *options)
{
    struct scene scene = {
        .server = fake_server_start(&(struct fake_options){
            .hook = hook, .context = context, .heartbeat_ms = 50 })
    };
    scene.client = test_connect(fake_server_address(scene.server), options);
    scene.shapes = shapes_new(1, ELEMENTS);
    scene.model = test_create(scene.client, "m", &scene.shapes);
    scene.values = values_new(&scene.shapes);
    return scene;
}

static void scene_close(struct scene *scene)
{
    optclient_close(scene->client);
    fake_server_stop(scene->server);
    values_free(scene->values, &scene->shapes);
    shapes_free(&scene->shapes);
}

static enum optclient_status push(struct scene *scene)
{
    return optclient_push(scene->model, scene->values, 1, NULL, NULL);
}

static enum optclient_status pull_since(struct scene *scene, uint64_t since)
{
    const struct optclient_pull_options options = { .since = since };
    return optclient_pull(scene->model, scene->values, 1, &options, NULL);
}

static enum optclient_status pull(struct scene *scene)
{
    return pull_since(scene, 0);
}

/* -------------------------------------------------------------------- wrong weights */

/* What is wrong with the answer to a pull. */
struct wrong {
    const char *name;
    struct opt_segment segment; /* of the one frame */
    size_t size;                /* of its data */
    enum opt_dtype dtype;
    bool not_last;            /* never ends, but says so in a second frame */
    enum opt_message message; /* 0: pull */
    bool no_sum;
    uint64_t since;               /* that the pull says it has */
    struct opt_segment unchanged; /* left out, if it has a count */
    enum optclient_status status;
    const char *words;
};

static const struct wrong wrongs[] = {
    { .name = "another tensor",
      .segment = { .tensor = 1, .offset = 0, .count = ELEMENTS },
      .size = BYTES,
      .status = OPTCLIENT_INTERNAL,
      .words = "tensor 1" },
    { .name = "past the end",
      .segment = { .tensor = 0, .offset = OPT_BLOCK, .count = ELEMENTS },
      .size = BYTES,
      .status = OPTCLIENT_INTERNAL,
      .words = "which has 40000" },
    { .name = "inside a block",
      .segment = { .tensor = 0, .offset = 0, .count = 100 },
      .size = 400,
      .status = OPTCLIENT_INTERNAL,
      .words = "inside a block" },
    { .name = "another dtype",
      .segment = { .tensor = 0, .offset = 0, .count = ELEMENTS },
      .size = BYTES / 2,
      .dtype = OPT_BF16,
      .status = OPTCLIENT_INTERNAL,
      .words = "bf16 instead of fp32" },
    { .name = "not all of it",
      .segment = { .tensor = 0, .offset = 0, .count = OPT_BLOCK },
      .size = OPT_BLOCK * sizeof(float),
      .status = OPTCLIENT_DATA_LOSS,
      .words = "before all weights had come" },
    { .name = "twice",
      .segment = { .tensor = 0, .offset = 0, .count = ELEMENTS },
      .size = BYTES,
      .not_last = true,
      .status = OPTCLIENT_INTERNAL,
      .words = "twice" },
    { .name = "an answer to a wait",
      .message = OPT_MESSAGE_WAIT,
      .status = OPTCLIENT_INTERNAL,
      .words = "answered with wait" },
    { .name = "no sum",
      .segment = { .tensor = 0, .offset = 0, .count = ELEMENTS },
      .size = BYTES,
      .no_sum = true,
      .status = OPTCLIENT_DATA_LOSS,
      .words = "left out the checksum" },
    { .name = "unchanged since nothing",
      .segment = { .tensor = 0, .offset = 0, .count = OPT_BLOCK },
      .size = OPT_BLOCK * sizeof(float),
      .unchanged = { .offset = OPT_BLOCK, .count = ELEMENTS - OPT_BLOCK },
      .status = OPTCLIENT_INTERNAL,
      .words = "not told that they are here" },
    { .name = "both unchanged and not",
      .segment = { .tensor = 0, .offset = 0, .count = ELEMENTS },
      .size = BYTES,
      .since = 1,
      .unchanged = { .offset = OPT_BLOCK, .count = OPT_BLOCK },
      .status = OPTCLIENT_INTERNAL,
      .words = "twice" },
    { .name = "another tensor unchanged",
      .segment = { .tensor = 0, .offset = 0, .count = ELEMENTS },
      .size = BYTES,
      .since = 1,
      .unchanged = { .tensor = 1, .count = 1 },
      .status = OPTCLIENT_INTERNAL,
      .words = "tensor 1" },
    { .name = "some of it neither",
      .segment = { .tensor = 0, .offset = 0, .count = OPT_BLOCK },
      .size = OPT_BLOCK * sizeof(float),
      .since = 1,
      .unchanged = { .offset = 2 * OPT_BLOCK, .count = ELEMENTS - 2 * OPT_BLOCK },
      .status = OPTCLIENT_DATA_LOSS,
      .words = "before all weights had come" },
};

static enum fake_action answer_wrongly(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    (void)data, (void)data_size;
    const struct wrong *wrong = context;
    if (request->message != OPT_MESSAGE_PULL) {
        return FAKE_SERVE;
    }
    uint8_t *values = calloc(1, wrong->size + 1);
    struct opt_reply reply = {
        .id = request->id,
        .message =
            wrong->message == OPT_MESSAGE_NONE ? OPT_MESSAGE_PULL : wrong->message,
        .has_checksum = request->has_checksum && !wrong->no_sum,
        .checksum = XXH3_64bits(values, wrong->size),
    };
    if (reply.message == OPT_MESSAGE_PULL) {
        reply.body.pull =
            (struct opt_pull_reply){ .dtype = wrong->dtype,
                                     .segments = &wrong->segment,
                                     .segment_count = 1,
                                     .last = !wrong->not_last,
                                     .unchanged = &wrong->unchanged,
                                     .unchanged_count = wrong->unchanged.count > 0 };
    }
    fake_reply(conn, &reply, values, wrong->size);
    if (wrong->not_last) {
        fake_reply(conn, &reply, values, wrong->size);
    }
    free(values);
    return FAKE_DONE;
}

Test(wrong_replies, are_told_from_weights)
{
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        struct wrong wrong = wrongs[i];
        struct optclient_options options = test_options();
        options.checksum = wrong.no_sum;
        struct scene scene = scene_open(answer_wrongly, &wrong, &options);
        enum optclient_status status = pull_since(&scene, wrong.since);
        cr_assert_eq(status, wrong.status, "%s: %s: %s", wrong.name,
                     optclient_status_name(status), optclient_error());
        expect_words(wrong.words);
        /* The connection is none the worse for it. */
        expect_ok(push(&scene));
        cr_assert_eq(fake_server_connections(scene.server), 1, "%s", wrong.name);
        scene_close(&scene);
    }
}

/* The first answer to a pull does not have its own checksum. */
static enum fake_action damage_the_first(struct fake_conn *conn,
                                         const struct opt_request *request,
                                         const uint8_t *data, size_t data_size,
                                         void *context)
{
    static const float values[ELEMENTS];
    static const struct opt_segment all = { .count = ELEMENTS };
    (void)data, (void)data_size, (void)context;
    if (request->message != OPT_MESSAGE_PULL || fake_number(conn) > 1) {
        return FAKE_SERVE;
    }
    const struct opt_reply reply = {
        .id = request->id,
        .message = OPT_MESSAGE_PULL,
        .has_checksum = true,
        .checksum = XXH3_64bits(values, sizeof(values)) + 1,
        .body.pull = { .segments = &all, .segment_count = 1, .last = true },
    };
    fake_reply(conn, &reply, values, sizeof(values));
    return FAKE_DONE;
}

Test(wrong_replies, that_were_damaged_are_asked_for_again)
{
    struct optclient_options options = test_options();
    options.checksum = 1;
    struct scene scene = scene_open(damage_the_first, NULL, &options);
    scene.values[0].values[0] = 5.0f;
    expect_ok(push(&scene));
    expect_ok(pull(&scene));
    cr_assert_eq(scene.values[0].values[0], -5.0f);
    cr_assert_eq(fake_server_connections(scene.server), 2);
    scene_close(&scene);
}

/* The first push is said to have come damaged. */
static enum fake_action refuse_the_first(struct fake_conn *conn,
                                         const struct opt_request *request,
                                         const uint8_t *data, size_t data_size,
                                         void *context)
{
    unsigned *count = context;
    (void)data, (void)data_size;
    if (request->message == OPT_MESSAGE_PUSH && (*count)++ == 0) {
        fake_reply_error(conn, request->id, OPT_DATA_LOSS, "the XXH3-64 is not", 0);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

Test(wrong_replies, that_tell_of_damage_make_the_client_send_again)
{
    unsigned count = 0;
    struct scene scene = scene_open(refuse_the_first, &count, NULL);
    struct optclient_result result;
    expect_ok(optclient_push(scene.model, scene.values, 1, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(count, 2);
    cr_assert_eq(fake_server_connections(scene.server), 1);
    scene_close(&scene);
}

/* -------------------------------------------------------------------- wrong streams */

/* Bytes that no daemon sends, instead of the first answer to a push. */
struct garbage {
    const uint8_t *bytes;
    size_t size;
};

static enum fake_action send_garbage(struct fake_conn *conn,
                                     const struct opt_request *request,
                                     const uint8_t *data, size_t data_size,
                                     void *context)
{
    (void)data, (void)data_size;
    const struct garbage *garbage = context;
    if (request->message == OPT_MESSAGE_PUSH && fake_number(conn) == 1) {
        fake_send(conn, garbage->bytes, garbage->size);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

Test(wrong_replies, that_break_the_stream_cost_a_connection_and_nothing_else)
{
    static const uint8_t too_long[] = { 0xFF, 0xFF, 0xFF, 0xFF, 0x08, 0x01 };
    static const uint8_t empty[] = { 0, 0, 0, 0 };
    static const uint8_t noise[] = { 8, 0, 0, 0, 0xFF, 0xFE, 0xFD, 1, 2, 3, 4, 5 };
    /* id 999: an answer to a request that nobody made; body heartbeat (field 22). */
    static const uint8_t stranger[] = {
        6, 0, 0, 0, 0x08, 0xE7, 0x07, 0xB2, 0x01, 0x00
    };
    /* id absent, body leave (field 21). */
    static const uint8_t nameless[] = { 3, 0, 0, 0, 0xAA, 0x01, 0x00 };
    const struct garbage garbages[] = { { too_long, sizeof(too_long) },
                                        { empty, sizeof(empty) },
                                        { noise, sizeof(noise) },
                                        { stranger, sizeof(stranger) },
                                        { nameless, sizeof(nameless) } };
    for (size_t i = 0; i < sizeof(garbages) / sizeof(garbages[0]); i++) {
        struct garbage garbage = garbages[i];
        struct scene scene = scene_open(send_garbage, &garbage, NULL);
        expect_ok(push(&scene));
        cr_assert_eq(fake_server_pushes(scene.server), 1);
        cr_assert_eq(fake_server_connections(scene.server), 2, "garbage %zu", i);
        scene_close(&scene);
    }
}

/* The only answer that needs no question: the daemon reads nothing for now, but lives.
 */
static enum fake_action say_alive(struct fake_conn *conn,
                                  const struct opt_request *request,
                                  const uint8_t *data, size_t data_size, void *context)
{
    static const uint8_t alive[] = { 3, 0, 0, 0, 0xB2, 0x01, 0x00 };
    (void)data, (void)data_size, (void)context;
    if (request->message == OPT_MESSAGE_PUSH) {
        fake_send(conn, alive, sizeof(alive));
    }
    return FAKE_SERVE;
}

Test(wrong_replies, are_not_those_that_say_that_the_daemon_lives)
{
    struct scene scene = scene_open(say_alive, NULL, NULL);
    expect_ok(push(&scene));
    cr_assert_eq(fake_server_connections(scene.server), 1);
    scene_close(&scene);
}

static enum fake_action answer_twice(struct fake_conn *conn,
                                     const struct opt_request *request,
                                     const uint8_t *data, size_t data_size,
                                     void *context)
{
    (void)context;
    fake_serve(conn, request, data, data_size);
    if (request->message == OPT_MESSAGE_WAIT || request->message == OPT_MESSAGE_PULL ||
        request->message == OPT_MESSAGE_LIST) {
        fake_serve(conn, request, data, data_size);
    }
    return FAKE_DONE;
}

Test(wrong_replies, that_come_twice_are_taken_once)
{
    struct scene scene = scene_open(answer_twice, NULL, NULL);
    for (int i = 0; i < 20; i++) {
        expect_ok(optclient_wait_step(scene.model, (uint64_t)i, 0, NULL));
        expect_ok(pull(&scene));
        expect_ok(push(&scene));
    }
    cr_assert_eq(fake_server_pushes(scene.server), 20);
    cr_assert_eq(fake_server_connections(scene.server), 1);
    scene_close(&scene);
}

/* ------------------------------------------------------------------------- refusals */

/* What a push is answered instead, and how often. */
struct refusal {
    enum opt_message message; /* that is refused */
    enum opt_status status;
    uint32_t retry_after_ms;
    unsigned times;
    bool heartbeats_too;
};

static enum fake_action refuse(struct fake_conn *conn,
                               const struct opt_request *request, const uint8_t *data,
                               size_t data_size, void *context)
{
    (void)data, (void)data_size;
    struct refusal *refusal = context;
    bool heartbeat = request->message == OPT_MESSAGE_HEARTBEAT;
    if (refusal->times > 0 && request->message == refusal->message) {
        refusal->times--;
        fake_reply_error(conn, request->id, refusal->status, "the test says so",
                         refusal->retry_after_ms);
        return FAKE_DONE;
    }
    if (heartbeat && refusal->heartbeats_too && refusal->times == 0) {
        fake_reply_error(conn, request->id, refusal->status, "the test says so", 0);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

Test(refusals, that_ask_for_patience_get_it)
{
    static const struct refusal refusals[] = {
        { OPT_MESSAGE_PUSH, OPT_UNAVAILABLE, 0, 2, false },
        { OPT_MESSAGE_PUSH, OPT_UNAVAILABLE, 20, 2, false },
        { OPT_MESSAGE_PUSH, OPT_RESOURCE_EXHAUSTED, 20, 3, false },
        /* The daemon's limit is shorter than the call's deadline. */
        { OPT_MESSAGE_PUSH, OPT_DEADLINE_EXCEEDED, 0, 3, false },
    };
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct refusal refusal = refusals[i];
        struct scene scene = scene_open(refuse, &refusal, NULL);
        expect_ok(push(&scene));
        cr_assert_eq(refusal.times, 0);
        cr_assert_eq(fake_server_pushes(scene.server), 1);
        scene_close(&scene);
    }
}

Test(refusals, are_final_otherwise)
{
    static const struct refusal refusals[] = {
        { OPT_MESSAGE_PUSH, OPT_INVALID_ARGUMENT, 0, 1, false },
        { OPT_MESSAGE_PUSH, OPT_RESOURCE_EXHAUSTED, 0, 1, false },
        { OPT_MESSAGE_PUSH, OPT_ABORTED, 0, 1, false },
        { OPT_MESSAGE_PUSH, OPT_FAILED_PRECONDITION, 0, 1, false },
    };
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct refusal refusal = refusals[i];
        struct scene scene = scene_open(refuse, &refusal, NULL);
        expect_status(push(&scene), (enum optclient_status)refusals[i].status);
        cr_assert_str_eq(optclient_error(), "the test says so");
        cr_assert_eq(fake_server_pushes(scene.server), 0);
        expect_ok(push(&scene));
        scene_close(&scene);
    }
}

Test(refusals, of_patience_end_at_the_deadline_with_the_daemons_sentence)
{
    struct refusal refusal = { OPT_MESSAGE_PUSH, OPT_RESOURCE_EXHAUSTED, 40, 1000000,
                               false };
    struct scene scene = scene_open(refuse, &refusal, NULL);
    uint64_t start = test_now_ms();
    expect_status(optclient_push(scene.model, scene.values, 1,
                                 &(struct optclient_push_options){ .timeout_ms = 200 },
                                 NULL),
                  OPTCLIENT_RESOURCE_EXHAUSTED);
    cr_assert_lt(test_now_ms() - start, 1000);
    cr_assert_str_eq(optclient_error(), "the test says so");
    scene_close(&scene);
}

Test(refusals, of_a_taken_over_identity_end_the_client_for_good)
{
    struct refusal refusal = { OPT_MESSAGE_PUSH, OPT_FAILED_PRECONDITION, 0, 1, true };
    struct scene scene = scene_open(refuse, &refusal, NULL);
    expect_status(push(&scene), OPTCLIENT_FAILED_PRECONDITION);
    /* The heartbeat that follows says that it is not only this push. */
    enum optclient_status status;
    do {
        status = pull(&scene);
    } while (status == OPTCLIENT_OK);
    cr_assert_eq(status, OPTCLIENT_FAILED_PRECONDITION);
    expect_words("the test says so");
    expect_status(push(&scene), OPTCLIENT_FAILED_PRECONDITION);
    cr_assert_eq(fake_server_connections(scene.server), 1, "it did not fight back");
    scene_close(&scene);
}

static enum fake_action refuse_hello(struct fake_conn *conn,
                                     const struct opt_request *request,
                                     const uint8_t *data, size_t data_size,
                                     void *context)
{
    struct refusal *refusal = context;
    if (request->message == OPT_MESSAGE_HELLO && refusal->status == OPT_OK) {
        struct opt_reply reply = { .id = request->id, .message = OPT_MESSAGE_HELLO };
        reply.body.hello =
            (struct opt_hello_reply){ .protocol = 2, .server = "tomorrow" };
        fake_reply(conn, &reply, NULL, 0);
        return FAKE_DONE;
    }
    return refuse(conn, request, data, data_size, context);
}

Test(refusals, of_hello_are_told_at_once_if_waiting_cannot_help)
{
    static const enum opt_status statuses[] = { OPT_UNIMPLEMENTED, OPT_INVALID_ARGUMENT,
                                                OPT_PERMISSION_DENIED, OPT_OK };
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct refusal refusal = { OPT_MESSAGE_HELLO, statuses[i], 0, 1000, false };
        struct fake_server *server = fake_server_start(
            &(struct fake_options){ .hook = refuse_hello, .context = &refusal });
        struct optclient_options options = test_options();
        struct optclient *client;
        uint64_t start = test_now_ms();
        expect_status(optclient_connect(fake_server_address(server), &options, &client),
                      statuses[i] == OPT_OK ? OPTCLIENT_UNIMPLEMENTED
                                            : (enum optclient_status)statuses[i]);
        cr_assert_lt(test_now_ms() - start, 2000);
        expect_words(fake_server_address(server));
        fake_server_stop(server);
    }
}

Test(refusals, of_hello_for_lack_of_room_are_waited_for)
{
    struct refusal refusal = { OPT_MESSAGE_HELLO, OPT_RESOURCE_EXHAUSTED, 10, 3,
                               false };
    struct scene scene = scene_open(refuse, &refusal, NULL);
    cr_assert_eq(fake_server_connections(scene.server), 4);
    scene_close(&scene);
}

Test(refusals, because_another_creator_vanished_are_overcome)
{
    struct refusal refusal = { OPT_MESSAGE_CREATE, OPT_ABORTED, 0, 3, false };
    struct scene scene = scene_open(refuse, &refusal, NULL);
    cr_assert_eq(refusal.times, 0);
    expect_ok(push(&scene));
    scene_close(&scene);
}

static enum fake_action check_observer(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    (void)conn, (void)data, (void)data_size;
    const char **worker = context;
    if (request->message == OPT_MESSAGE_HELLO) {
        require(strcmp(request->body.hello.worker, *worker) == 0);
        require(request->body.hello.session != 0);
    }
    return FAKE_SERVE;
}

Test(refusals, of_names_come_before_any_connection)
{
    struct optclient_options options = test_options();
    struct optclient *client;
    char long_name[300];
    memset(long_name, 'n', sizeof(long_name));
    long_name[256] = '\0';
    const char *bad[] = { long_name, "tab\there", "\xFF\xFE" };
    for (size_t i = 0; i < 3; i++) {
        options.worker = bad[i];
        expect_status(optclient_connect("127.0.0.1:1", &options, &client),
                      OPTCLIENT_INVALID_ARGUMENT);
        expect_words("worker name");
    }
    options = test_options();
    options.push_dtype = (enum optclient_dtype)7;
    expect_status(optclient_connect("127.0.0.1:1", &options, &client),
                  OPTCLIENT_INVALID_ARGUMENT);
    options = test_options();
    expect_status(optclient_connect("127.0.0.1", &options, &client),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_status(optclient_connect(NULL, &options, &client),
                  OPTCLIENT_INVALID_ARGUMENT);

    const char *worker = "";
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = check_observer, .context = &worker });
    options.worker = worker;
    optclient_close(test_connect(fake_server_address(server), &options));
    worker = "w\xC3\xB6rker";
    options.worker = worker;
    optclient_close(test_connect(fake_server_address(server), &options));
    fake_server_stop(server);
}

Test(refusals, of_senseless_arguments_name_them)
{
    struct scene scene = scene_open(NULL, NULL, NULL);
    struct optclient_values *values = scene.values;
    struct optclient_model *model;
    const struct optclient_tensor *tensors = scene.shapes.tensors;
    expect_status(optclient_push(scene.model, values, 0, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("gradients");
    expect_status(optclient_pull(scene.model, NULL, 1, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("weights");
    struct optclient_values wrong = { .tensor = 1, .values = values[0].values };
    expect_status(optclient_push(scene.model, &wrong, 1, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("tensor 1");
    struct optclient_values nowhere = { .tensor = 0 };
    expect_status(optclient_pull(scene.model, &nowhere, 1, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("tensor.0");
    expect_status(
        optclient_pull(
            scene.model, values, 1,
            &(struct optclient_pull_options){ .view = (enum optclient_view)9 }, NULL),
        OPTCLIENT_INVALID_ARGUMENT);
    expect_words("view 9");
    expect_status(
        optclient_create(scene.client, NULL, "sgd", NULL, tensors, 1, NULL, &model),
        OPTCLIENT_INVALID_ARGUMENT);
    expect_status(
        optclient_create(scene.client, "x", "", NULL, tensors, 1, NULL, &model),
        OPTCLIENT_INVALID_ARGUMENT);
    expect_words("specification");
    expect_status(
        optclient_create(scene.client, "x", "sgd", NULL, tensors, 0, NULL, &model),
        OPTCLIENT_INVALID_ARGUMENT);
    const float *const missing[] = { NULL };
    expect_status(
        optclient_create(scene.client, "x", "sgd", NULL, tensors, 1, missing, &model),
        OPTCLIENT_INVALID_ARGUMENT);
    expect_words("tensor.0");
    const uint64_t huge[] = { UINT64_C(1) << 33, UINT64_C(1) << 33 };
    const uint64_t zero[] = { 3, 0 };
    const struct optclient_tensor bad[] = {
        { .name = "huge", .shape = huge, .rank = 2 },
        { .name = "zero", .shape = zero, .rank = 2 },
        { .name = "deep", .shape = huge, .rank = 9 },
        { .name = "shapeless", .shape = NULL, .rank = 1 },
        { .name = NULL, .shape = huge, .rank = 1 }
    };
    for (size_t i = 0; i < 5; i++) {
        expect_status(
            optclient_create(scene.client, "x", "sgd", NULL, &bad[i], 1, NULL, &model),
            OPTCLIENT_INVALID_ARGUMENT);
        expect_words(bad[i].name == NULL                     ? "name"
                     : strcmp(bad[i].name, "shapeless") == 0 ? "shape"
                                                             : bad[i].name);
    }
    scene_close(&scene);
}
