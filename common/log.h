/* log — what happened, one line per event, for people and for tools.
 *
 *   2026-11-22T17:23:23.123456Z info connection_opened peer=127.0.0.1:40112 loop=3
 *   2026-11-22T17:23:24.000112Z warn request_refused why="a frame of 9 GB ..."
 *
 * Time (UTC), level, event, then key=value pairs. A value with spaces, quotes, equals
 * signs or control characters is quoted, with \" \\ \n \t \r and \xNN, so one event is
 * always exactly one line. A record is one write(2) of at most OPT_LOG_RECORD bytes.
 * Any thread.
 *
 * At first each record is written by whoever has it. From opt_log_start on, a thread
 * writes, and nobody waits for whoever reads the log, or does not: at most
 * OPT_LOG_QUEUE bytes wait to be written, and what comes when these are full is dropped
 * and counted
 *
 *   2026-11-22T17:23:25.000112Z warn log_dropped records=1207
 *
 * as are records that could not be written, on a full disk say.
 */
#ifndef OPTIMD_COMMON_LOG_H
#define OPTIMD_COMMON_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum opt_log_level { OPT_LOG_DEBUG, OPT_LOG_INFO, OPT_LOG_WARN, OPT_LOG_ERROR };

enum {
    OPT_LOG_RECORD = 4096, /* longest line, newline included; longer ones end in ... */
    OPT_LOG_QUEUE = 256 << 10,
    OPT_LOG_BURST = 10 /* records per second and call site of opt_log_limited */
};

/* "debug", "info", "warn", "error"; false if the word is none of them. */
bool opt_log_level_parse(const char *word, enum opt_log_level *out);
/* The reverse. Static text. */
const char *opt_log_level_name(enum opt_log_level level);

/* Records below this level are not written; INFO at the start. */
void opt_log_set_level(enum opt_log_level level);
bool opt_log_enabled(enum opt_log_level level);

/* Where records go; standard error at the start. The descriptor stays the caller's. */
void opt_log_set_descriptor(int descriptor);

/* Have a thread write from now on. False if there is none to be had: nothing changes.
 */
bool opt_log_start(void);

/* Wait until everything is written, but no longer than that, and end the thread. False:
 * something is left, and the thread with it, which goes with the process. */
bool opt_log_stop(unsigned timeout_ms);

/* Write one record. event is a word such as model_created. format names the pairs, each
 * with one conversion, separated by single spaces, and is checked by the compiler:
 *
 *   opt_log(OPT_LOG_INFO, "model_created", "model=%s tensors=%zu lr=%g", name, n, lr);
 *
 * Conversions: d i u x with h hh l ll z j t, f e g with a precision, s, c. A NULL
 * string is written as "(null)". format may be "". */
void opt_log(enum opt_log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A place in the code that hostile or broken peers can make speak as often as they
 * like: static struct opt_log_site site; */
struct opt_log_site {
    _Atomic uint64_t window;     /* second in which `written` counts */
    _Atomic uint32_t written;    /* records in that second */
    _Atomic uint64_t suppressed; /* records dropped since the last one written */
};

/* As opt_log, but at most OPT_LOG_BURST records a second from this site; the first one
 * after a silence carries suppressed=N. */
void opt_log_limited(struct opt_log_site *site, enum opt_log_level level,
                     const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
