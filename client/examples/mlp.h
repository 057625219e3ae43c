/* mlp — a multi-layer perceptron: what the demo's workers train.
 *
 * Fully connected layers with ReLU between them, softmax and cross-entropy at the end,
 * fp32. The weights are not in here: every call is given them as an array of tensors,
 * layer by layer `weight` (in x out, row-major) and `bias` (out), which is how a
 * parameter server hands them over. The struct keeps the shapes and the memory of a
 * batch on its way through the layers, so a step allocates nothing. One thread at a
 * time per mlp. The same inputs give the same bits whatever the processor's vectors.
 */
#ifndef OPTIMD_EXAMPLES_MLP_H
#define OPTIMD_EXAMPLES_MLP_H

#include <stddef.h>
#include <stdint.h>

enum { MLP_LAYERS_MAX = 8 };

struct mlp;

struct mlp_tensor {
    char name[24]; /* "layer1.weight", "layer1.bias", "layer2.weight", ... */
    uint64_t shape[2];
    size_t rank; /* 2 for a weight, 1 for a bias */
    size_t elements;
};

/* widths     layers + 1 of them: the inputs, the hidden layers, the classes
 * layers     1 to MLP_LAYERS_MAX
 * batch_max  the most images that mlp_gradient or mlp_correct will be given at once
 * Returns NULL without memory or if a number is out of range; mlp_free it. */
struct mlp *mlp_new(const size_t *widths, size_t layers, size_t batch_max);
void mlp_free(struct mlp *mlp);

size_t mlp_tensors(const struct mlp *mlp);
const struct mlp_tensor *mlp_tensor(const struct mlp *mlp, size_t index);
size_t mlp_parameters(const struct mlp *mlp);

/* First weights after He et al. (2015): normal with variance 2 / inputs, as suits ReLU;
 * biases 0. The same for the same seed. */
void mlp_start(const struct mlp *mlp, uint64_t seed, float *const *parameters);

/* Forward and backward: the mean cross-entropy (natural logarithm) over n images, and
 * its gradient with respect to each tensor.
 *
 * inputs     n x widths[0], row-major
 * labels     n classes, each below the last width
 * gradients  written whole; must not overlap the parameters */
double mlp_gradient(struct mlp *mlp, float *const *parameters, const float *inputs,
                    const uint8_t *labels, size_t n, float *const *gradients);

/* How many of n images get the highest score for their own label. */
size_t mlp_correct(struct mlp *mlp, float *const *parameters, const float *inputs,
                   const uint8_t *labels, size_t n);

#endif
