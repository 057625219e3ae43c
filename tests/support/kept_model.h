/* kept_model — a small model for tests of what is kept of models: its manifest, with
 * something in every field, and values that are known from their places.
 */
#ifndef OPTIMD_TESTS_SUPPORT_KEPT_MODEL_H
#define OPTIMD_TESTS_SUPPORT_KEPT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "server/store/manifest.h"

enum { KEPT_TENSORS = 5, KEPT_ARRAYS = 3, KEPT_MEMBERS = 3 };

/* After so many steps; the same each time. */
const struct manifest *kept_manifest(uint64_t step);
/* A value of an array. */
float kept_value(uint64_t step, size_t array, size_t tensor, uint64_t element);

/* Two manifests say the same, but for their files. */
void kept_expect_same(const struct manifest *a, const struct manifest *b);

#endif
