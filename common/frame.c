#include "common/frame.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"

/*            +---------------------------------------------+
 *            v                                             |
 *         PREFIX -> SCAN -> HEADER -> (place) -> DATA -> (end)
 *                   |  ^
 *                   v  |
 *         EARLY -> (place) -> GATHER   `data` is not the last field
 *
 * BROKEN is reached from PREFIX and SCAN, and is final.
 */
enum state { PREFIX, SCAN, EARLY, GATHER, HEADER, DATA, BROKEN };

struct opt_frame_reader {
    struct opt_frame_limits limits;
    enum state state;

    /* Bytes that were read before their place was known: stage[begin, end). While a
     * header is being scanned, it starts at begin. */
    uint8_t *stage; /* fixed, or the heap's while there is more, or lent */
    size_t capacity;
    bool lent;
    unsigned short_run; /* frames in a row that were short, as far as it matters */
    size_t begin, end;

    /* The frame in progress. */
    size_t scanned; /* bytes of its header part that are known, counted from begin */
    size_t rest;    /* bytes of the frame behind those, `gathered` not counted */
    size_t tag;     /* bytes between header part and data in the stage */
    size_t data_size;
    size_t filled;  /* bytes of data that are here */
    size_t told;    /* of these, reported by OPT_FRAME_DATA */
    uint8_t *place; /* the caller's */
    bool placed;    /* opt_frame_place has been called */
    bool early;     /* data came before other fields, */
    uint8_t *first; /* and this was its place then */
    size_t wanted;  /* bytes for a longer stage */

    uint64_t moved;
    struct opt_error error;
    uint8_t fixed[OPT_FRAME_STAGE];
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct opt_frame_reader *opt_frame_reader_new(struct opt_frame_limits limits)
{
    struct opt_frame_reader *reader = malloc(sizeof(*reader));
    if (reader == NULL) {
        return NULL;
    }
    memset(reader, 0, offsetof(struct opt_frame_reader, fixed));
    reader->limits = limits;
    reader->state = PREFIX;
    reader->stage = reader->fixed;
    reader->capacity = sizeof(reader->fixed);
    return reader;
}

void opt_frame_reader_free(struct opt_frame_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->stage != reader->fixed && !reader->lent) {
        free(reader->stage);
    }
    free(reader);
}

/* Go on in another stage, which has room for what is here. */
static void move_stage(struct opt_frame_reader *reader, uint8_t *stage, size_t capacity)
{
    size_t held = reader->end - reader->begin;
    memcpy(stage, reader->stage + reader->begin, held);
    if (reader->stage != reader->fixed && !reader->lent) {
        free(reader->stage);
    }
    reader->stage = stage;
    reader->capacity = capacity;
    reader->begin = 0;
    reader->end = held;
    reader->lent = false;
}

void opt_frame_lend(struct opt_frame_reader *reader, uint8_t *memory)
{
    bool into_stage = reader->state == PREFIX || reader->state == SCAN;
    if (reader->short_run == OPT_FRAME_SHORT_RUN && into_stage &&
        reader->stage == reader->fixed) {
        move_stage(reader, memory, OPT_FRAME_AHEAD);
        reader->lent = true;
    }
}

bool opt_frame_take_back(struct opt_frame_reader *reader)
{
    size_t held = reader->end - reader->begin;
    if (!reader->lent) {
        return true;
    }
    if (held <= sizeof(reader->fixed)) {
        move_stage(reader, reader->fixed, sizeof(reader->fixed));
        return true;
    }
    uint8_t *stage = malloc(OPT_FRAME_AHEAD);
    if (stage == NULL) {
        return false;
    }
    move_stage(reader, stage, OPT_FRAME_AHEAD);
    return true;
}

static bool reads_into_place(const struct opt_frame_reader *reader)
{
    return (reader->state == GATHER || reader->state == DATA) && reader->place != NULL;
}

