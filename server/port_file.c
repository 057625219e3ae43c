/* port_file — see port_file.h. */
#include "server/port_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/settings.h"

/* The port in a new file, beside where it is to be. False with errno: not written. */
static bool write_new(char *path, unsigned port, struct port_file *file)
{
    char text[16];
    struct stat status;
    int size = snprintf(text, sizeof(text), "%u\n", port);
    int new = mkstemp(path);
    if (new < 0) {
        path[0] = '\0';
        return false;
    }
    bool written = write(new, text, (size_t)size) == size && fchmod(new, 0644) == 0 &&
                   fstat(new, &status) == 0;
    int code = errno;
    close(new);
    if (written) {
        file->device = status.st_dev;
        file->inode = status.st_ino;
    }
    errno = code;
    return written;
}

enum opt_status port_file_write(struct port_file *file, const char *path, unsigned port,
                                struct opt_error *error)
{
    struct stat status;
    if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        return opt_fail(
            error, OPT_UNAVAILABLE,
            "cannot write port file %s: there is something, and it is not a "
            "plain file",
            path);
    }
    char temporary[SETTING_TEXT + 8];
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (write_new(temporary, port, file) && rename(temporary, path) == 0) {
        file->path = path;
        return OPT_OK;
    }
    int code = errno;
    if (temporary[0] != '\0') {
        unlink(temporary);
    }
    return opt_fail(error, OPT_UNAVAILABLE, "cannot write port file %s: %s", path,
                    strerror(code));
}

void port_file_remove(const struct port_file *file)
{
    struct stat status;
    if (file->path != NULL && lstat(file->path, &status) == 0 &&
        status.st_dev == file->device && status.st_ino == file->inode) {
        unlink(file->path);
    }
}
