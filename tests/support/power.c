/* power — see power.h. */
#include "tests/support/power.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/file.h"

enum kind { MADE, MADE_FOLDER, WRITTEN, CUT, DURABLE, RENAMED, REMOVED };

struct change {
    enum kind kind;
    ino_t what;      /* the file or folder */
    ino_t in, to_in; /* the folder that has the name, the one that gets it */
    char *name, *to;
    uint64_t at; /* WRITTEN, CUT */
    size_t size;
    uint8_t *bytes;
};

struct power {
    pthread_mutex_t lock;
    ino_t root;
    struct change *changes;
    size_t count, capacity;
};

static struct power *recording;

/* ---------------------------------------------------------------- noting */

static ino_t number_of(int file)
{
    struct stat at;
    cr_assert_eq(fstat(file, &at), 0);
    return at.st_ino;
}

static ino_t number_at(int folder, const char *name)
{
    struct stat at;
    cr_assert_eq(fstatat(folder, name, &at, AT_SYMLINK_NOFOLLOW), 0);
    return at.st_ino;
}

static void note(const struct change *change)
{
    struct power *power = recording;
    if (power->count == power->capacity) {
        power->capacity = 2 * power->capacity + 64;
        power->changes =
            realloc(power->changes, power->capacity * sizeof *power->changes);
        cr_assert_not_null(power->changes);
    }
    power->changes[power->count++] = *change;
}

static char *copy_name(const char *name)
{
    char *copy = strdup(name);
    cr_assert_not_null(copy);
    return copy;
}

static int do_openat(int folder, const char *name, int flags, mode_t mode)
{
    pthread_mutex_lock(&recording->lock);
    bool there = faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    int file = file_system_calls.openat(folder, name, flags, mode);
    int code = errno;
    if (file >= 0 && !there) {
        note(&(struct change){ .kind = MADE,
                               .what = number_of(file),
                               .in = number_of(folder),
                               .name = copy_name(name) });
    }
    pthread_mutex_unlock(&recording->lock);
    errno = code;
    return file;
}

static ssize_t do_pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    pthread_mutex_lock(&recording->lock);
    ssize_t size = pwritev(file, parts, count, at);
    int code = errno;
    if (size > 0) {
        uint8_t *bytes = malloc((size_t)size);
        cr_assert_not_null(bytes);
        size_t done = 0;
        for (int i = 0; i < count && done < (size_t)size; i++) {
            size_t left = (size_t)size - done;
            size_t n = parts[i].iov_len < left ? parts[i].iov_len : left;
            memcpy(bytes + done, parts[i].iov_base, n);
            done += n;
        }
        note(&(struct change){ .kind = WRITTEN,
                               .what = number_of(file),
                               .at = (uint64_t)at,
                               .size = (size_t)size,
                               .bytes = bytes });
    }
    pthread_mutex_unlock(&recording->lock);
    errno = code;
    return size;
}

static int noted(int result, const struct change *change)
{
    int code = errno;
    if (result == 0) {
        note(change);
    } else {
        free(change->name);
        free(change->to);
    }
    pthread_mutex_unlock(&recording->lock);
    errno = code;
    return result;
}

static int do_sync(int file)
{
    pthread_mutex_lock(&recording->lock);
    return noted(0, &(struct change){ .kind = DURABLE, .what = number_of(file) });
}

static int do_ftruncate(int file, off_t size)
{
    pthread_mutex_lock(&recording->lock);
    return noted(
        ftruncate(file, size),
        &(struct change){ .kind = CUT, .what = number_of(file), .at = (uint64_t)size });
}

static int do_renameat(int folder, const char *name, int to_folder, const char *to)
{
    pthread_mutex_lock(&recording->lock);
    struct change change = { .kind = RENAMED,
                             .in = number_of(folder),
                             .to_in = number_of(to_folder) };
    bool there = faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (there) {
        change.what = number_at(folder, name);
        change.name = copy_name(name);
        change.to = copy_name(to);
    }
    return noted(renameat(folder, name, to_folder, to), &change);
}

