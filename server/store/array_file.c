/* array_file — see array_file.h. */
#include "server/store/array_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/safetensors.h"
#include "server/store/file.h"

enum { BUFFER = 1 << 20, AHEAD = 8 << 20 };

struct range {
    uint64_t begin, end;
};

struct array_file {
    const struct manifest *manifest;
    const char *slot;
    int file;
    char *path;
    uint64_t start;    /* of the values, */
    uint64_t end;      /* and of the file */
    uint64_t expected; /* digest, of one that is read */
    uint64_t *places;  /* per tensor: its first byte */
    XXH3_state_t *sum;
    uint64_t summed;      /* bytes from the start that are in the sum, */
    uint64_t sent;        /* and those that are on their way to the disk */
    struct range *ranges; /* that have been written, ascending, none next to another */
    size_t range_count, range_capacity;
    uint8_t *buffer;
};

void array_file_name(const char *slot, char out[ARRAY_FILE_NAME])
{
    if (slot == NULL) {
        snprintf(out, ARRAY_FILE_NAME, "weights.safetensors");
    } else {
        snprintf(out, ARRAY_FILE_NAME, "slot.%s.safetensors", slot);
    }
}

void array_file_close(struct array_file *file)
{
    if (file != NULL) {
        if (file->file >= 0) {
            close(file->file);
        }
        XXH3_freeState(file->sum);
        free(file->places);
        free(file->ranges);
        free(file->buffer);
        free(file->path);
        free(file);
    }
}

static enum opt_status no_memory(const char *path, struct opt_error *error)
{
    return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for checkpoint %s", path);
}

static struct array_file *
array_file_new(const char *path, const struct manifest *manifest, const char *slot)
{
    char name[ARRAY_FILE_NAME];
    array_file_name(slot, name);
    size_t size = strlen(path) + strlen(name) + 2;
    struct array_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return NULL;
    }
    *file = (struct array_file){
        .manifest = manifest,
        .slot = slot,
        .file = -1,
        .path = malloc(size),
        .places = calloc(manifest->tensor_count + 1, sizeof *file->places),
        .sum = XXH3_createState(),
        .buffer = aligned_alloc(64, BUFFER),
    };
    if (file->path == NULL || file->places == NULL || file->sum == NULL ||
        file->buffer == NULL) {
        array_file_close(file);
        return NULL;
    }
    snprintf(file->path, size, "%s/%s", path, name);
    XXH3_64bits_reset(file->sum);
    return file;
}

/* Where everything is, once the start of the values is known. */
static void lay_out(struct array_file *file, uint64_t start)
{
    uint64_t at = start;
    for (size_t i = 0; i < file->manifest->tensor_count; i++) {
        file->places[i] = at;
        at += file->manifest->tensors[i].entry.elements * sizeof(float);
    }
    file->start = start;
    file->end = at;
}

/* ---------------------------------------------------------------- the header */

/* Bytes of the names of all entries. */
static size_t name_bytes(const struct array_file *file)
{
    size_t slot = file->slot != NULL ? 1 + strlen(file->slot) : 0, bytes = 0;
    for (size_t i = 0; i < file->manifest->tensor_count; i++) {
        bytes += strlen(file->manifest->tensors[i].entry.name) + slot + 1;
    }
    return bytes;
}

static void fill_entries(const struct array_file *file,
                         struct opt_safetensors_entry *entries, char *names,
                         size_t size)
{
    for (size_t i = 0; i < file->manifest->tensor_count; i++) {
        const struct opt_tensor_entry *tensor = &file->manifest->tensors[i].entry;
        int used =
            snprintf(names, size, "%s%s%s", tensor->name, file->slot != NULL ? "." : "",
                     file->slot != NULL ? file->slot : "");
        entries[i] = (struct opt_safetensors_entry){ .name = names,
                                                     .type = OPT_SAFETENSORS_F32,
                                                     .rank = tensor->rank,
                                                     .count = tensor->elements };
        for (size_t k = 0; k < tensor->rank; k++) {
            entries[i].shape[k] = tensor->shape[k];
        }
        names += used + 1;
        size -= (size_t)used + 1;
    }
}

/* The entries that the file must have; to be freed, with their names. */
static struct opt_safetensors_entry *make_entries(const struct array_file *file)
{
    size_t count = file->manifest->tensor_count, names = name_bytes(file);
    struct opt_safetensors_entry *entries = malloc(count * sizeof *entries + names);
    if (entries != NULL) {
        fill_entries(file, entries, (char *)(entries + count), names);
    }
    return entries;
}

