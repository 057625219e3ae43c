/* quantity — numbers as people write them: "64MiB", "30s", "4096".
 *
 * Strict: the whole text is the quantity, or it is refused with a sentence that quotes
 * it and says what would be right. No leading or trailing spaces, no hexadecimal, no
 * locale. Used for settings and command lines. Any thread.
 */
#ifndef OPTIMD_COMMON_QUANTITY_H
#define OPTIMD_COMMON_QUANTITY_H

#include <stdint.h>

#include "common/status.h"

/* A whole number from 0 to 2^64 - 1, decimal digits only: "4096".
 * OPT_INVALID_ARGUMENT, OPT_OUT_OF_RANGE. */
enum opt_status opt_quantity_count(const char *text, uint64_t *out,
                                   struct opt_error *error);

/* A size in bytes: digits, perhaps a fraction, and a unit; B, KiB, MiB, GiB, TiB
 * (powers of 1024) or kB, MB, GB, TB (powers of 1000): "64MiB", "1.5GiB". Only 0 needs
 * no unit. It must come out as a whole number of bytes. OPT_INVALID_ARGUMENT,
 * OPT_OUT_OF_RANGE (more than 2^64 - 1). */
enum opt_status opt_quantity_bytes(const char *text, uint64_t *out,
                                   struct opt_error *error);

/* A duration in milliseconds: digits, perhaps a fraction, and a unit; us, ms, s, min, h
 * or d: "30s", "1.5h". Only 0 needs no unit. It must come out as a whole number of
 * milliseconds. OPT_INVALID_ARGUMENT, OPT_OUT_OF_RANGE. */
enum opt_status opt_quantity_milliseconds(const char *text, uint64_t *out,
                                          struct opt_error *error);

#endif
