/* record_write — entries to bytes (record.h). */
#include <stdlib.h>
#include <string.h>

#include "common/wire_parts.h"
#include "proto/store.pb-c.h"
#include "server/store/record.h"

enum {
    PREFIX = 8, /* bytes of the message's length */
    ALIGNMENT = 64,
    TURN_ENTRIES = 1,
    BATCH_ROWS = 7,
    MADE_CONSISTENCY = 3,
    MADE_TENSORS = 4,
    ENTRY_MADE = 5,
    ENTRY_BATCH = 9
};

struct record_writer {
    uint8_t *message; /* after the prefix */
    size_t size, capacity;
    struct iovec *parts; /* the first is for the message */
    size_t count, part_capacity;
    uint64_t values; /* bytes of them, with what aligns them */
    size_t entries;
};

struct record_writer *record_writer_new(void)
{
    struct record_writer *writer = calloc(1, sizeof *writer);
    if (writer != NULL) {
        record_begin(writer);
    }
    return writer;
}

void record_writer_free(struct record_writer *writer)
{
    if (writer != NULL) {
        free(writer->message);
        free(writer->parts);
        free(writer);
    }
}

void record_begin(struct record_writer *writer)
{
    writer->size = PREFIX;
    writer->count = 1;
    writer->values = 0;
    writer->entries = 0;
}

/* ---------------------------------------------------------------- the message */

static void write_rows(struct opt_writer *writer, const void *what)
{
    const struct record_rows *rows = what;
    Optimd__Store__V1__Rows message = OPTIMD__STORE__V1__ROWS__INIT;
    message.tensor = rows->tensor;
    message.rows = rows->row_count;
    message.bytes = rows->values.size;
    opt_write_fields(writer, &message.base);
}

static void write_batch(struct opt_writer *writer, const void *what)
{
    const struct record_batch *batch = what;
    Optimd__Store__V1__Batch message = OPTIMD__STORE__V1__BATCH__INIT;
    message.last = batch->last;
    message.n_spans = 4 * batch->span_count;
    message.spans = (uint32_t *)(uintptr_t)batch->spans;
    message.dtype = (uint32_t)batch->dtype;
    message.n_tensors = 2 * batch->tensor_runs;
    message.tensors = (uint32_t *)(uintptr_t)batch->tensors;
    message.n_blocks = 2 * batch->block_runs;
    message.blocks = (uint32_t *)(uintptr_t)batch->blocks;
    message.bytes = batch->values.size;
    opt_write_fields(writer, &message.base);
    for (size_t i = 0; i < batch->rows_count; i++) {
        opt_write_nested(writer, BATCH_ROWS, write_rows, &batch->rows[i]);
    }
}

static void write_tensors(struct opt_writer *writer, const void *what)
{
    const struct record_made *made = what;
    size_t size = opt_tensor_table_pack(made->tensors, made->tensor_count, NULL, 0);
    if (writer->out != NULL) {
        opt_tensor_table_pack(made->tensors, made->tensor_count,
                              writer->out + writer->size, size);
    }
    writer->size += size;
}

static void write_made(struct opt_writer *writer, const void *what)
{
    const struct record_made *made = what;
    Optimd__Store__V1__Made message = OPTIMD__STORE__V1__MADE__INIT;
    message.name = opt_wire_text(made->name);
    message.specification = opt_wire_text(made->specification);
    opt_write_fields(writer, &message.base);
    opt_write_nested(writer, MADE_CONSISTENCY, opt_write_consistency,
                     &made->consistency);
    opt_write_nested(writer, MADE_TENSORS, write_tensors, made);
    Optimd__Store__V1__Made rest = OPTIMD__STORE__V1__MADE__INIT;
    rest.durability = (uint32_t)made->durability;
    rest.checkpoint_steps = made->checkpoint_steps;
    opt_write_fields(writer, &rest.base);
}