static enum opt_status write_start(struct array_file *file, struct opt_error *error)
{
    static const struct opt_safetensors_pair metadata = { "format", "optimd" };
    void *header = NULL;
    size_t size = 0;
    struct opt_safetensors_entry *entries = make_entries(file);
    if (entries == NULL) {
        return no_memory(file->path, error);
    }
    enum opt_status status = opt_safetensors_header(
        entries, file->manifest->tensor_count, &metadata, 1, &header, &size, error);
    free(entries);
    if (status == OPT_OK && size - OPT_SAFETENSORS_PREFIX > OPT_SAFETENSORS_HEADER) {
        status = opt_fail(error, OPT_INVALID_ARGUMENT,
                          "%s would have a header of %zu bytes, but the format allows "
                          "%d: the model has too many tensors for their long names",
                          file->path, size, (int)OPT_SAFETENSORS_HEADER);
    }
    if (status == OPT_OK) {
        const struct iovec part = { .iov_base = header, .iov_len = size };
        status = file_write(file->file, &part, 1, 0, file->path, error);
        XXH3_64bits_update(file->sum, header, size);
        file->summed = size;
        lay_out(file, size);
    }
    free(header);
    return status;
}

static enum opt_status compare_entries(const struct array_file *file,
                                       const struct opt_safetensors *found,
                                       const struct opt_safetensors_entry *expected,
                                       struct opt_error *error)
{
    size_t count = file->manifest->tensor_count;
    if (opt_safetensors_count(found) != count) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s has %zu tensors, but the manifest has %zu", file->path,
                        opt_safetensors_count(found), count);
    }
    for (size_t i = 0; i < count; i++) {
        const struct opt_safetensors_entry *has = opt_safetensors_entry(found, i);
        if (strcmp(has->name, expected[i].name) != 0 || has->type != expected[i].type ||
            has->rank != expected[i].rank ||
            memcmp(has->shape, expected[i].shape, has->rank * sizeof has->shape[0]) !=
                0) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "tensor %zu of %s, '%.100s', is not the manifest's, "
                            "'%.100s', with that shape in fp32",
                            i, file->path, has->name, expected[i].name);
        }
    }
    return OPT_OK;
}

static enum opt_status check_start(struct array_file *file, const uint8_t *start,
                                   size_t size, uint64_t file_bytes,
                                   struct opt_error *error)
{
    struct opt_safetensors *found = NULL;
    struct opt_error why;
    enum opt_status status = opt_safetensors_read_start(
        start, size, file_bytes, OPT_SAFETENSORS_HEADER, &found, &why);
    if (status != OPT_OK) {
        return opt_fail(error, status, "%s is damaged: %s", file->path, why.text);
    }
    struct opt_safetensors_entry *expected = make_entries(file);
    status = expected == NULL ? no_memory(file->path, error)
                              : compare_entries(file, found, expected, error);
    free(expected);
    opt_safetensors_free(found);
    lay_out(file, size);
    return status;
}

static enum opt_status read_start(struct array_file *file, uint64_t file_bytes,
                                  struct opt_error *error)
{
    uint8_t prefix[OPT_SAFETENSORS_PREFIX];
    if (file_bytes < sizeof prefix) {
        return opt_fail(error, OPT_DATA_LOSS, "%s has only %" PRIu64 " bytes",
                        file->path, file_bytes);
    }
    enum opt_status status =
        file_read(file->file, prefix, sizeof prefix, 0, file->path, error);
    if (status != OPT_OK) {
        return status;
    }
    uint64_t size = opt_safetensors_start(prefix);
    if (size > file_bytes || size > OPT_SAFETENSORS_HEADER + sizeof prefix) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s is damaged: its header would have %" PRIu64
                        " bytes; the file has %" PRIu64 " and %d are allowed",
                        file->path, size - sizeof prefix, file_bytes,
                        (int)OPT_SAFETENSORS_HEADER);
    }
    uint8_t *start = malloc((size_t)size);
    if (start == NULL) {
        return no_memory(file->path, error);
    }
    status = file_read(file->file, start, (size_t)size, 0, file->path, error);
    if (status == OPT_OK) {
        status = check_start(file, start, (size_t)size, file_bytes, error);
    }
    free(start);
    return status;
}

/* ---------------------------------------------------------------- writing */

