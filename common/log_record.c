#include "common/log_record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TAIL = 8 }; /* kept free for the end of a record that was cut */

/* Append all of the bytes or none. */
static void put(struct opt_record *record, const char *bytes, size_t size)
{
    if (record->cut || size > sizeof(record->bytes) - TAIL - record->size) {
        record->cut = true;
        return;
    }
    memcpy(record->bytes + record->size, bytes, size);
    record->size += size;
}

static void put_text(struct opt_record *record, const char *text)
{
    put(record, text, strlen(text));
}

/* Whether a value is one word as it is. */
static bool is_plain(const char *value)
{
    if (*value == '\0') {
        return false;
    }
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7F) {
            return false;
        }
    }
    return true;
}

static void put_quoted(struct opt_record *record, const char *value)
{
    put(record, "\"", 1);
    record->quoted = true;
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        char escape[8];
        switch (c) {
        case '"':
            put_text(record, "\\\"");
            break;
        case '\\':
            put_text(record, "\\\\");
            break;
        case '\n':
            put_text(record, "\\n");
            break;
        case '\r':
            put_text(record, "\\r");
            break;
        case '\t':
            put_text(record, "\\t");
            break;
        default:
            if (c < ' ' || c == 0x7F) {
                (void)snprintf(escape, sizeof(escape), "\\x%02X", c);
                put_text(record, escape);
            } else {
                put(record, value, 1);
            }
        }
    }
    put(record, "\"", 1);
    record->quoted = record->cut;
}

static void put_value(struct opt_record *record, const char *value)
{
    if (!is_plain(value)) {
        put_quoted(record, value);
        return;
    }
    for (; *value != '\0'; value++) { /* a long value is cut, not left out */
        put(record, value, 1);
    }
}

void opt_record_end(struct opt_record *record)
{
    if (record->cut) {
        /* No half character before the dots. */
        size_t size = record->size;
        while (size > 0 && ((unsigned char)record->bytes[size - 1] & 0xC0) == 0x80) {
            size--;
        }
        if (size > 0 && (unsigned char)record->bytes[size - 1] >= 0xC0) {
            record->size = size - 1;
        }
        const char *end = record->quoted ? "...\"" : "...";
        memcpy(record->bytes + record->size, end, strlen(end));
        record->size += strlen(end);
    }
    record->bytes[record->size++] = '\n';
}

static void put_time(struct opt_record *record)
{
    struct timespec now;
    struct tm utc;
    char text[64];
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 ||
        gmtime_r(&now.tv_sec, &utc) == NULL) {
        put_text(record, "0000-00-00T00:00:00.000000Z");
        return;
    }
    size_t size = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(text + size, sizeof(text) - size, ".%06ldZ", now.tv_nsec / 1000);
    put_text(record, text);
}

/* ---------------------------------------------------------------- conversions */

/* Write the argument of one conversion into out. spec is the whole of it, "%.3f". */
static void convert(struct opt_record_arguments *arguments, const char *spec,
                    size_t spec_size, char *out, size_t capacity)
{
    char modifier = spec_size > 2 ? spec[spec_size - 2] : '\0';
    bool twice = spec_size > 3 && spec[spec_size - 3] == modifier;
    char conversion = spec[spec_size - 1];
    switch (conversion) {
    case 'd':
    case 'i': {
        long long value;
        if (modifier == 'l') {
            value = twice ? va_arg(arguments->list, long long)
                          : va_arg(arguments->list, long);
        } else if (modifier == 'z') {
            value = va_arg(arguments->list, ptrdiff_t);
        } else if (modifier == 'j') {
            value = va_arg(arguments->list, intmax_t);
        } else if (modifier == 't') {
            value = va_arg(arguments->list, ptrdiff_t);
        } else {
            value = va_arg(arguments->list, int);
        }
        (void)snprintf(out, capacity, "%lld", value);
        break;
    }
    case 'u':
    case 'x': {
        unsigned long long value;
        if (modifier == 'l') {
            value = twice ? va_arg(arguments->list, unsigned long long)
                          : va_arg(arguments->list, unsigned long);
        } else if (modifier == 'z' || modifier == 't') {
            value = va_arg(arguments->list, size_t);
        } else if (modifier == 'j') {
            value = va_arg(arguments->list, uintmax_t);
        } else {
            value = va_arg(arguments->list, unsigned);
        }
        (void)snprintf(out, capacity, conversion == 'u' ? "%llu" : "%llx", value);
        break;
    }
    case 'e':
    case 'f':
    case 'g': {
        int precision = 6;
        if (spec_size > 2 && spec[1] == '.') {
            precision = 0;
            for (size_t i = 2; i < spec_size - 1; i++) {
                precision = precision * 10 + (spec[i] - '0');
            }
        }
        const char *format = conversion == 'e'   ? "%.*e"
                             : conversion == 'f' ? "%.*f"
                                                 : "%.*g";
        (void)snprintf(out, capacity, format, precision,
                       va_arg(arguments->list, double));
        break;
    }
    case 'c':
        out[0] = (char)va_arg(arguments->list, int);
        out[1] = '\0';
        break;
    default:
        assert(!"a conversion that log does not know");
        out[0] = '\0';
    }
}

void opt_record_pairs(struct opt_record *record, const char *format,
                      struct opt_record_arguments *arguments)
{
    if (*format != '\0') {
        put_text(record, " ");
    }
    while (*format != '\0') {
        size_t plain = strcspn(format, "%");
        put(record, format, plain);
        format += plain;
        if (*format == '\0') {
            return;
        }
        size_t spec_size = 1 + strcspn(format + 1, "diuxfegsc") + 1;
        if (format[spec_size - 1] == 's') {
            const char *value = va_arg(arguments->list, const char *);
            put_value(record, value == NULL ? "(null)" : value);
        } else {
            char value[400]; /* the longest double has 309 digits before its point */
            convert(arguments, format, spec_size, value, sizeof(value));
            put_value(record, value);
        }
        format += spec_size;
    }
}

void opt_record_begin(struct opt_record *record, const char *level, const char *event)
{
    record->size = 0;
    record->cut = false;
    record->quoted = false;
    put_time(record);
    put_text(record, " ");
    put_text(record, level);
    put_text(record, " ");
    put_text(record, event);
}

void opt_record_number(struct opt_record *record, const char *name, uint64_t number)
{
    char text[64];
    (void)snprintf(text, sizeof(text), " %s=%" PRIu64, name, number);
    put_text(record, text);
}
