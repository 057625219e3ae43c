/* checkpoint — see checkpoint.h. */
#include "server/store/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "server/store/array_file.h"
#include "server/store/failpoint.h"
#include "server/store/file.h"

enum {
    ARRAYS = 1 + OPT_SLOTS_MAX,
    MANIFEST_BYTES = 1 << 30, /* at most */
    DIGEST_BYTES = 64
};

static const char manifest_name[] = "manifest.json", digest_name[] = "manifest.xxh3";

/* ---------------------------------------------------------------- names */

static char *join(const char *path, const char *name)
{
    size_t size = strlen(path) + strlen(name) + 2;
    char *joined = malloc(size);
    if (joined != NULL) {
        snprintf(joined, size, "%s/%s", path, name);
    }
    return joined;
}

static enum opt_status no_memory(const struct checkpoint_place *place,
                                 struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a checkpoint in %s",
                    place->path);
}

static void print_name(uint64_t number, uint64_t step, char out[CHECKPOINT_NAME])
{
    snprintf(out, CHECKPOINT_NAME, "%010" PRIu64 "-step-%" PRIu64, number, step);
}

static bool read_name(const char *name, uint64_t *number, uint64_t *step)
{
    char again[CHECKPOINT_NAME], *end;
    *number = strtoull(name, &end, 10);
    *step = strncmp(end, "-step-", 6) == 0 ? strtoull(end + 6, NULL, 10) : 0;
    print_name(*number, *step, again);
    return strcmp(again, name) == 0;
}

static bool is_temporary(const char *name)
{
    return strncmp(name, "tmp-", 4) == 0;
}

static void print_digest(const void *manifest, size_t size, char out[DIGEST_BYTES])
{
    snprintf(out, DIGEST_BYTES, "XXH3_%016" PRIx64 "  %s\n",
             XXH3_64bits(manifest, size), manifest_name);
}

static const char *slot_of(const struct manifest *manifest, size_t array)
{
    return array == 0 ? NULL : manifest->slots[array - 1];
}

/* ---------------------------------------------------------------- writing */

struct checkpoint_writer {
    struct checkpoint_place place;
    struct manifest manifest; /* the caller's, and its files */
    char temporary[CHECKPOINT_NAME], name[CHECKPOINT_NAME];
    int folder; /* the temporary one */
    char *path; /* of it */
    struct array_file *arrays[ARRAYS];
    char file_names[ARRAYS][ARRAY_FILE_NAME];
};

static void writer_free(struct checkpoint_writer *writer)
{
    for (size_t i = 0; i < ARRAYS; i++) {
        array_file_close(writer->arrays[i]);
    }
    if (writer->folder >= 0) {
        close(writer->folder);
    }
    free(writer->path);
    free(writer);
}

void checkpoint_abandon(struct checkpoint_writer *writer)
{
    if (writer != NULL) {
        (void)file_remove(writer->place.folder, writer->temporary, writer->path, NULL);
        writer_free(writer);
    }
}

/* One more than the highest number that there is. */
static enum opt_status next_number(const struct checkpoint_place *place, uint64_t *out,
                                   struct opt_error *error)
{
    struct file_names names;
    uint64_t number, step;
    enum opt_status status = file_list(place->folder, place->path, &names, error);
    *out = 1;
    for (size_t i = 0; i < names.count; i++) {
        if (read_name(names.names[i], &number, &step) && number >= *out) {
            *out = number + 1;
        }
    }
    file_names_free(&names);
    return status;
}

static enum opt_status make_files(struct checkpoint_writer *writer,
                                  struct opt_error *error)
{
    const struct manifest *manifest = &writer->manifest;
    const struct checkpoint_place *place = &writer->place;
    enum opt_status status =
        file_remove(place->folder, writer->temporary, writer->path, error);
    if (status == OPT_OK) {
        status = file_open_folder(place->folder, writer->temporary, true, writer->path,
                                  &writer->folder, error);
    }
    for (size_t i = 0; status == OPT_OK && i <= manifest->slot_count; i++) {
        array_file_name(slot_of(manifest, i), writer->file_names[i]);
        writer->manifest.files[i].name = writer->file_names[i];
        status = array_file_create(writer->folder, writer->path, manifest,
                                   slot_of(manifest, i), &writer->arrays[i], error);
    }
    return status;
}

