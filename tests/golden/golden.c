/* golden — run every golden case and say how far each result is from the expected one.
 *
 *     golden [--every-rule] [DIR]        default: tests/golden/cases
 *
 * Each case runs in this process with every instruction set that the processor has, and
 * through a live daemon (`optimd` beside this program) with the client library. One
 * line per run: where, the worst error of parameters, state and views as a share of its
 * tolerance, and passed, FAILED or unsupported with the reason. Ends with a count of
 * runs, and with 0 only if nothing failed and something passed. With --every-rule a
 * rule of the registry that no case has fails too.
 */
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/optim/rule.h"
#include "common/optim/update.h"
#include "tests/golden/backend.h"
#include "tests/golden/live.h"
#include "tests/support/golden_cases.h"

/* Worst error over tolerance, by what was compared. */
struct worst {
    double params, state, views;
};

struct run {
    const struct golden_backend *backend;
    const struct golden_case *golden;
    void *model;
    float *values; /* as many as the largest tensor has */
    struct worst worst;
    size_t compared;
};

/* Raise *worst by the values of one view, if the case expects any under that name. NaN
 * is as wrong as can be. */
static enum opt_status compare(struct run *run, const char *expected_name,
                               enum opt_view view, const char *slot, size_t tensor,
                               double atol, double *worst, struct opt_error *error)
{
    size_t n;
    const double *expected = golden_expected(run->golden, expected_name, &n);
    enum opt_status status;

    if (expected == NULL) {
        return OPT_OK;
    }
    if (n != run->golden->tensors[tensor].n) {
        return opt_fail(error, OPT_DATA_LOSS, "%s has %zu values", expected_name, n);
    }
    status = run->backend->read(run->model, view, slot, tensor, run->values, error);
    for (size_t i = 0; status == OPT_OK && i < n; i++) {
        double allowed = atol + run->golden->rtol * fabs(expected[i]);
        double share = fabs((double)run->values[i] - expected[i]) / allowed;

        if (!(share <= *worst)) {
            *worst = isnan(share) ? (double)INFINITY : share;
        }
    }
    run->compared++;
    return status;
}

/* With Lookahead "params" are the fast weights, which are the training view, and else
 * the answer, which for classical nag the training view is not. */
static enum opt_status compare_tensor(struct run *run, size_t step, size_t tensor,
                                      struct opt_error *error)
{
    const struct golden_case *golden = run->golden;
    const char *name = golden->tensors[tensor].name, *slots[OPT_SLOTS_MAX];
    bool has_answer, fast = golden->spec.options.lookahead_k > 0.0;
    size_t count = opt_spec_slots(&golden->spec, slots), n;
    enum opt_status status = OPT_OK;
    char key[GOLDEN_KEY];

    snprintf(key, sizeof key, "train/%zu/%s", step, name);
    bool has_train = golden_expected(golden, key, &n) != NULL;
    status = compare(run, key, OPT_VIEW_TRAIN, NULL, tensor, golden->atol_params,
                     &run->worst.views, error);
    snprintf(key, sizeof key, "eval/%zu/%s", step, name);
    has_answer = golden_expected(golden, key, &n) != NULL;
    if (status == OPT_OK) {
        status = compare(run, key, OPT_VIEW_EVAL, NULL, tensor, golden->atol_params,
                         &run->worst.views, error);
    }
    snprintf(key, sizeof key, "params/%zu/%s", step, name);
    if (has_train && has_answer) {
        /* The fast weights themselves are no view. */
        run->compared += golden_expected(golden, key, &n) != NULL ? 1 : 0;
    } else if (status == OPT_OK) {
        status = compare(run, key, fast ? OPT_VIEW_TRAIN : OPT_VIEW_EVAL, NULL, tensor,
                         golden->atol_params, &run->worst.params, error);
    }
    for (size_t s = 0; status == OPT_OK && s < count; s++) {
        snprintf(key, sizeof key, "state/%zu/%s/%s", step, name, slots[s]);
        status =
            compare(run, key, OPT_VIEW_SLOT, slots[s], tensor,
                    golden_state_tolerance(golden, slots[s]), &run->worst.state, error);
    }
    return status;
}

static bool is_checkpoint(const struct golden_case *golden, size_t step)
{
    for (size_t i = 0; i < golden->checkpoint_count; i++) {
        if (golden->checkpoints[i] == step) {
            return true;
        }
    }
    return false;
}

/* Update after update: stored gradients, or those of the function at what a worker
 * would pull. */
static enum opt_status run_steps(struct run *run, struct opt_error *error)
{
    const struct golden_case *golden = run->golden;
    const float *gradients[GOLDEN_TENSORS];
    float at[GOLDEN_TENSORS], gradient[GOLDEN_TENSORS];
    struct golden_push push = { .gradients = gradients,
                                .samples = 1,
                                .form = OPT_FORM_MEAN };
    enum opt_status status = OPT_OK;

