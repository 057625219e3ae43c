/* record_read — bytes to entries (record.h). */
#include <inttypes.h>
#include <string.h>

#include "common/wire_parts.h"
#include "proto/store.pb-c.h"
#include "server/store/record.h"

enum { PREFIX = 8, ALIGNMENT = 64, TURN_ENTRIES = 1, MESSAGE_LEAST = 256 << 10 };

/* Where the reading of a record is. */
struct context {
    struct opt_arena *arena;
    struct opt_error *error;
    const uint8_t *values; /* those that no entry has had, */
    uint64_t left;         /* so many bytes, */
    uint64_t taken;        /* behind so many */
    size_t entry;          /* the one in hand */
};

/* False: the record is shorter than that. */
static bool read_prefix(const uint8_t *data, size_t size, size_t *message)
{
    uint64_t bytes = 0;
    if (size < PREFIX) {
        return false;
    }
    for (size_t i = PREFIX; i-- > 0;) {
        bytes = bytes << 8 | data[i];
    }
    *message = (size_t)bytes;
    return bytes <= size - PREFIX;
}

size_t record_message_bytes(const uint8_t *data, size_t size)
{
    size_t message;
    return read_prefix(data, size, &message) ? message : 0;
}

size_t record_arena(size_t message_bytes)
{
    enum { MOST_PER_BYTE = 128 }; /* an entry has 2 bytes at least */
    return message_bytes > (SIZE_MAX - MESSAGE_LEAST) / MOST_PER_BYTE
               ? SIZE_MAX
               : message_bytes * MOST_PER_BYTE + MESSAGE_LEAST;
}

/* What is wrong is the record's fault, whatever the wire calls it. */
static enum opt_status fault(struct context *c, enum opt_status status)
{
    if (status == OPT_OK || status == OPT_RESOURCE_EXHAUSTED ||
        status == OPT_UNIMPLEMENTED || c->error == NULL) {
        return status == OPT_INVALID_ARGUMENT ? OPT_DATA_LOSS : status;
    }
    char text[OPT_ERROR_TEXT];
    memcpy(text, c->error->text, sizeof text);
    return opt_fail(c->error, OPT_DATA_LOSS, "entry %zu: %s", c->entry, text);
}

static enum opt_status wrong(struct context *c, const char *what)
{
    return opt_fail(c->error, OPT_INVALID_ARGUMENT, "%s", what);
}

/* ---------------------------------------------------------------- values */

/* The next so many bytes of values. */
static enum opt_status take(struct context *c, uint64_t size, const uint8_t **out)
{
    uint64_t padding = size > 0 ? -c->taken % ALIGNMENT : 0;
    static const uint8_t zeros[ALIGNMENT];
    if (c->left < padding || c->left - padding < size) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "it should have %" PRIu64 " bytes of values, but %" PRIu64
                        " are left",
                        size, c->left);
    }
    if (memcmp(c->values, zeros, (size_t)padding) != 0) {
        return wrong(c, "there is something between its values");
    }
    *out = c->values + padding;
    c->values += padding + size;
    c->left -= padding + size;
    c->taken += padding + size;
    return OPT_OK;
}

