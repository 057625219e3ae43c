/* round — who has pushed what for which step, and when that becomes an update.
 *
 * The frames of one push are gathered until the last; then the push is complete and
 * waits in its worker's queue. In synchronous mode a round closes when every joined
 * worker has a complete push at the head of its queue; its pushes, in ascending byte
 * order of the workers' names, are one update. In asynchronous mode every complete push
 * is a round. A push is answered once, by the letter of its last frame, or by the one
 * that was wrong; an error always means that nothing of it was applied.
 *
 *   frames -> gathering -> complete (queue of the member) -> round -> applied
 *                 \              \ deadline, leave, policy fail \
 *                  \ error        -> withdrawn                   skipped, refused
 *
 * Engine thread.
 */
#ifndef OPTIMD_SERVER_ENGINE_ROUND_H
#define OPTIMD_SERVER_ENGINE_ROUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"
#include "server/engine/alarm.h"

struct engine;
struct letter;
struct member;
struct model;
struct peer;

enum { PUSHES_WAITING = 16 }; /* complete pushes that one worker may have waiting */

struct push {
    struct push *next; /* in the member's queue, or among the model's spares */
    struct member *member;
    struct model *model;
    struct alarm deadline;
    struct opt_push head;  /* of its first frame, without the segments */
    struct letter *frames; /* whose data it is made of, newest first, by next */
    struct letter *answer; /* the letter that will be answered; NULL while gathering.
                              One of the frames, unless the push was sent again */
    bool answer_is_frame;
    struct peer *peer;   /* from which it comes; only compared */
    uint64_t request_id; /* of its frames */
    uint64_t session;
    uint32_t frame_count;
    bool echo;         /* sent again while the first copy waits: data is not used */
    bool skip;         /* not finite: its round will be skipped */
    uint32_t *tensors; /* that it names, in the order of their first segments */
    size_t tensor_count;
    uint32_t *covered;      /* per tensor of the model: blocks that are there */
    const uint8_t **blocks; /* per block of the model: its values, or NULL */
};

/* Bytes of the tables of one push. */
size_t push_bytes(const struct model *model);
void push_free(struct push *push);

/* Take one frame of a push or push_pull: checks it, keeps or answers the letter, closes
 * the round if it can be closed. */
void round_frame(struct engine *engine, struct model *model, struct letter *letter,
                 const struct opt_push *push, const struct opt_pull *pull);

/* Whether a round can be closed; if so it becomes the update in progress. */
bool round_try(struct engine *engine, struct model *model);
/* Bring the counts up to date after somebody has joined or left. */
void round_recount(struct model *model);
/* The update of the round is over: answer everybody. */
void round_applied(struct engine *engine, struct model *model);
/* The sum of the round is not finite there. */
void round_overflowed(struct engine *engine, struct model *model, uint32_t tensor,
                      uint64_t element);

/* Take a push away unapplied and answer it with the error. */
void round_withdraw(struct engine *engine, struct push *push, enum opt_status status,
                    const char *text);
/* The frames of an unfinished push are dropped without an answer. */
void round_drop_gathering(struct engine *engine, struct member *member);

/* Who has not pushed, or how many workers are missing, for people. */
void round_missing(const struct model *model, char *text, size_t capacity);

#endif
