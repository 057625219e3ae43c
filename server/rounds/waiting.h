/* waiting — letters that cannot be served now.
 *
 * Those for a model that is not idle queue up, in their order. Those that need more
 * updates, or weights before they are there, wait beside, each with its deadline. Who
 * settles a model (settle.h) lets them go on. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_WAITING_H
#define OPTIMD_SERVER_ROUNDS_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct engine;
struct letter;
struct model;
struct peer;

/* Whether the letter was put aside: into the queue if the model is not idle, or to wait
 * until the model is ready if it needs its weights. */
bool waiting_postponed(struct engine *engine, struct model *model,
                       struct letter *letter, bool needs_weights);
/* Keep a letter until the model is ready and has had step updates, then serve it again.
 * At its deadline it is answered DEADLINE_EXCEEDED. */
void waiting_for_step(struct engine *engine, struct model *model, struct letter *letter,
                      uint64_t step);

/* Serve again those whose step has come. */
void waiting_wake(struct engine *engine, struct model *model);
/* Serve the first of the queue again. False: there is none. */
bool waiting_next(struct engine *engine, struct model *model);

/* The letters of this peer that wait for a step are given back. */
void waiting_closed(struct engine *engine, const struct peer *peer);
/* Answer all who wait for a step with this. */
void waiting_refuse(struct engine *engine, struct model *model, enum opt_status status,
                    enum opt_detail detail, const char *why);

#endif
