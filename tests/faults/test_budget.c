/* What peers can make the daemon hold: each kind of peer that takes without giving,
 * many of it, against a daemon with little memory. Its peak stays within --memory and
 * --inflight, a tenth, what it begins with and 40 KiB a connection; a peer that behaves
 * is served meanwhile.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/field.h"
#include "common/frame.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum {
    MIB = 1 << 20,
    MEMORY = 48 * MIB,
    INFLIGHT = 16 * MIB,
    FRAME = 4 * MIB,
    BEGINNING = 24 * MIB, /* program, stacks, spare letters, what malloc keeps */
    EACH = 40 << 10,
    PEERS = 120,
    WAIT_MS = 20000
};

static struct daemon_process server;
static int good;
static uint64_t good_id;
static int peers[PEERS];
static uint64_t peer_id[PEERS];

static const char *const options[] = {
    "--memory",    "48MiB", "--inflight",  "16MiB", "--connection-inflight", "8MiB",
    "--max-frame", "4MiB",  "--max-table", "4MiB",  "--user-timeout",        "0",
    "--lease",     "1min",  NULL
};

static size_t peak_of(const struct daemon_process *daemon)
{
    char path[64], line[128];
    size_t kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof(line), file) != NULL &&
           sscanf(line, "VmHWM: %zu", &kib) != 1) {
    }
    fclose(file);
    cr_assert_gt(kib, (size_t)0);
    return kib << 10;
}

static void begin(const char *const *with)
{
    signal(SIGPIPE, SIG_IGN);
    daemon_start(&server, with);
    good = raw_connect(server.port);
    raw_hello(good, "good");
    raw_heartbeat(good, ++good_id);
}

/* Until the daemon has taken of what was sent all that it takes. Whoever behaves is
 * answered meanwhile. */
static void settle(void)
{
    enum { OWN = 1024 }; /* more than the question takes */
    uint64_t before = 0, now = raw_counter(good, "bytes_received");
    for (int i = 0; i < 200 && now - before > OWN; i++) {
        struct pollfd wait = { .fd = good, .events = POLLIN };
        poll(&wait, 1, 100);
        before = now;
        now = raw_counter(good, "bytes_received");
    }
}

static void end(size_t connections)
{
    raw_heartbeat(good, ++good_id);
    cr_expect(daemon_alive(&server));
    size_t most =
        (size_t)(MEMORY + INFLIGHT) / 10 * 11 + BEGINNING + connections * EACH;
#if !IS_SANITIZED
    size_t peak = peak_of(&server);
    cr_expect_leq(peak, most, "%zu MiB, at most %zu were right", peak >> 20,
                  most >> 20);
#else
    (void)most;
#endif
    close(good);
    daemon_stop(&server);
}

static void connect_all(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        peers[i] = raw_connect(server.port);
        raw_hello(peers[i], "");
        peer_id[i] = 1;
    }
}

static void close_all(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(peers[i]);
    }
}

/* Send as much of it as the daemon takes without waiting; whether that was all. */
static bool push_bytes(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        struct pollfd wait = { .fd = fd, .events = POLLOUT };
        if (poll(&wait, 1, 20) <= 0 || (wait.revents & POLLOUT) == 0) {
            return false;
        }
        ssize_t sent = send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool ask(size_t peer, struct opt_request request)
{
    size_t size = 0;
    request.id = ++peer_id[peer];
    uint8_t *frame = raw_frame(&request, NULL, 0, &size);
    bool whole = push_bytes(peers[peer], frame, size);
    free(frame);
    return whole;
}

/* A model of count tensors of n elements with long names. */
static uint32_t create(const char *name, size_t count, uint64_t n)
{
    struct opt_tensor_entry *tensors = calloc(count, sizeof(*tensors));
    char(*names)[96] = calloc(count, sizeof(*names));
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof(names[i]), "%080zu", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = &n, .rank = 1, .elements = n
        };
    }
    size_t size = opt_tensor_table_pack(tensors, count, NULL, 0);
    uint8_t *table = malloc(size);
    opt_tensor_table_pack(tensors, count, table, size);
    const struct opt_request request = {
        .id = ++good_id,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = name, .specification.expression = "sgd" }
    };
    cr_assert(raw_request(good, &request, table, size));
    struct raw_reply reply;
    cr_assert(raw_receive(good, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "");
    uint32_t number = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    free(table);
    free(tensors);
    free(names);
    return number;
}

