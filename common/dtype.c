/* dtype — sizes, names, and the conversions' way to the kernels. Any thread. */
#include "common/dtype.h"

#include <assert.h>
#include <stdio.h>

#include "common/optim/kernels.h"

static const struct {
    const char *name;
    size_t size;
    double largest;
} types[] = {
    [OPT_FP32] = { "fp32", 4, 0x1.fffffep127 },
    [OPT_BF16] = { "bf16", 2, 0x1.fep127 },
    [OPT_FP16] = { "fp16", 2, 65504 },
};
_Static_assert(sizeof types / sizeof types[0] == OPT_DTYPE_COUNT,
               "every dtype has a size and a name");

enum { PIECE = 4096 }; /* elements that are looked at without asking where */

size_t opt_dtype_size(enum opt_dtype dtype)
{
    assert((unsigned)dtype < OPT_DTYPE_COUNT);
    return types[dtype].size;
}

const char *opt_dtype_name(enum opt_dtype dtype)
{
    assert((unsigned)dtype < OPT_DTYPE_COUNT);
    return types[dtype].name;
}

void opt_dtype_widen(enum opt_dtype dtype, const void *values, float *out, size_t n)
{
    opt_kernels()->widen(dtype, values, out, n);
}

void opt_dtype_narrow(enum opt_dtype dtype, const float *values, void *out, size_t n)
{
    opt_kernels()->narrow(dtype, values, out, n);
}

/* A piece at a time, then the piece that has one by halves. */
size_t opt_dtype_first_nonfinite(enum opt_dtype dtype, const void *values, size_t n)
{
    const struct opt_kernels *kernels = opt_kernels();
    const char *bytes = values;
    size_t size = opt_dtype_size(dtype);

    for (size_t start = 0; start < n; start += PIECE) {
        size_t count = n - start < PIECE ? n - start : PIECE;

        if (kernels->all_finite(dtype, bytes + start * size, count)) {
            continue;
        }
        while (count > 1) {
            size_t half = count / 2;
            if (kernels->all_finite(dtype, bytes + start * size, half)) {
                start += half;
                count -= half;
            } else {
                count = half;
            }
        }
        return start;
    }
    return n;
}

double opt_dtype_largest(enum opt_dtype dtype)
{
    assert((unsigned)dtype < OPT_DTYPE_COUNT);
    return types[dtype].largest;
}

const char *opt_dtype_ends(enum opt_dtype dtype, char out[OPT_DTYPE_ENDS_MAX])
{
    out[0] = '\0';
    if (dtype != OPT_FP32) {
        snprintf(out, OPT_DTYPE_ENDS_MAX, " as %s, which ends at %g",
                 opt_dtype_name(dtype), opt_dtype_largest(dtype));
    }
    return out;
}

size_t opt_dtype_count_beyond(enum opt_dtype dtype, const float *values, size_t n)
{
    return opt_kernels()->count_beyond(dtype, values, n);
}

size_t opt_dtype_first_beyond(enum opt_dtype dtype, const float *values, size_t n)
{
    const struct opt_kernels *kernels = opt_kernels();
    size_t start = 0;
    for (; start < n; start += PIECE) {
        size_t count = n - start < PIECE ? n - start : PIECE;
        if (kernels->count_beyond(dtype, values + start, count) > 0) {
            break;
        }
    }
    while (start < n && kernels->count_beyond(dtype, values + start, 1) == 0) {
        start++;
    }
    return start < n ? start : n;
}
