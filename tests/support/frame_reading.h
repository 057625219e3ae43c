/* frame_reading — frames as bytes, and a reader that is fed with them and keeps what it
 * has got; whatever the reader does is checked on the way.
 */
#ifndef OPTIMD_TESTS_SUPPORT_FRAME_READING_H
#define OPTIMD_TESTS_SUPPORT_FRAME_READING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/frame.h"
#include "common/status.h"

struct bytes {
    size_t size;
    uint8_t at[1 << 18];
};

void bytes_put_varint(struct bytes *bytes, uint64_t value);
uint8_t bytes_pattern(size_t index, unsigned seed);
/* A BYTES field of size bytes of a pattern. */
void bytes_put_field(struct bytes *bytes, uint32_t number, size_t size, unsigned seed);
void bytes_put_number(struct bytes *bytes, uint32_t number, uint64_t value);
void bytes_put_data(struct bytes *bytes, size_t size, unsigned seed);
void bytes_put_prefix(struct bytes *bytes, size_t size);
/* Append message as a frame. */
void bytes_put_frame(struct bytes *stream, const struct bytes *message);
/* A frame whose header part has about header bytes, with data bytes of data (no data
 * field at all for SIZE_MAX). */
void bytes_put_plain_frame(struct bytes *stream, size_t header, size_t data,
                           unsigned seed);
void bytes_expect_pattern(const uint8_t *bytes, size_t size, unsigned seed);

struct got {
    uint8_t *header;
    size_t header_size;
    uint8_t *data;
    size_t data_size;
    bool early;
};

struct reading {
    struct opt_frame_reader *reader;
    struct got frames[256];
    size_t count;
    bool open;  /* HEADER without END */
    bool early; /* EARLY without HEADER */
    bool broken;
    bool discard;   /* give data no place */
    bool elsewhere; /* give data that came early another place later */
    uint8_t *first; /* its first one */
};

extern const struct opt_frame_limits frame_usual;

struct reading *reading_new(struct opt_frame_limits limits);
void reading_free(struct reading *reading);
/* After OPT_FRAME_HEADER: keep the header, and give the data a place. */
void reading_take_header(struct reading *reading);
/* Everything that the bytes so far amount to. */
void reading_drain(struct reading *reading);
/* Feed bytes, at most step at a time (as a socket would), until they are used up. The
 * memory that is lent for a read is gone after it. */
void reading_feed(struct reading *reading, const uint8_t *bytes, size_t size,
                  size_t step);
/* Frame number index is what bytes_put_plain_frame wrote. */
void reading_expect_plain(const struct reading *reading, size_t index, size_t header,
                          size_t data, unsigned seed);
/* The stream breaks the reader, with these words in its sentence. */
void bytes_expect_broken(struct opt_frame_limits limits, const struct bytes *stream,
                         enum opt_status status, const char *words);

#endif
