/* window — see window.h. */
#include "server/rounds/window.h"

#include <stdbool.h>

static uint8_t fate_packed(const struct opt_settled *settled)
{
    switch (settled->fate) {
    case OPT_FATE_IN_PART:
        return (uint8_t)(WINDOW_REFUSED | WINDOW_IN_PART | (unsigned)settled->status);
    case OPT_FATE_REFUSED:
        return (uint8_t)(WINDOW_REFUSED | (unsigned)settled->status);
    default:
        return (uint8_t)settled->fate;
    }
}

/* The sequence becomes the last; those that it passes over are not settled. */
static void advance(struct window *window, uint64_t sequence)
{
    uint64_t gap = sequence - window->last;
    uint64_t cleared = gap < WINDOW_PUSHES ? gap : WINDOW_PUSHES;
    for (uint64_t i = 0; i < cleared; i++) {
        window->fate[(sequence - i) % WINDOW_PUSHES] = 0;
    }
    window->last = sequence;
}

void window_settle(struct window *window, const struct opt_settled *settled)
{
    struct opt_settled before;
    switch (window_find(window, settled->sequence, &before)) {
    case WINDOW_NEW:
        advance(window, settled->sequence);
        break;
    case WINDOW_PASSED_OVER:
        break;
    case WINDOW_SETTLED:
    case WINDOW_TOO_OLD:
        return;
    }
    if (window->newest < settled->step) {
        window->newest = settled->step;
    }
    uint64_t place = settled->sequence % WINDOW_PUSHES;
    window->fate[place] = fate_packed(settled);
    window->step[place] =
        (uint32_t)(settled->fate == OPT_FATE_IN_PART ? settled->shards_applied
                                                     : settled->step);
}

enum window_place window_find(const struct window *window, uint64_t sequence,
                              struct opt_settled *out)
{
    if (sequence > window->last) {
        return WINDOW_NEW;
    }
    if (window->last - sequence >= WINDOW_PUSHES) {
        return WINDOW_TOO_OLD;
    }
    uint64_t place = sequence % WINDOW_PUSHES;
    uint8_t fate = window->fate[place];
    if (fate == 0) {
        return WINDOW_PASSED_OVER;
    }
    uint32_t below = (uint32_t)window->newest - window->step[place];
    *out = (struct opt_settled){ .sequence = sequence };
    if ((fate & WINDOW_IN_PART) != 0) {
        out->shards_applied = window->step[place];
    } else {
        out->step = window->newest - below;
    }
    if ((fate & WINDOW_REFUSED) != 0) {
        bool in_part = (fate & WINDOW_IN_PART) != 0;
        out->fate = in_part ? OPT_FATE_IN_PART : OPT_FATE_REFUSED;
        out->status = (enum opt_status)(fate & ~(WINDOW_REFUSED | WINDOW_IN_PART));
    } else {
        out->fate = (enum opt_fate)fate;
    }
    return WINDOW_SETTLED;
}
