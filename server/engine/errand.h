/* errand — what a letter asks for that takes several pieces of work.
 *
 * A message's serve function begins it, or whoever changes a specification; settle.h
 * goes on with it. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_ERRAND_H
#define OPTIMD_SERVER_ENGINE_ERRAND_H

#include <stdbool.h>

struct engine;
struct letter;
struct model;

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
void errand_begin(struct engine *engine, struct model *model, struct errand *errand);

/* Do its next piece; the model is idle after the last. */
void errand_go_on(struct engine *engine, struct model *model);

#endif
