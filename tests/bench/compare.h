/* compare — two things measured by turns, A B A B, and the ratio of each pair.
 *
 * Machines drift by factors within minutes, so an absolute figure says little; the
 * ratio of two runs that follow each other says more, and the median of several such
 * ratios is what is reported. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_COMPARE_H
#define OPTIMD_TESTS_BENCH_COMPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/bench/clock.h"
#include "tests/bench/report.h"

enum {
    COMPARE_QUANTITIES_MAX = 4,
    COMPARE_PAIRS_MIN = 5,
    COMPARE_PAIRS_MAX = 64,
    COMPARE_FORMS_MAX = 8
};

/* One run: fills a value for each quantity of the comparison. False, with a sentence in
 * problem, if it could not be done. */
struct compare_side {
    bool (*run)(void *context, double *values, char problem[256]);
    void *context;
};

struct comparison {
    const char *name;
    const char *reference;
    const struct report_quantity *quantities;
    size_t quantity_count;
    struct compare_side ours, theirs;
    const struct report_point *point; /* or NULL */
};

/* How much work a comparison may be. */
struct compare_effort {
    size_t pairs;    /* wanted */
    double seconds;  /* no new pair after that long, once there are COMPARE_PAIRS_MIN;
                        after four times that, none in any case */
    double deadline; /* of seconds_now(): from then on a single pair must do */
};

/* Which of a side's forms does best by its first value: each is run once for warming
 * up and twice more, by turns, with its number in *form, where the best is left. False,
 * with a sentence, if one failed. */
bool compare_forms(const struct compare_side *side, unsigned *form, unsigned forms,
                   enum report_better better, char problem[256]);

/* Run each side once for warming up, then the pairs; add one row per quantity. False,
 * and a failure in the report, if a side failed. */
bool compare(struct report *report, const struct comparison *comparison,
             const struct compare_effort *effort);

#endif
