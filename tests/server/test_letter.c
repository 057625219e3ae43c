#include "server/base/letter.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA = 64 << 10 };

Test(letter, begins_empty)
{
    struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
    cr_assert_not_null(letter);
    cr_expect_eq(letter->kind, LETTER_REQUEST);
    cr_expect_eq(letter->nonfinite, SIZE_MAX);
    cr_expect_null(letter->data);
    cr_expect_eq(letter->piece_count, 0u);
    cr_expect_eq(letter->reply.message, OPT_MESSAGE_NONE);
    letter_free(letter);
    letter_free(NULL);
}

Test(letter, has_aligned_data_of_any_size)
{
    static const size_t sizes[] = { 1,     63,    64,      4096,    65535,
                                    65536, 70000, 2 << 20, 5 << 20, (64 << 20) + 1 };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
        cr_assert(letter_data(letter, sizes[i]));
        cr_expect_eq((uintptr_t)letter->data % 64, 0u, "%zu bytes", sizes[i]);
        cr_expect_eq(letter->data_size, sizes[i]);
        cr_expect_geq(letter->data_capacity, sizes[i]);
        letter->data[0] = 1;
        letter->data[sizes[i] - 1] = 2;
        letter_drop_data(letter);
        cr_expect_null(letter->data);
        cr_expect_eq(letter->data_size, 0u);
        letter_free(letter);
    }
}

Test(letter, says_so_when_there_is_no_memory_for_data)
{
    struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
    cr_expect_not(letter_data(letter, SIZE_MAX));
    cr_expect_not(letter_data(letter, SIZE_MAX / 4));
    cr_expect_null(letter->data);
    letter_free(letter);
}

Test(letter, fails_with_status_and_sentence)
{
    struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
    letter->request.id = 77;
    letter->silent = true;
    letter_fail(letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                "no model named %s; there are %d", "x", 3);
    cr_expect_eq(letter->reply.id, 77u);
    cr_expect_eq(letter->reply.message, OPT_MESSAGE_ERROR);
    cr_expect_eq(letter->reply.body.error.status, OPT_NOT_FOUND);
    cr_expect_str_eq(letter->reply.body.error.text, "no model named x; there are 3");
    cr_expect_eq(letter->reply.body.error.detail, OPT_DETAIL_NO_MODEL);
    cr_expect_not(letter->silent);
    letter_free(letter);
}

Test(letter, fails_even_without_memory_for_the_sentence)
{
    struct letter *letter = letter_new(NULL, NULL, NULL, 0);
    letter_fail(letter, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING, "the daemon is stopping");
    cr_expect_eq(letter->reply.body.error.status, OPT_UNAVAILABLE);
    cr_expect_str_eq(letter->reply.body.error.text, "UNAVAILABLE");
    letter_free(letter);
}

Test(letter, cuts_a_long_sentence_between_characters)
{
    char name[2 * OPT_ERROR_TEXT];
    for (size_t i = 0; i + 3 < sizeof(name); i += 3) {
        memcpy(name + i, "\xE2\x82\xAC", 4); /* a euro sign is 3 bytes */
    }
    struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
    letter_fail(letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL, "%s", name);
    const char *text = letter->reply.body.error.text;
    size_t size = strlen(text);
    cr_expect_lt(size, (size_t)OPT_ERROR_TEXT);
    cr_expect_str_eq(text + size - 3, "...");
    cr_expect_eq((size - 3) % 3, 0u);
    letter_free(letter);
}

Test(letter, comes_home)
{
    struct mailbox home;
    cr_assert_eq(mailbox_init(&home), 0);
    struct letter *letter = letter_new(&home, NULL, NULL, ARENA);
    letter_return(letter);
    cr_expect_eq(mailbox_take(&home), letter);
    letter_free(letter);
    mailbox_fini(&home);
}

/* What an answer owns goes with it; a leak shows under AddressSanitizer. */
Test(letter, owns_table_and_pieces_of_the_answer)
{
    struct letter *letter = letter_new(NULL, NULL, NULL, ARENA);
    letter->table = malloc(100);
    cr_assert(letter_pieces(letter, 2));
    cr_assert_not_null(opt_arena_alloc(&letter->arena, 1000));
    cr_assert(letter_data(letter, 1000));
    letter_free(letter);
}
