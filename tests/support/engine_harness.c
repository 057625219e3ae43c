/* engine_harness — see engine_harness.h. */
#include "tests/support/engine_harness.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/log.h"
#include "server/messages/messages.h"

enum { ARENA = 8 << 20 };
static const uint64_t patience_ns = 20 * UINT64_C(1000000000);

struct engine_settings harness_settings(void)
{
    return (struct engine_settings){
        .threads = 2,
        .shared_threads = 2,
        .memory_bytes = (size_t)1 << 30,
        .max_tensors = 200000,
        .max_models = 16,
        .lease_ms = 5000,
        .grace_ms = 0,
        .heartbeat_ms = 1000,
        .timeout_limit_ms = 20000,
        .max_frame_bytes = OPT_FRAME_BYTES,
        .max_header_bytes = OPT_HEADER_BYTES,
        .connection_bytes = 16 << 20,
        .row = message_row,
    };
}

void harness_open(struct harness *harness, struct engine_settings settings)
{
    struct opt_error error;
    *harness = (struct harness){ 0 };
    opt_log_set_level(OPT_LOG_ERROR); /* what is tried here is not news */
    cr_assert(mailbox_init(&harness->box) == 0);
    enum opt_status status = engine_start(&settings, &harness->engine, &error);
    cr_assert(status == OPT_OK, "%s", error.text);
}

static void collect(struct harness *harness, uint64_t timeout_ns)
{
    mailbox_await(&harness->box, timeout_ns);
    struct letter *letter = mailbox_take(&harness->box);
    while (letter != NULL) {
        struct letter *next = letter->next;
        letter->next = harness->back;
        harness->back = letter;
        letter->arrived_ns = ++harness->returned;
        harness->out -= letter->kind != LETTER_PART; /* those are the engine's own */
        letter = next;
    }
}

void harness_close(struct harness *harness)
{
    engine_stop(harness->engine);
    harness_close_stopped(harness);
}

void harness_close_stopped(struct harness *harness)
{
    uint64_t start = uv_hrtime();
    while (harness->out > 0 && uv_hrtime() - start < patience_ns) {
        collect(harness, patience_ns);
    }
    cr_assert(harness->out == 0, "%zu letters did not come back", harness->out);
    while (harness->back != NULL) {
        struct letter *next = harness->back->next;
        letter_free(harness->back);
        harness->back = next;
    }
    engine_free(harness->engine);
    mailbox_fini(&harness->box);
}

struct letter *letter_start(const struct caller *caller, enum opt_message message)
{
    struct letter *letter =
        letter_new(&caller->harness->box, NULL, caller->peer, ARENA);
    cr_assert(letter != NULL);
    letter->request.id = ++caller->harness->last_id;
    letter->request.message = message;
    letter->nonfinite = SIZE_MAX;
    return letter;
}

void letter_send(const struct caller *caller, struct letter *letter)
{
    letter->arrived_ns = uv_hrtime();
    caller->harness->out++;
    mailbox_post(engine_mailbox(caller->harness->engine), letter);
}

static struct letter *unlink_back(struct harness *harness, const struct letter *letter)
{
    for (struct letter **link = &harness->back; *link != NULL; link = &(*link)->next) {
        if (*link == letter) {
            struct letter *found = *link;
            *link = found->next;
            found->next = NULL;
            return found;
        }
    }
    return NULL;
}

struct letter *letter_await(struct harness *harness, struct letter *letter)
{
    uint64_t start = uv_hrtime();
    for (;;) {
        struct letter *found = unlink_back(harness, letter);
        if (found != NULL) {
            return found;
        }
        cr_assert(uv_hrtime() - start < patience_ns, "no answer to request %lu",
                  (unsigned long)letter->request.id);
        collect(harness, patience_ns);
    }
}

struct letter *letter_ask(const struct caller *caller, struct letter *letter)
{
    letter_send(caller, letter);
    return letter_await(caller->harness, letter);
}

void harness_free(struct letter *letter)
{
    letter_free(letter);
}

