/* The store after the power went, at every moment of a busy life: what was said to be
 * durable is there, to the bit; what else is there is whole; nothing has to be
 * repaired.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/checkpoint.h"
#include "server/store/data_dir.h"
#include "server/store/file.h"
#include "server/store/journal_file.h"
#include "tests/support/files.h"
#include "tests/support/kept_model.h"
#include "tests/support/power.h"

enum { MODEL = 0x77, TURNS = 60, SEGMENT = 900, RECORD_MOST = 200, SEEDS = 4 };

static struct opt_error error;

/* What was true after a change. */
struct moment {
    size_t changes;
    uint64_t durable, dropped; /* records up to that one, without those before */
    uint64_t checkpoint;       /* step of the newest; 0: none */
};

struct life {
    struct data_dir dir;
    struct journal *journal;
    struct power *power;
    struct moment moments[8 * TURNS];
    size_t count;
    struct moment now;
};

static size_t size_of(uint64_t index)
{
    return (size_t)(index * 37 % RECORD_MOST);
}

static void fill(uint64_t index, uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(index * 31 + i * 7);
    }
}

static void remember(struct life *life)
{
    life->now.changes = power_changes(life->power);
    life->now.durable = journal_durable(life->journal);
    life->moments[life->count++] = life->now;
}

static void append(struct life *life)
{
    uint8_t bytes[RECORD_MOST];
    uint64_t index = journal_next(life->journal);
    const struct iovec part = { bytes, size_of(index) };
    fill(index, bytes, part.iov_len);
    cr_assert_eq(journal_append(life->journal, &part, 1, &index, &error), OPT_OK);
}

static void save(struct life *life, uint64_t step)
{
    struct checkpoint_writer *writer;
    const struct manifest *manifest = kept_manifest(step);
    int folder;
    char *path;
    cr_assert_eq(data_dir_model(&life->dir, MODEL, true, &folder, &path, &error),
                 OPT_OK);
    const struct checkpoint_place place = { .folder = folder, .path = path };
    cr_assert_eq(checkpoint_begin(&place, manifest, &writer, &error), OPT_OK);
    for (size_t a = 0; a < KEPT_ARRAYS; a++) {
        for (size_t t = manifest->tensor_count; t-- > 0;) {
            size_t n = (size_t)manifest->tensors[t].entry.elements;
            float *values = malloc(n * sizeof *values);
            cr_assert_not_null(values);
            for (size_t i = 0; i < n; i++) {
                values[i] = kept_value(step, a, t, i);
            }
            const struct iovec part = { values, n * sizeof *values };
            cr_assert_eq(checkpoint_write(writer, a, t, 0, &part, 1, &error), OPT_OK);
            free(values);
        }
    }
    cr_assert_eq(checkpoint_finish(writer, NULL, &error), OPT_OK, "%s", error.text);
    life->now.checkpoint = step;
    remember(life);
    cr_assert_eq(checkpoint_prune(&place, 2, &error), OPT_OK);
    uint64_t before = journal_durable(life->journal) / 2;
    life->now.dropped = before;
    cr_assert_eq(journal_drop(life->journal, before, &error), OPT_OK);
    close(folder);
    free(path);
}

static void live(struct life *life, const char *path)
{
    struct journal_reader *reader;
    char journal[200];
    cr_assert_eq(data_dir_open(path, &life->dir, &error), OPT_OK, "%s", error.text);
    snprintf(journal, sizeof journal, "%s/journal", path);
    const struct journal_place place = { .folder = life->dir.journal,
                                         .path = journal,
                                         .identity = life->dir.identity };
    cr_assert_eq(journal_reader_open(&place, &reader, &error), OPT_OK);
    cr_assert_eq(journal_open(reader, 1, SEGMENT, &life->journal, &error), OPT_OK);
    journal_reader_free(reader);
    remember(life);
    for (unsigned turn = 1; turn <= TURNS; turn++) {
        append(life);
        if (turn % 3 == 0) {
            cr_assert_eq(journal_sync(life->journal, &error), OPT_OK);
        }
        remember(life);
        if (turn % 15 == 0) {
            save(life, turn);
            remember(life);
        }
    }
}

/* ---------------------------------------------------------------- afterwards */

