/* number — see number.h. The C library converts; its locale is set to "C" for the call,
 * in this thread only, because libraries run in programs that print decimal commas.
 */
#include "common/optim/number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t digits(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && text[n] >= '0' && text[n] <= '9') {
        n++;
    }
    return n;
}

static size_t sign(const char *text, size_t size)
{
    return size > 0 && (text[0] == '+' || text[0] == '-') ? 1 : 0;
}

static bool is_decimal(const char *text, size_t size)
{
    size_t at = sign(text, size);
    size_t whole = digits(text + at, size - at), fraction = 0;

    at += whole;
    if (at < size && text[at] == '.') {
        at++;
        fraction = digits(text + at, size - at);
        at += fraction;
    }
    if (whole + fraction == 0) {
        return false;
    }
    if (at < size && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        at += sign(text + at, size - at);
        size_t exponent = digits(text + at, size - at);
        if (exponent == 0) {
            return false;
        }
        at += exponent;
    }
    return at == size;
}

bool opt_number_parse(const char *text, size_t size, double *out)
{
    enum { LONGEST = 128 };
    char copy[LONGEST];

    if (size >= sizeof copy || !is_decimal(text, size)) {
        return false;
    }
    memcpy(copy, text, size);
    copy[size] = '\0';

    locale_t previous = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
    double value = strtod(copy, NULL);
    uselocale(previous);
    if (!isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

void opt_number_print(double value, char out[OPT_NUMBER_TEXT])
{
    enum { ENOUGH = 17 };
    locale_t previous = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));

    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(out, OPT_NUMBER_TEXT, "%.0f", value);
    } else {
        int precision = 1;
        do {
            snprintf(out, OPT_NUMBER_TEXT, "%.*g", precision, value);
        } while (strtod(out, NULL) != value && precision++ < ENOUGH);
    }
    uselocale(previous);
}
