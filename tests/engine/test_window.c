/* window — what became of each of a worker's last pushes. */
#include "server/rounds/window.h"

#include <criterion/criterion.h>
#include <string.h>

static void settle(struct window *window, uint64_t sequence, enum opt_fate fate,
                   uint64_t step)
{
    window_settle(window, &(struct opt_settled){
                              .sequence = sequence, .fate = fate, .step = step });
}

static void expect_fate(const struct window *window, uint64_t sequence,
                        enum opt_fate fate, uint64_t step)
{
    struct opt_settled found = { .sequence = 0 };
    cr_assert_eq(window_find(window, sequence, &found), WINDOW_SETTLED);
    cr_assert_eq(found.sequence, sequence);
    cr_assert_eq(found.fate, fate);
    cr_assert_eq(found.step, step);
}

static void expect_place(const struct window *window, uint64_t sequence,
                         enum window_place place)
{
    struct opt_settled found;
    cr_assert_eq(window_find(window, sequence, &found), place);
}

Test(window, knows_nothing_at_first)
{
    struct window window = { .last = 0 };
    expect_place(&window, 1, WINDOW_NEW);
    expect_place(&window, UINT64_MAX, WINDOW_NEW);
}

Test(window, tells_what_became_of_each_push)
{
    struct window window = { .last = 0 };
    settle(&window, 1, OPT_FATE_APPLIED, 7);
    settle(&window, 3, OPT_FATE_SKIPPED, 7);
    window_settle(&window, &(struct opt_settled){ .sequence = 4,
                                                  .fate = OPT_FATE_REFUSED,
                                                  .step = 7,
                                                  .status = OPT_DEADLINE_EXCEEDED });
    settle(&window, 5, OPT_FATE_APPLIED, 8);
    expect_fate(&window, 1, OPT_FATE_APPLIED, 7);
    expect_place(&window, 2, WINDOW_PASSED_OVER);
    expect_fate(&window, 3, OPT_FATE_SKIPPED, 7);
    expect_fate(&window, 4, OPT_FATE_REFUSED, 7);
    expect_fate(&window, 5, OPT_FATE_APPLIED, 8);
    expect_place(&window, 6, WINDOW_NEW);
    struct opt_settled refused;
    window_find(&window, 4, &refused);
    cr_assert_eq(refused.status, OPT_DEADLINE_EXCEEDED);
}

Test(window, takes_a_push_that_was_overtaken)
{
    struct window window = { .last = 0 };
    settle(&window, 9, OPT_FATE_REFUSED, 1);
    expect_place(&window, 8, WINDOW_PASSED_OVER);
    settle(&window, 8, OPT_FATE_APPLIED, 2);
    expect_fate(&window, 8, OPT_FATE_APPLIED, 2);
    cr_assert_eq(window.last, 9);
}

Test(window, never_changes_what_is_settled)
{
    struct window window = { .last = 0 };
    settle(&window, 1, OPT_FATE_APPLIED, 1);
    settle(&window, 1, OPT_FATE_REFUSED, 2);
    expect_fate(&window, 1, OPT_FATE_APPLIED, 1);
}

Test(window, forgets_the_oldest_first)
{
    struct window window = { .last = 0 };
    for (uint64_t i = 1; i <= WINDOW_PUSHES + 1; i++) {
        settle(&window, i, OPT_FATE_APPLIED, 10 * i);
    }
    expect_place(&window, 1, WINDOW_TOO_OLD);
    for (uint64_t i = 2; i <= WINDOW_PUSHES + 1; i++) {
        expect_fate(&window, i, OPT_FATE_APPLIED, 10 * i);
    }
    settle(&window, 1, OPT_FATE_REFUSED, 0);
    expect_place(&window, 1, WINDOW_TOO_OLD);
}

Test(window, passes_over_any_gap)
{
    struct window window = { .last = 0 };
    settle(&window, 1, OPT_FATE_APPLIED, 1);
    settle(&window, UINT64_MAX, OPT_FATE_APPLIED, UINT64_C(1) << 40);
    expect_place(&window, 1, WINDOW_TOO_OLD);
    expect_place(&window, UINT64_MAX - 1, WINDOW_PASSED_OVER);
    expect_place(&window, UINT64_MAX - WINDOW_PUSHES + 1, WINDOW_PASSED_OVER);
    expect_fate(&window, UINT64_MAX, OPT_FATE_APPLIED, UINT64_C(1) << 40);
}

Test(window, keeps_steps_apart_that_look_alike_in_their_lower_half)
{
    const uint64_t many = UINT64_C(1) << 33;
    struct window window = { .last = 0 };
    settle(&window, 1, OPT_FATE_APPLIED, many - 1);
    settle(&window, 2, OPT_FATE_APPLIED, many);
    settle(&window, 3, OPT_FATE_APPLIED, many + UINT32_MAX - 1);
    expect_fate(&window, 1, OPT_FATE_APPLIED, many - 1);
    expect_fate(&window, 2, OPT_FATE_APPLIED, many);
    expect_fate(&window, 3, OPT_FATE_APPLIED, many + UINT32_MAX - 1);
}

Test(window, is_the_same_after_a_copy_of_its_bytes)
{
    static uint8_t bytes[sizeof(struct window)];
    struct window window = { .last = 0 };
    struct window copy;
    settle(&window, 5, OPT_FATE_APPLIED, 4);
    memcpy(bytes, &window, sizeof(window));
    memcpy(&copy, bytes, sizeof(copy));
    expect_fate(&copy, 5, OPT_FATE_APPLIED, 4);
}