bool letter_is_back(struct harness *harness, const struct letter *letter)
{
    struct caller observer = caller_new(harness, "", 0);
    harness_free(letter_ask(&observer, letter_start(&observer, OPT_MESSAGE_HEARTBEAT)));
    caller_gone(&observer, false);
    for (const struct letter *at = harness->back; at != NULL; at = at->next) {
        if (at == letter) {
            return true;
        }
    }
    return false;
}

struct letter *caller_greet(const struct caller *caller, struct opt_hello hello)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_HELLO);
    hello.client = "test";
    letter->request.body.hello = hello;
    return letter_ask(caller, letter);
}

struct caller caller_new(struct harness *harness, const char *name, uint64_t session)
{
    struct caller caller = { .harness = harness, .peer = peer_new("desk") };
    cr_assert(caller.peer != NULL);
    if (name != NULL) {
        struct letter *hello = caller_greet(
            &caller,
            (struct opt_hello){ .protocol = 1, .worker = name, .session = session });
        cr_assert(hello->reply.message == OPT_MESSAGE_HELLO, "%s", reply_text(hello));
        harness_free(hello);
    }
    return caller;
}

void caller_gone(struct caller *caller, bool lease_expired)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_NONE);
    letter->kind = LETTER_CLOSED;
    letter->lease_expired = lease_expired;
    letter->silent_ms = lease_expired ? 5000 : 0;
    letter_send(caller, letter);
    caller->peer = NULL;
}

enum opt_status reply_status(const struct letter *letter)
{
    return letter->reply.message == OPT_MESSAGE_ERROR ? letter->reply.body.error.status
                                                      : OPT_OK;
}

const char *reply_text(const struct letter *letter)
{
    return letter->reply.message == OPT_MESSAGE_ERROR ? letter->reply.body.error.text
                                                      : "";
}

/* ---------------------------------------------------------------- models */

static void set_data(struct letter *letter, const void *values, size_t size)
{
    if (size > 0) {
        cr_assert(letter_data(letter, size));
        memcpy(letter->data, values, size);
    }
}

struct letter *create_letter(const struct caller *caller, const char *model,
                             const char *spec, struct opt_consistency consistency,
                             const struct opt_tensor_entry *tensors, size_t count,
                             bool assigned, bool join)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_CREATE);
    if (consistency.min_workers == 0) {
        consistency.min_workers = 1; /* as the wire does */
    }
    letter->request.body.create = (struct opt_create){
        .model = model,
        .specification = { .expression = spec, .rule = "" },
        .consistency = consistency,
        .assigned = assigned,
        .join = join,
    };
    size_t size = opt_tensor_table_pack(tensors, count, NULL, 0);
    if (size > 0) {
        cr_assert(letter_data(letter, size));
        opt_tensor_table_pack(tensors, count, letter->data, size);
    }
    return letter;
}

static void assign_all(const struct caller *caller, uint32_t model,
                       const struct opt_tensor_entry *tensors, size_t count,
                       const float *weights)
{
    for (size_t i = 0; i < count; i++) {
        struct opt_segment segment = { .tensor = (uint32_t)i };
        struct letter *letter = letter_start(caller, OPT_MESSAGE_ASSIGN);
        letter->request.body.assign = (struct opt_assign){
            .model = model,
            .segments = &segment,
            .segment_count = 1,
            .last = i + 1 == count,
        };
        set_data(letter, weights, tensors[i].elements * sizeof(float));
        weights += tensors[i].elements;
        letter = letter_ask(caller, letter);
        cr_assert(letter->reply.message == OPT_MESSAGE_ASSIGN, "%s",
                  reply_text(letter));
        harness_free(letter);
    }
}

uint32_t model_create(const struct caller *caller, const char *model, const char *spec,
                      struct opt_consistency consistency,
                      const struct opt_tensor_entry *tensors, size_t count,
                      const float *weights)
{
    struct letter *letter =
        letter_ask(caller, create_letter(caller, model, spec, consistency, tensors,
                                         count, weights != NULL, true));
    cr_assert(letter->reply.message == OPT_MESSAGE_CREATE, "%s", reply_text(letter));
    cr_assert(letter->reply.body.model.created);
    uint32_t number = letter->reply.body.model.model;
    harness_free(letter);
    if (weights != NULL) {
        assign_all(caller, number, tensors, count, weights);
    }
    return number;
}

