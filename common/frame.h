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
 * in the same read as the header (at most OPT_FRAME_STAGE bytes) is moved there. If
 * `data` is not the last field, the whole frame is gathered first and `data` copied.
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
    OPT_FRAME_BROKEN
};

struct opt_frame_limits {
    size_t frame_bytes;  /* longest frame, prefix not counted */
    size_t header_bytes; /* longest frame without its data */
    size_t gather_bytes; /* longest data that is held because other fields follow it; 0:
                            as long as a frame may be */
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

/* After OPT_FRAME_HEADER: the header part (everything but data), borrowed until the
 * next call of opt_frame_next that follows opt_frame_place. */
const uint8_t *opt_frame_header(const struct opt_frame_reader *reader, size_t *size);

/* Bytes of `data` in this frame. Valid from OPT_FRAME_HEADER to OPT_FRAME_END. */
size_t opt_frame_data_size(const struct opt_frame_reader *reader);

/* Whether this frame is held as it came (field order) and data will be copied. */
bool opt_frame_copied(const struct opt_frame_reader *reader);

/* Bytes of tensor data that were moved in user space by this reader so far. */
uint64_t opt_frame_moved(const struct opt_frame_reader *reader);

/* Where `data` shall go: opt_frame_data_size bytes, the caller's until OPT_FRAME_END;
 * NULL: read it and throw it away. */
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