enum opt_status array_file_create(int folder, const char *path,
                                  const struct manifest *manifest, const char *slot,
                                  struct array_file **out, struct opt_error *error)
{
    char name[ARRAY_FILE_NAME];
    struct array_file *file = array_file_new(path, manifest, slot);
    if (file == NULL) {
        return no_memory(path, error);
    }
    array_file_name(slot, name);
    enum opt_status status = file_open(folder, name, O_RDWR | O_CREAT | O_EXCL,
                                       file->path, &file->file, error);
    if (status == OPT_OK) {
        status = write_start(file, error);
    }
    if (status != OPT_OK) {
        array_file_close(file);
        return status;
    }
    *out = file;
    return OPT_OK;
}

/* The first range that ends behind that byte, or one more than there are. */
static size_t find_range(const struct array_file *file, uint64_t byte)
{
    size_t low = 0, high = file->range_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (file->ranges[middle].end > byte) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Note what has been written. */
static enum opt_status add_range(struct array_file *file, uint64_t begin, uint64_t end,
                                 struct opt_error *error)
{
    size_t at = find_range(file, begin);
    struct range *after = at < file->range_count ? &file->ranges[at] : NULL;
    struct range *before = at > 0 ? &file->ranges[at - 1] : NULL;
    if (before != NULL && before->end == begin) {
        before->end = end;
        if (after != NULL && after->begin == end) {
            before->end = after->end;
            file->range_count--;
            memmove(after, after + 1, (file->range_count - at) * sizeof *after);
        }
        return OPT_OK;
    }
    if (after != NULL && after->begin == end) {
        after->begin = begin;
        return OPT_OK;
    }
    if (file->range_count == file->range_capacity) {
        size_t more = 2 * file->range_capacity + 16;
        struct range *grown = realloc(file->ranges, more * sizeof *grown);
        if (grown == NULL) {
            return no_memory(file->path, error);
        }
        file->ranges = grown;
        file->range_capacity = more;
    }
    memmove(file->ranges + at + 1, file->ranges + at,
            (file->range_count - at) * sizeof *file->ranges);
    file->ranges[at] = (struct range){ begin, end };
    file->range_count++;
    return OPT_OK;
}

/* Have what has been written without a gap brought to the disk, some MiB at a time:
 * what is left for the end is little, and whoever makes another file durable meanwhile
 * does not wait for all of this one. */
static void send_ahead(struct array_file *file)
{
    if (file->summed - file->sent >= AHEAD) {
        file_write_out(file->file, file->sent, file->summed - file->sent);
        file->sent = file->summed;
    }
}

/* Take into the sum what has been written beyond it without a gap. */
static enum opt_status sum_up(struct array_file *file, struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    uint64_t end = file->range_count > 0 && file->ranges[0].begin == file->start
                       ? file->ranges[0].end
                       : file->summed;
    while (status == OPT_OK && file->summed < end) {
        uint64_t left = end - file->summed;
        size_t size = left < BUFFER ? (size_t)left : BUFFER;
        status =
            file_read(file->file, file->buffer, size, file->summed, file->path, error);
        if (status == OPT_OK) {
            XXH3_64bits_update(file->sum, file->buffer, size);
            file->summed += size;
        }
    }
    return status;
}

enum opt_status array_file_write(struct array_file *file, size_t tensor,
                                 uint64_t element, const struct iovec *parts,
                                 size_t count, struct opt_error *error)
{
    uint64_t begin = file->places[tensor] + element * sizeof(float), end = begin;
    for (size_t i = 0; i < count; i++) {
        end += parts[i].iov_len;
    }
    size_t next = find_range(file, begin);
    if (end > file->end ||
        (next < file->range_count && file->ranges[next].begin < end)) {
        return opt_fail(error, OPT_INTERNAL,
                        "bytes %" PRIu64 " to %" PRIu64
                        " of %s are written twice, or are beyond its end",
                        begin, end, file->path);
    }
    if (begin == end) {
        return OPT_OK;
    }
    enum opt_status status =
        file_write(file->file, parts, count, begin, file->path, error);
    if (status == OPT_OK) {
        status = add_range(file, begin, end, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (begin == file->summed) {
        for (size_t i = 0; i < count; i++) {
            XXH3_64bits_update(file->sum, parts[i].iov_base, parts[i].iov_len);
        }
        file->summed = end;
    }
    status = sum_up(file, error);
    send_ahead(file);
    return status;
}

enum opt_status array_file_finish(struct array_file *file, struct manifest_file *out,
                                  struct opt_error *error)
{
    if (file->summed != file->end) {
        return opt_fail(error, OPT_INTERNAL,
                        "byte %" PRIu64 " of %s, which has %" PRIu64
                        ", has not been written",
                        file->summed, file->path, file->end);
    }
    out->size = file->end;
    out->xxh3 = XXH3_64bits_digest(file->sum);
    return file_sync(file->file, file->path, error);
}

/* ---------------------------------------------------------------- reading */

enum opt_status array_file_open(int folder, const char *path,
                                const struct manifest *manifest, const char *slot,
                                const struct manifest_file *expected,
                                struct array_file **out, struct opt_error *error)
{
    char name[ARRAY_FILE_NAME];
    uint64_t size = 0;
    struct array_file *file = array_file_new(path, manifest, slot);
    if (file == NULL) {
        return no_memory(path, error);
    }
    array_file_name(slot, name);
    enum opt_status status =
        file_open(folder, name, O_RDONLY | O_NONBLOCK, file->path, &file->file, error);
    if (status == OPT_NOT_FOUND) { /* the manifest has it */
        status = opt_fail(error, OPT_DATA_LOSS, "%s is missing", file->path);
    }
    if (status == OPT_OK) {
        status = file_size(file->file, file->path, &size, error);
    }
    if (status == OPT_OK && size != expected->size) {
        status = opt_fail(error, OPT_DATA_LOSS,
                          "%s has %" PRIu64 " bytes, but had %" PRIu64
                          " when it was written",
                          file->path, size, expected->size);
    }
    if (status == OPT_OK) {
        status = read_start(file, size, error);
    }
    if (status != OPT_OK) {
        array_file_close(file);
        return status;
    }
    file->expected = expected->xxh3;
    *out = file;
    return OPT_OK;
}

/* The file as it comes. */
struct stream {
    struct array_file *file;
    uint64_t read; /* bytes of the file so far */
    size_t at, filled;
};

/* Have some bytes in the buffer, at most BUFFER and no less than there are up to the
 * next block; *size of them are there. */
static enum opt_status refill(struct stream *stream, struct opt_error *error)
{
    struct array_file *file = stream->file;
    uint64_t left = file->end - stream->read;
    memmove(file->buffer, file->buffer + stream->at, stream->filled - stream->at);
    stream->filled -= stream->at;
    stream->at = 0;
    size_t room = BUFFER - stream->filled;
    size_t size = left < room ? (size_t)left : room;
    enum opt_status status = file_read(file->file, file->buffer + stream->filled, size,
                                       stream->read, file->path, error);
    if (status == OPT_OK) {
        XXH3_64bits_update(file->sum, file->buffer + stream->filled, size);
        stream->read += size;
        stream->filled += size;
    }
    return status;
}

/* Hand a tensor to the sink, block by block. */
static enum opt_status read_tensor(struct stream *stream, size_t tensor,
                                   const struct checkpoint_sink *sink,
                                   struct opt_error *error)
{
    uint64_t elements = stream->file->manifest->tensors[tensor].entry.elements;
    for (uint64_t element = 0; element < elements;) {
        uint64_t left = elements - element;
        size_t n = left < OPT_BLOCK ? (size_t)left : OPT_BLOCK;
        if (stream->filled - stream->at < n * sizeof(float)) {
            enum opt_status status = refill(stream, error);
            if (status != OPT_OK) {
                return status;
            }
        }
        if (sink != NULL) {
            sink->take(sink->context, tensor, element,
                       (const void *)(stream->file->buffer + stream->at), n);
        }
        stream->at += n * sizeof(float);
        element += n;
    }
    return OPT_OK;
}

/* The start, which was looked at before, into the sum. */
static enum opt_status sum_start(struct stream *stream, struct opt_error *error)
{
    struct array_file *file = stream->file;
    enum opt_status status = OPT_OK;
    XXH3_64bits_reset(file->sum);
    while (status == OPT_OK && stream->read < file->start) {
        uint64_t left = file->start - stream->read;
        size_t size = left < BUFFER ? (size_t)left : BUFFER;
        status =
            file_read(file->file, file->buffer, size, stream->read, file->path, error);
        if (status == OPT_OK) {
            XXH3_64bits_update(file->sum, file->buffer, size);
            stream->read += size;
        }
    }
    return status;
}

enum opt_status array_file_read(struct array_file *file,
                                const struct checkpoint_sink *sink,
                                struct opt_error *error)
{
    struct stream stream = { .file = file };
    enum opt_status status = sum_start(&stream, error);
    for (size_t i = 0; status == OPT_OK && i < file->manifest->tensor_count; i++) {
        status = read_tensor(&stream, i, sink, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    uint64_t digest = XXH3_64bits_digest(file->sum);
    if (digest != file->expected) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s is damaged: its XXH3-64 is %016" PRIx64
                        ", but was %016" PRIx64 " when it was written",
                        file->path, digest, file->expected);
    }
    return OPT_OK;
}
