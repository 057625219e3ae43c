/* inspection — see inspection.h. */
#include "server/store/inspection.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/wire.h"
#include "server/store/checkpoint.h"
#include "server/store/file.h"
#include "server/store/journal_file.h"
#include "server/store/journal_parts.h"
#include "server/store/record.h"

enum { PATH_BYTES = 1024, TEXT_BYTES = 128, COPY_BYTES = 1 << 20 };

/* What is wrong with what was written is a finding; that it cannot be read is not. */
static bool is_damage(enum opt_status status)
{
    return status == OPT_DATA_LOSS || status == OPT_UNIMPLEMENTED;
}

static void tell(const struct inspector *inspector, const struct finding *finding)
{
    inspector->found(inspector->context, finding);
}

/* ---------------------------------------------------------------- checkpoints */

static enum opt_status read_values(const struct checkpoint_place *place,
                                   const char *name, struct opt_error *error)
{
    struct checkpoint_reader *reader;
    enum opt_status status = checkpoint_open(place, name, &reader, error);
    if (status != OPT_OK) {
        return status;
    }
    size_t slots = checkpoint_manifest(reader)->slot_count;
    for (size_t i = 0; i <= slots && status == OPT_OK; i++) {
        status = checkpoint_read(reader, i, NULL, error);
    }
    checkpoint_close(reader);
    return status;
}

static enum opt_status look_at_checkpoint(const struct checkpoint_place *place,
                                          uint64_t model,
                                          const struct checkpoint_entry *entry,
                                          const struct inspector *inspector,
                                          struct opt_error *error)
{
    char path[PATH_BYTES], text[TEXT_BYTES];
    snprintf(path, sizeof path, "%s/%s", place->path, entry->name);
    enum opt_status status = read_values(place, entry->name, error);
    if (status != OPT_OK && !is_damage(status)) {
        return status;
    }
    snprintf(text, sizeof text, "checkpoint of step %" PRIu64 ", up to record %" PRIu64,
             entry->step, entry->record);
    tell(inspector,
         &(struct finding){
             .path = path,
             .status = status,
             .text = status == OPT_OK ? text : error->text,
             .remedy = status == OPT_DATA_LOSS ? REMEDY_CHECKPOINT : REMEDY_NONE,
             .model = model,
             .name = entry->name,
         });
    return OPT_OK;
}

static enum opt_status look_at_model(const struct data_dir *dir, uint64_t model,
                                     const struct inspector *inspector,
                                     struct opt_error *error)
{
    struct checkpoint_entry *entries = NULL;
    size_t count = 0;
    int folder;
    char *path;
    enum opt_status status = data_dir_model(dir, model, false, &folder, &path, error);
    if (status != OPT_OK) {
        return status;
    }
    const struct checkpoint_place place = { .folder = folder, .path = path };
    status = checkpoint_list(&place, &entries, &count, error);
    for (size_t i = 0; i < count && status == OPT_OK; i++) {
        status = look_at_checkpoint(&place, model, &entries[i], inspector, error);
    }
    free(entries);
    close(folder);
    free(path);
    return status;
}

static enum opt_status look_at_models(const struct data_dir *dir,
                                      const struct inspector *inspector,
                                      struct opt_error *error)
{
    uint64_t *models = NULL;
    size_t count = 0;
    enum opt_status status = data_dir_models(dir, &models, &count, error);
    if (is_damage(status)) {
        tell(inspector, &(struct finding){
                            .path = dir->path, .status = status, .text = error->text });
        return OPT_OK;
    }
    for (size_t i = 0; i < count && status == OPT_OK; i++) {
        status = look_at_model(dir, models[i], inspector, error);
    }
    free(models);
    return status;
}

/* ---------------------------------------------------------------- the journal */

/* How far the journal has been read. */
struct reading {
    struct journal_reader *reader;
    uint8_t *bytes; /* of the record in hand, so many at most */
    size_t capacity;
    uint64_t records, size;
};

static enum opt_status read_entries(const uint8_t *bytes, size_t size,
                                    struct opt_error *error)
{
    struct opt_arena arena;
    struct record record;
    opt_arena_init(&arena, record_arena(record_message_bytes(bytes, size)));
    enum opt_status status = record_read(bytes, size, &arena, &record, error);
    opt_arena_fini(&arena);
    return status;
}

