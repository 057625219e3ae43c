/* data — reads digits (CSV) and Fashion-MNIST (IDX), both gzipped.
 *
 * Called by the demo's worker and by its test. A file is read whole, unpacked whole
 * into memory of known size, and then parsed; nothing in it is believed before it is
 * checked.
 */
#include "data.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "generator.h"

/* The build links data/digits.csv.gz in as it is; the linker names it by its path. */
extern const uint8_t
    digits_start[] __asm__("_binary_client_examples_data_digits_csv_gz_start");
extern const uint8_t
    digits_end[] __asm__("_binary_client_examples_data_digits_csv_gz_end");

static const char fashion_directory[] = "/usr/share/datasets/fashion-mnist";

enum {
    CLASSES = 10,
    DIGIT_FEATURES = 64,
    DIGIT_HIGHEST = 16,
    DIGIT_IMAGES_MAX = 1 << 20,
    UNPACKED_MAX = 64 << 20, /* the largest file of Fashion-MNIST has 47 MB */
    IMAGE_SIDE_MAX = 1024
};

/* Of the digits' order; not the demo's seed, so that what is held out never changes. */
static const uint64_t split_seed = 20;

struct bytes {
    uint8_t *start;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static bool fail(struct data_error *error,
                                                       const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return false;
}

/* ---------------------------------------------------------------- files */

/* out->start is the caller's to free, also on failure. */
static bool read_file(const char *path, struct bytes *out, struct data_error *error)
{
    *out = (struct bytes){ NULL, 0 };
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return fail(error, "cannot open %s: %s", path, strerror(errno));
    }
    out->start = malloc(UNPACKED_MAX);
    if (out->start == NULL) {
        fclose(file);
        return fail(error, "no memory to read %s", path);
    }
    out->size = fread(out->start, 1, UNPACKED_MAX, file);
    bool failed = ferror(file) != 0;
    int reason = errno;
    bool whole = !failed && fgetc(file) == EOF;
    fclose(file);
    if (failed) {
        return fail(error, "cannot read %s: %s", path, strerror(reason));
    }
    return whole || fail(error, "%s is longer than %d MiB", path, UNPACKED_MAX >> 20);
}

/* One gzip member, its checksum verified by zlib, nothing after it. out->start is the
 * caller's to free, also on failure. */
static bool unpack(const char *path, const uint8_t *packed, size_t size,
                   struct bytes *out, struct data_error *error)
{
    *out = (struct bytes){ malloc(UNPACKED_MAX), 0 };
    if (out->start == NULL || size > UINT32_MAX) {
        return fail(error, "no memory to unpack %s", path);
    }
    z_stream stream = { .next_in = (z_const Bytef *)packed,
                        .avail_in = (uInt)size,
                        .next_out = out->start,
                        .avail_out = UNPACKED_MAX };
    enum { GZIP = 16 };
    if (inflateInit2(&stream, GZIP + MAX_WBITS) != Z_OK) {
        return fail(error, "no memory to unpack %s", path);
    }
    int result = inflate(&stream, Z_FINISH);
    out->size = UNPACKED_MAX - stream.avail_out;
    size_t left = stream.avail_in;
    inflateEnd(&stream);
    if (result == Z_DATA_ERROR || result == Z_NEED_DICT) {
        return fail(error, "%s is damaged or no gzip file", path);
    }
    if (result != Z_STREAM_END && out->size == UNPACKED_MAX) {
        return fail(error, "%s unpacks to more than %d MiB", path, UNPACKED_MAX >> 20);
    }
    if (result != Z_STREAM_END) {
        return fail(error, "%s is cut off", path);
    }
    if (left != 0) {
        return fail(error, "%s has %zu bytes after its end", path, left);
    }
    return true;
}

static bool read_packed(const char *path, struct bytes *out, struct data_error *error)
{
    struct bytes packed;
    *out = (struct bytes){ NULL, 0 };
    bool ok = read_file(path, &packed, error) &&
              unpack(path, packed.start, packed.size, out, error);
    free(packed.start);
    return ok;
}

static void set_free(struct data_set *set)
{
    free(set->pixels);
    free(set->labels);
    *set = (struct data_set){ 0 };
}

static bool set_new(struct data_set *out, size_t count, size_t features, float scale,
                    struct data_error *error)
{
    *out = (struct data_set){ .count = count,
                              .features = features,
                              .classes = CLASSES,
                              .scale = scale,
                              .pixels = malloc(count * features),
                              .labels = malloc(count) };
    if (out->pixels == NULL || out->labels == NULL) {
        set_free(out);
        return fail(error, "no memory for %zu images", count);
    }
    return true;
}

