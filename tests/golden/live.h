/* live — golden cases through a real daemon and the client library. */
#ifndef OPTIMD_TESTS_GOLDEN_LIVE_H
#define OPTIMD_TESTS_GOLDEN_LIVE_H

#include <stdbool.h>

#include "common/status.h"
#include "tests/golden/backend.h"

extern const struct golden_backend golden_live;

/* Start the daemon, a program, on a free loopback port; false with a sentence. */
bool live_start(const char *daemon, struct opt_error *error);
/* Stop it; false if it did not end with 0. */
bool live_stop(void);

#endif
