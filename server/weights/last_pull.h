/* last_pull — the weights that a worker has last pulled, for delay compensation.
 *
 * A worker of a model with delay_compensation has a copy of the training view it last
 * pulled, block by block, with the step it was of. The memory is the member's, from the
 * budget, while it is joined. The copy is made when the pull is answered, about a
 * millisecond at a time. In the engine's turn, but for last_pull_of, which the team
 * calls.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_LAST_PULL_H
#define OPTIMD_SERVER_WEIGHTS_LAST_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct letter;
struct model;

struct last_pull {
    float *values;   /* as the model's flat range; NULL: nothing is kept */
    uint64_t *steps; /* per block of the model: which it is of; UINT64_MAX: of none */
};

/* Bytes that a worker of the model needs. */
size_t last_pull_bytes(const struct model *model);
/* Make it, if the model needs it and it is not there. False: no memory. */
bool last_pull_open(const struct model *model, struct last_pull *recall);
void last_pull_close(const struct model *model, struct last_pull *recall);

/* Copy what the letter's pieces, which have their values, show of the training view.
 * False if there is more to do, from the piece letter->noted on: call again. */
bool last_pull_note(const struct model *model, struct last_pull *recall,
                    struct letter *letter);

/* The values of a block of the model as they were at that step, or NULL. at is where
 * the block begins in the flat range. */
const float *last_pull_of(const struct last_pull *recall, size_t block, size_t at,
                          uint64_t step);

#endif
