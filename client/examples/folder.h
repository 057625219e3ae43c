/* folder — where the examples put their files. The main thread only. */
#ifndef OPTIMD_EXAMPLES_FOLDER_H
#define OPTIMD_EXAMPLES_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

enum { FOLDER_PATH_MAX = 4096 };

/* Make it unless it is there; false has been told to the console. */
bool folder_make(const char *path);

/* Make one with a name of its own, PARENT/NAME-XXXXXX, and give that name. On failure,
 * which has been told to the console, path is "". */
bool folder_make_temporary(const char *parent, const char *name,
                           char path[FOLDER_PATH_MAX]);

/* Remove it and what is in it; "" is no folder. */
void folder_remove(const char *path);

#endif
