/* A client whose connection breaks: nothing is lost, nothing is applied twice, nobody
 * waits past a deadline.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/fake_server.h"

/* No call may outlive its deadline by more than that; slow machines included. */
enum { LATE_MS = 800 };

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

/* A port of this machine at which nobody listens. */
static uint16_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* ---------------------------------------------------------------- cut at each frame */

enum { PUSHES = 3 };

/* All that a worker does. Returns how many of its pushes were found to be applied by an
 * earlier connection. */
static unsigned train(const char *address)
{
    struct optclient *client = test_connect(address, NULL);
    struct shapes shapes = shapes_new(3, 100000);
    struct optclient_values *start = values_new(&shapes);
    struct optclient_values *weights = values_new(&shapes);
    fill_pattern(start, &shapes);
    const float *initial[] = { start[0].values, start[1].values, start[2].values };
    struct optclient_model *model;
    expect_ok(optclient_create(client, "m", "sgd(lr=1)", NULL, shapes.tensors, 3,
                               initial, &model));
    unsigned duplicates = 0;
    for (unsigned i = 0; i < PUSHES; i++) {
        struct optclient_result result;
        if (i % 2 == 0) {
            expect_ok(optclient_push(model, start, 3, NULL, &result));
        } else {
            expect_ok(
                optclient_push_pull(model, start, 3, NULL, weights, 3, NULL, &result));
            expect_pattern(weights, &shapes, -(float)i);
        }
        duplicates += result.fate == OPTCLIENT_DUPLICATE;
        cr_assert(result.fate == OPTCLIENT_DUPLICATE ||
                  result.fate == OPTCLIENT_APPLIED);
        cr_assert_eq(result.step, i + 1);
    }
    expect_ok(optclient_pull(model, weights, 3, NULL, NULL));
    expect_pattern(weights, &shapes, 1 - PUSHES);
    optclient_model_close(model);
    optclient_close(client);
    values_free(start, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
    return duplicates;
}

Test(reconnect, applies_each_push_once_wherever_the_connection_is_cut)
{
    unsigned duplicates = 0;
    unsigned frames = UINT32_MAX;
    for (unsigned cut_at = 0; cut_at < frames; cut_at++) {
        struct fake_server *server = fake_server_start(
            &(struct fake_options){ .chunk_bytes = 64 << 10, .cut_at = cut_at });
        duplicates += train(fake_server_address(server));
        cr_assert_eq(fake_server_pushes(server), PUSHES, "cut at frame %u", cut_at);
        if (cut_at == 0) {
            frames = fake_server_frames(server);
            cr_assert_gt(frames, 40);
        }
        fake_server_stop(server);
    }
    cr_assert_gt(duplicates, PUSHES, "the cuts between update and answer were missed");
}

static enum fake_action cut_often(struct fake_conn *conn,
                                  const struct opt_request *request,
                                  const uint8_t *data, size_t data_size, void *context)
{
    unsigned *count = context;
    (void)data, (void)data_size;
    if (request->message == OPT_MESSAGE_HELLO || request->message == OPT_MESSAGE_OPEN) {
        return FAKE_SERVE;
    }
    if (++*count % 7 == 0) {
        return FAKE_HANG_UP;
    }
    if (*count % 7 == 3) {
        /* Take effect, but never say so. */
        fake_serve(conn, request, data, data_size);
        return FAKE_HANG_UP;
    }
    return FAKE_SERVE;
}

Test(reconnect, keeps_many_pushes_in_flight_in_order_through_many_cuts)
{
    enum { CALLS = 60 };
    unsigned count = 0;
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = cut_often, .context = &count });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *gradients = values_new(&shapes);
    fill_pattern(gradients, &shapes);
    struct optclient_call *calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        expect_ok(
            optclient_push_start(model, gradients, 2, NULL, NULL, NULL, &calls[i]));
    }
    for (int i = 0; i < CALLS; i++) {
        struct optclient_result result;
        expect_ok(optclient_call_wait(calls[i], &result));
        cr_assert(result.fate == OPTCLIENT_APPLIED ||
                  result.fate == OPTCLIENT_DUPLICATE);
        optclient_call_free(calls[i]);
    }
    cr_assert_eq(fake_server_pushes(server), CALLS);
    struct optclient_usage usage;
    optclient_usage(client, &usage);
    cr_assert_gt(usage.reconnects, 5);
    cr_assert_gt(usage.resends, 5);
    cr_assert_eq(usage.pushes, CALLS);
    optclient_close(client);
    fake_server_stop(server);
    values_free(gradients, &shapes);
    shapes_free(&shapes);
}

/* ---------------------------------------------------------------- nobody, or silent */

Test(reconnect, gives_up_at_the_deadline_when_nobody_listens)
{
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)free_port());
    struct optclient_options options = test_options();
    options.connect_timeout_ms = 300;
    struct optclient *client = NULL;
    uint64_t start = test_now_ms();
    expect_status(optclient_connect(address, &options, &client),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    uint64_t took = test_now_ms() - start;
    cr_assert(took >= 300 && took < 300 + LATE_MS, "%lu ms", (unsigned long)took);
    expect_words(address);
    expect_words("refused");
    cr_assert_null(client);
}

