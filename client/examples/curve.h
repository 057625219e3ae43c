/* curve — how loss and accuracy went, as numbers and as a picture.
 *
 * Collects what the demo's workers report, step by step, and has gnuplot draw it. The
 * main thread only.
 */
#ifndef OPTIMD_EXAMPLES_CURVE_H
#define OPTIMD_EXAMPLES_CURVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct curve {
    size_t steps, workers, epoch;
    size_t window;      /* steps that the drawn mean is of */
    double *loss;       /* steps: sums over the workers that have reported */
    uint32_t *reports;  /* steps: how many have */
    double *accuracy;   /* steps: in per cent; negative: not evaluated then */
    size_t complete;    /* so many steps, from the first, have all their reports */
    double best, worst; /* accuracy; best is 0 before there is one */
};

/* False without memory, or if steps is 0 or absurd. Steps are counted from 1; epoch is
 * how many of them see every image once. */
bool curve_init(struct curve *curve, size_t steps, size_t workers, size_t epoch);
void curve_fini(struct curve *curve);

/* A step outside 1 .. steps is passed over. */
void curve_add_loss(struct curve *curve, uint64_t step, double loss);
void curve_add_accuracy(struct curve *curve, uint64_t step, double percent);

/* Mean loss over all workers and the last epoch's complete steps; of the first steps
 * while there is no whole epoch; 0 before the first. */
double curve_loss(const struct curve *curve);

/* The same over the last few steps: an epoch, or a twenty-fifth of all steps if that is
 * less. */
double curve_recent_loss(const struct curve *curve);

/* The mean loss of the very first step. */
double curve_first_loss(const struct curve *curve);

/* Writes loss.dat, accuracy.dat and loss.gp into the directory and has gnuplot make
 * loss.svg of them. False if the picture is not there; why then says why. */
bool curve_draw(const struct curve *curve, const char *directory, const char *title,
                const char *subtitle, char *why, size_t capacity);

#endif
