/* copied — gradients copied before an update reads them, to be applied again. */
#ifndef OPTIMD_TESTS_SUPPORT_COPIED_H
#define OPTIMD_TESTS_SUPPORT_COPIED_H

#include <stddef.h>
#include <stdint.h>

#include "common/optim/spec.h"
#include "server/update/gradient.h"

struct model;
struct last_pull;

enum { BLOCK_BYTES = OPT_BLOCK * sizeof(float) };

/* A gradient, with memory of its own. */
struct copied {
    struct gradient gradient;
    struct last_pull *last_pull; /* the weights of its basis, or NULL */
    size_t blocks;
    uint8_t *values; /* of all blocks, each with room for a full one of fp32 */
};

struct copied copied_new(const struct model *model, const struct gradient *from);
void copied_free(struct copied *copied);

#endif