static enum opt_status take_values(struct context *c, uint64_t size, size_t element,
                                   struct record_values *out)
{
    const uint8_t *at = NULL;
    if (size % element != 0) {
        return wrong(c, "its values are no whole number of elements");
    }
    enum opt_status status = take(c, size, &at);
    if (status != OPT_OK || size == 0) {
        *out = (struct record_values){ .size = 0 };
        return status;
    }
    struct iovec *part = opt_wire_array(c->arena, 1, sizeof *part, c->error);
    if (part == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    *part =
        (struct iovec){ .iov_base = (void *)(uintptr_t)at, .iov_len = (size_t)size };
    *out = (struct record_values){ .parts = part, .part_count = 1, .size = size };
    return OPT_OK;
}

/* ---------------------------------------------------------------- batches */

/* Pairs of numbers that are runs, whose numbers fit 32 bits; ascending, if need be. */
static enum opt_status read_runs(struct context *c, const uint32_t *numbers,
                                 size_t count, bool ascending,
                                 const struct record_run **out, size_t *runs)
{
    if (count % 2 != 0) {
        return wrong(c, "a run has no length");
    }
    uint64_t end = 0;
    for (size_t i = 0; i < count; i += 2) {
        uint64_t last = (uint64_t)numbers[i] + numbers[i + 1];
        if (numbers[i + 1] == 0 || last > UINT32_MAX ||
            (ascending && numbers[i] < end)) {
            return wrong(c, "its runs are empty, too long or not in order");
        }
        end = last;
    }
    *out = (const struct record_run *)numbers;
    *runs = count / 2;
    return OPT_OK;
}

static enum opt_status read_rows(struct context *c, const Optimd__Store__V1__Rows *from,
                                 struct record_rows *to)
{
    const uint8_t *at = NULL;
    if (from->rows == 0 || from->rows > UINT64_MAX / sizeof(uint32_t)) {
        return wrong(c, "it names no rows");
    }
    enum opt_status status = take(c, from->rows * sizeof(uint32_t), &at);
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct record_rows){ .tensor = from->tensor,
                                .rows = (const uint32_t *)at,
                                .row_count = (size_t)from->rows };
    for (size_t i = 1; i < to->row_count; i++) {
        if (to->rows[i] <= to->rows[i - 1]) {
            return wrong(c, "its rows are not in ascending order");
        }
    }
    return from->bytes % from->rows == 0
               ? take_values(c, from->bytes, sizeof(float), &to->values)
               : wrong(c, "its rows are not all as long");
}

/* The values of a batch. */
static enum opt_status read_gradient(struct context *c,
                                     const Optimd__Store__V1__Batch *from,
                                     struct record_batch *to)
{
    if (from->dtype >= OPT_DTYPE_COUNT) {
        return wrong(c, "it has no such dtype");
    }
    to->dtype = (enum opt_dtype)from->dtype;
    enum opt_status status = read_runs(c, from->tensors, from->n_tensors, false,
                                       &to->tensors, &to->tensor_runs);
    if (status == OPT_OK) {
        status = read_runs(c, from->blocks, from->n_blocks, true, &to->blocks,
                           &to->block_runs);
    }
    if (status == OPT_OK) {
        status = take_values(c, from->bytes, opt_dtype_size(to->dtype), &to->values);
    }
    if (status != OPT_OK) {
        return status;
    }
    struct record_rows *rows =
        opt_wire_array(c->arena, from->n_rows, sizeof *rows, c->error);
    if (rows == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; status == OPT_OK && i < from->n_rows; i++) {
        status = read_rows(c, from->rows[i], &rows[i]);
    }
    to->rows = rows;
    to->rows_count = from->n_rows;
    return status;
}

static enum opt_status read_spans(struct context *c,
                                  const Optimd__Store__V1__Batch *from,
                                  struct record_batch *to)
{
    if (from->n_spans % 4 != 0) {
        return wrong(c, "a span is cut off");
    }
    const struct record_span *spans = (const struct record_span *)from->spans;
    for (size_t i = 0; i < from->n_spans / 4; i++) {
        if (spans[i].first > spans[i].end || spans[i].prepares > 1) {
            return wrong(c, "a span ends before it begins");
        }
    }
    to->spans = spans;
    to->span_count = from->n_spans / 4;
    return OPT_OK;
}

static enum opt_status read_batch(struct context *c,
                                  const Optimd__Store__V1__Batch *from,
                                  struct record_batch *to)
{
    if (from == NULL) {
        return wrong(c, "it has no batch");
    }
    *to = (struct record_batch){ .last = from->last };
    enum opt_status status = read_spans(c, from, to);
    return status == OPT_OK ? read_gradient(c, from, to) : status;
}

/* ---------------------------------------------------------------- the others */

