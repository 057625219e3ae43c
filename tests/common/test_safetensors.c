/* test_safetensors — what is written reads back, and nothing malformed is taken. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/safetensors.h"

/* A file of header text and values_size bytes, aligned; *size is its length. */
static void *file_of(const char *header, size_t values_size, size_t *size)
{
    size_t length = (strlen(header) + 7) / 8 * 8;
    unsigned char *bytes = calloc(1, 8 + length + values_size + 8);

    cr_assert_not_null(bytes);
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(length >> (8 * i));
    }
    memset(bytes + 8, ' ', length);
    memcpy(bytes + 8, header, strlen(header));
    *size = 8 + length + values_size;
    return bytes;
}

static const struct {
    const char *header;
    size_t values;
    const char *sentence; /* NULL: it is taken */
} files[] = {
    { "{}", 0, NULL },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL },
    { "{\"__metadata__\":{\"k\":\"v\"},\"b\":{\"dtype\":\"F16\",\"shape\":[1],"
      "\"data_offsets\":[8,10]},\"a\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":"
      "[0,8]}}",
      10, NULL },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"b\":{\"dtype\":"
      "\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
      1, NULL },
    { "{}", 1, "the file has 1 for them" },
    { "[]", 0, "not a JSON object" },
    { "{", 0, "not JSON" },
    { "{} x", 0, "not JSON" },
    { "{\"a\":1}", 0, "known dtype" },
    { "{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
      "known dtype" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
      "known dtype" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
      16, "duplicate" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
      "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,16]}}", 8,
      "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
      "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
      "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
      "shape" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],"
      "\"data_offsets\":[0,0]}}",
      0, "shape" },
    { "{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],"
      "\"data_offsets\":[0,0]}}",
      0, "shape" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}"
      "}",
      4, "shape" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "hole" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
      "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
      3, "overlap" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}",
      5, "aligned" },
    { "{\"__metadata__\":{\"k\":1}}", 0, "not a string" },
    { "{\"__metadata__\":[]}", 0, "not an object" },
};

Test(safetensors, takes_what_is_sound_and_names_what_is_not)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t size;
        void *bytes = file_of(files[i].header, files[i].values, &size);
        struct opt_safetensors *file = NULL;
        struct opt_error error = { .text = "" };
        enum opt_status status =
            opt_safetensors_read(bytes, size, OPT_SAFETENSORS_HEADER, &file, &error);

        if (files[i].sentence == NULL) {
            cr_expect_eq(status, OPT_OK, "%s: %s", files[i].header, error.text);
        } else {
            cr_expect_eq(status, OPT_DATA_LOSS, "%s was taken", files[i].header);
            cr_expect_not_null(strstr(error.text, files[i].sentence), "%s: %s",
                               files[i].header, error.text);
        }
        opt_safetensors_free(file);
        free(bytes);
    }
}

Test(safetensors, refuses_a_header_that_is_longer_than_the_file_or_the_limit)
{
    size_t size;
    unsigned char *bytes = file_of("{}", 0, &size);
    struct opt_safetensors *file;

    for (size_t cut = 0; cut < size; cut++) {
        cr_expect_eq(opt_safetensors_read(bytes, cut, 100, &file, NULL), OPT_DATA_LOSS);
    }
    cr_expect_eq(opt_safetensors_read(bytes, size, 7, &file, NULL), OPT_DATA_LOSS);
    memset(bytes, 0xff, 8);
    cr_expect_eq(opt_safetensors_read(bytes, size, 100, &file, NULL), OPT_DATA_LOSS);
    bytes[0] = 3;
    memset(bytes + 1, 0, 7);
    cr_expect_eq(opt_safetensors_read(bytes, size, 100, &file, NULL), OPT_DATA_LOSS);
    free(bytes);
}

Test(safetensors, what_is_written_reads_back)
{
    struct opt_safetensors_entry entries[3] = {
        { .name = "weights \xc3\xa4/\"w\"",
          .type = OPT_SAFETENSORS_F64,
          .rank = 2,
          .shape = { 2, 3 } },
        { .name = "scalar", .type = OPT_SAFETENSORS_F32, .rank = 0 },
        { .name = "none", .type = OPT_SAFETENSORS_U8, .rank = 1, .shape = { 0 } },
    };
    const struct opt_safetensors_pair metadata[2] = { { "step", "7" }, { "x", "\n" } };
    struct opt_safetensors *file;
    struct opt_error error = { .text = "" };
    void *header;
    size_t size;

    cr_assert_eq(
        opt_safetensors_header(entries, 3, metadata, 2, &header, &size, &error), OPT_OK,
        "%s", error.text);
    cr_assert_eq(size % 8, 0);
    unsigned char *bytes = malloc(size + 52);
    cr_assert_not_null(bytes);
    memcpy(bytes, header, size);
    for (unsigned char i = 0; i < 52; i++) {
        bytes[size + i] = i;
    }
    cr_assert_eq(opt_safetensors_read(bytes, size + 52, 4096, &file, &error), OPT_OK,
                 "%s", error.text);
    cr_assert_eq(opt_safetensors_count(file), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct opt_safetensors_entry *got =
            opt_safetensors_find(file, entries[i].name);

        cr_assert_not_null(got);
        cr_assert_eq(got->type, entries[i].type);
        cr_assert_eq(got->rank, entries[i].rank);
        cr_assert_eq(got->count, entries[i].count);
        cr_assert_eq((const unsigned char *)got->data,
                     bytes + size + entries[i].offset);
        cr_assert_eq(memcmp(got->shape, entries[i].shape, sizeof got->shape), 0);
    }
    cr_assert_str_eq(opt_safetensors_metadata(file, "step"), "7");
    cr_assert_str_eq(opt_safetensors_metadata(file, "x"), "\n");
    cr_assert_null(opt_safetensors_metadata(file, "y"));
    cr_assert_null(opt_safetensors_find(file, "y"));
    cr_assert_null(opt_safetensors_entry(file, 3));
    opt_safetensors_free(file);
    free(bytes);
    free(header);
}

Test(safetensors, refuses_to_write_what_it_would_not_read)
{
    struct opt_safetensors_entry entries[2] = {
        { .name = "a", .type = OPT_SAFETENSORS_U8, .rank = 1, .shape = { 1 } },
        { .name = "b", .type = OPT_SAFETENSORS_F32, .rank = 1, .shape = { 1 } },
    };
    void *header = NULL;
    size_t size;

    cr_assert_eq(opt_safetensors_header(entries, 2, NULL, 0, &header, &size, NULL),
                 OPT_INVALID_ARGUMENT);
    entries[0].type = OPT_SAFETENSORS_F32;
    entries[1].name = "a";
    cr_assert_eq(opt_safetensors_header(entries, 2, NULL, 0, &header, &size, NULL),
                 OPT_INVALID_ARGUMENT);
    entries[1].name = "__metadata__";
    cr_assert_eq(opt_safetensors_header(entries, 2, NULL, 0, &header, &size, NULL),
                 OPT_INVALID_ARGUMENT);
    entries[1].name = "\xff";
    cr_assert_neq(opt_safetensors_header(entries, 2, NULL, 0, &header, &size, NULL),
                  OPT_OK);
    cr_assert_null(header);
}
