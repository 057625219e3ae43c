/* data_dir — see data_dir.h. */
#include "server/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Who holds the lock, as written by its holder. */
static long read_holder(int lock)
{
    char text[32] = "";
    ssize_t size = pread(lock, text, sizeof(text) - 1, 0);
    return size > 0 ? strtol(text, NULL, 10) : 0;
}

static enum opt_status take_lock(const char *path, int lock, struct opt_error *error)
{
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return opt_fail(error, OPT_UNAVAILABLE,
                            "data directory %s is in use by the optimd with process "
                            "number %ld; every daemon needs one of its own",
                            path, read_holder(lock));
        }
        return opt_fail(error, OPT_UNAVAILABLE, "cannot lock data directory %s: %s",
                        path, strerror(errno));
    }
    char text[32];
    int size = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(lock, 0) != 0 || write(lock, text, (size_t)size) != size) {
        return opt_fail(error, OPT_PERMISSION_DENIED,
                        "cannot write in data directory %s: %s", path, strerror(errno));
    }
    return OPT_OK;
}

/* The lock is a plain file with no other name. What is somebody else's, by a link of
 * either kind, is not written to. ELOOP: a symbolic one; EEXIST: anything else. */
static int open_lock(int directory)
{
    int file = openat(directory, "lock",
                      O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat status;
    if (file < 0 || (fstat(file, &status) == 0 && S_ISREG(status.st_mode) &&
                     status.st_nlink == 1)) {
        return file;
    }
    close(file);
    errno = EEXIST;
    return -1;
}

enum opt_status data_dir_open(const char *path, int *lock, struct opt_error *error)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return opt_fail(error, OPT_NOT_FOUND, "cannot create data directory %s: %s",
                        path, strerror(errno));
    }
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return opt_fail(error, OPT_PERMISSION_DENIED,
                        "cannot open data directory %s: %s", path, strerror(errno));
    }
    int file = open_lock(directory);
    int code = errno;
    close(directory);
    if (file < 0) {
        return opt_fail(error, OPT_PERMISSION_DENIED,
                        "cannot write in data directory %s: %s%s", path,
                        code == ELOOP || code == EEXIST ? "lock: " : "",
                        code == ELOOP    ? "it is a symbolic link"
                        : code == EEXIST ? "it is not a file of this daemon's alone"
                                         : strerror(code));
    }
    enum opt_status status = take_lock(path, file, error);
    if (status != OPT_OK) {
        close(file);
        return status;
    }
    *lock = file;
    return OPT_OK;
}
