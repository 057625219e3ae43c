/* report — see report.h. The JSON document is the storage; the table is printed from
 * the same values. */
#include "tests/bench/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

struct report {
    FILE *out;
    json_t *document; /* owns the rest */
    json_t *facts;    /* object */
    json_t *groups;   /* array of objects with `rows` */
    json_t *rows;     /* of the current group, borrowed from groups */
    json_t *failures; /* array of strings */
    size_t row_count;
};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct summary summary_of(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    double middle =
        n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return (struct summary){ middle, values[0], values[n - 1] };
}

struct report *report_new(FILE *out)
{
    struct report *report = calloc(1, sizeof *report);
    if (report == NULL) {
        return NULL;
    }
    report->out = out;
    report->facts = json_object();
    report->groups = json_array();
    report->failures = json_array();
    report->document =
        json_pack("{s:i, s:o, s:o, s:o}", "format", 1, "run", report->facts, "groups",
                  report->groups, "failures", report->failures);
    if (report->document == NULL) {
        free(report);
        return NULL;
    }
    return report;
}

void report_free(struct report *report)
{
    if (report == NULL) {
        return;
    }
    json_decref(report->document);
    free(report);
}

void report_fact(struct report *report, const char *name, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(report->out, "  %-20s %s\n", name, text);
    json_object_set_new(report->facts, name, json_string(text));
}

void report_group(struct report *report, const char *name, const char *title,
                  double idle, bool quiet)
{
    fprintf(report->out, "\n%s%s\n", title,
            quiet ? "" : " (other programs were busy: judge the ratios only)");
    fprintf(report->out, "  %-44s %9s %9s %-8s  ratio (lowest-highest)\n", "", "optimd",
            "reference", "unit");
    json_t *group = json_pack("{s:s, s:s, s:f, s:b, s:[]}", "name", name, "title",
                              title, "idle", idle, "quiet", quiet, "rows");
    json_array_append_new(report->groups, group);
    report->rows = json_object_get(group, "rows");
    fflush(report->out);
}

/* Four significant digits, without exponents. */
static const char *digits(double value, char text[24])
{
    double size = fabs(value);
    int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
    snprintf(text, 24, "%.*f", decimals, value);
    return text;
}

static bool goal_met(const struct report_row *row)
{
    return row->quantity.better == REPORT_MORE
               ? row->ratio.median >= row->quantity.goal
               : row->ratio.median <= row->quantity.goal;
}

static json_t *summary_json(const struct summary *summary)
{
    return json_pack("{s:f, s:f, s:f}", "median", summary->median, "lowest",
                     summary->lowest, "highest", summary->highest);
}

void report_add(struct report *report, const struct report_row *row)
{
    const struct report_quantity *quantity = &row->quantity;
    const char *relation = quantity->better == REPORT_MORE ? ">=" : "<=";
    char name[128], ours[24], theirs[24], note[64] = "", time[32] = "";
    double ns = quantity->bytes / row->ours.median;
    snprintf(name, sizeof name, "%s%s%s", row->name, quantity->name[0] ? ", " : "",
             quantity->name);
    if (quantity->goal > 0) {
        snprintf(note, sizeof note, "  goal %s %.2f: %s", relation, quantity->goal,
                 goal_met(row) ? "met" : "MISSED");
    }
    if (quantity->bytes > 0) {
        snprintf(time, sizeof time, "  %.3f ns/param", ns);
    }
    fprintf(report->out, "  %-44s %9s %9s %-8s %6.2f (%.2f-%.2f)%s%s%s\n", name,
            digits(row->ours.median, ours), digits(row->theirs.median, theirs),
            quantity->unit, row->ratio.median, row->ratio.lowest, row->ratio.highest,
            time, note, row->few ? "  (few pairs)" : "");
    fflush(report->out);

    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:i}", "name", row->name, "quantity",
        quantity->name, "unit", quantity->unit, "better",
        quantity->better == REPORT_MORE ? "more" : "less", "reference", row->reference,
        "optimd", summary_json(&row->ours), "theirs", summary_json(&row->theirs),
        "ratio", summary_json(&row->ratio), "pairs", (int)row->pairs);
    if (quantity->bytes > 0) {
        json_object_set_new(object, "bytes_per_parameter", json_real(quantity->bytes));
        json_object_set_new(object, "ns_per_parameter", json_real(ns));
    }
    if (quantity->goal > 0) {
        json_object_set_new(object, "goal", json_real(quantity->goal));
        json_object_set_new(object, "met", json_boolean(goal_met(row)));
    }
    if (row->point != NULL) {
        json_object_set_new(object, "point",
                            json_pack("{s:s, s:s, s:f, s:f}", "series",
                                      row->point->series, "axis", row->point->axis, "x",
                                      row->point->x, "least", row->point->least));
    }
    json_array_append_new(report->rows, object);
    report->row_count++;
}

void report_failure(struct report *report, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(report->out, "  NOT MEASURED: %s\n", text);
    fflush(report->out);
    json_array_append_new(report->failures, json_string(text));
}

size_t report_rows(const struct report *report)
{
    return report->row_count;
}

size_t report_failures(const struct report *report)
{
    return json_array_size(report->failures);
}

const json_t *report_document(const struct report *report)
{
    return report->document;
}

bool report_save(const struct report *report, const char *path)
{
    bool saved = json_dump_file(report->document, path,
                                JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0;
    if (!saved) {
        fprintf(stderr, "bench: cannot write %s\n", path);
    }
    return saved;
}
