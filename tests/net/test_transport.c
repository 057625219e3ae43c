/* transport — a connection whose bytes go through memory: requests come in and answers
 * go out in every portion there is, stop anywhere, and end anywhere. Nothing may hang,
 * and everything that a connection held is given back. And transports of sockets: that
 * a loop can dial, and what they know of the peer.
 *
 * The loop runs on the test's thread, so that what a test does to the bytes happens
 * between two of its callbacks; the engine has its own thread as ever.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "server/net/conn.h"
#include "server/net/loop.h"
#include "server/turn/engine.h"
#include "tests/support/engine_harness.h"
#include "tests/support/memory_transport.h"
#include "tests/support/raw.h"

enum { ELEMENTS = 8, MANY = 2 * LETTERS_MAX, REQUESTS_BYTES = 64 << 10 };

struct rig {
    struct engine *engine;
    struct loops *loops;
    struct loop *loop;
    uint32_t model; /* small, two tensors, asynchronous, sgd(lr=1) */
    unsigned workers;
};

static struct net_limits limits_of_rig(void)
{
    return (struct net_limits){
        .frame = { .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES },
        .connections = 16,
        .table_bytes = 1 << 20,
        .connection_bytes = 16 << 20,
        .inflight_bytes = 256 << 20,
        .hello_ms = 600000,
        .frame_ms = 600000,
        .write_ms = 600000,
        .idle_ms = 600000,
        .room_ms = 600000,
        .congestion = "",
    };
}

/* ----------------------------------------------------------------- connections */

static bool has_gone(const struct rig *rig)
{
    return rig->loop->conns == NULL && rig->loop->farewells == 0;
}

static void serve(struct rig *rig, struct memory_transport *memory)
{
    struct opt_transport transport = memory_transport_carry(memory);
    atomic_fetch_add(&rig->loops->connections, 1);
    loop_serve(rig->loop, &transport, false);
    loop_settle(rig->loop);
}

/* One thing that is due, or wait for the engine. False: only the engine could do
 * something, and need not. */
