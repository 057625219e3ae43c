/* Frames that were recorded and are sent again: duplicated, reordered, on the same
 * connection and on others, after the worker was taken for dead. Nothing is ever
 * applied twice, and each copy is answered with what became of the first.
 *
 * Gradients are whole numbers, applied by sgd with learning rate 1, so that the weights
 * tell which pushes took effect.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum { PUSHES = 40, HALF = PUSHES / 2, ELEMENTS = 8 };

/* Of the numbers 1 to n. */
static float sum_to(int n)
{
    return (float)(n * (n + 1)) / 2;
}

struct recording {
    uint8_t *bytes;
    size_t size;
};

struct replay {
    struct daemon_process daemon;
    int socket;
    uint32_t model;
    struct recording pushes[PUSHES + 1]; /* by sequence */
};

static const uint64_t shape[] = { ELEMENTS };
static const struct opt_tensor_entry tensor = {
    .name = "w", .shape = shape, .rank = 1, .elements = ELEMENTS
};

static struct raw_reply ask(int socket, const struct opt_request *request,
                            const void *data, size_t size)
{
    struct raw_reply reply;
    cr_assert(raw_request(socket, request, data, size));
    cr_assert(raw_receive(socket, &reply));
    return reply;
}

static void create(struct replay *replay)
{
    uint8_t table[64];
    size_t size = opt_tensor_table_pack(&tensor, 1, table, sizeof(table));
    const struct opt_request request = {
        .id = 1,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "m",
                         .specification = { .expression = "sgd(lr=1)", .rule = "" },
                         .consistency = { .min_workers = 1 },
                         .join = true },
    };
    struct raw_reply reply = ask(replay->socket, &request, table, size);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    replay->model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
}

static void join(const struct replay *replay)
{
    const struct opt_request request = {
        .id = 2,
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = "m", .join = true },
    };
    struct raw_reply reply = ask(replay->socket, &request, NULL, 0);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    raw_reply_fini(&reply);
}

/* The push of a sequence adds its number to the sum. */
static struct recording record(const struct replay *replay, uint64_t sequence)
{
    float values[ELEMENTS];
    const struct opt_segment segment = { .count = ELEMENTS };
    for (size_t i = 0; i < ELEMENTS; i++) {
        values[i] = (float)sequence;
    }
    const struct opt_request request = {
        .id = 1000 + sequence,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = replay->model,
                       .sequence = sequence,
                       .samples = 1,
                       .segments = &segment,
                       .segment_count = 1,
                       .last = true,
                       .incarnation = 1 },
    };
    struct recording recording;
    recording.bytes = raw_frame(&request, values, sizeof(values), &recording.size);
    return recording;
}

static void begin(struct replay *replay)
{
    static const char *const options[] = { "--grace", "0", NULL };
    daemon_start(&replay->daemon, options);
    replay->socket = raw_connect(replay->daemon.port);
    raw_hello(replay->socket, "w");
    create(replay);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        replay->pushes[i] = record(replay, i);
    }
}

static struct raw_reply send_copy(const struct replay *replay, uint64_t sequence)
{
    const struct recording *push = &replay->pushes[sequence];
    struct raw_reply reply;
    cr_assert(raw_send(replay->socket, push->bytes, push->size));
    cr_assert(raw_receive(replay->socket, &reply));
    cr_assert_eq(reply.reply.id, 1000 + sequence);
    return reply;
}

static void expect_fate(const struct replay *replay, uint64_t sequence,
                        enum opt_fate fate, uint64_t step)
{
    struct raw_reply reply = send_copy(replay, sequence);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH, "%s",
                 reply.reply.body.error.text);
    cr_assert_eq(reply.reply.body.push.fate, fate);
    cr_assert_eq(reply.reply.body.push.step, step);
    raw_reply_fini(&reply);
}

static void expect_refusal(const struct replay *replay, uint64_t sequence,
                           enum opt_status status, const char *words)
{
    struct raw_reply reply = send_copy(replay, sequence);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_ERROR);
    cr_assert_eq(reply.reply.body.error.status, status, "%s",
                 reply.reply.body.error.text);
    cr_assert_not_null(strstr(reply.reply.body.error.text, words), "%s",
                       reply.reply.body.error.text);
    raw_reply_fini(&reply);
}

