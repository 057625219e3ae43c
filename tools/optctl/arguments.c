/* arguments — see arguments.h.
 *
 * The line is read twice: with the options of all commands, which finds the command
 * wherever it stands, and then with those that it has.
 */
#include "tools/optctl/arguments.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/quantity.h"
#include "tools/optctl/commands.h"

enum { DEFAULT_TIMEOUT_MS = 5000, LONGEST = 128, FIRST = 256 };

/* The options of some commands in getopt's form. */
struct accepted {
    struct option options[LONGEST];
    const struct option_entry *entries[LONGEST];
    char letters[2 * LONGEST];
    size_t count;
};

static bool known(const struct accepted *accepted, const char *name)
{
    for (size_t i = 0; i < accepted->count; i++) {
        if (strcmp(accepted->options[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void accept(struct accepted *accepted, const struct option_entry *entries,
                   size_t most)
{
    size_t used = strlen(accepted->letters);
    for (size_t i = 0; i < most && entries[i].name != NULL; i++) {
        if (known(accepted, entries[i].name) || accepted->count == LONGEST - 1) {
            continue;
        }
        bool value = entries[i].value != NULL;
        accepted->options[accepted->count] =
            (struct option){ .name = entries[i].name,
                             .has_arg = value ? required_argument : no_argument,
                             .val = FIRST + (int)accepted->count };
        accepted->entries[accepted->count++] = &entries[i];
        if (entries[i].letter != 0) {
            accepted->letters[used++] = entries[i].letter;
            accepted->letters[used] = ':';
            used += value;
            accepted->letters[used] = '\0';
        }
    }
}

/* command NULL: the options of all. first: '-' gives arguments in their order, 0 moves
 * them to the end. */
static void prepare(struct accepted *accepted, char first,
                    const struct command *command)
{
    size_t count;
    const struct command *commands = commands_table(&count);
    *accepted = (struct accepted){ .letters = { first } };
    accept(accepted, commands_options(), SIZE_MAX);
    for (size_t i = 0; i < count; i++) {
        if (command == NULL || command == &commands[i]) {
            accept(accepted, commands[i].options, OPTIONS_MAX);
        }
    }
    optind = 0; /* getopt begins anew */
}

static const struct option_entry *entry_of(const struct accepted *accepted, int which)
{
    if (which >= FIRST) {
        return accepted->entries[which - FIRST];
    }
    for (size_t i = 0; i < accepted->count; i++) {
        if (accepted->entries[i]->letter == which) {
            return accepted->entries[i];
        }
    }
    return NULL;
}

/* The first argument that is neither an option nor an option's value, or NULL. */
static bool find_command(int argc, char **argv, const char **name)
{
    struct accepted accepted;
    int which;
    prepare(&accepted, '-', NULL);
    *name = NULL;
    while ((which = getopt_long(argc, argv, accepted.letters, accepted.options,
                                NULL)) != -1) {
        if (which == '?') {
            return false;
        }
        if (which == 1) {
            *name = optarg;
            return true;
        }
    }
    *name = optind < argc ? argv[optind] : NULL;
    return true;
}

/* False: getopt has said what is wrong. */
static bool read_all(int argc, char **argv, struct ctl *ctl)
{
    struct accepted accepted;
    int which;
    prepare(&accepted, 0, ctl->command);
    while ((which = getopt_long(argc, argv, accepted.letters, accepted.options,
                                NULL)) != -1) {
        const struct option_entry *entry = entry_of(&accepted, which);
        if (entry == NULL) {
            return false;
        }
        ctl->given[ctl->given_count++] =
            (struct given){ entry->name, optarg == NULL ? "" : optarg };
    }
    ctl->arguments = argv + optind + (ctl->command != NULL);
    ctl->count = argc - optind - (ctl->command != NULL);
    return true;
}

static int read_common(struct ctl *ctl)
{
    const char *server = ctl_value(ctl, "server"), *timeout = ctl_value(ctl, "timeout");
    const char *of_environment = getenv("OPTIMD_SERVER");
    if (of_environment == NULL || of_environment[0] == '\0') {
        of_environment = getenv("OPTIMD_URL");
    }
    uint64_t timeout_ms = DEFAULT_TIMEOUT_MS;
    struct opt_error error;
    if (of_environment != NULL && of_environment[0] != '\0') {
        ctl->server = of_environment;
    }
    if (server != NULL) {
        ctl->server = server;
    }
    ctl->ca = ctl_value(ctl, "ca");
    ctl->cert = ctl_value(ctl, "cert");
    ctl->key = ctl_value(ctl, "key");
    ctl->token_file = ctl_value(ctl, "token-file");
    ctl->json = ctl_value(ctl, "json") != NULL;
    if (timeout != NULL &&
        (opt_quantity_milliseconds(timeout, &timeout_ms, &error) != OPT_OK ||
         timeout_ms == 0 || timeout_ms > UINT32_MAX)) {
        return ctl_wrong(ctl, "--timeout is a time such as 500ms, not '%s'", timeout);
    }
    ctl->timeout_ms = (uint32_t)timeout_ms;
    return EXIT_SUCCESS;
}

static int check_count(const struct ctl *ctl)
{
    const struct command *command = ctl->command;
    if (ctl->count < command->least ||
        (command->most >= 0 && ctl->count > command->most)) {
        return ctl_wrong(ctl, "usage: optctl %s%s%s", command->name,
                         command->arguments[0] == '\0' ? "" : " ", command->arguments);
    }
    return EXIT_SUCCESS;
}

static int say_where_help_is(const struct ctl *ctl)
{
    fprintf(stderr, "See optctl help%s%s.\n", ctl->command == NULL ? "" : " ",
            ctl->command == NULL ? "" : ctl->command->name);
    return EXIT_WRONG;
}

int arguments_read(int argc, char **argv, struct ctl *ctl)
{
    const char *name;
    *ctl = (struct ctl){ .server = "127.0.0.1:7070" };
    ctl->given = malloc((size_t)argc * 2 * sizeof(*ctl->given));
    if (ctl->given == NULL) {
        fputs("optctl: no memory\n", stderr);
        return EXIT_FAILED;
    }
    if (!find_command(argc, argv, &name)) {
        return say_where_help_is(ctl);
    }
    ctl->command = name == NULL ? NULL : commands_find(name);
    if (name != NULL && ctl->command == NULL) {
        return ctl_wrong(ctl, "there is no command '%s'", name);
    }
    if (!read_all(argc, argv, ctl)) {
        return say_where_help_is(ctl);
    }
    int status = read_common(ctl);
    if (status != EXIT_SUCCESS || ctl_value(ctl, "help") != NULL ||
        ctl_value(ctl, "version") != NULL) {
        return status;
    }
    return ctl->command == NULL ? ctl_wrong(ctl, "which command?") : check_count(ctl);
}

void arguments_free(struct ctl *ctl)
{
    free(ctl->given);
}

const char *ctl_each(const struct ctl *ctl, const char *option, size_t *cursor)
{
    while (*cursor < ctl->given_count) {
        const struct given *given = &ctl->given[(*cursor)++];
        if (strcmp(given->name, option) == 0) {
            return given->value;
        }
    }
    return NULL;
}

const char *ctl_value(const struct ctl *ctl, const char *option)
{
    const char *value, *last = NULL;
    for (size_t cursor = 0; (value = ctl_each(ctl, option, &cursor)) != NULL;) {
        last = value;
    }
    return last;
}
