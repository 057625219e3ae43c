/* curve — the numbers of a training run, and gnuplot's picture of them.
 *
 * Called by demo.c.
 */
#include "curve.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drawing.h"

enum { STEPS_MAX = 1 << 27, DRAWING_MS = 60000, WINDOWS = 25 };

bool curve_init(struct curve *curve, size_t steps, size_t workers, size_t epoch)
{
    *curve = (struct curve){ 0 };
    if (steps == 0 || steps > STEPS_MAX) {
        return false;
    }
    size_t whole = epoch > 0 ? epoch : 1;
    size_t part = steps > WINDOWS ? steps / WINDOWS : 1;
    *curve = (struct curve){ .steps = steps,
                             .workers = workers,
                             .epoch = whole,
                             .window = part < whole ? part : whole,
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
    curve->worst = curve->best > 0 ? fmin(percent, curve->worst) : percent;
    curve->best = fmax(percent, curve->best);
}

/* Of all workers, in one step (from 0). */
static double loss_of(const struct curve *curve, size_t step)
{
    return curve->loss[step] / (double)curve->reports[step];
}

/* Mean over the n complete steps that end with this one (from 0), or what there is of
 * them. */
static double average(const struct curve *curve, size_t last, size_t n)
{
    double sum = 0;
    n = last + 1 < n ? last + 1 : n;
    for (size_t i = 0; i < n; i++) {
        sum += loss_of(curve, last - i);
    }
    return sum / (double)n;
}

double curve_loss(const struct curve *curve)
{
    return curve->complete > 0 ? average(curve, curve->complete - 1, curve->epoch) : 0;
}

double curve_recent_loss(const struct curve *curve)
{
    return curve->complete > 0 ? average(curve, curve->complete - 1, curve->window) : 0;
}

double curve_first_loss(const struct curve *curve)
{
    return curve->complete > 0 ? loss_of(curve, 0) : 0;
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

/* The mean has no value where there are not as many steps yet. */
static void write_loss(const struct curve *curve, FILE *file)
{
    fprintf(file, "# step, loss of its images, mean loss of the last %zu steps\n",
            curve->window);
    for (size_t i = 0; i < curve->complete; i++) {
        fprintf(file, "%zu %.9g ", i + 1, loss_of(curve, i));
        if (i + 1 < curve->window) {
            fputs("NaN\n", file);
        } else {
            fprintf(file, "%.9g\n", average(curve, i, curve->window));
        }
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

/* Loss on the left, between its least and its greatest: on a logarithmic axis gnuplot
 * would go on to the next power of ten. The ticks are 1, 2 and 5 of each power; where
 * there are many powers, only these. */
static void write_loss_axis(const struct curve *curve, FILE *file)
{
    double least = loss_of(curve, 0), greatest = least;
    for (size_t i = 1; i < curve->complete; i++) {
        least = fmin(least, loss_of(curve, i));
        greatest = fmax(greatest, loss_of(curve, i));
    }
    fputs("set ylabel 'training loss (cross-entropy)' textcolor '#1f5fa8'\n"
          "set format y '%g'\n",
          file);
    if (!(least > 0 && isfinite(greatest))) {
        return;
    }
    fprintf(file, "set logscale y\nset yrange [%.9g:%.9g]\nset ytics (", least / 1.05,
            greatest * 1.05);
    bool many = greatest / least > 200;
    const char *comma = "";
    for (int power = (int)floor(log10(least)); power <= (int)ceil(log10(greatest));
         power++) {
        fprintf(file, "%s1e%d", comma, power);
        if (!many) {
            fprintf(file, ", 2e%d, 5e%d", power, power);
        }
        comma = ", ";
    }
    fputs(")\n", file);
}

/* Accuracy on the right, with a little room around it. */
static void write_accuracy_axis(const struct curve *curve, FILE *file)
{
    fprintf(file,
            "set y2label 'held-out accuracy (%%)' textcolor '#b9551a'\n"
            "set y2tics\n"
            "set y2range [%.9g:%.9g]\n",
            curve->worst - 0.05 * (curve->best - curve->worst) - 0.5,
            fmin(100, curve->best + 0.05 * (curve->best - curve->worst) + 0.5));
}

/* Small, so that its letters are large enough on a telephone too; it scales. */
static void write_script(const struct curve *curve, FILE *file, const char *title,
                         const char *subtitle)
{
    bool has_accuracy = curve->best > 0;
    fputs("set terminal svg size 480,420 dynamic font 'sans-serif,14' "
          "background '#ffffff'\n"
          "set output 'loss.svg'\n"
          "set title ",
          file);
    write_quoted(file, title);
    fputs(".\"\\n\".", file);
    write_quoted(file, subtitle);
    fprintf(file, " noenhanced\nset xrange [0:%zu]\n", curve->steps);
    fputs("set xlabel 'step'\n"
          "set grid xtics ytics linetype 1 linewidth 0.5 linecolor '#cccccc'\n"
          "set bmargin 6.5\n"
          "set key below horizontal maxrows 1 Left reverse samplen 2\n"
          "set border 11 linecolor '#999999'\n"
          "set tics nomirror scale 0 textcolor '#333333'\n",
          file);
    write_loss_axis(curve, file);
    if (has_accuracy) {
        write_accuracy_axis(curve, file);
    }
    fprintf(file,
            "plot 'loss.dat' using 1:2 with lines linewidth 1 linecolor '#b8cde6' "
            "title 'loss of a step', "
            "'' using 1:3 with lines linewidth 2.5 linecolor '#1f5fa8' "
            "title 'mean of %zu steps'",
            curve->window);
    if (has_accuracy) {
        fputs(", 'accuracy.dat' using 1:2 axes x1y2 with linespoints linewidth 2.5 "
              "pointtype 7 pointsize 0.2 linecolor '#d9722e' title 'accuracy (right)'",
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
