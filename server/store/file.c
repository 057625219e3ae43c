/* file — see file.h. */
#define _GNU_SOURCE /* sync_file_range */
#include "server/store/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/failpoint.h"

enum {
    PARTS = 128, /* of one call */
    DEPTH = 3    /* of folders that are removed with what is in them */
};

static int system_openat(int folder, const char *name, int flags, mode_t mode)
{
    return openat(folder, name, flags, mode);
}

const struct file_calls file_system_calls = {
    .openat = system_openat,
    .pwritev = pwritev,
    .pread = pread,
    .fsync = fsync,
    .fdatasync = fdatasync,
    .ftruncate = ftruncate,
    .sync_file_range = sync_file_range,
    .renameat = renameat,
    .unlinkat = unlinkat,
    .mkdirat = mkdirat,
};
const struct file_calls *file_calls = &file_system_calls;

enum opt_status file_fail(struct opt_error *error, const char *what, const char *path)
{
    enum opt_status status;
    switch (errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        status = OPT_RESOURCE_EXHAUSTED;
        break;
    case EACCES:
    case EPERM:
    case EROFS:
        status = OPT_PERMISSION_DENIED;
        break;
    case ENOENT:
        status = OPT_NOT_FOUND;
        break;
    default:
        status = OPT_UNAVAILABLE;
    }
    return opt_fail(error, status, "cannot %s %s: %s", what, path, strerror(errno));
}

enum opt_status file_open(int folder, const char *name, int flags, const char *path,
                          int *out, struct opt_error *error)
{
    int file;
    do {
        file = file_calls->openat(folder, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    } while (file < 0 && errno == EINTR);
    if (file < 0 && errno == ELOOP) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s is a symbolic link, not what it should be", path);
    }
    if (file < 0) {
        return file_fail(error, (flags & O_CREAT) != 0 ? "create" : "open", path);
    }
    *out = file;
    return OPT_OK;
}

enum opt_status file_open_folder(int folder, const char *name, bool make,
                                 const char *path, int *out, struct opt_error *error)
{
    if (make && file_calls->mkdirat(folder, name, 0700) != 0 && errno != EEXIST) {
        return file_fail(error, "create", path);
    }
    return file_open(folder, name, O_RDONLY | O_DIRECTORY, path, out, error);
}

/* The next parts to be written, after `skip` bytes of the first. Returns how many. */
static int next_parts(const struct iovec *parts, size_t count, size_t skip,
                      struct iovec *next)
{
    int taken = 0;
    for (size_t i = 0; i < count && taken < PARTS; i++) {
        next[taken] = parts[i];
        if (skip > 0) {
            next[taken].iov_base = (char *)next[taken].iov_base + skip;
            next[taken].iov_len -= skip;
            skip = 0;
        }
        taken++;
    }
    return taken;
}

enum opt_status file_write(int file, const struct iovec *parts, size_t count,
                           uint64_t at, const char *path, struct opt_error *error)
{
    size_t skip = 0; /* of the first part */
    if (failpoint("file_write")) {
        errno = EIO;
        return file_fail(error, "write", path);
    }
    for (;;) {
        while (count > 0 && skip >= parts->iov_len) {
            skip -= parts->iov_len;
            parts++;
            count--;
        }
        if (count == 0) {
            return OPT_OK;
        }
        struct iovec next[PARTS];
        int taken = next_parts(parts, count, skip, next);
        ssize_t written = file_calls->pwritev(file, next, taken, (off_t)at);
        if (written == 0) {
            errno = EIO; /* there were bytes to be written */
        }
        if (written > 0) {
            skip += (size_t)written;
            at += (uint64_t)written;
        } else if (errno != EINTR) {
            return file_fail(error, "write", path);
        }
    }
}

enum opt_status file_read(int file, void *into, size_t size, uint64_t at,
                          const char *path, struct opt_error *error)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = file_calls->pread(file, (char *)into + done, size - done,
                                        (off_t)(at + done));
        if (got == 0) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "%s ends at byte %" PRIu64 ", where %zu more were due",
                            path, at + done, size - done);
        }
        if (got > 0) {
            done += (size_t)got;
        } else if (errno != EINTR) {
            return file_fail(error, "read", path);
        }
    }
    return OPT_OK;
}

