/* page — see page.h. It reads nothing but the report's document. */
#include "tests/bench/page.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum { SLUG = 64 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static bool finish(FILE *file, const char *path)
{
    bool good = file != NULL && ferror(file) == 0;
    if (file != NULL && fclose(file) != 0) {
        good = false;
    }
    if (!good) {
        fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
    }
    return good;
}

/* ---------------------------------------------------------------- the page */

static void print_facts(FILE *out, const json_t *facts)
{
    const char *name;
    json_t *text;
    fputs("| | |\n|---|---|\n", out);
    json_object_foreach((json_t *)facts, name, text)
    {
        fprintf(out, "| %s | %s |\n", name, json_string_value(text));
    }
}

/* How many rows of a group have a goal, and how many of them have met it, added. */
static void count_goals(const json_t *group, size_t *goals, size_t *met)
{
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(group, "rows"), i, row)
    {
        *goals += json_object_get(row, "goal") != NULL;
        *met += json_is_true(json_object_get(row, "met"));
    }
}

/* The groups, with links and what became of their goals. */
static void print_summary(FILE *out, const json_t *groups)
{
    size_t i, all_goals = 0, all_met = 0;
    const json_t *group;
    fputs("\n| group | measures | goals | reached |\n|---|---|---|---|\n", out);
    json_array_foreach(groups, i, group)
    {
        size_t goals = 0, met = 0;
        count_goals(group, &goals, &met);
        all_goals += goals;
        all_met += met;
        fprintf(out, "| [%s](#%s) | %s | %zu | %zu |\n", text_of(group, "name"),
                text_of(group, "name"), text_of(group, "title"), goals, met);
    }
    fprintf(out, "| all | | %zu | %zu |\n", all_goals, all_met);
}

static void print_row(FILE *out, const json_t *row)
{
    const json_t *ratio = json_object_get(row, "ratio");
    const json_t *time = json_object_get(row, "ns_per_parameter");
    const char *quantity = text_of(row, "quantity");
    char note[48] = "";
    if (time != NULL) {
        snprintf(note, sizeof note, " (%.3f ns/param)", json_number_value(time));
    }
    fprintf(out, "| %s%s%s | %.4g%s | %.4g | %s | %s | %.2f (%.2f-%.2f) | %.0f |",
            text_of(row, "name"), quantity[0] == '\0' ? "" : ", ", quantity,
            number_of(json_object_get(row, "optimd"), "median"), note,
            number_of(json_object_get(row, "theirs"), "median"), text_of(row, "unit"),
            text_of(row, "reference"), number_of(ratio, "median"),
            number_of(ratio, "lowest"), number_of(ratio, "highest"),
            number_of(row, "pairs"));
    if (json_object_get(row, "goal") == NULL) {
        fputs(" |\n", out);
        return;
    }
    bool more = strcmp(text_of(row, "better"), "more") == 0;
    fprintf(out, " %s %.2f: %s |\n", more ? "at least" : "at most",
            number_of(row, "goal"),
            json_is_true(json_object_get(row, "met")) ? "reached" : "**missed**");
}

static void print_group(FILE *out, const json_t *group)
{
    size_t i;
    const json_t *row;
    fprintf(out, "\n## %s\n\n%s.%s\n\n", text_of(group, "name"),
            text_of(group, "title"),
            json_is_true(json_object_get(group, "quiet"))
                ? ""
                : " Other programs were busy meanwhile: judge the ratios only.");
    fputs("| what | optimd | reference | unit | which is | ratio | pairs | goal |\n"
          "|---|---|---|---|---|---|---|---|\n",
          out);
    json_array_foreach(json_object_get(group, "rows"), i, row)
    {
        print_row(out, row);
    }
}

