#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

/* AddressSanitizer's, absent otherwise: whether a byte may not be touched. */
extern int __asan_address_is_poisoned(const void *address) __attribute__((weak));

Test(arena, hands_out_aligned_pieces_that_do_not_overlap)
{
    enum { PIECES = 500 };
    struct opt_arena arena;
    opt_arena_init(&arena, 1 << 20);
    unsigned char *pieces[PIECES];
    size_t sizes[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        sizes[i] = i * 7919 % 1500;
        pieces[i] = opt_arena_alloc(&arena, sizes[i]);
        cr_assert_not_null(pieces[i]);
        cr_assert_eq((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i % 251), sizes[i]);
    }
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t j = 0; j < sizes[i]; j++) {
            cr_assert_eq(pieces[i][j], i % 251);
        }
    }
    opt_arena_fini(&arena);
}

Test(arena, never_hands_out_more_than_its_limit)
{
    static const size_t sizes[] = { 1, 16, 17, 100, 4096, 70000 };
    for (size_t limit = 0; limit < 300000; limit = limit * 3 + 5) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct opt_arena arena;
            opt_arena_init(&arena, limit);
            size_t rounded = (sizes[i] + 15) / 16 * 16;
            size_t count = 0;
            while (opt_arena_alloc(&arena, sizes[i]) != NULL) {
                count++;
                cr_assert_leq(arena.used, limit);
            }
            cr_assert_eq(count, limit / rounded, "%zu of %zu", sizes[i], limit);
            opt_arena_fini(&arena);
        }
    }
}

Test(arena, refuses_sizes_that_would_wrap)
{
    struct opt_arena arena;
    opt_arena_init(&arena, SIZE_MAX);
    cr_assert_null(opt_arena_alloc(&arena, SIZE_MAX));
    cr_assert_null(opt_arena_alloc(&arena, SIZE_MAX - 15));
    cr_assert_not_null(opt_arena_alloc(&arena, 100));
    opt_arena_fini(&arena);
}

Test(arena, gives_even_nothing_an_address)
{
    struct opt_arena arena;
    opt_arena_init(&arena, 64);
    void *first = opt_arena_alloc(&arena, 0);
    void *second = opt_arena_alloc(&arena, 0);
    cr_assert_not_null(first);
    cr_assert_not_null(second);
    cr_assert_neq(first, second);
    opt_arena_fini(&arena);
}

Test(arena, starts_again_after_a_reset)
{
    struct opt_arena arena;
    opt_arena_init(&arena, 4096);
    for (int i = 0; i < 1000; i++) {
        cr_assert_not_null(opt_arena_alloc(&arena, 1500));
        cr_assert_not_null(opt_arena_alloc(&arena, 2500));
        cr_assert_null(opt_arena_alloc(&arena, 100));
        opt_arena_reset(&arena);
        cr_assert_eq(arena.used, 0);
    }
    opt_arena_fini(&arena);
    opt_arena_reset(&arena); /* of an empty one: nothing happens */
    cr_assert_not_null(opt_arena_alloc(&arena, 1500), "it can be used after fini");
    opt_arena_fini(&arena);
}

Test(arena, tells_the_sanitizer_what_it_has_handed_out)
{
    if (__asan_address_is_poisoned == NULL) {
        return;
    }
    struct opt_arena arena;
    opt_arena_init(&arena, 4096);
    const char *piece = opt_arena_alloc(&arena, 20);
    cr_assert_not_null(piece);
    cr_assert(!__asan_address_is_poisoned(piece));
    cr_assert(!__asan_address_is_poisoned(piece + 19));
    cr_assert(__asan_address_is_poisoned(piece + 20));
    cr_assert(__asan_address_is_poisoned(piece + 32));
    opt_arena_reset(&arena);
    cr_assert(__asan_address_is_poisoned(piece));
    opt_arena_fini(&arena);
}