static bool turn(struct rig *rig, struct memory_transport *memory, bool waits)
{
    struct conn *conn = rig->loop->conns;
    unsigned due = conn == NULL || memory->closed
                       ? 0
                       : memory_transport_due(memory, conn->watch.events);
    if (due != 0) {
        watch_happened(&conn->watch, due);
    }
    uv_run(&rig->loop->uv, due == 0 && waits ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    return due != 0;
}

static size_t frame_size(const uint8_t *bytes)
{
    return OPT_FRAME_PREFIX + ((size_t)bytes[0] | (size_t)bytes[1] << 8 |
                               (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24);
}

/* Whole frames that have gone out. */
static size_t frames_out(const struct memory_transport *memory)
{
    size_t count = 0, at = 0;
    while (at + OPT_FRAME_PREFIX <= memory->out_size &&
           at + frame_size(memory->out + at) <= memory->out_size) {
        at += frame_size(memory->out + at);
        count++;
    }
    return count;
}

/* Frame number which of those that went out. */
static void reply_at(const struct memory_transport *memory, size_t which,
                     struct raw_reply *out)
{
    size_t at = 0;
    for (size_t i = 0; i < which; i++) {
        at += frame_size(memory->out + at);
    }
    raw_read(memory->out + at, frame_size(memory->out + at), out);
}

static void await_frames(struct rig *rig, struct memory_transport *memory, size_t count)
{
    while (frames_out(memory) < count) {
        struct raw_reply last = { .data = NULL };
        if (memory->closed && frames_out(memory) > 0) {
            reply_at(memory, frames_out(memory) - 1, &last);
        }
        cr_assert_not(memory->closed, "the connection has ended after %zu frames: %s",
                      frames_out(memory),
                      last.reply.message == OPT_MESSAGE_ERROR
                          ? last.reply.body.error.text
                          : "no error");
        turn(rig, memory, true);
    }
}

/* The peer goes, or has gone; nothing is left of the connection. */
static void await_end(struct rig *rig, struct memory_transport *memory)
{
    memory->in_end = memory->in_end != 0 ? memory->in_end : MEMORY_ENDS;
    while (!has_gone(rig)) {
        turn(rig, memory, true);
    }
    cr_assert(memory->closed);
    cr_assert_eq(atomic_load(&rig->loops->connections), 0U);
    cr_assert_eq(atomic_load(&rig->loops->quota.used), 0U);
    cr_assert_eq(atomic_load(&rig->loops->quota.guests), 0U);
    cr_assert_null(rig->loop->ready);
}

/* -------------------------------------------------------------------- requests */

struct script {
    uint8_t bytes[REQUESTS_BYTES];
    size_t size;
    size_t answers; /* that are to come */
};

static void say(struct script *script, struct opt_request request, const void *data,
                size_t data_size, bool answered)
{
    size_t size = 0;
    request.id = script->answers + 1;
    uint8_t *frame = raw_frame(&request, data, data_size, &size);
    cr_assert_leq(script->size + size, (size_t)REQUESTS_BYTES);
    memcpy(script->bytes + script->size, frame, size);
    free(frame);
    script->size += size;
    script->answers += answered;
}

static void say_hello(struct script *script, const char *worker)
{
    say(script,
        (struct opt_request){ .message = OPT_MESSAGE_HELLO,
                              .body.hello = { .protocol = OPT_PROTOCOL,
                                              .worker = worker,
                                              .session = 1,
                                              .client = "test",
                                              .max_frame_bytes = OPT_FRAME_BYTES } },
        NULL, 0, true);
}

static void say_pull(struct script *script, uint32_t model, enum opt_dtype dtype,
                     bool checksum)
{
    say(script,
        (struct opt_request){
            .message = OPT_MESSAGE_PULL,
            .has_checksum = checksum,
            .body.pull = { .model = model, .slot = "", .dtype = dtype } },
        NULL, 0, true);
}

/* What a worker says: a push in two frames, another that is a pull as well, tables,
 * checksums, a request that is refused. */
static struct script *session(struct rig *rig)
{
    struct script *script = calloc(1, sizeof(*script));
    cr_assert_not_null(script);
    char worker[32];
    snprintf(worker, sizeof(worker), "w%u", rig->workers++);
    const float ones[ELEMENTS] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    struct opt_segment both[2] = { { .tensor = 0 }, { .tensor = 1 } };
    struct opt_push push = { .model = rig->model,
                             .sequence = 1,
                             .samples = 1,
                             .segments = both,
                             .segment_count = 1 };
    say_hello(script, worker);
    say(script,
        (struct opt_request){ .message = OPT_MESSAGE_OPEN,
                              .body.open = { .model = "small", .join = true } },
        NULL, 0, true);
    say_pull(script, rig->model, OPT_FP32, true);
    say(script, (struct opt_request){ .message = OPT_MESSAGE_PUSH, .body.push = push },
        ones, sizeof(ones) / 2, false);
    push.segments = both + 1;
    push.frame = 1;
    push.last = true;
    say(script, (struct opt_request){ .message = OPT_MESSAGE_PUSH, .body.push = push },
        ones, sizeof(ones) / 2, true);
    say(script, (struct opt_request){ .message = OPT_MESSAGE_LIST }, NULL, 0, true);
    push.frame = 0;
    push.sequence = 2;
    push.segments = both;
    push.segment_count = 2;
    say(script,
        (struct opt_request){
            .message = OPT_MESSAGE_PUSH_PULL,
            .body.push_pull = { .push = push,
                                .pull = { .model = rig->model, .slot = "" },
                                .has_pull = true } },
        ones, sizeof(ones), true);
    say_pull(script, rig->model + 1000, OPT_FP32, false);
    say(script, (struct opt_request){ .message = OPT_MESSAGE_HEARTBEAT }, NULL, 0,
        true);
    return script;
}

static float first_value(const struct raw_reply *answer)
{
    float value = 0;
    cr_assert_eq(answer->data_size, ELEMENTS * sizeof(float));
    memcpy(&value, answer->data, sizeof(value));
    return value;
}

/* That a session's answers are all there, each once, and true. */
static void judge(const struct memory_transport *memory, const struct script *script)
{
    static const enum opt_message messages[] = {
        OPT_MESSAGE_HELLO, OPT_MESSAGE_CREATE,   OPT_MESSAGE_PULL,
        OPT_MESSAGE_PUSH,  OPT_MESSAGE_LIST,     OPT_MESSAGE_PUSH_PULL,
        OPT_MESSAGE_ERROR, OPT_MESSAGE_HEARTBEAT
    };
    struct raw_reply answers[sizeof(messages) / sizeof(messages[0])];
    size_t count = sizeof(messages) / sizeof(messages[0]), seen = 0;
    cr_assert_eq(script->answers, count);
    cr_assert_eq(frames_out(memory), count);
    for (size_t i = 0; i < count; i++) {
        struct raw_reply one;
        reply_at(memory, i, &one);
        size_t id = (size_t)one.reply.id;
        cr_assert(id >= 1 && id <= count && (seen & (size_t)1 << id) == 0);
        cr_assert_eq(one.reply.message, messages[id - 1], "answer %zu is %s", id,
                     one.reply.message == OPT_MESSAGE_ERROR
                         ? one.reply.body.error.text
                         : opt_message_name(one.reply.message));
        seen |= (size_t)1 << id;
        answers[id - 1] = one;
    }
    /* Two gradients of ones lie between what the pulls tell. */
    cr_assert_eq(first_value(&answers[2]) - first_value(&answers[5]), 2.0F);
    for (size_t i = 0; i < count; i++) {
        raw_reply_fini(&answers[i]);
    }
}

/* ------------------------------------------------------------------------- rig */

static uint32_t create_model(struct rig *rig, const char *name, uint64_t elements)
{
    struct script script = { .size = 0 };
    uint8_t table[256];
    uint64_t half = elements / 2;
    struct opt_tensor_entry tensors[2] = {
        { .name = "one", .shape = &half, .rank = 1, .elements = half },
        { .name = "other", .shape = &half, .rank = 1, .elements = half },
    };
    size_t size = opt_tensor_table_pack(tensors, 2, table, sizeof(table));
    say_hello(&script, "");
    say(&script,
        (struct opt_request){
            .message = OPT_MESSAGE_CREATE,
            .body.create = { .model = name,
                             .specification = { .expression = "sgd(lr=1)", .rule = "" },
                             .consistency = { .mode = OPT_ASYNC, .min_workers = 1 } } },
        table, size, true);
    struct memory_transport memory = memory_transport_new();
    memory.in = script.bytes;
    memory.in_size = script.size;
    serve(rig, &memory);
    await_frames(rig, &memory, 2);
    struct raw_reply answer;
    reply_at(&memory, 1, &answer);
    cr_assert_eq(
        answer.reply.message, OPT_MESSAGE_CREATE, "%s",
        answer.reply.message == OPT_MESSAGE_ERROR ? answer.reply.body.error.text : "");
    uint32_t model = answer.reply.body.model.model;
    raw_reply_fini(&answer);
    await_end(rig, &memory);
    memory_transport_fini(&memory);
    return model;
}

static void rig_open(struct rig *rig, struct net_limits limits)
{
    struct opt_error error;
    opt_log_set_level(OPT_LOG_ERROR); /* what is tried here is not news */
    *rig = (struct rig){ .workers = 0 };
    struct engine_settings settings = harness_settings();
    settings.threads = settings.shared_threads = 1;
    cr_assert_eq(engine_start(&settings, &rig->engine, &error), OPT_OK);
    cr_assert_eq(loops_new(&limits, 1, rig->engine, &rig->loops, &error), OPT_OK);
    rig->loop = &rig->loops->loop[0];
    rig->model = create_model(rig, "small", ELEMENTS);
}

static void rig_close(struct rig *rig)
{
    loops_quiet(rig->loops);
    engine_stop(rig->engine);
    loops_stop(rig->loops);
    engine_free(rig->engine);
}

/* A whole session over a transport that is like this. */
static void converse(struct rig *rig, struct memory_transport memory)
{
    struct script *script = session(rig);
    memory.in = script->bytes;
    memory.in_size = script->size;
    serve(rig, &memory);
    await_frames(rig, &memory, script->answers);
    judge(&memory, script);
    await_end(rig, &memory);
    memory_transport_fini(&memory);
    free(script);
}

/* ------------------------------------------------------------------------ tests */

Test(transport, requests_come_in_two_pieces_wherever_they_are_split)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    size_t size = 1;
    for (size_t split = 0; split < size; split++) {
        struct script *script = session(&rig);
        struct memory_transport memory = memory_transport_new();
        size = script->size;
        memory.in = script->bytes;
        memory.in_size = split;
        serve(&rig, &memory);
        while (turn(&rig, &memory, false)) {
        }
        memory.in_size = size;
        await_frames(&rig, &memory, script->answers);
        judge(&memory, script);
        await_end(&rig, &memory);
        memory_transport_fini(&memory);
        free(script);
    }
    rig_close(&rig);
}

Test(transport, bytes_come_and_go_in_pieces_of_any_size)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    for (size_t most = 1; most < 48; most++) {
        struct memory_transport memory = memory_transport_new();
        memory.read_most = most;
        converse(&rig, memory);
        memory.write_most = most;
        memory.read_most = 0;
        converse(&rig, memory);
        memory.read_most = 48 - most;
        converse(&rig, memory);
    }
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct memory_transport memory = memory_transport_new();
        memory.read_most = memory.write_most = 97;
        memory.chance = seed;
        converse(&rig, memory);
    }
    rig_close(&rig);
}

