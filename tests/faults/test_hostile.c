/* Peers that mean no good, or are broken: whatever they send, the daemon lives, others
 * are served, and its memory does not grow.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/daemon.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum {
    WAIT_MS = 10000,
#if UNDER_ADDRESS_SANITIZER
    GROWTH_MAX = 512 << 20 /* freed memory stays in quarantine */
#else
    GROWTH_MAX = 48 << 20
#endif
};

/* A daemon, and a connection that behaves. */
static struct daemon_process server;
static int good;
static uint64_t good_id;
static size_t memory_before;

static void good_is_served(void)
{
    raw_heartbeat(good, ++good_id);
}

static void begin(const char *const *options)
{
    daemon_start(&server, options);
    good = raw_connect(server.port);
    raw_hello(good, "");
    good_is_served();
    memory_before = daemon_memory(&server);
}

static void end(void)
{
    good_is_served();
    cr_expect(daemon_alive(&server));
    size_t memory = daemon_memory(&server);
    cr_expect_lt(memory, memory_before + GROWTH_MAX, "grew from %zu to %zu bytes",
                 memory_before, memory);
    close(good);
    daemon_stop(&server);
}

static void put_length(uint8_t out[4], uint32_t length)
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(length >> (8 * i));
    }
}

/* Send bytes after a hello; the answer is an error about the connection, and its end.
 */
static void expect_cut(const void *bytes, size_t size, enum opt_status status,
                       const char *text)
{
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    cr_expect(raw_send(fd, bytes, size));
    raw_expect_error(fd, 0, status, text);
    cr_expect(raw_closed(fd, WAIT_MS), "the connection stays");
    close(fd);
}

/* The first half of a push of a MiB. */
static uint8_t *half_push(size_t *half)
{
    static const uint8_t values[1 << 20];
    const struct opt_segment segment = { .count = sizeof(values) / 4 };
    const struct opt_request push = {
        .id = 7,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = 1,
                       .sequence = 1,
                       .samples = 1,
                       .segments = &segment,
                       .segment_count = 1,
                       .last = true },
    };
    size_t size = 0;
    uint8_t *frame = raw_frame(&push, values, sizeof(values), &size);
    *half = size / 2;
    return frame;
}

Test(hostile, oversize_lengths_are_refused)
{
    static const uint32_t lengths[] = { (64u << 20) + 1, 1u << 31, UINT32_MAX };
    begin(NULL);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint8_t prefix[4];
        put_length(prefix, lengths[i]);
        char announced[32];
        snprintf(announced, sizeof(announced), "%u bytes", lengths[i]);
        expect_cut(prefix, sizeof(prefix), OPT_RESOURCE_EXHAUSTED, announced);
    }
    end();
}

/* A length within the limit costs nothing before bytes arrive. */
Test(hostile, promised_bytes_cost_nothing)
{
    enum { COUNT = 100 };
    begin(NULL);
    int fds[COUNT];
    uint8_t prefix[4];
    put_length(prefix, 64u << 20);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = raw_connect(server.port);
        raw_hello(fds[i], "");
        cr_expect(raw_send(fds[i], prefix, sizeof(prefix)));
    }
    good_is_served();
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    end();
}

Test(hostile, an_empty_frame_is_refused)
{
    static const uint8_t empty[4];
    begin(NULL);
    expect_cut(empty, sizeof(empty), OPT_INVALID_ARGUMENT, "");
    end();
}

Test(hostile, truncated_frames_leave_nothing)
{
    begin(NULL);
    size_t half = 0;
    uint8_t *frame = half_push(&half);
    for (size_t size = 1; size < 200; size++) {
        int fd = raw_connect(server.port);
        raw_hello(fd, "");
        cr_expect(raw_send(fd, frame, size));
        close(fd);
    }
    free(frame);
    end();
}

/* xorshift64: the same bytes in every run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(hostile, random_bytes_are_cut_off)
{
    begin((const char *[]){ "--hello-timeout", "300ms", "--frame-timeout", "300ms",
                            NULL });
    uint64_t state = 20261122;
    for (int i = 0; i < 100; i++) {
        uint8_t bytes[512];
        for (size_t k = 0; k < sizeof(bytes); k++) {
            bytes[k] = (uint8_t)next_random(&state);
        }
        if (i % 2 == 0) {
            /* Half of them with a length that fits, so that the parser sees them. */
            put_length(bytes, sizeof(bytes) - 4);
        }
        int fd = raw_connect(server.port);
        if (raw_send(fd, bytes, sizeof(bytes))) {
            cr_expect(raw_closed(fd, WAIT_MS), "run %d: the connection stays", i);
        }
        close(fd);
    }
    end();
}