bool page_write(const struct report *report, const char *path)
{
    const json_t *document = report_document(report), *item;
    const json_t *groups = json_object_get(document, "groups");
    size_t i;
    FILE *out = fopen(path, "we");
    if (out != NULL) {
        fputs(
            "# Measurements\n\n"
            "Written by `make bench`. Every row compares two things that were measured "
            "by turns in one run, on one machine: optimd first, then the reference, "
            "and "
            "so on. The ratio is the median of the pairs', with the lowest and the "
            "highest; both other figures are medians. A goal is one for the ratio, and "
            "what is better is what the goal says. A row of a single pair compares "
            "with "
            "a number that was calculated, or was left that little time.\n\n",
            out);
        print_facts(out, json_object_get(document, "run"));
        print_summary(out, groups);
        fputs(
            "\nCost of each parameter, tensor, worker or connection as there are more "
            "of them, where 1 is the least number of each:\n\n"
            "![curves](results.svg)\n",
            out);
        json_array_foreach(groups, i, item)
        {
            print_group(out, item);
        }
        item = json_object_get(document, "failures");
        for (i = 0; i < json_array_size(item); i++) {
            fprintf(out, "%s- %s\n", i == 0 ? "\n## Not measured\n\n" : "",
                    json_string_value(json_array_get(item, i)));
        }
    }
    return finish(out, path);
}

/* ---------------------------------------------------------------- curves */

/* One block: the rows of a group that show a quantity of a series. */
static void print_block(FILE *out, const json_t *group, const char *series,
                        const char *quantity)
{
    size_t i;
    bool begun = false;
    const json_t *row;
    json_array_foreach(json_object_get(group, "rows"), i, row)
    {
        const json_t *point = json_object_get(row, "point");
        const json_t *ratio = json_object_get(row, "ratio");
        if (point == NULL || strcmp(text_of(point, "series"), series) != 0 ||
            strcmp(text_of(row, "quantity"), quantity) != 0) {
            continue;
        }
        if (!begun) {
            begun = true;
            fprintf(out, "# %s by %s\n%.0f 1 1 1\n",
                    quantity[0] == '\0' ? "time" : quantity, text_of(point, "axis"),
                    number_of(point, "least"));
        }
        fprintf(out, "%.0f %.4g %.4g %.4g\n", number_of(point, "x"),
                number_of(ratio, "median"), number_of(ratio, "lowest"),
                number_of(ratio, "highest"));
    }
    fputs("\n\n", out);
}

/* Whether one of the first rows is of the series, and of the quantity unless it is
 * NULL.
 */
static bool seen(const json_t *rows, size_t end, const char *series,
                 const char *quantity)
{
    for (size_t i = 0; i < end; i++) {
        const json_t *row = json_array_get(rows, i);
        const json_t *point = json_object_get(row, "point");
        if (point != NULL && strcmp(text_of(point, "series"), series) == 0 &&
            (quantity == NULL || strcmp(text_of(row, "quantity"), quantity) == 0)) {
            return true;
        }
    }
    return false;
}

static bool write_series(const json_t *group, const char *series, const char *dir)
{
    char path[512], slug[SLUG];
    size_t i, used = 0;
    const json_t *row, *rows = json_object_get(group, "rows");
    for (i = 0; series[i] != '\0' && used + 1 < sizeof slug; i++) {
        slug[used++] = isalnum((unsigned char)series[i]) ? series[i] : '-';
    }
    slug[used] = '\0';
    snprintf(path, sizeof path, "%s/%s.dat", dir, slug);
    FILE *out = fopen(path, "we");
    for (i = 0; out != NULL && i < json_array_size(rows); i++) {
        row = json_array_get(rows, i);
        const char *quantity = text_of(row, "quantity");
        if (strcmp(text_of(json_object_get(row, "point"), "series"), series) == 0 &&
            !seen(rows, i, series, quantity)) {
            print_block(out, group, series, quantity);
        }
    }
    return finish(out, path);
}

bool page_curves(const struct report *report, const char *dir)
{
    const json_t *groups = json_object_get(report_document(report), "groups");
    const json_t *group, *row;
    size_t i, k;
    bool written = true;
    json_array_foreach(groups, i, group)
    {
        const json_t *rows = json_object_get(group, "rows");
        json_array_foreach(rows, k, row)
        {
            const json_t *point = json_object_get(row, "point");
            const char *series = text_of(point, "series");
            if (point != NULL && !seen(rows, k, series, NULL)) {
                written = write_series(group, series, dir) && written;
            }
        }
    }
    return written;
}