Test(reconnect, gives_up_at_the_deadline_when_nobody_answers)
{
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .silent = true });
    struct optclient_options options = test_options();
    options.connect_timeout_ms = 300;
    struct optclient *client = NULL;
    uint64_t start = test_now_ms();
    expect_status(optclient_connect(fake_server_address(server), &options, &client),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_lt(test_now_ms() - start, 300 + LATE_MS);
    fake_server_stop(server);
}

Test(reconnect, says_that_a_name_cannot_be_looked_up)
{
    struct optclient_options options = test_options();
    options.connect_timeout_ms = 2000;
    struct optclient *client = NULL;
    expect_status(optclient_connect("no-such-host.invalid:7070", &options, &client),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    expect_words("no-such-host.invalid");
}

static void *start_late(void *argument)
{
    uint16_t *port = argument;
    return fake_server_start(&(struct fake_options){ .port = *port });
}

Test(reconnect, waits_for_a_daemon_that_starts_later)
{
    uint16_t port = free_port();
    char address[32];
    snprintf(address, sizeof(address), "localhost:%u", (unsigned)port);
    pthread_t thread;
    pthread_create(&thread, NULL, start_late, &port);
    struct optclient *client = test_connect(address, NULL);
    void *server;
    pthread_join(thread, &server);
    optclient_close(client);
    fake_server_stop(server);
}

static enum fake_action hang_up_thrice(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    (void)request, (void)data, (void)data_size, (void)context;
    return fake_number(conn) <= 3 ? FAKE_HANG_UP : FAKE_SERVE;
}

Test(reconnect, tries_again_until_it_is_let_in)
{
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .hook = hang_up_thrice });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    cr_assert_eq(fake_server_connections(server), 4);
    optclient_close(client);
    fake_server_stop(server);
}

/* The first connection falls silent once the model is there. */
static enum fake_action first_falls_silent(struct fake_conn *conn,
                                           const struct opt_request *request,
                                           const uint8_t *data, size_t data_size,
                                           void *context)
{
    (void)data, (void)data_size, (void)context;
    bool opening =
        request->message == OPT_MESSAGE_HELLO || request->message == OPT_MESSAGE_CREATE;
    return fake_number(conn) == 1 && !opening ? FAKE_DONE : FAKE_SERVE;
}

