/* saving — when models are saved, and what follows from it.
 *
 * A model is due when something has become true of it and the checkpoint interval has
 * passed since; when it has had as many updates as its checkpoint_steps say since the
 * last cut; when somebody asks; and when the daemon stops. One is saved at a time
 * (checkpointing.h), the others wait in the order in which they became due. Who is to
 * be saved next begins no round until the cut has been made, which is at once, or when
 * the update in progress is over.
 *
 * When a checkpoint is there, all that records up to its cut say of the model is in it:
 * the journal may drop what no model needs any more. If one fails, the one before is
 * still there; it is tried again after a second, two, four, ... a minute. Of a model
 * that was deleted the folder goes when the record that says so is durable. In the
 * engine's turn; saving_go_on on its own thread.
 */
#ifndef OPTIMD_SERVER_DURABLE_SAVING_H
#define OPTIMD_SERVER_DURABLE_SAVING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct commit;
struct durable;
struct engine;
struct granted;
struct letter;
struct model;
struct peer;

/* Main thread. */
enum opt_status saving_open(struct durable *durable, struct opt_error *error);
/* The engine and the checkpoints' thread have ended, and all is collected; the engine's
 * memory is still there. Main thread. */
void saving_end(struct durable *durable);
/* NULL as durable->saver is allowed. Main thread. */
void saving_close(struct durable *durable);

/* Something has become true; it will be in the record after durable->recorded, if the
 * model has records. */
void saving_note(struct durable *durable, const struct commit *commit);
/* A model has come back, with this as its newest checkpoint, or NULL, and the records
 * behind that; model->durability tells of these. */
void saving_take_up(struct durable *durable, struct model *model,
                    const struct granted *newest);
/* What has come back is not what the journal says: save all models now. */
void saving_all(struct durable *durable);

/* Do what is to be done: some of the checkpoint in progress, or the next. True: there
 * is more to do at once; otherwise when a job is back, an update over, or an alarm
 * rings. Between two turns. */
bool saving_go_on(struct durable *durable);

/* Somebody waits for what the model has come to: save it now. */
void saving_want(struct durable *durable, const struct model *model);
/* Records were lost: save now the models of which they told. */
void saving_demand(struct durable *durable);

/* A letter asks for a checkpoint: answers it, at once or when the checkpoint is there,
 * or with the error that prevents it; DEADLINE_EXCEEDED at its deadline. */
void saving_ask(struct engine *engine, struct model *model, struct letter *letter);
/* The letters of this peer that wait are given back. */
void saving_closed(struct engine *engine, const struct peer *peer);
/* All who wait are answered that the daemon stops. */
void saving_refuse(struct engine *engine);

/* Models whose last checkpoint has failed. */
size_t saving_failing(const struct durable *durable);

/* The daemon stops: save what has changed, each model once. True when that is done, or
 * has failed. */
bool saving_finish(struct durable *durable);

#endif