/* ---------------------------------------------------------------- digits: CSV */

/* A whole number of at most `highest`, and then exactly `end`. */
static bool read_number(const char **at, const char *stop, unsigned highest, char end,
                        uint8_t *out)
{
    const char *p = *at;
    unsigned value = 0;
    size_t digits = 0;
    while (p < stop && *p >= '0' && *p <= '9' && digits < 3) {
        value = value * 10 + (unsigned)(*p++ - '0');
        digits++;
    }
    if (digits == 0 || value > highest || p == stop || *p != end) {
        return false;
    }
    *at = p + 1;
    *out = (uint8_t)value;
    return true;
}

static bool parse_digits(const char *path, struct bytes text, struct data_set *out,
                         struct data_error *error)
{
    const char *at = (const char *)text.start, *stop = at + text.size;
    size_t lines = 0;
    for (const char *p = at; p < stop; p++) {
        lines += *p == '\n';
    }
    /* Ten is the least of which a fifth can be held out and something be learnt. */
    if (lines < CLASSES || lines > DIGIT_IMAGES_MAX || stop[-1] != '\n') {
        return fail(error, "%s: %zu whole lines instead of %d to %d", path, lines,
                    CLASSES, DIGIT_IMAGES_MAX);
    }
    if (!set_new(out, lines, DIGIT_FEATURES, 1.0F / DIGIT_HIGHEST, error)) {
        return false;
    }
    for (size_t i = 0; i < lines; i++) {
        uint8_t *pixels = out->pixels + i * DIGIT_FEATURES;
        bool ok = true;
        for (size_t j = 0; ok && j < DIGIT_FEATURES; j++) {
            ok = read_number(&at, stop, DIGIT_HIGHEST, ',', &pixels[j]);
        }
        if (!ok || !read_number(&at, stop, CLASSES - 1, '\n', &out->labels[i])) {
            set_free(out);
            return fail(error,
                        "%s:%zu: a line is %d whole numbers of 0 to %d and a digit, "
                        "with commas between them",
                        path, i + 1, DIGIT_FEATURES, DIGIT_HIGHEST);
        }
    }
    return true;
}

static bool copy_images(const struct data_set *from, const uint32_t *indices,
                        size_t count, struct data_set *out, struct data_error *error)
{
    if (!set_new(out, count, from->features, from->scale, error)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(out->pixels + i * from->features,
               from->pixels + indices[i] * from->features, from->features);
        out->labels[i] = from->labels[indices[i]];
    }
    return true;
}

/* Four fifths to learn from, one fifth held out. */
static bool split(const struct data_set *all, struct data *out,
                  struct data_error *error)
{
    uint32_t *order = malloc(all->count * sizeof *order);
    if (order == NULL) {
        return fail(error, "no memory for %zu images", all->count);
    }
    for (size_t i = 0; i < all->count; i++) {
        order[i] = (uint32_t)i;
    }
    generator_shuffle(&(struct generator){ split_seed }, order, all->count);
    size_t train = all->count * 4 / 5;
    bool ok =
        copy_images(all, order, train, &out->train, error) &&
        copy_images(all, order + train, all->count - train, &out->held_out, error);
    free(order);
    return ok;
}

static bool load_digits(const char *directory, struct data *out,
                        struct data_error *error)
{
    char path[4096] = "the digits inside this program";
    struct bytes text;
    bool ok;
    if (directory == NULL) {
        size_t size = (uintptr_t)digits_end - (uintptr_t)digits_start;
        ok = unpack(path, digits_start, size, &text, error);
    } else {
        snprintf(path, sizeof path, "%s/digits.csv.gz", directory);
        ok = read_packed(path, &text, error);
    }
    struct data_set all = { 0 };
    ok = ok && parse_digits(path, text, &all, error) && split(&all, out, error);
    set_free(&all);
    free(text.start);
    return ok;
}

/* ---------------------------------------------------------------- fashion: IDX */

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* An IDX file of bytes with so many dimensions, none of them 0; *out points to its
 * values. */
