/* rows — the rows of sparse tensors in one update.
 *
 * An update starts by putting the rows that its gradients name into order: by tensor
 * and row, and within a row by worker and position. Equal ones are a group; its
 * occurrences are the contributions to that row, summed in this order, so neither
 * arrival nor the size of the team changes a bit. Costs depend on the rows named, not
 * on the tensors. Memory is made when pushes come, so the update itself cannot fail. In
 * the engine's turn, but for rows_run, which the team calls.
 */
#ifndef OPTIMD_SERVER_UPDATE_ROWS_H
#define OPTIMD_SERVER_UPDATE_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/rows.h"
#include "common/optim/update.h"

struct engine;
struct model;
struct row_source;
struct seat;
struct tensor;

/* A row of the update. */
struct row_group {
    uint32_t tensor, row;
    size_t first; /* of its contributions; the next group's is their end */
    size_t at;    /* elements of the groups before it */
};

struct rows {
    struct row_group *groups; /* one more than group_count, for the end */
    size_t group_count;
    struct opt_contribution *contributions;
    struct opt_block_sums *sums; /* one per group, after the norms */
    struct row_source *sources;  /* where each named row comes from, as they came */
    struct opt_row *order, *spare;
    size_t capacity; /* named rows that there is memory for */
    void *memory;    /* of all of these */
};

/* Have memory for an update with count named rows. No update is in progress. */
bool rows_reserve(struct engine *engine, struct model *model, size_t count);
void rows_fini(struct model *model);

/* Gather the rows of the update's gradients. seat: scratch. */
void rows_begin(struct model *model, struct seat *seat);

/* Elements of a group's row, and its contributions. */
size_t rows_width(const struct model *model, size_t group);
size_t rows_contributions(const struct rows *rows, size_t group);

/* Run a pass, NORM or STEP, over the row of a group. */
void rows_run(struct model *model, enum opt_pass pass, size_t group);

/* After the NORM pass: hand the sums of the tensor's rows in. *group is where they
 * begin, and is moved past them; tensors are taken in ascending order. */
void rows_add_norm(struct model *model, uint32_t tensor, size_t *group);

#endif
