#include <criterion/criterion.h>
#include <stdint.h>

#include "client/backoff.h"

Test(backoff, doubles_from_least_to_most_within_its_jitter)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct backoff backoff;
        backoff_init(&backoff, 100, 5000, seed * UINT64_C(0x9E3779B97F4A7C15));
        uint32_t whole = 100;
        for (int i = 0; i < 12; i++) {
            uint32_t wait = backoff_next(&backoff);
            cr_assert(wait >= whole / 2 && wait <= whole, "attempt %d waits %u of %u",
                      i, wait, whole);
            whole = whole * 2 > 5000 ? 5000 : whole * 2;
        }
    }
}

Test(backoff, differs_between_clients)
{
    uint32_t first = 0;
    int different = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct backoff backoff;
        backoff_init(&backoff, 1000, 5000, seed * UINT64_C(0x9E3779B97F4A7C15));
        uint32_t wait = backoff_next(&backoff);
        different += seed > 1 && wait != first;
        first = seed == 1 ? wait : first;
    }
    cr_assert_gt(different, 40);
}

Test(backoff, is_short_again_after_success)
{
    struct backoff backoff;
    backoff_init(&backoff, 100, 5000, 7);
    for (int i = 0; i < 10; i++) {
        backoff_next(&backoff);
    }
    backoff_reset(&backoff);
    cr_assert_leq(backoff_next(&backoff), 100);
}

Test(backoff, makes_sense_of_senseless_limits)
{
    struct backoff backoff;
    backoff_init(&backoff, 0, 0, 0);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(backoff_next(&backoff), 1);
    }
    backoff_init(&backoff, 500, 100, 3);
    for (int i = 0; i < 10; i++) {
        uint32_t wait = backoff_next(&backoff);
        cr_assert(wait >= 250 && wait <= 500);
    }
    backoff_init(&backoff, UINT32_MAX, UINT32_MAX, 3);
    for (int i = 0; i < 10; i++) {
        cr_assert_geq(backoff_next(&backoff), UINT32_MAX / 2);
    }
}
