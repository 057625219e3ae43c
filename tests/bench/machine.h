/* machine — what the figures were measured on, and whether it had anything else to do.
 *
 * Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_MACHINE_H
#define OPTIMD_TESTS_BENCH_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/bench/report.h"

/* Processor, cores, memory, kernel, congestion control, compiler, instruction set. */
void machine_describe(struct report *report);

/* Processors that this process may use, at least 1. */
int machine_cores(void);

/* Bytes that can be taken without swapping. */
size_t machine_available(void);

/* Wait until the processors have been nearly idle for a moment, at most limit seconds.
 * Returns whether they were; *idle is the idle share of the last moment. */
bool machine_quiet(double limit, double *idle);

#endif