Test(budget, holds_whoever_asks_for_descriptions_and_does_not_read, .timeout = 120)
{
    begin(options);
    create("m", 20000, 1);
    connect_all(PEERS);
    for (size_t i = 0; i < PEERS; i++) {
        for (int k = 0; k < 8; k++) {
            ask(i, (struct opt_request){ .message = OPT_MESSAGE_DESCRIBE,
                                         .body.describe = "m" });
        }
    }
    settle();
    close_all(PEERS);
    end(PEERS);
}

Test(budget, holds_whoever_pulls_in_16_bits_and_does_not_read, .timeout = 120)
{
    begin(options);
    uint32_t model = create("m", 1, 4 << 20);
    connect_all(PEERS);
    for (size_t i = 0; i < PEERS; i++) {
        for (int k = 0; k < 8; k++) {
            ask(i, (struct opt_request){
                       .message = OPT_MESSAGE_PULL,
                       .body.pull = { .model = model, .dtype = OPT_BF16 } });
        }
    }
    settle();
    close_all(PEERS);
    end(PEERS);
}

/* The pieces of an answer, one for each tensor, cost more than what they refer to. */
Test(budget, holds_whoever_pulls_many_tensors_and_does_not_read, .timeout = 120)
{
    begin(options);
    uint32_t model = create("m", 20000, 1);
    connect_all(PEERS);
    for (size_t i = 0; i < PEERS; i++) {
        for (int k = 0; k < 40; k++) {
            ask(i, (struct opt_request){ .message = OPT_MESSAGE_PULL,
                                         .body.pull = { .model = model } });
        }
    }
    settle();
    close_all(PEERS);
    end(PEERS);
}

/* A frame with data of size bytes before (or after) a body that never comes. */
static uint8_t *half_frame(size_t size, bool early, size_t *out)
{
    uint8_t *frame = calloc(1, size + 64);
    size_t at = OPT_FRAME_PREFIX;
    size_t total = size + 40;
    for (int i = 0; i < OPT_FRAME_PREFIX; i++) {
        frame[i] = (uint8_t)(total >> (8 * i));
    }
    if (early) {
        at += opt_varint_write(OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES, frame + at);
    } else {
        /* a field that no message has, as long as a header may be */
        at += opt_varint_write(16 << 3 | OPT_FIELD_BYTES, frame + at);
    }
    at += opt_varint_write(size, frame + at);
    *out = at + size - 1;
    return frame;
}

static void send_halves(size_t size, bool early, bool greeted)
{
    begin(options);
    size_t half = 0;
    uint8_t *frame = half_frame(size, early, &half);
    for (size_t i = 0; i < PEERS; i++) {
        peers[i] = raw_connect(server.port);
        if (greeted) {
            raw_hello(peers[i], "");
        }
        push_bytes(peers[i], frame, half);
    }
    settle();
    close_all(PEERS);
    free(frame);
    end(PEERS);
}

Test(budget, holds_data_that_comes_before_its_header, .timeout = 120)
{
    send_halves(FRAME - 100, true, true);
}

Test(budget, holds_data_that_comes_before_hello, .timeout = 120)
{
    send_halves(FRAME - 100, true, false);
}

Test(budget, holds_long_headers_that_do_not_end, .timeout = 120)
{
    send_halves(60000, false, true);
}

Test(budget, holds_long_headers_before_hello, .timeout = 120)
{
    send_halves(60000, false, false);
}

Test(budget, holds_pushes_that_do_not_end, .timeout = 120)
{
    begin(options);
    uint32_t model = create("m", 1, 512 << 10);
    uint8_t *values = calloc(1, 2 * MIB);
    const struct opt_segment segment = { .count = (512 << 10) };
    const struct opt_request push = { .id = 2,
                                      .message = OPT_MESSAGE_PUSH,
                                      .body.push = { .model = model,
                                                     .sequence = 1,
                                                     .samples = 1,
                                                     .segments = &segment,
                                                     .segment_count = 1,
                                                     .last = true } };
    size_t size = 0;
    uint8_t *frame = raw_frame(&push, values, 2 * MIB, &size);
    connect_all(PEERS);
    for (size_t i = 0; i < PEERS; i++) {
        push_bytes(peers[i], frame, size - 1);
    }
    settle();
    close_all(PEERS);
    free(frame);
    free(values);
    end(PEERS);
}

