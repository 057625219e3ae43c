/* frames — the frames of a push as they come, until it is complete.
 *
 * Each is checked before it is kept; one that is wrong, whoever finds that, answers the
 * whole push, of which nothing stays. What a copy means that comes again is known by
 * fate.h; if the first one waits or was settled, its data is not used. In the engine's
 * turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_FRAMES_H
#define OPTIMD_SERVER_ROUNDS_FRAMES_H

#include "common/wire.h"

struct engine;
struct letter;
struct member;
struct model;

/* Take one frame of a push or push_pull: checks it, keeps or answers the letter, closes
 * the round if it can be closed. pull: of a push_pull, in its last frame and perhaps in
 * others. */
void frames_take(struct engine *engine, struct model *model, struct letter *letter,
                 const struct opt_push *push, const struct opt_pull *pull);

/* The life of an unfinished push is over: it is dropped, if the model is busy with it
 * as soon as that is over. */
void frames_end(struct engine *engine, struct member *member);
/* A letter is answered with an error. If it is a frame of a push that is not finished,
 * that ends the push, whatever was wrong: the error gets its fate. */
void frames_refused(struct engine *engine, struct letter *letter);
/* The connection of an unfinished push is gone: it is dropped, but one that a round is
 * being made of waits to be sent again. */
void frames_cut_off(struct engine *engine, struct member *member);

#endif
