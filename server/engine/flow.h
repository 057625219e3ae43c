/* flow — letters on their way through a model: what waits, what is next.
 *
 * A model is idle, or an update or a copy is in progress. While it is not idle, letters
 * for it queue up; letters that need more updates, or its weights before they are
 * there, wait beside. flow_settle brings everything forward that can go. In the
 * engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_FLOW_H
#define OPTIMD_SERVER_ENGINE_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "server/engine/model.h"

struct engine;
struct letter;
struct peer;

/* Whether the letter was put aside: into the queue if the model is not idle, or to wait
 * until the model is ready if it needs its weights. */
bool flow_postponed(struct engine *engine, struct model *model, struct letter *letter,
                    bool needs_weights);
/* Keep a letter until the model is ready and has had step updates, then serve it again.
 * At its deadline it is answered DEADLINE_EXCEEDED. */
void flow_wait(struct engine *engine, struct model *model, struct letter *letter,
               uint64_t step);
/* The letters of this peer that wait are given back. */
void flow_closed(struct engine *engine, const struct peer *peer);

/* Answer a pull, or the pull of a push_pull, whose pieces are planned and whose reply
 * is complete but for them: at once, or after a copy. */
void flow_pull(struct engine *engine, struct model *model, struct letter *letter);

/* What a letter asks for and takes several pieces; the model is not idle meanwhile.
 * Embedded by who knows how it goes on. */
struct errand {
    /* Do the next piece, of about a quarter of a millisecond; true if that was the
     * last. */
    bool (*go_on)(struct engine *engine, struct model *model, struct errand *errand);
    /* The model is idle again: answer the letter, and free what there is. */
    void (*end)(struct engine *engine, struct model *model, struct errand *errand);
    struct letter *letter;
};
/* Begin with an errand for an idle model; and end it, if that takes little. */
void flow_errand(struct engine *engine, struct model *model, struct errand *errand);

/* The round's update begins. */
void flow_update(struct engine *engine, struct model *model);
/* A batch of it that has been started is to be run. */
void flow_run(struct engine *engine, struct model *model);
/* Something about the model has changed: serve what can be served. */
void flow_settle(struct engine *engine, struct model *model);
/* Do about a millisecond of work on the first of the models that are not idle (there
 * must be one); false if it waits for readers. */
bool flow_turn(struct engine *engine);

/* Take the model away: answer all who wait with ABORTED and the sentence. Its memory
 * goes when the engine has finished the letter it is serving. */
void flow_delete(struct engine *engine, struct model *model, const char *why);
/* Answer all who wait with this status. */
void flow_refuse(struct engine *engine, struct model *model, enum opt_status status,
                 const char *why);

#endif