static int do_unlinkat(int folder, const char *name, int flags)
{
    pthread_mutex_lock(&recording->lock);
    struct change change = { .kind = REMOVED, .in = number_of(folder) };
    if (faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        change.what = number_at(folder, name);
        change.name = copy_name(name);
    }
    return noted(unlinkat(folder, name, flags), &change);
}

static int do_mkdirat(int folder, const char *name, mode_t mode)
{
    pthread_mutex_lock(&recording->lock);
    int result = mkdirat(folder, name, mode), code = errno;
    struct change change = { .kind = MADE_FOLDER };
    if (result == 0 && folder == AT_FDCWD) { /* by its path */
        char *path = copy_name(name);
        change.what = number_at(folder, name);
        change.in = number_at(folder, dirname(path));
        change.name = copy_name(strrchr(name, '/') + 1);
        free(path);
    } else if (result == 0) {
        change.what = number_at(folder, name);
        change.in = number_of(folder);
        change.name = copy_name(name);
    }
    errno = code;
    return noted(result, &change);
}

static const struct file_calls noting = {
    .openat = do_openat,
    .pwritev = do_pwritev,
    .pread = pread,
    .fsync = do_sync,
    .fdatasync = do_sync,
    .ftruncate = do_ftruncate,
    .renameat = do_renameat,
    .unlinkat = do_unlinkat,
    .mkdirat = do_mkdirat,
};

struct power *power_record(int folder)
{
    struct power *power = calloc(1, sizeof *power);
    cr_assert_not_null(power);
    cr_assert_eq(pthread_mutex_init(&power->lock, NULL), 0);
    power->root = number_of(folder);
    recording = power;
    file_calls = &noting;
    return power;
}

size_t power_changes(struct power *power)
{
    pthread_mutex_lock(&power->lock);
    size_t count = power->count;
    pthread_mutex_unlock(&power->lock);
    return count;
}

void power_stop(struct power *power)
{
    (void)power;
    file_calls = &file_system_calls;
}

void power_free(struct power *power)
{
    for (size_t i = 0; i < power->count; i++) {
        free(power->changes[i].name);
        free(power->changes[i].to);
        free(power->changes[i].bytes);
    }
    free(power->changes);
    pthread_mutex_destroy(&power->lock);
    free(power);
}

/* ---------------------------------------------------------------- the disk after it */

static uint64_t next_random(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = (*seed += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

/* Which change made the file or folder durable last, of those before `end`; that many
 * of the changes to it are certain. */
static size_t certain_until(const struct power *power, size_t end, ino_t what)
{
    for (size_t i = end; i-- > 0;) {
        if (power->changes[i].kind == DURABLE && power->changes[i].what == what) {
            return i;
        }
    }
    return 0;
}

/* Write what the disk has of a piece that was written. */
static void write_piece(int file, const struct change *change, bool certain,
                        uint64_t *seed)
{
    size_t size = change->size;
    uint8_t *garbage = NULL;
    if (!certain) {
        switch (next_random(seed) % 4) {
        case 0: /* it is not there */
            return;
        case 1: /* its first part is */
            size = (size_t)(next_random(seed) % (size + 1));
            break;
        case 2: /* something is in its place */
            garbage = malloc(size);
            cr_assert_not_null(garbage);
            for (size_t i = 0; i < size; i++) {
                garbage[i] = i % 512 < 256 ? 0 : (uint8_t)next_random(seed);
            }
            break;
        default: /* all of it is */
            break;
        }
    }
    const uint8_t *bytes = garbage != NULL ? garbage : change->bytes;
    cr_assert_eq(pwrite(file, bytes, size, (off_t)change->at), (ssize_t)size);
    free(garbage);
}

static void fill_file(const struct power *power, size_t end, ino_t what, int file,
                      uint64_t *seed)
{
    size_t certain = certain_until(power, end, what);
    for (size_t i = 0; i < end; i++) {
        const struct change *change = &power->changes[i];
        if (change->what != what) {
            continue;
        }
        if (change->kind == WRITTEN) {
            write_piece(file, change, i < certain, seed);
        } else if (change->kind == CUT && (i < certain || next_random(seed) % 2 == 0)) {
            cr_assert_eq(ftruncate(file, (off_t)change->at), 0);
        }
    }
}

/* A name in a folder. */
struct name {
    ino_t in, what;
    const char *name;
    bool folder;
};
struct names {
    struct name *list;
    size_t count;
};

static void drop_name(struct names *names, ino_t in, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->list[i].in == in && strcmp(names->list[i].name, name) == 0) {
            names->list[i--] = names->list[--names->count];
        }
    }
}

