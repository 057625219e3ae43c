/* record — what becomes true in one turn of the engine, as bytes and back.
 *
 * A record has the entries of a turn, in order: all of them are true or none, so an
 * update is never there without the pushes that it settles. An entry is one commit of
 * the engine (server/engine/commit.h) in plain words of its own: models are named by
 * their identity, workers by name. The small fields are a message of proto/store.proto,
 * the values follow it as they are in memory, each array at a multiple of 64 bytes from
 * the start.
 *
 *   bytes of the message (8) | message | padding | values | padding | values ...
 *
 * Writing borrows the values until the record has been appended and copies the rest.
 * Reading checks everything that can be checked without the model (lengths, counts,
 * enums, names, that the values are exactly as long as they have to be) and points into
 * the bytes it was given for values. Any thread, each writer one at a time.
 */
#ifndef OPTIMD_SERVER_STORE_RECORD_H
#define OPTIMD_SERVER_STORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/dtype.h"
#include "common/status.h"
#include "common/wire.h"

enum record_kind {
    RECORD_NONE,
    RECORD_MODEL,     /* a model is made: of.made */
    RECORD_READY,     /* its weights are there: those assigned before, and else 0 */
    RECORD_OPTIONS,   /* another specification from update `step` on: of.text */
    RECORD_STATED,    /* a change is stated for update `step`: of.stated */
    RECORD_BATCH,     /* update `step` does this: of.batch */
    RECORD_STEP,      /* update `step` is over */
    RECORD_UNDONE,    /* update `step` did not happen */
    RECORD_GONE,      /* the model is deleted */
    RECORD_WORKER,    /* of.worker */
    RECORD_MEMBER,    /* of.member */
    RECORD_PUSH,      /* of.push */
    RECORD_FORGOTTEN, /* the member is no more */
    RECORD_WEIGHTS,   /* values are assigned to a model that is not ready: of.weights */
    RECORD_KINDS
};

/* Values, in one part or several: read, they are one. */
struct record_values {
    const struct iovec *parts;
    size_t part_count;
    uint64_t size; /* bytes of all */
};

struct record_made {
    const char *name;
    const char *specification; /* canonical */
    struct opt_consistency consistency;
    const struct opt_tensor_entry *tensors; /* their step is not kept */
    size_t tensor_count;
    enum opt_durability durability;
    uint64_t checkpoint_steps;
};

struct record_weights { /* elements of a tensor */
    uint32_t tensor;
    uint64_t offset, count;
    enum opt_dtype dtype;
    struct record_values values;
};

struct record_stated {
    const char *before, *after; /* canonical specifications */
    const char *change;         /* what was asked for, as an expression */
};

/* first, first + 1, ..., count of them. */
struct record_run {
    uint32_t first, count;
};

struct record_span { /* as struct span (update.h) */
    uint32_t tensor, first, end;
    uint32_t prepares; /* 1, or 0 */
};

struct record_rows { /* of a sparse tensor, each once, ascending; values are fp32 */
    uint32_t tensor;
    const uint32_t *rows;
    size_t row_count;
    struct record_values values;
};

/* What a batch of an update does: one gradient, which is what all that took part come
 * to, with no damping or basis any more. */
struct record_batch {
    bool last;
    const struct record_span *spans; /* of a batch that is not the last */
    size_t span_count;
    enum opt_dtype dtype;             /* of the blocks' values */
    const struct record_run *tensors; /* that it names, in its order */
    size_t tensor_runs;
    const struct record_run *blocks; /* of the model, ascending */
    size_t block_runs;
    struct record_values values; /* of these blocks */
    const struct record_rows *rows;
    size_t rows_count;
};

struct record_worker {
    uint64_t session, incarnation;
    bool lost;            /* taken for dead */
    const char *lost_why; /* "" if not */
};

/* What a worker is to a model, without the window of its pushes. */
struct record_member {
    bool joined, resting, lost;
    uint64_t lost_step, last_step;
    uint64_t clock;
    uint64_t since;           /* incarnation */
    uint64_t barrier_session; /* whose sequences the next one is of */
    uint64_t barrier_passed;  /* highest sequence */
};

struct record_push {
    struct opt_settled settled;
    struct record_member member; /* with it */
};

struct record_entry {
    enum record_kind kind;
    uint64_t model;     /* identity; 0: of WORKER */
    const char *worker; /* name; "" or NULL: of no worker */
    uint64_t step;
    union {
        struct record_made made;
        struct record_weights weights;
        const char *text;
        struct record_stated stated;
        struct record_batch batch;
        struct record_worker worker;
        struct record_member member;
        struct record_push push;
    } of;
};

/* ---- writing */

struct record_writer;

/* NULL: no memory. */
struct record_writer *record_writer_new(void);
/* NULL is allowed. */
void record_writer_free(struct record_writer *writer);
/* Begin a record: what was added before is forgotten, its memory is kept. */
void record_begin(struct record_writer *writer);
/* Add an entry. Its values are borrowed until the next begin, the rest is copied.
 * OPT_RESOURCE_EXHAUSTED: no memory; the record is as it was. */
enum opt_status record_add(struct record_writer *writer,
                           const struct record_entry *entry, struct opt_error *error);
/* Bytes of memory that it keeps from record to record. */
size_t record_writer_bytes(const struct record_writer *writer);
/* Entries so far. */
size_t record_entries(const struct record_writer *writer);
/* The record, in parts that stay until the next add or begin.
 * OPT_RESOURCE_EXHAUSTED. */
enum opt_status record_parts(struct record_writer *writer, const struct iovec **parts,
                             size_t *count, struct opt_error *error);

/* ---- reading */

struct record {
    const struct record_entry *entries;
    size_t count;
};

/* Read a record of size bytes at data, aligned to 64. Texts and tables come from the
 * arena, values point into data. OPT_DATA_LOSS with a sentence; OPT_UNIMPLEMENTED: an
 * entry of a kind that is not known; OPT_RESOURCE_EXHAUSTED: the arena is too small. */
enum opt_status record_read(const uint8_t *data, size_t size, struct opt_arena *arena,
                            struct record *out, struct opt_error *error);
/* Limit of an arena that is enough for the tables of any record whose message has so
 * many bytes (record_message_bytes). */
size_t record_arena(size_t message_bytes);
size_t record_message_bytes(const uint8_t *data, size_t size);

#endif
