/* data — pictures to learn from: handwritten digits (inside the program) or clothes.
 *
 *   digits    1,797 images of 8 x 8, built into the program; a fifth is held out, by a
 *             shuffle that is always the same
 *   fashion   Fashion-MNIST, 60,000 images of 28 x 28 and 10,000 held out, from the
 *             files of Debian's package dataset-fashion-mnist
 *
 * Files are checked strictly: anything missing, damaged, too long or out of range is
 * refused with a sentence. No state; any thread.
 */
#ifndef OPTIMD_EXAMPLES_DATA_H
#define OPTIMD_EXAMPLES_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct data_set {
    size_t count;    /* images */
    size_t features; /* numbers in one */
    size_t classes;
    float scale;     /* times this, a pixel is 0 to 1 */
    uint8_t *pixels; /* count x features */
    uint8_t *labels; /* count, each below classes */
};

struct data {
    struct data_set train, held_out;
};

struct data_error {
    char text[256];
};

/* name       "digits" or "fashion"
 * directory  where the files are (digits.csv.gz, or the four of Fashion-MNIST);
 *            NULL: the digits inside the program, the clothes where Debian puts them
 * On success *out is the caller's, to be given to data_free; otherwise error says what
 * is wrong. */
bool data_load(const char *name, const char *directory, struct data *out,
               struct data_error *error);
void data_free(struct data *data);

/* A batch as floats: images indices[0 .. n) of a set, one after the other.
 * inputs has room for n x features, labels for n. */
void data_gather(const struct data_set *set, const uint32_t *indices, size_t n,
                 float *inputs, uint8_t *labels);

#endif
