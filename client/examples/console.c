/* console — progress on stdout, sentences about failures on stderr.
 *
 * Called by the demos, the gallery and what they are made of.
 */
#include "console.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool line; /* progress is on the screen's last line */
    double shown;
    const char *program;
} console;

void console_open(const char *program)
{
    console.program = program;
}

static bool on_terminal(void)
{
    return isatty(STDOUT_FILENO) == 1;
}

double console_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool console_wants_progress(void)
{
    return console_seconds() >= console.shown + (on_terminal() ? 0.1 : 2);
}

void console_progress(const char *format, ...)
{
    console_clear();
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    console.shown = console_seconds();
    console.line = on_terminal();
    fputs(console.line ? "" : "\n", stdout);
    fflush(stdout);
}

void console_clear(void)
{
    if (console.line) {
        fputs("\r\033[K", stdout);
        fflush(stdout);
        console.line = false;
    }
}

bool console_fail(const char *format, ...)
{
    console_clear();
    fprintf(stderr, "%s: ", console.program);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return false;
}
