/* report — what was measured: rows for people, JSON for machines.
 *
 * Every row is a quantity of optimd beside the same quantity of a reference that was
 * measured in the same run, and the ratio of the two. Measurements add rows as they
 * finish, each is printed at once, and the whole is written as JSON at the end. Main
 * thread.
 */
#ifndef OPTIMD_TESTS_BENCH_REPORT_H
#define OPTIMD_TESTS_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

struct summary {
    double median, lowest, highest;
};

/* Of n values, at least 1. Sorts them. */
struct summary summary_of(double *values, size_t n);

/* Which ratio is a good one. */
enum report_better { REPORT_MORE, REPORT_LESS };

/* A quantity: the same for optimd and for its reference. */
struct report_quantity {
    const char *name; /* "p99"; "" if the row's name says it all */
    const char *unit;
    enum report_better better;
    double goal;  /* for the median ratio: at least, or at most; 0: none */
    double bytes; /* of a parameter, if the unit is GB/s: ns/param is shown too; or 0 */
};

/* Where a row stands on a curve: one of a series that differ in one thing, each
 * compared with the same least one. */
struct report_point {
    const char *series; /* "model size" */
    const char *axis;   /* what x counts, "parameters" */
    double x, least;
};

struct report_row {
    const char *name;      /* what of optimd */
    const char *reference; /* against what */
    struct report_quantity quantity;
    struct summary ours, theirs, ratio;
    size_t pairs;                     /* how many of each were measured */
    bool few;                         /* fewer than a median wants */
    const struct report_point *point; /* or NULL */
};

struct report;

/* Prints to out, borrowed. NULL if there is no memory. */
struct report *report_new(FILE *out);
void report_free(struct report *report);

/* Facts about the machine or the run, printed and kept. */
void report_fact(struct report *report, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A group of rows follows; idle is the share of processor time that was free just
 * before, and quiet whether that was enough. */
void report_group(struct report *report, const char *name, const char *title,
                  double idle, bool quiet);

/* A row. Everything is copied. */
void report_add(struct report *report, const struct report_row *row);

/* Something could not be measured: a sentence. */
void report_failure(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* How many rows and failures so far. */
size_t report_rows(const struct report *report);
size_t report_failures(const struct report *report);

/* Everything as one object, borrowed: {format, run: {fact: text}, groups: [{name,
 * title, idle, quiet, rows: [row]}], failures: [text]}. */
const json_t *report_document(const struct report *report);

/* Write everything as JSON. False, with a sentence on stderr, if it cannot be. */
bool report_save(const struct report *report, const char *path);

#endif