Test(hostile, deep_nesting_is_refused)
{
    enum { SIZE = 60000 };
    static uint8_t frame[4 + SIZE];
    begin(NULL);
    put_length(frame, SIZE);
    /* Groups within groups. */
    memset(frame + 4, 0x0B, SIZE);
    expect_cut(frame, sizeof(frame), OPT_INVALID_ARGUMENT, "");
    /* Field 14 (list, which has no fields) filled with messages in messages. */
    uint8_t *at = frame + 4;
    for (uint32_t left = SIZE; left > 8; left -= 4, at += 4) {
        uint32_t inner = left - 4;
        at[0] = 0x72;
        at[1] = (uint8_t)(inner | 0x80);
        at[2] = (uint8_t)(inner >> 7 | 0x80);
        at[3] = (uint8_t)(inner >> 14);
    }
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    cr_expect(raw_send(fd, frame, sizeof(frame)));
    raw_expect_error(fd, 0, OPT_INVALID_ARGUMENT, "");
    close(fd);
    end();
}

Test(hostile, many_empty_messages_stay_within_the_budget)
{
    enum { SIZE = 65000 };
    static uint8_t frame[4 + SIZE];
    begin(NULL);
    put_length(frame, SIZE);
    for (size_t i = 0; i + 1 < SIZE; i += 2) {
        frame[4 + i] = 0x92; /* field 2, wire type 2 ... */
        frame[4 + i + 1] = 0x00;
    }
    for (int i = 0; i < 20; i++) {
        int fd = raw_connect(server.port);
        raw_hello(fd, "");
        cr_expect(raw_send(fd, frame, sizeof(frame)));
        struct raw_reply reply;
        cr_assert(raw_receive(fd, &reply));
        cr_expect_eq(reply.reply.message, OPT_MESSAGE_ERROR);
        raw_reply_fini(&reply);
        close(fd);
    }
    end();
}

Test(hostile, an_unknown_message_is_answered_by_its_id)
{
    /* id 9 and an empty body 99 */
    static const uint8_t frame[] = { 5, 0, 0, 0, 0x08, 9, 0x9A, 0x06, 0x00 };
    begin(NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    cr_expect(raw_send(fd, frame, sizeof(frame)));
    raw_expect_error(fd, 9, OPT_UNIMPLEMENTED, "");
    raw_heartbeat(fd, 10);
    close(fd);
    end();
}

Test(hostile, nothing_is_served_before_hello)
{
    begin((const char *[]){ "--hello-timeout", "500ms", NULL });
    int fd = raw_connect(server.port);
    const struct opt_request wait = { .id = 3, .message = OPT_MESSAGE_STATISTICS };
    cr_expect(raw_request(fd, &wait, NULL, 0));
    raw_expect_error(fd, 3, OPT_FAILED_PRECONDITION, "hello");
    raw_hello(fd, "");
    raw_heartbeat(fd, 4);
    close(fd);
    int silent = raw_connect(server.port);
    raw_expect_error(silent, 0, OPT_DEADLINE_EXCEEDED, "hello");
    cr_expect(raw_closed(silent, WAIT_MS));
    close(silent);
    end();
}

Test(hostile, data_that_a_request_does_not_have_is_refused)
{
    begin(NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    const struct opt_request request = { .id = 5, .message = OPT_MESSAGE_HEARTBEAT };
    cr_expect(raw_request(fd, &request, "12345", 5));
    raw_expect_error(fd, 5, OPT_INVALID_ARGUMENT, "5 bytes");
    raw_heartbeat(fd, 6);
    close(fd);
    end();
}

Test(hostile, damaged_data_is_found)
{
    begin(NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "damaged");
    const float values[4] = { 1, 2, 3, 4 };
    const struct opt_segment segment = { .count = 4 };
    const struct opt_request push = {
        .id = 8,
        .has_checksum = true,
        .checksum = 1,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = 1,
                       .sequence = 1,
                       .samples = 1,
                       .segments = &segment,
                       .segment_count = 1,
                       .last = true },
    };
    cr_expect(raw_request(fd, &push, values, sizeof(values)));
    raw_expect_error(fd, 8, OPT_DATA_LOSS, "XXH3");
    raw_heartbeat(fd, 9);
    close(fd);
    end();
}

/* Send one byte at a time until the daemon says something. */
static void drip(int fd, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!raw_send(fd, bytes + i, 1)) {
            return;
        }
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        if (poll(&wait, 1, 20) > 0) {
            return;
        }
    }
    cr_expect_fail("%zu bytes were taken one by one", size);
}

