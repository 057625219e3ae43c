/* delay_compensation — delay compensation of the one gradient of an asynchronous
 * update.
 *
 * Called for each block of the update before its gradient is read; the mathematics is
 * common/optim/compensate.h, the weights that it needs are kept by last_pull.h. On the
 * threads of the team.
 */
#ifndef OPTIMD_SERVER_UPDATE_DELAY_COMPENSATION_H
#define OPTIMD_SERVER_UPDATE_DELAY_COMPENSATION_H

#include <stddef.h>

#include "common/optim/update.h"

struct model;
struct seat;
struct work;

/* If the model asks for it, and where the weights are known that the gradient was
 * computed from and are others than now, the block's contribution, which is the first
 * of the seat's, is replaced by what it would be about now. */
void delay_compensation_run(const struct model *model, const struct work *work,
                            const struct opt_block_memory *memory, struct seat *seat);

#endif
