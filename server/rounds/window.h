/* window — what became of a worker's last pushes on one model, by their sequences.
 *
 * A push is settled once, one way or the other, and its sequence is never used again. A
 * push that comes again, because its answer was lost or because somebody replays what
 * was recorded, is answered from here. A window is plain data of a fixed size without
 * pointers, so that it can be written to a file and read back as it is. In the engine's
 * turn.
 *
 *   sequence   1 ... last-4096 | last-4095 ........ last | last+1 ...
 *              too old         | settled or passed over  | new
 */
#ifndef OPTIMD_SERVER_ROUNDS_WINDOW_H
#define OPTIMD_SERVER_ROUNDS_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

enum { WINDOW_PUSHES = 4096 };

struct window {
    uint64_t last;                /* highest sequence that is settled; 0: none */
    uint64_t newest;              /* highest step noted */
    uint32_t step[WINDOW_PUSHES]; /* lower half of each step: all noted steps are less
                                     than 2^32 below the newest. Of a push that was
                                     applied in part: how many of its shards were */
    uint8_t fate[WINDOW_PUSHES];  /* 0: passed over */
};

enum {
    WINDOW_REFUSED = 0x80, /* with it, a fate is the status of an error */
    WINDOW_IN_PART = 0x40  /* and with this too, the step is a number of shards */
};

/* Whether a window may have this fate; for one that comes from a file. */
static inline bool window_has_fate(uint8_t fate)
{
    unsigned status = fate & ~(unsigned)(WINDOW_REFUSED | WINDOW_IN_PART);
    return (fate & WINDOW_REFUSED) != 0 ? status < OPT_STATUS_COUNT
                                        : fate < OPT_FATE_COUNT;
}

enum window_place {
    WINDOW_NEW,         /* above the last */
    WINDOW_SETTLED,     /* *out tells */
    WINDOW_PASSED_OVER, /* below the last, and never settled */
    WINDOW_TOO_OLD      /* not remembered any more */
};

/* Note what became of a push. Of a sequence that is too old nothing is noted, and of
 * one that was settled before nothing is changed. */
void window_settle(struct window *window, const struct opt_settled *settled);

/* Where a sequence stands; *out is written if it is settled. */
enum window_place window_find(const struct window *window, uint64_t sequence,
                              struct opt_settled *out);

#endif
