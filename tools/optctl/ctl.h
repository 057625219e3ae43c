/* ctl — what every command of optctl sees: how it was called, the daemon, and how to
 * answer. One thread.
 *
 * entries.c has the one table of commands; arguments.c reads the command line by it,
 * help.c and completion.c tell it. A new command is an entry there and a function of
 * its own in some file here. None of it is part of the library.
 */
#ifndef OPTIMD_TOOLS_OPTCTL_CTL_H
#define OPTIMD_TOOLS_OPTCTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/status.h"

enum { EXIT_FAILED = 1, EXIT_WRONG = 64 }; /* beside EXIT_SUCCESS */

struct command;

/* How optctl was called. */
struct ctl {
    const struct command *command;
    const char *server;
    const char *ca, *cert, *key; /* files; NULL: the environment's, or none */
    const char *token_file;      /* NULL: the environment's, if any */
    bool json;
    uint32_t timeout_ms; /* to connect, and of what is asked then */
    char **arguments;    /* of the command, without options */
    int count;
    struct given {
        const char *name;  /* of the option, without its dashes */
        const char *value; /* "": it has none */
    } * given;
    size_t given_count;
    struct optclient *client; /* NULL: nobody has asked the daemon yet */
};

/* The value that an option was given last ("" for one that has none), or NULL. */
const char *ctl_value(const struct ctl *ctl, const char *option);
/* Each value of an option that may be given often: from *cursor 0 on, NULL at the end.
 */
const char *ctl_each(const struct ctl *ctl, const char *option, size_t *cursor);

/* Connect. worker NULL: with a name of its own; "": only to look and to administer. An
 * exit status: not EXIT_SUCCESS after it has said why. */
int ctl_connect(struct ctl *ctl, const char *worker);

/* Say why not, on standard error, as JSON if that is asked for. An exit status. */
int ctl_wrong(const struct ctl *ctl, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int ctl_failed(const struct ctl *ctl, enum optclient_status status);
int ctl_refused(const struct ctl *ctl, const struct opt_error *error);

/* Print a value, which it takes; NULL is one that could not be made. Numbers are the
 * shortest that read back the same. An exit status. */
int ctl_answer(const struct ctl *ctl, json_t *value);
/* What was printed is all there is to say. An exit status. */
int ctl_done(const struct ctl *ctl);
/* A count as JSON has it. */
json_t *ctl_count(uint64_t count);

/* A table for people: cells row by row, printed when all are there, so that each column
 * is as wide as its widest cell. */
struct table;
/* One letter a column: 'l' for words, 'r' for numbers. NULL: no memory. */
struct table *table_new(const char *columns);
/* The next cell. */
void table_add(struct table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Print and free it. An exit status. */
int table_print(const struct ctl *ctl, struct table *table);

#endif
