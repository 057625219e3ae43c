/* clock — the time by which things are measured. */
#ifndef OPTIMD_TESTS_BENCH_CLOCK_H
#define OPTIMD_TESTS_BENCH_CLOCK_H

/* Seconds of the monotonic clock. Any thread. */
double seconds_now(void);

#endif
