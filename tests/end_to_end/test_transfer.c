/* Tensors on their way through a real daemon: how answers are cut into frames, what is
 * checked on arrival, and what happens when there is no room.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/dtype.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum {
    LARGE = 3 * OPT_SHARD + 5 * OPT_BLOCK + 7, /* more than three frames of fp32 */
    SMALL = 70,
    TENSORS = 4
};

static const uint64_t shapes[TENSORS] = { SMALL, LARGE, 1, OPT_BLOCK };

static struct daemon_process server;

/* Most elements in a frame of a push. */
static uint64_t frame_elements = OPT_SHARD;

static struct raw_reply ask(int fd, const struct opt_request *request, const void *data,
                            size_t size)
{
    cr_assert(raw_request(fd, request, data, size));
    struct raw_reply reply;
    cr_assert(raw_receive(fd, &reply), "closed instead of an answer to %s",
              opt_message_name(request->message));
    return reply;
}

static struct raw_reply ask_well(int fd, const struct opt_request *request,
                                 const void *data, size_t size)
{
    struct raw_reply reply = ask(fd, request, data, size);
    cr_assert_neq(reply.reply.message, OPT_MESSAGE_ERROR, "%s: %s",
                  opt_message_name(request->message), reply.reply.body.error.text);
    cr_assert_eq(reply.reply.id, request->id);
    return reply;
}

/* A model of sgd(lr=1) with all tensors zero; returns its number. */
static uint32_t create(int fd, bool join)
{
    struct opt_tensor_entry entries[TENSORS];
    char names[TENSORS][8];
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof(names[i]), "t%zu", i);
        entries[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = &shapes[i], .rank = 1, .elements = shapes[i]
        };
    }
    static uint8_t table[4096];
    size_t size = opt_tensor_table_pack(entries, TENSORS, table, sizeof(table));
    cr_assert_leq(size, sizeof(table));
    const struct opt_request request = {
        .id = 1,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "m",
                         .specification = { .expression = "sgd(lr=1)", .rule = "" },
                         .consistency = { .min_workers = 1 },
                         .join = join },
    };
    struct raw_reply reply = ask_well(fd, &request, table, size);
    uint32_t model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    return model;
}

/* Element of the gradient: exact in bf16 too. */
static float value_at(size_t tensor, uint64_t element)
{
    return (float)((element * 7 + tensor * 3) % 128) - 64;
}

/* Send one tensor's gradient as frames of a push. Returns false if the daemon closes.
 */
static bool push_tensor(int fd, uint32_t model, uint64_t id, uint64_t sequence,
                        uint32_t tensor, uint32_t *frame, bool last)
{
    static float values[OPT_SHARD];
    for (uint64_t at = 0; at < shapes[tensor]; at += frame_elements) {
        uint64_t left = shapes[tensor] - at;
        uint64_t count = left < frame_elements ? left : frame_elements;
        for (uint64_t i = 0; i < count; i++) {
            values[i] = value_at(tensor, at + i);
        }
        const struct opt_segment segment = { .tensor = tensor,
                                             .offset = at,
                                             .count = count };
        const struct opt_request request = {
            .id = id,
            .has_checksum = true,
            .checksum = XXH3_64bits(values, (size_t)count * sizeof(float)),
            .message = OPT_MESSAGE_PUSH,
            .body.push = { .model = model,
                           .sequence = sequence,
                           .samples = 1,
                           .segments = &segment,
                           .segment_count = 1,
                           .frame = (*frame)++,
                           .last = last && at + count == shapes[tensor] },
        };
        if (!raw_request(fd, &request, values, (size_t)count * sizeof(float))) {
            return false;
        }
    }
    return true;
}

