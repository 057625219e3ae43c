/* safetensors — named arrays in a file: the format of checkpoints and exchange.
 *
 * 8 bytes little-endian length of the header, the header as JSON (padded with spaces to
 * a multiple of 8), then raw little-endian row-major values. Reading works on memory,
 * mapped or read, which stays the caller's and is never copied; everything in it is
 * hostile until checked: lengths, counts against shapes, offsets against each other and
 * against the end, so that the values are covered exactly once. Any thread.
 */
#ifndef OPTIMD_COMMON_SAFETENSORS_H
#define OPTIMD_COMMON_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum opt_safetensors_type {
    OPT_SAFETENSORS_F64,
    OPT_SAFETENSORS_F32,
    OPT_SAFETENSORS_BF16,
    OPT_SAFETENSORS_F16,
    OPT_SAFETENSORS_I64,
    OPT_SAFETENSORS_U64,
    OPT_SAFETENSORS_U8,
    OPT_SAFETENSORS_TYPE_COUNT
};

/* Bytes of one element. */
size_t opt_safetensors_size(enum opt_safetensors_type type);

enum {
    OPT_SAFETENSORS_RANK = 8,
    OPT_SAFETENSORS_PREFIX = 8,
    OPT_SAFETENSORS_HEADER = 100 * 1000 * 1000 /* the format's own limit */
};

struct opt_safetensors_entry {
    const char *name;
    enum opt_safetensors_type type;
    size_t rank;
    uint64_t shape[OPT_SAFETENSORS_RANK];
    uint64_t count;   /* elements */
    uint64_t offset;  /* bytes, from the first value of the file */
    const void *data; /* aligned to the element size; NULL: not in memory */
};

struct opt_safetensors;

/* Read the header of a whole file of size bytes at data, which must be aligned to 8 and
 * outlive *out. header_limit: the longest header accepted, at most
 * OPT_SAFETENSORS_HEADER. OPT_DATA_LOSS with a sentence for anything malformed;
 * OPT_RESOURCE_EXHAUSTED. */
enum opt_status opt_safetensors_read(const void *data, size_t size, size_t header_limit,
                                     struct opt_safetensors **out,
                                     struct opt_error *error);
/* The same of a file of file_size bytes of which only the first are in memory: the
 * prefix and the header that it tells the length of (opt_safetensors_start). Its values
 * need not be aligned in the file, as the format allows. */
enum opt_status opt_safetensors_read_start(const void *data, size_t size,
                                           uint64_t file_size, size_t header_limit,
                                           struct opt_safetensors **out,
                                           struct opt_error *error);
/* Bytes before the first value, by a file's first 8: prefix and header. */
uint64_t opt_safetensors_start(const void *prefix);
/* NULL is allowed. */
void opt_safetensors_free(struct opt_safetensors *file);

/* Entries in the order of their values; borrowed from file. */
size_t opt_safetensors_count(const struct opt_safetensors *file);
const struct opt_safetensors_entry *
opt_safetensors_entry(const struct opt_safetensors *file, size_t index);
/* By name, or NULL; looks at one after the other. */
const struct opt_safetensors_entry *
opt_safetensors_find(const struct opt_safetensors *file, const char *name);
/* A value of __metadata__, or NULL. */
const char *opt_safetensors_metadata(const struct opt_safetensors *file,
                                     const char *key);

struct opt_safetensors_pair {
    const char *key, *value;
};

/* Make the first part of a file: length, header, padding. The values must follow it in
 * the order of the entries, without gaps; wider types first, or an entry would not be
 * aligned (OPT_INVALID_ARGUMENT, as for a name that is given twice). type, rank, shape
 * and name are read; count and offset are set. *out is the caller's, to be freed. */
enum opt_status opt_safetensors_header(struct opt_safetensors_entry *entries,
                                       size_t count,
                                       const struct opt_safetensors_pair *metadata,
                                       size_t metadata_count, void **out, size_t *size,
                                       struct opt_error *error);

#endif