/* Of a session, so many bytes come, and the peer takes so many; then it goes, or turns
 * out to have gone. */
static void break_off(struct rig *rig, size_t in, size_t out, int in_end, int out_end)
{
    struct script *script = session(rig);
    struct memory_transport memory = memory_transport_new();
    memory.in = script->bytes;
    memory.in_size = in < script->size ? in : script->size;
    memory.out_room = out;
    memory.out_end = out_end;
    serve(rig, &memory);
    while (out == SIZE_MAX ? turn(rig, &memory, false) : memory.out_size < out) {
        turn(rig, &memory, out != SIZE_MAX);
    }
    memory.in_end = in_end;
    await_end(rig, &memory);
    memory_transport_fini(&memory);
    free(script);
}

Test(transport, a_connection_that_breaks_at_any_byte_it_sends_leaves_nothing)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    struct script *script = session(&rig);
    for (size_t in = 0; in <= script->size; in++) {
        break_off(&rig, in, SIZE_MAX, in % 2 == 0 ? MEMORY_ENDS : ECONNRESET, 0);
    }
    free(script);
    rig_close(&rig);
}

Test(transport, a_connection_that_breaks_at_any_byte_it_takes_leaves_nothing)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    struct script *script = session(&rig);
    struct memory_transport memory = memory_transport_new();
    memory.in = script->bytes;
    memory.in_size = script->size;
    serve(&rig, &memory);
    await_frames(&rig, &memory, script->answers);
    size_t size = memory.out_size;
    await_end(&rig, &memory);
    for (size_t out = 0; out < size - 16; out++) {
        break_off(&rig, SIZE_MAX, out, MEMORY_ENDS, 0);
        break_off(&rig, SIZE_MAX, out, ECONNRESET, EPIPE);
    }
    memory_transport_fini(&memory);
    free(script);
    rig_close(&rig);
}

