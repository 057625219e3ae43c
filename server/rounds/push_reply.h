/* push_reply — the answer to a push, and to the pull that goes with it. Filled in by
 * whoever settles the push. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_PUSH_REPLY_H
#define OPTIMD_SERVER_ROUNDS_PUSH_REPLY_H

#include "common/wire.h"

struct engine;
struct letter;
struct model;

/* Answer a push, and the pull that goes with it. */
void push_reply_send(struct engine *engine, struct model *model, struct letter *letter,
                     struct opt_push_reply fate);
/* Give up the pull that goes with a push; NULL has none. */
void push_reply_unpin(struct model *model, const struct letter *answer);

#endif
