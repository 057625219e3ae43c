/* portion — a piece of an update at work: blocks and small tensors, done by the team.
 *
 * update.c chooses the work of a portion and says in which phase it is; here it is
 * dealt to the threads of the team, and each block finds its gradients, weights and
 * slots. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_PORTION_H
#define OPTIMD_SERVER_ENGINE_PORTION_H

#include <stddef.h>
#include <stdint.h>

struct engine;
struct model;
struct opt_contribution;
struct seat;
struct tensor;
struct work;

struct portion {
    size_t count;      /* entries of the team's work */
    size_t least;      /* of them, to be done in any case */
    uint64_t elements; /* in all of them, */
    uint64_t at_least; /* and in those that are done in any case */
};

/* Deal the work of the portion to the team; which thread does what changes nothing but
 * the time. Returns how many entries from the start have been done: all, unless a
 * letter came after the least. The team meets only at the end of a portion, which on a
 * busy machine costs a time slice, so one is long while nobody waits. */
size_t portion_run(struct engine *engine, struct model *model,
                   const struct portion *portion);

/* Elements of a tensor's block. */
size_t portion_block_elements(const struct tensor *tensor, size_t index);

/* Index of the first of n elements whose aggregate is not finite, or n; of a block. The
 * sum is formed as the kernels form it. */
size_t portion_first_overflow(const struct opt_contribution *contributions,
                              size_t count, size_t n);
size_t portion_block_overflow(const struct model *model, const struct work *work,
                              struct seat *seat);

#endif
