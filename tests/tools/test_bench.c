/* What the benchmark makes of its measurements: pairs, ratios, forms, goals, and the
 * page. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/compare.h"
#include "tests/bench/page.h"
#include "tests/bench/report.h"

enum { VALUES_MAX = 16, LONG = 1 << 16 };

/* A side that gives prepared values, one after the other, and notes its turns. */
struct script {
    double values[VALUES_MAX];
    size_t taken, fails_at; /* no value after that many, unless 0 */
    char name;
    char *turns; /* of both sides */
};

static bool act(void *context, double *values, char problem[256])
{
    struct script *script = context;
    size_t end = strlen(script->turns);
    script->turns[end] = script->name;
    script->turns[end + 1] = '\0';
    if (script->fails_at > 0 && script->taken == script->fails_at) {
        snprintf(problem, 256, "it broke");
        return false;
    }
    values[0] = script->values[script->taken++ % VALUES_MAX];
    return true;
}

/* The report of one comparison of two scripts. */
static struct report *compared(struct script *ours, struct script *theirs, size_t pairs,
                               double deadline, const struct report_quantity *quantity,
                               const struct report_point *point, FILE *out)
{
    const struct comparison comparison = { .name = "ours / theirs",
                                           .reference = "theirs",
                                           .quantities = quantity,
                                           .quantity_count = 1,
                                           .ours = { act, ours },
                                           .theirs = { act, theirs },
                                           .point = point };
    const struct compare_effort effort = { pairs, 1000, seconds_now() + deadline };
    struct report *report = report_new(out);
    cr_assert_not_null(report);
    report_group(report, "group", "A group", 1, true);
    (void)compare(report, &comparison, &effort);
    return report;
}

static const json_t *first_row(const struct report *report)
{
    const json_t *group =
        json_array_get(json_object_get(report_document(report), "groups"), 0);
    return json_array_get(json_object_get(group, "rows"), 0);
}

static double median_of(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(json_object_get(row, key), "median"));
}

static const struct report_quantity time_below_1 = { "time", "ms", REPORT_LESS, 1, 0 };
static const struct report_quantity rate_above_1 = { "rate", "1/s", REPORT_MORE, 1, 0 };

Test(bench, median_is_the_middle_or_between_the_middle_two)
{
    double odd[] = { 9, 1, 5 }, even[] = { 4, 8, 1, 2 };
    struct summary summary = summary_of(odd, 3);
    cr_assert_eq(summary.median, 5);
    cr_assert_eq(summary.lowest, 1);
    cr_assert_eq(summary.highest, 9);
    cr_assert_eq(summary_of(even, 4).median, 3);
}

Test(bench, sides_take_turns_and_warm_up_is_forgotten)
{
    char turns[64] = "";
    FILE *out = tmpfile();
    struct script ours = { { 100, 2, 2, 2, 2, 2 }, .name = 'a', .turns = turns };
    struct script theirs = { { 1, 1, 1, 1, 1, 1 }, .name = 'b', .turns = turns };
    struct report *report = compared(&ours, &theirs, 5, 1000, &time_below_1, NULL, out);
    cr_assert_str_eq(turns, "abababababab");
    cr_assert_eq(median_of(first_row(report), "ratio"), 2);
    cr_assert_eq(json_integer_value(json_object_get(first_row(report), "pairs")), 5);
    report_free(report);
    fclose(out);
}

/* The machine became ten times as slow after the second pair; the medians of the sides
 * would say 0.2. */
Test(bench, ratio_is_the_median_of_the_pairs_ratios)
{
    char turns[64] = "";
    FILE *out = tmpfile();
    struct script ours = { { 1, 2, 2, 20, 20, 20 }, .name = 'a', .turns = turns };
    struct script theirs = { { 1, 1, 1, 10, 10, 100 }, .name = 'b', .turns = turns };
    struct report *report = compared(&ours, &theirs, 5, 1000, &time_below_1, NULL, out);
    const json_t *ratio = json_object_get(first_row(report), "ratio");
    cr_assert_eq(median_of(first_row(report), "ratio"), 2);
    cr_assert_float_eq(json_number_value(json_object_get(ratio, "lowest")), 0.2, 1e-9);
    cr_assert_eq(median_of(first_row(report), "optimd"), 20);
    cr_assert_eq(median_of(first_row(report), "theirs"), 10);
    report_free(report);
    fclose(out);
}

Test(bench, past_the_deadline_a_single_pair_must_do)
{
    char turns[64] = "";
    FILE *out = tmpfile();
    struct script ours = { { 1, 3 }, .name = 'a', .turns = turns };
    struct script theirs = { { 1, 2 }, .name = 'b', .turns = turns };
    struct report *report = compared(&ours, &theirs, 7, -1, &time_below_1, NULL, out);
    cr_assert_str_eq(turns, "abab");
    cr_assert_eq(median_of(first_row(report), "ratio"), 1.5);
    report_free(report);
    fclose(out);
}

Test(bench, side_that_fails_makes_no_row)
{
    char turns[64] = "";
    FILE *out = tmpfile();
    struct script ours = { { 1, 1, 1 }, .name = 'a', .turns = turns };
    struct script theirs = { { 1, 1, 1 }, .fails_at = 2, .name = 'b', .turns = turns };
    struct report *report = compared(&ours, &theirs, 5, 1000, &time_below_1, NULL, out);
    const json_t *failures = json_object_get(report_document(report), "failures");
    cr_assert_eq(report_rows(report), 0);
    cr_assert_eq(report_failures(report), 1);
    cr_assert_str_eq(json_string_value(json_array_get(failures, 0)),
                     "ours / theirs: it broke");
    report_free(report);
    fclose(out);
}