enum opt_status file_size(int file, const char *path, uint64_t *out,
                          struct opt_error *error)
{
    struct stat status;
    if (fstat(file, &status) != 0) {
        return file_fail(error, "look at", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return opt_fail(error, OPT_DATA_LOSS, "%s is not a plain file", path);
    }
    *out = (uint64_t)status.st_size;
    return OPT_OK;
}

enum opt_status file_sync(int file, const char *path, struct opt_error *error)
{
    errno = EIO;
    return !failpoint("file_sync") && file_calls->fsync(file) == 0
               ? OPT_OK
               : file_fail(error, "make durable", path);
}

enum opt_status file_sync_data(int file, const char *path, struct opt_error *error)
{
    errno = EIO;
    return !failpoint("file_sync_data") && file_calls->fdatasync(file) == 0
               ? OPT_OK
               : file_fail(error, "make durable", path);
}

void file_write_out(int file, uint64_t at, uint64_t size)
{
    if (file_calls->sync_file_range != NULL) {
        (void)file_calls->sync_file_range(file, (off_t)at, (off_t)size,
                                          SYNC_FILE_RANGE_WRITE);
    }
}

enum opt_status file_truncate(int file, uint64_t size, const char *path,
                              struct opt_error *error)
{
    return file_calls->ftruncate(file, (off_t)size) == 0
               ? OPT_OK
               : file_fail(error, "cut", path);
}

enum opt_status file_rename(int folder, const char *name, const char *to,
                            const char *path, struct opt_error *error)
{
    return file_calls->renameat(folder, name, folder, to) == 0
               ? OPT_OK
               : file_fail(error, "rename", path);
}

static int remove_deep(int folder, const char *name, int depth)
{
    if (file_calls->unlinkat(folder, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR || depth == 0) {
        return -1;
    }
    int inside = file_calls->openat(folder, name,
                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (inside < 0) {
        return -1;
    }
    struct file_names names;
    int result =
        file_list(inside, name, &names, NULL) == OPT_OK ? 0 : -1; /* errno is its */
    for (size_t i = 0; result == 0 && i < names.count; i++) {
        result = remove_deep(inside, names.names[i], depth - 1);
    }
    int code = errno;
    file_names_free(&names);
    close(inside);
    errno = code;
    return result == 0 ? file_calls->unlinkat(folder, name, AT_REMOVEDIR) : -1;
}

enum opt_status file_remove(int folder, const char *name, const char *path,
                            struct opt_error *error)
{
    return remove_deep(folder, name, DEPTH) == 0 ? OPT_OK
                                                 : file_fail(error, "remove", path);
}

enum opt_status file_load(int folder, const char *name, size_t limit, const char *path,
                          char **out, size_t *size, struct opt_error *error)
{
    int file;
    uint64_t bytes = 0;
    enum opt_status status =
        file_open(folder, name, O_RDONLY | O_NONBLOCK, path, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    char *text = NULL;
    status = file_size(file, path, &bytes, error);
    if (status == OPT_OK && bytes > limit) {
        status =
            opt_fail(error, OPT_DATA_LOSS, "%s has %llu bytes; it can have at most %zu",
                     path, (unsigned long long)bytes, limit);
    }
    if (status == OPT_OK && (text = malloc((size_t)bytes + 1)) == NULL) {
        status = opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read %s", path);
    }
    if (status == OPT_OK) {
        status = file_read(file, text, (size_t)bytes, 0, path, error);
    }
    close(file);
    if (status != OPT_OK) {
        free(text);
        return status;
    }
    text[bytes] = '\0';
    *out = text;
    *size = (size_t)bytes;
    return OPT_OK;
}

enum opt_status file_store(int folder, const char *name, const void *data, size_t size,
                           const char *path, struct opt_error *error)
{
    int file;
    const struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
    enum opt_status status =
        file_open(folder, name, O_WRONLY | O_CREAT | O_EXCL, path, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    status = file_write(file, &part, 1, 0, path, error);
    if (status == OPT_OK) {
        status = file_sync(file, path, error);
    }
    close(file);
    return status;
}

static int ascending(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* False: no memory. */
static bool add_name(struct file_names *names, size_t *capacity, const char *name)
{
    if (names->count == *capacity) {
        size_t more = *capacity * 2 + 16;
        char **grown = realloc(names->names, more * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        names->names = grown;
        *capacity = more;
    }
    names->names[names->count] = strdup(name);
    return names->names[names->count] != NULL && ++names->count > 0;
}

enum opt_status file_list(int folder, const char *path, struct file_names *out,
                          struct opt_error *error)
{
    *out = (struct file_names){ .count = 0 };
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = again >= 0 ? fdopendir(again) : NULL;
    if (stream == NULL) {
        int code = errno;
        if (again >= 0) {
            close(again);
        }
        errno = code;
        return file_fail(error, "list", path);
    }
    struct file_names names = { .count = 0 };
    size_t capacity = 0;
    bool good = true;
    const struct dirent *entry;
    errno = 0;
    while (good && (entry = readdir(stream)) != NULL) {
        bool ours = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
        good = !ours || add_name(&names, &capacity, entry->d_name);
        errno = good ? 0 : ENOMEM;
    }
    int code = errno;
    closedir(stream);
    if (code != 0) {
        file_names_free(&names);
        errno = code;
        return file_fail(error, "list", path);
    }
    if (names.count > 0) {
        qsort(names.names, names.count, sizeof *names.names, ascending);
    }
    *out = names;
    return OPT_OK;
}

void file_names_free(struct file_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->names[i]);
    }
    free(names->names);
    *names = (struct file_names){ .count = 0 };
}
