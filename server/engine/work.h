/* work — what the engine still has to do, and how much of it at once.
 *
 * Whoever changes a model, begins something that takes several pieces, or lets a letter
 * go on says so here and returns. The turn (thread.c) takes it from here when the
 * letter, the piece or the alarm that caused it is over, so nothing is served while
 * something else is in the middle of its work:
 *
 *   letters to serve again    first, in the order in which they were put here
 *   models that have changed  then each is settled (settle.h) until nothing moves
 *   models that are busy      a piece at a time, after the letters that have come
 *
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_WORK_H
#define OPTIMD_SERVER_ENGINE_WORK_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct letter;
struct model;

/* Whether work that somebody's letter causes may be done before the next letter is
 * looked at. cost is in elements of an update, of which a core does about one in a
 * nanosecond. What may not is done in pieces: this is the one place that says how long
 * others may be held up. A loop that works for the engine does less. */
bool work_may_do(const struct engine *engine, uint64_t cost);
/* So much has been done without looking whether somebody else waits, in the same
 * measure, by each of the threads that shared it. Statistics tell the most of one turn.
 */
void work_done(struct engine *engine, uint64_t cost);

/* Something about the model has changed: it is settled at the end of this turn. */
void work_settle(struct engine *engine, struct model *model);
/* The next of those that have changed, or NULL. */
struct model *work_changed(struct engine *engine);

/* The letter is served again at the end of this turn, as if it came now. */
void work_serve(struct engine *engine, struct letter *letter);
/* The next of them, or NULL. */
struct letter *work_letter(struct engine *engine);

/* The model is busy: put it at the end of those that are, once. */
void work_go_on(struct engine *engine, struct model *model);
/* The first of them, which is there no more, or NULL. */
struct model *work_busy(struct engine *engine);

#endif