enum opt_status checkpoint_begin(const struct checkpoint_place *place,
                                 const struct manifest *manifest,
                                 struct checkpoint_writer **out,
                                 struct opt_error *error)
{
    uint64_t number;
    struct checkpoint_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return no_memory(place, error);
    }
    writer->place = *place;
    writer->manifest = *manifest;
    writer->folder = -1;
    enum opt_status status = next_number(place, &number, error);
    if (status == OPT_OK) {
        print_name(number, manifest->step, writer->name);
        snprintf(writer->temporary, sizeof writer->temporary, "tmp-%010" PRIu64,
                 number);
        writer->path = join(place->path, writer->temporary);
        status =
            writer->path != NULL ? make_files(writer, error) : no_memory(place, error);
    }
    if (status != OPT_OK) {
        if (writer->path != NULL) {
            checkpoint_abandon(writer);
        } else {
            writer_free(writer);
        }
        return status;
    }
    *out = writer;
    return OPT_OK;
}

enum opt_status checkpoint_write(struct checkpoint_writer *writer, size_t array,
                                 size_t tensor, uint64_t element,
                                 const struct iovec *parts, size_t count,
                                 struct opt_error *error)
{
    return array_file_write(writer->arrays[array], tensor, element, parts, count,
                            error);
}

static enum opt_status write_manifest(struct checkpoint_writer *writer,
                                      struct opt_error *error)
{
    char digest[DIGEST_BYTES], *text = NULL;
    size_t size;
    char *path = join(writer->path, manifest_name);
    if (path == NULL) {
        return no_memory(&writer->place, error);
    }
    enum opt_status status = manifest_print(&writer->manifest, &text, &size, error);
    if (status == OPT_OK) {
        status = file_store(writer->folder, manifest_name, text, size, path, error);
    }
    if (status == OPT_OK) {
        print_digest(text, size, digest);
        status = file_store(writer->folder, digest_name, digest, strlen(digest), path,
                            error);
    }
    free(text);
    free(path);
    return status;
}

static enum opt_status give_name(struct checkpoint_writer *writer,
                                 struct opt_error *error)
{
    const struct checkpoint_place *place = &writer->place;
    enum opt_status status = file_sync(writer->folder, writer->path, error);
    (void)failpoint("checkpoint_written");
    if (status == OPT_OK) {
        status = file_rename(place->folder, writer->temporary, writer->name,
                             writer->path, error);
    }
    (void)failpoint("checkpoint_renamed");
    if (status == OPT_OK) {
        status = file_sync(place->folder, place->path, error);
        if (status != OPT_OK) { /* it may have its name or not: it shall not */
            (void)file_rename(place->folder, writer->name, writer->temporary,
                              writer->path, NULL);
        }
    }
    return status;
}

enum opt_status checkpoint_finish(struct checkpoint_writer *writer, char *name,
                                  struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    for (size_t i = 0; status == OPT_OK && i <= writer->manifest.slot_count; i++) {
        status =
            array_file_finish(writer->arrays[i], &writer->manifest.files[i], error);
    }
    if (status == OPT_OK) {
        status = write_manifest(writer, error);
    }
    if (status == OPT_OK) {
        status = give_name(writer, error);
    }
    if (status != OPT_OK) {
        checkpoint_abandon(writer);
        return status;
    }
    if (name != NULL) {
        memcpy(name, writer->name, CHECKPOINT_NAME);
    }
    writer_free(writer);
    return OPT_OK;
}

/* ---------------------------------------------------------------- reading */

struct checkpoint_reader {
    int folder;
    char *path;
    struct manifest *manifest;
    struct array_file *arrays[ARRAYS];
};

void checkpoint_close(struct checkpoint_reader *reader)
{
    if (reader != NULL) {
        for (size_t i = 0; i < ARRAYS; i++) {
            array_file_close(reader->arrays[i]);
        }
        manifest_free(reader->manifest);
        if (reader->folder >= 0) {
            close(reader->folder);
        }
        free(reader->path);
        free(reader);
    }
}

