/* What a step costs the daemon when nothing is new any more: no allocation, few locks
 * that nobody else holds, and no copy of tensor data but what came with a header.
 *
 * Engine and loop run inside this process, and their allocations and locks go through
 * the functions below, which count those of every thread but the test's own.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/frame.h"
#include "server/base/counters.h"
#include "server/net/loop.h"
#include "server/turn/engine.h"
#include "tests/support/engine_harness.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum {
    WARM = 100,
    COUNTED = 100,
    SMALL = 16,
    SMALL_LOCKS = 7, /* of a request that the loop serves for the engine */
    LARGE = 256 << 10,
    LARGE_LOCKS = 10, /* of one that wakes the engine, and has its data in a buffer */
    OTHER_LOCKS = 50, /* of the engine's thread, which may be awake as well */
    VERSIONS = 16     /* allocations that fresh versions take */
};

static atomic_ulong allocations, locks;

/* ----------------------------------------------------------------------- counting */

#if !IS_SANITIZED
#define INSTEAD __attribute__((visibility("default")))

static _Thread_local bool is_test;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count(atomic_ulong *counter)
{
    if (!is_test) {
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    }
}

INSTEAD void *malloc(size_t size)
{
    count(&allocations);
    return __libc_malloc(size);
}

INSTEAD void *calloc(size_t count_, size_t size)
{
    count(&allocations);
    return __libc_calloc(count_, size);
}

INSTEAD void *realloc(void *memory, size_t size)
{
    count(&allocations);
    return __libc_realloc(memory, size);
}

INSTEAD void *aligned_alloc(size_t alignment, size_t size)
{
    count(&allocations);
    return __libc_memalign(alignment, size);
}

static int (*real_lock)(pthread_mutex_t *mutex);

__attribute__((constructor)) static void find_lock(void)
{
    is_test = true;
    /* POSIX means it to be so converted, ISO C does not know how. */
    *(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
}

INSTEAD int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    count(&locks);
    return real_lock == NULL ? 0 : real_lock(mutex);
}
#endif

/* ------------------------------------------------------------------------- daemon */

struct inside {
    struct engine *engine;
    struct loops *loops;
    int socket; /* the worker's end */
    uint64_t last_id, sequence;
    uint32_t model;
    size_t elements;
    float *gradient;
};

static struct net_limits limits(void)
{
    return (struct net_limits){
        .frame = { .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES },
        .connections = 4,
        .table_bytes = 1 << 20,
        .connection_bytes = 64 << 20,
        .inflight_bytes = 256 << 20,
        .hello_ms = RAW_WAIT_MS,
        .frame_ms = RAW_WAIT_MS,
        .frame_rate = 1,
        .write_ms = RAW_WAIT_MS,
        .idle_ms = 10 * RAW_WAIT_MS,
        .room_ms = RAW_WAIT_MS,
        .shares_memory = true,
        .congestion = "",
    };
}

/* Ask, and take the answer; its data is thrown away. */
static struct opt_reply ask(struct inside *inside, struct opt_request *request,
                            const void *data, size_t size)
{
    struct raw_reply reply;
    request->id = ++inside->last_id;
    request->timeout_ms = RAW_WAIT_MS;
    cr_assert(raw_request(inside->socket, request, data, size));
    cr_assert(raw_receive(inside->socket, &reply));
    cr_assert_neq(reply.reply.message, OPT_MESSAGE_ERROR, "%s",
                  reply.reply.body.error.text);
    struct opt_reply answer = reply.reply;
    raw_reply_fini(&reply);
    return answer;
}

static void create(struct inside *inside)
{
    uint64_t shape = inside->elements;
    const struct opt_tensor_entry entry = {
        .name = "w", .shape = &shape, .rank = 1, .elements = shape
    };
    uint8_t table[256];
    size_t size = opt_tensor_table_pack(&entry, 1, table, sizeof(table));
    cr_assert_leq(size, sizeof(table));
    struct opt_request request = {
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "steady",
                         .specification = { .expression = "adam", .rule = "" },
                         .consistency = { .min_workers = 1 },
                         .join = true },
    };
    inside->model = ask(inside, &request, table, size).body.model.model;
}

static void begin(struct inside *inside, size_t elements)
{
    int ends[2];
    struct opt_error error;
    struct net_limits net = limits();
    struct engine_settings settings = harness_settings();
    *inside = (struct inside){ .elements = elements };
    signal(SIGPIPE, SIG_IGN); /* as main does: a peer may be gone when it is answered */
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(engine_start(&settings, &inside->engine, &error), OPT_OK);
    cr_assert_eq(loops_start(&net, 1, inside->engine, &inside->loops, &error), OPT_OK);
    loops_deal(inside->loops, ends[1], false);
    inside->socket = ends[0];
    inside->gradient = calloc(elements, sizeof(float));
    cr_assert_not_null(inside->gradient);
    raw_hello(inside->socket, "worker");
    create(inside);
}

static void end(struct inside *inside)
{
    close(inside->socket);
    loops_quiet(inside->loops);
    engine_stop(inside->engine);
    loops_stop(inside->loops);
    engine_free(inside->engine);
    free(inside->gradient);
}