/* Small requests cost more than their bytes: those that wait, */
Test(budget, holds_thousands_of_requests_that_wait, .timeout = 120)
{
    begin(options);
    uint32_t model = create("m", 1, 1);
    connect_all(PEERS);
    for (size_t i = 0; i < PEERS; i++) {
        bool taken = true;
        for (int k = 0; k < 300 && taken; k++) {
            taken = ask(i, (struct opt_request){
                               .message = OPT_MESSAGE_WAIT,
                               .timeout_ms = 60000,
                               .body.wait = { .model = model, .step = 1000 } });
        }
    }
    settle();
    close_all(PEERS);
    end(PEERS);
}

/* those that are refused with a sentence, and not read. */
Test(budget, holds_whoever_does_not_read_refusals, .timeout = 120)
{
    begin(options);
    connect_all(PEERS);
    size_t size = 0;
    const struct opt_request unknown = { .id = 7,
                                         .message = OPT_MESSAGE_DESCRIBE,
                                         .body.describe = "no such model" };
    uint8_t *frame = raw_frame(&unknown, NULL, 0, &size);
    uint8_t *burst = malloc(3000 * size);
    for (size_t i = 0; i < 3000; i++) {
        memcpy(burst + i * size, frame, size);
    }
    for (size_t i = 0; i < PEERS; i++) {
        for (int k = 0; k < 10; k++) {
            push_bytes(peers[i], burst, 3000 * size);
        }
    }
    settle();
    close_all(PEERS);
    free(burst);
    free(frame);
    end(PEERS);
}

/* A frame in an order of fields that no library of ours writes, as long as one may be:
 * it is read straight into its place, and served. */
