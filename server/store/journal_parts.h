/* journal_parts — the bytes of a journal's segments: what reading and writing them have
 * in common.
 *
 * All numbers are little-endian. A sum is an XXH3-64 with a seed that only this data
 * directory and this segment have, so that no bytes of a record look like a header by
 * intention.
 *
 *   segment, 64 bytes         record, 40 bytes
 *    0  "optimdJ\n"            0  "oRec"
 *    8  format (4)             4  lower half of the sum of bytes 8 to 39 (4)
 *   12  64: its size (4)       8  bytes of the record
 *   16  identity              16  its index
 *   24  number                24  index of the last durable record when it was written
 *   32  first index           32  sum of the record's bytes
 *   40  end of the one before
 *   48  records lost between
 *   56  XXH3-64 of bytes 0 to 55, without a seed, in every format
 *
 * The bytes of a record follow its header, and zeros up to a multiple of 8.
 */
#ifndef OPTIMD_SERVER_STORE_JOURNAL_PARTS_H
#define OPTIMD_SERVER_STORE_JOURNAL_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/store/journal_file.h"

enum {
    SEGMENT_HEADER = 64,
    RECORD_HEADER = 40,
    RECORD_ALIGNMENT = 8,
    SEGMENT_NAME = 32
};

/* A segment that there is. */
struct journal_segment {
    uint64_t number, first; /* index of its first record, or of the next one's */
    uint64_t end;           /* bytes of it that count */
};

struct segment_header {
    uint32_t format;
    uint64_t identity, number, first;
    uint64_t
        previous_end; /* bytes of the segment before that count; 0: none is there */
    uint64_t lost;    /* records between that one's last and the first */
};
void segment_header_pack(const struct segment_header *header,
                         uint8_t out[SEGMENT_HEADER]);
/* False: damaged. */
bool segment_header_unpack(const uint8_t bytes[SEGMENT_HEADER],
                           struct segment_header *out);

struct record_header {
    uint64_t size, index, durable, sum;
};
uint64_t segment_seed(uint64_t identity, uint64_t number);
void record_header_pack(const struct record_header *header, uint64_t seed,
                        uint8_t out[RECORD_HEADER]);
bool record_header_unpack(const uint8_t bytes[RECORD_HEADER], uint64_t seed,
                          struct record_header *out);
/* Zeros after a record of that size. */
static inline size_t record_padding(uint64_t size)
{
    return (size_t)(-size % RECORD_ALIGNMENT);
}

void segment_name(uint64_t number, char out[SEGMENT_NAME]);
/* False: it is not the name of a segment. */
bool segment_number(const char *name, uint64_t *out);
/* "PATH/name", in `into` of so many bytes. */
void segment_path(const char *path, uint64_t number, char *into, size_t size);

/* The rest of a reader that a journal goes on from. */
const struct journal_place *journal_reader_place(const struct journal_reader *reader);
const struct journal_segment *
journal_reader_segments(const struct journal_reader *reader, size_t *count);
/* Of the next record after the end. */
uint64_t journal_reader_index(const struct journal_reader *reader);

#endif
