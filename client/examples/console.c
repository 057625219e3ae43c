/* console — progress on stdout, sentences about failures on stderr.
 *
 * Called by the demos, the gallery and what they are made of.
 */
#include "console.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { USUAL_COLUMNS = 80, TEXT_MAX = 512 };

static const char gap[] = "   "; /* between two parts of the progress */

static struct {
    bool line;    /* progress is on the screen's last line */
    double shown; /* when */
    double pause; /* until the next, where each is a line of its own; 0: none yet */
    const char *program;
} console;

void console_open(const char *program)
{
    console.program = program;
}

/* One whose last line can be written again. */
static bool on_terminal(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && (kind == NULL || strcmp(kind, "dumb") != 0);
}

static size_t columns(void)
{
    struct winsize size = { 0 };
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0
               ? size.ws_col
               : USUAL_COLUMNS;
}

/* Leave the last parts out, so that the cursor behind them is still on the line: a line
 * that goes on in the next could not be taken back. */
static void fit(char *text, size_t room)
{
    while (strlen(text) >= room) {
        char *last = text, *next = text;
        while ((next = strstr(next, gap)) != NULL) {
            last = next;
            next += sizeof gap - 1;
        }
        if (last == text) {
            last = text + room - 1;
        }
        *last = '\0';
    }
}

double console_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool console_wants_progress(void)
{
    return console_seconds() >= console.shown + (on_terminal() ? 0.1 : console.pause);
}

/* Takes what is written of the last line away. */
static void wipe(void)
{
    if (console.line) {
        fputs("\r\033[K", stdout);
        console.line = false;
    }
}

void console_progress(const char *format, ...)
{
    char text[TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wipe();
    console.line = on_terminal();
    if (console.line) {
        fit(text, columns());
    } else {
        console.pause = console.pause > 0 ? 2 * console.pause : 2;
    }
    console.shown = console_seconds();
    fputs(text, stdout);
    fputs(console.line ? "" : "\n", stdout);
    fflush(stdout);
}

void console_clear(void)
{
    wipe();
    console.pause = 0;
    fflush(stdout);
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
