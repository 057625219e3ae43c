/* mlp — forward and backward through fully connected layers.
 *
 * Called by the demo's worker and by its test. Everything costly is one kernel,
 * multiply_add, used three ways: a layer's outputs (inputs · weights), the gradient of
 * its weights (inputsᵀ · deltas) and the deltas of the layer before (deltas ·
 * weightsᵀ).
 */
#include "mlp.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generator.h"

struct layer {
    size_t in, out;
    float *outputs;    /* batch_max x out; after ReLU, but for the last layer */
    float *deltas;     /* batch_max x out: gradient of the loss before ReLU */
    float *transposed; /* out x in: the weights, turned for the way back */
};

struct mlp {
    size_t layers, batch_max, parameters;
    struct layer layer[MLP_LAYERS_MAX];
    struct mlp_tensor tensors[2 * MLP_LAYERS_MAX];
};

enum { WIDTH_MAX = 1 << 20, BATCH_MAX = 1 << 16, TILE_ROWS = 8, TILE_COLUMNS = 4 };

static float *floats_new(size_t rows, size_t columns)
{
    return calloc(rows * columns, sizeof(float));
}

struct mlp *mlp_new(const size_t *widths, size_t layers, size_t batch_max)
{
    if (layers < 1 || layers > MLP_LAYERS_MAX || batch_max < 1 ||
        batch_max > BATCH_MAX) {
        return NULL;
    }
    for (size_t l = 0; l <= layers; l++) {
        if (widths[l] < 1 || widths[l] > WIDTH_MAX) {
            return NULL;
        }
    }
    struct mlp *mlp = calloc(1, sizeof *mlp);
    if (mlp == NULL) {
        return NULL;
    }
    mlp->layers = layers;
    mlp->batch_max = batch_max;
    for (size_t l = 0; l < layers; l++) {
        struct layer *layer = &mlp->layer[l];
        layer->in = widths[l];
        layer->out = widths[l + 1];
        layer->outputs = floats_new(batch_max, layer->out);
        layer->deltas = floats_new(batch_max, layer->out);
        layer->transposed = floats_new(layer->out, layer->in);
        if (layer->outputs == NULL || layer->deltas == NULL ||
            layer->transposed == NULL) {
            mlp_free(mlp);
            return NULL;
        }
        struct mlp_tensor *weight = &mlp->tensors[2 * l];
        *weight = (struct mlp_tensor){ .shape = { layer->in, layer->out },
                                       .rank = 2,
                                       .elements = layer->in * layer->out };
        snprintf(weight->name, sizeof weight->name, "layer%zu.weight", l + 1);
        struct mlp_tensor *bias = &mlp->tensors[2 * l + 1];
        *bias = (struct mlp_tensor){ .shape = { layer->out },
                                     .rank = 1,
                                     .elements = layer->out };
        snprintf(bias->name, sizeof bias->name, "layer%zu.bias", l + 1);
        mlp->parameters += weight->elements + bias->elements;
    }
    return mlp;
}

void mlp_free(struct mlp *mlp)
{
    if (mlp == NULL) {
        return;
    }
    for (size_t l = 0; l < mlp->layers; l++) {
        free(mlp->layer[l].outputs);
        free(mlp->layer[l].deltas);
        free(mlp->layer[l].transposed);
    }
    free(mlp);
}

size_t mlp_tensors(const struct mlp *mlp)
{
    return 2 * mlp->layers;
}

const struct mlp_tensor *mlp_tensor(const struct mlp *mlp, size_t index)
{
    assert(index < mlp_tensors(mlp));
    return &mlp->tensors[index];
}

size_t mlp_parameters(const struct mlp *mlp)
{
    return mlp->parameters;
}

void mlp_start(const struct mlp *mlp, uint64_t seed, float *const *parameters)
{
    struct generator generator = { seed };
    for (size_t l = 0; l < mlp->layers; l++) {
        const struct layer *layer = &mlp->layer[l];
        double deviation = sqrt(2.0 / (double)layer->in);
        for (size_t i = 0; i < layer->in * layer->out; i++) {
            parameters[2 * l][i] = (float)(deviation * generator_normal(&generator));
        }
        memset(parameters[2 * l + 1], 0, layer->out * sizeof(float));
    }
}

/* ---------------------------------------------------------------- one kernel */

/* A matrix that is read one element at a time, so that a transposed one costs nothing:
 * element (i, k) is values[i * row + k * column]. */
struct scattered {
    const float *values;
    size_t row, column;
};

/* Four neighbours in a row of a matrix. A compiler's own vectors are spelled out here
 * (gcc, clang), because neither makes them of the plain loops. */
typedef float lanes __attribute__((vector_size(4 * sizeof(float))));

static lanes load(const float *from)
{
    lanes values;
    memcpy(&values, from, sizeof values);
    return values;
}

static void store(float *to, lanes values)
{
    memcpy(to, &values, sizeof values);
}

/* A tile of c += a · b, kept in registers while k runs. Each element is summed in the
 * order of k and alone in its lane, so the result is that of the plain loops below. */
static void tile(size_t depth, const struct scattered *a, const float *b, float *c,
                 size_t stride)
{
    lanes sums[TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++) {
        sums[i] = load(c + i * stride);
    }
    for (size_t k = 0; k < depth; k++) {
        lanes row = load(b + k * stride);
        for (size_t i = 0; i < TILE_ROWS; i++) {
            sums[i] += a->values[i * a->row + k * a->column] * row;
        }
    }
    for (size_t i = 0; i < TILE_ROWS; i++) {
        store(c + i * stride, sums[i]);
    }
}

