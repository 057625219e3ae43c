/* window_text — see window_text.h. */
#include "server/store/window_text.h"

#include <stdlib.h>
#include <string.h>

#include "common/field.h"

enum { RUN_MOST = 3 + 1 + 5 }; /* bytes: the number, the fate, the growth */

/* Pushes that the window tells of, and the sequence of the first. */
static size_t pushes_of(const struct window *window, uint64_t *first)
{
    size_t count = window->last < WINDOW_PUSHES ? (size_t)window->last : WINDOW_PUSHES;
    *first = window->last - count + 1;
    return count;
}

/* Small numbers for growths that are small, up or down. */
static uint32_t zigzag(uint32_t growth)
{
    return growth << 1 ^ (growth >> 31 != 0 ? UINT32_MAX : 0);
}

static uint32_t growth_of(uint32_t zigzagged)
{
    return zigzagged >> 1 ^ ((zigzagged & 1) != 0 ? UINT32_MAX : 0);
}

/* How many pushes from a sequence on, at most so many, go on as the first does. */
static size_t run_length(const struct window *window, uint64_t sequence, size_t most,
                         uint32_t before, uint8_t *fate, uint32_t *growth)
{
    size_t length = 0;
    *fate = window->fate[sequence % WINDOW_PUSHES];
    *growth = window->step[sequence % WINDOW_PUSHES] - before;
    while (length < most) {
        size_t place = (size_t)((sequence + length) % WINDOW_PUSHES);
        if (window->fate[place] != *fate || window->step[place] - before != *growth) {
            break;
        }
        before = window->step[place];
        length++;
    }
    return length;
}

static void put_hex(const uint8_t *bytes, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

/* Bytes of a run. */
static size_t put_run(size_t length, uint8_t fate, uint32_t growth, uint8_t *out)
{
    size_t used = opt_varint_write(length, out);
    out[used++] = fate;
    return used + opt_varint_write(zigzag(growth), out + used);
}

/* The text, or only its length if out is NULL. */
static size_t print(const struct window *window, char *out)
{
    uint64_t sequence;
    size_t left = pushes_of(window, &sequence), size = 0;
    uint32_t before = (uint32_t)window->newest;
    while (left > 0) {
        uint8_t bytes[RUN_MOST], fate;
        uint32_t growth;
        size_t length = run_length(window, sequence, left, before, &fate, &growth);
        size_t used = put_run(length, fate, growth, bytes);
        if (out != NULL) {
            put_hex(bytes, used, out + size);
        }
        size += 2 * used;
        sequence += length;
        left -= length;
        before = window->step[(sequence - 1) % WINDOW_PUSHES];
    }
    return size;
}

char *window_text_print(const struct window *window)
{
    size_t size = print(window, NULL);
    char *text = malloc(size + 1);
    if (text != NULL) {
        print(window, text);
        text[size] = '\0';
    }
    return text;
}

/* The next byte; -1 if there is none. */
static int next_byte(const char **text)
{
    static const char digits[] = "0123456789abcdef";
    int value = 0;
    for (int i = 0; i < 2; i++) {
        const char *digit = **text != '\0' ? strchr(digits, **text) : NULL;
        if (digit == NULL) {
            return -1;
        }
        value = value << 4 | (int)(digit - digits);
        (*text)++;
    }
    return value;
}

static bool next_number(const char **text, uint32_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        int byte = next_byte(text);
        if (byte < 0) {
            return false;
        }
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *out = (uint32_t)value;
            return value <= UINT32_MAX && (byte != 0 || shift == 0);
        }
    }
    return false;
}

bool window_text_parse(const char *text, struct window *window)
{
    uint64_t sequence;
    size_t left = pushes_of(window, &sequence);
    uint32_t step = (uint32_t)window->newest;
    memset(window->step, 0, sizeof window->step);
    memset(window->fate, 0, sizeof window->fate);
    while (left > 0) {
        uint32_t length, zigzagged;
        int fate = -1;
        if (!next_number(&text, &length) || length == 0 || length > left ||
            (fate = next_byte(&text)) < 0 || !window_has_fate((uint8_t)fate) ||
            !next_number(&text, &zigzagged)) {
            return false;
        }
        for (; length > 0; length--, left--, sequence++) {
            step += growth_of(zigzagged);
            window->step[sequence % WINDOW_PUSHES] = step;
            window->fate[sequence % WINDOW_PUSHES] = (uint8_t)fate;
        }
    }
    return *text == '\0';
}