/* A file of the checkpoint that is small enough to be read at once. */
static enum opt_status load(const struct checkpoint_reader *reader, const char *name,
                            size_t limit, char **out, size_t *size,
                            struct opt_error *error)
{
    char *path = join(reader->path, name);
    if (path == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read %s",
                        reader->path);
    }
    enum opt_status status =
        file_load(reader->folder, name, limit, path, out, size, error);
    if (status == OPT_NOT_FOUND) {
        status = opt_fail(error, OPT_DATA_LOSS, "%s is missing", path);
    }
    free(path);
    return status;
}

static enum opt_status read_manifest(struct checkpoint_reader *reader,
                                     struct opt_error *error)
{
    char *text = NULL, *digest = NULL, expected[DIGEST_BYTES];
    size_t size, digest_size;
    char *path = join(reader->path, manifest_name);
    enum opt_status status =
        path == NULL ? opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read %s",
                                reader->path)
                     : load(reader, manifest_name, MANIFEST_BYTES, &text, &size, error);
    if (status == OPT_OK) {
        status = load(reader, digest_name, DIGEST_BYTES, &digest, &digest_size, error);
    }
    if (status == OPT_OK) {
        print_digest(text, size, expected);
        if (digest_size != strlen(expected) ||
            memcmp(digest, expected, digest_size) != 0) {
            status = opt_fail(error, OPT_DATA_LOSS,
                              "%s is damaged, or %s beside it is: its XXH3-64 is %.16s",
                              path, digest_name, expected + strlen("XXH3_"));
        }
    }
    if (status == OPT_OK) {
        status = manifest_read(text, size, path, &reader->manifest, error);
    }
    free(text);
    free(digest);
    free(path);
    return status;
}

static enum opt_status open_arrays(struct checkpoint_reader *reader,
                                   struct opt_error *error)
{
    const struct manifest *manifest = reader->manifest;
    enum opt_status status = OPT_OK;
    for (size_t i = 0; status == OPT_OK && i <= manifest->slot_count; i++) {
        char name[ARRAY_FILE_NAME];
        array_file_name(slot_of(manifest, i), name);
        if (strcmp(name, manifest->files[i].name) != 0) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "%s/%s has \"%.100s\" where file \"%.100s\" is due",
                            reader->path, manifest_name, manifest->files[i].name, name);
        }
        status = array_file_open(reader->folder, reader->path, manifest,
                                 slot_of(manifest, i), &manifest->files[i],
                                 &reader->arrays[i], error);
    }
    return status;
}

enum opt_status checkpoint_open(const struct checkpoint_place *place, const char *name,
                                struct checkpoint_reader **out, struct opt_error *error)
{
    uint64_t number, step;
    struct checkpoint_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL || (reader->path = join(place->path, name)) == NULL) {
        free(reader);
        return no_memory(place, error);
    }
    reader->folder = -1;
    enum opt_status status = OPT_OK;
    if (!read_name(name, &number, &step)) {
        status = opt_fail(error, OPT_DATA_LOSS,
                          "%s is not a checkpoint, whose name is like %s: move it "
                          "elsewhere",
                          reader->path, "0000000007-step-1200");
    }
    if (status == OPT_OK) {
        status = file_open_folder(place->folder, name, false, reader->path,
                                  &reader->folder, error);
    }
    if (status == OPT_OK) {
        status = read_manifest(reader, error);
    }
    if (status == OPT_OK && reader->manifest->step != step) {
        status = opt_fail(error, OPT_DATA_LOSS,
                          "%s is of step %" PRIu64 ": it has another one's name",
                          reader->path, reader->manifest->step);
    }
    if (status == OPT_OK) {
        status = open_arrays(reader, error);
    }
    if (status != OPT_OK) {
        checkpoint_close(reader);
        return status;
    }
    *out = reader;
    return OPT_OK;
}

const struct manifest *checkpoint_manifest(const struct checkpoint_reader *reader)
{
    return reader->manifest;
}

enum opt_status checkpoint_read(struct checkpoint_reader *reader, size_t array,
                                const struct checkpoint_sink *sink,
                                struct opt_error *error)
{
    return array_file_read(reader->arrays[array], sink, error);
}

