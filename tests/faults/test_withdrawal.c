/* Calls that end before their answer: memory is the caller's again at once, and the
 * connection goes on.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/frame.h"
#include "tests/support/client_models.h"
#include "tests/support/fake_server.h"

static void expect_words(const char *words)
{
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

/* ------------------------------------------------------------------------ deadlines */

/* The server stops reading at a message, until told to go on. */
struct stall {
    enum opt_message message;
    sem_t reached; /* the server is inside the hook */
    sem_t go;      /* it may go on */
    bool stalled;
};

static enum fake_action stall_once(struct fake_conn *conn,
                                   const struct opt_request *request,
                                   const uint8_t *data, size_t data_size, void *context)
{
    (void)conn, (void)data, (void)data_size;
    struct stall *stall = context;
    if (request->message == stall->message && !stall->stalled) {
        stall->stalled = true;
        sem_post(&stall->reached);
        sem_wait(&stall->go);
    }
    return FAKE_SERVE;
}

enum { LARGE = 10 << 20 }; /* elements: more than the sockets hold */

/* Push, and cancel that when the sockets are full. */
static void push_and_cancel(struct optclient_model *model,
                            const struct optclient_values *values)
{
    struct optclient_call *call;
    expect_ok(optclient_push_start(model, values, 2, NULL, NULL, NULL, &call));
    cr_assert_eq(optclient_call_wait_for(call, 100), 0);
    optclient_call_cancel(call);
    expect_status(optclient_call_wait(call, NULL), OPTCLIENT_CANCELLED);
    optclient_call_free(call);
}

/* A push that nobody reads ends at its deadline, or is cancelled, and its memory is
 * freed; then the server goes on, and another push follows. */