static void fill_member(Optimd__Store__V1__Member *message,
                        const struct record_member *member)
{
    message->joined = member->joined;
    message->resting = member->resting;
    message->lost = member->lost;
    message->lost_step = member->lost_step;
    message->last_step = member->last_step;
    message->clock = member->clock;
    message->since = member->since;
    message->barrier_session = member->barrier_session;
    message->barrier_passed = member->barrier_passed;
}

static void fill_settled(Optimd__Store__V1__Settled *message,
                         const struct opt_settled *settled)
{
    message->sequence = settled->sequence;
    message->fate = (uint32_t)settled->fate;
    message->step = settled->step;
    message->status = (uint32_t)settled->status;
    message->shards_applied = settled->shards_applied;
}

static void write_entry(struct opt_writer *writer, const void *what)
{
    const struct record_entry *entry = what;
    Optimd__Store__V1__Entry message = OPTIMD__STORE__V1__ENTRY__INIT;
    Optimd__Store__V1__Stated stated = OPTIMD__STORE__V1__STATED__INIT;
    Optimd__Store__V1__Life life = OPTIMD__STORE__V1__LIFE__INIT;
    Optimd__Store__V1__Member member = OPTIMD__STORE__V1__MEMBER__INIT;
    Optimd__Store__V1__Settled settled = OPTIMD__STORE__V1__SETTLED__INIT;
    Optimd__Store__V1__Weights weights = OPTIMD__STORE__V1__WEIGHTS__INIT;
    message.kind = (uint32_t)entry->kind;
    message.model = entry->model;
    message.worker = opt_wire_text(entry->worker);
    message.step = entry->step;
    switch (entry->kind) {
    case RECORD_WEIGHTS:
        weights.tensor = entry->of.weights.tensor;
        weights.offset = entry->of.weights.offset;
        weights.count = entry->of.weights.count;
        weights.dtype = (uint32_t)entry->of.weights.dtype;
        message.weights = &weights;
        break;
    case RECORD_OPTIONS:
        message.text = opt_wire_text(entry->of.text);
        break;
    case RECORD_STATED:
        stated.before = opt_wire_text(entry->of.stated.before);
        stated.after = opt_wire_text(entry->of.stated.after);
        stated.change = opt_wire_text(entry->of.stated.change);
        message.stated = &stated;
        break;
    case RECORD_WORKER:
        life.session = entry->of.worker.session;
        life.incarnation = entry->of.worker.incarnation;
        life.lost = entry->of.worker.lost;
        life.why = opt_wire_text(entry->of.worker.lost_why);
        message.life = &life;
        break;
    case RECORD_PUSH:
        fill_settled(&settled, &entry->of.push.settled);
        fill_member(&member, &entry->of.push.member);
        message.settled = &settled;
        message.member = &member;
        break;
    case RECORD_MEMBER:
        fill_member(&member, &entry->of.member);
        message.member = &member;
        break;
    default:
        break;
    }
    opt_write_fields(writer, &message.base);
    if (entry->kind == RECORD_MODEL) {
        opt_write_nested(writer, ENTRY_MADE, write_made, &entry->of.made);
    } else if (entry->kind == RECORD_BATCH) {
        opt_write_nested(writer, ENTRY_BATCH, write_batch, &entry->of.batch);
    }
}

/* Append the entry to the message. False: no memory. */
static bool add_message(struct record_writer *writer, const struct record_entry *entry)
{
    struct opt_writer measure = { .out = NULL };
    opt_write_nested(&measure, TURN_ENTRIES, write_entry, entry);
    size_t needed = writer->size + measure.size + ALIGNMENT;
    if (needed > writer->capacity) {
        size_t more = needed + writer->capacity;
        uint8_t *grown = realloc(writer->message, more);
        if (grown == NULL) {
            return false;
        }
        writer->message = grown;
        writer->capacity = more;
    }
    struct opt_writer write = { .out = writer->message, .size = writer->size };
    opt_write_nested(&write, TURN_ENTRIES, write_entry, entry);
    writer->size = write.size;
    return true;
}

/* ---------------------------------------------------------------- values */

