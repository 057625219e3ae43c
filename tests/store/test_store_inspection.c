/* inspection — whatever is damaged in a data directory is found and named, every bit of
 * it, and a repair sets aside that and nothing else.
 */
#include "server/store/inspection.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/checkpoint.h"
#include "server/store/file.h"
#include "server/store/journal_file.h"
#include "server/store/record.h"
#include "tests/support/files.h"
#include "tests/support/kept_model.h"
#include "tests/support/operator.h"

enum { MODEL = 0x2233, RECORDS = 40, SEGMENT = 1024, STEPS = 2 };

static struct files files;
static struct opt_error error;
static char dir_path[128], journal_folder[160];

static void write_checkpoint(const struct data_dir *dir, uint64_t step)
{
    struct checkpoint_writer *writer;
    const struct manifest *manifest = kept_manifest(step);
    int folder;
    char *path;
    cr_assert_eq(data_dir_model(dir, MODEL, true, &folder, &path, &error), OPT_OK);
    const struct checkpoint_place place = { .folder = folder, .path = path };
    cr_assert_eq(checkpoint_begin(&place, manifest, &writer, &error), OPT_OK, "%s",
                 error.text);
    for (size_t a = 0; a < KEPT_ARRAYS; a++) {
        for (size_t t = 0; t < manifest->tensor_count; t++) {
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
    close(folder);
    free(path);
}

static void write_journal(const struct data_dir *dir)
{
    const struct journal_place place = { .folder = dir->journal,
                                         .path = journal_folder,
                                         .identity = dir->identity };
    struct journal_reader *reader;
    struct journal *journal;
    struct record_writer *writer = record_writer_new();
    cr_assert_not_null(writer);
    cr_assert_eq(journal_reader_open(&place, &reader, &error), OPT_OK);
    cr_assert_eq(journal_open(reader, 1, SEGMENT, &journal, &error), OPT_OK);
    journal_reader_free(reader);
    for (uint64_t i = 1; i <= RECORDS; i++) {
        const struct record_entry entry = { .kind = RECORD_WORKER,
                                            .worker = "w",
                                            .of.worker = { .incarnation = i } };
        const struct iovec *parts;
        size_t count;
        uint64_t index;
        record_begin(writer);
        cr_assert_eq(record_add(writer, &entry, &error), OPT_OK, "%s", error.text);
        cr_assert_eq(record_parts(writer, &parts, &count, &error), OPT_OK);
        cr_assert_eq(journal_append(journal, parts, count, &index, &error), OPT_OK);
        cr_assert_eq(journal_sync(journal, &error), OPT_OK);
    }
    journal_free(journal);
    record_writer_free(writer);
}

static void set_up(void)
{
    struct data_dir dir;
    files_open(&files);
    snprintf(dir_path, sizeof dir_path, "%s/data", files.path);
    snprintf(journal_folder, sizeof journal_folder, "%s/journal", dir_path);
    cr_assert_eq(data_dir_open(dir_path, &dir, &error), OPT_OK, "%s", error.text);
    for (uint64_t step = 1; step <= STEPS; step++) {
        write_checkpoint(&dir, step);
    }
    write_journal(&dir);
    data_dir_close(&dir);
}

static void tear_down(void)
{
    files_close(&files);
}

TestSuite(store_inspection, .init = set_up, .fini = tear_down);

/* What was found. */
struct seen {
    size_t good, bad, repaired;
    char path[512], text[512]; /* of the first that is damaged */
    enum remedy remedy;
    struct data_dir *repair; /* NULL: only look */
};

static void see(void *context, const struct finding *finding)
{
    struct seen *seen = context;
    if (finding->status == OPT_OK) {
        seen->good++;
        return;
    }
    if (seen->bad++ == 0) {
        snprintf(seen->path, sizeof seen->path, "%s", finding->path);
        snprintf(seen->text, sizeof seen->text, "%s", finding->text);
        seen->remedy = finding->remedy;
    }
    if (seen->repair != NULL && finding->remedy != REMEDY_NONE) {
        struct opt_error why;
        cr_assert_eq(inspection_repair(seen->repair, finding, "damaged", &why), OPT_OK,
                     "%s", why.text);
        seen->repaired++;
    }
}

static struct seen inspect(bool repair)
{
    struct data_dir dir;
    struct seen seen = { 0 };
    cr_assert_eq(data_dir_look(dir_path, &dir, &error), OPT_OK, "%s", error.text);
    seen.repair = repair ? &dir : NULL;
    const struct inspector inspector = { .found = see, .context = &seen };
    cr_assert_eq(inspection_run(&dir, &inspector, &error), OPT_OK, "%s", error.text);
    data_dir_close(&dir);
    return seen;
}

/* Change a file of the directory: one bit of a byte, or its size to so many bytes. */
static void flip(const char *name, size_t at, unsigned bit)
{
    char path[512];
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%s", dir_path, name);
    int file = open(path, O_RDWR);
    cr_assert_geq(file, 0, "%s", path);
    cr_assert_eq(pread(file, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1U << bit);
    cr_assert_eq(pwrite(file, &byte, 1, (off_t)at), 1);
    close(file);
}

static size_t size_of(const char *name)
{
    char path[512];
    struct stat at;
    snprintf(path, sizeof path, "%s/%s", dir_path, name);
    cr_assert_eq(stat(path, &at), 0, "%s", path);
    return (size_t)at.st_size;
}

static const char *segment(unsigned number)
{
    static char name[64];
    snprintf(name, sizeof name, "journal/%020u.journal", number);
    return name;
}

Test(store_inspection, finds_nothing_where_nothing_is_wrong)
{
    struct seen seen = inspect(false);
    cr_expect_eq(seen.bad, 0, "%s: %s", seen.path, seen.text);
    cr_expect_eq(seen.good, STEPS + 1);
}

Test(store_inspection, finds_every_bit_of_a_checkpoint)
{
    static const char *const names[] = { "manifest.json", "manifest.xxh3",
                                         "weights.safetensors" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[256];
        snprintf(name, sizeof name, "models/0000000000002233/0000000002-step-2/%s",
                 names[i]);
        size_t size = size_of(name), by = size / 97 + 1;
        for (size_t at = 0; at < size; at += by) {
            flip(name, at, (unsigned)(at % 8));
            struct seen seen = inspect(false);
            cr_expect(seen.bad == 1 && seen.remedy == REMEDY_CHECKPOINT &&
                          strstr(seen.path, "0000000002-step-2") != NULL,
                      "%s, byte %zu: %zu damaged", name, at, seen.bad);
            flip(name, at, (unsigned)(at % 8));
        }
    }
}

Test(store_inspection, finds_damage_of_the_journal_and_where)
{
    for (unsigned number = 1; number <= 2; number++) {
        size_t size = size_of(segment(number));
        for (size_t at = 0; at < size; at += 5) {
            flip(segment(number), at, (unsigned)(at % 8));
            struct seen seen = inspect(false);
            cr_expect(seen.bad == 1 && seen.remedy == REMEDY_JOURNAL &&
                          strstr(seen.path, segment(number)) != NULL,
                      "byte %zu of segment %u: %zu damaged, %s: %s", at, number,
                      seen.bad, seen.path, seen.text);
            flip(segment(number), at, (unsigned)(at % 8));
        }
    }
}

Test(store_inspection, a_missing_segment_is_damage)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir_path, segment(2));
    cr_assert_eq(unlink(path), 0);
    struct seen seen = inspect(false);
    cr_expect(seen.bad == 1 && seen.remedy == REMEDY_JOURNAL &&
                  strstr(seen.path, segment(3)) != NULL,
              "%s: %s", seen.path, seen.text);
}

Test(store_inspection, repairs_by_setting_aside)
{
    flip("models/0000000000002233/0000000002-step-2/weights.safetensors", 900, 3);
    size_t size = size_of(segment(2));
    flip(segment(2), size / 2, 3);
    struct seen seen = inspect(true);
    cr_expect_eq(seen.bad, 2);
    cr_expect_eq(seen.repaired, 2);
    seen = inspect(false);
    cr_expect_eq(seen.bad, 0, "%s: %s", seen.path, seen.text);
    cr_expect_eq(seen.good, STEPS - 1 + 1);
    cr_expect_eq(size_of("damaged/00000000000000000002.journal"), size);
    cr_expect_lt(size_of(segment(2)), size);
    cr_expect(strstr(files_names(&files, "data/damaged"),
                     "0000000000002233-0000000002-step-2") != NULL);
    struct data_dir dir; /* and a daemon takes it */
    cr_assert_eq(data_dir_open(dir_path, &dir, &error), OPT_OK, "%s", error.text);
    data_dir_close(&dir);
}

Test(store_inspection, leaves_a_directory_that_a_daemon_has)
{
    struct data_dir dir, other;
    cr_assert_eq(data_dir_open(dir_path, &dir, &error), OPT_OK);
    cr_expect_eq(data_dir_look(dir_path, &other, &error), OPT_UNAVAILABLE);
    cr_expect(files_said(&error, "in use|stop it first"), "%s", error.text);
    data_dir_close(&dir);
    cr_expect_eq(data_dir_look(files.path, &other, &error), OPT_DATA_LOSS);
    cr_expect_eq(data_dir_look("/no/such/directory", &other, &error), OPT_NOT_FOUND);
}

Test(store_inspection, optctl_verifies_and_repairs)
{
    cr_assert_eq(RUN("verify", dir_path), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, "40 records from 1 on") != NULL, "%s", operator_out);
    cr_assert_eq(RUN("repair", dir_path), 0, "%s", operator_out);
    flip(segment(1), 200, 0);
    cr_assert_eq(RUN("--json", "verify", dir_path), 65, "%s", operator_out);
    json_t *list = operator_json();
    size_t damaged = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        damaged += !json_is_true(json_object_get(json_array_get(list, i), "good"));
    }
    cr_expect_eq(damaged, 1);
    json_decref(list);
    cr_assert_eq(RUN("repair", dir_path), 65, "%s", operator_out);
    cr_expect(strstr(operator_out, "Nothing was changed") != NULL, "%s", operator_out);
    cr_assert_eq(RUN("repair", dir_path, "--yes"), 0, "%s", operator_out);
    cr_assert_eq(RUN("verify", dir_path), 0, "%s", operator_out);
    cr_assert_eq(RUN("verify", "/no/such/directory"), 1);
    cr_assert_eq(RUN("verify", files.path), 65, "%s", operator_out);
}
