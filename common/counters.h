/* counters — what each of the daemon's counters counts, in half a line: one table for
 * everybody who shows them. Any thread.
 */
#ifndef OPTIMD_COMMON_COUNTERS_H
#define OPTIMD_COMMON_COUNTERS_H

#include <stddef.h>

struct opt_counter_text {
    const char *name, *text;
};

/* All of them. One that is not there is a newer daemon's. */
const struct opt_counter_text *opt_counter_texts(size_t *count);

#endif
