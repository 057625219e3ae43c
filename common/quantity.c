#include "common/quantity.h"

#include <stdbool.h>
#include <string.h>

#include "common/name.h"

/* Quoted in sentences: long or dirty texts are cut and cleaned. */
struct quoted {
    char text[48];
};

static const char *quote(struct quoted *quoted, const char *text)
{
    size_t size = opt_text_clean(text, quoted->text, sizeof(quoted->text));
    if (strlen(text) > size) {
        while (size > sizeof(quoted->text) - sizeof("...")) {
            size--;
        }
        while (size > 0 && ((unsigned char)quoted->text[size] & 0xC0) == 0x80) {
            size--;
        }
        memcpy(quoted->text + size, "...", sizeof("..."));
    }
    return quoted->text;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A decimal number in exact arithmetic: whole part and at most 18 digits of fraction,
 * which is as much as any unit here can need. */
struct decimal {
    uint64_t whole;
    uint64_t fraction; /* over scale */
    uint64_t scale;    /* power of 10 */
};

enum parsed { PARSED, NOT_A_NUMBER, TOO_LARGE, TOO_FINE };

static enum parsed parse_decimal(const char *text, struct decimal *out,
                                 const char **rest)
{
    *out = (struct decimal){ .scale = 1 };
    if (!is_digit(*text)) {
        return NOT_A_NUMBER;
    }
    for (; is_digit(*text); text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (out->whole > (UINT64_MAX - digit) / 10) {
            return TOO_LARGE;
        }
        out->whole = out->whole * 10 + digit;
    }
    if (*text == '.') {
        text++;
        if (!is_digit(*text)) {
            return NOT_A_NUMBER;
        }
        const char *end = text;
        while (is_digit(*end)) {
            end++;
        }
        const char *significant = end;
        while (significant > text && significant[-1] == '0') {
            significant--;
        }
        if (significant - text > 18) {
            return TOO_FINE;
        }
        for (; text < significant; text++) {
            out->fraction = out->fraction * 10 + (uint64_t)(*text - '0');
            out->scale *= 10;
        }
        text = end;
    }
    *rest = text;
    return PARSED;
}

/* number * multiply / divide as a whole number. One of multiply and divide is 1. */
static enum parsed scale_decimal(struct decimal number, uint64_t multiply,
                                 uint64_t divide, uint64_t *out)
{
    if (divide > 1) {
        if (number.fraction != 0 || number.whole % divide != 0) {
            return TOO_FINE;
        }
        *out = number.whole / divide;
        return PARSED;
    }
    if (number.whole > UINT64_MAX / multiply) {
        return TOO_LARGE;
    }
    uint64_t whole = number.whole * multiply;
    /* fraction * multiply / scale without a wider type: both shortened by 2s and 5s,
     * the only factors of scale; what is left of scale must be 1. */
    while (number.scale > 1) {
        uint64_t factor = number.scale % 2 == 0 ? 2 : 5;
        if (number.fraction % factor == 0) {
            number.fraction /= factor;
        } else if (multiply % factor == 0) {
            multiply /= factor;
        } else {
            return TOO_FINE;
        }
        number.scale /= factor;
    }
    /* The fraction is below 1, so this product is below the unit. */
    uint64_t part = number.fraction * multiply;
    if (part > UINT64_MAX - whole) {
        return TOO_LARGE;
    }
    *out = whole + part;
    return PARSED;
}

struct unit {
    const char *name;
    uint64_t multiply, divide;
};

static const struct unit byte_units[] = {
    { "B", 1, 1 },
    { "KiB", UINT64_C(1) << 10, 1 },
    { "MiB", UINT64_C(1) << 20, 1 },
    { "GiB", UINT64_C(1) << 30, 1 },
    { "TiB", UINT64_C(1) << 40, 1 },
    { "kB", 1000, 1 },
    { "MB", 1000000, 1 },
    { "GB", 1000000000, 1 },
    { "TB", 1000000000000, 1 },
};
static const char byte_help[] = "a size is a number and a unit, such as 64MiB (units: "
                                "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)";

static const struct unit time_units[] = {
    { "us", 1, 1000 },   { "ms", 1, 1 },      { "s", 1000, 1 },
    { "min", 60000, 1 }, { "h", 3600000, 1 }, { "d", 86400000, 1 },
};
static const char time_help[] =
    "a duration is a number and a unit, such as 30s (units: "
    "us, ms, s, min, h, d)";

static enum opt_status parse_unit(const char *text, const struct unit *units,
                                  size_t unit_count, const char *help,
                                  const char *finest, uint64_t *out,
                                  struct opt_error *error)
{
    struct quoted quoted;
    struct decimal number;
    const char *rest = NULL;
    enum parsed parsed = parse_decimal(text, &number, &rest);
    uint64_t value = 0;
    if (parsed == PARSED) {
        const struct unit *unit = NULL;
        for (size_t i = 0; i < unit_count; i++) {
            if (strcmp(units[i].name, rest) == 0) {
                unit = &units[i];
            }
        }
        if (unit != NULL) {
            parsed = scale_decimal(number, unit->multiply, unit->divide, &value);
        } else if (*rest != '\0' || number.whole != 0 || number.fraction != 0) {
            parsed = NOT_A_NUMBER;
        }
    }
    switch (parsed) {
    case PARSED:
        *out = value;
        return OPT_OK;
    case TOO_LARGE:
        return opt_fail(error, OPT_OUT_OF_RANGE,
                        "\"%s\" is too large; it must be below "
                        "2^64 %s",
                        quote(&quoted, text), finest);
    case TOO_FINE:
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not a whole number of %s", quote(&quoted, text),
                        finest);
    case NOT_A_NUMBER:
        break;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "\"%s\": %s", quote(&quoted, text),
                    help);
}

enum opt_status opt_quantity_bytes(const char *text, uint64_t *out,
                                   struct opt_error *error)
{
    return parse_unit(text, byte_units, sizeof(byte_units) / sizeof(byte_units[0]),
                      byte_help, "bytes", out, error);
}

enum opt_status opt_quantity_milliseconds(const char *text, uint64_t *out,
                                          struct opt_error *error)
{
    return parse_unit(text, time_units, sizeof(time_units) / sizeof(time_units[0]),
                      time_help, "milliseconds", out, error);
}

enum opt_status opt_quantity_count(const char *text, uint64_t *out,
                                   struct opt_error *error)
{
    struct quoted quoted;
    uint64_t value = 0;
    const char *at = text;
    for (; is_digit(*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return opt_fail(error, OPT_OUT_OF_RANGE,
                            "\"%s\" is too large; it must be below 2^64",
                            quote(&quoted, text));
        }
        value = value * 10 + digit;
    }
    if (at == text || *at != '\0') {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not a whole number; only digits are allowed",
                        quote(&quoted, text));
    }
    *out = value;
    return OPT_OK;
}
