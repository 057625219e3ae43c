/* removal — the end of a model, and of all that waits in it.
 *
 * Called by messages that delete, by the engine for models whose creator is gone, and
 * when the daemon stops. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_TURN_REMOVAL_H
#define OPTIMD_SERVER_TURN_REMOVAL_H

#include "common/status.h"

struct engine;
struct model;
struct peer;

/* Take the model away: answer all who wait with ABORTED and the sentence. It is idle.
 * Its memory goes after this turn, some MiB at a time. */
void removal_delete(struct engine *engine, struct model *model, const char *why);
/* Delete the models that wait for weights from this peer, which is gone. */
void removal_creator_gone(struct engine *engine, const struct peer *peer);
/* Answer all who wait with this status. */
void removal_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    const char *why);

#endif