/* As of a transport that decrypts: it has more than a read takes, and the descriptor
 * has nothing any more. */
Test(transport, what_a_transport_holds_is_read_although_no_event_tells_of_it)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    for (size_t most = 1; most < 64; most++) {
        struct memory_transport memory = memory_transport_new();
        memory.holds = true;
        memory.read_most = most;
        converse(&rig, memory);
    }
    rig_close(&rig);
}

/* A peer that asks for much and takes nothing is not read from; what the transport
 * holds meanwhile is read as soon as it takes its answers. */
Test(transport, a_pause_does_not_lose_what_the_transport_holds)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    struct script *script = calloc(1, sizeof(*script));
    say_hello(script, "");
    while (script->answers < MANY) {
        say_pull(script, rig.model, OPT_FP32, false);
    }
    struct memory_transport memory = memory_transport_new();
    memory.in = script->bytes;
    memory.in_size = script->size;
    memory.holds = true;
    memory.read_most = 64;
    memory.out_room = 1;
    serve(&rig, &memory);
    while (rig.loop->conns->pause != PAUSE_OUTBOX) {
        turn(&rig, &memory, true);
    }
    cr_assert_lt(memory.in_read, memory.in_size);
    memory.out_room = SIZE_MAX;
    await_frames(&rig, &memory, script->answers);
    await_end(&rig, &memory);
    memory_transport_fini(&memory);
    free(script);
    rig_close(&rig);
}

