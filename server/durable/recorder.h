/* recorder — what becomes true, as records for the journal.
 *
 * Told of every commit (server/engine/commit.h), it puts the entries of a turn together
 * (server/store/record.h); at the end of the turn they are a record, with the next
 * index, and handed to the journal (journaling.h). What an update does is taken with
 * its step (server/update/written.h), so a record has all of an update or nothing of
 * it. Models of durability CHECKPOINT have no entries. Nothing is recorded before the
 * recovery is over, or after the engine has stopped. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECORDER_H
#define OPTIMD_SERVER_DURABLE_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct durable;
struct engine;

enum opt_status recorder_open(struct durable *durable, struct opt_error *error);
void recorder_close(struct durable *durable);

/* From now on there are records; the first one has the index after durable->recorded.
 */
void recorder_start(struct durable *durable);
/* There are none any more. */
void recorder_stop(struct durable *durable);

/* Bytes of records that are not durable yet. */
uint64_t recorder_bytes(const struct durable *durable);
/* Records that could not be kept, because the disk failed and no room was left. */
uint64_t recorder_lost(const struct durable *durable);
/* Room has come back: models go on whose rounds waited for it. */
void recorder_go_on(struct durable *durable);

#endif
