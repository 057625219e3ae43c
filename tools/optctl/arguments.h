/* arguments — the command line of optctl, read by the table of commands. */
#ifndef OPTIMD_TOOLS_OPTCTL_ARGUMENTS_H
#define OPTIMD_TOOLS_OPTCTL_ARGUMENTS_H

#include "tools/optctl/ctl.h"

/* Options may stand anywhere, before the command and after it; "--" ends them. Fills
 * *ctl, whose arguments lie in argv. An exit status: not EXIT_SUCCESS after it has said
 * what is wrong. */
int arguments_read(int argc, char **argv, struct ctl *ctl);
void arguments_free(struct ctl *ctl);

#endif
