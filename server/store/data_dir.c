/* data_dir — see data_dir.h. */
#include "server/store/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/random.h"
#include "server/store/file.h"

enum { FORMAT_BYTES = 256 };

static const char format_name[] = "format", format_fresh[] = "tmp-format";

/* ---------------------------------------------------------------- the lock */

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

static enum opt_status lock_dir(const char *path, int directory, int *lock,
                                struct opt_error *error)
{
    int file = open_lock(directory);
    int code = errno;
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

/* ---------------------------------------------------------------- the format */

/* PATH/name, to be freed; NULL without memory. */
static char *join(const char *path, const char *name)
{
    size_t size = strlen(path) + strlen(name) + 2;
    char *joined = malloc(size);
    if (joined != NULL) {
        snprintf(joined, size, "%s/%s", path, name);
    }
    return joined;
}

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                    "no memory for the names in the data directory");
}

static size_t print_format(unsigned format, uint64_t identity, char *out)
{
    int size = snprintf(out, FORMAT_BYTES,
                        "optimd data directory\nformat %u\nidentity %016" PRIx64 "\n",
                        format, identity);
    uint64_t digest = XXH3_64bits(out, (size_t)size);
    size += snprintf(out + size, FORMAT_BYTES - (size_t)size, "xxh3 %016" PRIx64 "\n",
                     digest);
    return (size_t)size;
}

static enum opt_status read_format(struct data_dir *dir, const char *path,
                                   struct opt_error *error)
{
    char *text, expected[FORMAT_BYTES];
    size_t size;
    unsigned format = 0;
    enum opt_status status =
        file_load(dir->folder, format_name, FORMAT_BYTES, path, &text, &size, error);
    if (status != OPT_OK) {
        return status;
    }
    int found = sscanf(text, "optimd data directory\nformat %9u\nidentity %16" SCNx64,
                       &format, &dir->identity);
    if (found >= 1 && format > DATA_DIR_FORMAT) {
        status = opt_fail(error, OPT_UNIMPLEMENTED,
                          "%s has format %u; this optimd knows formats up to %d: a "
                          "newer one has written it",
                          path, format, (int)DATA_DIR_FORMAT);
    } else if (found < 2 || size != print_format(format, dir->identity, expected) ||
               memcmp(text, expected, size) != 0) {
        status = opt_fail(error, OPT_DATA_LOSS,
                          "%s is damaged, or not written by optimd: it must say which "
                          "format and which data directory this is; put the right file "
                          "back, or give --data-dir an empty directory",
                          path);
    }
    free(text);
    return status;
}

/* Whether a directory without a format may become a data directory: nothing is in it
 * but what a daemon leaves that is killed while it makes one. */
static enum opt_status expect_fresh(const struct data_dir *dir, struct opt_error *error)
{
    static const char *const ours[] = { "lock", "journal", "models", format_fresh };
    struct file_names names;
    enum opt_status status = file_list(dir->folder, dir->path, &names, error);
    for (size_t i = 0; status == OPT_OK && i < names.count; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof ours / sizeof ours[0]; k++) {
            known = known || strcmp(names.names[i], ours[k]) == 0;
        }
        if (!known) {
            status = opt_fail(error, OPT_DATA_LOSS,
                              "%s has %s, but no file named format: it is not a data "
                              "directory of optimd; give --data-dir an empty directory",
                              dir->path, names.names[i]);
        }
    }
    file_names_free(&names);
    return status;
}

/* The same of a folder in it. */
static enum opt_status expect_empty(const struct data_dir *dir, const char *name,
                                    int folder, struct opt_error *error)
{
    struct file_names names;
    enum opt_status status = file_list(folder, name, &names, error);
    if (status == OPT_OK && names.count > 0) {
        status = opt_fail(error, OPT_DATA_LOSS,
                          "%s has %s/%s, but no file named format: it has been lost; "
                          "put it back, or give --data-dir an empty directory",
                          dir->path, name, names.names[0]);
    }
    file_names_free(&names);
    return status;
}

static enum opt_status write_format(struct data_dir *dir, const char *path,
                                    struct opt_error *error)
{
    char text[FORMAT_BYTES];
    if (!opt_random_identity(&dir->identity)) {
        return opt_fail(error, OPT_UNAVAILABLE,
                        "the kernel gives no random number for data directory %s",
                        dir->path);
    }
    size_t size = print_format(DATA_DIR_FORMAT, dir->identity, text);
    enum opt_status status = file_remove(dir->folder, format_fresh, path, error);
    if (status == OPT_OK) {
        status = file_store(dir->folder, format_fresh, text, size, path, error);
    }
    if (status == OPT_OK) {
        status = file_rename(dir->folder, format_fresh, format_name, path, error);
    }
    if (status == OPT_OK) {
        status = file_sync(dir->folder, dir->path, error);
    }
    dir->fresh = true;
    return status;
}