Test(reconnect, leaves_a_connection_that_has_fallen_silent)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){
        .hook = first_falls_silent, .heartbeat_ms = 20, .lease_ms = 80 });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_result result;
    expect_ok(optclient_push(model, gradients, 2, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(fake_server_connections(server), 2);
    optclient_close(client);
    fake_server_stop(server);
    values_free(gradients, &shapes);
    shapes_free(&shapes);
}

/* ------------------------------------------------------------ what became of pushes */

/* The first connection breaks at a push. The daemon of the next one does not remember
 * the worker. */
static enum fake_action forgets_the_worker(struct fake_conn *conn,
                                           const struct opt_request *request,
                                           const uint8_t *data, size_t data_size,
                                           void *context)
{
    (void)data, (void)data_size, (void)context;
    if (request->message == OPT_MESSAGE_HELLO && fake_number(conn) == 2) {
        require(request->body.hello.incarnation == 1);
        fake_reply(conn,
                   &(struct opt_reply){ .id = request->id,
                                        .message = OPT_MESSAGE_HELLO,
                                        .body.hello = { .protocol = OPT_PROTOCOL,
                                                        .incarnation = 2,
                                                        .lease_ms = 5000,
                                                        .heartbeat_ms = 1000 } },
                   NULL, 0);
        return FAKE_DONE;
    }
    if (request->message == OPT_MESSAGE_PUSH) {
        require(request->body.push.incarnation == fake_number(conn));
        return fake_number(conn) == 1 ? FAKE_HANG_UP : FAKE_SERVE;
    }
    return FAKE_SERVE;
}

Test(reconnect, says_that_a_push_is_stale_and_goes_on)
{
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .hook = forgets_the_worker });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    expect_status(optclient_push(model, values, 2, NULL, NULL), OPTCLIENT_ABORTED);
    expect_words("stale incarnation 1: the daemon does not remember this worker");
    expect_words("whether the push was applied is not known");
    struct optclient_result result;
    expect_ok(optclient_push(model, values, 2, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(fake_server_connections(server), 2);
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

/* The first connection breaks at the third of three pushes without an answer to any of
 * them. The daemon has skipped the first, refused the second, and not seen the third.
 */
static enum fake_action says_what_became_of_three(struct fake_conn *conn,
                                                  const struct opt_request *request,
                                                  const uint8_t *data, size_t data_size,
                                                  void *context)
{
    static const struct opt_settled settled[] = {
        { .sequence = 1, .fate = OPT_FATE_SKIPPED, .step = 0 },
        { .sequence = 2, .fate = OPT_FATE_REFUSED, .status = OPT_DEADLINE_EXCEEDED },
    };
    (void)data, (void)data_size, (void)context;
    if (request->message == OPT_MESSAGE_PUSH && fake_number(conn) == 1) {
        return request->body.push.sequence < 3 ? FAKE_DONE : FAKE_HANG_UP;
    }
    if (request->message == OPT_MESSAGE_PUSH) {
        require(request->body.push.sequence == 3);
    }
    if (request->message == OPT_MESSAGE_OPEN) {
        require(request->body.open.unanswered_count == 3);
        struct opt_reply reply = { .id = request->id,
                                   .message = OPT_MESSAGE_MODEL,
                                   .body.model = { .ready = true,
                                                   .last_sequence = 2,
                                                   .tensors = 2,
                                                   .specification = "sgd(lr=1)",
                                                   .identity = 1, /* the first made */
                                                   .settled = settled,
                                                   .settled_count = 2 } };
        fake_reply(conn, &reply, NULL, 0);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

Test(reconnect, believes_what_the_daemon_says_of_unanswered_pushes)
{
    static const enum optclient_status statuses[] = { OPTCLIENT_OK,
                                                      OPTCLIENT_DEADLINE_EXCEEDED,
                                                      OPTCLIENT_OK };
    static const enum optclient_fate fates[] = { OPTCLIENT_SKIPPED,
                                                 OPTCLIENT_NOT_APPLIED,
                                                 OPTCLIENT_APPLIED };
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .hook = says_what_became_of_three });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    struct optclient_call *calls[3];
    for (int i = 0; i < 3; i++) {
        expect_ok(optclient_push_start(model, values, 2, NULL, NULL, NULL, &calls[i]));
    }
    for (int i = 0; i < 3; i++) {
        struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
        expect_status(optclient_call_wait(calls[i], &result), statuses[i]);
        cr_assert_eq(result.fate, fates[i]);
        optclient_call_free(calls[i]);
    }
    cr_assert_eq(fake_server_pushes(server), 1);
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

static enum fake_action never_answer_pushes(struct fake_conn *conn,
                                            const struct opt_request *request,
                                            const uint8_t *data, size_t data_size,
                                            void *context)
{
    (void)conn, (void)data, (void)data_size, (void)context;
    return request->message == OPT_MESSAGE_PUSH ? FAKE_DONE : FAKE_SERVE;
}

Test(reconnect, ends_an_unanswered_call_at_its_deadline_and_goes_on)
{
    struct fake_server *server =
        fake_server_start(&(struct fake_options){ .hook = never_answer_pushes });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    uint64_t start = test_now_ms();
    expect_status(optclient_push(model, values, 2,
                                 &(struct optclient_push_options){ .timeout_ms = 200 },
                                 NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    uint64_t took = test_now_ms() - start;
    cr_assert(took >= 200 && took < 200 + LATE_MS, "%lu ms", (unsigned long)took);
    expect_words("whether the push was applied is not known");
    expect_ok(optclient_pull(model, values, 2, NULL, NULL));
    cr_assert_eq(fake_server_connections(server), 1);
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

/* ------------------------------------------------------------ a daemon that is gone */

Test(reconnect, fails_calls_by_their_deadline_when_the_daemon_is_gone)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    char address[32];
    strcpy(address, fake_server_address(server));
    struct optclient *client = test_connect(address, NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    fake_server_stop(server);
    uint64_t start = test_now_ms();
    expect_status(optclient_push(model, values, 2,
                                 &(struct optclient_push_options){ .timeout_ms = 300 },
                                 NULL),
                  OPTCLIENT_UNAVAILABLE);
    cr_assert_lt(test_now_ms() - start, 300 + LATE_MS);
    expect_words(address);
    expect_words("push was");
    expect_status(optclient_wait_step(model, 1, 100, NULL), OPTCLIENT_UNAVAILABLE);
    /* Closing does not wait for anybody. */
    start = test_now_ms();
    optclient_model_close(model);
    optclient_close(client);
    cr_assert_lt(test_now_ms() - start, LATE_MS);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(reconnect, says_that_a_daemon_started_anew_has_lost_the_model)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    fake_server_forget(server);
    fake_server_cut(server);
    cr_assert(fake_server_wait_connections(server, 2));
    expect_status(optclient_push(model, values, 2, NULL, NULL), OPTCLIENT_NOT_FOUND);
    expect_words("model \"m\" is gone");
    optclient_model_close(model);
    /* Making it again is all it takes. */
    model = test_create(client, "m", &shapes);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(reconnect, does_not_take_another_model_of_the_same_name_for_its_own)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct optclient *other = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    /* The same definition, and as many updates as this client has seen. */
    expect_ok(optclient_delete(other, "m"));
    struct optclient_model *another = test_create(other, "m", &shapes);
    expect_ok(optclient_push(another, values, 2, NULL, NULL));
    fake_server_cut(server);
    cr_assert(fake_server_wait_connections(server, 4));
    expect_status(optclient_push(model, values, 2, NULL, NULL), OPTCLIENT_NOT_FOUND);
    expect_words("another one has its name");
    optclient_close(client);
    optclient_close(other);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}
