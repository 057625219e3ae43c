/* resident — how much memory a daemon took, beside what it may take.
 *
 * It may have weights and slots, what each worker may have in flight (a gradient and
 * 8 MiB), and 64 MiB for everything else, program and tables included. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_RESIDENT_H
#define OPTIMD_TESTS_BENCH_RESIDENT_H

#include <stddef.h>

#include "tests/bench/process.h"
#include "tests/bench/report.h"

/* Add a row with the most memory that the daemon has had resident, in MiB, and the most
 * that it may have for a model of so many parameters. */
void resident_report(struct report *report, const struct server *server,
                     const char *name, double parameters, size_t slots,
                     unsigned workers);

#endif