/* ---------------------------------------------------------------- forms */

/* Which form is asked for, and what each gives. */
struct forms {
    unsigned form;
    double values[3][3]; /* by form and turn */
    unsigned turns[3];
};

static bool act_form(void *context, double *values, char problem[256])
{
    struct forms *forms = context;
    (void)problem;
    values[0] = forms->values[forms->form][forms->turns[forms->form]++];
    return true;
}

Test(bench, best_form_is_chosen_and_warm_up_does_not_count)
{
    char problem[256];
    /* The first is best while it warms up, the last once afterwards. */
    const struct forms start = { .values = { { 1, 9, 9 }, { 5, 5, 6 }, { 8, 8, 4 } } };
    struct forms forms = start;
    const struct compare_side side = { act_form, &forms };
    cr_assert(compare_forms(&side, &forms.form, 3, REPORT_LESS, problem));
    cr_assert_eq(forms.form, 2);
    forms = start;
    cr_assert(compare_forms(&side, &forms.form, 3, REPORT_MORE, problem));
    cr_assert_eq(forms.form, 0);
}

/* ---------------------------------------------------------------- what is written */

static bool is_met(const struct report_quantity *quantity, double ours)
{
    char turns[64] = "";
    FILE *out = tmpfile();
    struct script one = { { ours, ours }, .name = 'a', .turns = turns };
    struct script other = { { 1, 1 }, .name = 'b', .turns = turns };
    struct report *report = compared(&one, &other, 1, -1, quantity, NULL, out);
    const json_t *met = json_object_get(first_row(report), "met");
    cr_assert(json_is_boolean(met));
    bool is = json_is_true(met);
    report_free(report);
    fclose(out);
    return is;
}

Test(bench, goal_is_met_on_its_own_side_only)
{
    cr_assert(is_met(&time_below_1, 0.9));
    cr_assert(is_met(&time_below_1, 1));
    cr_assert(!is_met(&time_below_1, 1.1));
    cr_assert(is_met(&rate_above_1, 1.1));
    cr_assert(is_met(&rate_above_1, 1));
    cr_assert(!is_met(&rate_above_1, 0.9));
}

static void read_whole(const char *path, char text[LONG])
{
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s", path);
    text[fread(text, 1, LONG - 1, file)] = '\0';
    fclose(file);
}

Test(bench, page_curves_and_json_have_the_row)
{
    static char text[LONG];
    char turns[64] = "", folder[] = "/tmp/optimd-test-bench-XXXXXX", path[64];
    const struct report_point point = { "model size", "parameters", 1000, 10 };
    FILE *out = tmpfile();
    cr_assert_not_null(mkdtemp(folder));
    struct script ours = { { 3, 3 }, .name = 'a', .turns = turns };
    struct script theirs = { { 2, 2 }, .name = 'b', .turns = turns };
    struct report *report = compared(&ours, &theirs, 1, -1, &time_below_1, &point, out);
    report_fact(report, "a peer", "version %d", 7);

    snprintf(path, sizeof path, "%s/page.md", folder);
    cr_assert(page_write(report, path));
    read_whole(path, text);
    cr_assert_not_null(strstr(text, "| a peer | version 7 |"));
    cr_assert_not_null(strstr(text, "| [group](#group) | A group | 1 | 0 |"));
    cr_assert_not_null(strstr(text,
                              "| ours / theirs, time | 3 | 2 | ms | theirs | 1.50 "
                              "(1.50-1.50) | 1 | at most 1.00: **missed** |"));
    unlink(path);

    cr_assert(page_curves(report, folder));
    snprintf(path, sizeof path, "%s/model-size.dat", folder);
    read_whole(path, text);
    cr_assert_str_eq(text, "# time by parameters\n10 1 1 1\n1000 1.5 1.5 1.5\n\n\n");
    unlink(path);

    snprintf(path, sizeof path, "%s/results.json", folder);
    cr_assert(report_save(report, path));
    json_t *document = json_load_file(path, 0, NULL);
    const char *name = NULL, *quantity = NULL, *unit = NULL, *better = NULL;
    double goal, x;
    cr_assert_eq(json_unpack(document,
                             "{s:i, s:{s:s}, s:[{s:s, s:[{s:s, s:s, s:s, s:s, s:f, "
                             "s:{s:f}}]}], s:[]}",
                             "format", &(int){ 0 }, "run", "a peer", &(char *){ NULL },
                             "groups", "name", &(char *){ NULL }, "rows", "name", &name,
                             "quantity", &quantity, "unit", &unit, "better", &better,
                             "goal", &goal, "point", "x", &x, "failures"),
                 0);
    cr_assert_str_eq(name, "ours / theirs");
    cr_assert_str_eq(quantity, "time");
    cr_assert_str_eq(unit, "ms");
    cr_assert_str_eq(better, "less");
    cr_assert_eq(goal, 1);
    cr_assert_eq(x, 1000);
    json_decref(document);
    unlink(path);
    rmdir(folder);
    report_free(report);
    fclose(out);
}
