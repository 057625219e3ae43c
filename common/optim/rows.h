/* rows — the rows of sparse tensors that an update has, brought into order.
 *
 * Workers name rows in any order and any number of times. Sorted by tensor and row, and
 * within a row as they were given (by worker, then by position), each run of equal keys
 * is one row of the update, and its values are the contributions to it. Called by the
 * engine and by tools that update on their own; any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_ROWS_H
#define OPTIMD_COMMON_OPTIM_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* One row of one push. */
struct opt_row {
    uint64_t key;   /* opt_row_key */
    uint32_t index; /* the caller's */
};

static inline uint64_t opt_row_key(uint32_t tensor, uint32_t row)
{
    return (uint64_t)tensor << 32 | row;
}

/* Sort by key; what has equal keys keeps its order. spare has room for count too.
 * Returns rows or spare: where the result is. */
struct opt_row *opt_rows_sort(struct opt_row *rows, struct opt_row *spare,
                              size_t count);

#endif
