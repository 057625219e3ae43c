#include <criterion/criterion.h>
#include <string.h>

#include "common/name.h"
#include "common/status.h"

Test(status, names_are_those_of_grpc)
{
    cr_assert_str_eq(opt_status_name(OPT_OK), "OK");
    cr_assert_str_eq(opt_status_name((enum opt_status)3), "INVALID_ARGUMENT");
    cr_assert_str_eq(opt_status_name((enum opt_status)8), "RESOURCE_EXHAUSTED");
    cr_assert_str_eq(opt_status_name((enum opt_status)16), "UNAUTHENTICATED");
    for (int i = 0; i < OPT_STATUS_COUNT; i++) {
        cr_assert_not_null(opt_status_name((enum opt_status)i), "%d", i);
    }
    cr_assert_str_eq(opt_status_name((enum opt_status)17), "UNKNOWN");
    cr_assert_str_eq(opt_status_name((enum opt_status) - 1), "UNKNOWN");
}

Test(status, failing_fills_in_code_and_sentence)
{
    struct opt_error error;
    cr_assert_eq(opt_fail(&error, OPT_NOT_FOUND, "no tensor %s", "w"), OPT_NOT_FOUND);
    cr_assert_eq(error.status, OPT_NOT_FOUND);
    cr_assert_str_eq(error.text, "no tensor w");
    cr_assert_eq(opt_fail(NULL, OPT_ABORTED, "nobody asked"), OPT_ABORTED);
}

Test(status, long_sentences_are_cut_between_characters)
{
    static const char *const letters[] = { "a", "\xC3\xA9", "\xE2\x82\xAC",
                                           "\xF0\x9F\x99\x82" };
    for (size_t which = 0; which < 4; which++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char text[2 * OPT_ERROR_TEXT] = "";
            memset(text, '.', shift);
            size_t size = shift;
            while (size < OPT_ERROR_TEXT + 50) {
                memcpy(text + size, letters[which], strlen(letters[which]));
                size += strlen(letters[which]);
            }
            text[size] = '\0';
            struct opt_error error;
            opt_fail(&error, OPT_INTERNAL, "%s", text);
            size_t length = strlen(error.text);
            cr_assert_geq(length, OPT_ERROR_TEXT - 5);
            cr_assert_lt(length, OPT_ERROR_TEXT);
            cr_assert_str_eq(error.text + length - 3, "...");
            cr_assert_eq(opt_text_good(error.text, length), length);
            cr_assert_eq(strncmp(error.text, text, length - 3), 0);
        }
    }
}

Test(status, a_sentence_that_just_fits_is_whole)
{
    char text[OPT_ERROR_TEXT];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct opt_error error;
    opt_fail(&error, OPT_INTERNAL, "%s", text);
    cr_assert_str_eq(error.text, text);
}