static void push(struct inside *inside)
{
    const struct opt_segment all = { .tensor = 0 };
    struct opt_request request = {
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = inside->model,
                       .sequence = ++inside->sequence,
                       .samples = 1,
                       .segments = &all,
                       .segment_count = 1,
                       .last = true },
    };
    struct opt_reply reply =
        ask(inside, &request, inside->gradient, inside->elements * sizeof(float));
    cr_assert_eq(reply.body.push.fate, OPT_FATE_APPLIED);
}

static void pull(struct inside *inside)
{
    struct opt_request request = {
        .message = OPT_MESSAGE_PULL, .body.pull = { .model = inside->model, .slot = "" }
    };
    cr_assert(ask(inside, &request, NULL, 0).body.pull.last);
}

/* The same with values that are not sent, but in memory that both ends have. */
static void share(struct inside *inside)
{
    struct opt_request request = { .message = OPT_MESSAGE_SHARE,
                                   .body.share = inside->model };
    /* Its files are closed by the kernel: nobody has asked for them. */
    cr_assert_eq(ask(inside, &request, NULL, 0).message, OPT_MESSAGE_SHARE);
}

static void push_pull_by_place(struct inside *inside)
{
    const struct opt_segment all = { .tensor = 0, .count = inside->elements };
    const uint64_t at_begin = 0, last = inside->last_id;
    struct opt_request request = {
        .released = &last,
        .released_count = 1,
        .message = OPT_MESSAGE_PUSH_PULL,
        .body.push_pull = { .push = { .model = inside->model,
                                      .sequence = ++inside->sequence,
                                      .samples = 1,
                                      .segments = &all,
                                      .segment_count = 1,
                                      .places = &at_begin,
                                      .last = true },
                            .pull = { .model = inside->model,
                                      .slot = "",
                                      .shared = true },
                            .has_pull = true },
    };
    struct opt_reply reply = ask(inside, &request, NULL, 0);
    cr_assert_eq(reply.body.push_pull.push.fate, OPT_FATE_APPLIED);
    cr_assert_not_null(reply.body.push_pull.pull.places);
}

/* What some steps cost once a few have gone before. */
struct cost {
    unsigned long allocations, locks;
    uint64_t moved;
};

static struct cost measure(struct inside *inside, void (*step)(struct inside *inside))
{
    for (int i = 0; i < WARM; i++) {
        step(inside);
    }
    struct cost cost = { atomic_load(&allocations), atomic_load(&locks),
                         counter_read(COUNTER_DATA_MOVED) };
    for (int i = 0; i < COUNTED; i++) {
        step(inside);
    }
    cost.allocations = atomic_load(&allocations) - cost.allocations;
    cost.locks = atomic_load(&locks) - cost.locks;
    cost.moved = counter_read(COUNTER_DATA_MOVED) - cost.moved;
    return cost;
}

static void push_and_pull(struct inside *inside)
{
    push(inside);
    pull(inside);
}

static void expect_steady(size_t elements, void (*step)(struct inside *inside),
                          unsigned long allowed, size_t requests)
{
    struct inside inside;
    begin(&inside, elements);
    if (step == push_pull_by_place) {
        share(&inside);
    }
    uint64_t received = counter_read(COUNTER_BYTES_RECEIVED);
    uint64_t sent = counter_read(COUNTER_BYTES_SENT);
    struct cost cost = measure(&inside, step);
    received = counter_read(COUNTER_BYTES_RECEIVED) - received;
    sent = counter_read(COUNTER_BYTES_SENT) - sent;
    end(&inside);
    if (step == push_pull_by_place) {
        cr_expect_lt(received + sent, (uint64_t)(WARM + COUNTED) * 200);
        cr_expect_eq(cost.moved, 0u);
    }
    cr_expect_leq(cost.moved, (uint64_t)COUNTED * OPT_FRAME_STAGE,
                  "%lu bytes were moved in %d steps", (unsigned long)cost.moved,
                  COUNTED);
    if (!IS_SANITIZED) {
        cr_expect_leq(cost.allocations, allowed, "%lu allocations in %d steps",
                      cost.allocations, COUNTED);
        cr_expect_leq(cost.locks,
                      requests * COUNTED *
                              (elements == LARGE ? LARGE_LOCKS : SMALL_LOCKS) +
                          OTHER_LOCKS,
                      "%lu locks in %d steps", cost.locks, COUNTED);
    }
}

Test(steady, a_small_push_allocates_nothing, .timeout = 60)
{
    expect_steady(SMALL, push, 0, 1);
}

Test(steady, a_large_push_allocates_nothing, .timeout = 60)
{
    expect_steady(LARGE, push, 0, 1);
}

/* A shard that a reply still holds when it is updated gets a fresh version, now and
 * then; nothing else is allocated for a pull. */
Test(steady, a_small_pull_allocates_nothing_but_versions, .timeout = 60)
{
    expect_steady(SMALL, push_and_pull, VERSIONS, 2);
}

Test(steady, a_large_pull_allocates_nothing_but_versions, .timeout = 60)
{
    expect_steady(LARGE, push_and_pull, VERSIONS, 2);
}

Test(steady, a_small_step_in_shared_memory_allocates_and_sends_nothing, .timeout = 60)
{
    expect_steady(SMALL, push_pull_by_place, 0, 1);
}

Test(steady, a_large_step_in_shared_memory_allocates_and_sends_nothing, .timeout = 60)
{
    expect_steady(LARGE, push_pull_by_place, 0, 1);
}