static void end(struct replay *replay, float sum)
{
    const struct opt_request pull = {
        .id = 5000,
        .message = OPT_MESSAGE_PULL,
        .body.pull = { .model = replay->model, .slot = "" },
    };
    struct raw_reply reply = ask(replay->socket, &pull, NULL, 0);
    cr_assert_eq(reply.data_size, ELEMENTS * sizeof(float));
    for (size_t i = 0; i < ELEMENTS; i++) {
        float weight;
        memcpy(&weight, reply.data + i * sizeof(weight), sizeof(weight));
        cr_assert_eq(weight, -sum, "%g was applied, not %g", (double)-weight,
                     (double)sum);
    }
    raw_reply_fini(&reply);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        free(replay->pushes[i].bytes);
    }
    close(replay->socket);
    daemon_stop(&replay->daemon);
}

/* The n-th of a fixed disorder of 1 to PUSHES, which 7 does not divide. */
static uint64_t shuffled(uint64_t n)
{
    return n * 7 % (PUSHES + 1);
}

Test(replay, of_every_frame_in_any_order_changes_nothing)
{
    struct replay replay;
    begin(&replay);
    for (uint64_t i = 1; i <= PUSHES; i++) {
        expect_fate(&replay, i, OPT_FATE_APPLIED, i);
    }
    for (uint64_t i = 1; i <= PUSHES; i++) {
        expect_fate(&replay, shuffled(i), OPT_FATE_DUPLICATE, shuffled(i));
    }
    end(&replay, sum_to(PUSHES));
}

Test(replay, out_of_order_applies_what_ascends_and_nothing_else)
{
    struct replay replay;
    begin(&replay);
    uint64_t last = 0;
    uint64_t step = 0;
    float sum = 0;
    for (uint64_t i = 1; i <= PUSHES; i++) {
        uint64_t sequence = shuffled(i);
        if (sequence > last) {
            expect_fate(&replay, sequence, OPT_FATE_APPLIED, ++step);
            sum += (float)sequence;
            last = sequence;
        } else {
            expect_refusal(&replay, sequence, OPT_INVALID_ARGUMENT,
                           "sequences must ascend");
        }
    }
    end(&replay, sum);
}

Test(replay, on_another_connection_changes_nothing)
{
    struct replay replay;
    begin(&replay);
    for (uint64_t i = 1; i <= HALF; i++) {
        expect_fate(&replay, i, OPT_FATE_APPLIED, i);
    }
    int first = replay.socket;
    replay.socket = raw_connect(replay.daemon.port);
    raw_hello(replay.socket, "w"); /* the same session, so the same incarnation */
    for (uint64_t i = 1; i <= PUSHES; i++) {
        expect_fate(&replay, i, i <= HALF ? OPT_FATE_DUPLICATE : OPT_FATE_APPLIED, i);
    }
    /* The old connection speaks for nobody any more. */
    int second = replay.socket;
    replay.socket = first;
    expect_refusal(&replay, 1, OPT_FAILED_PRECONDITION, "another connection");
    close(first);
    replay.socket = second;
    end(&replay, sum_to(PUSHES));
}

Test(replay, of_a_life_that_is_over_is_refused)
{
    struct replay replay;
    begin(&replay);
    for (uint64_t i = 1; i <= HALF; i++) {
        expect_fate(&replay, i, OPT_FATE_APPLIED, i);
    }
    /* Without grace, a connection that breaks is the end of the worker. */
    close(replay.socket);
    cr_assert(daemon_logged(&replay.daemon, "connection_closed", DAEMON_WAIT_MS));
    replay.socket = raw_connect(replay.daemon.port);
    raw_hello(replay.socket, "w");
    join(&replay);
    for (uint64_t i = 1; i <= HALF; i++) {
        expect_fate(&replay, i, OPT_FATE_DUPLICATE, i);
    }
    for (uint64_t i = HALF + 1; i <= PUSHES; i++) {
        expect_refusal(&replay, i, OPT_ABORTED, "stale incarnation 1");
    }
    end(&replay, sum_to(HALF));
}
