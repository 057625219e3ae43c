/* fuzz_frame — any bytes, as a stream of frames, through every reader of the wire.
 *
 * The first byte says in which pieces the others arrive. Each frame's header part is
 * read as a request and as a reply, its data as each of the tables. What is accepted
 * must keep to the documented limits and say the same after it was packed and read
 * again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/frame.h"
#include "tests/support/wire_cases.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { FRAME_BYTES = 1 << 18, SMALL_ARENA = 256 << 10 };

static const struct opt_frame_limits limits = { .frame_bytes = FRAME_BYTES,
                                                .header_bytes = OPT_HEADER_BYTES };

static void demand(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_frame: %s\n", what);
        abort();
    }
}

/* ---------------------------------------------------------------- messages */

static void check_again(const struct wire_any *any, size_t data_size)
{
    size_t size = wire_any_pack(any, NULL, 0);
    uint8_t *packed = malloc(size + 1);
    demand(packed != NULL, "no memory");
    demand(wire_any_pack(any, packed, size) == size, "packing changes its mind");
    struct opt_arena arena;
    opt_arena_init(&arena, opt_table_budget(size));
    struct wire_any again = { .kind = any->kind };
    struct opt_error error;
    enum opt_status status =
        wire_any_read(packed, size, data_size, &arena, &again, &error);
    demand(status == OPT_OK, status == OPT_OK ? "" : error.text);
    demand(wire_any_equal(any, &again), "it says something else when read again");
    opt_arena_fini(&arena);
    free(packed);
}

static void read_as(enum wire_kind kind, const uint8_t *bytes, size_t size,
                    size_t data_size)
{
    struct opt_arena arena;
    opt_arena_init(&arena, SMALL_ARENA);
    struct wire_any any = { .kind = kind };
    struct opt_error error = { .text = "" };
    enum opt_status status =
        wire_any_read(bytes, size, data_size, &arena, &any, &error);
    demand(arena.used <= SMALL_ARENA, "the arena's limit was passed");
    if (status == OPT_OK) {
        const char *violation = wire_any_violation(&any, data_size);
        demand(violation == NULL, violation == NULL ? "" : violation);
        check_again(&any, data_size);
    } else {
        demand(status == error.status && error.text[0] != '\0', "no sentence");
    }
    opt_arena_fini(&arena);
}

/* ---------------------------------------------------------------- frames */

struct received {
    uint8_t *header;
    size_t header_size;
    uint8_t *data;        /* NULL: thrown away */
    uint8_t *data_before; /* where it went before the header was known */
    size_t data_size;
};

/* The same frame written by us is read as the same. */
static void check_frame(const struct received *frame)
{
    uint8_t prefix[4];
    uint8_t tag[12];
    size_t tag_size = 0;
    opt_frame_begin(frame->header_size, frame->data_size, prefix, tag, &tag_size);
    size_t size = 4 + frame->header_size + tag_size + frame->data_size;
    if (size - 4 > FRAME_BYTES) {
        return; /* the tag was written shorter than ours */
    }
    uint8_t *bytes = malloc(size);
    uint8_t *place = malloc(frame->data_size + 1);
    struct opt_frame_reader *reader = opt_frame_reader_new(limits);
    demand(bytes != NULL && place != NULL && reader != NULL, "no memory");
    memcpy(bytes, prefix, 4);
    memcpy(bytes + 4, frame->header, frame->header_size);
    memcpy(bytes + 4 + frame->header_size, tag, tag_size);
    memcpy(bytes + size - frame->data_size, frame->data, frame->data_size);

    bool ended = false;
    for (size_t at = 0; at < size;) {
        uint8_t *base = NULL;
        size_t space = 0;
        opt_frame_space(reader, &base, &space);
        demand(space > 0, "no space");
        space = space < size - at ? space : size - at;
        memcpy(base, bytes + at, space);
        opt_frame_received(reader, space);
        at += space;
        enum opt_frame_event event;
        while ((event = opt_frame_next(reader)) != OPT_FRAME_MORE) {
            demand(event != OPT_FRAME_BROKEN, "our own frame is refused");
            demand(event != OPT_FRAME_LONG || opt_frame_grow(reader), "no memory");
            if (event == OPT_FRAME_HEADER) {
                size_t header_size = 0;
                const uint8_t *header = opt_frame_header(reader, &header_size);
                demand(header_size == frame->header_size &&
                           memcmp(header, frame->header, header_size) == 0 &&
                           opt_frame_data_size(reader) == frame->data_size &&
                           !opt_frame_is_early(reader),
                       "our own frame has another header");
                opt_frame_place(reader, place);
            }
            ended |= event == OPT_FRAME_END;
        }
    }
    demand(ended && !opt_frame_pending(reader), "our own frame does not end");
    demand(memcmp(place, frame->data, frame->data_size) == 0,
           "our own frame has other data");
    opt_frame_reader_free(reader);
    free(place);
    free(bytes);
}

