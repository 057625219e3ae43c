#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [OPT_OK] = "OK",
    [OPT_CANCELLED] = "CANCELLED",
    [OPT_UNKNOWN] = "UNKNOWN",
    [OPT_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [OPT_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [OPT_NOT_FOUND] = "NOT_FOUND",
    [OPT_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [OPT_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [OPT_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [OPT_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [OPT_ABORTED] = "ABORTED",
    [OPT_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [OPT_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [OPT_INTERNAL] = "INTERNAL",
    [OPT_UNAVAILABLE] = "UNAVAILABLE",
    [OPT_DATA_LOSS] = "DATA_LOSS",
    [OPT_UNAUTHENTICATED] = "UNAUTHENTICATED",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == OPT_STATUS_COUNT,
               "every status has a name");

const char *opt_status_name(enum opt_status status)
{
    if ((unsigned)status >= OPT_STATUS_COUNT) {
        return names[OPT_UNKNOWN];
    }
    return names[status];
}

static void write_text(struct opt_error *error, const char *format, va_list arguments)
{
    int length = vsnprintf(error->text, sizeof(error->text), format, arguments);
    if (length < 0) {
        error->text[0] = '\0';
    } else if ((size_t)length >= sizeof(error->text)) {
        /* Step back over the bytes of a character that would be cut in two. */
        size_t end = sizeof(error->text) - sizeof("...");
        while (end > 0 && ((unsigned char)error->text[end] & 0xC0) == 0x80) {
            end--;
        }
        memcpy(error->text + end, "...", sizeof("..."));
    }
}

static void set(struct opt_error *error, enum opt_status status, enum opt_detail detail)
{
    error->status = status;
    error->detail = detail;
    error->fate = OPT_FATE_UNKNOWN;
    error->shards_applied = 0;
    error->shards = 0;
    error->step = 0;
}

enum opt_status opt_fail(struct opt_error *error, enum opt_status status,
                         const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        write_text(error, format, arguments);
        va_end(arguments);
        set(error, status, OPT_DETAIL_NONE);
    }
    return status;
}

enum opt_status opt_fail_as(struct opt_error *error, enum opt_status status,
                            enum opt_detail detail, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        write_text(error, format, arguments);
        va_end(arguments);
        set(error, status, detail);
    }
    return status;
}
