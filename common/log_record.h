/* log_record — one line of the log: time, level, event and pairs, put into a buffer.
 * What becomes of it is log.c's business, which alone calls this. Any thread.
 */
#ifndef OPTIMD_COMMON_LOG_RECORD_H
#define OPTIMD_COMMON_LOG_RECORD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"

struct opt_record {
    size_t size;
    bool cut;    /* something did not fit, and nothing more is taken */
    bool quoted; /* inside quotes */
    char bytes[OPT_LOG_RECORD];
};

struct opt_record_arguments {
    va_list list;
};

/* Time, level and event. */
void opt_record_begin(struct opt_record *record, const char *level, const char *event);
/* format's pairs, each argument converted and quoted where necessary (log.h). */
void opt_record_pairs(struct opt_record *record, const char *format,
                      struct opt_record_arguments *arguments);
/* One more pair. */
void opt_record_number(struct opt_record *record, const char *name, uint64_t number);
/* The newline, after three dots if something did not fit. */
void opt_record_end(struct opt_record *record);

#endif
