/* test_dtype — every half, many floats, and non-finite values wherever they may be. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "tests/support/toy.h"

enum { HALVES = 1 << 16 };

/* The value of a half by its definition; exponent_bits 8 or 5. */
static double by_definition(uint16_t half, int exponent_bits)
{
    int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = half >> mantissa_bits & ((1 << exponent_bits) - 1);
    int mantissa = half & ((1 << mantissa_bits) - 1);
    double sign = (half & 0x8000) != 0 ? -1 : 1;

    if (exponent == (1 << exponent_bits) - 1) {
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    }
    return sign *
           ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

static void each_isa(void (*check)(void))
{
    for (int isa = 0; isa < OPT_ISA_COUNT; isa++) {
        if (opt_isa_force((enum opt_isa)isa)) {
            check();
        }
    }
}

static const int exponent_bits[] = { [OPT_BF16] = 8, [OPT_FP16] = 5 };

static void widening(void)
{
    static uint16_t halves[HALVES], back[HALVES];
    static float wide[HALVES];

    for (size_t i = 0; i < HALVES; i++) {
        halves[i] = (uint16_t)i;
    }
    for (int dtype = OPT_BF16; dtype <= OPT_FP16; dtype++) {
        opt_dtype_widen((enum opt_dtype)dtype, halves, wide, HALVES);
        opt_dtype_narrow((enum opt_dtype)dtype, wide, back, HALVES);
        for (size_t i = 0; i < HALVES; i++) {
            double expected = by_definition((uint16_t)i, exponent_bits[dtype]);

            if (isnan(expected)) {
                cr_assert(isnan(wide[i]), "%x", (unsigned)i);
                cr_assert(isnan(by_definition(back[i], exponent_bits[dtype])), "%x",
                          (unsigned)i);
            } else {
                cr_assert_eq((double)wide[i], expected, "%x", (unsigned)i);
                cr_assert_eq(!signbit(wide[i]), i < HALVES / 2, "%x", (unsigned)i);
                cr_assert_eq(back[i], i, "%x comes back as %x", (unsigned)i, back[i]);
            }
        }
    }
}

Test(dtype, widens_every_half_exactly_and_narrows_it_back)
{
    each_isa(widening);
}

/* Nearest of the neighbours; of two as near, the even one. */
static void check_rounding(float value, uint16_t half, int bits)
{
    double got = by_definition(half, bits), distance = fabs((double)value - got);

    double largest = by_definition(bits == 8 ? 0x7f7f : 0x7bff, bits);
    if (fabs((double)value) > largest) {
        cr_assert_eq(got, copysign(largest, (double)value), "%.9g", (double)value);
        return;
    }
    for (int step = -1; step <= 1; step += 2) {
        if ((half & 0x7fff) == 0 && step < 0) {
            continue;
        }
        double other = by_definition((uint16_t)(half + step), bits);
        double away = isinf(other) ? (double)INFINITY : fabs((double)value - other);
        cr_assert(distance < away || (distance == away && half % 2 == 0),
                  "%.9g became %.9g, %.9g is nearer", (double)value, got, other);
    }
}

static void narrowing(void)
{
    enum { N = 200000 };
    static float values[N];
    static uint16_t halves[N];
    uint64_t seed = 1;

    for (size_t i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)toy_random(&seed);
        /* Some in fp16's range, some exactly between two halves. */
        if (i % 3 == 1) {
            bits = (bits & 0x8fffffffu) | 0x30000000u;
        } else if (i % 3 == 2) {
            bits = (bits & 0xfffff000u) + ((i / 3) % 2 == 0 ? 0 : 0x8000u);
        }
        memcpy(&values[i], &bits, sizeof bits);
        if (!isfinite(values[i])) {
            values[i] = 65520.0f;
        }
    }
    for (int dtype = OPT_BF16; dtype <= OPT_FP16; dtype++) {
        opt_dtype_narrow((enum opt_dtype)dtype, values, halves, N);
        for (size_t i = 0; i < N; i++) {
            cr_assert_eq((halves[i] & 0x8000) != 0, signbit(values[i]) != 0);
            check_rounding(values[i], halves[i], exponent_bits[dtype]);
        }
    }
}

Test(dtype, narrows_to_the_nearest_and_then_to_the_even)
{
    each_isa(narrowing);
}

