/* resend — pushes that come again: because their answer was lost, because somebody
 * replays what was recorded, or because a worker that was taken for dead goes on as if
 * nothing had happened. None of them is ever applied twice, or at all if it is stale.
 *
 * Called by the round for each first frame of a push, and for the last one of a push
 * that came while its first copy was waiting. Engine thread.
 */
#ifndef OPTIMD_SERVER_ENGINE_RESEND_H
#define OPTIMD_SERVER_ENGINE_RESEND_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct member;
struct push;

enum resend {
    RESEND_NEW,     /* it has not been seen */
    RESEND_WAITING, /* its first copy waits for its round */
    RESEND_SETTLED, /* it was used, skipped or dropped: *reply says so */
    RESEND_REFUSED, /* it was refused: *error has the same code */
    RESEND_UNKNOWN, /* it is below the last, and was passed over or is too old: *error
                     */
    RESEND_STALE    /* made under an incarnation that is over: *error */
};

/* What a push is, by its head: that of its first frame. */
enum resend resend_find(const struct member *member, const struct opt_push *head,
                        struct opt_push_reply *reply, struct opt_error *error);

/* The complete push of this sequence in the member's queue, or NULL. */
struct push *resend_waiting(const struct member *member, uint64_t sequence);

/* What became of those of the sequences that are settled, in their order. Returns how
 * many; out has room for count. */
size_t resend_report(const struct member *member, const uint64_t *sequences,
                     size_t count, struct opt_settled *out);

#endif