Test(hostile, one_byte_at_a_time_is_cut_off)
{
    begin((const char *[]){ "--hello-timeout", "400ms", "--frame-timeout", "400ms",
                            NULL });
    size_t half = 0;
    uint8_t *frame = half_push(&half);
    int before = raw_connect(server.port);
    drip(before, frame, half);
    raw_expect_error(before, 0, OPT_DEADLINE_EXCEEDED, "");
    close(before);
    int after = raw_connect(server.port);
    raw_hello(after, "");
    drip(after, frame, half);
    raw_expect_error(after, 0, OPT_DEADLINE_EXCEEDED, "bytes a second");
    cr_expect(raw_closed(after, WAIT_MS));
    close(after);
    free(frame);
    end();
}

Test(hostile, a_silent_worker_loses_its_lease)
{
    begin((const char *[]){ "--lease", "400ms", "--heartbeat", "100ms", NULL });
    int fd = raw_connect(server.port);
    raw_hello(fd, "silent");
    raw_expect_error(fd, 0, OPT_DEADLINE_EXCEEDED, "lease");
    cr_expect(raw_closed(fd, WAIT_MS));
    close(fd);
    end();
}

Test(hostile, an_idle_observer_is_let_go)
{
    begin((const char *[]){ "--idle-timeout", "600ms", NULL });
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    for (int i = 0; i < 8; i++) {
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        if (poll(&wait, 1, 200) > 0) {
            break;
        }
        good_is_served();
    }
    raw_expect_error(fd, 0, OPT_DEADLINE_EXCEEDED, "observer");
    close(fd);
    end();
}

/* Requests without end, and nobody who reads the answers. */
Test(hostile, a_peer_that_never_reads_is_cut_off)
{
    begin((const char *[]){ "--write-timeout", "500ms", "--user-timeout", "0", NULL });
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    static uint8_t burst[9 * 7000];
    for (size_t i = 0; i + 9 <= sizeof(burst); i += 9) {
        memcpy(burst + i, (const uint8_t[]){ 5, 0, 0, 0, 0x08, 9, 0x9A, 0x06, 0x00 },
               9);
    }
    /* The daemon stops reading, so at some point nothing can be sent any more. */
    struct pollfd wait = { .fd = fd, .events = POLLOUT };
    while (poll(&wait, 1, 2000) > 0 && (wait.revents & (POLLERR | POLLHUP)) == 0 &&
           raw_send(fd, burst, sizeof(burst))) {
        wait.revents = 0;
    }
    cr_expect(daemon_logged(&server, "reads nothing", WAIT_MS));
    close(fd);
    end();
}

Test(hostile, two_hundred_half_pushes_do_not_disturb_others)
{
    enum { COUNT = 200 };
    begin(NULL);
    size_t half = 0;
    uint8_t *frame = half_push(&half);
    static int fds[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char worker[32];
        snprintf(worker, sizeof(worker), "half %d", i);
        fds[i] = raw_connect(server.port);
        raw_hello(fds[i], worker);
        cr_expect(raw_send(fds[i], frame, half));
        if (i % 10 == 0) {
            good_is_served();
        }
    }
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
        if (i % 10 == 0) {
            good_is_served();
        }
    }
    free(frame);
    /* What they held is used again, and given back when it is not. */
    size_t bound = memory_before + GROWTH_MAX;
    for (int i = 0; i < 100 && daemon_memory(&server) >= bound; i++) {
        struct pollfd wait = { .fd = good, .events = POLLIN };
        poll(&wait, 1, 100);
    }
    end();
}

Test(hostile, ten_thousand_requests_at_once_are_all_answered)
{
    enum { COUNT = 10000 };
    begin(NULL);
    int fd = raw_connect(server.port);
    raw_hello(fd, "");
    size_t used = 0;
    uint8_t *burst = malloc(COUNT * 64);
    for (uint64_t id = 1; id <= COUNT; id++) {
        const struct opt_request request = { .id = id,
                                             .message = OPT_MESSAGE_HEARTBEAT };
        size_t size = 0;
        uint8_t *frame = raw_frame(&request, NULL, 0, &size);
        memcpy(burst + used, frame, size);
        used += size;
        free(frame);
    }
    cr_assert(raw_send(fd, burst, used));
    free(burst);
    static bool answered[COUNT + 1];
    for (int i = 0; i < COUNT; i++) {
        struct raw_reply reply;
        cr_assert(raw_receive(fd, &reply));
        cr_assert_eq(reply.reply.message, OPT_MESSAGE_HEARTBEAT);
        cr_assert_leq(reply.reply.id, (uint64_t)COUNT);
        cr_expect_not(answered[reply.reply.id]);
        answered[reply.reply.id] = true;
        raw_reply_fini(&reply);
    }
    close(fd);
    end();
}
