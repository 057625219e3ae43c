/* curve — the numbers of a training run, and gnuplot's picture of them.
 *
 * Called by demo.c.
 */
#include "curve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drawing.h"

enum { STEPS_MAX = 1 << 27, DRAWING_MS = 60000 };

bool curve_init(struct curve *curve, size_t steps, size_t workers, size_t epoch)
{
    *curve = (struct curve){ 0 };
    if (steps == 0 || steps > STEPS_MAX) {
        return false;
    }
    *curve = (struct curve){ .steps = steps,
                             .workers = workers,
                             .epoch = epoch > 0 ? epoch : 1,
                             .loss = calloc(steps, sizeof(double)),
                             .reports = calloc(steps, sizeof(uint32_t)),
                             .accuracy = malloc(steps * sizeof(double)) };
    if (curve->loss == NULL || curve->reports == NULL || curve->accuracy == NULL) {
        curve_fini(curve);
        return false;
    }
    for (size_t i = 0; i < steps; i++) {
        curve->accuracy[i] = -1;
    }
    return true;
}

void curve_fini(struct curve *curve)
{
    free(curve->loss);
    free(curve->reports);
    free(curve->accuracy);
    *curve = (struct curve){ 0 };
}

void curve_add_loss(struct curve *curve, uint64_t step, double loss)
{
    if (step < 1 || step > curve->steps) {
        return;
    }
    curve->loss[step - 1] += loss;
    curve->reports[step - 1]++;
    while (curve->complete < curve->steps &&
           curve->reports[curve->complete] >= curve->workers) {
        curve->complete++;
    }
}

void curve_add_accuracy(struct curve *curve, uint64_t step, double percent)
{
    if (step < 1 || step > curve->steps) {
        return;
    }
    curve->accuracy[step - 1] = percent;
    curve->best = percent > curve->best ? percent : curve->best;
}

/* Mean over the epoch's steps that end with this one (from 0). */
static double average(const struct curve *curve, size_t last)
{
    size_t n = last + 1 < curve->epoch ? last + 1 : curve->epoch;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += curve->loss[last - i] / (double)curve->reports[last - i];
    }
    return sum / (double)n;
}

double curve_loss(const struct curve *curve)
{
    return curve->complete > 0 ? average(curve, curve->complete - 1) : 0;
}

double curve_first_loss(const struct curve *curve)
{
    return curve->complete > 0 ? curve->loss[0] / (double)curve->reports[0] : 0;
}

/* ---------------------------------------------------------------- the picture */

/* For a text in single quotes of gnuplot's. */
static void write_quoted(FILE *file, const char *text)
{
    fputc('\'', file);
    for (; *text != '\0'; text++) {
        fputs(*text == '\'' ? "''" : (char[]){ *text, '\0' }, file);
    }
    fputc('\'', file);
}

static void write_loss(const struct curve *curve, FILE *file)
{
    fputs("# step, loss of its images, mean loss over an epoch\n", file);
    for (size_t i = 0; i < curve->complete; i++) {
        fprintf(file, "%zu %.9g %.9g\n", i + 1,
                curve->loss[i] / (double)curve->reports[i], average(curve, i));
    }
}

static void write_accuracy(const struct curve *curve, FILE *file)
{
    fputs("# step, held-out images that are right, in per cent\n", file);
    for (size_t i = 0; i < curve->steps; i++) {
        if (curve->accuracy[i] >= 0) {
            fprintf(file, "%zu %.9g\n", i + 1, curve->accuracy[i]);
        }
    }
}

static void write_script(const struct curve *curve, FILE *file, const char *title,
                         const char *subtitle)
{
    bool has_accuracy = curve->best > 0;
    fputs("set terminal svg size 960,560 font 'sans-serif,15' background '#ffffff'\n"
          "set output 'loss.svg'\n"
          "set title ",
          file);
    write_quoted(file, title);
    fputs(".\"\\n\".", file);
    write_quoted(file, subtitle);
    fprintf(file, " noenhanced\nset xrange [0:%zu]\n", curve->steps);
    fputs("set xlabel 'step'\n"
          "set ylabel 'training loss (cross-entropy)' textcolor '#1f5fa8'\n"
          "set logscale y\n"
          "set format y '%g'\n"
          "set grid xtics ytics linetype 1 linewidth 0.5 linecolor '#cccccc'\n"
          "set bmargin 5.5\n"
          "set key below horizontal maxrows 1 Left reverse samplen 2\n"
          "set border 11 linecolor '#999999'\n"
          "set tics nomirror scale 0 textcolor '#333333'\n",
          file);
    if (has_accuracy) {
        fputs("set y2label 'held-out accuracy (%)' textcolor '#b9551a'\n"
              "set y2tics\n"
              "set y2range [*:100]\n",
              file);
    }
    fputs("plot 'loss.dat' using 1:2 with lines linewidth 1 linecolor '#b8cde6' "
          "title 'loss of a step', "
          "'' using 1:3 with lines linewidth 2.5 linecolor '#1f5fa8' "
          "title 'mean over an epoch'",
          file);
    if (has_accuracy) {
        fputs(", 'accuracy.dat' using 1:2 axes x1y2 with lines linewidth 2.5 "
              "linecolor '#d9722e' title 'accuracy (right)'",
              file);
    }
    fputc('\n', file);
}

/* "DIRECTORY/NAME", opened for writing. */
static FILE *create(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return fopen(path, "w");
}

static bool write_files(const struct curve *curve, const char *directory,
                        const char *title, const char *subtitle)
{
    FILE *loss = create(directory, "loss.dat");
    FILE *accuracy = create(directory, "accuracy.dat");
    FILE *script = create(directory, "loss.gp");
    bool ok = loss != NULL && accuracy != NULL && script != NULL;
    if (ok) {
        write_loss(curve, loss);
        write_accuracy(curve, accuracy);
        write_script(curve, script, title, subtitle);
    }
    FILE *files[] = { loss, accuracy, script };
    for (size_t i = 0; i < 3; i++) {
        ok = files[i] != NULL && fclose(files[i]) == 0 && ok;
    }
    return ok;
}

bool curve_draw(const struct curve *curve, const char *directory, const char *title,
                const char *subtitle, char *why, size_t capacity)
{
    if (curve->complete < 2) {
        snprintf(why, capacity, "there are too few steps for a line");
        return false;
    }
    if (!write_files(curve, directory, title, subtitle)) {
        snprintf(why, capacity, "cannot write to %s: %s", directory, strerror(errno));
        return false;
    }
    const char *const gnuplot[] = { "gnuplot", "loss.gp", NULL };
    return drawing_run(directory, gnuplot, "gnuplot-nox", DRAWING_MS, why, capacity);
}
