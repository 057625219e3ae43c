/* framing — what it costs to make a message into a frame and back.
 *
 * A part of the group latency. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_FRAMING_H
#define OPTIMD_TESTS_BENCH_FRAMING_H

#include "tests/bench/bench.h"

/* Add a row: the time of one push of 4 MiB without its data, beside half a microsecond.
 */
void framing_measure(const struct bench *bench);

#endif