void opt_frame_space(struct opt_frame_reader *reader, uint8_t **base, size_t *size)
{
    if (reads_into_place(reader)) {
        *base = reader->place + reader->filled;
        *size = reader->data_size - reader->filled;
    } else {
        *base = reader->stage + reader->end;
        size_t room = reader->capacity - reader->end;
        *size = reader->state == BROKEN ? 0
                : reader->lent          ? room
                                        : smaller(room, OPT_FRAME_STAGE);
    }
}

void opt_frame_received(struct opt_frame_reader *reader, size_t size)
{
    if (reads_into_place(reader)) {
        assert(size <= reader->data_size - reader->filled);
        reader->filled += size;
    } else {
        assert(size <= reader->capacity - reader->end);
        reader->end += size;
    }
}

static enum opt_frame_event broken(struct opt_frame_reader *reader)
{
    reader->state = BROKEN;
    return OPT_FRAME_BROKEN;
}

/* More bytes are wanted in the stage: make sure that some fit. */
static enum opt_frame_event more_in_stage(struct opt_frame_reader *reader)
{
    size_t held = reader->end - reader->begin;
    if (reader->begin > 0) {
        memmove(reader->stage, reader->stage + reader->begin, held);
        reader->begin = 0;
        reader->end = held;
    }
    if (held < reader->capacity) {
        return OPT_FRAME_MORE;
    }
    /* The scan refuses a header part past the limit before its bytes are here, so the
     * limit and one more field's head are always enough to go on. */
    size_t most = reader->limits.header_bytes + OPT_FIELD_HEAD_MAX + 1;
    size_t capacity = smaller(2 * reader->capacity, most);
    assert(capacity > reader->capacity);
    reader->wanted = capacity;
    return OPT_FRAME_LONG;
}

size_t opt_frame_wanted(const struct opt_frame_reader *reader)
{
    return reader->wanted;
}

bool opt_frame_grow(struct opt_frame_reader *reader)
{
    assert(reader->wanted > reader->capacity);
    uint8_t *stage = malloc(reader->wanted);
    if (stage == NULL) {
        return false;
    }
    move_stage(reader, stage, reader->wanted);
    return true;
}

size_t opt_frame_taken(const struct opt_frame_reader *reader)
{
    return reader->stage == reader->fixed || reader->lent ? 0 : reader->capacity;
}

