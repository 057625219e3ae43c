/* entries — the commands that there are. Everything else knows them by the table that
 * is registered here at the start (commands.h).
 */
#ifndef OPTIMD_TOOLS_OPTCTL_ENTRIES_H
#define OPTIMD_TOOLS_OPTCTL_ENTRIES_H

/* Before the command line is read. */
void entries_register(void);

#endif
