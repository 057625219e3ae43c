/* written — see written.h. */
#include "tests/support/written.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/model/model.h"
#include "server/weights/last_pull.h"

static void *copy_of(const void *from, size_t size)
{
    void *copy = malloc(size + 1);
    cr_assert_not_null(copy);
    memcpy(copy, from, size);
    return copy;
}

static void copy_blocks(struct written *written, const struct model *model,
                        const struct gradient *from)
{
    size_t element = opt_dtype_size(from->dtype);
    written->blocks = model->blocks;
    written->values = aligned_alloc(64, model->blocks * BLOCK_BYTES);
    written->gradient.blocks = calloc(model->blocks, sizeof *from->blocks);
    cr_assert(written->values != NULL && written->gradient.blocks != NULL);
    memset(written->values, 0, model->blocks * BLOCK_BYTES);
    for (size_t t = 0; t < model->tensor_count; t++) {
        const struct tensor *tensor = &model->tensors[t];
        for (size_t i = 0; i < tensor->blocks; i++) {
            size_t block = tensor->first_block + i, rest = tensor->n - i * OPT_BLOCK;
            if (from->blocks[block] != NULL) {
                uint8_t *at = written->values + block * BLOCK_BYTES;
                memcpy(at, from->blocks[block],
                       (rest < OPT_BLOCK ? rest : OPT_BLOCK) * element);
                written->gradient.blocks[block] = at;
            }
        }
    }
}

static void copy_rows(struct written *written, const struct model *model,
                      const struct gradient *from)
{
    struct row_run **link = &written->gradient.rows_first;
    *link = NULL;
    for (const struct row_run *run = from->rows_first; run != NULL; run = run->next) {
        size_t row = model->tensors[run->tensor].width * opt_dtype_size(from->dtype);
        struct row_run *copy = copy_of(run, sizeof *run);
        copy->next = NULL;
        copy->rows = copy_of(run->rows, run->count * sizeof *run->rows);
        copy->values = copy_of(run->values, run->count * row);
        *link = copy;
        link = &copy->next;
        written->gradient.rows_last = copy;
    }
}

/* The weights of its basis, as they are now. */
static const struct last_pull *copy_last_pull(struct written *written,
                                              const struct model *model,
                                              const struct last_pull *from)
{
    if (from == NULL || from->values == NULL) {
        return NULL;
    }
    written->last_pull = copy_of(from, sizeof *from);
    written->last_pull->values = copy_of(from->values, model->floats * sizeof(float));
    written->last_pull->steps = copy_of(from->steps, model->blocks * sizeof(uint64_t));
    return written->last_pull;
}

struct written written_new(const struct model *model, const struct gradient *from)
{
    struct written written = { .gradient = *from };
    written.gradient.tensors =
        copy_of(from->tensors, from->tensor_count * sizeof *from->tensors);
    written.gradient.covered =
        copy_of(from->covered, model->tensor_count * sizeof *from->covered);
    written.gradient.last_pull = copy_last_pull(&written, model, from->last_pull);
    copy_blocks(&written, model, from);
    copy_rows(&written, model, from);
    return written;
}

void written_free(struct written *written)
{
    for (struct row_run *run = written->gradient.rows_first; run != NULL;) {
        struct row_run *next = run->next;
        free((void *)(uintptr_t)run->rows);
        free((void *)(uintptr_t)run->values);
        free(run);
        run = next;
    }
    if (written->last_pull != NULL) {
        free(written->last_pull->values);
        free(written->last_pull->steps);
        free(written->last_pull);
    }
    free(written->gradient.tensors);
    free(written->gradient.covered);
    free(written->gradient.blocks);
    free(written->values);
}
