/* safetensors — see safetensors.h. */
#include "common/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [OPT_SAFETENSORS_F64] = { "F64", 8 },   [OPT_SAFETENSORS_F32] = { "F32", 4 },
    [OPT_SAFETENSORS_BF16] = { "BF16", 2 }, [OPT_SAFETENSORS_F16] = { "F16", 2 },
    [OPT_SAFETENSORS_I64] = { "I64", 8 },   [OPT_SAFETENSORS_U64] = { "U64", 8 },
    [OPT_SAFETENSORS_U8] = { "U8", 1 },
};
_Static_assert(sizeof types / sizeof types[0] == OPT_SAFETENSORS_TYPE_COUNT,
               "every type has a name and a size");

static const char metadata_key[] = "__metadata__";

enum { PREFIX = OPT_SAFETENSORS_PREFIX };

struct opt_safetensors {
    json_t *header; /* owns the names */
    size_t count;
    struct opt_safetensors_entry entries[];
};

size_t opt_safetensors_size(enum opt_safetensors_type type)
{
    return types[type].size;
}

static uint64_t load_length(const unsigned char *bytes)
{
    uint64_t length = 0;

    for (int i = PREFIX - 1; i >= 0; i--) {
        length = length << 8 | bytes[i];
    }
    return length;
}

/* A JSON integer that is not negative. */
static bool whole(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* shape into rank, shape and count; the product must fit. */
static bool read_shape(const json_t *shape, struct opt_safetensors_entry *entry)
{
    entry->rank = json_array_size(shape);
    entry->count = 1;
    if (!json_is_array(shape) || entry->rank > OPT_SAFETENSORS_RANK) {
        return false;
    }
    for (size_t i = 0; i < entry->rank; i++) {
        if (!whole(json_array_get(shape, i), &entry->shape[i]) ||
            __builtin_mul_overflow(entry->count, entry->shape[i], &entry->count)) {
            return false;
        }
    }
    return true;
}

static bool read_type(const json_t *type, struct opt_safetensors_entry *entry)
{
    const char *name = json_string_value(type);

    for (int i = 0; name != NULL && i < OPT_SAFETENSORS_TYPE_COUNT; i++) {
        if (strcmp(types[i].name, name) == 0) {
            entry->type = (enum opt_safetensors_type)i;
            return true;
        }
    }
    return false;
}

/* One member of the header; the offsets are judged within the values_size bytes of all
 * values. */
static enum opt_status read_entry(const char *name, const json_t *value,
                                  const unsigned char *values, uint64_t values_size,
                                  struct opt_safetensors_entry *entry,
                                  struct opt_error *error)
{
    const json_t *offsets = json_object_get(value, "data_offsets");
    uint64_t begin, end, bytes;

    entry->name = name;
    if (!json_is_object(value) || json_object_size(value) != 3 ||
        !read_type(json_object_get(value, "dtype"), entry)) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "tensor '%.100s' is not {dtype, shape, data_offsets} with a "
                        "known dtype",
                        name);
    }
    if (!read_shape(json_object_get(value, "shape"), entry) ||
        __builtin_mul_overflow(entry->count, types[entry->type].size, &bytes)) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "the shape of tensor '%.100s' is not %d sizes at most, with a "
                        "product that fits",
                        name, (int)OPT_SAFETENSORS_RANK);
    }
    if (json_array_size(offsets) != 2 || !whole(json_array_get(offsets, 0), &begin) ||
        !whole(json_array_get(offsets, 1), &end) || begin > end || end > values_size ||
        end - begin != bytes) {
        return opt_fail(
            error, OPT_DATA_LOSS,
            "data_offsets of tensor '%.100s' are not those of its %llu bytes "
            "within the file's %llu",
            name, (unsigned long long)bytes, (unsigned long long)values_size);
    }
    if (values != NULL && begin % types[entry->type].size != 0) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "tensor '%.100s' is not aligned to its element size", name);
    }
    entry->offset = begin;
    entry->data = values != NULL ? values + begin : NULL;
    return OPT_OK;
}

/* Empty tensors come before the one that starts at the same place. */
static int by_offset(const void *a, const void *b)
{
    const struct opt_safetensors_entry *x = a, *y = b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return (x->count > 0) - (y->count > 0);
}

