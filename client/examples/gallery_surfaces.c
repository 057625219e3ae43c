/* gallery_surfaces — Beale's function, Rosenbrock's valley and a saddle.
 *
 * Called by the rest of the gallery and by its tests. The gradients of Beale's function
 * and of the saddle are those of the golden trajectories.
 */
#include "gallery_surfaces.h"

static double beale(double x, double y)
{
    double p = 1.5 - x + x * y, q = 2.25 - x + x * y * y, r = 2.625 - x + x * y * y * y;
    return p * p + q * q + r * r;
}

static void beale_gradient(double x, double y, double out[2])
{
    double p = 1.5 - x + x * y, q = 2.25 - x + x * y * y, r = 2.625 - x + x * y * y * y;
    out[0] = 2 * p * (y - 1) + 2 * q * (y * y - 1) + 2 * r * (y * y * y - 1);
    out[1] = 2 * p * x + 4 * q * x * y + 6 * r * x * y * y;
}

static double valley(double x, double y)
{
    double a = 1 - x, b = y - x * x;
    return a * a + 100 * b * b;
}

static void valley_gradient(double x, double y, double out[2])
{
    double b = y - x * x;
    out[0] = -2 * (1 - x) - 400 * b * x;
    out[1] = 200 * b;
}

static double saddle(double x, double y)
{
    return x * x + y * y * y * y - 2 * y * y;
}

static void saddle_gradient(double x, double y, double out[2])
{
    out[0] = 2 * x;
    out[1] = 4 * y * y * y - 4 * y;
}

const struct gallery_surface gallery_surfaces[GALLERY_SURFACES] = {
    [GALLERY_BEALE] = { .name = "beale",
                        .title = "Beale's function",
                        .formula = "(1.5 − x + xy)² + (2.25 − x + xy²)² + "
                                   "(2.625 − x + xy³)²",
                        .start = { 1.0F, 1.5F },
                        .minimum = { 3, 0.5 },
                        .from = { -0.3, -1.6 },
                        .to = { 4.2, 1.8 },
                        .grid = 120,
                        .steps = 300,
                        .near = 1e-2,
                        .value = beale,
                        .gradient = beale_gradient },
    [GALLERY_VALLEY] = { .name = "valley",
                         .title = "Rosenbrock's valley",
                         .formula = "(1 − x)² + 100 (y − x²)²",
                         .start = { -1.2F, 1.0F },
                         .minimum = { 1, 1 },
                         .from = { -1.7, -0.6 },
                         .to = { 1.7, 2.2 },
                         .grid = 120,
                         .steps = 300,
                         .near = 1e-1,
                         .value = valley,
                         .gradient = valley_gradient },
    [GALLERY_SADDLE] = { .name = "saddle",
                         .title = "A saddle",
                         .formula = "x² + y⁴ − 2y²",
                         .start = { 1.5F,
                                    0x1p-20F }, /* on the ridge, but for a breath */
                         .minimum = { 0, 1 },
                         .least = -1,
                         .from = { -1.0, -1.3 },
                         .to = { 1.6, 1.3 },
                         .grid = 26,
                         .steps = 120,
                         .near = 1e-2,
                         .value = saddle,
                         .gradient = saddle_gradient },
};
