/* data — the demo's pictures: what is inside the program, and what files are refused.
 */
#include "client/examples/data.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static char directory[64];

static void make_directory(void)
{
    snprintf(directory, sizeof directory, "/tmp/optimd-test-data-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
}

static void remove_directory(void)
{
    DIR *open = opendir(directory);
    for (struct dirent *entry; open != NULL && (entry = readdir(open)) != NULL;) {
        unlinkat(dirfd(open), entry->d_name, 0);
    }
    closedir(open);
    rmdir(directory);
}

TestSuite(data, .init = make_directory, .fini = remove_directory);

/* "%s" of the paths below, one after another. */
static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void write_packed(const char *name, const void *bytes, size_t size)
{
    gzFile file = gzopen(path_of(name), "wb1");
    cr_assert_not_null(file);
    cr_assert_eq(gzwrite(file, bytes, (unsigned)size), (int)size);
    cr_assert_eq(gzclose(file), Z_OK);
}

static void write_plain(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(path_of(name), "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

/* Loading must fail with a sentence that has these words. */
static void refused(const char *name, const char *words)
{
    struct data data;
    struct data_error error = { "" };
    cr_assert(!data_load(name, directory, &data, &error), "should name: %s", words);
    cr_assert_not_null(strstr(error.text, words), "\"%s\" does not say \"%s\"",
                       error.text, words);
}

/* ---------------------------------------------------------------- digits */

Test(data, digits_inside_the_program_are_whole)
{
    struct data data;
    struct data_error error;
    cr_assert(data_load("digits", NULL, &data, &error), "%s", error.text);
    cr_assert_eq(data.train.count, 1437);
    cr_assert_eq(data.held_out.count, 360);
    cr_assert(data.train.features == 64 && data.held_out.features == 64);
    cr_assert(data.train.classes == 10 && data.held_out.classes == 10);

    size_t of_class[10] = { 0 }, held_out_of_class[10] = { 0 };
    for (size_t i = 0; i < data.train.count; i++) {
        of_class[data.train.labels[i]]++;
    }
    for (size_t i = 0; i < data.held_out.count; i++) {
        of_class[data.held_out.labels[i]]++;
        held_out_of_class[data.held_out.labels[i]]++;
    }
    static const size_t known[10] = {
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180
    };
    for (size_t c = 0; c < 10; c++) {
        cr_assert_eq(of_class[c], known[c], "%zu images of %zu", of_class[c], c);
        cr_assert_gt(held_out_of_class[c], 20, "only %zu of %zu held out",
                     held_out_of_class[c], c);
    }
    data_free(&data);
}

Test(data, holds_the_same_images_out_every_time)
{
    struct data one, two;
    struct data_error error;
    cr_assert(data_load("digits", NULL, &one, &error), "%s", error.text);
    cr_assert(data_load("digits", NULL, &two, &error), "%s", error.text);
    cr_assert_arr_eq(one.train.pixels, two.train.pixels, 1437 * 64);
    cr_assert_arr_eq(one.held_out.pixels, two.held_out.pixels, 360 * 64);
    cr_assert_arr_eq(one.held_out.labels, two.held_out.labels, 360);
    data_free(&one);
    data_free(&two);
}

/* A digit of which every pixel is `pixel`. */
static size_t digit_line(char *out, size_t capacity, unsigned pixel, unsigned digit)
{
    size_t length = 0;
    for (size_t i = 0; i < 64; i++) {
        length += (size_t)snprintf(out + length, capacity - length, "%u,", pixel);
    }
    return length + (size_t)snprintf(out + length, capacity - length, "%u\n", digit);
}

static char *twenty_digits(size_t *size)
{
    static char text[20 * 256];
    *size = 0;
    for (unsigned i = 0; i < 20; i++) {
        *size += digit_line(text + *size, sizeof text - *size, i % 17, i % 10);
    }
    return text;
}

Test(data, digits_are_read_from_a_file_as_they_stand)
{
    size_t size;
    const char *text = twenty_digits(&size);
    write_packed("digits.csv.gz", text, size);
    struct data data;
    struct data_error error;
    cr_assert(data_load("digits", directory, &data, &error), "%s", error.text);
    cr_assert(data.train.count == 16 && data.held_out.count == 4);
    bool seen[20] = { false };
    for (size_t i = 0; i < 20; i++) {
        const struct data_set *set = i < 16 ? &data.train : &data.held_out;
        size_t at = i < 16 ? i : i - 16;
        unsigned pixel = set->pixels[at * 64];
        for (size_t j = 0; j < 64; j++) {
            cr_assert_eq(set->pixels[at * 64 + j], pixel);
        }
        /* Pixels 0 to 2 were given to two images, whose digits tell them apart. */
        unsigned which = set->labels[at] == pixel % 10 ? pixel : pixel + 17;
        cr_assert_lt(which, 20);
        cr_assert(!seen[which]);
        seen[which] = true;
    }
    data_free(&data);
}

Test(data, refuses_digits_that_are_not)
{
    static const struct {
        const char *what, *with, *words;
    } spoilt[] = {
        { "0,0,0,", "0,17,0,", "digits.csv.gz:1:" },
        { "0,0,0,", "0,-1,0,", "digits.csv.gz:1:" },
        { "0,0,0,", "0,,0,0", "digits.csv.gz:1:" },
        { "0,0,0,", "0,0.0,", "digits.csv.gz:1:" },
        { "0,0,0,", "0;0,0,", "digits.csv.gz:1:" },
        { "0,0,0,", "0, 0,0", "digits.csv.gz:1:" },
        { ",0\n1,", ",x\n1,", "digits.csv.gz:1:" },
        { ",1\n2,", ",10\n,", "digits.csv.gz:2:" },
        { ",1\n2,", ",1\n\n,", "digits.csv.gz:3:" },
        { "9\n10,", "9\n1000,", "digits.csv.gz:11:" },
    };
    for (size_t i = 0; i < sizeof spoilt / sizeof spoilt[0]; i++) {
        size_t size;
        char *text = twenty_digits(&size);
        char *at = strstr(text, spoilt[i].what);
        cr_assert_not_null(at, "case %zu", i);
        memcpy(at, spoilt[i].with, strlen(spoilt[i].with));
        write_packed("digits.csv.gz", text, size);
        refused("digits", spoilt[i].words);
    }
    size_t size;
    const char *text = twenty_digits(&size);
    write_packed("digits.csv.gz", text, size - 1);
    refused("digits", "whole lines");
    write_packed("digits.csv.gz", "", 0);
    refused("digits", "0 whole lines");
}

Test(data, refuses_damaged_packing)
{
    refused("digits", "cannot open");

    size_t size;
    const char *text = twenty_digits(&size);
    write_packed("digits.csv.gz", text, size);
    uint8_t whole[8192];
    FILE *file = fopen(path_of("digits.csv.gz"), "rb");
    size_t packed = fread(whole, 1, sizeof whole, file);
    fclose(file);
    cr_assert(packed > 32 && packed < sizeof whole - 8);

    for (size_t cut = 0; cut < packed; cut++) {
        write_plain("digits.csv.gz", whole, cut);
        refused("digits", "digits.csv.gz");
    }
    /* A flipped bit is found, unless it is one of those that mean nothing, such as the
     * padding of the last byte; the header's time and system (bytes 4 to 9) are too. */
    struct data expected;
    struct data_error error;
    write_plain("digits.csv.gz", whole, packed);
    cr_assert(data_load("digits", directory, &expected, &error), "%s", error.text);
    size_t found = 0;
    for (size_t bit = 10 * 8; bit < packed * 8; bit++) {
        whole[bit / 8] ^= (uint8_t)(1U << bit % 8);
        write_plain("digits.csv.gz", whole, packed);
        struct data data;
        if (data_load("digits", directory, &data, &error)) {
            cr_assert(data.train.count == 16 && data.held_out.count == 4);
            cr_assert_arr_eq(data.train.pixels, expected.train.pixels, 16 * 64);
            cr_assert_arr_eq(data.train.labels, expected.train.labels, 16);
            cr_assert_arr_eq(data.held_out.pixels, expected.held_out.pixels, 4 * 64);
            cr_assert_arr_eq(data.held_out.labels, expected.held_out.labels, 4);
            data_free(&data);
        } else {
            cr_assert_not_null(strstr(error.text, "digits.csv.gz"), "%s", error.text);
            found++;
        }
        whole[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    cr_assert_gt(found, (packed - 10) * 8 * 9 / 10);
    data_free(&expected);

    memcpy(whole + packed, "junk", 4);
    write_plain("digits.csv.gz", whole, packed + 4);
    refused("digits", "4 bytes after its end");
}

Test(data, refuses_a_file_that_unpacks_to_too_much)
{
    size_t size = ((size_t)64 << 20) + 1;
    void *zeros = calloc(1, size);
    write_packed("digits.csv.gz", zeros, size);
    free(zeros);
    refused("digits", "more than 64 MiB");
}

Test(data, refuses_a_name_it_does_not_know)
{
    refused("numbers", "\"numbers\"");
}

/* ---------------------------------------------------------------- fashion */

enum { SIDE = 3, TRAIN = 12, HELD_OUT = 5, HEADER = 16, LABEL_HEADER = 8 };

static void put(uint8_t *at, uint32_t number)
{
    at[0] = (uint8_t)(number >> 24), at[1] = (uint8_t)(number >> 16);
    at[2] = (uint8_t)(number >> 8), at[3] = (uint8_t)number;
}

/* Pixel p of image i is i + p, its label i % 10. */
static size_t image_file(uint8_t *out, uint32_t count)
{
    put(out, 0x803), put(out + 4, count), put(out + 8, SIDE), put(out + 12, SIDE);
    for (size_t i = 0; i < count * SIDE * SIDE; i++) {
        out[HEADER + i] = (uint8_t)(i / (SIDE * SIDE) + i % (SIDE * SIDE));
    }
    return HEADER + count * SIDE * SIDE;
}

static size_t label_file(uint8_t *out, uint32_t count)
{
    put(out, 0x801), put(out + 4, count);
    for (size_t i = 0; i < count; i++) {
        out[LABEL_HEADER + i] = (uint8_t)(i % 10);
    }
    return LABEL_HEADER + count;
}

static uint8_t file_bytes[1024];

static void write_fashion(void)
{
    write_packed("train-images-idx3-ubyte.gz", file_bytes,
                 image_file(file_bytes, TRAIN));
    write_packed("train-labels-idx1-ubyte.gz", file_bytes,
                 label_file(file_bytes, TRAIN));
    write_packed("t10k-images-idx3-ubyte.gz", file_bytes,
                 image_file(file_bytes, HELD_OUT));
    write_packed("t10k-labels-idx1-ubyte.gz", file_bytes,
                 label_file(file_bytes, HELD_OUT));
}

Test(data, fashion_is_read_as_it_stands)
{
    write_fashion();
    struct data data;
    struct data_error error;
    cr_assert(data_load("fashion", directory, &data, &error), "%s", error.text);
    cr_assert(data.train.count == TRAIN && data.held_out.count == HELD_OUT);
    cr_assert(data.train.features == SIDE * SIDE && data.train.classes == 10);
    for (size_t i = 0; i < TRAIN; i++) {
        cr_assert_eq(data.train.labels[i], i % 10);
        for (size_t p = 0; p < SIDE * SIDE; p++) {
            cr_assert_eq(data.train.pixels[i * SIDE * SIDE + p], i + p);
        }
    }
    data_free(&data);
}

Test(data, refuses_fashion_that_is_not)
{
    static const struct {
        size_t at; /* which byte of the training images' file */
        uint8_t value;
        const char *words;
    } spoilt[] = {
        { 0, 1, "no IDX file" },
        { 2, 13, "no IDX file" },
        { 3, 1, "no IDX file" },
        { 7, TRAIN + 1, "its header says" },
        { 7, 0, "dimension 1 is 0" },
        { 4, 0xff, "dimension 1" },
        { 11, SIDE + 1, "its header says" },
        { 12, 0xff, "dimension 3" },
    };
    for (size_t i = 0; i < sizeof spoilt / sizeof spoilt[0]; i++) {
        write_fashion();
        size_t size = image_file(file_bytes, TRAIN);
        file_bytes[spoilt[i].at] = spoilt[i].value;
        write_packed("train-images-idx3-ubyte.gz", file_bytes, size);
        refused("fashion", spoilt[i].words);
        refused("fashion", "train-images-idx3-ubyte.gz");
    }

    write_fashion();
    size_t size = image_file(file_bytes, TRAIN);
    write_packed("train-images-idx3-ubyte.gz", file_bytes, size - 1);
    refused("fashion", "its header says");
    write_packed("train-images-idx3-ubyte.gz", file_bytes, size + 1);
    refused("fashion", "its header says");
    write_packed("train-images-idx3-ubyte.gz", file_bytes, 7);
    refused("fashion", "no IDX file");

    write_fashion();
    size = label_file(file_bytes, TRAIN);
    file_bytes[LABEL_HEADER + 3] = 10;
    write_packed("train-labels-idx1-ubyte.gz", file_bytes, size);
    refused("fashion", "label 4 is 10");
    write_packed("train-labels-idx1-ubyte.gz", file_bytes,
                 label_file(file_bytes, TRAIN - 1));
    refused("fashion", "11 labels for the 12 images");

    write_fashion();
    unlink(path_of("t10k-labels-idx1-ubyte.gz"));
    refused("fashion", "t10k-labels-idx1-ubyte.gz");
    write_fashion();
    size = image_file(file_bytes, HELD_OUT) - (size_t)HELD_OUT * SIDE;
    put(file_bytes + 12, SIDE - 1);
    write_packed("t10k-images-idx3-ubyte.gz", file_bytes, size);
    refused("fashion", "held out have 6 pixels, the others 9");
}

Test(data, gathers_the_images_asked_for_as_numbers_from_0_to_1)
{
    write_fashion();
    struct data data;
    struct data_error error;
    cr_assert(data_load("fashion", directory, &data, &error), "%s", error.text);
    float inputs[2 * SIDE * SIDE];
    uint8_t labels[2];
    data_gather(&data.train, (uint32_t[]){ 11, 2 }, 2, inputs, labels);
    cr_assert(labels[0] == 1 && labels[1] == 2);
    for (size_t p = 0; p < SIDE * SIDE; p++) {
        cr_assert_float_eq(inputs[p], (double)(11 + p) / 255, 1e-7);
        cr_assert_float_eq(inputs[SIDE * SIDE + p], (double)(2 + p) / 255, 1e-7);
    }
    data_free(&data);

    cr_assert(data_load("digits", NULL, &data, &error), "%s", error.text);
    float highest = 0;
    for (uint32_t i = 0; i < 64; i++) {
        float image[64];
        data_gather(&data.train, &i, 1, image, labels);
        for (size_t p = 0; p < 64; p++) {
            cr_assert(image[p] >= 0 && image[p] <= 1);
            highest = image[p] > highest ? image[p] : highest;
        }
    }
    cr_assert_float_eq(highest, 1, 0);
    data_free(&data);
}
