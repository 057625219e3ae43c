/* closing — which pushes are due to become an update, by the model's policy.
 *
 *   sync          one push of every worker that does not rest; or of all but `backup`
 *   sync, samples everything that waits, once it covers so many samples
 *   async         any push
 *   bounded       a push of the worker that has made the fewest, if its worker does not
 *                 get too far ahead
 *
 * It decides, and names who is waited for; round.h does the rest. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_CLOSING_H
#define OPTIMD_SERVER_ROUNDS_CLOSING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct member;
struct model;
struct push;

/* What a round consists of. */
enum closing {
    CLOSING_NOT,  /* nothing is due */
    CLOSING_ONE,  /* the first push of *one */
    CLOSING_EACH, /* the first push of everybody who has one */
    CLOSING_ALL   /* everything that waits */
};
enum closing closing_due(const struct model *model, struct member **one);

/* Whether the round that the push belongs to has closed without it. */
bool closing_too_late(const struct model *model, const struct push *push);

/* How many pushes the slowest worker that is waited for has made; 0 if there is none.
 */
uint64_t closing_slowest(const struct model *model);

/* Who has not pushed, what is missing, or how many workers, for people. */
void closing_missing(const struct model *model, char *text, size_t capacity);
/* Why this push still waits: a sentence. */
void closing_explain(const struct model *model, const struct push *push, char *text,
                     size_t capacity);

#endif
