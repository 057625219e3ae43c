/* slabs — memory that comes back and is used again: what it costs of the budget, which
 * one is taken, and what is always there.
 */
#include <criterion/criterion.h>

#include "server/base/memory.h"
#include "server/base/slabs.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

static struct budget budget;

static struct slabs *open_with(size_t limit)
{
    budget_init(&budget, limit);
    struct slabs *slabs = slabs_new(&budget, &budget);
    cr_assert_not_null(slabs);
    return slabs;
}

Test(slabs, what_comes_back_is_taken_again)
{
    struct slabs *slabs = open_with(64 * MIB);
    struct slab *first = slabs_take(slabs, MIB);
    cr_assert_not_null(first);
    cr_assert_geq(first->size, MIB);
    cr_assert_eq(budget_used(&budget), first->size);
    cr_assert_eq(slab_ref(first), first);
    slab_unref(first);
    first->bytes[MIB - 1] = 7;
    slab_unref(first);
    cr_assert_eq(slabs_take(slabs, MIB / 2), first);
    cr_assert_eq(first->bytes[MIB - 1], 7);
    slab_unref(first);
    /* It is far too large for this one. */
    struct slab *small = slabs_take(slabs, KIB);
    cr_assert_neq(small, first);
    slab_unref(small);
    slabs_trim(slabs);
    cr_assert_eq(budget_used(&budget), 0);
    slabs_close(slabs);
}

Test(slabs, what_nobody_needs_for_a_while_is_freed)
{
    struct slabs *slabs = open_with(64 * MIB);
    slab_unref(slabs_take(slabs, 8 * MIB));
    for (int i = 0; i < 100; i++) {
        slab_unref(slabs_take(slabs, 100 * KIB));
    }
    cr_assert_lt(budget_used(&budget), MIB);
    struct slab *many[32];
    for (int i = 0; i < 32; i++) {
        many[i] = slabs_take(slabs, 100 * KIB);
        cr_assert_not_null(many[i]);
    }
    for (int i = 0; i < 32; i++) {
        slab_unref(many[i]);
    }
    cr_assert_lt(budget_used(&budget), MIB);
    slabs_close(slabs);
    cr_assert_eq(budget_used(&budget), 0);
}

Test(slabs, the_reserved_one_is_always_there)
{
    struct slabs *slabs = open_with(4 * MIB);
    cr_assert(slabs_reserve(slabs, 2 * MIB));
    cr_assert(slabs_reserve(slabs, MIB));
    size_t reserved = budget_used(&budget);
    cr_assert_geq(reserved, 2 * MIB);
    slabs_trim(slabs);
    cr_assert_eq(budget_used(&budget), reserved);
    cr_assert(budget_take(&budget, budget_left(&budget)));
    struct slab *slab = slabs_take(slabs, KIB); /* though it is far too large */
    cr_assert_not_null(slab);
    cr_assert_null(slabs_take(slabs, KIB));
    slab_unref(slab);
    cr_assert_eq(slabs_take(slabs, 2 * MIB), slab);
    cr_assert_null(slabs_take(slabs, KIB));
    cr_assert_not(slabs_reserve(slabs, 3 * MIB));
    slab_unref(slab);
    slabs_close(slabs);
}

Test(slabs, a_larger_one_is_reserved_while_the_one_before_is_in_use)
{
    struct slabs *slabs = open_with(64 * MIB);
    cr_assert(slabs_reserve(slabs, MIB));
    struct slab *before = slabs_take(slabs, MIB);
    cr_assert(slabs_reserve(slabs, 2 * MIB));
    cr_assert_geq(budget_used(&budget), 3 * MIB);
    cr_assert(budget_take(&budget, budget_left(&budget)));
    struct slab *after = slabs_take(slabs, 2 * MIB);
    cr_assert_not_null(after);
    slab_unref(before);
    slab_unref(after);
    cr_assert_eq(slabs_take(slabs, MIB), before);
    slab_unref(before);
    slabs_close(slabs);
}

Test(slabs, closed_they_live_until_the_last_comes_back)
{
    struct slabs *slabs = open_with(64 * MIB);
    cr_assert(slabs_reserve(slabs, 3 * MIB));
    struct slab *reserved = slabs_take(slabs, 3 * MIB);
    struct slab *other = slabs_take(slabs, MIB), *spare = slabs_take(slabs, 5 * MIB);
    slab_unref(spare);
    cr_assert_eq(slabs_owner(slabs), &budget);
    size_t held = reserved->size + other->size, freed = 0, all = 0;
    while ((freed = slabs_cut(slabs, MIB)) > 0) {
        all += freed;
    }
    cr_assert_geq(all, 5 * MIB);
    cr_assert_eq(budget_used(&budget), held);
    slabs_close(slabs);
    cr_assert_null(slabs_owner(slabs));
    cr_assert_eq(budget_used(&budget), held);
    slab_unref(reserved);
    cr_assert_eq(budget_used(&budget), other->size);
    slab_unref(other);
    cr_assert_eq(budget_used(&budget), 0);
}
