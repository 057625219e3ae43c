/* checkpoint — a model as it was after a step, in a folder of its own.
 *
 *   models/<identity>/0000000007-step-1200/
 *     manifest.json                 everything but values (manifest.h)
 *     manifest.xxh3                 its XXH3-64, as xxhsum writes it
 *     weights.safetensors           each tensor, by its name, fp32
 *     slot.exp_avg.safetensors      each tensor's slot, named <tensor>.<slot>, fp32
 *     slot.exp_avg_sq.safetensors
 *
 * It is written in a folder whose name begins with "tmp-", made durable file by file,
 * and renamed last: a checkpoint is whole or not there. Values may be written in any
 * order, each once; what comes in order is digested as it comes. A sparse tensor is
 * written whole, like any other.
 *
 * Whoever reads gets a manifest that has been checked and matches the files' sizes and
 * headers; values are checked against their digests as they are read, so only the end
 * of reading tells whether what came was right. One thread at a time.
 */
#ifndef OPTIMD_SERVER_STORE_CHECKPOINT_H
#define OPTIMD_SERVER_STORE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/status.h"
#include "server/store/manifest.h"

enum { CHECKPOINTS_KEPT = 3, CHECKPOINT_NAME = 64 };

struct checkpoint_place { /* the folder of one model's checkpoints */
    int folder;           /* borrowed as long as something is open in it */
    const char *path;     /* for sentences; the same */
};

/* ---- writing */

struct checkpoint_writer;

/* Begin a checkpoint of what the manifest says, borrowed until the end; its files are
 * not looked at. */
enum opt_status checkpoint_begin(const struct checkpoint_place *place,
                                 const struct manifest *manifest,
                                 struct checkpoint_writer **out,
                                 struct opt_error *error);
/* Write floats of an array (0: the weights, 1: the first slot ...) from an element of a
 * tensor on; they may go on into the tensors behind it. */
enum opt_status checkpoint_write(struct checkpoint_writer *writer, size_t array,
                                 size_t tensor, uint64_t element,
                                 const struct iovec *parts, size_t count,
                                 struct opt_error *error);
/* Everything has been written: make it durable and give it its name, of which at most
 * CHECKPOINT_NAME bytes are put into name (may be NULL). The writer is freed; on
 * failure nothing is left of the checkpoint, or only what begins with "tmp-". */
enum opt_status checkpoint_finish(struct checkpoint_writer *writer, char *name,
                                  struct opt_error *error);
/* Give it up and remove it. NULL is allowed. */
void checkpoint_abandon(struct checkpoint_writer *writer);

/* Remove what is older than the newest `keep` checkpoints that have their manifest. */
enum opt_status checkpoint_prune(const struct checkpoint_place *place, size_t keep,
                                 struct opt_error *error);

/* ---- reading */

/* One that is there, newest first. */
struct checkpoint_entry {
    char name[CHECKPOINT_NAME];
    uint64_t number, step;
    uint64_t record;        /* the manifest's */
    struct opt_error error; /* status OPT_OK: it can be opened; else why not */
};
/* *out is the caller's to free. */
enum opt_status checkpoint_list(const struct checkpoint_place *place,
                                struct checkpoint_entry **out, size_t *count,
                                struct opt_error *error);

struct checkpoint_reader;

/* OPT_DATA_LOSS: the sentence names the file, and what was expected and found;
 * OPT_UNIMPLEMENTED: a newer format. */
enum opt_status checkpoint_open(const struct checkpoint_place *place, const char *name,
                                struct checkpoint_reader **out,
                                struct opt_error *error);
/* NULL is allowed. */
void checkpoint_close(struct checkpoint_reader *reader);
/* Until it is closed. */
const struct manifest *checkpoint_manifest(const struct checkpoint_reader *reader);

/* Some values of a tensor, in order; none of two tensors at once. */
struct checkpoint_sink {
    void (*take)(void *context, size_t tensor, uint64_t element, const float *values,
                 size_t n);
    void *context;
};
/* Read an array from its start to its end, in pieces of at most OPT_BLOCK floats, each
 * within a block of its tensor. sink NULL: only check the digest. OPT_DATA_LOSS: what
 * was given is not what was written. */
enum opt_status checkpoint_read(struct checkpoint_reader *reader, size_t array,
                                const struct checkpoint_sink *sink,
                                struct opt_error *error);

#endif
