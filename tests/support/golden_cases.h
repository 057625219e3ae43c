/* golden_cases — expected results of every rule, preset and variant, from files.
 *
 * A folder of cases as tests/golden/README.md describes it. Used by the golden runner
 * and by tests; one thread.
 */
#ifndef OPTIMD_TESTS_SUPPORT_GOLDEN_CASES_H
#define OPTIMD_TESTS_SUPPORT_GOLDEN_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/spec.h"
#include "common/status.h"

enum golden_kind { GOLDEN_STORED, GOLDEN_SPARSE, GOLDEN_FUNCTION, GOLDEN_AGGREGATION };

enum {
    GOLDEN_TENSORS = 256,
    GOLDEN_CHECKPOINTS = 1024,
    GOLDEN_WORKERS = 64,
    GOLDEN_NAME = 256,
    GOLDEN_KEY = GOLDEN_NAME + 256 /* of an expected value: a tensor's name and more */
};

struct golden_tensor {
    const char *name;
    size_t rank;
    uint64_t shape[OPT_RANK_MAX];
    size_t n;
    const float *initial;
    const float *gradients;     /* stored: steps times n; aggregation: workers times n;
                                   function: NULL; sparse: one row for each of rows */
    const uint32_t *rows;       /* sparse: which rows; NULL: the tensor is dense */
    const int64_t *row_offsets; /* update T has the rows [T - 1] to [T] */
};

struct golden_case {
    char name[GOLDEN_NAME];
    char unsupported[OPT_ERROR_TEXT]; /* why the case cannot be run; "" if it can */
    enum golden_kind kind;
    struct opt_spec spec; /* aggregation: sgd with lr 1, aggregate to be set */
    size_t steps;
    size_t checkpoints[GOLDEN_CHECKPOINTS];
    size_t checkpoint_count;
    size_t expected_count; /* values after updates: parameters, views, state arrays */
    double rtol, atol_params;
    struct golden_tensor tensors[GOLDEN_TENSORS];
    size_t tensor_count;
    const int64_t *samples; /* aggregation: of each of `workers` */
    size_t workers;
    struct golden_files *files; /* what the pointers point into */
};

/* Names of a folder's cases, sorted; free with golden_list_free. */
enum opt_status golden_list(const char *folder, char ***names, size_t *count,
                            struct opt_error *error);
void golden_list_free(char **names, size_t count);

/* Load one case. A case of a kind, rule or option that is not known loads too, with the
 * reason in `unsupported`; an error is a damaged file. *out is to be freed. */
enum opt_status golden_case_load(const char *folder, const char *name,
                                 struct golden_case **out, struct opt_error *error);
void golden_case_free(struct golden_case *golden);

/* Expected values by name ("params/10/w"), or NULL if the case has none; n is their
 * count. */
const double *golden_expected(const struct golden_case *golden, const char *name,
                              size_t *n);
/* Absolute tolerance of a state array. */
double golden_state_tolerance(const struct golden_case *golden, const char *state);

/* The gradient of a function case at x, computed in double, rounded to float. */
void golden_gradient(const struct golden_case *golden, const float *x, float *gradient);

#endif