/* The next record, whole and with a meaning. OPT_OUT_OF_RANGE: there is none. */
static enum opt_status read_record(struct reading *reading, struct opt_error *error)
{
    struct journal_head head;
    enum opt_status status = journal_reader_next(reading->reader, &head, error);
    if (status != OPT_OK) {
        return status;
    }
    if (head.size > reading->capacity) {
        size_t capacity = (head.size + 63) / 64 * 64;
        free(reading->bytes);
        reading->bytes = aligned_alloc(64, capacity);
        reading->capacity = reading->bytes != NULL ? capacity : 0;
    }
    if (head.size > reading->capacity) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the %zu bytes of record %" PRIu64, head.size,
                        head.index);
    }
    status = journal_reader_body(reading->reader, reading->bytes, error);
    struct opt_error why;
    if (status == OPT_OK && read_entries(reading->bytes, head.size, &why) != OPT_OK) {
        status = opt_fail(error, why.status,
                          "record %" PRIu64 ", at byte %" PRIu64 " of %.300s: %s",
                          head.index, head.offset, head.segment, why.text);
    }
    reading->records += status == OPT_OK;
    reading->size += status == OPT_OK ? head.size : 0;
    return status;
}

static void tell_torn(const struct reading *reading, const struct inspector *inspector)
{
    char text[TEXT_BYTES];
    const char *segment;
    uint64_t offset, bytes = journal_reader_torn(reading->reader, &segment, &offset);
    if (bytes > 0) {
        snprintf(text, sizeof text,
                 "its last %" PRIu64 " bytes, from byte %" PRIu64
                 " on, are half a record, which was never said to be durable",
                 bytes, offset);
        tell(inspector, &(struct finding){
                            .path = segment, .text = text, .remedy = REMEDY_START });
    }
}

static void tell_damage(const struct journal_place *place,
                        const struct reading *reading, const struct opt_error *damage,
                        const struct inspector *inspector)
{
    char path[PATH_BYTES], name[SEGMENT_NAME];
    uint64_t number, offset;
    journal_reader_where(reading->reader, &number, &offset);
    segment_name(number, name);
    segment_path(place->path, number, path, sizeof path);
    tell(inspector,
         &(struct finding){ .path = path,
                            .status = damage->status,
                            .text = damage->text,
                            .remedy = damage->status == OPT_DATA_LOSS && number > 0
                                          ? REMEDY_JOURNAL
                                          : REMEDY_NONE,
                            .name = name,
                            .offset = offset });
}

static enum opt_status look_at_journal(const struct data_dir *dir,
                                       const struct inspector *inspector,
                                       struct opt_error *error)
{
    char path[PATH_BYTES], text[TEXT_BYTES];
    struct opt_error damage;
    struct reading reading = { .reader = NULL };
    snprintf(path, sizeof path, "%s/journal", dir->path);
    const struct journal_place place = { .folder = dir->journal,
                                         .path = path,
                                         .identity = dir->identity };
    enum opt_status status =
        journal_reader_open_damaged(&place, &reading.reader, &damage, error);
    if (is_damage(status)) {
        tell(inspector,
             &(struct finding){ .path = path, .status = status, .text = error->text });
        return OPT_OK;
    }
    while (status == OPT_OK) {
        status = read_record(&reading, error);
    }
    if (is_damage(status)) {
        damage = *error;
    }
    if (is_damage(status) || status == OPT_OUT_OF_RANGE) {
        uint64_t first = journal_reader_first(reading.reader);
        snprintf(text, sizeof text,
                 "journal: %" PRIu64 " records from %" PRIu64 " on, %" PRIu64 " bytes",
                 reading.records, first, reading.size);
        tell(inspector, &(struct finding){ .path = path, .text = text });
        tell_torn(&reading, inspector);
        if (damage.status != OPT_OK) {
            tell_damage(&place, &reading, &damage, inspector);
        }
        status = OPT_OK;
    }
    journal_reader_free(reading.reader);
    free(reading.bytes);
    return status;
}

enum opt_status inspection_run(const struct data_dir *dir,
                               const struct inspector *inspector,
                               struct opt_error *error)
{
    enum opt_status status = look_at_models(dir, inspector, error);
    return status == OPT_OK ? look_at_journal(dir, inspector, error) : status;
}

/* ---------------------------------------------------------------- repair */

