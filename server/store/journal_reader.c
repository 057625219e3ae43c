/* journal_reader — a journal from its oldest record to its end (journal_file.h). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "server/store/file.h"
#include "server/store/journal_parts.h"

enum { SCAN_BYTES = 256 << 10 };

struct journal_reader {
    struct journal_place place;
    struct journal_segment *segments;
    uint64_t *lost; /* records between each and the one before */
    size_t count;
    size_t at;       /* the segment in hand, */
    int file;        /* open, or -1 */
    uint64_t offset; /* and where its next record is */
    uint64_t index;  /* of that record */
    uint64_t behind; /* bytes of later segments */
    bool pending;    /* the head at the offset has been given */
    struct record_header head;
    bool ended;
    uint64_t gap;           /* index behind records that were never kept, or 0 */
    uint64_t damaged;       /* number of the segment that ends what can be read, or 0 */
    uint64_t torn, torn_at; /* bytes, and where they begin, */
    char torn_path[512], path[512]; /* in which file; the one in hand */
};

/* ---------------------------------------------------------------- segments */

static enum opt_status no_memory(const struct journal_place *place,
                                 struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read journal %s",
                    place->path);
}

/* A file that was being made when the daemon ended has no record: there is nothing to
 * it but a header, or less. */
static bool was_begun(const struct journal_reader *reader, uint64_t size)
{
    return reader->at + 1 == reader->count && size <= SEGMENT_HEADER;
}

static enum opt_status check_header(const struct journal_reader *reader,
                                    const struct segment_header *header,
                                    struct opt_error *error)
{
    const struct journal_segment *segment = &reader->segments[reader->at];
    if (header->format > JOURNAL_FORMAT) {
        return opt_fail(error, OPT_UNIMPLEMENTED,
                        "%s has format %" PRIu32 "; this optimd knows formats up to "
                        "%d: a newer one has written it",
                        reader->path, header->format, (int)JOURNAL_FORMAT);
    }
    if (header->identity != reader->place.identity) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s belongs to data directory %016" PRIx64 ", not to this one, "
                        "which is %016" PRIx64 ": put it where it came from",
                        reader->path, header->identity, reader->place.identity);
    }
    if (header->number != segment->number || header->format == 0 ||
        header->first == 0 ||
        (reader->at > 0 && header->previous_end < SEGMENT_HEADER)) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s has the header of segment %" PRIu64 ", format %" PRIu32
                        ", first record %" PRIu64 ": it is another file with this name",
                        reader->path, header->number, header->format, header->first);
    }
    return OPT_OK;
}

/* The segment at `at` goes on where the one before it ends. */
static enum opt_status check_border(const struct journal_reader *reader,
                                    const struct segment_header *header,
                                    uint64_t size_before, struct opt_error *error)
{
    const struct journal_segment *segment = &reader->segments[reader->at];
    if (reader->at == 0) {
        return OPT_OK;
    }
    if (segment[-1].number + 1 != segment->number) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "journal %s has segments %" PRIu64 " and %" PRIu64
                        ", but none between them: put the missing files back",
                        reader->place.path, segment[-1].number, segment->number);
    }
    if (header->previous_end > size_before || header->first < segment[-1].first) {
        char before[512];
        segment_path(reader->place.path, segment[-1].number, before, sizeof before);
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s has %" PRIu64 " bytes, but %s says that %" PRIu64
                        " belong to it: it has been cut short; put the whole file back",
                        before, size_before, reader->path, header->previous_end);
    }
    return OPT_OK;
}

/* Look at the header of the segment at `at`; size is that of the one before, and then
 * its own. */
