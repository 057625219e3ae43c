/* folder — making and removing folders.
 *
 * Called by the demos, the gallery and cluster.c.
 */
#include "folder.h"

#include <errno.h>
#include <fts.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "console.h"

bool folder_make(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST ||
           console_fail("cannot make %s: %s", path, strerror(errno));
}

bool folder_make_temporary(const char *parent, const char *name,
                           char path[FOLDER_PATH_MAX])
{
    snprintf(path, FOLDER_PATH_MAX, "%s/%s-XXXXXX", parent, name);
    if (mkdtemp(path) == NULL) {
        path[0] = '\0';
        return console_fail("cannot make a folder in %s: %s", parent, strerror(errno));
    }
    return true;
}

void folder_remove(const char *path)
{
    char *const paths[] = { (char *)(uintptr_t)path, NULL }; /* fts only reads it */
    FTS *tree =
        path[0] != '\0' ? fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL) : NULL;
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    if (tree != NULL) {
        fts_close(tree);
    }
}
