/* help — see help.h. */
#include "tools/optctl/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 79 };

/* Text from a column on, broken at spaces; the cursor is there already. */
static void print_wrapped(const char *text, int column)
{
    int at = column;
    while (*text != '\0') {
        int size = (int)strcspn(text, " ");
        if (at > column && at + 1 + size > LINE) {
            printf("\n%*s", column, "");
            at = column;
        }
        at += printf("%s%.*s", at > column ? " " : "", size, text);
        text += size;
        text += *text == ' ';
    }
    putchar('\n');
}

static void print_options(const struct option_entry *options, size_t most)
{
    enum { COLUMN = 26 };
    for (size_t i = 0; i < most && options[i].name != NULL; i++) {
        char letter[8] = "    ", name[64];
        if (options[i].letter != 0) {
            snprintf(letter, sizeof(letter), "-%c, ", options[i].letter);
        }
        snprintf(name, sizeof(name), "%s--%s%s%s", letter, options[i].name,
                 options[i].value == NULL ? "" : " ",
                 options[i].value == NULL ? "" : options[i].value);
        printf("  %-*s", COLUMN - 2, name);
        if (strlen(name) > COLUMN - 3) {
            printf("\n%*s", COLUMN, "");
        }
        print_wrapped(options[i].help, COLUMN);
    }
}

static void print_all(void)
{
    size_t count;
    const struct command *commands = commands_table(&count);
    puts("usage: optctl [OPTION ...] COMMAND [ARGUMENT ...]\n\ncommands:");
    for (size_t i = 0; i < count; i++) {
        printf("  %-12s", commands[i].name);
        print_wrapped(commands[i].summary, 14);
    }
    puts("\noptions, anywhere on the line:");
    print_options(commands_options(), SIZE_MAX);
    puts("\n`optctl help COMMAND` tells more of a command, optctl(1) of all.");
}

static void print_one(const struct command *command)
{
    bool options = command->options[0].name != NULL;
    printf("usage: optctl %s%s%s%s\n\n", command->name, options ? " [OPTION ...]" : "",
           command->arguments[0] == '\0' ? "" : " ", command->arguments);
    print_wrapped(command->summary, 0);
    printf("%s%s", command->help[0] == '\0' ? "" : "\n", command->help);
    if (options) {
        puts("\noptions:");
        print_options(command->options, OPTIONS_MAX);
    }
    puts("\noptions of every command:");
    print_options(commands_options(), SIZE_MAX);
}

/* ---------------------------------------------------------------- JSON */

static json_t *json_options(const struct option_entry *options, size_t most)
{
    json_t *all = json_array();
    for (size_t i = 0; i < most && options[i].name != NULL; i++) {
        json_array_append_new(all, json_pack("{s:s, s:s?, s:s}", "name",
                                             options[i].name, "value", options[i].value,
                                             "help", options[i].help));
    }
    return all;
}

static json_t *json_one(const struct command *command)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", command->name, "arguments",
                     command->arguments, "summary", command->summary, "help",
                     command->help, "options",
                     json_options(command->options, OPTIONS_MAX));
}

static json_t *json_all(void)
{
    size_t count;
    const struct command *commands = commands_table(&count);
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(all, json_one(&commands[i]));
    }
    return json_pack("{s:o, s:o}", "commands", all, "options",
                     json_options(commands_options(), SIZE_MAX));
}

/* ---------------------------------------------------------------- either */

int help_print(const struct ctl *ctl, const struct command *command)
{
    if (ctl->json) {
        return ctl_answer(ctl, command == NULL ? json_all() : json_one(command));
    }
    if (command == NULL) {
        print_all();
    } else {
        print_one(command);
    }
    return ctl_done(ctl);
}

int run_help(struct ctl *ctl)
{
    const struct command *command =
        ctl->count == 0 ? NULL : commands_find(ctl->arguments[0]);
    if (ctl->count > 0 && command == NULL) {
        return ctl_wrong(ctl, "there is no command '%s'", ctl->arguments[0]);
    }
    return help_print(ctl, command);
}