static void on_header(struct opt_frame_reader *reader, struct received *frame)
{
    const uint8_t *header = opt_frame_header(reader, &frame->header_size);
    frame->data_size = opt_frame_data_size(reader);
    demand(frame->header_size <= OPT_HEADER_BYTES, "a header past its limit");
    demand(frame->header_size + frame->data_size <= FRAME_BYTES,
           "a frame past its limit");
    frame->header = malloc(frame->header_size + 1);
    demand(frame->header != NULL, "no memory");
    memcpy(frame->header, header, frame->header_size);
    read_as(WIRE_REQUEST, frame->header, frame->header_size, frame->data_size);
    read_as(WIRE_REPLY, frame->header, frame->header_size, frame->data_size);
    /* Now and then nobody wants the data. */
    free(frame->data_before);
    frame->data_before = frame->data;
    frame->data = frame->header_size % 16 == 15 ? NULL : malloc(frame->data_size + 1);
    opt_frame_place(reader, frame->data);
}

static void free_frame(struct received *frame)
{
    free(frame->header);
    free(frame->data);
    free(frame->data_before);
    *frame = (struct received){ 0 };
}

static void on_end(struct received *frame)
{
    if (frame->data != NULL) {
        read_as(WIRE_TENSORS, frame->data, frame->data_size, 0);
        read_as(WIRE_MODELS, frame->data, frame->data_size, 0);
        read_as(WIRE_DESCRIPTION, frame->data, frame->data_size, 0);
        check_frame(frame);
    }
    free_frame(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t piece = bytes[0] < 128 ? (size_t)bytes[0] + 1 : (size_t)bytes[0] * 64;
    bytes++;
    size--;
    struct opt_frame_reader *reader = opt_frame_reader_new(limits);
    demand(reader != NULL, "no memory");
    struct received frame = { 0 };
    bool broken = false;
    while (size > 0 && !broken) {
        static uint8_t lent[OPT_FRAME_AHEAD];
        uint8_t *base = NULL;
        size_t space = 0;
        opt_frame_lend(reader, lent);
        opt_frame_space(reader, &base, &space);
        demand(space > 0, "no space");
        size_t n = piece < size ? piece : size;
        n = n < space ? n : space;
        memcpy(base, bytes, n);
        opt_frame_received(reader, n);
        bytes += n;
        size -= n;
        for (bool more = false; !more && !broken;) {
            switch (opt_frame_next(reader)) {
            case OPT_FRAME_MORE:
                more = true;
                break;
            case OPT_FRAME_HEADER:
                on_header(reader, &frame);
                break;
            case OPT_FRAME_DATA:
                demand(frame.data != NULL, "data without a place");
                break;
            case OPT_FRAME_END:
                on_end(&frame);
                break;
            case OPT_FRAME_LONG:
                demand(opt_frame_grow(reader), "no memory");
                break;
            case OPT_FRAME_EARLY:
                frame.data = malloc(opt_frame_data_size(reader) + 1);
                demand(frame.data != NULL, "no memory");
                opt_frame_place(reader, frame.data);
                break;
            case OPT_FRAME_BROKEN:
                demand(opt_frame_error(reader)->text[0] != '\0', "no sentence");
                broken = true;
                break;
            }
        }
        demand(opt_frame_take_back(reader), "no memory");
        memset(lent, 0xEE, sizeof(lent));
    }
    free_frame(&frame);
    opt_frame_reader_free(reader);
    return 0;
}