static enum opt_status open_format(struct data_dir *dir, struct opt_error *error)
{
    char *path = join(dir->path, format_name);
    if (path == NULL) {
        return no_memory(error);
    }
    enum opt_status status = read_format(dir, path, error);
    if (status == OPT_NOT_FOUND) {
        status = expect_fresh(dir, error);
        if (status == OPT_OK) {
            status = expect_empty(dir, "journal", dir->journal, error);
        }
        if (status == OPT_OK) {
            status = expect_empty(dir, "models", dir->models, error);
        }
        if (status == OPT_OK) {
            status = write_format(dir, path, error);
        }
    }
    free(path);
    return status;
}

/* ---------------------------------------------------------------- folders */

static enum opt_status open_folder(const struct data_dir *dir, const char *name,
                                   bool make, int *out, struct opt_error *error)
{
    char *path = join(dir->path, name);
    if (path == NULL) {
        return no_memory(error);
    }
    enum opt_status status =
        file_open_folder(dir->folder, name, make, path, out, error);
    free(path);
    return status;
}

static bool is_temporary(const char *name)
{
    return strncmp(name, "tmp-", 4) == 0;
}

/* Remove what begins with "tmp-". */
static enum opt_status remove_stale(int folder, const char *path,
                                    struct opt_error *error)
{
    struct file_names names;
    enum opt_status status = file_list(folder, path, &names, error);
    for (size_t i = 0; status == OPT_OK && i < names.count; i++) {
        if (is_temporary(names.names[i])) {
            status = file_remove(folder, names.names[i], path, error);
        }
    }
    file_names_free(&names);
    return status;
}

/* A folder's name is an identity, as print writes it. */
static bool read_identity(const char *name, uint64_t *out)
{
    char again[DATA_DIR_MODEL];
    char *end;
    *out = strtoull(name, &end, 16);
    snprintf(again, sizeof again, "%016" PRIx64, *out);
    return strcmp(again, name) == 0;
}

/* In the folders of all models too. */
static enum opt_status clear_stale(const struct data_dir *dir, struct opt_error *error)
{
    uint64_t *identities = NULL;
    size_t count = 0;
    enum opt_status status = remove_stale(dir->folder, dir->path, error);
    if (status == OPT_OK) {
        status = remove_stale(dir->models, dir->path, error);
    }
    if (status == OPT_OK) {
        status = data_dir_models(dir, &identities, &count, error);
    }
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        int folder;
        char *path;
        status = data_dir_model(dir, identities[i], false, &folder, &path, error);
        if (status == OPT_OK) {
            status = remove_stale(folder, path, error);
            close(folder);
            free(path);
        }
    }
    free(identities);
    return status;
}

/* The directory has just been made: make its name durable. (Who may write in the folder
 * that has it, but not read it, cannot do that.) */
static enum opt_status keep_name(const char *path, struct opt_error *error)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        return no_memory(error);
    }
    const char *parent = dirname(copy);
    enum opt_status status = OPT_OK;
    int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        status = file_sync(folder, parent, error);
        close(folder);
    } else if (errno != EACCES) {
        status = file_fail(error, "open", parent);
    }
    free(copy);
    return status;
}

enum opt_status data_dir_open(const char *path, struct data_dir *out,
                              struct opt_error *error)
{
    struct data_dir dir = { .lock = -1, .folder = -1, .journal = -1, .models = -1 };
    enum opt_status status = OPT_OK;
    dir.path = strdup(path);
    if (dir.path == NULL) {
        return no_memory(error);
    }
    if (file_calls->mkdirat(AT_FDCWD, path, 0700) == 0) {
        status = keep_name(path, error);
    } else if (errno != EEXIST) {
        status = opt_fail(error, OPT_NOT_FOUND, "cannot create data directory %s: %s",
                          path, strerror(errno));
    }
    if (status == OPT_OK &&
        (dir.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        status = opt_fail(error, OPT_PERMISSION_DENIED,
                          "cannot open data directory %s: %s", path, strerror(errno));
    }
    if (status == OPT_OK) {
        status = lock_dir(path, dir.folder, &dir.lock, error);
    }
    if (status == OPT_OK) {
        status = open_folder(&dir, "journal", true, &dir.journal, error);
    }
    if (status == OPT_OK) {
        status = open_folder(&dir, "models", true, &dir.models, error);
    }
    if (status == OPT_OK) {
        status = open_format(&dir, error);
    }
    if (status == OPT_OK) {
        status = clear_stale(&dir, error);
    }
    if (status != OPT_OK) {
        data_dir_close(&dir);
        return status;
    }
    *out = dir;
    return OPT_OK;
}

/* Hold the lock, if there is one, so that no daemon starts meanwhile. */
static enum opt_status hold_lock(struct data_dir *dir, struct opt_error *error)
{
    dir->lock =
        openat(dir->folder, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (dir->lock >= 0 && flock(dir->lock, LOCK_EX | LOCK_NB) != 0) {
        return opt_fail(error, OPT_UNAVAILABLE,
                        "data directory %s is in use by the optimd with process number "
                        "%ld: stop it first",
                        dir->path, read_holder(dir->lock));
    }
    return OPT_OK;
}

static enum opt_status look(struct data_dir *dir, struct opt_error *error)
{
    char *path = join(dir->path, format_name);
    enum opt_status status = path == NULL ? no_memory(error) : hold_lock(dir, error);
    if (status == OPT_OK) {
        status = read_format(dir, path, error);
        if (status == OPT_NOT_FOUND) {
            status = opt_fail(error, OPT_DATA_LOSS,
                              "%s is not a data directory: it has no file named format",
                              dir->path);
        }
    }
    if (status == OPT_OK) {
        status = open_folder(dir, "journal", false, &dir->journal, error);
    }
    if (status == OPT_OK) {
        status = open_folder(dir, "models", false, &dir->models, error);
    }
    free(path);
    return status == OPT_NOT_FOUND ? OPT_DATA_LOSS : status;
}

enum opt_status data_dir_look(const char *path, struct data_dir *out,
                              struct opt_error *error)
{
    struct data_dir dir = { .lock = -1, .folder = -1, .journal = -1, .models = -1 };
    dir.path = strdup(path);
    if (dir.path == NULL) {
        return no_memory(error);
    }
    dir.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum opt_status status = dir.folder < 0 ? file_fail(error, "open", path) : OPT_OK;
    if (status == OPT_OK) {
        status = look(&dir, error);
    }
    if (status != OPT_OK) {
        data_dir_close(&dir);
        return status;
    }
    *out = dir;
    return OPT_OK;
}

void data_dir_close(struct data_dir *dir)
{
    const int files[] = { dir->models, dir->journal, dir->folder, dir->lock };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i] >= 0) {
            close(files[i]);
        }
    }
    free(dir->path);
    *dir = (struct data_dir){ .lock = -1, .folder = -1, .journal = -1, .models = -1 };
}

