/* help — the table of commands, for people and as JSON. */
#ifndef OPTIMD_TOOLS_OPTCTL_HELP_H
#define OPTIMD_TOOLS_OPTCTL_HELP_H

#include "tools/optctl/commands.h"

/* Help with a command, or NULL: the list of all. An exit status. */
int help_print(const struct ctl *ctl, const struct command *command);

#endif
