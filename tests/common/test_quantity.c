#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "common/quantity.h"

struct good {
    const char *text;
    uint64_t value;
};
struct bad {
    const char *text;
    enum opt_status status;
    const char *words;
};

typedef enum opt_status (*parser)(const char *text, uint64_t *out,
                                  struct opt_error *error);

static void expect_good(parser parse, const struct good *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 7;
        struct opt_error error;
        cr_assert_eq(parse(cases[i].text, &value, &error), OPT_OK, "%s: %s",
                     cases[i].text, error.text);
        cr_assert_eq(value, cases[i].value, "%s is %" PRIu64, cases[i].text, value);
    }
}

static void expect_bad(parser parse, const struct bad *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 7;
        struct opt_error error = { .text = "" };
        cr_assert_eq(parse(cases[i].text, &value, &error), cases[i].status,
                     "\"%s\": %s", cases[i].text, error.text);
        cr_assert_eq(value, 7, "\"%s\" was written", cases[i].text);
        cr_assert_not_null(strstr(error.text, cases[i].words), "\"%s\": %s",
                           cases[i].text, error.text);
        cr_assert_eq(parse(cases[i].text, &value, NULL), cases[i].status);
    }
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

Test(quantity, counts_are_digits_and_nothing_else)
{
    static const struct good good[] = {
        { "0", 0 },
        { "4096", 4096 },
        { "007", 7 },
        { "18446744073709551615", UINT64_MAX },
    };
    static const struct bad bad[] = {
        { "18446744073709551616", OPT_OUT_OF_RANGE, "\"18446744073709551616\"" },
        { "99999999999999999999", OPT_OUT_OF_RANGE, "below 2^64" },
        { "", OPT_INVALID_ARGUMENT, "\"\" is not a whole number" },
        { " 1", OPT_INVALID_ARGUMENT, "\" 1\"" },
        { "1 ", OPT_INVALID_ARGUMENT, "only digits" },
        { "-1", OPT_INVALID_ARGUMENT, "only digits" },
        { "+1", OPT_INVALID_ARGUMENT, "only digits" },
        { "1.0", OPT_INVALID_ARGUMENT, "only digits" },
        { "1e3", OPT_INVALID_ARGUMENT, "only digits" },
        { "0x10", OPT_INVALID_ARGUMENT, "only digits" },
        { "7070x", OPT_INVALID_ARGUMENT, "\"7070x\"" },
        { "\xD9\xA3", OPT_INVALID_ARGUMENT, "only digits" }, /* an Arabic 3 */
    };
    expect_good(opt_quantity_count, good, COUNT(good));
    expect_bad(opt_quantity_count, bad, COUNT(bad));
}

Test(quantity, sizes_have_units)
{
    static const struct good good[] = {
        { "0", 0 },
        { "0.0", 0 },
        { "0TiB", 0 },
        { "1B", 1 },
        { "64MiB", 64 << 20 },
        { "64MB", 64000000 },
        { "1kB", 1000 },
        { "1KiB", 1024 },
        { "1.5GiB", UINT64_C(1610612736) },
        { "0.5KiB", 512 },
        { "0.0009765625KiB", 1 },
        { "1.500000000000000000000000000kB", 1500 },
        { "3TiB", UINT64_C(3) << 40 },
        { "2TB", UINT64_C(2000000000000) },
        { "18446744073709551615B", UINT64_MAX },
        { "16777215TiB", UINT64_C(16777215) << 40 },
        { "16777215.5TiB", (UINT64_C(16777215) << 40) + (UINT64_C(1) << 39) },
    };
    static const struct bad bad[] = {
        { "64", OPT_INVALID_ARGUMENT, "\"64\": a size is a number and a unit" },
        { "", OPT_INVALID_ARGUMENT, "such as 64MiB" },
        { "MiB", OPT_INVALID_ARGUMENT, "such as 64MiB" },
        { "64Mib", OPT_INVALID_ARGUMENT, "MiB, GiB" },
        { "64 MiB", OPT_INVALID_ARGUMENT, "such as" },
        { "64MiB ", OPT_INVALID_ARGUMENT, "such as" },
        { "64MiBx", OPT_INVALID_ARGUMENT, "such as" },
        { "-64MiB", OPT_INVALID_ARGUMENT, "such as" },
        { "6.4.MiB", OPT_INVALID_ARGUMENT, "such as" },
        { "6.MiB", OPT_INVALID_ARGUMENT, "such as" },
        { ".5MiB", OPT_INVALID_ARGUMENT, "such as" },
        { "1e3B", OPT_INVALID_ARGUMENT, "such as" },
        { "0.5", OPT_INVALID_ARGUMENT, "such as" },
        { "0.1KiB", OPT_INVALID_ARGUMENT, "\"0.1KiB\" is not a whole number of bytes" },
        { "0.5B", OPT_INVALID_ARGUMENT, "whole number of bytes" },
        { "0.0000000000000000001TiB", OPT_INVALID_ARGUMENT, "whole number of bytes" },
        { "18446744073709551616B", OPT_OUT_OF_RANGE, "below 2^64 bytes" },
        { "16777216TiB", OPT_OUT_OF_RANGE, "too large" },
        { "18446744073709551615.5KiB", OPT_OUT_OF_RANGE, "too large" },
        { "30s", OPT_INVALID_ARGUMENT, "a size is" },
    };
    expect_good(opt_quantity_bytes, good, COUNT(good));
    expect_bad(opt_quantity_bytes, bad, COUNT(bad));
}

Test(quantity, durations_have_units)
{
    static const struct good good[] = {
        { "0", 0 },          { "30s", 30000 },    { "250ms", 250 },
        { "5000us", 5 },     { "1.5s", 1500 },    { "0.001s", 1 },
        { "2min", 120000 },  { "1.5h", 5400000 }, { "1d", 86400000 },
        { "0.5min", 30000 }, { "2.0ms", 2 },
    };
    static const struct bad bad[] = {
        { "30", OPT_INVALID_ARGUMENT, "\"30\": a duration is a number and a unit" },
        { "30S", OPT_INVALID_ARGUMENT, "such as 30s" },
        { "30m", OPT_INVALID_ARGUMENT, "min" },
        { "1h30min", OPT_INVALID_ARGUMENT, "such as 30s" },
        { "-1s", OPT_INVALID_ARGUMENT, "such as 30s" },
        { "500us", OPT_INVALID_ARGUMENT, "\"500us\" is not a whole number of millis" },
        { "0.5ms", OPT_INVALID_ARGUMENT, "whole number of milliseconds" },
        { "1000.5us", OPT_INVALID_ARGUMENT, "whole number of milliseconds" },
        { "999999999999999999d", OPT_OUT_OF_RANGE, "too large" },
    };
    expect_good(opt_quantity_milliseconds, good, COUNT(good));
    expect_bad(opt_quantity_milliseconds, bad, COUNT(bad));
}

Test(quantity, sentences_quote_hostile_texts_safely)
{
    char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    text[3] = '\n';
    text[4] = (char)0xFF;
    uint64_t value = 0;
    struct opt_error error;
    cr_assert_eq(opt_quantity_count(text, &value, &error), OPT_INVALID_ARGUMENT);
    cr_assert_lt(strlen(error.text), 150);
    cr_assert_not_null(strstr(error.text, "\"xxx\?\?xxx"), "%s", error.text);
    cr_assert_not_null(strstr(error.text, "xxx...\""), "%s", error.text);
}
