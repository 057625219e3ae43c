/* reference_rules — every rule once more, as plainly as it can be written.
 *
 * One update of one tensor in double, formula by formula, without any of the folding
 * that makes the kernels fast. The reference that they are compared with; not fast.
 */
#ifndef OPTIMD_TESTS_SUPPORT_REFERENCE_RULES_H
#define OPTIMD_TESTS_SUPPORT_REFERENCE_RULES_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/update.h"

/* g is the aggregated gradient of the model's only tensor. T and t: this update's. w
 * and slots are changed. mu_product: of this tensor, changed. */
void twin_update(const struct opt_spec *spec, const struct opt_tensor_options *tensor,
                 uint64_t T, uint64_t t, double *mu_product, const double *g, size_t n,
                 double *w, double *const *slots);

#endif
