/* frame — length-prefixed frames: bytes in, whole messages out; no I/O.
 *
 * One reader per connection and direction, used by the loop thread that owns the
 * connection (daemon and client library alike). It tells the caller where the next
 * bytes must be read to, and after each read what they amount to:
 *
 *                    +-----------------------------------------------+
 *                    v                                               |
 *   space, received -> next: OPT_FRAME_MORE    read again            |
 *                      next: OPT_FRAME_HEADER  the header part is    |
 *                            here; the caller unpacks it and answers |
 *                            with opt_frame_place(where data goes)   |
 *                      next: OPT_FRAME_DATA    more of data is in its|
 *                            place (for checks while it is in cache) |
 *                      next: OPT_FRAME_END     the frame is complete +
 *                      next: OPT_FRAME_BROKEN  the peer must be told and cut off
 *
 * The tail of a frame, field `data`, is read into the caller's memory; only what came
 * in the same read as the header (at most OPT_FRAME_STAGE bytes) is moved there.
 *
 * The reader takes no memory by itself beyond what it has from the beginning: two more
 * events ask the caller first, who may answer later (the events are repeated until it
 * does), so that what a peer makes it hold can be counted before it is taken.
 *
 *   OPT_FRAME_LONG   the header part does not fit the memory there is: opt_frame_grow
 *   OPT_FRAME_EARLY  `data` comes before other fields, so its size is known and the
 *                    header part is not: opt_frame_place(where data goes); after
 *                    OPT_FRAME_HEADER it is asked again, and data is moved if the
 *                    answer differs
 *
 * Frames whose data is no longer than that are worth being read many at a time, for a
 * system call costs more than moving it: for that the caller lends memory for a read.
 * It is used after OPT_FRAME_SHORT_RUN such frames in a row, so that the long frame
 * that follows, of which more is moved once, is a rare one.
 */
#ifndef OPTIMD_COMMON_FRAME_H
#define OPTIMD_COMMON_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum {
    OPT_FRAME_PREFIX = 4,   /* bytes of the length */
    OPT_FRAME_STAGE = 4096, /* most that is read at once before data's place is known */
    OPT_FRAME_SHORT_RUN = 16,   /* frames with no more data, before */
    OPT_FRAME_AHEAD = 32 << 10, /* so much memory is worth lending */
    OPT_FRAME_DATA_FIELD = 2047 /* number of `data` in Request and Reply */
};

enum opt_frame_event {
    OPT_FRAME_MORE,
    OPT_FRAME_HEADER,
    OPT_FRAME_DATA,
    OPT_FRAME_END,
    OPT_FRAME_BROKEN,
    OPT_FRAME_LONG,
    OPT_FRAME_EARLY
};

struct opt_frame_limits {
    size_t frame_bytes;  /* longest frame, prefix not counted */
    size_t header_bytes; /* longest frame without its data */
};

struct opt_frame_reader;

/* NULL if there is no memory. */
struct opt_frame_reader *opt_frame_reader_new(struct opt_frame_limits limits);
void opt_frame_reader_free(struct opt_frame_reader *reader);

/* Where the next bytes go, and how many fit; never 0 after OPT_FRAME_MORE. */
void opt_frame_space(struct opt_frame_reader *reader, uint8_t **base, size_t *size);

/* Lend memory of OPT_FRAME_AHEAD bytes for the next read, before opt_frame_space. It is
 * the reader's until opt_frame_take_back, which is to follow when the events of the
 * read have been taken, and keeps what is left of the bytes. False: no memory to keep
 * it in; nothing was taken back. */
void opt_frame_lend(struct opt_frame_reader *reader, uint8_t *memory);
bool opt_frame_take_back(struct opt_frame_reader *reader);

/* size bytes, at most what opt_frame_space gave, have been written there. */
void opt_frame_received(struct opt_frame_reader *reader, size_t size);

/* What the bytes so far amount to. Call until OPT_FRAME_MORE or OPT_FRAME_BROKEN.
 * After OPT_FRAME_HEADER, opt_frame_place must be called before the next call. */
enum opt_frame_event opt_frame_next(struct opt_frame_reader *reader);

/* After OPT_FRAME_LONG: how many bytes the reader needs for the header part (those it
 * has taken so far are given back when it has them), and the permission to take them.
 * False: there is no memory. */
size_t opt_frame_wanted(const struct opt_frame_reader *reader);
bool opt_frame_grow(struct opt_frame_reader *reader);

/* Bytes that the reader has taken for a header part beyond what it began with. */
size_t opt_frame_taken(const struct opt_frame_reader *reader);

/* After OPT_FRAME_HEADER: the header part (everything but data), borrowed until the
 * next call of opt_frame_next that follows opt_frame_place. */
const uint8_t *opt_frame_header(const struct opt_frame_reader *reader, size_t *size);

/* The header part is not read again, nor is what came before it: overwrite both, for
 * there may have been a secret in it. After OPT_FRAME_HEADER. */
void opt_frame_forget(struct opt_frame_reader *reader);

/* Bytes of `data` in this frame. Valid from OPT_FRAME_HEADER, or OPT_FRAME_EARLY, to
 * OPT_FRAME_END. */
size_t opt_frame_data_size(const struct opt_frame_reader *reader);

/* Whether `data` came before other fields of this frame. */
bool opt_frame_is_early(const struct opt_frame_reader *reader);

/* Bytes of tensor data that were moved in user space by this reader so far. */
uint64_t opt_frame_moved(const struct opt_frame_reader *reader);

/* Where `data` shall go: opt_frame_data_size bytes, the caller's until OPT_FRAME_END,
 * or until another place is given; NULL: read it and throw it away. What was thrown
 * away early has no other place later. */
void opt_frame_place(struct opt_frame_reader *reader, uint8_t *data);

/* How many bytes of data are in their place. */
size_t opt_frame_data_filled(const struct opt_frame_reader *reader);

/* Whether a frame has been begun but not ended: the peer owes bytes. */
bool opt_frame_pending(const struct opt_frame_reader *reader);

/* After OPT_FRAME_BROKEN: what was wrong. */
const struct opt_error *opt_frame_error(const struct opt_frame_reader *reader);

/* Most bytes that opt_frame_begin writes. */
enum { OPT_FRAME_BEGIN_MAX = OPT_FRAME_PREFIX + 2 + 10 };

/* Write what stands before and after a packed header part of header_size bytes so that
 * header part and data_size bytes of data make one frame:
 *   prefix (4 bytes), header part, *tag_size bytes of tag, data.
 * tag may take 12 bytes; *tag_size is 0 if data_size is 0. */
void opt_frame_begin(size_t header_size, size_t data_size, uint8_t prefix[4],
                     uint8_t tag[12], size_t *tag_size);

#endif