    for (size_t step = 1; status == OPT_OK && step <= golden->steps; step++) {
        for (size_t t = 0; t < golden->tensor_count; t++) {
            const struct golden_tensor *tensor = &golden->tensors[t];
            if (golden->kind == GOLDEN_STORED) {
                gradients[t] = tensor->gradients + (step - 1) * tensor->n;
            }
        }
        if (golden->kind == GOLDEN_SPARSE) {
            const struct golden_tensor *tensor = &golden->tensors[0];
            size_t begin = (size_t)tensor->row_offsets[step - 1];
            push.rows = tensor->rows + begin;
            push.row_count = (size_t)tensor->row_offsets[step] - begin;
            gradients[0] = tensor->gradients + begin * (tensor->n / tensor->shape[0]);
        }
        if (golden->kind == GOLDEN_FUNCTION) {
            status = run->backend->read(run->model, OPT_VIEW_TRAIN, NULL, 0, at, error);
            golden_gradient(golden, at, gradient);
            gradients[0] = gradient;
        }
        if (status == OPT_OK) {
            status = run->backend->update(run->model, &push, 1, error);
        }
        for (size_t t = 0; status == OPT_OK && is_checkpoint(golden, step) &&
                           t < golden->tensor_count;
             t++) {
            status = compare_tensor(run, step, t, error);
        }
    }
    if (status == OPT_OK && run->compared != golden->expected_count) {
        return opt_fail(
            error, OPT_DATA_LOSS,
            "%zu of %zu expected values belong to a tensor, slot and update "
            "of the case",
            run->compared, golden->expected_count);
    }
    return status;
}

/* sgd with learning rate 1 from 0 leaves minus the aggregate in the weights. */
static enum opt_status run_aggregate(struct run *run, enum opt_form form,
                                     const char *expected, struct opt_error *error)
{
    static const float *gradients[GOLDEN_WORKERS][GOLDEN_TENSORS];
    const struct golden_case *golden = run->golden;
    struct golden_push pushes[GOLDEN_WORKERS];
    size_t workers = golden->workers;
    enum opt_status status;

    if (workers > GOLDEN_WORKERS) {
        return opt_fail(error, OPT_OUT_OF_RANGE, "%zu workers, and %d are possible",
                        workers, (int)GOLDEN_WORKERS);
    }

    for (size_t i = 0; i < workers; i++) {
        for (size_t t = 0; t < golden->tensor_count; t++) {
            gradients[i][t] = golden->tensors[t].gradients + i * golden->tensors[t].n;
        }
        pushes[i] = (struct golden_push){ .gradients = gradients[i],
                                          .samples = (uint64_t)golden->samples[i],
                                          .form = form };
    }
    status = run->backend->update(run->model, pushes, workers, error);
    for (size_t t = 0; status == OPT_OK && t < golden->tensor_count; t++) {
        char key[GOLDEN_KEY];
        size_t n;

        snprintf(key, sizeof key, "expect_%s/%s", expected, golden->tensors[t].name);
        const double *values = golden_expected(golden, key, &n);
        if (values == NULL || n != golden->tensors[t].n) {
            return opt_fail(error, OPT_DATA_LOSS, "no %s", key);
        }
        status =
            run->backend->read(run->model, OPT_VIEW_EVAL, NULL, t, run->values, error);
        for (size_t i = 0; status == OPT_OK && i < n; i++) {
            double allowed = golden->atol_params + golden->rtol * fabs(values[i]);
            double share = fabs((double)-run->values[i] - values[i]) / allowed;
            if (!(share <= run->worst.params)) {
                run->worst.params = isnan(share) ? (double)INFINITY : share;
            }
        }
        run->compared++;
    }
    return status;
}

static enum opt_status run_with(struct run *run, const struct opt_spec *spec,
                                const char *expected, enum opt_form form,
                                struct opt_error *error)
{
    const struct golden_case *golden = run->golden;
    enum opt_status status = run->backend->open(
        spec, golden->tensors, golden->tensor_count, &run->model, error);

    if (status != OPT_OK) {
        return status;
    }
    status = expected != NULL ? run_aggregate(run, form, expected, error)
                              : run_steps(run, error);
    run->backend->close(run->model);
    return status;
}

static enum opt_status run_case(struct run *run, struct opt_error *error)
{
    static const struct {
        const char *name;
        enum opt_aggregate how;
        enum opt_form form;
    } kinds[] = {
        { "weighted_mean", OPT_WEIGHTED_MEAN, OPT_FORM_MEAN },
        { "mean", OPT_MEAN, OPT_FORM_MEAN },
        { "sum", OPT_SUM, OPT_FORM_MEAN },
        { "sum_over_samples", OPT_WEIGHTED_MEAN, OPT_FORM_SUM },
    };
    struct opt_spec spec = run->golden->spec;
    enum opt_status status = OPT_OK;

