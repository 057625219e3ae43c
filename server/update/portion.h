/* portion — a piece of an update at work: blocks, small tensors and rows, done by the
 * team.
 *
 * update.c says which phase it is; here the next work of the phase is chosen, as much
 * as takes about a millisecond, and dealt to the threads of the team, and each block
 * finds its gradients, weights and slots. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_UPDATE_PORTION_H
#define OPTIMD_SERVER_UPDATE_PORTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct model;
struct opt_contribution;
struct seat;
struct tensor;
struct work;

enum {
    PORTION_ROW = 64,  /* to find a row takes as long as to update so many elements, */
    PORTION_WORK = 256 /* and a tensor or block of one, however small, so many */
};

/* The first of what an update does with a tensor. */
void portion_bind(struct model *model, size_t number);

/* Whether one thread does both passes of the tensor. */
bool portion_is_whole(const struct model *model, uint32_t tensor);

/* Do the next work of the phase, of the spans before the one at place end. False if
 * there is none that can be done: a shard cannot be written now. Shards whose last
 * block is stepped are published, if the update waits for that (unstepped). */
bool portion_blocks(struct engine *engine, struct model *model, size_t end);
/* The same for rows: norms or steps of the next groups. */
bool portion_rows(struct engine *engine, struct model *model);

/* Index of the first of n elements whose aggregate is not finite, or n; of a block. The
 * sum is formed as the kernels form it. */
size_t portion_first_overflow(const struct opt_contribution *contributions,
                              size_t count, size_t n);
size_t portion_block_overflow(const struct model *model, const struct work *work,
                              struct seat *seat);
/* Elements of a tensor's block. */
size_t portion_block_elements(const struct tensor *tensor, size_t index);

#endif