/* -------------------------------------------------------------- large answers */

/* Pull a whole model over a transport that takes portions of most bytes. */
static void pull_large(struct rig *rig, uint32_t model, uint64_t elements,
                       enum opt_dtype dtype, bool checksum, size_t most)
{
    struct script script = { .size = 0 };
    struct memory_transport memory = memory_transport_new();
    say_hello(&script, "");
    say_pull(&script, model, dtype, checksum);
    memory.in = script.bytes;
    memory.in_size = script.size;
    memory.write_most = most;
    memory.chance = most;
    serve(rig, &memory);
    bool last = false;
    uint64_t came = 0;
    for (size_t which = 1; !last; which++) {
        await_frames(rig, &memory, which + 1);
        struct raw_reply answer;
        reply_at(&memory, which, &answer);
        cr_assert_eq(answer.reply.message, OPT_MESSAGE_PULL);
        for (size_t i = 0; i < answer.data_size; i++) {
            cr_assert_eq(answer.data[i], 0);
        }
        came += answer.data_size / opt_dtype_size(dtype);
        last = answer.reply.body.pull.last;
        raw_reply_fini(&answer);
    }
    cr_assert_eq(came, elements);
    await_end(rig, &memory);
    memory_transport_fini(&memory);
}

Test(transport, weights_go_out_as_the_peer_takes_them)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    const uint64_t elements = 3 << 20;
    uint32_t model = create_model(&rig, "large", elements);
    const size_t portions[] = { 0, 4093, 64 << 10, 5 << 20 };
    for (size_t i = 0; i < sizeof(portions) / sizeof(portions[0]); i++) {
        pull_large(&rig, model, elements, OPT_FP32, false, portions[i]);
        pull_large(&rig, model, elements, OPT_FP32, true, portions[i]);
        pull_large(&rig, model, elements, OPT_BF16, i % 2 == 0, portions[i]);
    }
    rig_close(&rig);
}

/* However fast the peer takes its answer, others have their turn in between. */
Test(transport, a_fast_reader_does_not_have_the_loop_for_itself)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    const uint64_t elements = 6 << 20;
    uint32_t model = create_model(&rig, "large", elements);
    struct script script = { .size = 0 };
    struct memory_transport memory = memory_transport_new();
    say_hello(&script, "");
    say_pull(&script, model, OPT_FP32, false);
    memory.in = script.bytes;
    memory.in_size = script.size;
    serve(&rig, &memory);
    size_t most = 0;
    for (size_t before = 0; memory.out_size < elements * sizeof(float);) {
        turn(&rig, &memory, true);
        most = memory.out_size - before > most ? memory.out_size - before : most;
        before = memory.out_size;
    }
    cr_expect_leq(most, (size_t)(AHEAD_BATCHES + 1) * OPT_CHUNK_BYTES);
    await_end(&rig, &memory);
    memory_transport_fini(&memory);
    rig_close(&rig);
}

/* --------------------------------------------------------------------- opening */

