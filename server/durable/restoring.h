/* restoring — one thing after another is made again in an engine.
 *
 * A model from a checkpoint's manifest and its values, or what an entry of the journal
 * says (server/store/record.h): with that, the model goes through the same updates with
 * the same kernels, and its workers' pushes are settled as they were. Entries that a
 * checkpoint has already are passed over, and those of models that are gone.
 *
 *   { model: go on ... values ... ready }...   { entry: go on ... }...   end
 *
 * Whoever restores (recovery.h) has the engine's turn piece by piece, and nobody else
 * asks for anything but lists meanwhile. Nothing of it is recorded again: it is on disk
 * already.
 */
#ifndef OPTIMD_SERVER_DURABLE_RESTORING_H
#define OPTIMD_SERVER_DURABLE_RESTORING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct engine;
struct manifest;
struct model;
struct record_entry;
struct remake_table;
struct restoring;

enum opt_status restoring_open(struct engine *engine, struct restoring **out,
                               struct opt_error *error);
/* What has been made stays. NULL is allowed. */
void restoring_close(struct restoring *restoring);

/* MORE: call again; BUSY: once the engine has gone on with what it has begun
 * (settle_busy); OVER: the next thing may come. FAILED: with a sentence without its
 * subject. OPT_RESOURCE_EXHAUSTED: memory, or a limit of the daemon; anything else: it
 * is not what a daemon has written. */
enum restored { RESTORING_MORE, RESTORING_BUSY, RESTORING_OVER, RESTORING_FAILED };
enum restored restoring_go_on(struct restoring *restoring, struct opt_error *error);

/* A model of a manifest, which is borrowed until it is ready, as is the table of its
 * tensors (remaking.h). When it is over *model waits for its values (remaking_value).
 */
void restoring_model(struct restoring *restoring, const struct manifest *manifest,
                     const struct remake_table *table, struct model **model);
/* They are there: its members follow, in one piece. */
void restoring_ready(struct restoring *restoring);
/* The model that has been restored last is undone: its values were not right. */
void restoring_undo(struct restoring *restoring);
/* There are checkpoints of this model, but it was deleted, or cannot be had: its
 * entries are passed over. */
void restoring_pass_over(struct restoring *restoring, uint64_t identity);
/* Of the model only what its checkpoint has is there to be had: the same. */
void restoring_freeze(struct restoring *restoring, uint64_t identity);

/* Whether half an update has been made of the model, so that it is of no use. */
bool restoring_is_torn(const struct restoring *restoring, uint64_t identity);

/* An entry of a record, borrowed until it is over. */
void restoring_entry(struct restoring *restoring, const struct record_entry *entry,
                     uint64_t record);

/* A model of which there were entries, but never what it was: 0 if there is none.
 * *record becomes that of the first of them. */
uint64_t restoring_unknown(const struct restoring *restoring, uint64_t *record);
/* Whether the model was deleted, by the journal. */
bool restoring_was_deleted(const struct restoring *restoring, uint64_t identity);

/* Everything has been restored: workers have their time to come back from now on, and
 * models that were not ready are no more, since whoever was to assign their weights is
 * gone with his connection. */
void restoring_end(struct restoring *restoring);

struct restored_counts {
    uint64_t models, steps, pushes, entries;
};
struct restored_counts restoring_counts(const struct restoring *restoring);

#endif
