/* mlp — the demo's network: its gradient against finite differences of a second,
 * independent forward pass in double precision, and whether it learns. */
#include "client/examples/mlp.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/examples/data.h"
#include "client/examples/generator.h"

enum { TENSORS_MAX = 2 * MLP_LAYERS_MAX };

struct values {
    float *tensor[TENSORS_MAX];
};

static struct values values_new(const struct mlp *mlp)
{
    struct values values;
    for (size_t i = 0; i < mlp_tensors(mlp); i++) {
        values.tensor[i] = malloc(mlp_tensor(mlp, i)->elements * sizeof(float));
        cr_assert_not_null(values.tensor[i]);
        for (size_t j = 0; j < mlp_tensor(mlp, i)->elements; j++) {
            values.tensor[i][j] = NAN; /* whoever leaves one unwritten shows it */
        }
    }
    return values;
}

static void values_free(const struct mlp *mlp, struct values *values)
{
    for (size_t i = 0; i < mlp_tensors(mlp); i++) {
        free(values->tensor[i]);
    }
}

/* The mean loss straight from the definition, in double; one weight, if any, moved. */
static double reference_loss(const size_t *widths, size_t layers, float *const *w,
                             const float *inputs, const uint8_t *labels, size_t n,
                             const float *moved, double by)
{
    double loss = 0;
    for (size_t image = 0; image < n; image++) {
        double a[256], z[256];
        for (size_t i = 0; i < widths[0]; i++) {
            a[i] = (double)inputs[image * widths[0] + i];
        }
        for (size_t l = 0; l < layers; l++) {
            for (size_t j = 0; j < widths[l + 1]; j++) {
                const float *bias = &w[2 * l + 1][j];
                z[j] = (double)*bias + (bias == moved ? by : 0);
                for (size_t i = 0; i < widths[l]; i++) {
                    const float *weight = &w[2 * l][i * widths[l + 1] + j];
                    z[j] += a[i] * ((double)*weight + (weight == moved ? by : 0));
                }
            }
            for (size_t j = 0; j < widths[l + 1]; j++) {
                a[j] = l + 1 < layers ? fmax(z[j], 0) : z[j];
            }
        }
        double sum = 0;
        for (size_t j = 0; j < widths[layers]; j++) {
            sum += exp(a[j]);
        }
        loss += log(sum) - a[labels[image]];
    }
    return loss / (double)n;
}

static void check_gradient(const size_t *widths, size_t layers, size_t n)
{
    struct mlp *mlp = mlp_new(widths, layers, n + 3);
    cr_assert_not_null(mlp);
    struct values w = values_new(mlp), g = values_new(mlp);
    mlp_start(mlp, 11, w.tensor);

    struct generator generator = { 5 };
    for (size_t i = 1; i < mlp_tensors(mlp); i += 2) {
        for (size_t j = 0; j < mlp_tensor(mlp, i)->elements; j++) {
            w.tensor[i][j] = (float)(0.3 * generator_normal(&generator));
        }
    }
    float *inputs = malloc(n * widths[0] * sizeof *inputs);
    uint8_t *labels = malloc(n);
    for (size_t i = 0; i < n * widths[0]; i++) {
        inputs[i] = (float)generator_normal(&generator);
    }
    for (size_t i = 0; i < n; i++) {
        labels[i] = (uint8_t)generator_below(&generator, widths[layers]);
    }

    double loss = mlp_gradient(mlp, w.tensor, inputs, labels, n, g.tensor);
    double expected =
        reference_loss(widths, layers, w.tensor, inputs, labels, n, NULL, 0);
    cr_assert(fabs(loss - expected) < 1e-5 * expected, "loss %.9g, in double %.9g",
              loss, expected);

    /* Small enough that next to no ReLU turns within it, large enough for double. */
    const double by = 1e-6;
    for (size_t t = 0; t < mlp_tensors(mlp); t++) {
        for (size_t j = 0; j < mlp_tensor(mlp, t)->elements; j++) {
            const float *moved = &w.tensor[t][j];
            double slope = (reference_loss(widths, layers, w.tensor, inputs, labels, n,
                                           moved, by) -
                            reference_loss(widths, layers, w.tensor, inputs, labels, n,
                                           moved, -by)) /
                           (2 * by);
            double gradient = (double)g.tensor[t][j];
            cr_assert(fabs(gradient - slope) < 2e-5 + 1e-4 * fabs(slope),
                      "%s[%zu] of %zu layers: gradient %.9g, slope %.9g",
                      mlp_tensor(mlp, t)->name, j, layers, gradient, slope);
        }
    }
    free(inputs);
    free(labels);
    values_free(mlp, &w);
    values_free(mlp, &g);
    mlp_free(mlp);
}