/* ---------------------------------------------------------------- all there are */

static void look_at(const struct checkpoint_place *place, const char *name,
                    struct checkpoint_entry *entry)
{
    struct checkpoint_reader *reader = NULL;
    snprintf(entry->name, sizeof entry->name, "%s", name);
    (void)read_name(name, &entry->number, &entry->step);
    if (checkpoint_open(place, name, &reader, &entry->error) == OPT_OK) {
        entry->record = reader->manifest->record;
        checkpoint_close(reader);
    }
}

static int newest_first(const void *a, const void *b)
{
    const struct checkpoint_entry *x = a, *y = b;
    return (x->number < y->number) - (x->number > y->number);
}

enum opt_status checkpoint_list(const struct checkpoint_place *place,
                                struct checkpoint_entry **out, size_t *count,
                                struct opt_error *error)
{
    struct file_names names;
    struct checkpoint_entry *entries = NULL;
    size_t found = 0;
    enum opt_status status = file_list(place->folder, place->path, &names, error);
    if (status == OPT_OK &&
        (entries = calloc(names.count + 1, sizeof *entries)) == NULL) {
        status = no_memory(place, error);
    }
    for (size_t i = 0; status == OPT_OK && i < names.count; i++) {
        if (!is_temporary(names.names[i])) {
            look_at(place, names.names[i], &entries[found++]);
        }
    }
    file_names_free(&names);
    if (status != OPT_OK) {
        return status;
    }
    qsort(entries, found, sizeof *entries, newest_first);
    *out = entries;
    *count = found;
    return OPT_OK;
}

/* Its name goes first, so that half of it is never taken for a checkpoint. */
static enum opt_status drop(const struct checkpoint_place *place, const char *name,
                            struct opt_error *error)
{
    static const char gone[] = "tmp-gone";
    enum opt_status status = file_remove(place->folder, gone, place->path, error);
    if (status == OPT_OK) {
        status = file_rename(place->folder, name, gone, place->path, error);
    }
    if (status == OPT_OK) {
        status = file_sync(place->folder, place->path, error);
    }
    return status == OPT_OK ? file_remove(place->folder, gone, place->path, error)
                            : status;
}

/* Whether its manifest is what was written last of it. Nothing else is looked at, for
 * this is done after each checkpoint. */
static bool has_manifest(const struct checkpoint_place *place, const char *name)
{
    struct checkpoint_reader reader = { .folder = -1, .path = join(place->path, name) };
    struct opt_error error;
    char *text = NULL, *digest = NULL, expected[DIGEST_BYTES];
    size_t size, digest_size;
    bool has =
        reader.path != NULL &&
        file_open_folder(place->folder, name, false, reader.path, &reader.folder,
                         &error) == OPT_OK &&
        load(&reader, manifest_name, MANIFEST_BYTES, &text, &size, &error) == OPT_OK &&
        load(&reader, digest_name, DIGEST_BYTES, &digest, &digest_size, &error) ==
            OPT_OK;
    if (has) {
        print_digest(text, size, expected);
        has = digest_size == strlen(expected) &&
              memcmp(digest, expected, digest_size) == 0;
    }
    free(text);
    free(digest);
    if (reader.folder >= 0) {
        close(reader.folder);
    }
    free(reader.path);
    return has;
}

static int larger_first(const void *a, const void *b)
{
    return -strcmp(*(char *const *)a, *(char *const *)b);
}

enum opt_status checkpoint_prune(const struct checkpoint_place *place, size_t keep,
                                 struct opt_error *error)
{
    struct file_names names;
    uint64_t number, step;
    size_t good = 0;
    enum opt_status status = file_list(place->folder, place->path, &names, error);
    if (names.count > 1) {
        qsort(names.names, names.count, sizeof *names.names, larger_first);
    }
    for (size_t i = 0; status == OPT_OK && i < names.count; i++) {
        if (!read_name(names.names[i], &number, &step)) {
            continue;
        }
        if (good >= keep) {
            status = drop(place, names.names[i], error);
        } else {
            good += has_manifest(place, names.names[i]);
        }
    }
    file_names_free(&names);
    return status;
}
