/* journal_file — a journal that is written (journal_file.h). */
#include "server/store/journal_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "server/store/failpoint.h"
#include "server/store/file.h"
#include "server/store/journal_parts.h"

struct journal {
    struct journal_place place;
    uint64_t segment_bytes;
    struct journal_segment *segments; /* those that there are; the last is written */
    size_t count, capacity;
    uint64_t number;        /* of the next segment */
    int file;               /* of the last one, or -1: the next record begins another */
    bool full;              /* nothing more is written to it */
    uint64_t durable_end;   /* bytes of it that are durable */
    uint64_t next, durable; /* records */
    uint64_t expected;      /* the one after the last that the segments have */
    XXH3_state_t *sum;
    struct iovec *parts; /* room for those of a record */
    size_t parts_capacity;
    char path[512]; /* of the last segment */
};

static enum opt_status no_memory(const struct journal *journal, struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to write journal %s",
                    journal->place.path);
}

static struct journal_segment *last_of(const struct journal *journal)
{
    return &journal->segments[journal->count - 1];
}

/* ---------------------------------------------------------------- opening */

/* The last segment is made durable, for a daemon that was killed may have left it to
 * the kernel, and what is torn is cut. One without a record goes. */
static enum opt_status settle_last(struct journal *journal, uint64_t torn,
                                   struct opt_error *error)
{
    struct journal_segment *segment = last_of(journal);
    char name[SEGMENT_NAME];
    int file;
    segment_name(segment->number, name);
    segment_path(journal->place.path, segment->number, journal->path,
                 sizeof journal->path);
    if (segment->end == SEGMENT_HEADER) {
        journal->number = segment->number;
        journal->expected = segment->first;
        journal->count--;
        return file_remove(journal->place.folder, name, journal->path, error);
    }
    enum opt_status status =
        file_open(journal->place.folder, name, O_RDWR, journal->path, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    if (torn > 0) {
        status = file_truncate(file, segment->end, journal->path, error);
    }
    if (status == OPT_OK) {
        status = file_sync(file, journal->path, error);
    }
    close(file);
    return status;
}

static enum opt_status settle(struct journal *journal,
                              const struct journal_reader *reader,
                              struct opt_error *error)
{
    const char *path;
    uint64_t at;
    char name[SEGMENT_NAME];
    enum opt_status status = OPT_OK;
    uint64_t torn = journal_reader_torn(reader, &path, &at);
    if (torn > 0 && at == 0) { /* a header, or less: it is not among the segments */
        segment_name(journal->number, name);
        status = file_remove(journal->place.folder, name, path, error);
    }
    if (status == OPT_OK && journal->count > 0) {
        status = settle_last(journal, at > 0 ? torn : 0, error);
    }
    return status == OPT_OK
               ? file_sync(journal->place.folder, journal->place.path, error)
               : status;
}

enum opt_status journal_open(struct journal_reader *reader, uint64_t next,
                             uint64_t segment_bytes, struct journal **out,
                             struct opt_error *error)
{
    size_t count;
    const struct journal_segment *segments = journal_reader_segments(reader, &count);
    struct journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to open a journal");
    }
    *journal = (struct journal){
        .place = *journal_reader_place(reader),
        .segment_bytes = segment_bytes,
        .segments = calloc(count + 1, sizeof *journal->segments),
        .count = count,
        .capacity = count + 1,
        .number = count > 0 ? segments[count - 1].number + 1 : 1,
        .file = -1,
        .sum = XXH3_createState(),
        .expected = journal_reader_index(reader),
        .next = next,
        .durable = next - 1,
    };
    enum opt_status status = OPT_OK;
    if (journal->segments == NULL || journal->sum == NULL) {
        status = no_memory(journal, error);
    } else {
        memcpy(journal->segments, segments, count * sizeof *segments);
        status = settle(journal, reader, error);
    }
    if (status != OPT_OK) {
        journal_free(journal);
        return status;
    }
    *out = journal;
    return OPT_OK;
}

void journal_free(struct journal *journal)
{
    if (journal != NULL) {
        if (journal->file >= 0) {
            close(journal->file);
        }
        XXH3_freeState(journal->sum);
        free(journal->segments);
        free(journal->parts);
        free(journal);
    }
}

