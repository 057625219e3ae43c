/* framing — see framing.h. */
#include "tests/bench/framing.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/frame.h"
#include "common/wire.h"

enum {
    MESSAGES = 20000, /* in a run */
    ELEMENTS = 1 << 20,
    HEADER_MAX = 256,
    ARENA_MAX = 64 << 10,
    FRAME_MAX = 64 << 20
};

struct framing {
    struct opt_frame_reader *reader;
    struct opt_arena arena;
};

static uint8_t untouched[ELEMENTS * sizeof(float)]; /* where the data would be */

/* One push on its way: its header packed, framed, read from the frame, and checked. The
 * data is said to have come; a socket would have put it there. */
static bool once(struct framing *framing)
{
    const struct opt_segment segment = { .count = ELEMENTS };
    const struct opt_request push = { .id = 7,
                                      .message = OPT_MESSAGE_PUSH,
                                      .body.push = { .model = 1,
                                                     .sequence = 1000,
                                                     .basis = 1000,
                                                     .samples = 32,
                                                     .segments = &segment,
                                                     .segment_count = 1,
                                                     .last = true } };
    uint8_t header[HEADER_MAX], prefix[4], tag[12], *space;
    size_t tag_size, size, data = ELEMENTS * sizeof(float);
    struct opt_request got;
    struct opt_error error;
    size_t header_size = opt_request_pack(&push, header, sizeof header);
    opt_frame_begin(header_size, data, prefix, tag, &tag_size);
    opt_frame_space(framing->reader, &space, &size);
    memcpy(space, prefix, sizeof prefix);
    memcpy(space + sizeof prefix, header, header_size);
    memcpy(space + sizeof prefix + header_size, tag, tag_size);
    opt_frame_received(framing->reader, sizeof prefix + header_size + tag_size);
    if (opt_frame_next(framing->reader) != OPT_FRAME_HEADER) {
        return false;
    }
    const uint8_t *read = opt_frame_header(framing->reader, &size);
    opt_arena_reset(&framing->arena);
    if (opt_request_read(read, size, data, &framing->arena, &got, &error) != OPT_OK) {
        return false;
    }
    opt_frame_place(framing->reader, untouched);
    for (enum opt_frame_event event = opt_frame_next(framing->reader);
         event != OPT_FRAME_END; event = opt_frame_next(framing->reader)) {
        if (event == OPT_FRAME_BROKEN) {
            return false;
        }
        opt_frame_space(framing->reader, &space, &size);
        opt_frame_received(framing->reader, size);
    }
    return opt_frame_next(framing->reader) == OPT_FRAME_MORE;
}

static bool run(void *context, double *values, char problem[256])
{
    double begin = seconds_now();
    for (int i = 0; i < MESSAGES; i++) {
        if (!once(context)) {
            snprintf(problem, 256, "a message was not read");
            return false;
        }
    }
    values[0] = (seconds_now() - begin) / MESSAGES * 1e6;
    return true;
}

static bool wanted(void *context, double *values, char problem[256])
{
    (void)context, (void)problem;
    values[0] = 0.5;
    return true;
}

void framing_measure(const struct bench *bench)
{
    static const struct report_quantity time = { "", "us", REPORT_LESS, 1, 0 };
    const struct opt_frame_limits limits = { .frame_bytes = FRAME_MAX,
                                             .header_bytes = ARENA_MAX };
    struct framing framing = { .reader = opt_frame_reader_new(limits) };
    opt_arena_init(&framing.arena, ARENA_MAX);
    const struct comparison comparison = { .name = "a push packed, framed and read",
                                           .reference = "half a microsecond",
                                           .quantities = &time,
                                           .quantity_count = 1,
                                           .ours = { run, &framing },
                                           .theirs = { wanted, NULL } };
    if (framing.reader == NULL) {
        report_failure(bench->report, "framing: no memory");
    } else {
        compare(bench->report, &comparison, &bench->effort);
    }
    opt_frame_reader_free(framing.reader);
    opt_arena_fini(&framing.arena);
}
