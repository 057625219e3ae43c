/* test_golden — the reader of golden cases: what it understands, what it says it does
 * not. The cases themselves are run by the golden program.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/golden_cases.h"

static const char folder[] = "tests/golden/cases";

static struct golden_case *load(const char *name)
{
    struct golden_case *golden = NULL;
    struct opt_error error = { .text = "" };

    cr_assert_eq(golden_case_load(folder, name, &golden, &error), OPT_OK, "%s",
                 error.text);
    return golden;
}

Test(golden, lists_every_case_in_order)
{
    char **names;
    size_t count;

    cr_assert_eq(golden_list(folder, &names, &count, NULL), OPT_OK);
    cr_assert_geq(count, 119);
    for (size_t i = 1; i < count; i++) {
        cr_assert_lt(strcmp(names[i - 1], names[i]), 0);
    }
    golden_list_free(names, count);
    cr_assert_eq(golden_list("tests/no such folder", &names, &count, NULL),
                 OPT_NOT_FOUND);
}

Test(golden, reads_options_through_the_setters)
{
    struct golden_case *golden = load("lamb_tensor_options");
    size_t n;

    cr_assert_str_eq(golden->unsupported, "");
    cr_assert_str_eq(golden->spec.groups[0].pattern, "b");
    cr_assert(golden->spec.groups[0].layerwise_none);
    cr_assert_eq(golden->steps, 50);
    cr_assert_eq(golden->tensor_count, 6);
    cr_assert_not_null(golden_expected(golden, "params/50/w", &n));
    cr_assert_eq(n, 12 * 9);
    cr_assert_gt(golden_state_tolerance(golden, "exp_avg"), 0.0);
    golden_case_free(golden);
}

Test(golden, says_why_a_case_cannot_be_run)
{
    static const char text[] = "{\"format\": \"optimd-golden/1\", \"case\": \"odd\", "
                               "\"kind\": \"dreamt\", \"problem\": \"p1\"}\n";
    static const char nothing[] = "\x08\0\0\0\0\0\0\0{}      "; /* no tensors */
    char place[] = "/tmp/optimd-golden-XXXXXX", path[64], data[64];
    struct golden_case *golden = NULL;
    struct opt_error error = { .text = "" };

    cr_assert_not_null(mkdtemp(place));
    snprintf(path, sizeof path, "%s/odd.json", place);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_gt(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
    snprintf(data, sizeof data, "%s/odd.safetensors", place);
    file = fopen(data, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(nothing, 1, 16, file), 16);
    cr_assert_eq(fclose(file), 0);
    cr_expect_eq(golden_case_load(place, "odd", &golden, &error), OPT_OK, "%s",
                 error.text);
    unlink(path);
    unlink(data);
    rmdir(place);
    cr_assert_not_null(golden);
    cr_expect_str_eq(golden->unsupported, "kind dreamt");
    golden_case_free(golden);
}

/* The gradients that the cases were made with are in them. */
Test(golden, evaluates_the_functions_as_the_cases_do)
{
    static const char *const names[] = { "quadratic_nag", "beale_nag", "saddle_nag" };

    for (size_t i = 0; i < 3; i++) {
        struct golden_case *golden = load(names[i]);
        size_t n;
        const double *gradients = golden_expected(golden, "gradients", &n);
        float g[GOLDEN_TENSORS];

        golden_gradient(golden, golden->tensors[0].initial, g);
        for (size_t j = 0; j < golden->tensors[0].n; j++) {
            cr_assert_lt(fabs((double)g[j] - gradients[j]),
                         1e-6 * (1 + fabs(gradients[j])));
        }
        golden_case_free(golden);
    }
}
