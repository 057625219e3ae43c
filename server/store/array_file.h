/* array_file — an array of a checkpoint, its weights or one of its slots, in a file.
 *
 * The file is a .safetensors with every tensor of the model, fp32, in the model's order
 * and without gaps. Values are written in any order, each once; the digest is the
 * XXH3-64 of the whole file, and is made from what comes in order as it comes. What
 * came early is read back when its turn has come. Reading goes through the file once,
 * from start to end. One thread at a time.
 */
#ifndef OPTIMD_SERVER_STORE_ARRAY_FILE_H
#define OPTIMD_SERVER_STORE_ARRAY_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/status.h"
#include "server/store/checkpoint.h"
#include "server/store/manifest.h"

struct array_file;

/* "weights.safetensors" or "slot.NAME.safetensors"; slot NULL: the weights. */
enum { ARRAY_FILE_NAME = 320 };
void array_file_name(const char *slot, char out[ARRAY_FILE_NAME]);

/* Make the file of an array in a folder; path is the folder's, for sentences. The
 * manifest is borrowed until the end. */
enum opt_status array_file_create(int folder, const char *path,
                                  const struct manifest *manifest, const char *slot,
                                  struct array_file **out, struct opt_error *error);
/* Values from an element of a tensor on. OPT_INTERNAL: there are some already. */
enum opt_status array_file_write(struct array_file *file, size_t tensor,
                                 uint64_t element, const struct iovec *parts,
                                 size_t count, struct opt_error *error);
/* All values are there: make the file durable, tell its size and digest.
 * OPT_INTERNAL: some are missing. */
enum opt_status array_file_finish(struct array_file *file, struct manifest_file *out,
                                  struct opt_error *error);

/* Open one whose header is what the manifest says, and whose size. OPT_DATA_LOSS. */
enum opt_status array_file_open(int folder, const char *path,
                                const struct manifest *manifest, const char *slot,
                                const struct manifest_file *expected,
                                struct array_file **out, struct opt_error *error);
/* Read all of it; sink NULL: only for its digest. OPT_DATA_LOSS: the digest is another
 * one. */
enum opt_status array_file_read(struct array_file *file,
                                const struct checkpoint_sink *sink,
                                struct opt_error *error);

/* Either kind; NULL is allowed. */
void array_file_close(struct array_file *file);

#endif
