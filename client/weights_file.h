/* weights_file — a model's weights in a .safetensors file, written and read.
 *
 * A file that is written lies beside its place under another name until all of it is on
 * the disk. It is mapped meanwhile, so values go from the socket into it: a model may
 * be larger than memory. What is read is widened to fp32 into a mapping of its own,
 * because whoever else has the file could make it shorter; large mappings are backed by
 * a file without a name, too. Used by api_files.c, on the threads of the program.
 */
#ifndef OPTCLIENT_WEIGHTS_FILE_H
#define OPTCLIENT_WEIGHTS_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/safetensors.h"
#include "common/status.h"

/* Room for floats that need not fit memory. */
struct weights_room {
    float *floats;
    size_t bytes;
};
/* OPT_RESOURCE_EXHAUSTED; names the folder that has no space. */
enum opt_status weights_room_new(struct weights_room *room, uint64_t floats,
                                 struct opt_error *error);
void weights_room_free(struct weights_room *room);

/* ---- writing */

struct weights_writer {
    const char *path; /* borrowed */
    char *temporary;  /* what the file is called until it is whole; NULL: it is */
    int file;
    uint8_t *mapped;
    size_t size;
    uint8_t *values; /* in it: where the first entry's begin */
};

/* Make the file of these entries, as large as it will be; their offsets are set. */
enum opt_status weights_writer_open(struct weights_writer *writer, const char *path,
                                    struct opt_safetensors_entry *entries, size_t count,
                                    const struct opt_safetensors_pair *metadata,
                                    size_t metadata_count, struct opt_error *error);
/* All values are there: make it durable, and give it its name, in place of whatever has
 * it. */
enum opt_status weights_writer_finish(struct weights_writer *writer,
                                      struct opt_error *error);
/* What was not finished is removed. All zeros are allowed. */
void weights_writer_close(struct weights_writer *writer);

/* ---- reading */

struct weights_reader {
    int file;
    const char *path; /* borrowed */
    struct opt_safetensors *header;
    uint64_t start; /* byte of the first entry's values */
};

/* Read the header. OPT_NOT_FOUND, OPT_PERMISSION_DENIED, OPT_DATA_LOSS. */
enum opt_status weights_reader_open(struct weights_reader *reader, const char *path,
                                    struct opt_error *error);
/* Read an entry's values as fp32, count of them. OPT_INVALID_ARGUMENT: they are no
 * floats of 16 or 32 bits. OPT_DATA_LOSS: the file has become shorter. */
enum opt_status weights_reader_values(const struct weights_reader *reader,
                                      const struct opt_safetensors_entry *entry,
                                      float *out, struct opt_error *error);
/* All zeros, but for file -1, are allowed. */
void weights_reader_close(struct weights_reader *reader);

#endif