static void expect_records(const struct data_dir *dir, const struct moment *was,
                           size_t cut)
{
    char path[200];
    struct journal_reader *reader;
    struct journal_head head;
    uint8_t bytes[RECORD_MOST], expected[RECORD_MOST];
    uint64_t last = 0;
    snprintf(path, sizeof path, "%s/journal", dir->path);
    const struct journal_place place = { .folder = dir->journal,
                                         .path = path,
                                         .identity = dir->identity };
    enum opt_status status = journal_reader_open(&place, &reader, &error);
    cr_assert_eq(status, OPT_OK, "after %zu changes: %s", cut, error.text);
    cr_assert_leq(journal_reader_first(reader), was->dropped + 1);
    while ((status = journal_reader_next(reader, &head, &error)) == OPT_OK) {
        cr_assert_eq(head.size, size_of(head.index));
        status = journal_reader_body(reader, bytes, &error);
        if (status != OPT_OK) {
            break;
        }
        fill(head.index, expected, head.size);
        cr_assert_eq(memcmp(bytes, expected, head.size), 0);
        last = head.index;
    }
    cr_assert_eq(status, OPT_OUT_OF_RANGE, "after %zu changes: %s", cut, error.text);
    cr_assert_geq(last, was->durable, "after %zu changes: %d records, not %d", cut,
                  (int)last, (int)was->durable);
    journal_reader_free(reader);
}

static void expect_checkpoints(const struct data_dir *dir, const struct moment *was)
{
    uint64_t *models = NULL, newest = 0;
    size_t count = 0;
    struct checkpoint_entry *entries = NULL;
    cr_assert_eq(data_dir_models(dir, &models, &count, &error), OPT_OK);
    for (size_t i = 0; i < count; i++) {
        int folder;
        char *path;
        size_t there;
        cr_assert_eq(data_dir_model(dir, models[i], false, &folder, &path, &error),
                     OPT_OK);
        const struct checkpoint_place place = { .folder = folder, .path = path };
        cr_assert_eq(checkpoint_list(&place, &entries, &there, &error), OPT_OK);
        for (size_t k = 0; k < there; k++) {
            struct checkpoint_reader *reader;
            cr_assert_eq(checkpoint_open(&place, entries[k].name, &reader, &error),
                         OPT_OK, "%s", error.text);
            for (size_t a = 0; a < KEPT_ARRAYS; a++) {
                cr_assert_eq(checkpoint_read(reader, a, NULL, &error), OPT_OK, "%s",
                             error.text);
            }
            checkpoint_close(reader);
            newest = entries[k].step > newest ? entries[k].step : newest;
        }
        free(entries);
        close(folder);
        free(path);
    }
    free(models);
    cr_assert_geq(newest, was->checkpoint);
}

static void expect_after(const struct life *life, const struct moment *was, size_t cut,
                         uint64_t seed)
{
    struct files files;
    struct data_dir dir;
    files_open(&files);
    power_cut(life->power, cut, seed, files.folder);
    cr_assert_eq(data_dir_open(files.path, &dir, &error), OPT_OK,
                 "after %zu changes, seed %d: %s", cut, (int)seed, error.text);
    cr_assert_eq(dir.identity, life->dir.identity);
    expect_records(&dir, was, cut);
    expect_checkpoints(&dir, was);
    cr_assert_eq(data_dir_forget(&dir, MODEL, &error), OPT_OK, "%s", error.text);
    data_dir_close(&dir);
    files_close(&files);
}

Test(store_power, keeps_what_was_durable_whenever_it_goes, .timeout = 120)
{
    struct files files;
    static struct life life;
    files_open(&files);
    life.power = power_record(files.folder);
    live(&life, files.path);
    journal_free(life.journal);
    power_stop(life.power);
    cr_assert_gt(power_changes(life.power), (size_t)(4 * TURNS));
    size_t moment = 0;
    for (size_t cut = life.moments[0].changes; cut <= power_changes(life.power);
         cut++) {
        while (moment + 1 < life.count && life.moments[moment + 1].changes <= cut) {
            moment++;
        }
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            expect_after(&life, &life.moments[moment], cut, cut * SEEDS + seed);
        }
    }
    cr_assert_eq(data_dir_forget(&life.dir, MODEL, &error), OPT_OK, "%s", error.text);
    data_dir_close(&life.dir);
    power_free(life.power);
    files_close(&files);
}

Test(store_power, a_fresh_directory_is_there_or_not)
{
    struct files files, other;
    struct data_dir dir, again;
    files_open(&files);
    struct power *power = power_record(files.folder);
    cr_assert_eq(data_dir_open(files.path, &dir, &error), OPT_OK);
    power_stop(power);
    for (size_t cut = 0; cut <= power_changes(power); cut++) {
        for (uint64_t seed = 0; seed < 16; seed++) {
            files_open(&other);
            power_cut(power, cut, cut * 16 + seed, other.folder);
            cr_assert_eq(data_dir_open(other.path, &again, &error), OPT_OK,
                         "after %zu changes: %s", cut, error.text);
            cr_assert(cut < power_changes(power) || again.identity == dir.identity);
            data_dir_close(&again);
            files_close(&other);
        }
    }
    data_dir_close(&dir);
    power_free(power);
    files_close(&files);
}