Test(mlp, gradient_is_the_slope_of_the_loss)
{
    check_gradient((size_t[]){ 5, 3 }, 1, 4);
    check_gradient((size_t[]){ 7, 16, 5 }, 2, 8);
    /* One more and one less than what the kernel takes at once, both ways. */
    check_gradient((size_t[]){ 9, 17, 33, 15, 4 }, 4, 5);
    check_gradient((size_t[]){ 3, 32, 10 }, 2, 1);
}

Test(mlp, names_its_tensors_and_counts_its_parameters)
{
    struct mlp *mlp = mlp_new((size_t[]){ 64, 32, 10 }, 2, 8);
    cr_assert_eq(mlp_tensors(mlp), 4);
    const struct mlp_tensor *weight = mlp_tensor(mlp, 2), *bias = mlp_tensor(mlp, 3);
    cr_assert_str_eq(weight->name, "layer2.weight");
    cr_assert(weight->rank == 2 && weight->shape[0] == 32 && weight->shape[1] == 10);
    cr_assert_eq(weight->elements, 320);
    cr_assert_str_eq(bias->name, "layer2.bias");
    cr_assert(bias->rank == 1 && bias->shape[0] == 10 && bias->elements == 10);
    cr_assert_eq(mlp_parameters(mlp), 64 * 32 + 32 + 32 * 10 + 10);
    mlp_free(mlp);
}

Test(mlp, refuses_shapes_that_cannot_be)
{
    cr_assert_null(mlp_new((size_t[]){ 4 }, 0, 1));
    cr_assert_null(mlp_new((size_t[]){ 4, 0, 2 }, 2, 1));
    cr_assert_null(mlp_new((size_t[]){ 4, 2 }, 1, 0));
    cr_assert_null(mlp_new((size_t[]){ 4, SIZE_MAX / 2 }, 1, 1));
    mlp_free(NULL);
}

Test(mlp, starts_with_the_variance_that_suits_relu)
{
    struct mlp *mlp = mlp_new((size_t[]){ 200, 300, 10 }, 2, 1);
    struct values w = values_new(mlp), again = values_new(mlp), other = values_new(mlp);
    mlp_start(mlp, 1, w.tensor);
    mlp_start(mlp, 1, again.tensor);
    mlp_start(mlp, 2, other.tensor);

    double sum = 0, squares = 0;
    size_t n = mlp_tensor(mlp, 0)->elements;
    for (size_t i = 0; i < n; i++) {
        sum += (double)w.tensor[0][i];
        squares += (double)w.tensor[0][i] * (double)w.tensor[0][i];
    }
    /* Five standard deviations of the mean and of the variance of 60,000 draws. */
    double variance = 2.0 / 200;
    cr_assert(fabs(sum / (double)n) < 5 * sqrt(variance / (double)n));
    cr_assert(fabs(squares / (double)n / variance - 1) < 5 * sqrt(2 / (double)n));
    for (size_t i = 0; i < mlp_tensor(mlp, 1)->elements; i++) {
        cr_assert(fpclassify(w.tensor[1][i]) == FP_ZERO);
    }
    for (size_t t = 0; t < mlp_tensors(mlp); t++) {
        cr_assert_arr_eq(w.tensor[t], again.tensor[t],
                         mlp_tensor(mlp, t)->elements * sizeof(float));
    }
    cr_assert_neq(memcmp(w.tensor[0], other.tensor[0], n * sizeof(float)), 0);
    values_free(mlp, &w);
    values_free(mlp, &again);
    values_free(mlp, &other);
    mlp_free(mlp);
}

