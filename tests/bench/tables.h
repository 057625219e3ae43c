/* tables — how long it takes to create and to describe models of many tensors.
 *
 * A part of the group scale. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_TABLES_H
#define OPTIMD_TESTS_BENCH_TABLES_H

#include "tests/bench/bench.h"

/* Add rows: time per tensor, of a hundred thousand and of a thousand. */
void tables_measure(const struct bench *bench);

#endif