static void push_into_a_stall(uint32_t chunk_bytes, bool cancel, const char *words,
                              unsigned pushes, unsigned connections)
{
    struct stall stall = { .message = OPT_MESSAGE_LIST };
    sem_init(&stall.reached, 0, 0);
    sem_init(&stall.go, 0, 0);
    struct fake_server *server = fake_server_start(&(struct fake_options){
        .hook = stall_once, .context = &stall, .chunk_bytes = chunk_bytes });
    struct optclient_options options = test_options();
    options.timeout_ms = 500;
    struct optclient *client = test_connect(fake_server_address(server), &options);
    struct shapes shapes = shapes_new(2, LARGE);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    struct optclient_model_info *models;
    size_t count;
    expect_status(optclient_list(client, &models, &count), OPTCLIENT_DEADLINE_EXCEEDED);
    sem_wait(&stall.reached);
    if (cancel) {
        push_and_cancel(model, values);
    } else {
        expect_status(optclient_push(model, values, 2, NULL, NULL),
                      OPTCLIENT_DEADLINE_EXCEEDED);
    }
    expect_words(words);
    /* AddressSanitizer would see the client read these. */
    values_free(values, &shapes);
    values = values_new(&shapes);
    sem_post(&stall.go);
    expect_ok(optclient_push(model, values, 2,
                             &(struct optclient_push_options){ .timeout_ms = 20000 },
                             NULL));
    cr_assert_eq(fake_server_pushes(server), pushes);
    cr_assert_eq(fake_server_connections(server), connections);
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(withdrawal, finishes_the_frame_but_not_from_the_callers_memory)
{
    /* All in one frame, so that the daemon has it in the end. */
    push_into_a_stall(60 << 20, false, "whether the push was applied is not known", 2,
                      1);
    push_into_a_stall(60 << 20, true, "whether the push was applied is not known", 2,
                      1);
}

Test(withdrawal, leaves_the_connection_when_a_push_ends_between_frames)
{
    push_into_a_stall(1 << 20, false, "the push was not applied", 1, 2);
    push_into_a_stall(1 << 20, true, "the push was not applied", 1, 2);
}

/* The first pull is answered with half a frame, and the rest of it comes before the
 * next answer. */
struct half {
    uint8_t *rest;
    size_t size;
    bool sent;
};

enum { HALF_ELEMENTS = 300000 };

static void send_first_half(struct fake_conn *conn, const struct opt_request *request,
                            struct half *half)
{
    struct opt_segment segment = { .count = HALF_ELEMENTS };
    struct opt_reply reply = { .id = request->id, .message = OPT_MESSAGE_PULL };
    reply.body.pull = (struct opt_pull_reply){ .segments = &segment,
                                               .segment_count = 1,
                                               .last = true };
    size_t size = opt_reply_pack(&reply, NULL, 0);
    size_t values = HALF_ELEMENTS * sizeof(float);
    uint8_t *frame = calloc(1, size + OPT_FRAME_BEGIN_MAX + values);
    uint8_t tag[12];
    size_t tag_size;
    opt_frame_begin(size, values, frame, tag, &tag_size);
    opt_reply_pack(&reply, frame + OPT_FRAME_PREFIX, size);
    memcpy(frame + OPT_FRAME_PREFIX + size, tag, tag_size);
    memset(frame + OPT_FRAME_PREFIX + size + tag_size, 0x40, values);
    size_t whole = OPT_FRAME_PREFIX + size + tag_size + values;
    fake_send(conn, frame, whole / 2);
    half->size = whole - whole / 2;
    half->rest = malloc(half->size);
    memcpy(half->rest, frame + whole / 2, half->size);
    free(frame);
}

static enum fake_action send_half(struct fake_conn *conn,
                                  const struct opt_request *request,
                                  const uint8_t *data, size_t data_size, void *context)
{
    (void)data, (void)data_size;
    struct half *half = context;
    if (half->rest != NULL && !half->sent) {
        fake_send(conn, half->rest, half->size);
        half->sent = true;
    } else if (request->message == OPT_MESSAGE_PULL && !half->sent) {
        send_first_half(conn, request, half);
        return FAKE_DONE;
    }
    return FAKE_SERVE;
}

Test(withdrawal, takes_its_hands_off_the_weights_when_a_pull_ends_halfway)
{
    struct half half = { NULL, 0, false };
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = send_half, .context = &half });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(1, HALF_ELEMENTS);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *weights = values_new(&shapes);
    expect_status(optclient_pull(model, weights, 1,
                                 &(struct optclient_pull_options){ .timeout_ms = 200 },
                                 NULL),
                  OPTCLIENT_DEADLINE_EXCEEDED);
    cr_assert_gt(weights[0].values[0], 0.0f, "the first half has come");
    /* AddressSanitizer would see the client write there. */
    values_free(weights, &shapes);
    weights = values_new(&shapes);
    expect_ok(optclient_pull(model, weights, 1, NULL, NULL));
    cr_assert_eq(weights[0].values[HALF_ELEMENTS - 1], 0.0f);
    cr_assert_eq(fake_server_connections(server), 1, "the stream stayed in order");
    optclient_close(client);
    fake_server_stop(server);
    free(half.rest);
    values_free(weights, &shapes);
    shapes_free(&shapes);
}

/* -------------------------------------------------------------------------- closing */

static enum fake_action swallow_pushes(struct fake_conn *conn,
                                       const struct opt_request *request,
                                       const uint8_t *data, size_t data_size,
                                       void *context)
{
    (void)conn, (void)data, (void)data_size;
    if (request->message != OPT_MESSAGE_PUSH) {
        return FAKE_SERVE;
    }
    sem_post(context);
    return FAKE_DONE;
}

struct waiting {
    struct optclient_model *model;
    struct optclient_values *values;
    enum optclient_status status;
    char sentence[512];
};

static void *push_and_wait(void *argument)
{
    struct waiting *waiting = argument;
    waiting->status = optclient_push(waiting->model, waiting->values, 2, NULL, NULL);
    strcpy(waiting->sentence, optclient_error());
    return NULL;
}