enum opt_status data_dir_space(const struct data_dir *dir, uint64_t *out,
                               struct opt_error *error)
{
    struct statvfs space;
    if (fstatvfs(dir->folder, &space) != 0) {
        return file_fail(error, "ask for the free space of", dir->path);
    }
    *out = (uint64_t)space.f_bavail * (uint64_t)space.f_frsize;
    return OPT_OK;
}

/* ---------------------------------------------------------------- models */

enum opt_status data_dir_models(const struct data_dir *dir, uint64_t **out,
                                size_t *count, struct opt_error *error)
{
    struct file_names names;
    enum opt_status status = file_list(dir->models, dir->path, &names, error);
    uint64_t *identities = NULL;
    size_t found = 0;
    if (status == OPT_OK &&
        (identities = calloc(names.count + 1, sizeof *identities)) == NULL) {
        status = no_memory(error);
    }
    for (size_t i = 0; status == OPT_OK && i < names.count; i++) {
        if (is_temporary(names.names[i])) {
            continue;
        }
        if (!read_identity(names.names[i], &identities[found++])) {
            status =
                opt_fail(error, OPT_DATA_LOSS,
                         "%s/models/%s is not the folder of a model, whose name is "
                         "16 hexadecimal digits: move it elsewhere",
                         dir->path, names.names[i]);
        }
    }
    file_names_free(&names);
    if (status != OPT_OK) {
        free(identities);
        return status;
    }
    *out = identities;
    *count = found;
    return OPT_OK;
}

enum opt_status data_dir_model(const struct data_dir *dir, uint64_t identity, bool make,
                               int *folder, char **path, struct opt_error *error)
{
    char name[DATA_DIR_MODEL], inside[DATA_DIR_MODEL + sizeof "models/"];
    snprintf(name, sizeof name, "%016" PRIx64, identity);
    snprintf(inside, sizeof inside, "models/%s", name);
    char *full = join(dir->path, inside);
    if (full == NULL) {
        return no_memory(error);
    }
    enum opt_status status =
        file_open_folder(dir->models, name, make, full, folder, error);
    if (status == OPT_OK && make) {
        status = file_sync(dir->models, dir->path, error);
        if (status != OPT_OK) {
            close(*folder);
        }
    }
    if (status != OPT_OK) {
        free(full);
        return status;
    }
    *path = full;
    return OPT_OK;
}

enum opt_status data_dir_forget(const struct data_dir *dir, uint64_t identity,
                                struct opt_error *error)
{
    char name[DATA_DIR_MODEL], gone[DATA_DIR_MODEL + sizeof "tmp-"];
    snprintf(name, sizeof name, "%016" PRIx64, identity);
    snprintf(gone, sizeof gone, "tmp-%s", name);
    enum opt_status status = file_rename(dir->models, name, gone, dir->path, error);
    if (status == OPT_NOT_FOUND) { /* it had no checkpoint */
        return OPT_OK;
    }
    if (status == OPT_OK) {
        status = file_sync(dir->models, dir->path, error);
    }
    return status == OPT_OK ? file_remove(dir->models, gone, dir->path, error) : status;
}
