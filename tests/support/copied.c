/* copied — see copied.h. */
#include "tests/support/copied.h"

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

static void copy_blocks(struct copied *copied, const struct model *model,
                        const struct gradient *from)
{
    size_t element = opt_dtype_size(from->dtype);
    copied->blocks = model->blocks;
    copied->values = aligned_alloc(64, model->blocks * BLOCK_BYTES);
    copied->gradient.blocks = calloc(model->blocks, sizeof *from->blocks);
    cr_assert(copied->values != NULL && copied->gradient.blocks != NULL);
    memset(copied->values, 0, model->blocks * BLOCK_BYTES);
    for (size_t t = 0; t < model->tensor_count; t++) {
        const struct tensor *tensor = &model->tensors[t];
        for (size_t i = 0; i < tensor->blocks; i++) {
            size_t block = tensor->first_block + i, rest = tensor->n - i * OPT_BLOCK;
            if (from->blocks[block] != NULL) {
                uint8_t *at = copied->values + block * BLOCK_BYTES;
                memcpy(at, from->blocks[block],
                       (rest < OPT_BLOCK ? rest : OPT_BLOCK) * element);
                copied->gradient.blocks[block] = at;
            }
        }
    }
}

static void copy_rows(struct copied *copied, const struct model *model,
                      const struct gradient *from)
{
    struct row_run **link = &copied->gradient.rows_first;
    *link = NULL;
    for (const struct row_run *run = from->rows_first; run != NULL; run = run->next) {
        size_t row = model->tensors[run->tensor].width * opt_dtype_size(from->dtype);
        struct row_run *copy = copy_of(run, sizeof *run);
        copy->next = NULL;
        copy->rows = copy_of(run->rows, run->count * sizeof *run->rows);
        copy->values = copy_of(run->values, run->count * row);
        *link = copy;
        link = &copy->next;
        copied->gradient.rows_last = copy;
    }
}

/* The weights of its basis, as they are now. */
static const struct last_pull *copy_last_pull(struct copied *copied,
                                              const struct model *model,
                                              const struct last_pull *from)
{
    if (from == NULL || from->values == NULL) {
        return NULL;
    }
    copied->last_pull = copy_of(from, sizeof *from);
    copied->last_pull->values = copy_of(from->values, model->floats * sizeof(float));
    copied->last_pull->steps = copy_of(from->steps, model->blocks * sizeof(uint64_t));
    return copied->last_pull;
}

struct copied copied_new(const struct model *model, const struct gradient *from)
{
    struct copied copied = { .gradient = *from };
    copied.gradient.tensors =
        copy_of(from->tensors, from->tensor_count * sizeof *from->tensors);
    copied.gradient.covered =
        copy_of(from->covered, model->tensor_count * sizeof *from->covered);
    copied.gradient.last_pull = copy_last_pull(&copied, model, from->last_pull);
    copy_blocks(&copied, model, from);
    copy_rows(&copied, model, from);
    return copied;
}

void copied_free(struct copied *copied)
{
    for (struct row_run *run = copied->gradient.rows_first; run != NULL;) {
        struct row_run *next = run->next;
        free((void *)(uintptr_t)run->rows);
        free((void *)(uintptr_t)run->values);
        free(run);
        run = next;
    }
    if (copied->last_pull != NULL) {
        free(copied->last_pull->values);
        free(copied->last_pull->steps);
        free(copied->last_pull);
    }
    free(copied->gradient.tensors);
    free(copied->gradient.covered);
    free(copied->gradient.blocks);
    free(copied->values);
}
