/* round — complete pushes that wait, and when they become an update.
 *
 * The frames of one push are gathered until the last (frames.h); then the push is
 * complete and waits in its worker's queue. When the policy says so (closing.h) some of
 * those that wait are a round: in ascending byte order of the workers' names, and for
 * one worker of sequences, they are one update. A push is answered once, by the letter
 * of its last frame, or by the one that was wrong; an error always means that nothing
 * of it was applied.
 *
 *   frames -> gathering -> complete (queue of the member) -> round -> applied
 *                 \              \ deadline, leave, policy fail \
 *                  \ error        -> withdrawn, dropped          skipped, refused
 *
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_ROUND_H
#define OPTIMD_SERVER_ROUNDS_ROUND_H

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

/* A push is complete and answers by its last letter: keep it in its member's queue, or
 * drop it if its round has closed, and close what can be closed. */
void round_add(struct engine *engine, struct push *push, struct letter *letter);
/* Answer a push, and the pull that goes with it. */
void round_answer(struct engine *engine, struct model *model, struct letter *letter,
                  struct opt_push_reply fate);
/* Give up the pull that goes with a push. */
void round_unpin(struct model *model, const struct letter *answer);
/* The push is to be answered by the deadline of this letter. False: no memory. */
bool round_limit(struct engine *engine, struct push *push, const struct letter *letter);

/* Whether a round can be closed; if so it becomes the update in progress. */
bool round_try(struct engine *engine, struct model *model);
/* Bring the counts up to date after somebody has joined, left, or begun or ended a
 * rest. */
void round_recount(struct model *model);
/* Shards of the round have been published: give away what can go. */
void round_published(struct engine *engine, struct model *model);
/* The update of the round is over: answer everybody. */
void round_applied(struct engine *engine, struct model *model);
/* The sum of the round is not finite there. */
void round_overflowed(struct engine *engine, struct model *model, uint32_t tensor,
                      uint64_t element);

/* The push's deadline has passed: take it away. */
void round_expire(struct engine *engine, struct push *push);
/* Take a push away and answer it with the error. If shards of it have been applied they
 * stay, and the error is ABORTED and says how many; if all have, it is APPLIED. */
void round_withdraw(struct engine *engine, struct push *push, enum opt_status status,
                    enum opt_detail detail, const char *text);
/* The frames of an unfinished push are dropped without an answer; one that a round is
 * being made of is taken out of it. */
void round_drop(struct engine *engine, struct member *member);
/* All who take part in an open round are answered ABORTED with the sentence, or
 * APPLIED; the round ends as an update of what has been applied. */
void round_fail(struct engine *engine, struct model *model, enum opt_detail detail,
                const char *why);
/* The same, but nothing follows: the model goes, or the daemon. */
void round_close(struct engine *engine, struct model *model, enum opt_detail detail,
                 const char *why);

#endif