/* What does not fill a tile. */
static void edge(size_t rows, size_t columns, size_t depth, const struct scattered *a,
                 const float *b, float *c, size_t stride)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < depth; k++) {
            float factor = a->values[i * a->row + k * a->column];
            for (size_t j = 0; j < columns; j++) {
                c[i * stride + j] += factor * b[k * stride + j];
            }
        }
    }
}

/* c (rows x columns) += a (rows x depth) · b (depth x columns). */
static void multiply_add(size_t rows, size_t columns, size_t depth, struct scattered a,
                         const float *b, float *c)
{
    for (size_t i = 0; i < rows; i += TILE_ROWS) {
        size_t high = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
        struct scattered part = { a.values + i * a.row, a.row, a.column };
        for (size_t j = 0; j < columns; j += TILE_COLUMNS) {
            size_t wide = columns - j < TILE_COLUMNS ? columns - j : TILE_COLUMNS;
            float *corner = c + i * columns + j;
            if (high == TILE_ROWS && wide == TILE_COLUMNS) {
                tile(depth, &part, b + j, corner, columns);
            } else {
                edge(high, wide, depth, &part, b + j, corner, columns);
            }
        }
    }
}

/* ---------------------------------------------------------------- forward, backward */

/* Leaves the scores (before softmax) in the last layer's outputs. */
static void forward(struct mlp *mlp, float *const *parameters, const float *inputs,
                    size_t n)
{
    assert(n <= mlp->batch_max);
    for (size_t l = 0; l < mlp->layers; l++) {
        struct layer *layer = &mlp->layer[l];
        size_t total = n * layer->out;
        for (size_t i = 0; i < n; i++) {
            memcpy(layer->outputs + i * layer->out, parameters[2 * l + 1],
                   layer->out * sizeof(float));
        }
        multiply_add(n, layer->out, layer->in,
                     (struct scattered){ inputs, layer->in, 1 }, parameters[2 * l],
                     layer->outputs);
        if (l + 1 < mlp->layers) {
            for (size_t i = 0; i < total; i++) {
                layer->outputs[i] = layer->outputs[i] > 0 ? layer->outputs[i] : 0;
            }
        }
        inputs = layer->outputs;
    }
}

/* Scores of one image to the gradient of its loss, divided by n; returns the loss.
 * The highest score is taken off first, so that no exponential overflows. */
static double softmax_loss(const float *scores, size_t classes, uint8_t label, size_t n,
                           float *deltas)
{
    assert(label < classes);
    float highest = scores[0];
    for (size_t j = 1; j < classes; j++) {
        highest = scores[j] > highest ? scores[j] : highest;
    }
    double sum = 0;
    for (size_t j = 0; j < classes; j++) {
        deltas[j] = expf(scores[j] - highest);
        sum += (double)deltas[j];
    }
    float share = (float)(1 / (sum * (double)n));
    for (size_t j = 0; j < classes; j++) {
        deltas[j] *= share;
    }
    deltas[label] -= 1 / (float)n;
    /* cppcheck-suppress invalidFunctionArg ; the highest score alone adds 1 to it */
    return log(sum) - (double)(scores[label] - highest);
}

static void transpose(const float *values, size_t rows, size_t columns, float *out)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            out[j * rows + i] = values[i * columns + j];
        }
    }
}

double mlp_gradient(struct mlp *mlp, float *const *parameters, const float *inputs,
                    const uint8_t *labels, size_t n, float *const *gradients)
{
    forward(mlp, parameters, inputs, n);

    struct layer *last = &mlp->layer[mlp->layers - 1];
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        loss += softmax_loss(last->outputs + i * last->out, last->out, labels[i], n,
                             last->deltas + i * last->out);
    }

    for (size_t l = mlp->layers; l-- > 0;) {
        struct layer *layer = &mlp->layer[l];
        struct layer *before = l > 0 ? &mlp->layer[l - 1] : NULL;
        float *weight = gradients[2 * l], *bias = gradients[2 * l + 1];
        memset(weight, 0, layer->in * layer->out * sizeof *weight);
        multiply_add(
            layer->in, layer->out, n,
            (struct scattered){ before ? before->outputs : inputs, 1, layer->in },
            layer->deltas, weight);
        memset(bias, 0, layer->out * sizeof *bias);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < layer->out; j++) {
                bias[j] += layer->deltas[i * layer->out + j];
            }
        }
        if (before != NULL) {
            size_t total = n * before->out;
            transpose(parameters[2 * l], layer->in, layer->out, layer->transposed);
            memset(before->deltas, 0, total * sizeof(float));
            multiply_add(n, layer->in, layer->out,
                         (struct scattered){ layer->deltas, layer->out, 1 },
                         layer->transposed, before->deltas);
            for (size_t i = 0; i < total; i++) {
                before->deltas[i] = before->outputs[i] > 0 ? before->deltas[i] : 0;
            }
        }
    }
    return loss / (double)n;
}

size_t mlp_correct(struct mlp *mlp, float *const *parameters, const float *inputs,
                   const uint8_t *labels, size_t n)
{
    forward(mlp, parameters, inputs, n);
    const struct layer *last = &mlp->layer[mlp->layers - 1];
    size_t correct = 0;
    for (size_t i = 0; i < n; i++) {
        const float *scores = last->outputs + i * last->out;
        size_t best = 0;
        for (size_t j = 1; j < last->out; j++) {
            best = scores[j] > scores[best] ? j : best;
        }
        correct += best == labels[i];
    }
    return correct;
}
