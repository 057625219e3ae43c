/* recovery_journal — the part of a recovery that makes true what the journal says. In
 * the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECOVERY_JOURNAL_H
#define OPTIMD_SERVER_DURABLE_RECOVERY_JOURNAL_H

#include <stdbool.h>

struct recovery;

/* Open it, and see that it goes back far enough. False: nothing is to be done now. */
bool recovery_journal_begin(struct recovery *recovery);
/* One entry further; the end is the next stage. False: nothing is to be done now. */
bool recovery_journal_go_on(struct recovery *recovery);
/* Give up what it has been read with. */
void recovery_journal_end(struct recovery *recovery);

#endif
