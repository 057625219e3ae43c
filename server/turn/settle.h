/* settle — a model that has changed, or has work in progress, is brought forward.
 *
 * A model is idle, or an update, a copy or an errand is in progress. Called by the turn
 * (thread.c) for the models that work.h lists, never by who changed them. In the
 * engine's turn.
 */
#ifndef OPTIMD_SERVER_TURN_SETTLE_H
#define OPTIMD_SERVER_TURN_SETTLE_H

#include <stdbool.h>

struct engine;
struct model;

/* Do what the change lets happen: losses, rounds, barriers, letters that waited. */
void settle_model(struct engine *engine, struct model *model);
/* Do about a millisecond of work on the first of the models that are not idle; false if
 * it waits for readers. */
bool settle_busy(struct engine *engine);

#endif
