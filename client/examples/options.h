/* options — the command lines of the examples: one table each.
 *
 * The table is the parser and the help. No state but getopt's: once, from main.
 */
#ifndef OPTIMD_EXAMPLES_OPTIONS_H
#define OPTIMD_EXAMPLES_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

struct option_row {
    const char *name;     /* "rank", for --rank */
    const char *argument; /* what the help calls its value */
    const char *help;
    const char **text; /* where the value goes; NULL: it is a number */
    uint64_t *number;
    uint64_t least, most; /* of a number */
};

enum options_outcome {
    OPTIONS_OK,
    OPTIONS_HELP, /* was asked for and has been printed */
    OPTIONS_WRONG /* stderr says what */
};

enum { OPTIONS_MAX = 24 };

/* rows    at most OPTIONS_MAX; what is not given keeps its value
 * program its name, for messages
 * Texts are borrowed from argv. --help need not be in the table. */
enum options_outcome options_parse(const char *program, const struct option_row *rows,
                                   size_t count, int argc, char **argv);

#endif
