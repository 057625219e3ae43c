/* journal_batch — see journal_batch.h. */
#include "server/durable/journal_batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum { ALIGNMENT = 64 };

static size_t aligned(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

bool journal_batch_room(struct journal_batch *batch, size_t capacity)
{
    if (capacity > SIZE_MAX - ALIGNMENT) {
        return false;
    }
    free(batch->bytes);
    batch->capacity = aligned(capacity);
    batch->bytes = aligned_alloc(ALIGNMENT, batch->capacity);
    if (batch->bytes == NULL) {
        batch->capacity = 0;
    }
    return batch->bytes != NULL;
}

void journal_batch_fini(struct journal_batch *batch)
{
    opt_arena_fini(&batch->arena);
    free(batch->bytes);
    batch->bytes = NULL;
    batch->capacity = 0;
}

/* The path of a segment among those of the batch; it has room for it. */
static size_t path_of(struct journal_batch *batch, const char *segment)
{
    if (batch->path_count == 0 ||
        strcmp(batch->paths[batch->path_count - 1], segment) != 0) {
        snprintf(batch->paths[batch->path_count++], BATCH_SEGMENT_PATH, "%s", segment);
    }
    return batch->path_count - 1;
}

/* Whether the record that the head is of can be put into the batch. */
static bool has_room(const struct journal_batch *batch, const struct journal_head *head)
{
    bool other = batch->path_count == 2 && strcmp(batch->paths[1], head->segment) != 0;
    return batch->count < BATCH_RECORDS && !other &&
           head->size <= batch->capacity - batch->used;
}

static enum opt_status unpack(struct journal_batch *batch, struct batch_record *into,
                              const uint8_t *bytes, struct opt_error *error)
{
    struct opt_error why;
    size_t more = record_arena(record_message_bytes(bytes, into->size));
    size_t most = SIZE_MAX - batch->arena.limit;
    batch->arena.limit += more < most ? more : most;
    enum opt_status status =
        record_read(bytes, into->size, &batch->arena, &into->record, &why);
    if (status != OPT_OK) {
        return opt_fail_as(error, status, why.detail,
                           "%s: record %llu at byte %llu: %s",
                           batch->paths[into->segment], (unsigned long long)into->index,
                           (unsigned long long)into->offset, why.text);
    }
    return OPT_OK;
}

/* Records that could not be kept when they were made are missing for good: models that
 * had some have a newer checkpoint, or miss updates, which is found. */
static enum opt_status next_head(struct journal_reading *reading,
                                 struct opt_error *error)
{
    uint64_t next;
    enum opt_status status =
        journal_reader_next(reading->reader, &reading->head, error);
    while (status == OPT_DATA_LOSS && journal_reader_gap(reading->reader, &next)) {
        opt_log(OPT_LOG_WARN, "journal_gap", "next=%" PRIu64 " why=%s", next,
                error->text);
        status = journal_reader_seek(reading->reader, next, error);
        if (status == OPT_OK) {
            status = journal_reader_next(reading->reader, &reading->head, error);
        }
    }
    return status;
}

/* The next record; false: the batch is over, its status tells why. */
static bool fill_one(struct journal_batch *batch, struct journal_reading *reading)
{
    struct journal_head *head = &reading->head;
    if (!reading->has_head) {
        batch->status = next_head(reading, &batch->error);
        reading->has_head = batch->status == OPT_OK;
    }
    if (batch->status != OPT_OK) {
        return false;
    }
    if (!has_room(batch, head)) {
        bool large = batch->count == 0 && head->size > batch->capacity;
        batch->needs = large ? head->size : 0;
        batch->status = large ? OPT_RESOURCE_EXHAUSTED : OPT_OK;
        return false;
    }
    struct batch_record *into = &batch->records[batch->count];
    uint8_t *bytes = batch->bytes + batch->used;
    *into = (struct batch_record){ .index = head->index,
                                   .offset = head->offset,
                                   .segment = path_of(batch, head->segment),
                                   .size = head->size };
    reading->has_head = false;
    batch->status = journal_reader_body(reading->reader, bytes, &batch->error);
    if (batch->status == OPT_OK) {
        batch->status = unpack(batch, into, bytes, &batch->error);
    }
    if (batch->status != OPT_OK) {
        return false;
    }
    batch->bytes_behind = head->bytes_behind;
    batch->used += aligned(into->size);
    batch->count++;
    return batch->used < batch->capacity;
}

void journal_batch_fill(struct journal_batch *batch, struct journal_reading *reading)
{
    batch->count = 0;
    batch->used = 0;
    batch->path_count = 0;
    batch->needs = 0;
    batch->status = OPT_OK;
    opt_arena_fini(&batch->arena);
    opt_arena_init(&batch->arena, 0);
    while (fill_one(batch, reading)) {
    }
}
