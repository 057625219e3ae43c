/* options — long options from a table, numbers strictly.
 *
 * Called by the mains of worker.c and demo.c.
 */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

static void print_help(const char *program, const struct option_row *rows, size_t count)
{
    printf("usage: %s [options]\n", program);
    for (size_t i = 0; i < count; i++) {
        int width = printf("  --%s %s", rows[i].name, rows[i].argument);
        printf("%*s%s\n", width < 24 ? 24 - width : 1, "", rows[i].help);
    }
}

static bool set(const char *program, const struct option_row *row, const char *value)
{
    if (row->text != NULL) {
        *row->text = value;
        return true;
    }
    char *end;
    errno = 0;
    uintmax_t number = strtoumax(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 ||
        number < row->least || number > row->most) {
        fprintf(stderr,
                "%s: --%s: \"%s\" is no whole number from %" PRIu64 " to %" PRIu64 "\n",
                program, row->name, value, row->least, row->most);
        return false;
    }
    *row->number = number;
    return true;
}

enum options_outcome options_parse(const char *program, const struct option_row *rows,
                                   size_t count, int argc, char **argv)
{
    assert(count <= OPTIONS_MAX);
    enum { HELP = OPTIONS_MAX };
    struct option options[OPTIONS_MAX + 2] = { 0 };
    for (size_t i = 0; i < count; i++) {
        options[i] = (struct option){ rows[i].name, required_argument, NULL, (int)i };
    }
    options[count] = (struct option){ "help", no_argument, NULL, HELP };

    for (int which; (which = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (which == HELP) {
            print_help(program, rows, count);
            return OPTIONS_HELP;
        }
        if (which == '?') { /* getopt_long has said why */
            return OPTIONS_WRONG;
        }
        if (!set(program, &rows[which], optarg)) {
            return OPTIONS_WRONG;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: what is \"%s\"? --help lists the options\n", program,
                argv[optind]);
        return OPTIONS_WRONG;
    }
    return OPTIONS_OK;
}