static enum opt_status read_segment(struct journal_reader *reader, uint64_t *size,
                                    struct opt_error *error)
{
    struct journal_segment *segment = &reader->segments[reader->at];
    char name[SEGMENT_NAME];
    int file;
    uint8_t bytes[SEGMENT_HEADER];
    struct segment_header header;
    uint64_t size_before = *size;
    segment_name(segment->number, name);
    segment_path(reader->place.path, segment->number, reader->path,
                 sizeof reader->path);
    enum opt_status status = file_open(
        reader->place.folder, name, O_RDONLY | O_NONBLOCK, reader->path, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    status = file_size(file, reader->path, size, error);
    if (status == OPT_OK && *size >= SEGMENT_HEADER) {
        status = file_read(file, bytes, sizeof bytes, 0, reader->path, error);
    }
    close(file);
    if (status != OPT_OK) {
        return status;
    }
    if (*size < SEGMENT_HEADER || !segment_header_unpack(bytes, &header)) {
        if (was_begun(reader, *size)) {
            reader->torn = *size > 0 ? *size : 1; /* a name without content */
            snprintf(reader->torn_path, sizeof reader->torn_path, "%s", reader->path);
            reader->count--;
            return OPT_OK;
        }
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s is damaged at byte 0: its %llu bytes do not begin with the "
                        "header of a segment; put a whole copy of the file back",
                        reader->path, (unsigned long long)*size);
    }
    status = check_header(reader, &header, error);
    if (status == OPT_OK) {
        status = check_border(reader, &header, size_before, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    segment->first = header.first;
    segment->end = *size;
    reader->lost[reader->at] = header.lost;
    if (reader->at > 0) {
        segment[-1].end = header.previous_end;
    }
    reader->at++;
    return OPT_OK;
}

/* Read all their headers; those before one that is damaged, if damage is not NULL. */
static enum opt_status find_segments(struct journal_reader *reader,
                                     const struct file_names *names,
                                     struct opt_error *damage, struct opt_error *error)
{
    const struct journal_place *place = &reader->place;
    uint64_t size = 0;
    enum opt_status status = OPT_OK;
    reader->segments = calloc(names->count + 1, sizeof *reader->segments);
    reader->lost = calloc(names->count + 1, sizeof *reader->lost);
    if (reader->segments == NULL || reader->lost == NULL) {
        return no_memory(place, error);
    }
    for (size_t i = 0; i < names->count; i++) {
        if (!segment_number(names->names[i], &reader->segments[i].number)) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "%s/%s is not a segment of a journal, whose name is 20 "
                            "digits and \".journal\": move it elsewhere",
                            place->path, names->names[i]);
        }
    }
    reader->count = names->count;
    while (status == OPT_OK && reader->at < reader->count) {
        status = read_segment(reader, &size, error);
    }
    if (status == OPT_DATA_LOSS && damage != NULL) {
        *damage = *error;
        reader->damaged = reader->segments[reader->at].number;
        reader->count = reader->at;
        return OPT_OK;
    }
    return status;
}

/* Stand before the first record of a segment. */
static void go_to_segment(struct journal_reader *reader, size_t at)
{
    if (reader->file >= 0) {
        close(reader->file);
    }
    reader->file = -1;
    reader->at = at;
    reader->offset = SEGMENT_HEADER;
    reader->pending = false;
    reader->behind = 0;
    for (size_t i = at + 1; i < reader->count; i++) {
        reader->behind += reader->segments[i].end;
    }
    if (at < reader->count) {
        reader->index = reader->segments[at].first;
        segment_path(reader->place.path, reader->segments[at].number, reader->path,
                     sizeof reader->path);
    }
}

static enum opt_status open_reader(const struct journal_place *place,
                                   struct journal_reader **out,
                                   struct opt_error *damage, struct opt_error *error)
{
    struct file_names names;
    struct journal_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return no_memory(place, error);
    }
    reader->place = *place;
    reader->file = -1;
    reader->index = 1;
    enum opt_status status = file_list(place->folder, place->path, &names, error);
    if (status == OPT_OK) {
        status = find_segments(reader, &names, damage, error);
    }
    file_names_free(&names);
    if (status != OPT_OK) {
        journal_reader_free(reader);
        return status;
    }
    go_to_segment(reader, 0);
    *out = reader;
    return OPT_OK;
}

enum opt_status journal_reader_open(const struct journal_place *place,
                                    struct journal_reader **out,
                                    struct opt_error *error)
{
    return open_reader(place, out, NULL, error);
}

enum opt_status journal_reader_open_damaged(const struct journal_place *place,
                                            struct journal_reader **out,
                                            struct opt_error *damage,
                                            struct opt_error *error)
{
    damage->status = OPT_OK;
    return open_reader(place, out, damage, error);
}

void journal_reader_where(const struct journal_reader *reader, uint64_t *number,
                          uint64_t *offset)
{
    bool before = reader->at < reader->count && !(reader->ended && reader->damaged > 0);
    *number = before ? reader->segments[reader->at].number : reader->damaged;
    *offset = before ? reader->offset : 0;
}

void journal_reader_free(struct journal_reader *reader)
{
    if (reader != NULL) {
        if (reader->file >= 0) {
            close(reader->file);
        }
        free(reader->segments);
        free(reader->lost);
        free(reader);
    }
}

/* ---------------------------------------------------------------- damage */

/* Whether a record of the segment in hand, from an offset on, tells that the one with
 * that index was durable when it was written. */
