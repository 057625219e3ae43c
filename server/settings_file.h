/* settings_file — the configuration file: YAML, one mapping of names to texts.
 *
 * Called by settings.c, which knows what the texts mean: YAML's own idea of numbers
 * would take 64MiB for 64.
 */
#ifndef OPTIMD_SERVER_SETTINGS_FILE_H
#define OPTIMD_SERVER_SETTINGS_FILE_H

#include <stddef.h>

#include "common/status.h"

enum { SETTINGS_FILE_MAX = 256 << 10 }; /* longest file */

struct settings_file {
    const char *path; /* borrowed; NULL: there is none */
    char *text;
    char **values; /* count of them; NULL where the file says nothing */
    size_t count;
};

/* Read a file with count keys named by name(i, NULL). Without a path nothing is read
 * and every value is NULL. OPT_INVALID_ARGUMENT with a sentence that begins with file
 * and line. */
enum opt_status settings_file_read(const char *path, size_t count,
                                   const char *(*name)(size_t i, const void *context),
                                   struct settings_file *out, struct opt_error *error);

void settings_file_free(struct settings_file *file);

/* The line, from 1, on which the key stands; 0 if it is not found. */
unsigned settings_file_line(const struct settings_file *file, const char *key);

#endif