Test(mlp, survives_scores_that_would_overflow)
{
    struct mlp *mlp = mlp_new((size_t[]){ 1, 3 }, 1, 1);
    struct values w = values_new(mlp), g = values_new(mlp);
    memcpy(w.tensor[0], (float[]){ 1e4F, -1e4F, 0 }, 3 * sizeof(float));
    memcpy(w.tensor[1], (float[]){ 0, 0, 0 }, 3 * sizeof(float));
    double loss =
        mlp_gradient(mlp, w.tensor, (float[]){ 1 }, (uint8_t[]){ 2 }, 1, g.tensor);
    cr_assert_float_eq(loss, 1e4, 1);
    cr_assert_float_eq(g.tensor[1][0], 1, 1e-6);
    cr_assert_float_eq(g.tensor[1][1], 0, 1e-6);
    cr_assert_float_eq(g.tensor[1][2], -1, 1e-6);
    values_free(mlp, &w);
    values_free(mlp, &g);
    mlp_free(mlp);
}

/* The whole example without a server: momentum by hand, then the held-out images. */
Test(mlp, learns_the_digits, .timeout = 120)
{
    struct data data;
    struct data_error error;
    cr_assert(data_load("digits", NULL, &data, &error), "%s", error.text);
    enum { BATCH = 32, EPOCHS = 30 };
    struct mlp *mlp = mlp_new((size_t[]){ 64, 64, 10 }, 2, data.held_out.count);
    struct values w = values_new(mlp), g = values_new(mlp), v = values_new(mlp);
    mlp_start(mlp, 1, w.tensor);
    for (size_t t = 0; t < mlp_tensors(mlp); t++) {
        memset(v.tensor[t], 0, mlp_tensor(mlp, t)->elements * sizeof(float));
    }

    uint32_t *order = malloc(data.train.count * sizeof *order);
    float *inputs = malloc(data.train.count * data.train.features * sizeof *inputs);
    uint8_t *labels = malloc(data.train.count);
    for (size_t i = 0; i < data.train.count; i++) {
        order[i] = (uint32_t)i;
    }
    struct generator generator = { 3 };
    for (size_t epoch = 0; epoch < EPOCHS; epoch++) {
        generator_shuffle(&generator, order, data.train.count);
        for (size_t at = 0; at + BATCH <= data.train.count; at += BATCH) {
            data_gather(&data.train, order + at, BATCH, inputs, labels);
            mlp_gradient(mlp, w.tensor, inputs, labels, BATCH, g.tensor);
            for (size_t t = 0; t < mlp_tensors(mlp); t++) {
                for (size_t j = 0; j < mlp_tensor(mlp, t)->elements; j++) {
                    v.tensor[t][j] = 0.9F * v.tensor[t][j] + g.tensor[t][j];
                    w.tensor[t][j] -= 0.05F * v.tensor[t][j];
                }
            }
        }
    }

    size_t n = data.held_out.count;
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
    }
    data_gather(&data.held_out, order, n, inputs, labels);
    size_t correct = mlp_correct(mlp, w.tensor, inputs, labels, n);
    cr_assert(correct * 100 >= n * 96, "%zu of %zu held-out digits", correct, n);
    free(order);
    free(inputs);
    free(labels);
    values_free(mlp, &w);
    values_free(mlp, &g);
    values_free(mlp, &v);
    mlp_free(mlp);
    data_free(&data);
}
