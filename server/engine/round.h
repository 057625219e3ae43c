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

struct engine;
struct letter;
struct member;
struct model;
struct push;

enum { PUSHES_WAITING = 16 }; /* complete pushes that one worker may have waiting */

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