static enum opt_status said_durable(struct journal_reader *reader, uint64_t from,
                                    uint64_t index, bool *said, struct opt_error *error)
{
    const struct journal_segment *segment = &reader->segments[reader->at];
    uint64_t seed = segment_seed(reader->place.identity, segment->number);
    uint8_t *bytes = malloc(SCAN_BYTES);
    enum opt_status status = OPT_OK;
    *said = false;
    if (bytes == NULL) {
        return no_memory(&reader->place, error);
    }
    from += record_padding(from);
    while (status == OPT_OK && !*said && segment->end >= from + RECORD_HEADER) {
        uint64_t left = segment->end - from;
        size_t size = left < SCAN_BYTES ? (size_t)left : SCAN_BYTES;
        status = file_read(reader->file, bytes, size, from, reader->path, error);
        for (size_t at = 0; status == OPT_OK && at + RECORD_HEADER <= size;
             at += RECORD_ALIGNMENT) {
            struct record_header header;
            *said = *said || (bytes[at] == 'o' &&
                              record_header_unpack(bytes + at, seed, &header) &&
                              header.index > index && header.durable >= index);
        }
        from += (size - RECORD_HEADER) / RECORD_ALIGNMENT * RECORD_ALIGNMENT +
                RECORD_ALIGNMENT;
    }
    free(bytes);
    return status;
}

/* The record at the offset is not whole. Behind `from` are others, if any. Whether that
 * is the torn tail, OPT_OUT_OF_RANGE, or damage. */
static enum opt_status judge(struct journal_reader *reader, uint64_t from,
                             const char *why, struct opt_error *error)
{
    struct journal_segment *segment = &reader->segments[reader->at];
    bool durable = reader->at + 1 < reader->count;
    if (!durable) {
        enum opt_status status =
            said_durable(reader, from, reader->index, &durable, error);
        if (status != OPT_OK) {
            return status;
        }
    }
    if (durable) {
        return opt_fail(
            error, OPT_DATA_LOSS,
            "%s is damaged at byte %" PRIu64 ", in record %" PRIu64
            ": %s; put a whole copy of the file back, or go on from an older "
            "state (optimd --recover=previous)",
            reader->path, reader->offset, reader->index, why);
    }
    reader->torn = segment->end - reader->offset;
    reader->torn_at = reader->offset;
    snprintf(reader->torn_path, sizeof reader->torn_path, "%s", reader->path);
    segment->end = reader->offset;
    reader->ended = true;
    return OPT_OUT_OF_RANGE;
}

/* ---------------------------------------------------------------- records */

static uint64_t bytes_of(const struct record_header *head)
{
    return RECORD_HEADER + head->size + record_padding(head->size);
}

/* Read the header at the offset, in a segment that has bytes there. */
static enum opt_status read_head(struct journal_reader *reader, struct opt_error *error)
{
    const struct journal_segment *segment = &reader->segments[reader->at];
    uint64_t left = segment->end - reader->offset;
    uint8_t bytes[RECORD_HEADER];
    if (left < RECORD_HEADER) {
        return judge(reader, segment->end, "its header is cut off", error);
    }
    enum opt_status status = file_read(reader->file, bytes, sizeof bytes,
                                       reader->offset, reader->path, error);
    if (status != OPT_OK) {
        return status;
    }
    if (!record_header_unpack(bytes,
                              segment_seed(reader->place.identity, segment->number),
                              &reader->head)) {
        return judge(reader, reader->offset + RECORD_ALIGNMENT,
                     "its header does not match its sum", error);
    }
    if (reader->head.index != reader->index || reader->head.durable >= reader->index) {
        return judge(reader, reader->offset + RECORD_ALIGNMENT,
                     "its header is that of another record", error);
    }
    if (reader->head.size > SIZE_MAX / 2 || bytes_of(&reader->head) > left) {
        return judge(reader, segment->end, "its bytes are cut off", error);
    }
    return OPT_OK;
}

static enum opt_status open_segment(struct journal_reader *reader,
                                    struct opt_error *error)
{
    char name[SEGMENT_NAME];
    if (reader->file >= 0) {
        return OPT_OK;
    }
    segment_name(reader->segments[reader->at].number, name);
    return file_open(reader->place.folder, name, O_RDONLY, reader->path, &reader->file,
                     error);
}

/* Past a record whose head was given. */
static void pass(struct journal_reader *reader)
{
    if (reader->pending) {
        reader->offset += bytes_of(&reader->head);
        reader->index++;
        reader->pending = false;
    }
}

/* Into the segment that follows, if the one in hand is read to its end. */
static enum opt_status go_on(struct journal_reader *reader, struct opt_error *error)
{
    while (!reader->ended &&
           (reader->count == 0 || reader->offset == reader->segments[reader->at].end)) {
        uint64_t index = reader->index;
        if (reader->at + 1 >= reader->count) {
            reader->ended = true;
            break;
        }
        const struct journal_segment *next = &reader->segments[reader->at + 1];
        if (next->first != index) {
            char path[512];
            segment_path(reader->place.path, next->number, path, sizeof path);
            bool stated = next->first == index + reader->lost[reader->at + 1];
            reader->gap = stated ? next->first : 0;
            return opt_fail(error, OPT_DATA_LOSS,
                            "%s begins with record %" PRIu64 ", where %" PRIu64
                            " is due: %s",
                            path, next->first, index,
                            stated ? "those between could not be written when the disk "
                                     "failed, and only a checkpoint could have them"
                                   : "some are missing; put whole copies of the files "
                                     "before it back");
        }
        go_to_segment(reader, reader->at + 1);
    }
    return OPT_OK;
}

