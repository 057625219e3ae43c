/* journal_file — records in the order in which they were appended, in files that grow
 * at their end.
 *
 * A journal is a folder of segments, named by their numbers. Each begins with a header
 * and has whole records, each with its index (counted from 1 over all segments), its
 * length and an XXH3-64; docs/data-directory.md has the bytes. What a record says is
 * not known here (record.h).
 *
 *   00000000000000000007.journal     header | 312 | 313 | 314
 *   00000000000000000008.journal     header | 315 | 316 | torn
 *
 * Writing. Appended records are durable with the next sync that succeeds, all of them
 * together. A segment that is full is synced, and another one begun. What fails is
 * never tried again on the same file: a segment that could not be written or synced is
 * left as it is, and the next one says how much of it counts. After a write that failed
 * nothing of the record counts, and the caller may append it again. After a sync that
 * failed the records since the last one are not in the journal any more: the caller
 * appends them again, if it still has them, or skips them.
 *
 * Reading. A record is given only if it is whole. What is wrong at the end of the last
 * segment, where a record was being written when the power went or the daemon was
 * killed, is a torn tail: the journal ends before it. What is wrong anywhere else, or
 * was said to be durable by a record behind it, is damage and is named with file and
 * offset. Records that were skipped leave a gap, which is named too.
 *
 * One thread at a time. Nothing here waits but for the disk.
 */
#ifndef OPTIMD_SERVER_STORE_JOURNAL_FILE_H
#define OPTIMD_SERVER_STORE_JOURNAL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/status.h"

enum { JOURNAL_FORMAT = 1, JOURNAL_SEGMENT_BYTES = 64 << 20 };

struct journal_place { /* what a journal is, to who opens it */
    int folder;        /* borrowed as long as it is open */
    const char *path;  /* of the folder, for sentences; the same */
    uint64_t identity; /* of the data directory: others' segments are refused */
};

/* ---- reading */

struct journal_reader;

/* Look at all segments, the oldest first. OPT_DATA_LOSS: a segment is missing, or its
 * header is damaged or another directory's; OPT_UNIMPLEMENTED: of a newer format. No
 * segments at all are an empty journal. */
enum opt_status journal_reader_open(const struct journal_place *place,
                                    struct journal_reader **out,
                                    struct opt_error *error);
/* The same, but if a segment is missing or damaged it reads those before it: *damage
 * tells why, its status is OPT_OK if nothing is wrong, and journal_reader_where after
 * the end is where. For who looks at what can be saved. */
enum opt_status journal_reader_open_damaged(const struct journal_place *place,
                                            struct journal_reader **out,
                                            struct opt_error *damage,
                                            struct opt_error *error);
/* Where the reader stands, or has met damage: the number of a segment, 0 if there is
 * none, and the byte in it. */
void journal_reader_where(const struct journal_reader *reader, uint64_t *number,
                          uint64_t *offset);
/* Whether what journal_reader_next has called OPT_DATA_LOSS is that records are missing
 * which could not be kept when they were made, as the journal itself says: *next is the
 * first behind them. */
bool journal_reader_gap(const struct journal_reader *reader, uint64_t *next);
/* Whether there is no segment at all. */
bool journal_reader_is_empty(const struct journal_reader *reader);
/* Bytes of all segments. */
uint64_t journal_reader_bytes(const struct journal_reader *reader);
/* NULL is allowed. */
void journal_reader_free(struct journal_reader *reader);

/* Go to the first record with at least this index, which may be the end. The records
 * before it are not looked at. OPT_DATA_LOSS: the journal begins later. */
enum opt_status journal_reader_seek(struct journal_reader *reader, uint64_t index,
                                    struct opt_error *error);

struct journal_head {
    uint64_t index;
    size_t size;           /* bytes of the record */
    const char *segment;   /* where it is: path of the file, until the next call, */
    uint64_t offset;       /* and the first byte of its header */
    uint64_t bytes_behind; /* in this and later segments: for progress */
};
/* The next record's head. OPT_OUT_OF_RANGE: there is none, and the journal is read to
 * its end. OPT_DATA_LOSS: damage, or a gap. */
enum opt_status journal_reader_next(struct journal_reader *reader,
                                    struct journal_head *head, struct opt_error *error);
/* Its bytes, into `into`, which has head's size. Who skips a record calls next again;
 * its bytes are then not checked. OPT_OUT_OF_RANGE: it is the torn tail, and the end of
 * the journal. OPT_DATA_LOSS. */
enum opt_status journal_reader_body(struct journal_reader *reader, void *into,
                                    struct opt_error *error);

/* After the end: how many bytes of which file are a torn tail; 0 and "" if none. */
uint64_t journal_reader_torn(const struct journal_reader *reader, const char **segment,
                             uint64_t *offset);
/* Index of the first record that there is, or of the next to be appended. */
uint64_t journal_reader_first(const struct journal_reader *reader);

/* ---- writing */

struct journal;

/* Go on where the reader has found the end, in a new segment; the torn tail is cut, and
 * what is before it is made durable.
 * The reader may be freed afterwards. next: index of the next record, at least the one
 * after the last; a higher one leaves a gap (a checkpoint knows more than the journal
 * has). segment_bytes: a segment of at least so many is full. */
enum opt_status journal_open(struct journal_reader *reader, uint64_t next,
                             uint64_t segment_bytes, struct journal **out,
                             struct opt_error *error);
/* Nothing is synced. NULL is allowed. */
void journal_free(struct journal *journal);

/* Append one record of all parts, one after another; *index becomes its. On failure
 * nothing of it counts, and the segment is given up; if that had to be synced and could
 * not be, journal_next is less than it was. */
enum opt_status journal_append(struct journal *journal, const struct iovec *parts,
                               size_t count, uint64_t *index, struct opt_error *error);
/* Make all that was appended durable. On failure journal_next is the one after the
 * last durable record again. */
enum opt_status journal_sync(struct journal *journal, struct opt_error *error);
/* The same in two parts, so that another thread can wait for the disk while records are
 * appended: what is to be made durable, false if there is nothing; and what came of it.
 * In between no other sync may be asked for, nor a segment be begun (journal_begins).
 */
struct journal_point {
    int file;
    uint64_t end, next; /* of the segment; index after its last record */
};
bool journal_point(const struct journal *journal, struct journal_point *out);
/* Make it durable. Any thread; path is borrowed. */
enum opt_status journal_point_sync(const struct journal_point *point, const char *path,
                                   struct opt_error *error);
/* It is, or it could not be made so; then as if journal_sync had failed. */
void journal_synced(struct journal *journal, const struct journal_point *point);
void journal_not_synced(struct journal *journal);
/* Whether the next record begins a segment, the last one being synced for that. */
bool journal_begins(const struct journal *journal);
/* Path of the segment that is written, until the next is begun. */
const char *journal_path(const struct journal *journal);

/* The next record will have that index: those before are lost (a gap). */
void journal_skip(struct journal *journal, uint64_t next);

uint64_t journal_next(const struct journal *journal);    /* index to be appended */
uint64_t journal_durable(const struct journal *journal); /* the last durable one's */
uint64_t journal_bytes(const struct journal *journal);   /* of all segments */
size_t journal_segments(const struct journal *journal);

/* Remove segments of which every record has an index less than before: checkpoints
 * have what they say. The one being written stays. */
enum opt_status journal_drop(struct journal *journal, uint64_t before,
                             struct opt_error *error);

#endif
