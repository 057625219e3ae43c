/* page — the report as a page to read, and its curves as data to draw.
 *
 * Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_PAGE_H
#define OPTIMD_TESTS_BENCH_PAGE_H

#include <stdbool.h>

#include "tests/bench/report.h"

/* Write the report as Markdown. False, with a sentence on stderr, if it cannot be. */
bool page_write(const struct report *report, const char *path);

/* Write each series of rows that have a point as DIR/SERIES.dat: a block for each of
 * its quantities, a line for each x: x, median ratio, lowest, highest. False, with a
 * sentence on stderr, if one cannot be. */
bool page_curves(const struct report *report, const char *dir);

#endif
