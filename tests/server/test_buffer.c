#include "server/base/buffer.h"

#include <criterion/criterion.h>
#include <string.h>
#include <uv.h>

enum { MIB = 1 << 20 };

Test(buffer, uses_given_back_memory_again)
{
    size_t capacity = 0;
    uint8_t *first = buffer_take(4 * MIB, &capacity);
    cr_assert_not_null(first);
    cr_expect_eq((uintptr_t)first % (2 * MIB), 0u);
    memset(first, 1, 4 * MIB);
    buffer_give(first, capacity);
    cr_expect_eq(buffer_kept(), capacity);
    size_t again = 0;
    cr_expect_eq(buffer_take(3 * MIB, &again), first);
    cr_expect_eq(again, capacity);
    cr_expect_eq(buffer_kept(), 0u);
    buffer_give(first, again);
}

/* A small request must not sit on a large buffer. */
Test(buffer, does_not_waste_more_than_half)
{
    size_t large = 0;
    size_t small = 0;
    uint8_t *first = buffer_take(32 * MIB, &large);
    buffer_give(first, large);
    uint8_t *second = buffer_take(4 * MIB, &small);
    cr_expect_neq(second, first);
    cr_expect_lt(small, 8u * MIB);
    buffer_give(second, small);
}

Test(buffer, returns_what_nobody_wants)
{
    size_t capacity = 0;
    uint8_t *memory = buffer_take(MIB, &capacity);
    buffer_give(memory, capacity);
    buffer_trim();
    cr_expect_eq(buffer_kept(), capacity, "returned too soon");
    buffer_trim();
    cr_expect_eq(buffer_kept(), 0u);
}

Test(buffer, keeps_no_more_than_it_may)
{
    size_t first_size = 0;
    size_t second_size = 0;
    uint8_t *first = buffer_take(MIB, &first_size);
    uint8_t *second = buffer_take(MIB, &second_size);
    buffer_keep(first_size);
    buffer_give(first, first_size);
    buffer_give(second, second_size);
    cr_expect_eq(buffer_kept(), first_size);
    buffer_keep(0);
    cr_expect_eq(buffer_kept(), 0u);
}

Test(buffer, keeps_what_is_promised_even_if_that_is_more)
{
    size_t first_size = 0;
    size_t second_size = 0;
    uint8_t *first = buffer_take(MIB, &first_size);
    uint8_t *second = buffer_take(MIB, &second_size);
    buffer_keep(0);
    buffer_promise(0, first_size);
    buffer_give(first, first_size);
    buffer_give(second, second_size);
    cr_expect_eq(buffer_kept(), first_size);
    buffer_promise(first_size, 0);
    buffer_keep(0);
    cr_expect_eq(buffer_kept(), 0u);
}

Test(buffer, keeps_what_is_promised_for_longer)
{
    size_t capacity = 0;
    uint8_t *memory = buffer_take(MIB, &capacity);
    buffer_promise(0, capacity);
    buffer_give(memory, capacity);
    for (int i = 0; i < 24; i++) {
        buffer_trim();
        cr_expect_eq(buffer_kept(), capacity);
    }
    buffer_trim();
    cr_expect_eq(buffer_kept(), 0u);
    /* Once the promise is over, it goes as soon as anything else. */
    memory = buffer_take(MIB, &capacity);
    buffer_give(memory, capacity);
    buffer_promise(capacity, 0);
    buffer_trim();
    buffer_trim();
    cr_expect_eq(buffer_kept(), 0u);
}

Test(buffer, returns_much_little_by_little)
{
    enum { COUNT = 4 };
    uint8_t *memory[COUNT];
    size_t capacity = 0;
    buffer_keep((size_t)COUNT * 256 * MIB);
    for (int i = 0; i < COUNT; i++) {
        memory[i] = buffer_take((size_t)256 * MIB, &capacity);
        cr_assert_not_null(memory[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        buffer_give(memory[i], capacity);
    }
    buffer_trim();
    for (size_t left = COUNT; left > 0; left--) {
        cr_expect_eq(buffer_kept(), left * capacity);
        buffer_trim();
    }
    cr_expect_eq(buffer_kept(), 0u);
}

Test(buffer, keeps_small_ones_for_malloc)
{
    size_t capacity = 0;
    uint8_t *memory = buffer_take(1, &capacity);
    cr_assert_not_null(memory);
    cr_expect_eq((uintptr_t)memory % 64, 0u);
    buffer_give(memory, capacity);
    cr_expect_eq(buffer_kept(), 0u);
    buffer_give(NULL, 0);
}

/* What is given back must go the way it came, also just below and at the limit. */
Test(buffer, small_and_large_are_told_apart_by_capacity)
{
    for (size_t size = 130500; size < 131500; size++) {
        size_t capacity = 0;
        uint8_t *memory = buffer_take(size, &capacity);
        cr_assert_not_null(memory);
        memory[size - 1] = 1;
        buffer_give(memory, capacity);
        cr_expect_eq(buffer_kept() > 0, size > 131072 - 64, "%zu bytes", size);
    }
}

static void churn(void *argument)
{
    uint8_t mark = *(const uint8_t *)argument;
    for (int i = 0; i < 2000; i++) {
        size_t size = ((size_t)i % 7 + 1) * 70000;
        size_t capacity = 0;
        uint8_t *memory = buffer_take(size, &capacity);
        if (memory == NULL) {
            cr_assert_fail("no memory");
        }
        memory[0] = mark;
        memory[size - 1] = mark;
        if (i % 100 == 0) {
            buffer_trim();
        }
        if (memory[0] != mark || memory[size - 1] != mark) {
            cr_assert_fail("shared with another");
        }
        buffer_give(memory, capacity);
    }
}

Test(buffer, never_serves_two_at_once)
{
    uv_thread_t threads[4];
    static const uint8_t marks[4] = { 1, 2, 3, 4 };
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(uv_thread_create(&threads[i], churn, (void *)(uintptr_t)&marks[i]),
                     0);
    }
    for (int i = 0; i < 4; i++) {
        uv_thread_join(&threads[i]);
    }
}
