/* replaying — batches of a model's updates, from the journal's entries through the same
 * kernels once more (server/update/replay.h). In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_REPLAYING_H
#define OPTIMD_SERVER_DURABLE_REPLAYING_H

#include "common/status.h"
#include "server/durable/restoring.h"

struct engine;
struct model;
struct record_entry;
struct replaying;

/* NULL: no memory. */
struct replaying *replaying_new(struct engine *engine, struct model *model);
/* NULL is allowed. */
void replaying_free(struct replaying *replaying);

/* Begin the batch that the entry has, which is borrowed until it is over.
 * OPT_DATA_LOSS: it is none of this model in this state; OPT_RESOURCE_EXHAUSTED. */
enum opt_status replaying_begin(struct replaying *replaying,
                                const struct record_entry *entry,
                                struct opt_error *error);
/* Do a piece of it: MORE, OVER or FAILED. */
enum restored replaying_run(struct replaying *replaying, struct opt_error *error);

#endif