static enum opt_status read_made(struct context *c, const Optimd__Store__V1__Made *from,
                                 struct record_made *to)
{
    struct opt_tensor_entry *tensors = NULL;
    if (from == NULL) {
        return wrong(c, "it does not say what was made");
    }
    *to = (struct record_made){ .name = from->name,
                                .specification = from->specification,
                                .durability = (enum opt_durability)from->durability,
                                .checkpoint_steps = from->checkpoint_steps };
    enum opt_status status = opt_wire_name(from->name, "a model's name", c->error);
    if (status == OPT_OK && from->durability >= OPT_DURABILITY_COUNT) {
        status = wrong(c, "it has no such durability");
    }
    if (status == OPT_OK) {
        status =
            opt_wire_consistency_read(from->consistency, &to->consistency, c->error);
    }
    if (status == OPT_OK) {
        status = opt_tensor_table_read(from->tensors.data, from->tensors.len,
                                       OPT_TENSORS_MAX, c->arena, &tensors,
                                       &to->tensor_count, c->error);
    }
    to->tensors = tensors;
    return status;
}

static enum opt_status read_weights(struct context *c,
                                    const Optimd__Store__V1__Weights *from,
                                    struct record_weights *to)
{
    if (from == NULL || from->dtype >= OPT_DTYPE_COUNT || from->count == 0 ||
        from->count > OPT_ELEMENTS_MAX) {
        return wrong(c, "it does not say which weights it has");
    }
    *to = (struct record_weights){ .tensor = from->tensor,
                                   .offset = from->offset,
                                   .count = from->count,
                                   .dtype = (enum opt_dtype)from->dtype };
    size_t element = opt_dtype_size(to->dtype);
    return take_values(c, from->count * element, element, &to->values);
}

static enum opt_status read_life(struct context *c, const Optimd__Store__V1__Life *from,
                                 struct record_worker *to)
{
    if (from == NULL) {
        return wrong(c, "it says nothing of the worker");
    }
    *to = (struct record_worker){ .session = from->session,
                                  .incarnation = from->incarnation,
                                  .lost = from->lost,
                                  .lost_why = from->why };
    return OPT_OK;
}

static enum opt_status read_member(struct context *c,
                                   const Optimd__Store__V1__Member *from,
                                   struct record_member *to)
{
    if (from == NULL) {
        return wrong(c, "it says nothing of the member");
    }
    *to = (struct record_member){ .joined = from->joined,
                                  .resting = from->resting,
                                  .lost = from->lost,
                                  .lost_step = from->lost_step,
                                  .last_step = from->last_step,
                                  .clock = from->clock,
                                  .since = from->since,
                                  .barrier_session = from->barrier_session,
                                  .barrier_passed = from->barrier_passed };
    return OPT_OK;
}

static enum opt_status read_push(struct context *c,
                                 const Optimd__Store__V1__Entry *from,
                                 struct record_push *to)
{
    const Optimd__Store__V1__Settled *settled = from->settled;
    if (settled == NULL || settled->sequence == 0 ||
        settled->fate == OPT_FATE_UNKNOWN || settled->fate >= OPT_FATE_COUNT ||
        settled->status >= OPT_STATUS_COUNT) {
        return wrong(c, "it does not say what became of a push");
    }
    to->settled = (struct opt_settled){ .sequence = settled->sequence,
                                        .fate = (enum opt_fate)settled->fate,
                                        .step = settled->step,
                                        .status = (enum opt_status)settled->status,
                                        .shards_applied = settled->shards_applied };
    return read_member(c, from->member, &to->member);
}

static enum opt_status read_body(struct context *c,
                                 const Optimd__Store__V1__Entry *from,
                                 struct record_entry *to)
{
    switch (to->kind) {
    case RECORD_MODEL:
        return read_made(c, from->made, &to->of.made);
    case RECORD_WEIGHTS:
        return read_weights(c, from->weights, &to->of.weights);
    case RECORD_OPTIONS:
        to->of.text = from->text;
        return from->text[0] != '\0' ? OPT_OK : wrong(c, "it has no specification");
    case RECORD_STATED:
        if (from->stated == NULL) {
            return wrong(c, "it does not say what was stated");
        }
        to->of.stated = (struct record_stated){ .before = from->stated->before,
                                                .after = from->stated->after,
                                                .change = from->stated->change };
        return OPT_OK;
    case RECORD_BATCH:
        return read_batch(c, from->batch, &to->of.batch);
    case RECORD_WORKER:
        return read_life(c, from->life, &to->of.worker);
    case RECORD_MEMBER:
        return read_member(c, from->member, &to->of.member);
    case RECORD_PUSH:
        return read_push(c, from, &to->of.push);
    default:
        return OPT_OK;
    }
}

