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

/* Everything is to be recovered when the engine runs. Main thread. */
enum opt_status recovery_open(struct durable *durable, struct opt_error *error);
/* The disks' threads have ended. NULL as durable->recovery is allowed. Main thread. */
void recovery_close(struct durable *durable);

/* Go on for about a millisecond. True: there is more to do at once; otherwise when a
 * disk has done something. The engine's own thread. */
bool recovery_go_on(struct durable *durable);
/* The daemon stops: nothing more of it is of use. */
void recovery_stop(struct durable *durable);

#endif