/* False: no memory. */
static bool add_part(struct record_writer *writer, const void *data, size_t size)
{
    if (size == 0) {
        return true;
    }
    if (writer->count >= writer->part_capacity) {
        size_t more = 2 * writer->count + 16;
        struct iovec *grown = realloc(writer->parts, more * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        writer->parts = grown;
        writer->part_capacity = more;
    }
    struct iovec *before = &writer->parts[writer->count - 1];
    if (writer->count > 1 && (const char *)before->iov_base + before->iov_len == data) {
        before->iov_len += size;
    } else {
        writer->parts[writer->count++] =
            (struct iovec){ .iov_base = (void *)(uintptr_t)data, .iov_len = size };
    }
    writer->values += size;
    return true;
}

/* What follows begins at a multiple of 64. */
static bool align(struct record_writer *writer)
{
    static const uint8_t zeros[ALIGNMENT];
    return add_part(writer, zeros, (size_t)(-writer->values % ALIGNMENT));
}

static bool add_values(struct record_writer *writer, const struct record_values *values)
{
    bool good = values->part_count == 0 || align(writer);
    for (size_t i = 0; good && i < values->part_count; i++) {
        good = add_part(writer, values->parts[i].iov_base, values->parts[i].iov_len);
    }
    return good;
}

static bool add_batch(struct record_writer *writer, const struct record_batch *batch)
{
    bool good = add_values(writer, &batch->values);
    for (size_t i = 0; good && i < batch->rows_count; i++) {
        const struct record_rows *rows = &batch->rows[i];
        good = align(writer) &&
               add_part(writer, rows->rows, rows->row_count * sizeof *rows->rows) &&
               add_values(writer, &rows->values);
    }
    return good;
}

static bool add_all_values(struct record_writer *writer,
                           const struct record_entry *entry)
{
    if (entry->kind == RECORD_WEIGHTS) {
        return add_values(writer, &entry->of.weights.values);
    }
    return entry->kind != RECORD_BATCH || add_batch(writer, &entry->of.batch);
}

/* ---------------------------------------------------------------- a record */

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a record");
}

enum opt_status record_add(struct record_writer *writer,
                           const struct record_entry *entry, struct opt_error *error)
{
    size_t size = writer->size, count = writer->count;
    size_t last = count > 1 ? writer->parts[count - 1].iov_len : 0;
    uint64_t values = writer->values;
    if (!add_all_values(writer, entry) || !add_message(writer, entry)) {
        writer->size = size;
        writer->count = count;
        writer->values = values;
        if (count > 1) { /* others may have been joined to it */
            writer->parts[count - 1].iov_len = last;
        }
        return no_memory(error);
    }
    writer->entries++;
    return OPT_OK;
}

size_t record_writer_bytes(const struct record_writer *writer)
{
    return writer->capacity + writer->part_capacity * sizeof *writer->parts;
}

size_t record_entries(const struct record_writer *writer)
{
    return writer->entries;
}

enum opt_status record_parts(struct record_writer *writer, const struct iovec **parts,
                             size_t *count, struct opt_error *error)
{
    size_t message = writer->size - PREFIX;
    size_t padding = writer->count > 1 ? (size_t)(-writer->size % ALIGNMENT) : 0;
    if (writer->size + padding > writer->capacity) {
        uint8_t *grown = realloc(writer->message, writer->size + ALIGNMENT);
        if (grown == NULL) {
            return no_memory(error);
        }
        writer->message = grown;
        writer->capacity = writer->size + ALIGNMENT;
    }
    if (writer->parts == NULL) {
        writer->parts = calloc(1, sizeof *writer->parts);
        if (writer->parts == NULL) {
            return no_memory(error);
        }
        writer->part_capacity = 1;
    }
    for (size_t i = 0; i < PREFIX; i++) {
        writer->message[i] = (uint8_t)((uint64_t)message >> (8 * i));
    }
    memset(writer->message + writer->size, 0, padding);
    writer->parts[0] = (struct iovec){ .iov_base = writer->message,
                                       .iov_len = writer->size + padding };
    *parts = writer->parts;
    *count = writer->count;
    return OPT_OK;
}
