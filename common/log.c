#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {
    [OPT_LOG_DEBUG] = "debug",
    [OPT_LOG_INFO] = "info",
    [OPT_LOG_WARN] = "warn",
    [OPT_LOG_ERROR] = "error",
};

static _Atomic int lowest = OPT_LOG_INFO;
static _Atomic int descriptor = STDERR_FILENO;

bool opt_log_level_parse(const char *word, enum opt_log_level *out)
{
    for (int level = OPT_LOG_DEBUG; level <= OPT_LOG_ERROR; level++) {
        if (strcmp(word, level_names[level]) == 0) {
            *out = (enum opt_log_level)level;
            return true;
        }
    }
    return false;
}

const char *opt_log_level_name(enum opt_log_level level)
{
    assert(level <= OPT_LOG_ERROR);
    return level_names[level];
}

void opt_log_set_level(enum opt_log_level level)
{
    atomic_store_explicit(&lowest, (int)level, memory_order_relaxed);
}

bool opt_log_enabled(enum opt_log_level level)
{
    return (int)level >= atomic_load_explicit(&lowest, memory_order_relaxed);
}

void opt_log_set_descriptor(int to)
{
    atomic_store_explicit(&descriptor, to, memory_order_relaxed);
}

/* ---------------------------------------------------------------- a record */

enum { TAIL = 8 }; /* kept free for the end of a record that was cut */

struct record {
    size_t size;
    bool cut;    /* something did not fit, and nothing more is taken */
    bool quoted; /* inside quotes */
    char bytes[OPT_LOG_RECORD];
};

/* Append all of the bytes or none. */
static void put(struct record *record, const char *bytes, size_t size)
{
    if (record->cut || size > sizeof(record->bytes) - TAIL - record->size) {
        record->cut = true;
        return;
    }
    memcpy(record->bytes + record->size, bytes, size);
    record->size += size;
}

static void put_text(struct record *record, const char *text)
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

static void put_quoted(struct record *record, const char *value)
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

static void put_value(struct record *record, const char *value)
{
    if (!is_plain(value)) {
        put_quoted(record, value);
        return;
    }
    for (; *value != '\0'; value++) { /* a long value is cut, not left out */
        put(record, value, 1);
    }
}

static void end_record(struct record *record)
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

static void put_time(struct record *record)
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

struct arguments {
    va_list list;
};

/* Write the argument of one conversion into out. spec is the whole of it, "%.3f". */
static void convert(struct arguments *arguments, const char *spec, size_t spec_size,
                    char *out, size_t capacity)
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

/* format's pairs, each argument converted and quoted where necessary. */
static void put_pairs(struct record *record, const char *format,
                      struct arguments *arguments)
{
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

static void write_record(enum opt_log_level level, const char *event,
                         const char *format, struct arguments *arguments,
                         uint64_t suppressed)
{
    struct record record;
    record.size = 0;
    record.cut = false;
    record.quoted = false;
    put_time(&record);
    put_text(&record, " ");
    put_text(&record, opt_log_level_name(level));
    put_text(&record, " ");
    put_text(&record, event);
    if (*format != '\0') {
        put_text(&record, " ");
        put_pairs(&record, format, arguments);
    }
    if (suppressed > 0) {
        char text[48];
        (void)snprintf(text, sizeof(text), " suppressed=%" PRIu64, suppressed);
        put_text(&record, text);
    }
    end_record(&record);
    int to = atomic_load_explicit(&descriptor, memory_order_relaxed);
    ssize_t written;
    do {
        written = write(to, record.bytes, record.size);
    } while (written < 0 && errno == EINTR);
}

void opt_log(enum opt_log_level level, const char *event, const char *format, ...)
{
    if (!opt_log_enabled(level)) {
        return;
    }
    struct arguments arguments;
    va_start(arguments.list, format);
    write_record(level, event, format, &arguments, 0);
    va_end(arguments.list);
}

/* Seconds of the monotonic clock, from 1, so that 0 is never. */
static uint64_t second_now(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 1;
    }
    return (uint64_t)now.tv_sec + 1;
}

void opt_log_limited(struct opt_log_site *site, enum opt_log_level level,
                     const char *event, const char *format, ...)
{
    if (!opt_log_enabled(level)) {
        return;
    }
    uint64_t now = second_now();
    uint64_t window = atomic_load(&site->window);
    if (window != now && atomic_compare_exchange_strong(&site->window, &window, now)) {
        atomic_store(&site->written, 0);
    }
    if (atomic_fetch_add(&site->written, 1) >= OPT_LOG_BURST) {
        atomic_fetch_add(&site->suppressed, 1);
        return;
    }
    struct arguments arguments;
    va_start(arguments.list, format);
    write_record(level, event, format, &arguments,
                 atomic_exchange(&site->suppressed, 0));
    va_end(arguments.list);
}