static void leaving_the_range(void)
{
    const uint32_t nan_bits = 0x7f800001u; /* its payload is in the dropped bits */
    float values[] = { 65519.0f, 65520.0f, -3e38f, 0, INFINITY, -INFINITY };
    enum { COUNT = sizeof values / sizeof values[0] };
    uint16_t half[COUNT];

    memcpy(&values[3], &nan_bits, sizeof nan_bits);
    opt_dtype_narrow(OPT_FP16, values, half, COUNT);
    cr_assert_eq(half[0], 0x7bff);
    cr_assert_eq(half[1], 0x7bff);
    cr_assert_eq(half[2], 0xfbff);
    cr_assert(isnan(by_definition(half[3], 5)));
    cr_assert_eq(half[4], 0x7c00);
    cr_assert_eq(half[5], 0xfc00);
    cr_assert_eq(opt_dtype_count_beyond(OPT_FP16, values, COUNT), 2);
    cr_assert_eq(opt_dtype_first_beyond(OPT_FP16, values, COUNT), 1);
    cr_assert_eq(opt_dtype_count_beyond(OPT_FP32, values, COUNT), 0);
    values[1] = 3.4e38f;
    values[2] = -0x1.fefffep127f; /* the last that is rounded down */
    opt_dtype_narrow(OPT_BF16, values, half, COUNT);
    cr_assert_eq(half[1], 0x7f7f);
    cr_assert_eq(half[2], 0xff7f);
    cr_assert(isnan(by_definition(half[3], 8)));
    cr_assert_eq(half[4], 0x7f80);
    cr_assert_eq(half[5], 0xff80);
    cr_assert_eq(opt_dtype_count_beyond(OPT_BF16, values, COUNT), 1);
    cr_assert_eq(opt_dtype_largest(OPT_BF16), by_definition(0x7f7f, 8));
    cr_assert_eq(opt_dtype_largest(OPT_FP16), by_definition(0x7bff, 5));
}

Test(dtype, narrows_to_the_largest_what_is_finite_and_to_infinity_what_is_not)
{
    each_isa(leaving_the_range);
}

static void finding_the_first(void)
{
    enum { N = 9000 };
    static float values[N];
    for (size_t at = 0; at < N; at += 611) {
        memset(values, 0, sizeof values);
        cr_assert_eq(opt_dtype_first_beyond(OPT_FP16, values, N), N);
        values[at] = -66000;
        values[N - 1] = 1e30f;
        cr_assert_eq(opt_dtype_first_beyond(OPT_FP16, values, N), at);
        cr_assert_eq(opt_dtype_count_beyond(OPT_FP16, values, N), 2);
    }
}

Test(dtype, finds_what_is_beyond_wherever_it_is)
{
    each_isa(finding_the_first);
}

static void scanning(void)
{
    enum { N = 9000 };
    static const uint32_t bad[] = { 0x7f800000u, 0xff800000u, 0x7fc00000u,
                                    0x7f800001u };
    static uint32_t words[N];
    static uint16_t halves[N];

    for (size_t n = 0; n < N; n += n < 200 ? 1 : 977) {
        for (size_t at = 0; at <= n; at += n < 200 ? 1 : 331) {
            for (size_t i = 0; i < n; i++) {
                words[i] = 0xff7fffffu; /* the largest finite magnitude */
                halves[i] = 0x7bffu;
            }
            if (at < n) {
                words[at] = bad[at % 4];
                words[n - 1] = bad[0];
                halves[at] = at % 2 == 0 ? 0x7c00u : 0xfe01u;
                halves[n - 1] = 0xfc00u;
            }
            cr_assert_eq(opt_dtype_first_nonfinite(OPT_FP32, words, n), at);
            cr_assert_eq(opt_dtype_first_nonfinite(OPT_FP16, halves, n), at);
            for (size_t i = 0; i < n; i++) {
                halves[i] = (uint16_t)(words[i] >> 16);
                halves[i] |= (words[i] & 0x7fffffu) != 0 && i == at ? 1 : 0;
            }
            cr_assert_eq(opt_dtype_first_nonfinite(OPT_BF16, halves, n), at);
        }
    }
}

Test(dtype, finds_the_first_non_finite_value_wherever_it_is)
{
    each_isa(scanning);
}

Test(dtype, has_sizes_and_names)
{
    static const char *const names[] = { "fp32", "bf16", "fp16" };
    for (int i = 0; i < OPT_DTYPE_COUNT; i++) {
        cr_assert_str_eq(opt_dtype_name((enum opt_dtype)i), names[i]);
        cr_assert_eq(opt_dtype_size((enum opt_dtype)i), i == OPT_FP32 ? 4 : 2);
    }
}