static bool read_prefix(struct opt_frame_reader *reader)
{
    const uint8_t *p = reader->stage + reader->begin;
    size_t size =
        (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (size > reader->limits.frame_bytes) {
        opt_fail_as(&reader->error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                    "a frame of %zu bytes was announced; the limit is %zu", size,
                    reader->limits.frame_bytes);
        return false;
    }
    reader->begin += OPT_FRAME_PREFIX;
    reader->scanned = 0;
    reader->rest = size;
    reader->tag = 0;
    reader->data_size = 0;
    reader->filled = 0;
    reader->told = 0;
    reader->place = NULL;
    reader->placed = false;
    reader->early = false;
    reader->state = SCAN;
    return true;
}

/* `data` starts behind the scanned part and other fields follow it. */
static void begin_early(struct opt_frame_reader *reader, const struct opt_field *field)
{
    reader->early = true;
    reader->data_size = (size_t)field->size;
    reader->rest -= field->head + reader->data_size;
    reader->tag = field->head;
    reader->placed = false;
    reader->state = EARLY;
}

/* Take size bytes out of the stage, behind the scanned part, so that what remains there
 * is the header part without a gap. */
static void close_gap(struct opt_frame_reader *reader, size_t size)
{
    uint8_t *gap = reader->stage + reader->begin + reader->scanned;
    memmove(gap, gap + size, (size_t)(reader->stage + reader->end - gap) - size);
    reader->end -= size;
}

/* What is in the stage of data that comes early goes to its place. */
static void take_early(struct opt_frame_reader *reader)
{
    const uint8_t *data = reader->stage + reader->begin + reader->scanned;
    size_t here = smaller((size_t)(reader->stage + reader->end - data),
                          reader->data_size - reader->filled);
    if (here > 0 && reader->place != NULL) {
        memcpy(reader->place + reader->filled, data, here);
        reader->moved += here;
    }
    reader->filled += here;
    close_gap(reader, here);
}

enum scan_result { SCAN_MORE, SCAN_DONE, SCAN_EARLY, SCAN_BROKEN };

/* Go over the fields until the header part is known and here. */
static enum scan_result scan(struct opt_frame_reader *reader)
{
    for (;;) {
        size_t held = reader->end - reader->begin;
        if (reader->rest == 0) {
            return held >= reader->scanned ? SCAN_DONE : SCAN_MORE;
        }
        if (held <= reader->scanned) {
            return SCAN_MORE;
        }
        size_t available = smaller(held - reader->scanned, reader->rest);
        struct opt_field field;
        const char *reason = NULL;
        switch (opt_field_read(reader->stage + reader->begin + reader->scanned,
                               available, &field, &reason)) {
        case OPT_FIELD_READ:
            break;
        case OPT_FIELD_SHORT:
            if (available < reader->rest) {
                return SCAN_MORE;
            }
            opt_fail(
                &reader->error, OPT_INVALID_ARGUMENT,
                "a frame ends inside the head of a field, %zu bytes before its end",
                reader->rest);
            return SCAN_BROKEN;
        case OPT_FIELD_BAD:
            opt_fail(&reader->error, OPT_INVALID_ARGUMENT,
                     "a frame is not a protobuf message: %s at byte %zu of its header",
                     reason, reader->scanned);
            return SCAN_BROKEN;
        }
        if (field.size > reader->rest - field.head) {
            opt_fail(&reader->error, OPT_INVALID_ARGUMENT,
                     "field %" PRIu32 " of a frame announces %" PRIu64
                     " bytes, but only %zu are left in the frame",
                     field.number, field.size, reader->rest - field.head);
            return SCAN_BROKEN;
        }
        if (field.number == OPT_FRAME_DATA_FIELD) {
            if (field.type != OPT_FIELD_BYTES) {
                opt_fail(&reader->error, OPT_INVALID_ARGUMENT,
                         "field data has wire type %d; it must be 2", (int)field.type);
                return SCAN_BROKEN;
            }
            if (reader->early) {
                opt_fail(&reader->error, OPT_INVALID_ARGUMENT,
                         "field data is given twice in one frame");
                return SCAN_BROKEN;
            }
            if (field.head + field.size == reader->rest) {
                reader->data_size = (size_t)field.size;
                reader->tag = field.head;
                return SCAN_DONE;
            }
            begin_early(reader, &field);
            return SCAN_EARLY;
        }
        size_t total = field.head + (size_t)field.size;
        if (total > reader->limits.header_bytes - reader->scanned) {
            opt_fail_as(
                &reader->error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                "field %" PRIu32 " makes a frame's header part at least %zu bytes "
                "long; the limit is %zu",
                field.number, reader->scanned + total, reader->limits.header_bytes);
            return SCAN_BROKEN;
        }
        reader->scanned += total;
        reader->rest -= total;
    }
}

/* The header has been used: bring to its place what of data is here. */
static void begin_data(struct opt_frame_reader *reader)
{
    reader->begin += reader->scanned + reader->tag;
    reader->state = DATA;
    if (!reader->early || reader->place == NULL || reader->place == reader->first) {
        return;
    }
    assert(reader->first != NULL || reader->data_size == 0);
    if (reader->data_size > 0) {
        memcpy(reader->place, reader->first, reader->data_size);
        reader->moved += reader->data_size;
    }
}

static enum opt_frame_event end_frame(struct opt_frame_reader *reader)
{
    reader->state = PREFIX;
    bool is_short = reader->data_size <= OPT_FRAME_STAGE;
    if (!is_short) {
        reader->short_run = 0;
    } else if (reader->short_run < OPT_FRAME_SHORT_RUN) {
        reader->short_run++;
    }
    size_t held = reader->end - reader->begin;
    if (reader->stage != reader->fixed && !reader->lent &&
        held <= sizeof(reader->fixed)) {
        move_stage(reader, reader->fixed, sizeof(reader->fixed));
    }
    return OPT_FRAME_END;
}

static enum opt_frame_event next_data(struct opt_frame_reader *reader)
{
    size_t here =
        smaller(reader->end - reader->begin, reader->data_size - reader->filled);
    if (here > 0) {
        if (reader->place != NULL) {
            memcpy(reader->place + reader->filled, reader->stage + reader->begin, here);
            reader->moved += here;
        }
        reader->begin += here;
        reader->filled += here;
    }
    if (reader->place != NULL && reader->filled > reader->told) {
        reader->told = reader->filled;
        return OPT_FRAME_DATA;
    }
    if (reader->filled == reader->data_size) {
        return end_frame(reader);
    }
    return more_in_stage(reader);
}

enum opt_frame_event opt_frame_next(struct opt_frame_reader *reader)
{
    for (;;) {
        switch (reader->state) {
        case PREFIX:
            if (reader->end - reader->begin < OPT_FRAME_PREFIX) {
                return more_in_stage(reader);
            }
            if (!read_prefix(reader)) {
                return broken(reader);
            }
            break;
        case SCAN:
            switch (scan(reader)) {
            case SCAN_MORE:
                return more_in_stage(reader);
            case SCAN_BROKEN:
                return broken(reader);
            case SCAN_EARLY:
                return OPT_FRAME_EARLY;
            case SCAN_DONE:
                reader->state = HEADER;
                return OPT_FRAME_HEADER;
            }
            break;
        case EARLY:
            if (!reader->placed) {
                return OPT_FRAME_EARLY;
            }
            close_gap(reader, reader->tag);
            reader->tag = 0;
            reader->state = GATHER;
            break;
        case GATHER:
            take_early(reader);
            if (reader->filled < reader->data_size) {
                return reader->place != NULL ? OPT_FRAME_MORE : more_in_stage(reader);
            }
            reader->first = reader->place;
            reader->placed = false;
            reader->state = SCAN;
            break;
        case HEADER:
            assert(reader->placed);
            begin_data(reader);
            break;
        case DATA:
            return next_data(reader);
        case BROKEN:
            return OPT_FRAME_BROKEN;
        }
    }
}

const uint8_t *opt_frame_header(const struct opt_frame_reader *reader, size_t *size)
{
    assert(reader->state == HEADER);
    *size = reader->scanned;
    return reader->stage + reader->begin;
}

size_t opt_frame_data_size(const struct opt_frame_reader *reader)
{
    return reader->data_size;
}

bool opt_frame_is_early(const struct opt_frame_reader *reader)
{
    return reader->early;
}

uint64_t opt_frame_moved(const struct opt_frame_reader *reader)
{
    return reader->moved;
}

void opt_frame_forget(struct opt_frame_reader *reader)
{
    explicit_bzero(reader->stage, reader->begin + reader->scanned);
    explicit_bzero(reader->stage + reader->end, reader->capacity - reader->end);
}

void opt_frame_place(struct opt_frame_reader *reader, uint8_t *data)
{
    assert(reader->state == HEADER || reader->state == EARLY);
    reader->place = data;
    reader->placed = true;
}

size_t opt_frame_data_filled(const struct opt_frame_reader *reader)
{
    return reader->place == NULL ? 0 : reader->filled;
}

bool opt_frame_pending(const struct opt_frame_reader *reader)
{
    return reader->state != PREFIX || reader->begin < reader->end;
}

const struct opt_error *opt_frame_error(const struct opt_frame_reader *reader)
{
    return &reader->error;
}

void opt_frame_begin(size_t header_size, size_t data_size, uint8_t prefix[4],
                     uint8_t tag[12], size_t *tag_size)
{
    size_t size = 0;
    if (data_size > 0) {
        size = opt_varint_write(OPT_FRAME_DATA_FIELD << 3 | OPT_FIELD_BYTES, tag);
        size += opt_varint_write(data_size, tag + size);
    }
    *tag_size = size;
    size_t total = header_size + size + data_size;
    assert(total <= UINT32_MAX);
    for (int i = 0; i < OPT_FRAME_PREFIX; i++) {
        prefix[i] = (uint8_t)(total >> (8 * i));
    }
}
