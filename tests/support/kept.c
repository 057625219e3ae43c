/* kept — see kept.h. */
#define _GNU_SOURCE /* pthread_getname_np */
#include "tests/support/kept.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/store/file.h"
#include "server/store/journal_file.h"

/* ---------------------------------------------------------------- the disk */

static struct {
    uv_mutex_t lock; /* guards what follows */
    uv_cond_t changed;
    bool held, waiting;
    unsigned syncs, failures; /* left */
    int code;
    bool saving_held;
    struct one {
        unsigned calls, fails; /* so far, and which of them */
        int code;
    } saving, journal; /* of the checkpoints' thread, and of the journal's two */
} disk;

/* What a call comes to: 0, or an errno. */
static int fate(bool syncs)
{
    int code = 0;
    uv_mutex_lock(&disk.lock);
    disk.syncs += syncs;
    while (syncs && disk.held) {
        disk.waiting = true;
        uv_cond_broadcast(&disk.changed);
        uv_cond_wait(&disk.changed, &disk.lock);
    }
    disk.waiting = false;
    if (disk.failures > 0) {
        disk.failures -= disk.failures < UINT_MAX;
        code = disk.code;
    }
    uv_mutex_unlock(&disk.lock);
    return code;
}

/* The same of a call of certain threads. */
static int fate_of_thread(void)
{
    char name[16] = "";
    int code = 0;
    (void)pthread_getname_np(pthread_self(), name, sizeof name);
    bool saving = strcmp(name, "optimd-save") == 0;
    struct one *one = saving ? &disk.saving : &disk.journal;
    if (!saving && strcmp(name, "optimd-journal") != 0 &&
        strcmp(name, "optimd-sync") != 0) {
        return 0;
    }
    uv_mutex_lock(&disk.lock);
    while (saving && disk.saving_held) {
        disk.waiting = true;
        uv_cond_broadcast(&disk.changed);
        uv_cond_wait(&disk.changed, &disk.lock);
    }
    one->calls++;
    if (one->calls == one->fails) {
        code = one->code;
    }
    uv_mutex_unlock(&disk.lock);
    return code;
}

static int sync_data(int file)
{
    errno = fate_of_thread();
    errno = errno != 0 ? errno : fate(true);
    return errno != 0 ? -1 : file_system_calls.fdatasync(file);
}

static int sync_all(int file)
{
    errno = fate_of_thread();
    return errno != 0 ? -1 : file_system_calls.fsync(file);
}

static int open_file(int folder, const char *name, int flags, mode_t mode)
{
    errno = fate_of_thread();
    return errno != 0 ? -1 : file_system_calls.openat(folder, name, flags, mode);
}

static int rename_file(int folder, const char *name, int to_folder, const char *to)
{
    errno = fate_of_thread();
    return errno != 0 ? -1 : file_system_calls.renameat(folder, name, to_folder, to);
}

static int remove_file(int folder, const char *name, int flags)
{
    errno = fate_of_thread();
    return errno != 0 ? -1 : file_system_calls.unlinkat(folder, name, flags);
}

static int make_folder(int folder, const char *name, mode_t mode)
{
    errno = fate_of_thread();
    return errno != 0 ? -1 : file_system_calls.mkdirat(folder, name, mode);
}

static ssize_t write_parts(int file, const struct iovec *parts, int count, off_t at)
{
    errno = fate_of_thread();
    errno = errno != 0 ? errno : fate(false);
    return errno != 0 ? -1 : file_system_calls.pwritev(file, parts, count, at);
}

static struct file_calls calls;

static void set(bool held, int code, unsigned failures)
{
    uv_mutex_lock(&disk.lock);
    disk.held = held;
    disk.saving_held = false;
    disk.code = code;
    disk.failures = failures;
    uv_cond_broadcast(&disk.changed);
    uv_mutex_unlock(&disk.lock);
}

unsigned disk_syncs(void)
{
    uv_mutex_lock(&disk.lock);
    unsigned syncs = disk.syncs;
    uv_mutex_unlock(&disk.lock);
    return syncs;
}

void disk_hold(void)
{
    set(true, 0, 0);
}

void disk_hold_saving(void)
{
    uv_mutex_lock(&disk.lock);
    disk.saving_held = true;
    uv_mutex_unlock(&disk.lock);
}

void disk_fail_saving(int code, unsigned at)
{
    uv_mutex_lock(&disk.lock);
    disk.saving = (struct one){ .fails = at, .code = code };
    uv_mutex_unlock(&disk.lock);
}

void disk_fail_journal(int code, unsigned at)
{
    uv_mutex_lock(&disk.lock);
    disk.journal = (struct one){ .fails = at, .code = code };
    uv_mutex_unlock(&disk.lock);
}

unsigned disk_journal_calls(void)
{
    uv_mutex_lock(&disk.lock);
    unsigned calls_so_far = disk.journal.calls;
    uv_mutex_unlock(&disk.lock);
    return calls_so_far;
}

