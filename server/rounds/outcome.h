/* outcome — what becomes of a round: its pushes are settled, answered and given back.
 * Told by who runs its update (settle.h). In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_OUTCOME_H
#define OPTIMD_SERVER_ROUNDS_OUTCOME_H

#include <stdint.h>

struct engine;
struct model;

/* Shards of the round have been published: give away what can go. */
void outcome_published(struct engine *engine, struct model *model);
/* The update of the round is over: answer everybody. */
void outcome_applied(struct engine *engine, struct model *model);
/* A gradient of it is not finite, and such rounds are skipped. */
void outcome_skipped(struct engine *engine, struct model *model);
/* The sum of the round is not finite there. */
void outcome_overflowed(struct engine *engine, struct model *model, uint32_t tensor,
                        uint64_t element);

#endif