enum opt_status journal_reader_next(struct journal_reader *reader,
                                    struct journal_head *head, struct opt_error *error)
{
    pass(reader);
    reader->gap = 0;
    enum opt_status status = go_on(reader, error);
    if (status == OPT_OK && reader->ended) {
        return OPT_OUT_OF_RANGE;
    }
    if (status == OPT_OK) {
        status = open_segment(reader, error);
    }
    if (status == OPT_OK) {
        status = read_head(reader, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    reader->pending = true;
    *head = (struct journal_head){
        .index = reader->index,
        .size = (size_t)reader->head.size,
        .segment = reader->path,
        .offset = reader->offset,
        .bytes_behind = reader->behind + reader->segments[reader->at].end -
                        reader->offset - bytes_of(&reader->head),
    };
    return OPT_OK;
}

enum opt_status journal_reader_body(struct journal_reader *reader, void *into,
                                    struct opt_error *error)
{
    const struct journal_segment *segment = &reader->segments[reader->at];
    size_t size = (size_t)reader->head.size;
    uint64_t behind = reader->offset + bytes_of(&reader->head);
    uint8_t padding[RECORD_ALIGNMENT] = { 0 };
    static const uint8_t zeros[RECORD_ALIGNMENT];
    enum opt_status status = file_read(
        reader->file, into, size, reader->offset + RECORD_HEADER, reader->path, error);
    if (status == OPT_OK) {
        status = file_read(reader->file, padding, record_padding(size),
                           reader->offset + RECORD_HEADER + size, reader->path, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    uint64_t seed = segment_seed(reader->place.identity, segment->number);
    if (XXH3_64bits_withSeed(into, size, seed) != reader->head.sum ||
        memcmp(padding, zeros, sizeof zeros) != 0) {
        reader->pending = false;
        return judge(reader, behind, "its bytes do not match their sum", error);
    }
    pass(reader);
    return OPT_OK;
}

enum opt_status journal_reader_seek(struct journal_reader *reader, uint64_t index,
                                    struct opt_error *error)
{
    struct journal_head head;
    enum opt_status status = OPT_OK;
    if (index < journal_reader_first(reader) || (reader->count == 0 && index > 1)) {
        uint64_t first = journal_reader_first(reader);
        return opt_fail(
            error, OPT_DATA_LOSS,
            "journal %s %s %" PRIu64 "; record %" PRIu64
            " is needed: put the missing files back, or go on from an older "
            "state (optimd --recover=previous)",
            reader->place.path,
            reader->count == 0 ? "is empty; it should go on at" : "begins with record",
            reader->count == 0 ? index : first, index);
    }
    size_t at = 0;
    while (at + 1 < reader->count && reader->segments[at + 1].first <= index) {
        at++;
    }
    reader->ended = false;
    go_to_segment(reader, at);
    while (status == OPT_OK && reader->index < index) {
        status = journal_reader_next(reader, &head, error);
        pass(reader);
    }
    return status == OPT_OUT_OF_RANGE ? OPT_OK : status;
}

/* ---------------------------------------------------------------- the end */

uint64_t journal_reader_torn(const struct journal_reader *reader, const char **segment,
                             uint64_t *offset)
{
    *segment = reader->torn_path;
    *offset = reader->torn_at;
    return reader->torn;
}

bool journal_reader_gap(const struct journal_reader *reader, uint64_t *next)
{
    *next = reader->gap;
    return reader->gap > 0;
}

bool journal_reader_is_empty(const struct journal_reader *reader)
{
    return reader->count == 0;
}

uint64_t journal_reader_bytes(const struct journal_reader *reader)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < reader->count; i++) {
        bytes += reader->segments[i].end;
    }
    return bytes;
}

uint64_t journal_reader_first(const struct journal_reader *reader)
{
    return reader->count > 0 ? reader->segments[0].first : reader->index;
}

const struct journal_place *journal_reader_place(const struct journal_reader *reader)
{
    return &reader->place;
}

const struct journal_segment *
journal_reader_segments(const struct journal_reader *reader, size_t *count)
{
    *count = reader->count;
    return reader->segments;
}

uint64_t journal_reader_index(const struct journal_reader *reader)
{
    return reader->index;
}