static bool parse_idx(const char *path, struct bytes file, size_t rank, size_t *shape,
                      const uint8_t **out, struct data_error *error)
{
    enum { BYTES = 8 }; /* the element type in the third byte of the magic number */
    size_t header = 4 + 4 * rank;
    if (file.size < header || big_endian(file.start) != (BYTES << 8 | rank)) {
        return fail(error, "%s is no IDX file of bytes with %zu dimensions", path,
                    rank);
    }
    size_t values = 1;
    for (size_t d = 0; d < rank; d++) {
        shape[d] = big_endian(file.start + 4 + 4 * d);
        if (shape[d] == 0 || shape[d] > UNPACKED_MAX / values) {
            return fail(error, "%s: its dimension %zu is %zu", path, d + 1, shape[d]);
        }
        values *= shape[d];
    }
    if (file.size - header != values) {
        return fail(error, "%s has %zu bytes of values, its header says %zu", path,
                    file.size - header, values);
    }
    *out = file.start + header;
    return true;
}

static bool fill_fashion(const char *image_path, struct bytes image_file,
                         const char *label_path, struct bytes label_file,
                         struct data_set *out, struct data_error *error)
{
    size_t shape[3], count;
    const uint8_t *pixels, *labels;
    if (!parse_idx(image_path, image_file, 3, shape, &pixels, error) ||
        !parse_idx(label_path, label_file, 1, &count, &labels, error)) {
        return false;
    }
    if (shape[1] > IMAGE_SIDE_MAX || shape[2] > IMAGE_SIDE_MAX) {
        return fail(error, "%s: images of %zu x %zu, at most %d x %d can be",
                    image_path, shape[1], shape[2], IMAGE_SIDE_MAX, IMAGE_SIDE_MAX);
    }
    if (count != shape[0]) {
        return fail(error, "%s has %zu labels for the %zu images of %s", label_path,
                    count, shape[0], image_path);
    }
    for (size_t i = 0; i < count; i++) {
        if (labels[i] >= CLASSES) {
            return fail(error, "%s: label %zu is %u, not one of 0 to %d", label_path,
                        i + 1, labels[i], CLASSES - 1);
        }
    }
    if (!set_new(out, count, shape[1] * shape[2], 1.0F / UINT8_MAX, error)) {
        return false;
    }
    memcpy(out->pixels, pixels, count * out->features);
    memcpy(out->labels, labels, count);
    return true;
}

static bool load_fashion_set(const char *directory, const char *part,
                             struct data_set *out, struct data_error *error)
{
    char image_path[4096], label_path[4096];
    snprintf(image_path, sizeof image_path, "%s/%s-images-idx3-ubyte.gz", directory,
             part);
    snprintf(label_path, sizeof label_path, "%s/%s-labels-idx1-ubyte.gz", directory,
             part);
    struct bytes images, labels = { NULL, 0 };
    bool ok = read_packed(image_path, &images, error) &&
              read_packed(label_path, &labels, error) &&
              fill_fashion(image_path, images, label_path, labels, out, error);
    free(images.start);
    free(labels.start);
    return ok;
}

static bool load_fashion(const char *directory, struct data *out,
                         struct data_error *error)
{
    if (directory == NULL) {
        directory = fashion_directory;
    }
    if (!load_fashion_set(directory, "train", &out->train, error) ||
        !load_fashion_set(directory, "t10k", &out->held_out, error)) {
        return false;
    }
    return out->train.features == out->held_out.features ||
           fail(error, "%s: the images held out have %zu pixels, the others %zu",
                directory, out->held_out.features, out->train.features);
}

/* ---------------------------------------------------------------- the door */

bool data_load(const char *name, const char *directory, struct data *out,
               struct data_error *error)
{
    static const struct {
        const char *name;
        bool (*load)(const char *directory, struct data *out, struct data_error *error);
    } sources[] = { { "digits", load_digits }, { "fashion", load_fashion } };

    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        if (strcmp(name, sources[i].name) == 0) {
            struct data data = { 0 };
            if (!sources[i].load(directory, &data, error)) {
                data_free(&data);
                return false;
            }
            *out = data;
            return true;
        }
    }
    return fail(error, "there is no data named \"%s\"; digits and fashion are", name);
}

void data_free(struct data *data)
{
    set_free(&data->train);
    set_free(&data->held_out);
}

void data_gather(const struct data_set *set, const uint32_t *indices, size_t n,
                 float *inputs, uint8_t *labels)
{
    for (size_t i = 0; i < n; i++) {
        assert(indices[i] < set->count);
        const uint8_t *pixels = set->pixels + indices[i] * set->features;
        float *input = inputs + i * set->features;
        for (size_t j = 0; j < set->features; j++) {
            input[j] = (float)pixels[j] * set->scale;
        }
        labels[i] = set->labels[indices[i]];
    }
}
