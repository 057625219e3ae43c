/* file — the calls on files that the store makes, in one place.
 *
 * Whatever server/store writes goes through the table below, so that a test can have
 * the n-th call fail, or keep a record of what was written and made durable. What is
 * built on it here goes on after an interruption and after a short write, and says in a
 * sentence which file could not be written, where, and why. Names are names within an
 * open folder; path is what the file is called in sentences. Any thread, each file one
 * at a time.
 */
#ifndef OPTIMD_SERVER_STORE_FILE_H
#define OPTIMD_SERVER_STORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/status.h"

/* As the system's calls of these names: -1 and errno. */
struct file_calls {
    int (*openat)(int folder, const char *name, int flags, mode_t mode);
    ssize_t (*pwritev)(int file, const struct iovec *parts, int count, off_t at);
    ssize_t (*pread)(int file, void *into, size_t size, off_t at);
    int (*fsync)(int file);
    int (*fdatasync)(int file);
    int (*ftruncate)(int file, off_t size);
    int (*sync_file_range)(int file, off_t at, off_t size,
                           unsigned flags); /* or NULL */
    int (*renameat)(int folder, const char *name, int to_folder, const char *to);
    int (*unlinkat)(int folder, const char *name, int flags);
    int (*mkdirat)(int folder, const char *name, mode_t mode);
};
/* The system's. Another table may be put here before any thread uses files. */
extern const struct file_calls *file_calls;
extern const struct file_calls file_system_calls;

/* Fail with "cannot WHAT PATH: " and errno's text. OPT_RESOURCE_EXHAUSTED: no space,
 * quota, descriptors or memory; OPT_PERMISSION_DENIED: read-only or not allowed;
 * OPT_NOT_FOUND; OPT_UNAVAILABLE: anything else, an I/O error too. */
enum opt_status file_fail(struct opt_error *error, const char *what, const char *path);

/* Open with flags of open(2). OPT_DATA_LOSS: it is a symbolic link. O_CLOEXEC and
 * O_NOFOLLOW are added, new ones have the mode 0600. */
enum opt_status file_open(int folder, const char *name, int flags, const char *path,
                          int *out, struct opt_error *error);
/* Open a folder, made with mode 0700 if make says so and it is not there. */
enum opt_status file_open_folder(int folder, const char *name, bool make,
                                 const char *path, int *out, struct opt_error *error);

/* Write all parts from `at` on. On failure some of it may have been written. */
enum opt_status file_write(int file, const struct iovec *parts, size_t count,
                           uint64_t at, const char *path, struct opt_error *error);
/* Read exactly size bytes. OPT_DATA_LOSS: the file ends before. */
enum opt_status file_read(int file, void *into, size_t size, uint64_t at,
                          const char *path, struct opt_error *error);
enum opt_status file_size(int file, const char *path, uint64_t *out,
                          struct opt_error *error);
/* Make a file or a folder durable. After a failure, what was written since the last
 * success may be lost, and a second call on the same file would not tell: give it up.
 */
enum opt_status file_sync(int file, const char *path, struct opt_error *error);
/* The same of a file's content and size, without its times. */
enum opt_status file_sync_data(int file, const char *path, struct opt_error *error);
/* Have the system begin to write that part of a file to the disk, so that there is less
 * to do when it is made durable. Nothing is promised, and nothing can fail. */
void file_write_out(int file, uint64_t at, uint64_t size);
enum opt_status file_truncate(int file, uint64_t size, const char *path,
                              struct opt_error *error);
enum opt_status file_rename(int folder, const char *name, const char *to,
                            const char *path, struct opt_error *error);
/* Remove a file, or a folder and the files in it. What is not there is no failure. */
enum opt_status file_remove(int folder, const char *name, const char *path,
                            struct opt_error *error);

/* Read a whole file of at most limit bytes; *out is the caller's, followed by a 0.
 * OPT_DATA_LOSS: it is longer. */
enum opt_status file_load(int folder, const char *name, size_t limit, const char *path,
                          char **out, size_t *size, struct opt_error *error);
/* Make a new file with this content, and make it durable; not its name. */
enum opt_status file_store(int folder, const char *name, const void *data, size_t size,
                           const char *path, struct opt_error *error);

/* The names in a folder, ascending, but for "." and ".."; to be given up. */
struct file_names {
    char **names;
    size_t count;
};
enum opt_status file_list(int folder, const char *path, struct file_names *out,
                          struct opt_error *error);
void file_names_free(struct file_names *names);

#endif
