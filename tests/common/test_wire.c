#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/wire_cases.h"

enum { ROOM = 1 << 20 };
static uint8_t packed[ROOM], again[ROOM];
static struct opt_error error;

static enum opt_status read_case(const struct wire_case *c, const uint8_t *bytes,
                                 size_t size, struct opt_arena *arena,
                                 struct wire_any *out)
{
    memset(out, 0, sizeof(*out));
    out->kind = c->any.kind;
    return wire_any_read(bytes, size, c->data_size, arena, out, &error);
}

/* What was accepted keeps to the limits, and says the same when it is sent on. */
static void expect_sound(const struct wire_any *any, size_t data_size, const char *what)
{
    const char *violation = wire_any_violation(any, data_size);
    cr_assert_null(violation, "%s: accepted with %s", what, violation);
    size_t size = wire_any_pack(any, again, sizeof(again));
    cr_assert_leq(size, sizeof(again));
    struct opt_arena arena;
    opt_arena_init(&arena, 4 << 20);
    struct wire_any back = { .kind = any->kind };
    cr_assert_eq(wire_any_read(again, size, data_size, &arena, &back, &error), OPT_OK,
                 "%s: %s", what, error.text);
    cr_assert(wire_any_equal(any, &back), "%s", what);
    opt_arena_fini(&arena);
}

/* ---------------------------------------------------------------- round trips */

Test(wire, every_message_comes_back_as_it_went)
{
    cr_assert_geq(wire_case_count, 46);
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        struct opt_arena arena;
        opt_arena_init(&arena, OPT_ARENA_BYTES);
        struct wire_any back;
        enum opt_status status = read_case(c, packed, size, &arena, &back);
        cr_assert_eq(status, OPT_OK, "%s: %s", c->name, error.text);
        cr_assert(wire_any_equal(&c->any, &back), "%s", c->name);
        expect_sound(&back, c->data_size, c->name);
        cr_assert_eq(wire_any_pack(&back, again, sizeof(again)), size, "%s", c->name);
        cr_assert_arr_eq(again, packed, size, "%s", c->name);
        opt_arena_fini(&arena);
    }
}

Test(wire, packing_touches_nothing_that_is_too_small)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        cr_assert_eq(wire_any_pack(&c->any, NULL, 0), size);
        memset(again, 0xAA, size + 1);
        if (size > 0) {
            cr_assert_eq(wire_any_pack(&c->any, again, size - 1), size);
            for (size_t j = 0; j <= size; j++) {
                cr_assert_eq(again[j], 0xAA, "%s", c->name);
            }
        }
        cr_assert_eq(wire_any_pack(&c->any, again, size), size);
        cr_assert_eq(again[size], 0xAA, "%s", c->name);
        cr_assert_arr_eq(again, packed, size);
    }
}

/* ---------------------------------------------------------------- damage */

Test(wire, every_truncation_is_refused_or_sound)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        for (size_t cut = 0; cut < size; cut++) {
            uint8_t *exact = malloc(cut + 1); /* ASan sees a byte read past it */
            memcpy(exact, packed, cut);
            struct opt_arena arena;
            opt_arena_init(&arena, OPT_ARENA_BYTES);
            struct wire_any back;
            if (read_case(c, exact, cut, &arena, &back) == OPT_OK) {
                expect_sound(&back, c->data_size, c->name);
            } else {
                cr_assert_neq(error.text[0], '\0');
            }
            opt_arena_fini(&arena);
            free(exact);
        }
    }
}

Test(wire, every_flipped_bit_is_refused_or_sound)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        for (size_t bit = 0; bit < 8 * size; bit++) {
            packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
            struct opt_arena arena;
            opt_arena_init(&arena, OPT_ARENA_BYTES);
            struct wire_any back;
            if (read_case(c, packed, size, &arena, &back) == OPT_OK) {
                expect_sound(&back, c->data_size, c->name);
            }
            opt_arena_fini(&arena);
            packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

Test(wire, too_little_memory_is_a_clean_error_at_every_allocation)
{
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        enum opt_status status = OPT_RESOURCE_EXHAUSTED;
        for (size_t limit = 0; status != OPT_OK; limit += 16) {
            struct opt_arena arena;
            opt_arena_init(&arena, limit);
            struct wire_any back;
            status = read_case(c, packed, size, &arena, &back);
            cr_assert(status == OPT_OK || status == OPT_RESOURCE_EXHAUSTED, "%s: %s",
                      c->name, error.text);
            cr_assert_leq(arena.used, limit);
            cr_assert_lt(limit, 1 << 16);
            opt_arena_fini(&arena);
        }
    }
}

Test(wire, messages_have_names)
{
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_PUSH_PULL), "push_pull");
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_DELETE), "delete");
    cr_assert_str_eq(opt_message_name(OPT_MESSAGE_NONE), "none");
    cr_assert_str_eq(opt_message_name((enum opt_message)5), "none");
    cr_assert_str_eq(opt_message_name((enum opt_message)1000), "none");
}