Test(transport, a_transport_that_has_to_be_opened_is_served_when_it_is)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    for (int steps = 1; steps < 4; steps++) {
        struct memory_transport memory = memory_transport_new();
        memory.opening = steps;
        converse(&rig, memory);
    }
    rig_close(&rig);
}

Test(transport, a_transport_that_does_not_open_is_closed)
{
    struct rig rig;
    rig_open(&rig, limits_of_rig());
    struct script *script = session(&rig);
    struct memory_transport memory = memory_transport_new();
    memory.in = script->bytes;
    memory.in_size = script->size;
    memory.opening = 2;
    memory.never = true;
    serve(&rig, &memory);
    while (!has_gone(&rig)) {
        turn(&rig, &memory, true);
    }
    cr_assert(memory.closed);
    cr_assert_eq(memory.reads + memory.writes, 0U);
    await_end(&rig, &memory);
    free(script);
    rig_close(&rig);
}

/* Whoever does not open is held to the deadline of hello, and nothing can be said. */
Test(transport, opening_has_a_deadline)
{
    struct rig rig;
    struct net_limits limits = limits_of_rig();
    rig_open(&rig, limits);
    rig.loops->limits.hello_ms = 0;
    struct memory_transport memory = memory_transport_new();
    memory.opening = 1;
    serve(&rig, &memory);
    while (!has_gone(&rig)) {
        uv_run(&rig.loop->uv, UV_RUN_ONCE);
    }
    cr_assert(memory.closed);
    cr_assert_eq(memory.writes, 0U);
    rig_close(&rig);
}

/* --------------------------------------------------------------------- sockets */

struct dialled {
    struct watch watch;
    bool opened, failed, closed;
    unsigned events;
    char text[OPT_ERROR_TEXT];
};

static void on_event(struct watch *watch, unsigned events)
{
    ((struct dialled *)watch)->events |= events;
    watch_for(watch, 0);
}

static void on_opened(struct watch *watch, const struct opt_error *error)
{
    struct dialled *dialled = (struct dialled *)watch;
    dialled->opened = error == NULL;
    dialled->failed = error != NULL;
    if (error != NULL) {
        snprintf(dialled->text, sizeof(dialled->text), "%s", error->text);
    }
    watch_for(watch, error == NULL ? WATCH_READ : 0);
}

static void on_closed(struct watch *watch)
{
    ((struct dialled *)watch)->closed = true;
}

static const struct watcher watcher = { .on_event = on_event,
                                        .on_opened = on_opened,
                                        .on_closed = on_closed };
static const struct opt_socket_tuning tuning = { .local = "", .other = "" };

static int listen_on(struct sockaddr *address, socklen_t *size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, address, *size), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 4), 0);
    cr_assert_eq(getsockname(fd, address, size), 0);
    return fd;
}

static void run_until(uv_loop_t *loop, const bool *happened, const bool *otherwise)
{
    while (!*happened && !*otherwise) {
        uv_run(loop, UV_RUN_ONCE);
    }
}

static void hang_up(uv_loop_t *loop, struct dialled *dialled)
{
    watch_close(&dialled->watch);
    run_until(loop, &dialled->closed, &dialled->closed);
    cr_assert_eq(uv_loop_close(loop), 0);
}