static enum opt_status check_coverage(const struct opt_safetensors *file,
                                      uint64_t values_size, struct opt_error *error)
{
    uint64_t at = 0;

    for (size_t i = 0; i < file->count; i++) {
        const struct opt_safetensors_entry *entry = &file->entries[i];

        if (entry->offset != at) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "tensor '%.100s' starts at byte %llu of the values, where "
                            "%llu was due: there is a hole or an overlap",
                            entry->name, (unsigned long long)entry->offset,
                            (unsigned long long)at);
        }
        at += entry->count * types[entry->type].size;
    }
    if (at != values_size) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "the tensors take %llu bytes, the file has %llu for them",
                        (unsigned long long)at, (unsigned long long)values_size);
    }
    return OPT_OK;
}

static enum opt_status check_metadata(const json_t *metadata, struct opt_error *error)
{
    const char *key;
    json_t *value;

    if (metadata != NULL && !json_is_object(metadata)) {
        return opt_fail(error, OPT_DATA_LOSS, "__metadata__ is not an object");
    }
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "'%.100s' in __metadata__ is not a string", key);
        }
    }
    return OPT_OK;
}

static enum opt_status read_entries(struct opt_safetensors *file,
                                    const unsigned char *values, uint64_t values_size,
                                    struct opt_error *error)
{
    const char *name;
    json_t *value;
    enum opt_status status =
        check_metadata(json_object_get(file->header, metadata_key), error);

    json_object_foreach(file->header, name, value)
    {
        if (status != OPT_OK) {
            return status;
        }
        if (strcmp(name, metadata_key) != 0) {
            status = read_entry(name, value, values, values_size,
                                &file->entries[file->count], error);
            file->count += status == OPT_OK ? 1 : 0;
        }
    }
    if (status != OPT_OK) {
        return status;
    }
    qsort(file->entries, file->count, sizeof file->entries[0], by_offset);
    return check_coverage(file, values_size, error);
}

/* size bytes of the file are in memory, with its values or without them. */
static enum opt_status read_file(const unsigned char *bytes, size_t size,
                                 uint64_t file_size, bool in_memory,
                                 size_t header_limit, struct opt_safetensors **out,
                                 struct opt_error *error)
{
    struct opt_safetensors *file;
    json_error_t problem;
    enum opt_status status;

    if (size < PREFIX) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%zu bytes are too few for a safetensors file", size);
    }
    uint64_t length = load_length(bytes);
    if (length > size - PREFIX || length > header_limit ||
        length > OPT_SAFETENSORS_HEADER) {
        return opt_fail(
            error, OPT_DATA_LOSS,
            "the header would take %llu bytes; the file has %zu and %zu are "
            "allowed",
            (unsigned long long)length, size - PREFIX, header_limit);
    }
    /* Values are aligned in memory only if they are in the file. */
    if (in_memory && length % PREFIX != 0) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "the header's length %llu is not a multiple of 8",
                        (unsigned long long)length);
    }
    json_t *header = json_loadb((const char *)bytes + PREFIX, (size_t)length,
                                JSON_REJECT_DUPLICATES, &problem);
    if (header == NULL) {
        return opt_fail(error, OPT_DATA_LOSS, "the header is not JSON: %.200s",
                        problem.text);
    }
    if (!json_is_object(header)) {
        json_decref(header);
        return opt_fail(error, OPT_DATA_LOSS, "the header is not a JSON object");
    }
    file = calloc(1, sizeof *file + json_object_size(header) * sizeof file->entries[0]);
    if (file == NULL) {
        json_decref(header);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the names of a safetensors file");
    }
    file->header = header;
    status = read_entries(file, in_memory ? bytes + PREFIX + length : NULL,
                          file_size - PREFIX - length, error);
    if (status != OPT_OK) {
        opt_safetensors_free(file);
        return status;
    }
    *out = file;
    return OPT_OK;
}

enum opt_status opt_safetensors_read(const void *data, size_t size, size_t header_limit,
                                     struct opt_safetensors **out,
                                     struct opt_error *error)
{
    return read_file(data, size, size, true, header_limit, out, error);
}

enum opt_status opt_safetensors_read_start(const void *data, size_t size,
                                           uint64_t file_size, size_t header_limit,
                                           struct opt_safetensors **out,
                                           struct opt_error *error)
{
    if (file_size < size) {
        return opt_fail(error, OPT_DATA_LOSS, "the file is shorter than its header");
    }
    return read_file(data, size, file_size, false, header_limit, out, error);
}

uint64_t opt_safetensors_start(const void *prefix)
{
    uint64_t length = load_length(prefix);
    return length > UINT64_MAX - PREFIX ? UINT64_MAX : PREFIX + length;
}