uint32_t model_join(const struct caller *caller, const char *model)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_OPEN);
    letter->request.body.open = (struct opt_open){ .model = model, .join = true };
    letter = letter_ask(caller, letter);
    cr_assert(reply_status(letter) == OPT_OK, "%s", reply_text(letter));
    uint32_t number = letter->reply.body.model.model;
    harness_free(letter);
    return number;
}

struct letter *push_letter(const struct caller *caller, uint32_t model,
                           uint64_t sequence, enum opt_dtype dtype,
                           const struct opt_segment *segments, size_t count,
                           const void *values, size_t size)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_PUSH);
    struct opt_segment *copy =
        opt_arena_alloc(&letter->arena, (count + 1) * sizeof *copy);
    cr_assert(copy != NULL);
    memcpy(copy, segments, count * sizeof *copy);
    letter->request.body.push = (struct opt_push){
        .model = model,
        .sequence = sequence,
        .samples = 1,
        .dtype = dtype,
        .segments = copy,
        .segment_count = count,
        .last = true,
    };
    set_data(letter, values, size);
    size_t elements = size / opt_dtype_size(dtype);
    size_t index = opt_dtype_first_nonfinite(dtype, letter->data, elements);
    letter->nonfinite = index < elements ? index : SIZE_MAX;
    return letter;
}

struct letter *push_constant(const struct caller *caller, uint32_t model,
                             uint64_t sequence, size_t n, float value)
{
    float *values = malloc(n * sizeof *values);
    cr_assert(values != NULL);
    for (size_t i = 0; i < n; i++) {
        values[i] = value;
    }
    struct opt_segment segment = { .tensor = 0 };
    struct letter *letter = push_letter(caller, model, sequence, OPT_FP32, &segment, 1,
                                        values, n * sizeof *values);
    free(values);
    return letter;
}

struct letter *pull_letter(const struct caller *caller, uint32_t model,
                           enum opt_view view, const char *slot)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_PULL);
    letter->request.body.pull =
        (struct opt_pull){ .model = model, .view = view, .slot = slot };
    return letter;
}

size_t pieces_copy(const struct letter *letter, float *out, size_t capacity)
{
    size_t copied = 0;
    for (size_t i = 0; i < letter->piece_count; i++) {
        if (letter->pieces[i].gone) {
            continue;
        }
        size_t n = (size_t)letter->pieces[i].segment.count;
        cr_assert(copied + n <= capacity);
        memcpy(out + copied, letter->pieces[i].values, n * sizeof(float));
        copied += n;
    }
    return copied;
}

uint64_t model_pull(const struct caller *caller, uint32_t model, enum opt_view view,
                    const char *slot, float *out, size_t count)
{
    struct letter *letter = letter_ask(caller, pull_letter(caller, model, view, slot));
    cr_assert(letter->reply.message == OPT_MESSAGE_PULL, "%s", reply_text(letter));
    cr_assert(pieces_copy(letter, out, count) == count);
    uint64_t step = letter->reply.body.pull.step;
    harness_free(letter);
    return step;
}

bool same_bits(const float *a, const float *b, size_t n)
{
    const unsigned char *left = (const unsigned char *)a;
    return memcmp(left, (const unsigned char *)b, n * sizeof *a) == 0;
}

uint64_t statistic(const struct caller *caller, const char *name)
{
    struct letter *letter =
        letter_ask(caller, letter_start(caller, OPT_MESSAGE_STATISTICS));
    const struct opt_statistics_reply *reply = &letter->reply.body.statistics;
    for (size_t i = 0; i < reply->count; i++) {
        if (strcmp(reply->counters[i].name, name) == 0) {
            uint64_t value = reply->counters[i].value;
            harness_free(letter);
            return value;
        }
    }
    cr_assert_fail("no counter %s", name);
    return 0;
}