/* ---------------------------------------------------------------- segments */

static void close_segment(struct journal *journal)
{
    close(journal->file);
    journal->file = -1;
    journal->full = false;
}

static enum opt_status write_header(struct journal *journal, int file,
                                    struct opt_error *error)
{
    uint8_t bytes[SEGMENT_HEADER];
    const struct segment_header header = {
        .format = JOURNAL_FORMAT,
        .identity = journal->place.identity,
        .number = journal->number,
        .first = journal->next,
        .previous_end = journal->count > 0 ? last_of(journal)->end : 0,
        .lost = journal->next - journal->expected,
    };
    segment_header_pack(&header, bytes);
    const struct iovec part = { .iov_base = bytes, .iov_len = sizeof bytes };
    enum opt_status status = file_write(file, &part, 1, 0, journal->path, error);
    if (status == OPT_OK) {
        status = file_sync(file, journal->path, error);
    }
    if (status == OPT_OK) {
        status = file_sync(journal->place.folder, journal->place.path, error);
    }
    return status;
}

/* Begin the next segment, header and name durable. */
static enum opt_status begin_segment(struct journal *journal, struct opt_error *error)
{
    char name[SEGMENT_NAME];
    int file;
    if (journal->count == journal->capacity) {
        size_t more = 2 * journal->capacity + 16;
        struct journal_segment *grown =
            realloc(journal->segments, more * sizeof *grown);
        if (grown == NULL) {
            return no_memory(journal, error);
        }
        journal->segments = grown;
        journal->capacity = more;
    }
    segment_name(journal->number, name);
    segment_path(journal->place.path, journal->number, journal->path,
                 sizeof journal->path);
    /* One that could not be begun may have been left. */
    enum opt_status status =
        file_remove(journal->place.folder, name, journal->path, error);
    if (status == OPT_OK) {
        status = file_open(journal->place.folder, name, O_WRONLY | O_CREAT | O_EXCL,
                           journal->path, &file, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    status = write_header(journal, file, error);
    if (status != OPT_OK) {
        close(file);
        (void)file_remove(journal->place.folder, name, journal->path, NULL);
        return status;
    }
    journal->segments[journal->count++] = (struct journal_segment){
        .number = journal->number,
        .first = journal->next,
        .end = SEGMENT_HEADER,
    };
    journal->number++;
    journal->file = file;
    journal->durable_end = SEGMENT_HEADER;
    journal->expected = journal->next;
    return OPT_OK;
}

/* Have a segment in which the next record can be written. */
static enum opt_status have_segment(struct journal *journal, struct opt_error *error)
{
    if (journal->file >= 0 && journal_begins(journal)) {
        enum opt_status status = journal_sync(journal, error);
        if (status != OPT_OK) {
            return status;
        }
        close_segment(journal);
    }
    return journal->file >= 0 ? OPT_OK : begin_segment(journal, error);
}

/* ---------------------------------------------------------------- records */

static enum opt_status reserve_parts(struct journal *journal, size_t count,
                                     struct opt_error *error)
{
    if (count > journal->parts_capacity) {
        struct iovec *grown = realloc(journal->parts, count * sizeof *grown);
        if (grown == NULL) {
            return no_memory(journal, error);
        }
        journal->parts = grown;
        journal->parts_capacity = count;
    }
    return OPT_OK;
}

/* The header of the record of these parts, in the segment that is written. */
static void make_header(const struct journal *journal, const struct iovec *parts,
                        size_t count, struct record_header *header)
{
    uint64_t seed = segment_seed(journal->place.identity, last_of(journal)->number);
    *header =
        (struct record_header){ .index = journal->next, .durable = journal->durable };
    XXH3_64bits_reset_withSeed(journal->sum, seed);
    for (size_t i = 0; i < count; i++) {
        header->size += parts[i].iov_len;
        if (parts[i].iov_len > 0) {
            XXH3_64bits_update(journal->sum, parts[i].iov_base, parts[i].iov_len);
        }
    }
    header->sum = XXH3_64bits_digest(journal->sum);
}

enum opt_status journal_append(struct journal *journal, const struct iovec *parts,
                               size_t count, uint64_t *index, struct opt_error *error)
{
    static uint8_t zeros[RECORD_ALIGNMENT];
    uint8_t bytes[RECORD_HEADER];
    struct record_header header;
    enum opt_status status = reserve_parts(journal, count + 2, error);
    if (status == OPT_OK) {
        status = have_segment(journal, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    make_header(journal, parts, count, &header);
    record_header_pack(&header,
                       segment_seed(journal->place.identity, last_of(journal)->number),
                       bytes);
    journal->parts[0] = (struct iovec){ .iov_base = bytes, .iov_len = sizeof bytes };
    memcpy(journal->parts + 1, parts, count * sizeof *parts);
    journal->parts[count + 1] =
        (struct iovec){ .iov_base = zeros, .iov_len = record_padding(header.size) };
    struct journal_segment *segment = last_of(journal);
    status = file_write(journal->file, journal->parts, count + 2, segment->end,
                        journal->path, error);
    if (status != OPT_OK) {
        /* The next segment says how much of this one counts; what is cut is only to
         * give the space back. */
        journal->full = true;
        (void)file_truncate(journal->file, segment->end, journal->path, NULL);
        return status;
    }
    (void)failpoint("journal_appended");
    segment->end += RECORD_HEADER + header.size + record_padding(header.size);
    journal->expected = header.index + 1;
    journal->next = header.index + 1;
    *index = header.index;
    return OPT_OK;
}

bool journal_begins(const struct journal *journal)
{
    return journal->file < 0 || journal->full ||
           (last_of(journal)->end >= journal->segment_bytes &&
            last_of(journal)->end > SEGMENT_HEADER);
}

const char *journal_path(const struct journal *journal)
{
    return journal->path;
}

bool journal_point(const struct journal *journal, struct journal_point *out)
{
    if (journal->file < 0 || last_of(journal)->end == journal->durable_end) {
        return false;
    }
    *out = (struct journal_point){ .file = journal->file,
                                   .end = last_of(journal)->end,
                                   .next = journal->expected };
    return true;
}

enum opt_status journal_point_sync(const struct journal_point *point, const char *path,
                                   struct opt_error *error)
{
    return file_sync_data(point->file, path, error);
}

void journal_synced(struct journal *journal, const struct journal_point *point)
{
    (void)failpoint("journal_synced");
    journal->durable_end = point->end;
    journal->durable = point->next - 1;
}

void journal_not_synced(struct journal *journal)
{
    last_of(journal)->end = journal->durable_end;
    journal->expected = journal->durable + 1;
    journal->next = journal->durable + 1;
    close_segment(journal);
}

enum opt_status journal_sync(struct journal *journal, struct opt_error *error)
{
    struct journal_point point;
    if (!journal_point(journal, &point)) {
        return OPT_OK;
    }
    enum opt_status status = journal_point_sync(&point, journal->path, error);
    if (status == OPT_OK) {
        journal_synced(journal, &point);
    } else {
        journal_not_synced(journal);
    }
    return status;
}

void journal_skip(struct journal *journal, uint64_t next)
{
    if (next > journal->next) {
        journal->next = next;
        journal->full = journal->file >= 0;
    }
}

uint64_t journal_next(const struct journal *journal)
{
    return journal->next;
}

uint64_t journal_durable(const struct journal *journal)
{
    return journal->durable;
}

uint64_t journal_bytes(const struct journal *journal)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < journal->count; i++) {
        bytes += journal->segments[i].end;
    }
    return bytes;
}

size_t journal_segments(const struct journal *journal)
{
    return journal->count;
}

enum opt_status journal_drop(struct journal *journal, uint64_t before,
                             struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    while (status == OPT_OK && journal->count > 1 &&
           journal->segments[1].first <= before) {
        char name[SEGMENT_NAME];
        segment_name(journal->segments[0].number, name);
        status = file_remove(journal->place.folder, name, journal->place.path, error);
        (void)failpoint("journal_dropped");
        if (status == OPT_OK) {
            journal->count--;
            memmove(journal->segments, journal->segments + 1,
                    journal->count * sizeof *journal->segments);
            /* One after the other, so that never one in the middle is missing. */
            status = file_sync(journal->place.folder, journal->place.path, error);
        }
    }
    return status;
}
