/* dtype — the storage types of tensor values on the wire, and the way to fp32 and back.
 *
 * The numbers are those of optimd.v1.Dtype. Widening is exact; narrowing rounds to
 * nearest even, overflow becomes infinity, NaN stays NaN. Any thread, no state.
 */
#ifndef OPTIMD_COMMON_DTYPE_H
#define OPTIMD_COMMON_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opt_dtype { OPT_FP32 = 0, OPT_BF16 = 1, OPT_FP16 = 2, OPT_DTYPE_COUNT };

/* Bytes of one element: 4, 2, 2. The dtype must be one of the above. */
size_t opt_dtype_size(enum opt_dtype dtype);

/* "fp32", "bf16", "fp16". Static text. */
const char *opt_dtype_name(enum opt_dtype dtype);

/* n elements of any dtype to float. values aligned to its element size, not
 * overlapping. */
void opt_dtype_widen(enum opt_dtype dtype, const void *values, float *out, size_t n);

/* n floats to any dtype, to the nearest and then to the even. What is finite stays
 * finite: beyond the dtype's largest value it is that one. */
void opt_dtype_narrow(enum opt_dtype dtype, const float *values, void *out, size_t n);

/* Index of the first NaN or infinity among n elements, or n if there is none. Runs at
 * memory speed over clean data. */
size_t opt_dtype_first_nonfinite(enum opt_dtype dtype, const void *values, size_t n);

/* The largest finite value. */
double opt_dtype_largest(enum opt_dtype dtype);

/* For sentences about a value that came as infinity: " as fp16, which ends at 65504",
 * written to out, and that; nothing of fp32. */
enum { OPT_DTYPE_ENDS_MAX = 48 };
const char *opt_dtype_ends(enum opt_dtype dtype, char out[OPT_DTYPE_ENDS_MAX]);

/* How many of n floats are finite and beyond the dtype's largest value (by more than
 * rounding takes away), and the index of the first of them, or n. At memory speed, too.
 */
size_t opt_dtype_count_beyond(enum opt_dtype dtype, const float *values, size_t n);
size_t opt_dtype_first_beyond(enum opt_dtype dtype, const float *values, size_t n);

#endif
