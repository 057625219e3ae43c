#include "common/name.h"

#include <stdint.h>

#include "common/wire.h"

/* Length of the character at text, or 0 if it is not well-formed UTF-8. */
static size_t character(const unsigned char *text, size_t size)
{
    unsigned char first = text[0];
    if (first < 0x80) {
        return 1;
    }
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || length > size) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    if ((first == 0xE0 && text[1] < 0xA0) || (first == 0xED && text[1] > 0x9F) ||
        (first == 0xF0 && text[1] < 0x90) || (first == 0xF4 && text[1] > 0x8F)) {
        return 0;
    }
    return length;
}

/* U+0000 to U+001F, U+007F, U+0080 to U+009F. */
static bool is_control(const unsigned char *text)
{
    return text[0] < 0x20 || text[0] == 0x7F || (text[0] == 0xC2 && text[1] < 0xA0);
}

size_t opt_text_good(const char *text, size_t size)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0;
    while (at < size) {
        size_t length = character(p + at, size - at);
        if (length == 0 || is_control(p + at)) {
            break;
        }
        at += length;
    }
    return at;
}

enum opt_status opt_text_check(const char *text, size_t size, const char *what,
                               struct opt_error *error)
{
    size_t good = opt_text_good(text, size);
    if (good == size) {
        return OPT_OK;
    }
    const unsigned char *p = (const unsigned char *)text + good;
    if (character(p, size - good) == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s is not UTF-8: byte %zu is 0x%02X", what, good, p[0]);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s has a control character (0x%02X) at byte %zu", what,
                    p[0] == 0xC2 ? p[1] : p[0], good);
}

enum opt_status opt_name_check(const char *text, size_t size, const char *what,
                               struct opt_error *error)
{
    if (size == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s is empty; it must have 1 to %d bytes", what, OPT_NAME_MAX);
    }
    if (size > OPT_NAME_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s has %zu bytes; it must have 1 to %d", what, size,
                        OPT_NAME_MAX);
    }
    return opt_text_check(text, size, what, error);
}

size_t opt_text_clean(const char *text, char *out, size_t capacity)
{
    size_t size = 0;
    while (size < capacity - 1 && text[size] != '\0') {
        size++;
    }
    if (text[size] != '\0') {
        /* Cut before the character that the end would cut in two. */
        while (size > 0 && ((unsigned char)text[size] & 0xC0) == 0x80) {
            size--;
        }
    }
    for (size_t at = 0; at < size;) {
        size_t good = opt_text_good(text + at, size - at);
        for (size_t i = 0; i < good; i++) {
            out[at + i] = text[at + i];
        }
        at += good;
        if (at < size) {
            out[at++] = '?';
        }
    }
    out[size] = '\0';
    return size;
}
