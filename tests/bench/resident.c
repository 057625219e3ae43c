/* resident — see resident.h. */
#include "tests/bench/resident.h"

#include <stdio.h>

enum {
    WORKER_MIB = 8, /* that a worker may have in flight beside its gradient */
    EVERYTHING_ELSE_MIB = 64
};

void resident_report(struct report *report, const struct server *server,
                     const char *name, double parameters, size_t slots,
                     unsigned workers)
{
    const double mebibyte = 1 << 20;
    double peak = (double)server_peak_bytes(server) / mebibyte;
    double arrays = (double)(1 + slots + workers);
    double most =
        4 * parameters * arrays / mebibyte + WORKER_MIB * workers + EVERYTHING_ELSE_MIB;
    char title[96];
    snprintf(title, sizeof title, "peak memory, %s", name);
    const struct report_row row = {
        .name = title,
        .reference = "weights, slots, what workers have in flight, 64 MiB",
        .quantity = { "", "MiB", REPORT_LESS, 1.0, 0 },
        .ours = { peak, peak, peak },
        .theirs = { most, most, most },
        .ratio = { peak / most, peak / most, peak / most },
        .pairs = 1,
    };
    report_add(report, &row);
}
