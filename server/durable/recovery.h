/* recovery — at start, everything comes back from what is on disk.
 *
 *   find the models -> { open, make again, read values }... -> { records of the journal
 *                                                      are made true }... -> over
 *
 * The newest checkpoint of each model is read, then the journal from its first record
 * to its end, of which each model takes what its checkpoint has not. The disks' threads
 * read and check; the engine makes true what they have read (restoring.h), on its own
 * thread in pieces of about a millisecond. Meanwhile it serves who only wants to know
 * how it stands, and everybody else is told to come again.
 *
 * When something cannot be read, nothing is changed: the daemon is told, and ends. If
 * the operator has said so (recover_previous), older checkpoints are taken where newer
 * ones are damaged, and the journal as far as it is whole and fits; what that loses is
 * said, and what is damaged is set aside. In the engine's turn, but for open and close.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECOVERY_H
#define OPTIMD_SERVER_DURABLE_RECOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/durable/durable.h"

struct letter;
struct opt_model_entry;

/* Everything is to be recovered when the engine runs. Main thread. */
enum opt_status recovery_open(struct durable *durable, struct opt_error *error);
/* The disks' threads have ended. NULL as durable->recovery is allowed. Main thread. */
void recovery_close(struct durable *durable);

/* Go on for about a millisecond. True: there is more to do at once; otherwise when a
 * disk has done something. The engine's own thread. */
bool recovery_go_on(struct durable *durable);
/* The daemon stops: nothing more of it is of use. */
void recovery_stop(struct durable *durable);

/* Whether what the letter asks for must wait until the recovery is over: after how many
 * ms it may be asked again, and a sentence. */
bool recovery_refuses(const struct engine *engine, const struct letter *letter,
                      uint32_t *retry_ms, struct opt_error *error);

bool recovery_is_on(const struct engine *engine);
/* How far it has come, of 100; 100 when it is over. */
uint32_t recovery_percent(const struct durable *durable);
/* Models that are not there again yet: how many, and each of them. Text is borrowed. */
size_t recovery_missing(const struct engine *engine);
struct opt_model_entry recovery_missing_model(const struct engine *engine, size_t i);

#endif
