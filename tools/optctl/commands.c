/* commands — see commands.h. */
#include "tools/optctl/commands.h"

#include <string.h>

static const struct command *commands;
static size_t command_count;
static const struct option_entry *of_all;

void commands_register(const struct command *table, size_t count,
                       const struct option_entry *options)
{
    commands = table;
    command_count = count;
    of_all = options;
}

const struct command *commands_table(size_t *count)
{
    *count = command_count;
    return commands;
}

const struct command *commands_find(const char *name)
{
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

const struct option_entry *commands_options(void)
{
    return of_all;
}