static void push_all(int fd, uint32_t model, uint64_t sequence)
{
    uint32_t frame = 0;
    for (uint32_t tensor = 0; tensor < TENSORS; tensor++) {
        cr_assert(push_tensor(fd, model, 100 + sequence, sequence, tensor, &frame,
                              tensor == TENSORS - 1));
    }
    struct raw_reply reply;
    cr_assert(raw_receive(fd, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "another message");
    cr_expect_eq(reply.reply.id, 100 + sequence);
    cr_expect_eq(reply.reply.body.push.fate, OPT_FATE_APPLIED);
    raw_reply_fini(&reply);
}

/* Check one frame of a pull: where it lies, and its values. Returns elements. */
static uint64_t check_frame(const struct raw_reply *reply, enum opt_dtype dtype,
                            float steps, uint64_t done[TENSORS])
{
    const struct opt_pull_reply *pull = &reply->reply.body.pull;
    size_t element = opt_dtype_size(dtype);
    cr_assert_leq(reply->data_size, (size_t)OPT_CHUNK_BYTES);
    cr_assert_eq(pull->dtype, dtype);
    static float values[OPT_CHUNK_BYTES / 2];
    opt_dtype_widen(dtype, reply->data, values, reply->data_size / element);
    const float *at = values;
    uint64_t elements = 0;
    for (size_t s = 0; s < pull->segment_count; s++) {
        const struct opt_segment *segment = &pull->segments[s];
        cr_assert_lt(segment->tensor, (uint32_t)TENSORS);
        cr_assert_eq(segment->offset, done[segment->tensor], "a gap or an overlap");
        done[segment->tensor] += segment->count;
        cr_assert(done[segment->tensor] == shapes[segment->tensor] ||
                      done[segment->tensor] % OPT_BLOCK == 0,
                  "a block is cut");
        for (uint64_t i = 0; i < segment->count; i++, at++) {
            float expected = -steps * value_at(segment->tensor, segment->offset + i);
            cr_assert_eq(*at, expected, "tensor %u element %lu: %g instead of %g",
                         segment->tensor, (unsigned long)(segment->offset + i),
                         (double)*at, (double)expected);
        }
        elements += segment->count;
    }
    cr_assert_eq(elements * element, reply->data_size);
    return elements;
}

/* Pull the whole model; every weight must be -steps times its gradient. */
static void pull_all(int fd, uint32_t model, enum opt_dtype dtype, bool checksum,
                     float steps)
{
    const struct opt_request request = {
        .id = 50,
        .has_checksum = checksum,
        .message = OPT_MESSAGE_PULL,
        .body.pull = { .model = model, .slot = "", .dtype = dtype },
    };
    cr_assert(raw_request(fd, &request, NULL, 0));
    uint64_t done[TENSORS] = { 0 };
    size_t frames = 0;
    for (bool last = false; !last; frames++) {
        struct raw_reply reply;
        cr_assert(raw_receive(fd, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_PULL, "%s",
                     reply.reply.message == OPT_MESSAGE_ERROR
                         ? reply.reply.body.error.text
                         : "another message");
        cr_assert_eq(reply.reply.id, request.id);
        cr_assert_eq(reply.reply.has_checksum, checksum);
        if (checksum) {
            cr_expect_eq(reply.reply.checksum,
                         XXH3_64bits(reply.data, reply.data_size));
        }
        check_frame(&reply, dtype, steps, done);
        last = reply.reply.body.pull.last;
        raw_reply_fini(&reply);
    }
    for (size_t i = 0; i < TENSORS; i++) {
        cr_expect_eq(done[i], shapes[i], "tensor %zu ends after %lu", i,
                     (unsigned long)done[i]);
    }
    cr_expect_gt(frames, (size_t)1);
}

Test(transfer, weights_come_in_whole_blocks_and_bounded_frames)
{
    daemon_start(&server, NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    push_all(fd, model, 1);
    pull_all(fd, model, OPT_FP32, false, 1);
    pull_all(fd, model, OPT_FP32, true, 1);
    pull_all(fd, model, OPT_BF16, true, 1);
    pull_all(fd, model, OPT_FP16, false, 1);
    push_all(fd, model, 2);
    pull_all(fd, model, OPT_FP32, false, 2);
    close(fd);
    daemon_stop(&server);
}

/* The daemon may hold one frame only; a worker that has joined needs no more. */
Test(transfer, a_joined_worker_may_push_its_whole_model)
{
    daemon_start(&server,
                 (const char *[]){ "--connection-inflight", "5MiB", "--inflight",
                                   "5MiB", "--max-frame", "5MiB", NULL });
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    push_all(fd, model, 1);
    push_all(fd, model, 2);
    pull_all(fd, model, OPT_FP32, false, 2);
    close(fd);
    daemon_stop(&server);
}

/* Frames that just do not fit what buffers come in. */
Test(transfer, a_joined_worker_may_push_it_in_frames_of_any_size)
{
    static const uint64_t lengths[] = { 3 * OPT_BLOCK, 33 * OPT_BLOCK };
    daemon_start(&server,
                 (const char *[]){ "--connection-inflight", "5MiB", "--inflight",
                                   "5MiB", "--max-frame", "5MiB", NULL });
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    for (size_t i = 0; i < 2; i++) {
        frame_elements = lengths[i];
        push_all(fd, model, i + 1);
    }
    close(fd);
    daemon_stop(&server);
}

/* Two workers whose push is larger than everything the daemon may hold, neither of them
 * joined: none waits for ever, and the daemon is as before. */
Test(transfer, pushes_that_can_never_fit_are_refused)
{
    daemon_start(&server,
                 (const char *[]){ "--connection-inflight", "5MiB", "--inflight",
                                   "5MiB", "--max-frame", "5MiB", NULL });
    int good = raw_connect(server.port);
    raw_hello(good, "good");
    uint32_t model = create(good, true);
    int fd = raw_connect(server.port);
    raw_hello(fd, "stranger");
    uint32_t frame = 0;
    push_tensor(fd, model, 9, 1, 1, &frame, true);
    struct raw_reply reply;
    cr_assert(raw_receive(fd, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_ERROR);
    cr_expect_eq(reply.reply.id, 9u);
    raw_reply_fini(&reply);
    close(fd);
    push_all(good, model, 1);
    pull_all(good, model, OPT_FP32, false, 1);
    close(good);
    daemon_stop(&server);
}

Test(transfer, a_value_that_is_no_number_is_named)
{
    daemon_start(&server, NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    static float values[OPT_BLOCK];
    values[12345] = NAN;
    values[12346] = INFINITY;
    const struct opt_segment segment = { .tensor = 3, .count = OPT_BLOCK };
    const struct opt_request request = {
        .id = 4,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = model,
                       .sequence = 1,
                       .samples = 1,
                       .segments = &segment,
                       .segment_count = 1,
                       .last = true },
    };
    struct raw_reply reply = ask(fd, &request, values, sizeof(values));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_ERROR);
    cr_expect_eq(reply.reply.body.error.status, OPT_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(reply.reply.body.error.text, "12345"), "%s",
                       reply.reply.body.error.text);
    raw_reply_fini(&reply);
    pull_all(fd, model, OPT_FP32, false, 0);
    close(fd);
    daemon_stop(&server);
}

/* Answers overtake a large one only between its frames, and never tear it. */
Test(transfer, many_pulls_at_once_all_arrive)
{
    enum { PULLS = 8 };
    daemon_start(&server, NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    push_all(fd, model, 1);
    for (uint64_t id = 1; id <= PULLS; id++) {
        const struct opt_request request = {
            .id = id,
            .message = OPT_MESSAGE_PULL,
            .body.pull = { .model = model,
                           .slot = "",
                           .dtype = id % 2 == 0 ? OPT_BF16 : OPT_FP32 },
        };
        cr_assert(raw_request(fd, &request, NULL, 0));
    }
    uint64_t done[PULLS + 1][TENSORS] = { { 0 } };
    for (size_t ended = 0; ended < PULLS;) {
        struct raw_reply reply;
        cr_assert(raw_receive(fd, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_PULL);
        uint64_t id = reply.reply.id;
        cr_assert(id >= 1 && id <= PULLS);
        check_frame(&reply, id % 2 == 0 ? OPT_BF16 : OPT_FP32, 1, done[id]);
        ended += reply.reply.body.pull.last;
        raw_reply_fini(&reply);
    }
    for (size_t id = 1; id <= PULLS; id++) {
        cr_expect_eq(done[id][1], shapes[1]);
    }
    close(fd);
    daemon_stop(&server);
}

/* A peer that asks for weights and does not take them costs no memory, and in time its
 * connection; meanwhile others train. */
Test(transfer, a_puller_that_never_reads_is_cut_off)
{
    daemon_start(&server, (const char *[]){ "--write-timeout", "500ms",
                                            "--user-timeout", "0", NULL });
    int good = raw_connect(server.port);
    raw_hello(good, "good");
    uint32_t model = create(good, true);
    push_all(good, model, 1);
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    for (uint64_t id = 1; id <= 20; id++) {
        const struct opt_request request = {
            .id = id,
            .message = OPT_MESSAGE_PULL,
            .body.pull = { .model = model, .slot = "", .dtype = OPT_BF16 },
        };
        cr_assert(raw_request(fd, &request, NULL, 0));
    }
    push_all(good, model, 2);
    size_t memory = daemon_memory(&server);
    push_all(good, model, 3);
    cr_expect(daemon_logged(&server, "reads nothing", RAW_WAIT_MS));
    push_all(good, model, 4);
    cr_expect_lt(daemon_memory(&server), memory + (64u << 20));
    pull_all(good, model, OPT_FP32, false, 4);
    close(fd);
    close(good);
    daemon_stop(&server);
}

Test(transfer, statistics_count_what_went_through)
{
    daemon_start(&server, NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "a");
    uint32_t model = create(fd, true);
    push_all(fd, model, 1);
    const struct opt_request request = { .id = 2, .message = OPT_MESSAGE_STATISTICS };
    struct raw_reply reply = ask_well(fd, &request, NULL, 0);
    uint64_t received = 0;
    uint64_t moved = UINT64_MAX;
    uint64_t frames = 0;
    for (size_t i = 0; i < reply.reply.body.statistics.count; i++) {
        const struct opt_counter *counter = &reply.reply.body.statistics.counters[i];
        received =
            strcmp(counter->name, "bytes_received") == 0 ? counter->value : received;
        moved = strcmp(counter->name, "data_bytes_moved") == 0 ? counter->value : moved;
        frames =
            strcmp(counter->name, "frames_received") == 0 ? counter->value : frames;
    }
    uint64_t bytes = (SMALL + LARGE + 1 + OPT_BLOCK) * sizeof(float);
    cr_expect_gt(received, bytes);
    cr_expect_geq(frames, UINT64_C(10));
    /* Only what came in one read with a header is copied. */
    cr_expect_leq(moved, frames * 4096);
    raw_reply_fini(&reply);
    close(fd);
    daemon_stop(&server);
}