/* Dial, and send a byte each way. */
static void dial_and_talk(const struct sockaddr *address, socklen_t size, int listening,
                          const char *identity)
{
    uv_loop_t loop;
    struct dialled dialled = { .opened = false };
    struct opt_error error;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(
        watch_dial(&dialled.watch, &loop, address, size, &tuning, &watcher, &error),
        OPT_OK, "%s", error.text);
    cr_assert_not(dialled.watch.transport.is_open);
    run_until(&loop, &dialled.opened, &dialled.failed);
    cr_assert(dialled.opened, "%s", dialled.text);
    struct opt_transport *transport = &dialled.watch.transport;
    cr_expect_str_eq(transport->identity, identity);
    cr_expect(transport->kind->alive(transport));

    struct opt_transport other;
    opt_transport_adopt(&other, accept(listening, NULL, NULL), &tuning);
    cr_expect(other.is_open);
    cr_expect_str_eq(other.identity, identity);
    struct iovec pieces[] = { { .iov_base = "to", .iov_len = 2 },
                              { .iov_base = "you", .iov_len = 3 } };
    char heard[16] = "";
    cr_expect_eq(transport->kind->read(transport, heard, sizeof(heard)), -1);
    cr_expect_eq(errno, EAGAIN);
    cr_expect_eq(other.kind->write(&other, pieces, 2), 5);
    while (dialled.events == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect_eq(dialled.events, WATCH_READ);
    cr_expect_eq(transport->kind->read(transport, heard, sizeof(heard)), 5);
    cr_expect_str_eq(heard, "toyou");

    cr_expect(other.kind->finish(&other));
    watch_for(&dialled.watch, WATCH_READ);
    dialled.events = 0;
    while (dialled.events == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect_eq(transport->kind->read(transport, heard, sizeof(heard)), 0);
    cr_expect_not(transport->kind->alive(transport));
    other.kind->close(&other);
    hang_up(&loop, &dialled);
}

Test(transport, a_loop_dials_a_port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    int listening = listen_on((struct sockaddr *)&address, &size);
    dial_and_talk((struct sockaddr *)&address, size, listening, "");
    close(listening);
}

static struct sockaddr_un path_of_test(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/transport-%ld.sock",
             (long)getpid());
    return address;
}

Test(transport, a_loop_dials_a_unix_socket_and_knows_who_is_there)
{
    struct sockaddr_un address = path_of_test();
    socklen_t size = sizeof(address);
    char identity[32];
    snprintf(identity, sizeof(identity), "uid=%ld", (long)getuid());
    int listening = listen_on((struct sockaddr *)&address, &size);
    size = sizeof(address);
    dial_and_talk((struct sockaddr *)&address, size, listening, identity);
    close(listening);
    unlink(address.sun_path);
}

Test(transport, a_loop_that_dials_nobody_is_told_so)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    close(listen_on((struct sockaddr *)&address, &size));
    uv_loop_t loop;
    struct dialled dialled = { .opened = false };
    struct opt_error error;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(watch_dial(&dialled.watch, &loop, (struct sockaddr *)&address, size,
                            &tuning, &watcher, &error),
                 OPT_OK);
    run_until(&loop, &dialled.opened, &dialled.failed);
    cr_expect(dialled.failed);
    cr_expect_str_eq(dialled.text, "connect: Connection refused");
    hang_up(&loop, &dialled);

    struct sockaddr_un path = path_of_test();
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_expect_eq(watch_dial(&dialled.watch, &loop, (struct sockaddr *)&path,
                            sizeof(path), &tuning, &watcher, &error),
                 OPT_UNAVAILABLE);
    cr_expect_str_eq(error.text, "connect: No such file or directory");
    cr_assert_eq(uv_loop_close(&loop), 0);
}

/* Files go with bytes to whoever takes them, and to nobody else. */
Test(transport, descriptors_are_handed_over)
{
    for (int takes = 0; takes < 2; takes++) {
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
        struct opt_transport from, to;
        opt_transport_adopt(&from, ends[0], &tuning);
        opt_transport_adopt(&to, ends[1], &tuning);
        cr_assert(from.hands_over && to.hands_over);
        to.takes_files = takes != 0;
        int files[2] = { dup(STDIN_FILENO), dup(STDERR_FILENO) };
        char heard[8];
        cr_assert_eq(from.kind->hand_over(&from, "here", 4, files, 2), 4);
        cr_assert_eq(to.kind->read(&to, heard, sizeof(heard)), 4);
        for (int i = 0; i < 2; i++) {
            int file = opt_transport_take_file(&to);
            cr_expect_eq(file >= 0, takes != 0);
            close(files[i]);
            if (file >= 0) {
                close(file);
            }
        }
        cr_expect_eq(opt_transport_take_file(&to), -1);
        from.kind->close(&from);
        to.kind->close(&to);
    }
}
