/* files — see files.h. */
#define _GNU_SOURCE /* nftw */
#include "tests/support/files.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/file.h"

void files_open(struct files *files)
{
    /* In memory: thousands of calls that make files durable take no time there. */
    snprintf(files->path, sizeof files->path, "/dev/shm/optimd-files-XXXXXX");
    cr_assert_not_null(mkdtemp(files->path));
    files->folder = open(files->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(files->folder, 0);
}

static int remove_one(const char *path, const struct stat *status, int kind,
                      struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

void files_close(struct files *files)
{
    files_mend();
    cr_assert_eq(nftw(files->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    close(files->folder);
}

/* ---------------------------------------------------------------- faults */

static struct files_fault *fault;

/* The call is the one that fails. */
static bool fails(enum files_call call)
{
    if (fault == NULL || (fault->calls & (unsigned)call) == 0) {
        return false;
    }
    fault->count++;
    bool now = fault->count == fault->at || (fault->stays && fault->count > fault->at);
    fault->failed += now;
    errno = fault->code;
    return now;
}

static int do_openat(int folder, const char *name, int flags, mode_t mode)
{
    return fails(FILES_OPEN) ? -1 : file_system_calls.openat(folder, name, flags, mode);
}

static ssize_t do_pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    if (!fails(FILES_WRITE)) {
        return pwritev(file, parts, count, at);
    }
    int code = errno;
    size_t left = fault->written;
    for (int i = 0; i < count && left > 0; i++) {
        size_t size = parts[i].iov_len < left ? parts[i].iov_len : left;
        cr_assert_eq(pwrite(file, parts[i].iov_base, size, at), (ssize_t)size);
        at += (off_t)size;
        left -= size;
    }
    errno = code;
    return code == 0 ? (ssize_t)(fault->written - left) : -1;
}

static ssize_t do_pread(int file, void *into, size_t size, off_t at)
{
    return fails(FILES_READ) ? -1 : pread(file, into, size, at);
}

static int do_fsync(int file)
{
    return fails(FILES_SYNC) ? -1 : fsync(file);
}

static int do_fdatasync(int file)
{
    return fails(FILES_SYNC) ? -1 : fdatasync(file);
}

static int do_ftruncate(int file, off_t size)
{
    return fails(FILES_CUT) ? -1 : ftruncate(file, size);
}

static int do_renameat(int folder, const char *name, int to_folder, const char *to)
{
    return fails(FILES_RENAME) ? -1 : renameat(folder, name, to_folder, to);
}

static int do_unlinkat(int folder, const char *name, int flags)
{
    return fails(FILES_REMOVE) ? -1 : unlinkat(folder, name, flags);
}

static int do_mkdirat(int folder, const char *name, mode_t mode)
{
    return fails(FILES_MAKE) ? -1 : mkdirat(folder, name, mode);
}

static const struct file_calls faulty = {
    .openat = do_openat,
    .pwritev = do_pwritev,
    .pread = do_pread,
    .fsync = do_fsync,
    .fdatasync = do_fdatasync,
    .ftruncate = do_ftruncate,
    .renameat = do_renameat,
    .unlinkat = do_unlinkat,
    .mkdirat = do_mkdirat,
};

void files_fail(struct files_fault *next)
{
    fault = next;
    file_calls = &faulty;
}

void files_mend(void)
{
    fault = NULL;
    file_calls = &file_system_calls;
}

/* ---------------------------------------------------------------- content */

uint8_t *files_read(const struct files *files, const char *name, size_t *size)
{
    int file = openat(files->folder, name, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(file, 0, "%s", name);
    struct stat status;
    cr_assert_eq(fstat(file, &status), 0);
    *size = (size_t)status.st_size;
    uint8_t *data = malloc(*size + 1);
    cr_assert_not_null(data);
    cr_assert_eq(pread(file, data, *size, 0), (ssize_t)*size);
    close(file);
    return data;
}

void files_write(const struct files *files, const char *name, const void *data,
                 size_t size)
{
    int file = openat(files->folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(file, 0, "%s", name);
    cr_assert_eq(pwrite(file, data, size, 0), (ssize_t)size);
    cr_assert_eq(ftruncate(file, (off_t)size), 0);
    close(file);
}

bool files_there(const struct files *files, const char *name)
{
    return faccessat(files->folder, name, F_OK, 0) == 0;
}

const char *files_names(const struct files *files, const char *inside)
{
    static char text[4096];
    struct file_names names;
    int folder =
        openat(files->folder, inside[0] == '\0' ? "." : inside, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(folder, 0, "%s", inside);
    cr_assert_eq(file_list(folder, inside, &names, NULL), OPT_OK);
    close(folder);
    text[0] = '\0';
    size_t size = 0;
    for (size_t i = 0; i < names.count; i++) {
        size += (size_t)snprintf(text + size, sizeof text - size, "%s%s",
                                 i == 0 ? "" : " ", names.names[i]);
        cr_assert_lt(size, sizeof text);
    }
    file_names_free(&names);
    return text;
}

bool files_said(const struct opt_error *error, const char *words)
{
    char copy[256];
    char *rest = copy;
    snprintf(copy, sizeof copy, "%s", words);
    for (const char *word; (word = strsep(&rest, "|")) != NULL;) {
        if (strstr(error->text, word) == NULL) {
            fprintf(stderr, "\"%s\" is not in: %s\n", word, error->text);
            return false;
        }
    }
    return true;
}