static void close_during_pushes(bool only_model)
{
    sem_t swallowed;
    sem_init(&swallowed, 0, 0);
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = swallow_pushes, .context = &swallowed });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct waiting waiting = { .model = test_create(client, "m", &shapes),
                               .values = values_new(&shapes) };
    struct optclient_call *call;
    expect_ok(optclient_push_start(waiting.model, waiting.values, 2, NULL, NULL, NULL,
                                   &call));
    pthread_t thread;
    pthread_create(&thread, NULL, push_and_wait, &waiting);
    sem_wait(&swallowed);
    sem_wait(&swallowed);
    cr_assert_not(optclient_call_done(call));
    if (only_model) {
        optclient_model_close(waiting.model);
    } else {
        optclient_close(client);
    }
    pthread_join(thread, NULL);
    cr_assert_eq(waiting.status, OPTCLIENT_CANCELLED, "%s", waiting.sentence);
    cr_assert(strstr(waiting.sentence, "being closed") != NULL);
    cr_assert(strstr(waiting.sentence, "not known") != NULL, "%s", waiting.sentence);
    expect_status(optclient_call_wait(call, NULL), OPTCLIENT_CANCELLED);
    optclient_call_free(call);
    if (only_model) {
        optclient_close(client);
    }
    fake_server_stop(server);
    values_free(waiting.values, &shapes);
    shapes_free(&shapes);
}

Test(withdrawal, cancels_calls_when_the_client_is_closed)
{
    close_during_pushes(false);
}

Test(withdrawal, cancels_calls_when_the_model_is_closed)
{
    close_during_pushes(true);
}

static enum fake_action hang_up_at_leave(struct fake_conn *conn,
                                         const struct opt_request *request,
                                         const uint8_t *data, size_t data_size,
                                         void *context)
{
    (void)data, (void)data_size;
    if (request->message == OPT_MESSAGE_LEAVE) {
        if (fake_number(conn) == 1) {
            return FAKE_HANG_UP;
        }
        sem_post(context);
    }
    if (request->message == OPT_MESSAGE_OPEN) {
        require(!request->body.open.join); /* it would join only to leave */
    }
    return FAKE_SERVE;
}

Test(withdrawal, leaves_a_model_even_if_the_connection_breaks)
{
    sem_t left;
    sem_init(&left, 0, 0);
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = hang_up_at_leave, .context = &left });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    optclient_model_close(test_create(client, "m", &shapes));
    sem_wait(&left);
    optclient_close(client);
    fake_server_stop(server);
    shapes_free(&shapes);
}

/* -------------------------------------------------------------------------- forking */

Test(withdrawal, refuses_calls_in_a_forked_child)
{
    struct fake_server *server = fake_server_start(&(struct fake_options){ 0 });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bool refused = optclient_push(model, values, 2, NULL, NULL) ==
                           OPTCLIENT_FAILED_PRECONDITION &&
                       strstr(optclient_error(), "fork") != NULL;
        optclient_model_close(model);
        optclient_close(client);
        _exit(refused ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_ok(optclient_push(model, values, 2, NULL, NULL));
    optclient_close(client);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

/* Nobody goes on with the parent's calls in a child, and the lock may never be given
 * back there: nothing waits. */
Test(withdrawal, does_not_let_a_forked_child_wait_for_a_call)
{
    sem_t swallowed;
    sem_init(&swallowed, 0, 0);
    struct fake_server *server = fake_server_start(
        &(struct fake_options){ .hook = swallow_pushes, .context = &swallowed });
    struct optclient *client = test_connect(fake_server_address(server), NULL);
    struct shapes shapes = shapes_new(2, 1000);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    struct optclient_call *call;
    expect_ok(optclient_push_start(model, values, 2, NULL, NULL, NULL, &call));
    sem_wait(&swallowed);
    pid_t child = fork();
    if (child == 0) {
        struct optclient_usage usage;
        char name[256];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bool told = optclient_call_done(call) != 0 &&
                    optclient_call_wait(call, NULL) == OPTCLIENT_FAILED_PRECONDITION &&
                    strstr(optclient_error(), "fork") != NULL &&
                    optclient_lost(model, name, sizeof(name)) == 0;
        optclient_usage(client, &usage);
        told = told && usage.bytes_sent == 0;
        optclient_call_free(call);
        _exit(told ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_not(optclient_call_done(call));
    optclient_close(client);
    optclient_call_free(call);
    fake_server_stop(server);
    values_free(values, &shapes);
    shapes_free(&shapes);
}
