/* curve — the numbers and axes of the demo's picture. */
#include "client/examples/curve.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/optimd-test-curve-XXXXXX";
static char text[1 << 16];

static void read_drawn(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
}

/* Two epochs of 100 steps of two workers, loss 1 falling to 0.5 with the second. */
static void fill(struct curve *curve)
{
    cr_assert(curve_init(curve, 200, 2, 100));
    for (size_t step = 1; step <= 200; step++) {
        curve_add_loss(curve, step, step <= 100 ? 1 : 0.5);
        curve_add_loss(curve, step, step <= 100 ? 1 : 0.5);
    }
    curve_add_accuracy(curve, 100, 84);
    curve_add_accuracy(curve, 200, 86);
}

static void draw(const struct curve *curve)
{
    char why[256];
    sigset_t ended; /* as children.h asks */
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, NULL);
    cr_assert_not_null(mkdtemp(folder));
    /* Files and script are there even where there is no gnuplot. */
    curve_draw(curve, folder, "digits", "adam", why, sizeof why);
}

static void remove_drawn(void)
{
    static const char *const names[] = { "loss.dat", "accuracy.dat", "loss.gp",
                                         "loss.svg", "gnuplot.log",  "" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
}

/* Whether a row of loss.dat has a mean; what it is. */
static double mean_at(size_t step)
{
    char row[32];
    snprintf(row, sizeof row, "\n%zu ", step);
    const char *at = strstr(text, row);
    cr_assert_not_null(at, "step %zu", step);
    double mean = 0;
    cr_assert_eq(sscanf(at + strlen(row), "%*s %lf", &mean), 1);
    return mean;
}

Test(curve, has_no_mean_before_there_are_enough_steps, .fini = remove_drawn)
{
    struct curve curve;
    fill(&curve);
    cr_assert_eq(curve.window, 8);
    draw(&curve);
    read_drawn("loss.dat");
    cr_assert(isnan(mean_at(1)) && isnan(mean_at(7)));
    cr_assert_float_eq(mean_at(8), 1, 1e-12);
    cr_assert_float_eq(mean_at(104), 0.75, 1e-12);
    cr_assert_float_eq(mean_at(108), 0.5, 1e-12);
    curve_fini(&curve);
}

Test(curve, has_axes_from_its_least_to_its_greatest, .fini = remove_drawn)
{
    struct curve curve;
    double least, greatest;
    fill(&curve);
    draw(&curve);
    read_drawn("loss.gp");
    cr_assert_eq(
        sscanf(strstr(text, "set yrange"), "set yrange [%lf:%lf]", &least, &greatest),
        2);
    cr_assert(least < 0.5 && least > 0.4 && greatest > 1 && greatest < 1.2);
    cr_assert_eq(
        sscanf(strstr(text, "set y2range"), "set y2range [%lf:%lf]", &least, &greatest),
        2);
    cr_assert(least < 84 && least > 83 && greatest > 86 && greatest < 87);
    curve_fini(&curve);
}

Test(curve, tells_the_loss_of_late_and_of_an_epoch)
{
    struct curve curve;
    cr_assert(curve_init(&curve, 200, 1, 100));
    cr_assert_float_eq(curve_recent_loss(&curve), 0, 0);
    for (size_t step = 1; step <= 150; step++) {
        curve_add_loss(&curve, step, step <= 100 ? 1 : 0.5);
    }
    cr_assert_float_eq(curve_recent_loss(&curve), 0.5, 1e-12);
    cr_assert_float_eq(curve_loss(&curve), 0.75, 1e-12);
    curve_fini(&curve);
}
