/* pull — a letter that pulls gets its values.
 *
 * Weights are referred to; computed views are copied, which takes pieces if there is
 * much of them: the model is copying meanwhile. Asked for by the messages that pull,
 * and by rounds for the pull of a push_pull. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_PULL_H
#define OPTIMD_SERVER_ROUNDS_PULL_H

#include <stdbool.h>

struct engine;
struct letter;
struct model;

/* Answer a pull, or the pull of a push_pull, whose pieces are planned and whose reply
 * is complete but for them: at once, or after a copy. */
void pull_answer(struct engine *engine, struct model *model, struct letter *letter);
/* Do one piece of the copies of a model that is copying; it is idle after the last.
 * False if it waits for readers. */
bool pull_go_on(struct engine *engine, struct model *model);

#endif
