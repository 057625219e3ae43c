/* optctl — the operator's command: what models there are, and what shall become of
 * them. Reads the command line, runs the command that it names; one thread. optctl(1)
 * is its manual. Exits with 0, with 1 if the daemon refused or could not be reached,
 * and with 64 if it was called wrongly.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/standard.h"
#include "tools/optctl/arguments.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/entries.h"
#include "tools/optctl/help.h"

static int run(struct ctl *ctl)
{
    if (ctl_value(ctl, "help") != NULL) {
        return help_print(ctl, ctl->command);
    }
    if (ctl_value(ctl, "version") != NULL) {
        if (ctl->json) {
            return ctl_answer(ctl, json_pack("{s:s}", "version", OPTIMD_VERSION));
        }
        puts("optctl " OPTIMD_VERSION);
        return ctl_done(ctl);
    }
    int status = ctl->command->run(ctl);
    optclient_close(ctl->client);
    return status;
}

int main(int argc, char **argv)
{
    struct ctl ctl;
    if (!opt_standard_open()) {
        return EXIT_FAILED;
    }
    entries_register();
    int status = arguments_read(argc, argv, &ctl);
    if (status == EXIT_SUCCESS) {
        status = run(&ctl);
    }
    arguments_free(&ctl);
    return status;
}