Test(budget, has_room_for_a_whole_frame_with_its_data_first)
{
    begin(options);
    uint32_t model = create("m", 1, (FRAME - 4096) / 4);
    uint8_t *values = calloc(1, FRAME);
    const struct opt_segment segment = { .count = (FRAME - 4096) / 4 };
    const struct opt_request push = { .id = ++good_id,
                                      .message = OPT_MESSAGE_PUSH,
                                      .body.push = { .model = model,
                                                     .sequence = 1,
                                                     .samples = 1,
                                                     .segments = &segment,
                                                     .segment_count = 1,
                                                     .last = true } };
    size_t data = FRAME - 4096;
    uint8_t header[256];
    size_t header_size = opt_request_pack(&push, header, sizeof(header));
    uint8_t *frame = calloc(1, FRAME);
    size_t at = OPT_FRAME_PREFIX;
    at += opt_varint_write(OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES, frame + at);
    at += opt_varint_write(data, frame + at);
    memcpy(frame + at + data, header, header_size);
    at += data + header_size;
    for (int i = 0; i < OPT_FRAME_PREFIX; i++) {
        frame[i] = (uint8_t)((at - OPT_FRAME_PREFIX) >> (8 * i));
    }
    const struct opt_request open = { .id = ++good_id,
                                      .message = OPT_MESSAGE_OPEN,
                                      .body.open = { .model = "m", .join = true } };
    cr_assert(raw_request(good, &open, NULL, 0));
    struct raw_reply reply;
    cr_assert(raw_receive(good, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    raw_reply_fini(&reply);
    cr_assert(raw_send(good, frame, at));
    cr_assert(raw_receive(good, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "");
    raw_reply_fini(&reply);
    free(frame);
    free(values);
    end(1);
}

/* ---------------------------------------------------------------- slow readers */

enum { ELEMENTS = 4 << 20 }; /* 16 MiB: more than sockets hold */

static void train(uint32_t model, uint64_t sequence)
{
    static float values[MIB];
    struct raw_reply reply;
    for (uint32_t k = 0; k < ELEMENTS / MIB; k++) {
        const struct opt_segment segment = { .offset = (uint64_t)k * MIB,
                                             .count = MIB };
        const struct opt_request push = { .id = 1000000 + sequence,
                                          .message = OPT_MESSAGE_PUSH,
                                          .body.push = { .model = model,
                                                         .sequence = sequence,
                                                         .samples = 1,
                                                         .frame = k,
                                                         .last =
                                                             k == ELEMENTS / MIB - 1,
                                                         .segments = &segment,
                                                         .segment_count = 1 } };
        cr_assert(raw_request(good, &push, values, sizeof(values)));
    }
    cr_assert(raw_receive(good, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH);
    raw_reply_fini(&reply);
}

/* True if the weights came; false if there was no memory for them. */
static bool pull_weights(uint32_t model)
{
    const struct opt_request pull = { .id = ++good_id,
                                      .message = OPT_MESSAGE_PULL,
                                      .body.pull = { .model = model } };
    cr_assert(raw_request(good, &pull, NULL, 0));
    for (;;) {
        struct raw_reply reply;
        cr_assert(raw_receive(good, &reply));
        bool refused = reply.reply.message == OPT_MESSAGE_ERROR;
        bool last = refused || reply.reply.body.pull.last;
        if (refused) {
            cr_assert_eq(reply.reply.body.error.status, OPT_RESOURCE_EXHAUSTED);
            cr_expect_gt(reply.reply.body.error.retry_after_ms, 0u);
        }
        raw_reply_fini(&reply);
        if (last) {
            return !refused;
        }
    }
}

/* Guests that pull, each at another step, and read nothing for now. */
static uint32_t begin_slow(const char *const *with, size_t guests)
{
    begin(with);
    uint32_t model = create("m", 1, ELEMENTS);
    const struct opt_request open = { .id = ++good_id,
                                      .message = OPT_MESSAGE_OPEN,
                                      .body.open = { .model = "m", .join = true } };
    struct raw_reply reply;
    cr_assert(raw_request(good, &open, NULL, 0));
    cr_assert(raw_receive(good, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL);
    raw_reply_fini(&reply);
    connect_all(guests);
    for (size_t i = 0; i < guests; i++) {
        ask(i, (struct opt_request){ .message = OPT_MESSAGE_PULL,
                                     .body.pull = { .model = model } });
        train(model, i + 1);
    }
    return model;
}

/* Read some of each, 256 KiB at most; how many are there still. */
static size_t trickle(size_t guests)
{
    static uint8_t bytes[256 << 10];
    size_t left = 0;
    for (size_t i = 0; i < guests; i++) {
        left += recv(peers[i], bytes, sizeof(bytes), MSG_DONTWAIT) != 0;
    }
    return left;
}

Test(budget, gives_workers_their_weights_whoever_else_reads_slowly, .timeout = 120)
{
    enum { GUESTS = 6 };
    uint32_t model = begin_slow(
        (const char *[]){ "--memory", "112MiB", "--write-timeout", "1s", "--write-rate",
                          "1B", "--user-timeout", "0", "--lease", "1min", NULL },
        GUESTS);
    uint64_t sequence = GUESTS;
    for (int round = 0; round < 3; round++) {
        bool pulled = false;
        for (int i = 0; i < 100 && !pulled; i++) {
            pulled = pull_weights(model);
            struct pollfd wait = { .fd = good, .events = POLLIN };
            poll(&wait, 1, pulled ? 0 : 100);
            trickle(GUESTS);
        }
        cr_expect(pulled, "no weights for the worker in round %d", round);
        train(model, ++sequence);
    }
    close_all(GUESTS);
    close(good);
    daemon_stop(&server);
}

Test(budget, cuts_off_who_reads_more_slowly_than_the_least_rate, .timeout = 120)
{
    uint32_t model = begin_slow(
        (const char *[]){ "--memory", "400MiB", "--write-timeout", "3s", "--write-rate",
                          "1GiB", "--user-timeout", "0", "--lease", "1min", NULL },
        1);
    for (int i = 0; i < 3; i++) { /* enough to be at it for longer */
        ask(0, (struct opt_request){ .message = OPT_MESSAGE_PULL,
                                     .body.pull = { .model = model } });
    }
    for (int i = 0; i < 150 && trickle(1) > 0; i++) {
        struct pollfd wait = { .fd = good, .events = POLLIN };
        poll(&wait, 1, 100);
        raw_heartbeat(good, ++good_id);
        if (daemon_logged(&server, "reads too slowly", 1)) {
            break;
        }
    }
    cr_expect(daemon_logged(&server, "reads too slowly", WAIT_MS));
    close_all(1);
    close(good);
    daemon_stop(&server);
}
