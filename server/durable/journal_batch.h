/* journal_batch — records of the journal, read and unpacked some at a time, while those
 * that were read before are made true. On one thread at a time: the journal's disk
 * fills one, and the engine takes the other.
 */
#ifndef OPTIMD_SERVER_DURABLE_JOURNAL_BATCH_H
#define OPTIMD_SERVER_DURABLE_JOURNAL_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"
#include "server/store/journal_file.h"
#include "server/store/record.h"

enum {
    BATCH_RECORDS = 256,   /* at most, */
    BATCH_BYTES = 4 << 20, /* of so many bytes together, or one that has more */
    BATCH_SEGMENT_PATH = 512
};

struct batch_record {
    uint64_t index, offset; /* where it begins in its segment, */
    size_t segment;         /* which is one of the batch's paths */
    size_t size;
    struct record record;
};

struct journal_batch {
    uint8_t *bytes; /* 64-byte aligned */
    size_t capacity, used;
    struct opt_arena arena;
    struct batch_record records[BATCH_RECORDS];
    size_t count;
    char paths[2][BATCH_SEGMENT_PATH];
    size_t path_count;
    uint64_t bytes_behind; /* what is left of the journal after it */
    /* What it ended with: OPT_OK, there is more; OPT_OUT_OF_RANGE: the end;
     * OPT_RESOURCE_EXHAUSTED: the next record needs `needs` bytes, and the batch is
     * empty; anything else is the error that was met. */
    enum opt_status status;
    struct opt_error error;
    size_t needs;
};

/* What has been read of a record that was not taken yet. */
struct journal_reading {
    struct journal_reader *reader;
    struct journal_head head;
    bool has_head;
};

/* Fill the batch with what comes next. */
void journal_batch_fill(struct journal_batch *batch, struct journal_reading *reading);
/* Room for so many bytes; false without memory. */
bool journal_batch_room(struct journal_batch *batch, size_t capacity);
void journal_batch_fini(struct journal_batch *batch);

#endif