    if (run->golden->kind != GOLDEN_AGGREGATION) {
        return run_with(run, &spec, NULL, OPT_FORM_MEAN, error);
    }
    for (size_t i = 0; status == OPT_OK && i < sizeof kinds / sizeof kinds[0]; i++) {
        spec.options.aggregate = (int)kinds[i].how;
        status = run_with(run, &spec, kinds[i].name, kinds[i].form, error);
    }
    return status;
}

enum { RULES = 64 };

struct counts {
    size_t passed, failed, unsupported;
    bool met[RULES]; /* per rule of the registry: a case of it has passed */
};

static void note_met(struct counts *counts, const struct opt_rule *rule)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);

    for (size_t i = 0; i < count && i < RULES; i++) {
        counts->met[i] = counts->met[i] || rules[i] == rule;
    }
}

/* A rule that no case has is checked by nobody. */
static void judge_rules(struct counts *counts)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);

    for (size_t i = 0; i < count; i++) {
        if (i >= RULES || !counts->met[i]) {
            printf("%-10s %-32s FAILED (no case of this rule has passed)\n", "registry",
                   rules[i]->name);
            counts->failed++;
        }
    }
}

static void judge(const struct golden_backend *backend, const char *where,
                  const char *folder, const char *name, struct counts *counts)
{
    struct golden_case *golden = NULL;
    struct opt_error error;
    struct run run = { .backend = backend };
    size_t largest = 1;
    enum opt_status status = golden_case_load(folder, name, &golden, &error);

    if (status == OPT_OK && golden->unsupported[0] != '\0') {
        printf("%-10s %-32s unsupported (%s)\n", where, name, golden->unsupported);
        counts->unsupported++;
        golden_case_free(golden);
        return;
    }
    for (size_t t = 0; status == OPT_OK && t < golden->tensor_count; t++) {
        largest = golden->tensors[t].n > largest ? golden->tensors[t].n : largest;
    }
    run.golden = golden;
    run.values = malloc(largest * sizeof *run.values);
    if (status == OPT_OK) {
        status = run.values != NULL
                     ? run_case(&run, &error)
                     : opt_fail(&error, OPT_RESOURCE_EXHAUSTED, "no memory");
    }
    bool passed = status == OPT_OK && run.compared > 0 && run.worst.params <= 1.0 &&
                  run.worst.state <= 1.0 && run.worst.views <= 1.0;
    printf("%-10s %-32s params %.3f  state %.3f  views %.3f  %s", where, name,
           run.worst.params, run.worst.state, run.worst.views,
           passed ? "passed" : "FAILED");
    if (status != OPT_OK) {
        printf(" (%s)", error.text);
    }
    printf("\n");
    counts->passed += passed ? 1 : 0;
    counts->failed += passed ? 0 : 1;
    if (passed && golden->kind != GOLDEN_AGGREGATION) {
        note_met(counts, golden->spec.rule);
    }
    free(run.values);
    golden_case_free(golden);
}

/* The daemon that was built with this program. */
static bool start_daemon(struct opt_error *error)
{
    char self[PATH_MAX], program[PATH_MAX + sizeof "/optimd"];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);

    if (size < 0) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot find this program");
        return false;
    }
    self[size] = '\0';
    snprintf(program, sizeof program, "%s/optimd", dirname(self));
    return live_start(program, error);
}

int main(int argc, char **argv)
{
    bool every_rule = argc > 1 && strcmp(argv[1], "--every-rule") == 0;
    int first = every_rule ? 2 : 1;
    const char *folder = argc > first ? argv[first] : "tests/golden/cases";
    struct counts counts = { 0 };
    struct opt_error error;
    char **names;
    size_t count;

    if (argc > first + 1) {
        fprintf(stderr, "usage: golden [--every-rule] [DIR]\n");
        return 64;
    }
    if (golden_list(folder, &names, &count, &error) != OPT_OK) {
        fprintf(stderr, "golden: %s\n", error.text);
        return 1;
    }
    if (!start_daemon(&error)) {
        fprintf(stderr, "golden: %s\n", error.text);
        golden_list_free(names, count);
        return 1;
    }
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        for (size_t i = 0; i < count && opt_isa_force((enum opt_isa)isa); i++) {
            judge(&golden_in_process, opt_isa_name((enum opt_isa)isa), folder, names[i],
                  &counts);
        }
    }
    for (size_t i = 0; i < count; i++) {
        judge(&golden_live, "live", folder, names[i], &counts);
    }
    golden_list_free(names, count);
    if (every_rule) {
        judge_rules(&counts);
    }
    if (!live_stop()) {
        printf("the daemon did not end well\n");
        counts.failed++;
    }
    printf("%zu passed, %zu failed, %zu unsupported\n", counts.passed, counts.failed,
           counts.unsupported);
    return counts.failed == 0 && counts.passed > 0 ? 0 : 1;
}
