/* fate — what becomes of a push's number, at the daemon: the one place that decides it.
 *
 * A worker gives each of its pushes on a model a number (sequence). Copies of a push
 * may come again: because its answer was lost, because somebody replays what was
 * recorded, or because a worker that was taken for dead goes on as if nothing had
 * happened. Whatever comes, a number takes effect once at most, and ends in one way,
 * which is remembered.
 *
 *          first frame        last frame          due (closing.h)
 *     NEW ------------> COMING ---------> WAITING --------------> IN AN UPDATE
 *      ^                  | |                |                         |
 *      '- connection gone-' |                | deadline, leave,        |
 *                           | wrong frame,   | loss, other life        |
 *                           v deadline       v                         v
 *                        REFUSED          REFUSED, DROPPED    APPLIED, SKIPPED, REFUSED
 *
 * In an open round that is applied shard by shard (shard_schedule.h) a push that is
 * COMING stays when its connection is gone, and its second copy goes on with it; and
 * where REFUSED stands it is IN_PART if some of its shards had been applied, APPLIED if
 * all had.
 *
 *   a copy comes for a number that is        it is
 *   ---------------------------------------  ---------------------------------------
 *   COMING                                   a frame of it, or wrong
 *   COMING, cut off in an open round         gone on with
 *   WAITING, of the same session             an echo, answered as the first copy is
 *   settled                                  answered with what it was settled as
 *   not settled, its incarnation is over     REFUSED
 *   not settled, below a settled or waiting  REFUSED: numbers must ascend
 *   not settled, above all                   taken
 *   below the last 4,096                     NOT_KNOWN
 *
 * A copy that is not taken for any other reason (no room, not joined, damaged) changes
 * nothing: NOT_TAKEN, and the number stays what it is. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_FATE_H
#define OPTIMD_SERVER_ROUNDS_FATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct engine;
struct letter;
struct member;
struct opt_model_reply;
struct push;

enum fate_meeting {
    FATE_NEW,     /* it has not been seen: it may be taken */
    FATE_WAITING, /* its first copy waits for its round */
    FATE_SETTLED, /* it was used, skipped or dropped: *reply says so */
    FATE_REFUSED, /* it was refused, in whole or but for some shards: *error */
    FATE_STALE,   /* made under an incarnation that is over: *error */
    FATE_LATE     /* passed over or too old: *error */
};

/* What a copy is, by its first frame. */
enum fate_meeting fate_meet(struct member *member, const struct opt_push *head,
                            struct opt_push_reply *reply, struct opt_error *error);

/* The push ends as this says (APPLIED, SKIPPED, DROPPED or REFUSED), unless it is an
 * echo: that changes nothing. It takes part in no open round from then on. error, of
 * one that is refused: why; it gets the fate that the push has come to, with the shards
 * that count, and their number in the sentence. */
void fate_settle(struct engine *engine, struct push *push, enum opt_fate fate,
                 struct opt_error *error);

/* The complete push of this number in the member's queue, or NULL. */
struct push *fate_waiting(const struct member *member, uint64_t sequence);

/* Tell in the answer to an open what has become of the numbers that it asks about.
 * False: the letter has no memory for that. */
bool fate_report(const struct member *member, struct letter *letter,
                 struct opt_model_reply *reply);

#endif
