/* round — when complete pushes that wait become an update.
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

struct engine;
struct model;

/* Whether a round can be closed; if so it becomes the update in progress. */
bool round_try(struct engine *engine, struct model *model);

#endif