static enum opt_status read_entry(struct context *c,
                                  const Optimd__Store__V1__Entry *from,
                                  struct record_entry *to)
{
    if (from->kind == RECORD_NONE || from->kind >= RECORD_KINDS) {
        return opt_fail(c->error, OPT_UNIMPLEMENTED,
                        "entry %zu is of kind %" PRIu32
                        "; this optimd knows kinds 1 to "
                        "%d: a newer one has written it",
                        c->entry, from->kind, RECORD_KINDS - 1);
    }
    *to = (struct record_entry){ .kind = (enum record_kind)from->kind,
                                 .model = from->model,
                                 .worker = from->worker,
                                 .step = from->step };
    bool of_worker = to->kind == RECORD_WORKER || to->kind == RECORD_MEMBER ||
                     to->kind == RECORD_PUSH || to->kind == RECORD_FORGOTTEN;
    enum opt_status status =
        of_worker ? opt_wire_name(from->worker, "a worker's name", c->error) : OPT_OK;
    if (status == OPT_OK && to->kind != RECORD_WORKER && from->model == 0) {
        status = wrong(c, "it is of no model");
    }
    return status == OPT_OK ? read_body(c, from, to) : status;
}

/* ---------------------------------------------------------------- a record */

static enum opt_status read_entries(struct context *c, const uint8_t *message,
                                    size_t size, struct record *out)
{
    const ProtobufCMessageDescriptor *turn = &optimd__store__v1__turn__descriptor;
    const ProtobufCMessageDescriptor *type = &optimd__store__v1__entry__descriptor;
    enum opt_status status = opt_wire_scan(turn, message, size, NULL, c->error);
    if (status != OPT_OK) {
        return status;
    }
    size_t count = 0;
    for (struct opt_walk walk = { .bytes = message, .size = size };
         opt_walk_next(&walk);) {
        count += walk.field.number == TURN_ENTRIES;
    }
    struct record_entry *entries =
        opt_wire_array(c->arena, count, sizeof *entries, c->error);
    if (entries == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    struct opt_walk walk = { .bytes = message, .size = size };
    while (status == OPT_OK && opt_walk_next(&walk)) {
        ProtobufCMessage *entry = NULL;
        if (walk.field.number != TURN_ENTRIES) {
            continue;
        }
        status = opt_wire_unpack(type, walk.value, (size_t)walk.field.size, c->arena,
                                 &entry, c->error);
        if (status == OPT_OK) {
            status = read_entry(c, (const Optimd__Store__V1__Entry *)entry,
                                &entries[c->entry]);
        }
        c->entry += status == OPT_OK;
    }
    *out = (struct record){ .entries = entries, .count = count };
    return status;
}

enum opt_status record_read(const uint8_t *data, size_t size, struct opt_arena *arena,
                            struct record *out, struct opt_error *error)
{
    size_t message;
    struct opt_error own;
    struct context c = { .arena = arena, .error = error != NULL ? error : &own };
    if (!read_prefix(data, size, &message)) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "its message does not fit the %zu bytes of the record", size);
    }
    size_t values = PREFIX + message;
    if (values < size) {
        values += (size_t)(-values % ALIGNMENT);
    }
    if (values > size) {
        return opt_fail(error, OPT_DATA_LOSS, "its values are cut off");
    }
    c.values = data + values;
    c.left = size - values;
    struct record record = { .count = 0 };
    enum opt_status status =
        fault(&c, read_entries(&c, data + PREFIX, message, &record));
    if (status == OPT_OK && c.left > 0) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%" PRIu64 " bytes of values belong to no entry", c.left);
    }
    if (status == OPT_OK) {
        *out = record;
    }
    return status;
}
