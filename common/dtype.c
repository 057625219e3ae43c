/* dtype — sizes, names, and the conversions' way to the kernels. Any thread. */
#include "common/dtype.h"

#include <assert.h>
#include <string.h>

#include "common/optim/kernels.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [OPT_FP32] = { "fp32", 4 },
    [OPT_BF16] = { "bf16", 2 },
    [OPT_FP16] = { "fp16", 2 },
};
_Static_assert(sizeof types / sizeof types[0] == OPT_DTYPE_COUNT,
               "every dtype has a size and a name");

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

bool opt_dtype_parse(const char *word, enum opt_dtype *out)
{
    for (int i = 0; i < OPT_DTYPE_COUNT; i++) {
        if (strcmp(word, types[i].name) == 0) {
            *out = (enum opt_dtype)i;
            return true;
        }
    }
    return false;
}

void opt_dtype_widen(enum opt_dtype dtype, const void *values, float *out, size_t n)
{
    opt_kernels()->widen(dtype, values, out, n);
}

void opt_dtype_narrow(enum opt_dtype dtype, const float *values, void *out, size_t n)
{
    opt_kernels()->narrow(dtype, values, out, n);
}

/* A piece at a time without asking where, then the piece that has one by halves. */
size_t opt_dtype_first_nonfinite(enum opt_dtype dtype, const void *values, size_t n)
{
    enum { PIECE = 4096 };
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