unsigned disk_saving_calls(void)
{
    uv_mutex_lock(&disk.lock);
    unsigned calls_so_far = disk.saving.calls;
    uv_mutex_unlock(&disk.lock);
    return calls_so_far;
}

void disk_await_held(void)
{
    uv_mutex_lock(&disk.lock);
    while (!disk.waiting) {
        uv_cond_wait(&disk.changed, &disk.lock);
    }
    uv_mutex_unlock(&disk.lock);
}

void disk_go_on(void)
{
    set(false, 0, 0);
}

void disk_fail(int code, unsigned times)
{
    set(false, code, times);
}

void disk_mend(void)
{
    set(false, 0, 0);
}

/* ---------------------------------------------------------------- the engine */

struct durable_settings kept_settings(void)
{
    return (struct durable_settings){
        .durability = OPT_DURABILITY_ALWAYS,
        .interval_ms = 3600 * 1000,
        .queue_bytes = 256 << 20,
    };
}

static void on_recovered(void *context, const struct opt_error *error)
{
    struct kept *kept = context;
    kept->error = error != NULL ? *error : (struct opt_error){ .status = OPT_OK };
    uv_sem_post(&kept->recovered);
}

void kept_open(struct kept *kept, struct durable_settings settings)
{
    disk.syncs = 0;
    cr_assert_eq(uv_mutex_init(&disk.lock), 0);
    cr_assert_eq(uv_cond_init(&disk.changed), 0);
    calls = file_system_calls;
    calls.fdatasync = sync_data;
    calls.pwritev = write_parts;
    calls.fsync = sync_all;
    calls.openat = open_file;
    calls.renameat = rename_file;
    calls.unlinkat = remove_file;
    calls.mkdirat = make_folder;
    file_calls = &calls;
    disk_mend();
    files_open(&kept->files);
    kept_start(kept, settings);
}

void kept_start(struct kept *kept, struct durable_settings settings)
{
    struct opt_error error;
    char path[128];
    snprintf(path, sizeof path, "%s/data", kept->files.path);
    cr_assert_eq(data_dir_open(path, &kept->dir, &error), OPT_OK, "%s", error.text);
    settings.dir = &kept->dir;
    settings.recovered = on_recovered;
    settings.context = kept;
    cr_assert_eq(uv_sem_init(&kept->recovered, 0), 0);
    cr_assert_eq(durable_open(&settings, &kept->durable, &error), OPT_OK, "%s",
                 error.text);
    struct engine_settings engine = harness_settings();
    engine.durable = kept->durable;
    engine.recorder = &kept->durable->recorder;
    engine.durability = settings.durability;
    harness_open(&kept->harness, engine);
    uv_sem_wait(&kept->recovered);
    uv_sem_destroy(&kept->recovered);
    cr_assert_eq(kept->error.status, OPT_OK, "%s", kept->error.text);
    disk.syncs = 0;
}

void kept_stop(struct kept *kept)
{
    harness_close(&kept->harness);
    durable_close(kept->durable);
    kept->durable = NULL;
}

void kept_close(struct kept *kept)
{
    if (kept->durable != NULL) {
        kept_stop(kept);
    }
    data_dir_close(&kept->dir);
    files_close(&kept->files);
    file_calls = &file_system_calls;
    uv_cond_destroy(&disk.changed);
    uv_mutex_destroy(&disk.lock);
}

/* ---------------------------------------------------------------- the journal */

size_t kept_count(const struct kept *kept, enum record_kind kind)
{
    const struct journal_place place = { .folder = kept->dir.journal,
                                         .path = kept->dir.path,
                                         .identity = kept->dir.identity };
    struct journal_reader *reader;
    struct journal_head head;
    struct opt_error error;
    size_t count = 0;
    cr_assert_eq(journal_reader_open(&place, &reader, &error), OPT_OK, "%s",
                 error.text);
    enum opt_status status =
        journal_reader_seek(reader, journal_reader_first(reader), &error);
    while (status == OPT_OK &&
           (status = journal_reader_next(reader, &head, &error)) == OPT_OK) {
        uint8_t *bytes = aligned_alloc(64, (head.size + 63) / 64 * 64);
        struct record record;
        struct opt_arena arena;
        cr_assert_not_null(bytes);
        cr_assert_eq(journal_reader_body(reader, bytes, &error), OPT_OK, "%s",
                     error.text);
        opt_arena_init(&arena, record_arena(record_message_bytes(bytes, head.size)));
        cr_assert_eq(record_read(bytes, head.size, &arena, &record, &error), OPT_OK,
                     "%s", error.text);
        for (size_t i = 0; i < record.count; i++) {
            count += record.entries[i].kind == kind;
        }
        opt_arena_fini(&arena);
        free(bytes);
    }
    cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
    journal_reader_free(reader);
    return count;
}