static enum opt_status copy_file(int from_folder, const char *from, int to_folder,
                                 const char *to, const char *path,
                                 struct opt_error *error)
{
    int source = -1, target = -1;
    uint64_t size = 0;
    uint8_t *bytes = malloc(COPY_BYTES);
    enum opt_status status =
        bytes == NULL
            ? opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to copy %s", path)
            : file_open(from_folder, from, O_RDONLY, path, &source, error);
    if (status == OPT_OK) {
        status = file_size(source, path, &size, error);
    }
    if (status == OPT_OK) {
        status =
            file_open(to_folder, to, O_WRONLY | O_CREAT | O_EXCL, to, &target, error);
    }
    for (uint64_t at = 0, n; at < size && status == OPT_OK; at += n) {
        n = size - at < COPY_BYTES ? size - at : COPY_BYTES;
        status = file_read(source, bytes, (size_t)n, at, path, error);
        if (status == OPT_OK) {
            const struct iovec part = { bytes, (size_t)n };
            status = file_write(target, &part, 1, at, to, error);
        }
    }
    if (status == OPT_OK) {
        status = file_sync(target, to, error);
    }
    if (source >= 0) {
        close(source);
    }
    if (target >= 0) {
        close(target);
    }
    free(bytes);
    return status;
}

static enum opt_status move(int from_folder, const char *from, int to_folder,
                            const char *to, const char *path, struct opt_error *error)
{
    if (file_calls->renameat(from_folder, from, to_folder, to) != 0) {
        return file_fail(error, "set aside", path);
    }
    return OPT_OK;
}

/* The checkpoint gets the name "IDENTITY-NAME" there. */
static enum opt_status repair_checkpoint(const struct data_dir *dir,
                                         const struct finding *finding, int aside,
                                         struct opt_error *error)
{
    char name[PATH_BYTES];
    int folder;
    char *path;
    enum opt_status status =
        data_dir_model(dir, finding->model, false, &folder, &path, error);
    if (status != OPT_OK) {
        return status;
    }
    snprintf(name, sizeof name, "%016" PRIx64 "-%s", finding->model, finding->name);
    status = move(folder, finding->name, aside, name, finding->path, error);
    if (status == OPT_OK) {
        status = file_sync(folder, path, error);
    }
    close(folder);
    free(path);
    return status;
}

/* What is before the damage stays in the segment, if there is anything. */
static enum opt_status cut_segment(const struct data_dir *dir,
                                   const struct finding *finding, int aside,
                                   struct opt_error *error)
{
    int file;
    if (finding->offset <= SEGMENT_HEADER) {
        return move(dir->journal, finding->name, aside, finding->name, finding->path,
                    error);
    }
    enum opt_status status = copy_file(dir->journal, finding->name, aside,
                                       finding->name, finding->path, error);
    if (status == OPT_OK) {
        status = file_open(dir->journal, finding->name, O_WRONLY, finding->path, &file,
                           error);
    }
    if (status == OPT_OK) {
        status = file_truncate(file, finding->offset, finding->path, error);
        if (status == OPT_OK) {
            status = file_sync(file, finding->path, error);
        }
        close(file);
    }
    return status;
}

static enum opt_status repair_journal(const struct data_dir *dir,
                                      const struct finding *finding, int aside,
                                      struct opt_error *error)
{
    struct file_names names;
    enum opt_status status = file_list(dir->journal, finding->path, &names, error);
    /* From the last on: what is left is a journal at any time. */
    for (size_t i = names.count; i-- > 0 && status == OPT_OK;) {
        if (strcmp(names.names[i], finding->name) > 0) {
            status = move(dir->journal, names.names[i], aside, names.names[i],
                          names.names[i], error);
        }
    }
    file_names_free(&names);
    if (status == OPT_OK) {
        status = cut_segment(dir, finding, aside, error);
    }
    return status == OPT_OK ? file_sync(dir->journal, finding->path, error) : status;
}

enum opt_status inspection_repair(const struct data_dir *dir,
                                  const struct finding *finding, const char *aside,
                                  struct opt_error *error)
{
    int folder;
    if (finding->remedy != REMEDY_CHECKPOINT && finding->remedy != REMEDY_JOURNAL) {
        return OPT_OK;
    }
    enum opt_status status =
        file_open_folder(dir->folder, aside, true, aside, &folder, error);
    if (status != OPT_OK) {
        return status;
    }
    status = finding->remedy == REMEDY_CHECKPOINT
                 ? repair_checkpoint(dir, finding, folder, error)
                 : repair_journal(dir, finding, folder, error);
    if (status == OPT_OK) {
        status = file_sync(folder, aside, error);
    }
    if (status == OPT_OK) {
        status = file_sync(dir->folder, dir->path, error);
    }
    close(folder);
    return status;
}
