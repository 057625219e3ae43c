/* compare — see compare.h. */
#include "tests/bench/compare.h"

/* All values of one side, by quantity. */
struct samples {
    double values[COMPARE_QUANTITIES_MAX][COMPARE_PAIRS_MAX];
};

static bool take(const struct compare_side *side, size_t quantities,
                 struct samples *samples, size_t pair, char problem[256])
{
    double values[COMPARE_QUANTITIES_MAX] = { 0 };
    if (!side->run(side->context, values, problem)) {
        return false;
    }
    for (size_t q = 0; q < quantities; q++) {
        samples->values[q][pair] = values[q];
    }
    return true;
}

static void add_rows(struct report *report, const struct comparison *comparison,
                     struct samples *ours, struct samples *theirs, size_t pairs)
{
    for (size_t q = 0; q < comparison->quantity_count; q++) {
        double ratios[COMPARE_PAIRS_MAX];
        for (size_t i = 0; i < pairs; i++) {
            ratios[i] = ours->values[q][i] / theirs->values[q][i];
        }
        struct report_row row = {
            .name = comparison->name,
            .reference = comparison->reference,
            .quantity = comparison->quantities[q],
            .ours = summary_of(ours->values[q], pairs),
            .theirs = summary_of(theirs->values[q], pairs),
            .ratio = summary_of(ratios, pairs),
            .pairs = pairs,
            .few = pairs < COMPARE_PAIRS_MIN,
            .point = comparison->point,
        };
        report_add(report, &row);
    }
}

bool compare_forms(const struct compare_side *side, unsigned *form, unsigned forms,
                   enum report_better better, char problem[256])
{
    double best[COMPARE_FORMS_MAX] = { 0 };
    unsigned chosen = 0;
    for (int turn = 0; turn <= 2; turn++) {
        for (unsigned i = 0; i < forms; i++) {
            double values[COMPARE_QUANTITIES_MAX] = { 0 };
            *form = i;
            if (!side->run(side->context, values, problem)) {
                return false;
            }
            bool first = turn <= 1; /* the warming up is forgotten */
            bool good =
                better == REPORT_MORE ? values[0] > best[i] : values[0] < best[i];
            best[i] = first || good ? values[0] : best[i];
        }
    }
    for (unsigned i = 1; i < forms; i++) {
        bool good =
            better == REPORT_MORE ? best[i] > best[chosen] : best[i] < best[chosen];
        chosen = good ? i : chosen;
    }
    *form = chosen;
    return true;
}

/* Whether another pair may begin: too few pairs say little, but even those may not take
 * for ever. */
static bool another(const struct compare_effort *effort, size_t pairs, double begin)
{
    double now = seconds_now(), spent = now - begin;
    if (pairs == 0) {
        return true;
    }
    return pairs < effort->pairs && pairs < COMPARE_PAIRS_MAX &&
           now < effort->deadline &&
           spent < (pairs < COMPARE_PAIRS_MIN ? 4 * effort->seconds : effort->seconds);
}

bool compare(struct report *report, const struct comparison *comparison,
             const struct compare_effort *effort)
{
    struct samples ours, theirs;
    char problem[256] = "";
    double begin = seconds_now();
    size_t n = comparison->quantity_count, pairs = 0;
    bool good = take(&comparison->ours, n, &ours, 0, problem) &&
                take(&comparison->theirs, n, &theirs, 0, problem);
    while (good && another(effort, pairs, begin)) {
        good = take(&comparison->ours, n, &ours, pairs, problem) &&
               take(&comparison->theirs, n, &theirs, pairs, problem);
        pairs += good;
    }
    if (!good) {
        report_failure(report, "%s: %s", comparison->name, problem);
        return false;
    }
    add_rows(report, comparison, &ours, &theirs, pairs);
    return true;
}