static bool is_folder(const struct power *power, ino_t what)
{
    bool folder = what == power->root;
    for (size_t i = 0; i < power->count; i++) {
        const struct change *change = &power->changes[i];
        if (change->what == what &&
            (change->kind == MADE || change->kind == MADE_FOLDER)) {
            folder = change->kind == MADE_FOLDER;
        }
    }
    return folder;
}

static void add_name(const struct power *power, struct names *names, ino_t in,
                     const char *name, ino_t what)
{
    drop_name(names, in, name);
    names->list[names->count++] = (struct name){
        .in = in, .what = what, .name = name, .folder = is_folder(power, what)
    };
}

static bool changes_names(const struct change *change)
{
    return change->kind == MADE || change->kind == MADE_FOLDER ||
           change->kind == RENAMED || change->kind == REMOVED;
}

/* Until which change each folder's names are those of the disk: at least until it was
 * made durable. A file system keeps their order, so it is one change for all folders
 * from the last of these on. */
static size_t names_until(const struct power *power, size_t end, ino_t in,
                          size_t written)
{
    size_t certain = certain_until(power, end, in);
    return certain > written ? certain : written;
}

static struct names names_after(const struct power *power, size_t end, uint64_t *seed)
{
    struct names names = { .list = calloc(end + 1, sizeof *names.list) };
    cr_assert_not_null(names.list);
    size_t written = (size_t)(next_random(seed) % (end + 1));
    for (size_t i = 0; i < end; i++) {
        const struct change *change = &power->changes[i];
        if (!changes_names(change)) {
            continue;
        }
        bool from = i < names_until(power, end, change->in, written);
        bool to = change->kind == RENAMED &&
                  i < names_until(power, end, change->to_in, written);
        if (change->kind == RENAMED && (from || to)) {
            drop_name(&names, change->in, change->name);
            add_name(power, &names, change->to_in, change->to, change->what);
        } else if (change->kind == REMOVED && from) {
            drop_name(&names, change->in, change->name);
        } else if (change->kind != RENAMED && change->kind != REMOVED && from) {
            add_name(power, &names, change->in, change->name, change->what);
        }
    }
    return names;
}

static void fill_folder(const struct power *power, size_t end,
                        const struct names *names, ino_t what, int folder,
                        uint64_t *seed)
{
    for (size_t i = 0; i < names->count; i++) {
        const struct name *name = &names->list[i];
        if (name->in != what) {
            continue;
        }
        if (name->folder) {
            cr_assert_eq(mkdirat(folder, name->name, 0700), 0);
            int inner = openat(folder, name->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            cr_assert_geq(inner, 0);
            fill_folder(power, end, names, name->what, inner, seed);
            close(inner);
        } else {
            int file = openat(folder, name->name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            cr_assert_geq(file, 0);
            fill_file(power, end, name->what, file, seed);
            close(file);
        }
    }
}

void power_cut(const struct power *power, size_t changes, uint64_t seed, int folder)
{
    struct names names = names_after(power, changes, &seed);
    fill_folder(power, changes, &names, power->root, folder, &seed);
    free(names.list);
}