void opt_safetensors_free(struct opt_safetensors *file)
{
    if (file != NULL) {
        json_decref(file->header);
        free(file);
    }
}

size_t opt_safetensors_count(const struct opt_safetensors *file)
{
    return file->count;
}

const struct opt_safetensors_entry *
opt_safetensors_entry(const struct opt_safetensors *file, size_t index)
{
    return index < file->count ? &file->entries[index] : NULL;
}

const struct opt_safetensors_entry *
opt_safetensors_find(const struct opt_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->entries[i].name, name) == 0) {
            return &file->entries[i];
        }
    }
    return NULL;
}

const char *opt_safetensors_metadata(const struct opt_safetensors *file,
                                     const char *key)
{
    return json_string_value(
        json_object_get(json_object_get(file->header, metadata_key), key));
}

/* Adds the entry after *offset bytes of values. False: no memory, or not UTF-8. */
static bool add_entry(json_t *header, struct opt_safetensors_entry *entry,
                      uint64_t *offset)
{
    json_t *shape = json_array();
    uint64_t begin = *offset;
    bool ok = shape != NULL;

    entry->count = 1;
    for (size_t i = 0; i < entry->rank; i++) {
        entry->count *= entry->shape[i];
        ok = json_array_append_new(shape, json_integer((json_int_t)entry->shape[i])) ==
                 0 &&
             ok;
    }
    entry->offset = begin;
    *offset += entry->count * types[entry->type].size;
    json_t *value =
        json_pack("{s:s, s:o?, s:[I, I]}", "dtype", types[entry->type].name, "shape",
                  shape, "data_offsets", (json_int_t)begin, (json_int_t)*offset);
    return json_object_set_new(header, entry->name, value) == 0 && ok;
}

static bool add_metadata(json_t *header, const struct opt_safetensors_pair *metadata,
                         size_t count)
{
    json_t *object = json_object();
    bool ok = object != NULL;

    for (size_t i = 0; i < count; i++) {
        ok = json_object_set_new(object, metadata[i].key,
                                 json_string(metadata[i].value)) == 0 &&
             ok;
    }
    return json_object_set_new(header, metadata_key, object) == 0 && ok;
}

/* Length, text, spaces. */
static enum opt_status join(const json_t *header, void **out, size_t *size,
                            struct opt_error *error)
{
    char *text = json_dumps(header, JSON_COMPACT);
    size_t length = text != NULL ? strlen(text) : 0;
    size_t padded = (length + PREFIX - 1) / PREFIX * PREFIX;
    unsigned char *bytes = text != NULL ? malloc(PREFIX + padded) : NULL;

    if (bytes == NULL) {
        free(text);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the header of a safetensors file");
    }
    for (size_t i = 0; i < PREFIX; i++) {
        bytes[i] = (unsigned char)(padded >> (8 * i));
    }
    memcpy(bytes + PREFIX, text, length);
    memset(bytes + PREFIX + length, ' ', padded - length);
    free(text);
    *out = bytes;
    *size = PREFIX + padded;
    return OPT_OK;
}

enum opt_status opt_safetensors_header(struct opt_safetensors_entry *entries,
                                       size_t count,
                                       const struct opt_safetensors_pair *metadata,
                                       size_t metadata_count, void **out, size_t *size,
                                       struct opt_error *error)
{
    json_t *header = json_object();
    enum opt_status status = OPT_OK;
    uint64_t offset = 0;
    bool ok = header != NULL &&
              (metadata_count == 0 || add_metadata(header, metadata, metadata_count));

    for (size_t i = 0; i < count && ok && status == OPT_OK; i++) {
        const char *name = entries[i].name;

        if (offset % types[entries[i].type].size != 0) {
            status = opt_fail(error, OPT_INVALID_ARGUMENT,
                              "tensor '%.100s' would not be aligned: wider types first",
                              name);
        } else if (json_object_get(header, name) != NULL ||
                   strcmp(name, metadata_key) == 0) {
            status = opt_fail(error, OPT_INVALID_ARGUMENT,
                              "the name '%.100s' is given twice or reserved", name);
        } else {
            ok = add_entry(header, &entries[i], &offset);
        }
    }
    if (status == OPT_OK && !ok) {
        status =
            opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                     "no memory for the header of a safetensors file, or a name in "
                     "it that is not UTF-8");
    }
    if (status == OPT_OK) {
        status = join(header, out, size, error);
    }
    json_decref(header);
    return status;
}
